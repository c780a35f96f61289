"""A stored study and its designs, for notebooks and scripts."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna

from search_space.design.genotype import Genotype
from studies.infra.locations import sqlite_url
from studies.results.analysis.columns import columns
from studies.results.objectives import latency_on
from studies.results.outcome import DesignResult, Outcome
from studies.results.study_outcome import outcome_of
from studies.results.trial_record import TrialRecord
from studies.study.lookup import find_study

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from studies.trained.predictor import Predictor


def load(storage: str | Path | None = None, name: str | None = None) -> "Study":
    """Load a study that was run before, by this package or by the command.

    Args:
        storage: a URL, or the path of an SQLite file; `runs/fusion-nas.db` here if left out.
        name: the study's; may be left out where the storage holds one study.

    Raises:
        FusionNasError: where there is no such study, or a record in it is damaged.
    """
    return Study(find_study(None if storage is None else sqlite_url(storage), name))


class Study:
    """A study as it was when this object was made; `load` it again to see later trials.

    Attributes:
        name: the study's name.
        optuna: the Optuna study, for everything that is not here.
    """

    def __init__(self, study: optuna.Study) -> None:
        self.name = study.study_name
        self.optuna = study
        self._outcome: Outcome = outcome_of(study)
        self._predictor: Predictor | None = None
        trials = {trial.number: trial for trial in study.get_trials(deepcopy=False)}
        self._designs = tuple(
            Design(row, TrialRecord.of(trials[row.number]).result.genotype, self)
            for row in self._outcome.rows
            if row.number is not None
        )

    def __repr__(self) -> str:
        return f"Study({self.name!r}, {len(self.trials)} trials, {len(self.front)} on the front)"

    @property
    def trials(self) -> "Designs":
        """Every finished trial, by number."""
        return Designs(self._designs)

    @property
    def front(self) -> "Designs":
        """The designs on the Pareto front, the fastest first."""
        order = [row.number for row in self._outcome.front]
        by_number = {design.number: design for design in self._designs}
        return Designs(tuple(by_number[n] for n in order if n is not None))

    @property
    def boards(self) -> tuple[str, ...]:
        """The unlike boards that designs were timed on, the first one first; empty for one."""
        found = self._outcome.boards
        return () if found is None else tuple(each.board for each in found.fronts)

    def front_on(self, board: str) -> "Designs":
        """Return the front by accuracy and the latency on one of `boards`, the fastest first.

        Raises:
            ValueError: for a board that the study has not.
        """
        self._check_board(board)
        assert self._outcome.boards is not None
        (found,) = (each for each in self._outcome.boards.fronts if each.board == board)
        by_number = {design.number: design for design in self._designs}
        return Designs(
            tuple(by_number[row.number] for row in found.front if row.number is not None)
        )

    @property
    def good_on_all_boards(self) -> "Designs":
        """The designs that are on every board's front, or not decidedly worse than one on it."""
        found = self._outcome.boards
        by_number = {design.number: design for design in self._designs}
        good = () if found is None else found.good
        return Designs(tuple(by_number[each.rows[0].number or 0] for each in good))

    def _check_board(self, board: str) -> None:
        if board not in self.boards:
            known = ", ".join(self.boards) or "none beside its device"
            raise ValueError(f"study {self.name}: no board {board!r}; there are {known}")

    def best(
        self, latency_ms: float | None = None, latencies_ms: Mapping[str, float] | None = None
    ) -> "Design":
        """Return the most accurate design on validation, within a latency where one is given.

        Args:
            latency_ms: the greatest latency on the study's device, or on its first board.
            latencies_ms: the greatest latency on boards, by name.

        Raises:
            ValueError: where no complete design is within it, or for a board that there is not.
        """
        for board in latencies_ms or {}:
            self._check_board(board)
        known = [each for each in self._designs if each.state == "complete"]
        within = [
            each
            for each in known
            if (latency_ms is None or _is_within(each.latency_ms, latency_ms))
            and all(_is_within(each.latency_on(b), ms) for b, ms in (latencies_ms or {}).items())
        ]
        if not within:
            times = [each.latency_ms for each in known if each.latency_ms is not None]
            fastest = f"the fastest takes {min(times):.3g} ms" if times else "none is complete"
            limit = "" if latency_ms is None else f" within {latency_ms:g} ms"
            limit += "".join(f" within {ms:g} ms on {b}" for b, ms in (latencies_ms or {}).items())
            raise ValueError(f"study {self.name}: no complete design{limit}; {fastest}")
        return max(within, key=lambda each: (each.accuracy or 0.0, -(each.latency_ms or 0.0)))

    def plot_front(self, theme: str = "light") -> Any:
        """Plot validation accuracy over latency.

        Args:
            theme: `light` or `dark`.

        Returns:
            A `plotly.graph_objects.Figure`; None where no design has both figures.
        """
        from studies.report.front_plot import front
        from studies.report.themes import standalone

        plot = front(self._outcome)
        return None if plot is None else standalone(plot, theme)

    def write_page(self, path: str | Path) -> Path:
        """Write the study's HTML page and return its path. Raises FusionNasError."""
        from studies.config.paths import check_page
        from studies.report import page

        target = Path(path).expanduser()
        check_page(target)
        page.write(self._outcome, target)
        return target

    def predictor(self) -> "Predictor":
        """Return what runs this study's trained networks.

        Data and encoders are loaded once. Where trained weights are missing, as in another
        FUSION_NAS_HOME, they are trained again, which takes as long as it did then.

        Raises:
            FusionNasError: where the data or encoders are gone, or have changed since.
        """
        if self._predictor is None:
            from studies.trained.predictor import Predictor

            self._predictor = Predictor(self.optuna)
        return self._predictor


