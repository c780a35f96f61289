"""Sentiment scores as more classes than two, and the numbers that classes stand for."""

import hashlib
import re
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from evaluators.data.errors import DataError
from evaluators.data.samples import DataSet

SEVEN = tuple(str(score) for score in range(-3, 4))
"""Classes of CMU-MOSI's "Acc-7": scores rounded to whole numbers, halves to the even one."""
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?")


def seven_classes(data: DataSet) -> DataSet:
    """Return the data with each score rounded to a whole number, -3 to 3, as its class.

    Raises DataError for data without scores, and where no training sample has one of the classes.
    """
    scores = [sample.score for sample in data.samples]
    if any(score is None for score in scores):
        raise DataError(
            f"{data.name}: --score-classes 7 needs scores from -3 to 3, as CMU-MOSI has; these "
            "data have classes: leave it out"
        )
    samples = tuple(
        replace(sample, label=round(score) + 3)
        for sample, score in zip(data.samples, scores, strict=True)
        if score is not None
    )
    trained = {sample.label for sample in samples if sample.split == "train"}
    if lost := [name for label, name in enumerate(SEVEN) if label not in trained]:
        raise DataError(
            f"{data.name}: --score-classes 7: no training sample has a score that rounds to "
            f"{', '.join(lost)}; leave it out"
        )
    fingerprint = hashlib.sha256(f"{data.fingerprint} 7 classes".encode()).hexdigest()
    note = data.note.replace(
        "non-negative means a score of 0 or more", "the class is the score, rounded"
    )
    return replace(
        data, classes=SEVEN, samples=samples, note=note, fingerprint=fingerprint, ceilings=None
    )


def class_values(classes: tuple[str, ...]) -> npt.NDArray[np.float64] | None:
    """Return the numbers that are the names of the classes, (C,); None where one is no number."""
    if not all(_NUMBER.fullmatch(name) for name in classes):
        return None
    return np.array([float(name) for name in classes])


def targets(data: DataSet, split: str) -> npt.NDArray[np.float64] | None:
    """Return the scores of a split, or else the numbers that its classes stand for, (N,)."""
    samples = [sample for sample in data.samples if sample.split == split]
    values = class_values(data.classes)
    if values is None:
        return None
    return np.array([values[each.label] if each.score is None else each.score for each in samples])
