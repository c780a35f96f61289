"""What is kept beside each Optuna trial: written by the search, read by whatever shows a study.

`TrialRecord.from_attributes` and `to_attributes` alone know the names in the storage.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, get_args

import optuna
from optuna.trial import FrozenTrial, TrialState

from evaluators.evaluation import Evaluation
from search_space.design.genotype import Genotype
from search_space.errors import STORAGE, FusionNasError
from studies.results.outcome import State, Timing, Value
from studies.results.text import counted

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)

_NAME, _ADAPTED, _AGAIN, WORKER = "name", "carried_over", "again", "worker"
_ATTEMPTS, _DESIGN, _RECORD = "attempts", "design", "record"
_EVALUATION = "_key"
_PUBLISHED = ("published_accuracy", "published_latency_ms")
_TRAINING = ("fidelity", "right", "shortened", "did_not_train", "constant")
_TIMING = ("onnx_sha256", "device", "timing", "folded", "unstable", "crowded")
_BEFORE_0_1_0 = ("duplicate_of",)  # now seen when trials are read
_OTHERS = ("genotype", "key", "reason", "stopped", "predicted_ms", "seconds", *_BEFORE_0_1_0)
_BOARDS = "boards"
_NOT_MEASURES = frozenset((*_PUBLISHED, *_TRAINING, *_TIMING, *_OTHERS, _BOARDS))

TAIL = {
    "p95": "latency_p95_ms",
    "p99": "latency_p99_ms",
    "jitter": "latency_jitter_ms",
}
"""Percentiles of single runs, by name, and the measures that hold them in ms."""


class TrialRecordError(FusionNasError, ValueError):
    """A stored trial cannot be read; the text names the trial and the field."""

    exit_code = STORAGE


@dataclass(frozen=True)
class StoredEvaluation:
    """What one evaluator found, without raw samples: kind, content key, measures by name."""

    kind: str
    key: str
    measures: Mapping[str, Value]


@dataclass(frozen=True)
class PublishedFigures:
    """Published of a design: accuracy in percent, latency in ms; None where nothing was."""

    accuracy: float | None = None
    latency_ms: float | None = None


@dataclass(frozen=True)
class TrainingRecord:
    """How a design was trained.

    correct: which samples it was right about, a string of digits a seed; None where it is not kept.
    shortened: in words, what a bound took from training in studies of 0.1.0; empty for nothing.
    did_not_train: why its accuracy says little of the design, with what a linear probe of its
    features reaches; empty where training worked. constant: whether it gives one class to every
    sample.
    """

    fidelity: str
    correct: tuple[str, ...] | None = None
    shortened: str = ""
    did_not_train: str = ""
    constant: bool = False


@dataclass(frozen=True)
class TimingRecord:
    """How a design was timed: which graph, by which device, with what care.

    folded: in words, what was timed in a simpler form. unstable: why the reading cannot be used;
    empty for one that can. crowded: which load took processors from the design while it was timed.
    boards: `device` and `crowded` of the readings on the boards beside the first one, by board.
    """

    onnx_sha256: str = ""
    device: str = ""
    timing: Timing = "shared"
    folded: str = ""
    unstable: str = ""
    crowded: str = ""
    boards: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


@dataclass(frozen=True)
class TrialResult:
    """What a trial came to.

    key: of the design; empty where its trial settles nothing. reason: why it is not complete.
    stopped: before its last stage. predicted: latency in ms that was gone by before timing.
    seconds: wall time by stage, of what was not known before; empty where it was not recorded.
    """

    genotype: Genotype | None = None
    key: str = ""
    reason: str = ""
    stopped: bool = False
    published: PublishedFigures | None = None
    predicted: Value | None = None
    evaluations: tuple[StoredEvaluation, ...] = ()
    training: TrainingRecord | None = None
    timing: TimingRecord | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)

    @cached_property
    def measures(self) -> dict[str, Value]:
        """All measures by name, whichever evaluator found them."""
        return {name: value for each in self.evaluations for name, value in each.measures.items()}

    @property
    def accuracy(self) -> Value | None:
        """Percent that the search chose by; None for a design that was not trained."""
        return self.measures.get("accuracy")

    @property
    def latency(self) -> Value | None:
        """Milliseconds as they were read; None for a design that was not timed."""
        return self.measures.get("latency_ms")

    @property
    def probe(self) -> Value | None:
        """Percent that the probe explains; None for a design that was not probed."""
        return self.measures.get("probe_r2")

    @property
    def untrained(self) -> bool:
        """Whether the trained design gives one class to every sample."""
        return self.training is not None and self.training.constant

    @property
    def unstable(self) -> str:
        """Why the latency could not be read well enough; empty where it could."""
        return self.timing.unstable if self.timing else ""

    def status(self, state: TrialState) -> State:
        """What became of the trial, given what Optuna says of it."""
        if state == TrialState.COMPLETE:
            return "complete"
        if state != TrialState.PRUNED:
            return "failed"
        if self.unstable:
            return "unstable"
        if self.untrained:
            return "untrained"
        return "stopped" if self.stopped else "infeasible"

    def columns(self, state: TrialState) -> dict[str, float | str]:
        """Figures under names of their own, for tables of Optuna's dashboard; known ones alone."""
        found: dict[str, float | str | None] = {"status": self.status(state), "reason": self.reason}
        for name, value in (("accuracy", self.accuracy), ("latency_ms", self.latency)):
            if value is not None:
                found |= {name: value.value, f"{name}_low": value.low, f"{name}_high": value.high}
        for name in (*TAIL.values(), "parameters", "macs", "onnx_bytes"):
            if name in self.measures:
                found[name] = self.measures[name].value
        return {name: value for name, value in found.items() if value not in (None, "")}

    def with_evaluations(
        self,
        latency: Evaluation | None = None,
        quality: Evaluation | None = None,
        probe: Evaluation | None = None,
        further: Iterable[Evaluation] = (),
    ) -> "TrialResult":
        """Return the result with what these evaluators found."""
        found = [each for each in (latency, probe, quality, *further) if each is not None]
        return replace(
            self,
            evaluations=(*self.evaluations, *map(_without_samples, found)),
            training=self.training if quality is None else _training_of(quality),
            timing=self.timing if latency is None else _timing_of(latency),
        )

    def figures(self) -> dict[str, Any]:
        """Return the fields as they are stored, but for which samples were right."""
        return {name: value for name, value in _to_fields(self).items() if name != "right"}