class Designs(Sequence["Design"]):
    """Designs of a study, in order."""

    def __init__(self, designs: Sequence["Design"]) -> None:
        self._designs = tuple(designs)

    def __len__(self) -> int:
        return len(self._designs)

    def __getitem__(self, index: Any) -> Any:
        found = self._designs[index]
        return Designs(found) if isinstance(index, slice) else found

    def __iter__(self) -> Iterator["Design"]:
        return iter(self._designs)

    def __repr__(self) -> str:
        return "\n".join(map(repr, self._designs)) or "no designs"

    def to_frame(self, columns: Sequence[str] | None = None) -> Any:
        """Return a table, a row per design: a `pandas.DataFrame` where pandas is installed, else a
        `pyarrow.Table`.

        `columns` chooses some. There are: number, name, state, design, accuracy with its 95 %
        interval (percent, on validation), latency_ms with its interval, test_accuracy, parameters,
        macs, onnx_bytes, device, reason, further objectives by name, and `params_NAME` for every
        decision.
        """
        rows = [design.as_row() for design in self._designs]
        names = list(dict.fromkeys(name for row in rows for name in row)) or list(_COLUMNS)
        if unknown := [name for name in columns or () if name not in names]:
            raise ValueError(f"no column {unknown[0]!r}: there are {', '.join(names)}")
        values = {name: [row.get(name) for row in rows] for name in columns or names}
        try:
            import pandas
        except ModuleNotFoundError:
            import pyarrow

            return pyarrow.table(values)
        return pandas.DataFrame(values)


