"""A space whose every design has been trained and timed, as a table that samplers search in.

The table answers what training and timing would, so samplers are compared with each other in
seconds, without data, weights, GPU or board.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import as_file, files
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from search_space.design.genotype import Genotype
from search_space.errors import USAGE, FusionNasError
from search_space.space.named import load_space
from search_space.space.space import SearchSpace
from studies.results.hypervolume import area, reference_pair

NAME = "fusion-1152"
"""The space of the table that comes with the toolkit."""
DECISIONS = ("text_tokens", "text_tap_1", "vision_tap_1", "operator_1")
"""What its designs differ in."""
FIGURES = {
    "valid_accuracy": "percent of the validation split, one training a seed",
    "test_accuracy": "percent of the test split, of the same trainings",
    "latency_ms": "least of the readings' medians",
    "latency_low_ms": "lower end of that median's 95 % interval",
    "latency_high_ms": "upper end",
    "latency_readings_ms": "median of each reading",
    "parameters": "of the whole network",
    "macs": "multiply-accumulates of one inference",
    "probe_r2": "percent of the spread of validation that the closed-form probe explains",
    "probe_s": "seconds of the probe on cached features, one core",
    "training_s": "seconds of one training on cached features, one core",
}
"""Columns beside the decisions."""
_ARRAYS = (
    "latency_ms",
    "latency_low_ms",
    "latency_high_ms",
    "valid_accuracy",
    "test_accuracy",
    "probe_r2",
    "parameters",
    "macs",
    "probe_s",
    "training_s",
)
"""The columns of a `Table`, in the order of its fields."""
_SHIPPED = files("studies") / "tables"


class TableError(FusionNasError):
    """A table cannot be read or does not hold its space; the text says what and the way out."""

    exit_code = USAGE


@dataclass(frozen=True)
class Table:
    """Every design (N) of a space with its figures.

    latency: (N,) in ms; latency_low, latency_high: of its 95 % interval. accuracy, test_accuracy:
    (N, seeds) in percent, on validation and test. probe: (N,), percent explained. parameters,
    macs, probe_s, training_s: (N,).
    """

    space: SearchSpace
    genotypes: tuple[Genotype, ...]
    latency: np.ndarray
    latency_low: np.ndarray
    latency_high: np.ndarray
    accuracy: np.ndarray
    test_accuracy: np.ndarray
    probe: np.ndarray
    parameters: np.ndarray
    macs: np.ndarray
    probe_s: np.ndarray
    training_s: np.ndarray

    @cached_property
    def _position(self) -> dict[str, int]:
        return {genotype.key: k for k, genotype in enumerate(self.genotypes)}

    def row(self, params: Mapping[str, Any]) -> int:
        """The design that a trial's answers spell. Raises KeyError, ValueError for none of it."""
        genotype = self.space.decode([params[d.name] for d in self.space.decisions])
        return self._position[genotype.key]

    @cached_property
    def mean(self) -> np.ndarray:
        """(N,): accuracy on validation in percent, mean over seeds."""
        found: np.ndarray = self.accuracy.mean(axis=1)
        return found

    @cached_property
    def front(self) -> tuple[int, ...]:
        """Designs that no other beats in mean accuracy and latency, fastest first."""
        found: list[int] = []
        for k in np.lexsort((-self.mean, self.latency)):
            if not found or self.mean[k] > self.mean[found[-1]]:
                found.append(int(k))
        return tuple(found)

    def volume(self, rows: Sequence[int], lowest: float = 0.0) -> float:
        """Hypervolume that these designs dominate over that of all designs, 0..1.

        Of mean accuracies, from `lowest` percent and the reference point's latency for all designs.
        """
        worst, some = reference_pair(float(self.latency.max()), lowest), list(rows)
        whole = area(self.mean, self.latency, worst)
        return area(self.mean[some], self.latency[some], worst) / whole


