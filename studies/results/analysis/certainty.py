"""How sure it is that a design is not dominated."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from studies.results.outcome import DesignResult, Value
from studies.results.pareto import complete

DRAWS = 1000
SEED = 0
Z_95 = 1.959964
DEFINITION = (
    "Share of 1,000 draws in which no other complete design is at least as accurate and as fast. "
    "Each draw takes accuracy and the logarithm of latency of every design from normal "
    "distributions that have the designs' 95 % intervals. Designs are drawn independently "
    "although they share their validation samples, and the interval of a latency does not cover "
    "later readings."
)
"""What the probability is, for readers."""

Floats = NDArray[np.float64]


def non_dominated(rows: Sequence[DesignResult]) -> dict[int, float]:
    """Probability (0 to 1) that each complete design is not dominated, by trial number.

    `DEFINITION` says how it is found. Designs without intervals take part as if they were exact;
    duplicates are left out.
    """
    known = [
        row for row in complete(rows) if row.accuracy and row.latency and row.latency.value > 0
    ]
    if not known:
        return {}
    accuracy, accuracy_sd = _normal([row.accuracy for row in known if row.accuracy], np.asarray)
    latency, latency_sd = _normal([row.latency for row in known if row.latency], np.log)
    generator = np.random.default_rng(SEED)
    counts = np.zeros(len(known))
    for _ in range(DRAWS):
        counts += _on_front(
            accuracy + accuracy_sd * generator.standard_normal(len(known)),
            latency + latency_sd * generator.standard_normal(len(known)),
        )
    return {
        row.number: float(share)
        for row, share in zip(known, counts / DRAWS, strict=True)
        if row.number is not None
    }


def _normal(values: Sequence[Value], scale: object) -> tuple[Floats, Floats]:
    """Means (N,) and standard deviations (N,) on a scale, from values and their intervals."""
    means, deviations = [], []
    for value in values:
        low = value.value if value.low is None else value.low
        high = value.value if value.high is None else value.high
        middle, low, high = (float(scale(max(v, 1e-12))) for v in (value.value, low, high))  # type: ignore[operator]
        means.append(middle)
        deviations.append((high - low) / (2 * Z_95))
    return np.array(means), np.array(deviations)


def _on_front(accuracy: Floats, latency: Floats) -> NDArray[np.bool_]:
    """Which points (N,) no other dominates."""
    order = np.lexsort((-accuracy, latency))
    ahead = np.maximum.accumulate(np.concatenate(([-np.inf], accuracy[order])))[:-1]
    found = np.zeros(len(order), dtype=bool)
    found[order] = accuracy[order] > ahead
    return found
