"""What a study came to, as plain values: everything that screen, page and JSON show."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

State = Literal["complete", "infeasible", "unstable", "failed"]


@dataclass(frozen=True)
class Value:
    """One figure and, where known, the bounds that hold it with 95 % confidence."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Row:
    """One trial, or one unimodal reference (which has no number: it is outside the search).

    accuracy, accuracy_nonzero, test_accuracy, test_accuracy_nonzero: percent of samples, the
    first two on validation. latency: ms of one inference. `name` is that of a seeded design or
    reference, else empty. `carried_over` says how a published design was brought onto these
    encoders. `reason` says why a trial is infeasible, unstable (its latency could not be read
    well enough to be compared; it was not trained) or failed. `fidelity` says how it was
    trained, `shortened` what a bound on training took from it, `device` by which device it was
    timed.
    """

    number: int | None
    state: State
    design: str
    params: Mapping[str, str | int] = field(default_factory=dict)
    name: str = ""
    carried_over: str = ""
    accuracy: Value | None = None
    accuracy_nonzero: Value | None = None
    test_accuracy: Value | None = None
    test_accuracy_nonzero: Value | None = None
    latency: Value | None = None
    parameters: int | None = None
    macs: int | None = None
    onnx_bytes: int | None = None
    fidelity: str = ""
    shortened: str = ""
    duplicate_of: int | None = None
    reason: str = ""
    device: str = ""
    published_accuracy: float | None = None
    published_latency_ms: float | None = None

    @property
    def label(self) -> str:
        """What people call it: its name, or `trial 17`."""
        return self.name or f"trial {self.number}"


@dataclass(frozen=True)
class Standing:
    """Where a named design stands against the front.

    On the front, or dominated by the trial that beats it by most, with how much accuracy (in
    points) and latency (as a ratio, its own over the other's) that trial gains.
    """

    row: Row
    on_front: bool
    dominated_by: Row | None = None
    points_lost: float = 0.0
    times_slower: float = 1.0


@dataclass(frozen=True)
class Outcome:
    """A whole study.

    rows: trials in order of number. references: unimodal designs and the like. front: rows that
    no other complete row beats, fastest first; duplicates are left out. hypervolume: after each
    complete trial, in percent-points times ms left of the reference point; empty until two
    designs are known. majority: percent that the most frequent class reaches on (valid, test).
    ceilings: percent that the best possible classifier reaches, where the data say so.
    conditions: everything a reader needs to repeat it, label to words, in the order to show.
    """

    study: str
    title: str
    data_name: str
    data_note: str
    majority: tuple[float, float]
    ceilings: Mapping[str, float]
    rows: tuple[Row, ...]
    references: tuple[Row, ...]
    front: tuple[Row, ...]
    standings: tuple[Standing, ...]
    hypervolume: tuple[tuple[int, float], ...]
    reference_point: tuple[float, float] | None
    importances: Mapping[str, Mapping[str, float]]
    conditions: Mapping[str, str]
    latency_limit_ms: float | None = None
    cautions: tuple[str, ...] = ()
