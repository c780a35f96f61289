"""Objectives of plugins: figures of what a trained design predicts."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from evaluators.evaluation import Better, Measure
from search_space.errors import USAGE, FusionNasError

MEASURE = "objective_"
"""Before an objective's name it is the name of its measure."""


class ObjectiveError(FusionNasError):
    """The objective of a plugin gives no finite number."""

    exit_code = USAGE


class PredictionObjective(ABC):
    """A figure of what a trained design predicts of the validation split.

    Attributes:
        words: its name for people with its unit, as "balanced accuracy, %".
        higher: whether more of it is better.
    """

    words: ClassVar[str]
    higher: ClassVar[bool]

    @abstractmethod
    def value(self, probabilities: npt.NDArray[np.float64], labels: npt.NDArray[np.int64]) -> float:
        """Return the figure of class probabilities (N, C) and the right classes (N,)."""


def measures_of(
    objectives: Mapping[str, PredictionObjective],
    logits: npt.NDArray[np.floating],
    labels: npt.NDArray[np.int64],
) -> tuple[Measure, ...]:
    """Return the figure of each objective, by name, for logits (N, C) and right classes (N,).

    Raises ObjectiveError for a figure that is not a finite number.
    """
    exponents = np.exp(np.float64(logits) - logits.max(1, keepdims=True))
    probabilities = exponents / exponents.sum(1, keepdims=True)
    found = []
    for name, objective in objectives.items():
        value = objective.value(probabilities.copy(), labels.copy())
        is_number = isinstance(value, int | float | np.integer | np.floating)
        if not is_number or not math.isfinite(value):
            raise ObjectiveError(
                f"objective {name!r} gives {value!r}, not a finite number",
                "leave it out, or change its plugin",
            )
        better: Better = "higher" if objective.higher else "lower"
        found.append(Measure(f"{MEASURE}{name}", float(value), "", better))
    return tuple(found)
