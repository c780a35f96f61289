"""What an evaluation is: named, finite, checked values with unit and direction."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol

from search_space.design.genotype import Genotype
from search_space.errors import NUMBERS, FusionNasError

Better = Literal["higher", "lower", "neither"]


class NotFiniteError(FusionNasError, ValueError):
    """A measured value is NaN or infinite; it is never kept and never told to a study."""

    exit_code = NUMBERS


@dataclass(frozen=True)
class Measure:
    """One value. `low` and `high` bound it with 95 % confidence where that is known."""

    name: str
    value: float
    unit: str
    better: Better = "neither"
    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        for value in (self.value, self.low, self.high):
            if value is not None and not math.isfinite(value):
                raise NotFiniteError(
                    f"{self.name} = {value} {self.unit}: not a finite number, so not a result"
                )


@dataclass(frozen=True)
class Evaluation:
    """What one evaluator found of one design.

    `key` is the content key: what was evaluated, and under which conditions. `infeasible` says
    why a design can never work there; it is empty for every design that was measured. `unstable`
    says why a measurement is not to be trusted and may be tried again; its measures are what was
    seen. `details` holds what is worth keeping beside the measures, as plain JSON values.
    """

    key: str
    kind: str
    measures: tuple[Measure, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)
    infeasible: str = ""
    unstable: str = ""

    def __getitem__(self, name: str) -> Measure:
        """The measure of this name. Raises KeyError naming those there are."""
        for measure in self.measures:
            if measure.name == name:
                return measure
        raise KeyError(f"{name}: this {self.kind} evaluation has {[m.name for m in self.measures]}")

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values; `from_json` is the inverse."""
        return asdict(self)

    @staticmethod
    def from_json(fields: Mapping[str, Any]) -> "Evaluation":
        """The evaluation that `as_json` wrote. Raises TypeError, KeyError or NotFiniteError."""
        measures = tuple(Measure(**measure) for measure in fields["measures"])
        return Evaluation(**{**fields, "measures": measures})


class Evaluator(Protocol):
    """Finds something out about a design.

    `key` tells, without measuring, under which content key the result is kept; equal keys mean
    that measuring again could only repeat it.
    """

    def key(self, genotype: Genotype) -> str:
        """The content key of evaluating this design here and now."""
        ...

    def evaluate(self, genotype: Genotype) -> Evaluation:
        """Measures. The result carries `key(genotype)`."""
        ...


def content_key(kind: str, conditions: Mapping[str, Any]) -> str:
    """SHA-256 (hex) over a kind of evaluation and everything that its result depends on."""
    text = json.dumps([kind, conditions], sort_keys=True, allow_nan=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
