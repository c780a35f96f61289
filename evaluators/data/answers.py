"""What logits answer, and whether that is right: one class, or of multi-label data a set of them.

The answer is the class of the greatest logit; of multi-label data all classes of probability above
0.5 by the logistic function, that is of logits above 0. Such a sample is right where the set is the
very set of its classes.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from evaluators.data.samples import Sample

THRESHOLD = 0.5
"""Probability above which a class is among those of a sample of multi-label data."""
Targets = npt.NDArray[np.int64]
"""Classes (N,), or of multi-label data (N, C): 1 for the classes of a sample, else 0."""


def targets_of(samples: Sequence[Sample], classes: int) -> Targets:
    """Return the right answers of samples of data with so many classes."""
    if not any(sample.labels is not None for sample in samples[:1]):
        return np.array([sample.label for sample in samples], dtype=np.int64)
    found = np.zeros((len(samples), classes), dtype=np.int64)
    for row, sample in zip(found, samples, strict=True):
        row[list(sample.labels or ())] = 1
    return found


def answers_of(logits: npt.NDArray[Any], multi_label: bool) -> npt.NDArray[np.int64]:
    """Return what logits (..., C) answer: classes (...), or 1 and 0 (..., C)."""
    found = logits > 0 if multi_label else logits.argmax(-1)
    return found.astype(np.int64)


def is_right(logits: npt.NDArray[Any], targets: Targets) -> npt.NDArray[np.bool_]:
    """Return whether logits (..., N, C) answer the targets: (..., N)."""
    several = targets.ndim == 2
    same: npt.NDArray[np.bool_] = answers_of(logits, several) == targets
    return np.all(same, axis=-1) if several else same


def right_share(logits: npt.NDArray[Any], samples: Sequence[Sample]) -> float:
    """Return the share, 0..1, of samples that logits (N, C) are right about."""
    return float(is_right(logits, targets_of(samples, logits.shape[-1])).mean())


def all_alike(answers: npt.NDArray[np.int64]) -> bool:
    """Return whether all of several answers, as `answers_of` gives them, are one."""
    return len(np.unique(answers, axis=0)) == 1


def probabilities_of(logits: npt.NDArray[Any], multi_label: bool) -> npt.NDArray[np.float64]:
    """Return class probabilities (..., C) of logits (..., C): by softmax, or each by itself."""
    wide = logits.astype(np.float64)
    if multi_label:
        found: npt.NDArray[np.float64] = 0.5 * (1 + np.tanh(wide / 2))
        return found
    weights = np.exp(wide - wide.max(-1, keepdims=True))
    found = weights / weights.sum(-1, keepdims=True)
    return found
