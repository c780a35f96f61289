"""How many times slower one network is than another, from readings that were taken in turns."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

LEAST_ROUNDS = 3
"""Rounds of two readings from which their spread is estimated."""


@dataclass(frozen=True)
class Ratio:
    """A ratio of two latencies and the bounds of its 95 % confidence interval."""

    value: float
    low: float
    high: float


def ratio_in_turns(
    own_ms: Sequence[float | None], other_ms: Sequence[float | None]
) -> Ratio | None:
    """Return the latency of one network over another's, from readings of the same rounds.

    The geometric mean of the ratios of each round, with Student's interval over the rounds. What
    slows a whole round down, such as other programs, cancels out.

    Args:
        own_ms: One reading a round; None where it was not stable.
        other_ms: The other network's readings of the same rounds.

    Returns:
        None where fewer than LEAST_ROUNDS rounds hold both.

    Raises:
        ValueError: The two are not of the same number of rounds.
    """
    from scipy.special import stdtrit

    logs = [
        math.log(own / other)
        for own, other in zip(own_ms, other_ms, strict=True)
        if own is not None and other is not None
    ]
    if len(logs) < LEAST_ROUNDS:
        return None
    half = float(stdtrit(len(logs) - 1, 0.975)) * stdev(logs) / math.sqrt(len(logs))
    mean = fmean(logs)
    return Ratio(math.exp(mean), math.exp(mean - half), math.exp(mean + half))