@dataclass(frozen=True)
class TrialRecord:
    """All that is kept of one trial; the fields of a trial that has not ended fill as it goes on.

    name: of a seeded design. adapted: how a published design was brought into the space. again: of
    a trial that times a design which an earlier trial trained, the design's key; it is none of the
    study's total. worker: who runs it, or did. attempts: how often it was begun; None where
    it was never cut off. design: in words.
    """

    name: str = ""
    adapted: str = ""
    again: str = ""
    worker: str = ""
    attempts: int | None = None
    design: str = ""
    result: TrialResult = TrialResult()

    @staticmethod
    def of(trial: FrozenTrial) -> "TrialRecord":
        """Read the record of a stored trial. Raises TrialRecordError."""
        return TrialRecord.from_attributes(trial.user_attrs, trial.number)

    @staticmethod
    def from_attributes(attributes: Mapping[str, Any], number: int) -> "TrialRecord":
        """Read the record from a trial's user attributes. Raises TrialRecordError."""
        fields = _Fields(attributes, f"trial {number}: ")
        result = fields.mapping(_RECORD)
        return TrialRecord(
            name=fields.text(_NAME),
            adapted=fields.text(_ADAPTED),
            again=fields.text(_AGAIN),
            worker=fields.text(WORKER),
            attempts=fields.count(_ATTEMPTS),
            design=fields.text(_DESIGN),
            result=_from_fields(_Fields(result, f"trial {number}: {_RECORD}.")),
        )

    def to_attributes(self) -> dict[str, Any]:
        """Return the fields that are set, as the user attributes of a trial."""
        attributes: dict[str, Any] = {
            _NAME: self.name,
            _ADAPTED: self.adapted,
            _AGAIN: self.again,
            WORKER: self.worker,
            _ATTEMPTS: self.attempts,
            _DESIGN: self.design,
            _RECORD: _to_fields(self.result),
        }
        return {name: value for name, value in attributes.items() if value or value == 0}

    def store(self, trial: optuna.Trial) -> None:
        """Write the fields that are set beside a running trial; others there stay as they are."""
        for name, value in self.to_attributes().items():
            trial.set_user_attr(name, value)


def worker_of(trial: FrozenTrial) -> str:
    """Return the worker that a trial's record names, without reading the rest of it."""
    return _Fields(trial.user_attrs, f"trial {trial.number}: ").text(WORKER)


