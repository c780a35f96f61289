"""How right predictions are: sample means with their 95 % Wilson intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from evaluators.data.samples import Sample

Z_95 = 1.959963984540054
"""97.5th percentile of the normal distribution."""


@dataclass(frozen=True)
class Share:
    """`right` of `count` samples: the mean and its 95 % Wilson interval, each 0..1."""

    value: float
    low: float
    high: float
    right: int
    count: int

    def __float__(self) -> float:
        return self.value


def wilson(right: int, count: int) -> Share:
    """The share `right / count` with its 95 % Wilson score interval.

    Raises ValueError unless 0 <= right <= count and count > 0.
    """
    if count <= 0 or not 0 <= right <= count:
        raise ValueError(f"{right} right of {count} is no share; both must count the same samples")
    mean, square = right / count, Z_95**2
    centre = (mean + square / (2 * count)) / (1 + square / count)
    spread = math.sqrt(mean * (1 - mean) / count + square / (4 * count**2))
    reach = Z_95 / (1 + square / count) * spread
    low = 0.0 if right == 0 else max(0.0, centre - reach)
    high = 1.0 if right == count else min(1.0, centre + reach)
    return Share(mean, low, high, right, count)


def accuracy(predicted: npt.NDArray[np.integer], samples: Sequence[Sample]) -> dict[str, Share]:
    """Sample means over `samples`; `predicted` has shape (len(samples),), class indices.

    "accuracy": every sample counts (in MOSI's layout: score >= 0 is non-negative, "has0").
    "accuracy_nonzero": MOSI's layout only; samples of score 0 are left out. Absent where no
    sample has a score other than 0. Raises ValueError on another shape, type or no samples.
    """
    found = np.asarray(predicted)
    if found.shape != (len(samples),) or not np.issubdtype(found.dtype, np.integer):
        raise ValueError(
            f"predictions of shape {found.shape} and type {found.dtype} do not fit "
            f"{len(samples)} samples; give one class index each, shape ({len(samples)},)"
        )
    if not samples:
        raise ValueError("no samples, so no accuracy")
    hits = found == np.array([sample.label for sample in samples])
    shares = {"accuracy": wilson(int(hits.sum()), len(samples))}
    signed = np.array([sample.score is not None and sample.score != 0 for sample in samples])
    if signed.any():
        shares["accuracy_nonzero"] = wilson(int(hits[signed].sum()), int(signed.sum()))
    return shares
