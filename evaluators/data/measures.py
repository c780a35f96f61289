"""Shares of samples with their 95 % Wilson intervals."""

from __future__ import annotations

import math
from dataclasses import dataclass

Z_95 = 1.959963984540054
"""97.5th percentile of the normal distribution."""


@dataclass(frozen=True)
class Share:
    """`right` of `count` samples: the mean and its 95 % interval, each 0..1."""

    value: float
    low: float
    high: float
    correct: int
    count: int


def wilson(correct: int, count: int) -> Share:
    """The share `right / count` with its 95 % Wilson score interval.

    Raises ValueError unless 0 <= right <= count and count > 0.
    """
    if count <= 0 or not 0 <= correct <= count:
        raise ValueError(
            f"{correct} right of {count} is no share; both must count the same samples"
        )
    mean, square = correct / count, Z_95**2
    centre = (mean + square / (2 * count)) / (1 + square / count)
    spread = math.sqrt(mean * (1 - mean) / count + square / (4 * count**2))
    reach = Z_95 / (1 + square / count) * spread
    low = 0.0 if correct == 0 else max(0.0, centre - reach)
    high = 1.0 if correct == count else min(1.0, centre + reach)
    return Share(mean, low, high, correct, count)