def again_of(trial: FrozenTrial) -> str:
    """The key of the design that a trial times again, without reading the rest of its record."""
    return _Fields(trial.user_attrs, f"trial {trial.number}: ").text(_AGAIN)


def genotype_of(trial: FrozenTrial) -> Genotype:
    """The design that a trial's record holds. Raises TrialRecordError where it holds none."""
    genotype = TrialRecord.of(trial).result.genotype
    if genotype is None:
        raise TrialRecordError(f"trial {trial.number}: {_RECORD}.genotype is missing")
    return genotype


def settled_key(trial: FrozenTrial, record: TrialRecord) -> str:
    """The key of a design that need not be tried again; else empty."""
    result = record.result
    if trial.state not in FINISHED or result.unstable or result.stopped:
        return ""
    return result.key


def _without_samples(found: Evaluation) -> StoredEvaluation:
    measures = {each.name: Value(each.value, each.low, each.high) for each in found.measures}
    return StoredEvaluation(found.kind, found.key, measures)


def _training_of(quality: Evaluation) -> TrainingRecord:
    details = quality.details
    correct = details.get("right")
    kept = None if correct is None else tuple(correct)
    failed, constant = details.get("did_not_train", ""), details.get("constant", False)
    return TrainingRecord(details["fidelity"], kept, did_not_train=failed, constant=constant)


def _timing_of(latency: Evaluation) -> TimingRecord:
    details, folded = latency.details, ""
    if blocks := details.get("folded_blocks"):
        over = "over a single key, where attention has no effect: folded"
        folded = f"{counted(blocks, 'attention block')} {over}"
    return TimingRecord(
        details.get("onnx_sha256", ""),
        details.get("device", ""),
        details.get("timing", "shared"),
        folded,
        latency.unstable,
        details.get("crowded", ""),
        details.get(_BOARDS, {}),
    )


class _Fields:
    """Values of a stored mapping by name, each checked as it is read."""

    def __init__(self, fields: Mapping[str, Any], where: str) -> None:
        self.values, self._where = fields, where

    def mapping(self, name: str) -> Mapping[str, Any]:
        found = self.values.get(name, {})
        if not isinstance(found, Mapping):
            raise self.damaged(name, "a mapping")
        return found

    def text(self, name: str) -> str:
        found = self.values.get(name, "")
        if not isinstance(found, str):
            raise self.damaged(name, "a text")
        return found

    def count(self, name: str) -> int | None:
        found = self.values.get(name)
        if found is not None and (type(found) is not int or found < 0):
            raise self.damaged(name, "a count")
        return found

    def flag(self, name: str) -> bool:
        found = self.values.get(name, False)
        if not isinstance(found, bool):
            raise self.damaged(name, "true or false")
        return found

    def number(self, name: str) -> float | None:
        found = self.values.get(name)
        if not _is_number_or_none(found):
            raise self.damaged(name, "a number")
        return found

    def value(self, name: str) -> Value | None:
        if name not in self.values:
            return None
        found = self.values[name]
        fits = isinstance(found, list | tuple) and len(found) == 3 and found[0] is not None
        if not fits or not all(map(_is_number_or_none, found)):
            raise self.damaged(name, "a number with its two bounds")
        return Value(*found)

    def correct(self, name: str) -> tuple[str, ...] | None:
        found = self.values.get(name)
        if found is None:
            return None
        rows = found if isinstance(found, list | tuple) else (None,)
        if not all(isinstance(row, str) and not row.strip("01") for row in rows):
            raise self.damaged(name, "a list of rows of 0 and 1")
        return tuple(rows)

    def damaged(self, name: str, expected: str) -> TrialRecordError:
        found = repr(self.values.get(name))
        shown = found if len(found) <= 60 else f"{found[:57]}..."
        return TrialRecordError(f"{self._where}{name} is not {expected}: {shown}")


def _is_number_or_none(found: Any) -> bool:
    return found is None or (type(found) in (int, float) and math.isfinite(found))