def all_designs(space: SearchSpace) -> dict[str, Genotype]:
    """Every design of a small space that can be built, by key, in the order of its vectors."""
    found: dict[str, Genotype] = {}
    for vector in product(*(decision.choices for decision in space.decisions)):
        genotype = space.decode(vector)
        if genotype.key not in found and not space.violations(genotype):
            found[genotype.key] = genotype
    return found


def load_table(file: Path | None = None) -> Table:
    """The table that comes with the toolkit, or one of the same space in a Parquet file.

    Raises TableError for a file that cannot be read, or lacks columns, designs or figures.
    """
    if file is not None:
        return _load(file)
    with as_file(_SHIPPED / f"{NAME}.parquet") as shipped:
        return _load(shipped)


def card() -> str:
    """What the table is, how it was made and what it is not for, as Markdown."""
    return (_SHIPPED / f"{NAME}.md").read_text(encoding="utf-8")


def write_table(rows: Sequence[Mapping[str, Any]], file: Path) -> None:
    """Keeps rows of DECISIONS and FIGURES as `load_table` reads them."""
    import pyarrow
    from pyarrow import parquet

    about = {"space": NAME, "columns": json.dumps(FIGURES)}
    made = pyarrow.Table.from_pylist(list(rows)).replace_schema_metadata(about)
    file.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(made, file, compression="zstd")


def _load(file: Path) -> Table:
    import pyarrow
    from pyarrow import parquet

    if not file.is_file():
        raise TableError(f"{file}: there is no such file; leave --file out for the shipped table")
    try:
        kept = parquet.read_table(file)
    except (OSError, pyarrow.ArrowException) as error:
        said = " ".join(str(error).split())
        raise TableError(f"{file}: cannot be read as Parquet ({said})") from error
    if missing := [name for name in (*DECISIONS, *FIGURES) if name not in kept.column_names]:
        raise TableError(f"{file}: has no column {', '.join(missing)}; give a table of {NAME}")
    space = load_space(NAME, weights="random")
    rows = _by_design(space, kept.to_pylist(), file)
    designs = all_designs(space)
    lacking = [design for key, design in designs.items() if key not in rows]
    if lacking:
        raise TableError(
            f"{file}: {len(lacking)} of {len(designs)} designs have no row, the first "
            f"{lacking[0].describe()}; benchmarks/build_table.py goes on with what is missing"
        )

    def column(name: str) -> np.ndarray:
        return np.array([rows[key][name] for key in designs], dtype=float)

    try:
        figures = [column(name) for name in _ARRAYS]
    except (TypeError, ValueError) as error:
        raise TableError(f"{file}: a figure is no number, or a seed is missing: {error}") from error
    for name, each in zip(_ARRAYS, figures, strict=True):
        by_seed = name in ("valid_accuracy", "test_accuracy")
        if each.ndim != 1 + by_seed or not each.size or not np.isfinite(each).all():
            said = "numbers, one a seed" if by_seed else "a number"
            raise TableError(f"{file}: {name} is not {said} in every row; build the table again")
    if not (figures[0] > 0).all():
        raise TableError(f"{file}: a latency is not above 0 ms; build the table again")
    return Table(space, tuple(designs.values()), *figures)


def _by_design(
    space: SearchSpace, rows: Sequence[dict[str, Any]], file: Path
) -> dict[str, dict[str, Any]]:
    fixed = {decision.name: decision.choices[0] for decision in space.decisions}
    found: dict[str, dict[str, Any]] = {}
    for k, row in enumerate(rows):
        decided = {**fixed, **{name: row[name] for name in DECISIONS}}
        try:
            genotype = space.decode([decided[d.name] for d in space.decisions])
        except ValueError as error:
            raise TableError(f"{file}: row {k} is no design of {NAME}: {error}") from error
        if genotype.key in found:
            raise TableError(f"{file}: row {k} repeats {genotype.describe()}; leave one of them")
        found[genotype.key] = row
    return found