@dataclass(frozen=True, repr=False)
class Design:
    """One trial: its design and what was found of it.

    Attributes:
        result: all that the study knows of it.
        genotype: the design; None where the trial ended before it had one.
    """

    result: DesignResult
    genotype: Genotype | None
    study: Study = field(compare=False)

    def __repr__(self) -> str:
        found = [f"{self.result.label}: {self.result.design}"]
        if self.accuracy is not None:
            found.append(f"{self.accuracy:.1f} %")
        if self.latency_ms is not None:
            found.append(f"{self.latency_ms:.3g} ms")
        return ", ".join(found) + ("" if self.state == "complete" else f" ({self.state})")

    @property
    def number(self) -> int:
        """The trial's number."""
        assert self.result.number is not None
        return self.result.number

    @property
    def state(self) -> str:
        """`complete`, `infeasible`, `unstable`, `stopped` or `failed`."""
        return self.result.state

    @property
    def accuracy(self) -> float | None:
        """Percent on validation."""
        return None if self.result.accuracy is None else self.result.accuracy.value

    @property
    def latency_ms(self) -> float | None:
        """Median time of one inference, in ms."""
        return None if self.result.latency is None else self.result.latency.value

    def latency_on(self, board: str) -> float | None:
        """Return the median time of one inference on a board of the study, in ms.

        Raises:
            ValueError: for a board that the study has not.
        """
        self.study._check_board(board)
        if board == self.study.boards[0]:
            return self.latency_ms
        found = self.result.more.get(latency_on(board))
        return None if found is None else found.value

    def as_row(self) -> dict[str, Any]:
        """Return this design as a row of `Designs.to_frame`."""
        return columns(self.result)

    def drawing(self, theme: str = "light") -> str:
        """Return the design as an SVG document, which a notebook shows as a picture.

        Args:
            theme: `light` or `dark`.

        Raises:
            ValueError: where the trial ended before it had a design.
        """
        from studies.report.themes import drawing

        if self.genotype is None:
            raise ValueError(f"{self.result.label}: the trial ended before it had a design")
        return drawing(self.genotype, theme)

    def predict(
        self,
        texts: Sequence[str] | None = None,
        images: Sequence[str | Path] | None = None,
        sounds: Sequence[str | Path] | None = None,
    ) -> "npt.NDArray[np.float32]":
        """Return class probabilities of the trained network, (N, classes).

        Inputs are prepared as in training; the network runs in fp32, also where the design is timed
        in another precision. `study.predictor().classes` names the classes. Those of one input add
        up to 1; of multi-label data each class has a probability of its own.

        Args:
            texts: N texts, for a design that reads them.
            images: N files of pictures, for a design that reads them.
            sounds: N WAV files (one channel, 16 kHz, 16 bits), for a design that reads them.

        Raises:
            ValueError: where an input of the design is missing, or lengths differ.
            FusionNasError: where the trial has no trained network, or its data have changed.
        """
        return self.study.predictor().predict(self.number, texts, images, sounds)

    def predict_classes(
        self,
        texts: Sequence[str] | None = None,
        images: Sequence[str | Path] | None = None,
        sounds: Sequence[str | Path] | None = None,
    ) -> list[tuple[str, ...]]:
        """Return the names of the classes of each input, as the trained network answers.

        That is the most probable class; of multi-label data all classes of probability above 0.5,
        which may be none. Arguments and errors are those of `predict`.
        """
        return self.study.predictor().chosen(self.predict(texts, images, sounds))

    def export(
        self, folder: str | Path, fine_tuned: bool = False, with_preprocessing: bool = False
    ) -> Path:
        """Write the trained network as ONNX with its card, environment and tokenizer.

        Args:
            folder: made where missing.
            fine_tuned: write the network as `fine_tune` left it.
            with_preprocessing: also write a graph for ONNX Runtime that prepares pictures and
                sounds itself.

        Returns:
            The folder.

        Raises:
            FusionNasError: where the trial has no trained network, or its data have changed.
        """
        from studies.report.progress import Silent
        from studies.trained.export import write_export

        target = Path(folder).expanduser()
        write_export(
            self.study.optuna,
            self.number,
            target,
            fine_tuned,
            Silent(),
            with_preprocessing=with_preprocessing,
        )
        return target


def _is_within(ms: float | None, limit_ms: float) -> bool:
    return ms is not None and ms <= limit_ms


_COLUMNS = ("number", "name", "state", "design", "accuracy", "latency_ms", "test_accuracy")
"""Of a table without rows."""