def _from_fields(fields: _Fields) -> TrialResult:
    values = fields.values
    published = training = timing = None
    if not values.keys().isdisjoint(_PUBLISHED):
        published = PublishedFigures(*map(fields.number, _PUBLISHED))
    if "fidelity" in values:
        correct = fields.correct("right")
        training = TrainingRecord(
            fields.text("fidelity"),
            correct,
            fields.text("shortened"),
            fields.text("did_not_train"),
            fields.flag("constant"),
        )
    if not values.keys().isdisjoint(_TIMING):
        care: Any = fields.text("timing") or "shared"
        if care not in get_args(Timing):
            raise fields.damaged("timing", " or ".join(get_args(Timing)))
        sha256, device, _, folded, unstable, crowded = map(fields.text, _TIMING)
        boards = _boards_from(fields)
        timing = TimingRecord(sha256, device, care, folded, unstable, crowded, boards)
    return TrialResult(
        genotype=_genotype_from(fields),
        key=fields.text("key"),
        reason=fields.text("reason"),
        stopped=fields.flag("stopped"),
        published=published,
        predicted=fields.value("predicted_ms"),
        evaluations=_evaluations_from(fields),
        training=training,
        timing=timing,
        seconds=_seconds_from(fields),
    )


def _boards_from(fields: _Fields) -> dict[str, dict[str, str]]:
    found = fields.mapping(_BOARDS)
    for each in found.values():
        texts = isinstance(each, Mapping) and all(isinstance(text, str) for text in each.values())
        if not texts or not {"device", "crowded"} <= each.keys():
            raise fields.damaged(_BOARDS, "device and crowded of each board")
    return {board: dict(each) for board, each in found.items()}


def _seconds_from(fields: _Fields) -> dict[str, float]:
    found = dict(fields.mapping("seconds"))
    if not all(_is_number_or_none(value) and value is not None for value in found.values()):
        raise fields.damaged("seconds", "numbers by stage")
    return found


def _genotype_from(fields: _Fields) -> Genotype | None:
    if "genotype" not in fields.values:
        return None
    try:
        return Genotype.from_json(fields.mapping("genotype"))
    except (TypeError, ValueError) as error:
        raise fields.damaged("genotype", "a design") from error


def _evaluations_from(fields: _Fields) -> tuple[StoredEvaluation, ...]:
    """Evaluations in their order: the key of each is followed by its measures."""
    kind, key, measures = "", "", dict[str, Value]()
    found = []
    for name in fields.values:
        if name in _NOT_MEASURES:
            continue
        if name.endswith(_EVALUATION):
            found.append(StoredEvaluation(kind, key, measures))
            kind, key = name.removesuffix(_EVALUATION), fields.text(name)
            measures = {}
        elif (value := fields.value(name)) is not None:
            measures[name] = value
    found.append(StoredEvaluation(kind, key, measures))
    return tuple(each for each in found if each.kind or each.measures)


def _to_fields(result: TrialResult) -> dict[str, Any]:
    """The fields of a stored result, in the order in which they have always been written."""
    fields: dict[str, Any] = {}
    if result.genotype is not None:
        fields["genotype"] = result.genotype.as_json()
    # A design that went through every stage and missed a limit has its reason at the end.
    reason_last = result.training is not None and not result.stopped
    if result.reason and not reason_last:
        fields["reason"] = result.reason
    if result.stopped:
        fields["stopped"] = True
    if result.published is not None:
        fields["published_accuracy"] = result.published.accuracy
        fields["published_latency_ms"] = result.published.latency_ms
    if result.key:
        fields["key"] = result.key
    if (predicted := result.predicted) is not None:
        fields["predicted_ms"] = [predicted.value, predicted.low, predicted.high]
    for each in result.evaluations:
        if each.kind:
            fields[f"{each.kind}{_EVALUATION}"] = each.key
        fields |= {name: [v.value, v.low, v.high] for name, v in each.measures.items()}
    if (training := result.training) is not None:
        fields["fidelity"] = training.fidelity
        fields["right"] = None if training.correct is None else list(training.correct)
        if training.shortened:
            fields["shortened"] = training.shortened
        if training.did_not_train:
            fields["did_not_train"] = training.did_not_train
        if training.constant:
            fields["constant"] = True
    if (timing := result.timing) is not None:
        fields["onnx_sha256"], fields["device"] = timing.onnx_sha256, timing.device
        fields["timing"] = timing.timing
        fields |= {"folded": timing.folded} if timing.folded else {}
        fields |= {"unstable": timing.unstable} if timing.unstable else {}
        fields |= {"crowded": timing.crowded} if timing.crowded else {}
        fields |= (
            {_BOARDS: {b: dict(of) for b, of in timing.boards.items()}} if timing.boards else {}
        )
    if result.reason and reason_last:
        fields["reason"] = result.reason
    if result.seconds:
        fields["seconds"] = dict(result.seconds)
    return fields
