"""What `run --from` takes over from another study: designs, accuracies, readings for the model."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import optuna

from evaluators.evaluation import Evaluation, Measure
from evaluators.latency.model import TimedDesign
from search_space.design.genotype import Genotype
from studies.report.progress import Reporter
from studies.results.outcome import DesignResult
from studies.results.pareto import pareto_front
from studies.results.study_outcome import (
    BOARDS,
    CARRIED_OVER,
    CONDITIONS,
    SUBJECT,
    goals_of,
    rows_of,
)
from studies.results.text import counted
from studies.results.trial_record import StoredEvaluation, TrialRecord, TrialResult
from studies.search.latency_prediction import readings_of
from studies.study.context import StudyContext
from studies.study.lookup import find_named_study


@dataclass(frozen=True)
class EarlierDesign:
    """A design of another study, queued by the name that it had there."""

    name: str
    genotype: Genotype
    adapted: str
    result: TrialResult
    is_published: bool


class EarlierStudy:
    """The study that `--from` names."""

    def __init__(self, storage: str, given: str) -> None:
        """Open it. Raises UsageError or StorageError where there is no such study."""
        self.study: optuna.Study = find_named_study(storage, given)
        self.name = self.study.study_name

    def is_in(self, storage: str) -> bool:
        """Whether a storage holds this very study, not another of its name."""
        if self.name not in optuna.study.get_all_study_names(storage):
            return False
        same = optuna.load_study(study_name=self.name, storage=storage)
        return same.user_attrs == self.study.user_attrs

    @cached_property
    def designs(self) -> tuple[EarlierDesign, ...]:
        """Its front, fastest first, then its other named designs; each once."""
        records = {t.number: TrialRecord.of(t) for t in self.study.get_trials(deepcopy=False)}
        rows = rows_of(self.study)
        front = pareto_front(rows, goals_of(self.study.user_attrs[SUBJECT]).objectives)
        listed: list[DesignResult] = [*front, *(row for row in rows if row.name)]
        found: dict[str, EarlierDesign] = {}
        for row in listed:
            record = records[row.number or 0]
            genotype = record.result.genotype
            if genotype is not None:
                name = row.name or f"{row.label} of {self.name}"
                design = EarlierDesign(
                    name, genotype, row.adapted, record.result, is_published=bool(row.name)
                )
                found.setdefault(genotype.key, design)
        return tuple(found.values())

    def readings(self, encoders: frozenset[str]) -> dict[str, tuple[TimedDesign, ...]]:
        """Its readings of designs over these encoders alone, by its name, or by that on a board."""
        first, *others = self.study.user_attrs[SUBJECT].get(BOARDS) or [""]
        named: dict[str, str | None] = {f"{self.name} on {first}" if first else self.name: None}
        named |= {f"{self.name} on {board}": board for board in others}
        return {
            name: tuple(
                each
                for each in readings_of(self.study, board)
                if encoders.issuperset(each.genotype.encoders.values())
            )
            for name, board in named.items()
        }


def take_over(context: StudyContext, study: optuna.Study, earlier: EarlierStudy) -> int:
    """Store the earlier study's accuracies of the designs to be timed first, where they are valid.

    An accuracy is valid if its content key is that of this study: the same data, training, seed and
    weights. Others are trained anew. Designs that this space does not hold are passed over. Returns
    how many accuracies are known, and notes it in the study when it is begun.
    """
    known = 0
    for design in earlier.designs:
        if not context.space.holds(design.genotype):
            continue
        key = context.selection.key(design.genotype)
        stored = next((e for e in design.result.evaluations if e.key == key), None)
        if context.store.get(key) is not None:
            known += 1
        elif stored is not None and design.result.training is not None:
            context.store.put(_evaluation(stored, design.result, earlier.name))
            known += 1
    if CARRIED_OVER in study.user_attrs:
        return known
    note = {
        "study": earlier.name,
        "designs": len(earlier.designs),
        "names": [design.name for design in earlier.designs if not design.is_published],
        "accuracies": known,
        "latency_readings": sum(map(len, earlier.readings(encoders_of(context)).values())),
    }
    study.set_user_attr(CARRIED_OVER, note)
    conditions = dict(study.user_attrs[CONDITIONS])
    conditions[CARRIED_OVER] = in_words(note)
    study.set_user_attr(CONDITIONS, conditions)
    return known


def encoders_of(context: StudyContext) -> frozenset[str]:
    """Names of the encoders of a study's space."""
    return frozenset(spec.name for spec in context.space.encoders)


def announce(reporter: Reporter, earlier: EarlierStudy, known: int) -> None:
    """Say what is taken over, and why accuracies are not."""
    count = len(earlier.designs)
    reporter.line(f"from study {earlier.name}: {counted(count, 'design')} timed first")
    if known < count:
        reporter.line(
            f"{known} of {count} accuracies are known; the others are of other data or another "
            "training, and are trained again"
        )
    else:
        reporter.line(f"all {count} accuracies are known: same data and training")


def in_words(note: dict[str, Any]) -> str:
    """What was taken over, for the conditions of the study."""
    return (
        f"from study {note['study']}: {counted(note['designs'], 'design')} timed first, "
        f"{note['accuracies']} with a known accuracy (same data and training); the latency model "
        f"starts from {counted(note['latency_readings'], 'reading')} of that study"
    )


def _evaluation(stored: StoredEvaluation, result: TrialResult, name: str) -> Evaluation:
    """The evaluation that a trial of another study records."""
    training = result.training
    assert training is not None
    measures = tuple(
        Measure(measure, value.value, "%", "higher", value.low, value.high)
        for measure, value in stored.measures.items()
    )
    details: dict[str, Any] = {
        "fidelity": training.fidelity,
        "constant": training.constant,
        "did_not_train": training.did_not_train,
        "from_study": name,
        **({"right": list(training.correct)} if training.correct else {}),
    }
    return Evaluation(stored.key, stored.kind, measures, details)
