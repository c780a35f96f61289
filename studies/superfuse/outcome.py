"""What the study `superfuse` came to, and the figures that its tables and plots share."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from evaluators.data import Split
from evaluators.superfuse.embeddings import TaskName
from evaluators.superfuse.model import SuperfuseConfig, Trained
from evaluators.superfuse.names import FACTORS, FUSIONS, Fusion, Noised
from studies.results.outcome import Value

REFERENCE_SIZE = 1024
"""Training pairs at which fusions are compared with each other in words."""
REFERENCE_FACTOR = 0.1
"""The noise factor of the same."""
Seeds = NDArray[np.float64]
"""(S,): one figure a seed, in the order of the seeds."""


@dataclass(frozen=True)
class TaskFacts:
    """A task's classes, the widths of text and vision, rows by split, and the share of the most
    frequent class of test in percent."""

    name: TaskName
    classes: tuple[str, ...]
    widths: tuple[int, int]
    rows: Mapping[Split, int]
    majority_percent: float


@dataclass(frozen=True)
class Cell:
    """The networks of all seeds of one fusion, trained on `size` pairs of a task."""

    task: TaskName
    fusion: Fusion
    size: int
    trained: tuple[Trained, ...]

    @property
    def test(self) -> Seeds:
        """Test accuracy in percent."""
        return np.array([each.test for each in self.trained])

    @property
    def valid(self) -> Seeds:
        """Validation accuracy of the best epoch in percent."""
        return np.array([each.valid for each in self.trained])

    @property
    def auc(self) -> Seeds:
        """Area under the ROC curve on test, 0 to 1; NaN where test has one class only."""
        return np.array([each.auc for each in self.trained])

    @property
    def roc(self) -> tuple[float, ...]:
        """Rates of true positives at FALSE_POSITIVES, mean over seeds; () without a curve."""
        return tuple(np.mean([each.roc for each in self.trained], axis=0).tolist())

    def under(self, noised: Noised, factor: float) -> Seeds:
        """Test accuracy under noise in percent."""
        at = FACTORS.index(factor)
        return np.array([each.noise[noised][at] for each in self.trained])

    def fall(self, noised: Noised, factor: float) -> Seeds:
        """Percent points that noise takes from the clean test accuracy."""
        return self.test - self.under(noised, factor)

    def share_lost(self, noised: Noised, factor: float) -> Seeds:
        """The same in percent of the clean test accuracy."""
        return 100 * self.fall(noised, factor) / self.test


@dataclass(frozen=True)
class Superfused:
    """Everything that is shown. `notes` say what was left out and why.

    drawn: the embeddings are no encoder's. centred, projected: what was done to those given.
    """

    study: str
    title: str
    about: str
    data_name: str
    data_note: str
    notes: tuple[str, ...]
    tasks: tuple[TaskFacts, ...]
    cells: tuple[Cell, ...]
    config: SuperfuseConfig
    drawn: bool
    centred: bool = False
    projected: int | None = None

    @property
    def seeds(self) -> int:
        """Networks of each cell."""
        return len(self.cells[0].trained)

    def fusions(self, task: TaskName) -> tuple[Fusion, ...]:
        """Those that were trained on a task, in the order of the source."""
        there = {cell.fusion for cell in self.cells if cell.task == task}
        return tuple(fusion for fusion in FUSIONS if fusion in there)

    def sizes(self, task: TaskName) -> tuple[int, ...]:
        """Training sizes of a task, ascending."""
        return tuple(sorted({cell.size for cell in self.cells if cell.task == task}))

    def cell(self, task: TaskName, fusion: Fusion, size: int) -> Cell:
        """One cell. Raises StopIteration where it is not there."""
        return next(c for c in self.cells if (c.task, c.fusion, c.size) == (task, fusion, size))

    def at(self, task: TaskName, size: int) -> dict[Fusion, Cell]:
        """Each fusion of a task at one training size."""
        return {fusion: self.cell(task, fusion, size) for fusion in self.fusions(task)}

    def shown_sizes(self, task: TaskName) -> tuple[int, ...]:
        """Where noise is shown: REFERENCE_SIZE, or the size nearest below it, and the largest."""
        sizes = self.sizes(task)
        reference = max((size for size in sizes if size <= REFERENCE_SIZE), default=sizes[0])
        return tuple(dict.fromkeys((reference, sizes[-1])))


def mean(figures: Seeds) -> Value:
    """Mean over seeds and its 95 % interval (Student's)."""
    count = len(figures)
    middle = float(figures.mean())
    half = float(student.ppf(0.975, count - 1) * figures.std(ddof=1) / count**0.5)
    return Value(middle, middle - half, middle + half)


def difference(one: Cell, other: Cell, figure: Callable[[Cell], Seeds]) -> Value:
    """Mean over seeds of one cell's figure less the other's, paired by seed, with its interval."""
    return mean(figure(one) - figure(other))


def decided(value: Value) -> bool:
    """Whether the interval leaves zero out."""
    return (value.low or 0.0) > 0 or (value.high or 0.0) < 0


def seconds(cells: Sequence[Cell]) -> tuple[float, float]:
    """Processor seconds of training and of the noise curves, all seeds together."""
    trained = [each for cell in cells for each in cell.trained]
    return sum(each.train_s for each in trained), sum(each.noise_s for each in trained)
