"""Hypervolume and its reference point, as reports, samplers, early stopping and tables count it."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

WORST_WHERE_MORE_IS_BETTER = 0.0
BEYOND_THE_GREATEST = 1.1


def reference_value(higher: bool, greatest: float) -> float:
    """One objective's value of the reference point, given the greatest value that designs have.

    0 where more is better, 1.1 times the greatest where less is.
    """
    return WORST_WHERE_MORE_IS_BETTER if higher else BEYOND_THE_GREATEST * greatest


def reference_pair(
    slowest_ms: float, lowest_percent: float = WORST_WHERE_MORE_IS_BETTER
) -> tuple[float, float]:
    """The reference point of accuracy and latency, (percent, ms)."""
    return lowest_percent, reference_value(False, slowest_ms)


def front_of(
    accuracy: Floats, latency: Floats, worst: tuple[float, float]
) -> tuple[Floats, Floats]:
    """(accuracies, latencies) of the points (N,) that no other beats, fastest first.

    `worst` is the reference point (percent, ms): what is not better in both counts for nothing.
    """
    order = np.lexsort((-accuracy, latency))
    accuracy, latency = accuracy[order], latency[order]
    before = np.maximum.accumulate(np.concatenate(([worst[0]], accuracy)))[:-1]
    kept = (accuracy > before) & (latency < worst[1])
    return accuracy[kept], latency[kept]


def area(accuracy: Floats, latency: Floats, worst: tuple[float, float]) -> float:
    """What points (N,) dominate up to the reference point `worst`, in percent x ms."""
    levels, times = front_of(accuracy, latency, worst)
    total, best = 0.0, worst[0]
    # In this order, one by one: the figure is printed with all of its digits.
    for level, at in zip(levels.tolist(), times.tolist(), strict=True):
        total += (level - best) * (worst[1] - at)
        best = level
    return total


def volume(gains: Floats, worst: Floats) -> float:
    """What points (N, objectives) dominate down to `worst`; of each objective more is better.

    Exact. Optuna's own is not public, so more than two objectives are counted by slices of the last
    one: a point adds its height over `worst`, times what its base adds to the bases of all points
    that are higher (While, Bradstreet and Barone, "A fast way of calculating exact hypervolumes",
    IEEE Trans. Evolutionary Computation, 2012).
    """
    gains = gains[(gains > worst).all(axis=1)]
    if gains.shape[1] == 2:
        return area(gains[:, 0], -gains[:, 1], (float(worst[0]), -float(worst[1])))
    gains = not_dominated(gains)
    gains = gains[np.argsort(-gains[:, -1], kind="stable")]
    bases, total = gains[:, :-1], 0.0
    for k, base in enumerate(bases):
        shared = volume(np.minimum(bases[:k], base), worst[:-1])
        added = float(np.prod(base - worst[:-1])) - shared
        total += float(gains[k, -1] - worst[-1]) * added
    return total


def not_dominated(gains: Floats) -> Floats:
    """The points (N, objectives) that no other beats, each once."""
    gains = np.unique(gains, axis=0)
    no_less = (gains[None] >= gains[:, None]).all(axis=2)
    return np.asarray(gains[no_less.sum(axis=1) == 1])
