"""What a stored study came to, read back from its trials and its own attributes.

Reading needs Optuna alone: a report can be made without data, device or torch.
"""

import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from evaluators.latency.readings import Reading, Readings
from evaluators.objectives import MEASURE
from evaluators.statistics.paired import Correct, correct_from
from search_space.design.genotype import Genotype
from studies.results.ablation import grid_outcome
from studies.results.analysis.boards import on_boards
from studies.results.cautions import cautions_of, neighbours
from studies.results.fine_tuned import failures, fine_tuned_of
from studies.results.objectives import MORE, Goals, boards_in, goals
from studies.results.outcome import (
    SEEDS,
    SETS,
    USE,
    DesignResult,
    FineTuned,
    ModalityUse,
    Outcome,
    Rungs,
    Split,
    Standing,
    State,
    TrialTimes,
    Turns,
    Value,
)
from studies.results.pareto import (
    hypervolume_history,
    pareto_front,
    reference_point,
    standing,
)
from studies.results.trial_record import (
    TAIL,
    PublishedFigures,
    TimingRecord,
    TrainingRecord,
    TrialRecord,
    TrialRecordError,
    TrialResult,
    settled_key,
)
from studies.results.verdict import CorrectBySplit, summary_of, with_verdicts

CONDITIONS, IDENTITY, SETTINGS, COMMAND = "conditions", "identity", "settings", "command"
PROTOCOL = "training protocol"
PLUGINS = "version of the plugins"
"""In a study's identity: package and version of each operator that a plugin has."""
ENCODER_PLUGINS = "version of the encoders' plugins"
"""In a study's identity: package and version of each encoder that a plugin has."""
SUBJECT, REFERENCES, TESTS = "subject", "references", "test"
RIGHT = "right"
"""Of the test figures by trial: which samples were right. Of the study: the same of its references,
by split and name."""
TURNS = "readings in turns"
"""Of the study: by trial number or reference's name, what `turns_json` gives of each design."""
CARRIED_OVER = "carried over"
"""Condition of a study that began from another, and the attribute with the same as values. Of it
`names` are of designs that the other study's search found: they are no baselines here."""
PARTS = "latency parts"
"""What the latency model says of the parts of designs, in ms, by trial and owner."""
BOARDS = "boards"
"""Of a study's subject: names of its unlike boards, the first one first; absent for one board."""
MIN_TRIALS_FOR_IMPORTANCE = 8
MOST_TRIALS_FOR_FANOVA = 100
_STORED_AS = {"adapted": "carried_over"}
"""Names that fields of a row have in the storage, where they are others."""
_NOT_STORED = ("turns", "latency_in_search", "times", "parts", "boards")
"""Fields of a row that the storage has elsewhere."""


def metrics(sought: Goals) -> list[str]:
    """What Optuna calls the values of a trial."""
    return ["accuracy_percent", "latency_ms", *(each.name for each in sought.more)]


def figures_of(result: TrialResult, tests: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The fields of a row that are figures, from a trial's result and from the test's figures."""
    measures = result.measures

    def whole(name: str) -> int | None:
        return int(measures[name].value) if name in measures else None

    tests = tests or {}
    training = result.training or TrainingRecord("")
    timing = result.timing or TimingRecord()
    published = result.published or PublishedFigures()
    return {
        "accuracy": result.accuracy,
        "accuracy_nonzero": measures.get("accuracy_nonzero"),
        "test_accuracy": Value.kept(tests, "accuracy"),
        "test_accuracy_nonzero": Value.kept(tests, "accuracy_nonzero"),
        "test_seeds": tuple(tests.get(SEEDS, ())),
        "use": ModalityUse.kept(tests.get(USE)),
        "test_sets": {name: Value(*each) for name, each in tests.get(SETS, {}).items()},
        "latency": result.latency,
        "probe_r2": result.probe,
        "predicted_latency": result.predicted,
        "parameters": whole("parameters"),
        "macs": whole("macs"),
        "onnx_bytes": whole("onnx_bytes"),
        "fidelity": training.fidelity,
        "shortened": training.shortened,
        "did_not_train": training.did_not_train,
        "folded": timing.folded,
        "crowded": timing.crowded,
        "device": timing.device,
        "timing": timing.timing,
        "published_accuracy": published.accuracy,
        "published_latency_ms": published.latency_ms,
        "reason": result.reason,
        "more": {
            **{each.name: measures[each.measure] for each in MORE if each.measure in measures},
            **{
                name.removeprefix(MEASURE): value
                for name, value in measures.items()
                if name.startswith(MEASURE)
            },
            **{name: measures[measure] for measure, name in boards_in(measures).items()},
        },
        "boards": timing.boards,
        "genotype": result.genotype,
        "tail": {n: measures[m].value for n, m in TAIL.items() if m in measures},
        "compile_s": measures["compile_s"].value if "compile_s" in measures else None,
    }


def correct_answers(study: optuna.Study, split: Split = "test") -> dict[int | str, Correct]:
    """Which samples each design was right about: (seeds, N), by trial number or reference's name.

    "valid": the samples that the search chose by, for every complete trial; under
    cross-validation all of train and valid. "test": for the designs that the study's end looked
    at. N and the order of samples are the same throughout; designs of which it is not kept are
    left out.
    """
    kept: dict[int | str, Any] = dict(study.user_attrs.get(RIGHT, {}).get(split, {}))
    if split == "test":
        tests = study.user_attrs.get(TESTS, {})
        kept |= {int(number): figures.get(RIGHT) for number, figures in tests.items()}
    else:
        complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        trained = ((t.number, TrialRecord.of(t).result.training) for t in complete)
        kept |= {number: training.correct for number, training in trained if training}
    return {who: correct_from(rows) for who, rows in kept.items() if rows}


def row_of(trial: FrozenTrial, record: TrialRecord, tests: Mapping[str, Any]) -> DesignResult:
    """One finished trial as a row; `tests` holds the test figures by trial number."""
    result = record.result
    return DesignResult(
        number=trial.number,
        state=result.status(trial.state),
        design=record.design,
        params=trial.params,
        name=record.name,
        adapted=record.adapted,
        **figures_of(result, tests.get(str(trial.number))),
    )


def reference_row(
    name: str,
    design: str,
    adapted: str,
    result: TrialResult,
    tests: Mapping[str, Any] | None = None,
) -> DesignResult:
    """A design outside the search, such as text alone; `tests` holds its test figures."""
    state: State = "complete" if result.latency else "infeasible"
    if result.unstable:
        state = "unstable"
    elif result.untrained:
        state = "untrained"
    figures = figures_of(result, tests)
    return DesignResult(None, state, design, name=name, adapted=adapted, **figures)


def row_json(row: DesignResult) -> dict[str, Any]:
    """A row as plain JSON values; `row_from_json` is the inverse."""
    fields = asdict(replace(row, genotype=None)) | {"genotype": row.genotype}
    fields = {name: value for name, value in fields.items() if name not in _NOT_STORED}
    if not row.test_sets:
        del fields["test_sets"]
    if row.genotype is not None:
        fields["genotype"] = row.genotype.as_json()
    return {_STORED_AS.get(name, name): value for name, value in fields.items()}


def row_from_json(fields: Mapping[str, Any]) -> DesignResult:
    """The row that `row_json` wrote."""
    own = {stored: name for name, stored in _STORED_AS.items()}
    fields = {own.get(name, name): value for name, value in fields.items()}
    accuracies = ("accuracy", "accuracy_nonzero", "test_accuracy", "test_accuracy_nonzero")
    names = (*accuracies, "latency", "probe_r2", "predicted_latency")
    values = {name: Value(**fields[name]) if fields.get(name) else None for name in names}
    values["more"] = {name: Value(**v) for name, v in fields.get("more", {}).items()}  # type: ignore[assignment]
    values["test_sets"] = {n: Value(**v) for n, v in fields.get("test_sets", {}).items()}  # type: ignore[assignment]
    kept = fields.get("use") or {}
    use = ModalityUse.from_json(kept) if "chance" in kept else None  # none by earlier versions
    seeds, spelled = tuple(fields.get("test_seeds", ())), fields.get("genotype")
    fields = {**fields, "genotype": Genotype.from_json(spelled) if spelled else None}
    return DesignResult(**{**fields, **values, "use": use, "test_seeds": seeds})


def turns_json(session: int, readings: Readings) -> dict[str, Any]:
    """Readings in turns of one design as plain JSON values."""
    return {"session": session, "readings": [each and asdict(each) for each in readings]}


def with_turns(row: DesignResult, study: optuna.Study) -> DesignResult:
    """The row with the latency that was read in turns at the study's end, where there is one.

    The latency of the search is kept if it was not disturbed and every later reading was. A design
    that is then over the study's latency limit is infeasible. Raises TrialRecordError.
    """
    found = study.user_attrs.get(TURNS, {}).get(row.name if row.number is None else str(row.number))
    if found is None:
        return row
    try:
        readings = tuple(None if each is None else Reading(**each) for each in found["readings"])
        turns = Turns(found["session"], readings)
    except (KeyError, TypeError) as error:
        said = f"{row.label}: {TURNS!r} of the study is damaged: {error}"
        raise TrialRecordError(said) from error
    row = replace(row, turns=turns)
    latency = turns.latency
    if latency is None or (turns.crowded and row.latency and not row.crowded):
        return row
    row = replace(
        row,
        latency=latency,
        latency_in_search=row.latency,
        tail=turns.tail,
        crowded=turns.crowded,
    )
    limit = study.user_attrs[SUBJECT]["latency_limit_ms"]
    if row.number is None or limit is None or latency.value <= limit:
        return row
    reason = f"{latency.value:.3f} ms, when timed again at the end, is over the latency limit of "
    return replace(row, state="infeasible", reason=f"{reason}{limit:g} ms")


def rows_of(study: optuna.Study) -> tuple[DesignResult, ...]:
    """All finished trials in order of number."""
    tests = study.user_attrs.get(TESTS, {})
    finished = [t for t in study.get_trials(deepcopy=False) if t.state.is_finished()]
    finished.sort(key=lambda t: t.number)
    read = [(trial, TrialRecord.of(trial)) for trial in finished]
    first = first_of_each(read)
    later = {
        record.again: trial.number
        for trial, record in read
        if record.again and settled_key(trial, record)
    }
    ended = active_seconds(finished)
    parts = study.user_attrs.get(PARTS, {}).get("designs", {})
    rows = []
    for trial, record in read:
        row = row_of(trial, record, tests)
        times = times_of(trial, record, ended.get(trial.number))
        row = replace(
            row,
            duplicate_of=duplicate_of(trial, record, first),
            times=times,
            parts=parts.get(str(trial.number), {}),
        )
        row = with_turns(row, study)
        if row.state == "stopped":
            timed_as = later.get(record.result.key)
            if timed_as is not None:
                row = replace(
                    row, timed_as=timed_as, reason=f"timed at the end, as trial {timed_as}"
                )
        rows.append(row)
    return tuple(rows)


def active_seconds(trials: Iterable[FrozenTrial]) -> dict[int, float]:
    """Seconds from the study's start to the end of each trial, by number.

    Time in which no trial ran is left out: a study that was paused overnight did not search then.
    """
    spans = sorted(
        (t.datetime_start, t.datetime_complete, t.number)
        for t in trials
        if t.datetime_start and t.datetime_complete
    )
    paused, until = 0.0, None
    starts, pauses = [], []  # of each stretch without a pause: its start, and all pauses before it
    for start, end, _ in spans:
        if until is None or start > until:
            paused += 0.0 if until is None else (start - until).total_seconds()
            starts.append(start)
            pauses.append(paused)
        until = end if until is None else max(until, end)
    return {
        number: (end - spans[0][0]).total_seconds() - pauses[bisect_right(starts, end) - 1]
        for _, end, number in spans
    }


def times_of(trial: FrozenTrial, record: TrialRecord, ended_s: float | None) -> TrialTimes | None:
    """When the trial ended and where its time went; None where that is not recorded."""
    if ended_s is None or trial.duration is None:
        return None
    return TrialTimes(ended_s, trial.duration.total_seconds(), record.result.seconds)


def first_of_each(trials: Iterable[tuple[FrozenTrial, TrialRecord]]) -> dict[str, int]:
    """Each design's key and the number of the first trial, in their order, that settled it."""
    first: dict[str, int] = {}
    for trial, record in trials:
        if key := settled_key(trial, record):
            first.setdefault(key, trial.number)
    return first


def duplicate_of(trial: FrozenTrial, record: TrialRecord, first: Mapping[str, int]) -> int | None:
    """The number of an earlier trial of the same design, of `first_of_each`.

    It is seen when trials are read: two workers may run one design, neither knowing of the other.
    """
    number = first.get(settled_key(trial, record))
    return None if number == trial.number else number


def _within(row: DesignResult, limit_ms: float) -> DesignResult:
    """The row, infeasible where its latency is over a limit."""
    if row.state != "complete" or row.latency is None or row.latency.value <= limit_ms:
        return row
    reason = f"{row.latency.value:.3f} ms is over the latency limit of {limit_ms:g} ms"
    return replace(row, state="infeasible", reason=reason)


def _not_trained(rows: Sequence[DesignResult], own_ms: float | None, limit_ms: float) -> list[str]:
    """What a limit that is higher than the study's own leaves open, in words."""
    if own_ms is None or limit_ms <= own_ms:
        return []
    between = [
        row
        for row in rows
        if row.state == "infeasible" and row.latency and own_ms < row.latency.value <= limit_ms
    ]
    return [
        f"The study searched under a latency limit of {own_ms:g} ms, so designs between that "
        f"and {limit_ms:g} ms may be missing from this front; {len(between)} were timed and not "
        "trained."
    ]


def outcome_of(study: optuna.Study, latency_limit_ms: float | None = None) -> Outcome:
    """Everything there is to show of a study that this toolkit made.

    Args:
        study: the study.
        latency_limit_ms: read the study under this limit instead of its own. Designs that its own
            limit excluded were not trained and stay infeasible.

    Raises:
        KeyError: for a study that was made otherwise.
    """
    rows, more = rows_of(study), list[str]()
    own_limit = study.user_attrs[SUBJECT]["latency_limit_ms"]
    if latency_limit_ms is not None:
        rows = tuple(_within(row, latency_limit_ms) for row in rows)
        more = _not_trained(rows, own_limit, latency_limit_ms)
    stored = [row_from_json(each) for each in study.user_attrs.get(REFERENCES, [])]
    references = tuple(with_turns(row, study) for row in stored)
    subject = study.user_attrs[SUBJECT]
    grid = grid_outcome(subject.get("grid"), rows, correct_answers(study))
    fine_tuned = fine_tuned_of(study.user_attrs, rows)
    # A list is given, not searched: neither its course nor its decisions mean anything.
    sought = goals_of(subject)
    objectives = sought.objectives
    reference = None if grid else reference_point(rows, objectives)
    found_before = set(study.user_attrs.get(CARRIED_OVER, {}).get("names", ()))
    named = [
        row for row in rows if row.name and row.name not in found_before and row.state == "complete"
    ]
    front = pareto_front(rows, objectives)
    by_split: CorrectBySplit = {
        "valid": correct_answers(study, "valid"),
        "test": correct_answers(study, "test"),
    }
    tested = all(row.number in by_split["test"] for row in front)
    correct = by_split["test" if tested else "valid"]
    return Outcome(
        study=study.study_name,
        title=subject["title"],
        data_name=subject["data_name"],
        data_note=subject["data_note"],
        majority=tuple(subject["majority"]),
        cv=subject.get("cv", False),
        ceilings=subject["ceilings"],
        rows=rows,
        references=references,
        front=front,
        standings=_standings(named, rows, (*front, *references), by_split, sought),
        hypervolume=hypervolume_history(rows, reference, objectives),
        reference_point=reference,
        importances={} if grid else _importances(study, sought),
        conditions=study.user_attrs[CONDITIONS],
        latency_limit_ms=own_limit if latency_limit_ms is None else latency_limit_ms,
        cautions=(
            *more,
            *cautions_of(rows, subject, references, correct, sought),
            *(
                f"Trial {number} has earned fine-tuning and could not be fine-tuned: {why}"
                for number, why in failures(study.user_attrs).items()
            ),
        ),
        neighbours=() if sought.more else neighbours(front, correct),
        grid=grid,
        rungs=rungs_of(rows, fine_tuned),
        fine_tuned=fine_tuned,
        goals=sought,
        command=study.user_attrs.get(COMMAND, ""),
        importances_by=importance_method(len(_complete(study))),
        latency_is=subject.get("latency_is") or "latency",
        multi_label=subject.get("multi_label", False),
        boards=on_boards(rows, subject.get(BOARDS, ()), by_split["valid"]),
        summary=None
        if grid or sought.more
        else summary_of(rows, references, by_split, found_before),
    )


def goals_of(subject: Mapping[str, Any]) -> Goals:
    """What a study searches for, from what it keeps about itself."""
    stored = subject.get("objectives of plugins")
    return goals(subject.get("objectives", ()), subject.get("limits", ()), stored)


def _standings(
    named: Sequence[DesignResult],
    rows: Sequence[DesignResult],
    held: Sequence[DesignResult],
    correct: CorrectBySplit,
    sought: Goals,
) -> tuple[Standing, ...]:
    """Where named designs stand; verdicts weigh accuracy and latency, so without them for more."""
    found = tuple(standing(row, rows, sought.objectives) for row in named)
    return found if sought.more else with_verdicts(found, held, correct)


def importance_method(trials: int) -> str:
    """What importances of so many complete trials are found by: fANOVA takes minutes for many."""
    return "fANOVA" if trials <= MOST_TRIALS_FOR_FANOVA else "mean decrease in impurity"


def _importance_evaluator(trials: int) -> Any:
    if importance_method(trials) == "fANOVA":
        return optuna.importance.FanovaImportanceEvaluator(seed=0)
    return optuna.importance.MeanDecreaseImpurityImportanceEvaluator(seed=0)


def _complete(study: optuna.Study) -> list[FrozenTrial]:
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


def _importances(study: optuna.Study, sought: Goals) -> dict[str, dict[str, float]]:
    complete = _complete(study)
    found: dict[str, dict[str, float]] = {}
    if len(complete) < MIN_TRIALS_FOR_IMPORTANCE:
        return found
    for at, metric in enumerate(metrics(sought)):
        values = {trial.values[at] for trial in complete}
        if len(values) < 2:
            continue

        def target(trial: FrozenTrial, at: int = at) -> float:
            return float(trial.values[at])

        evaluator = _importance_evaluator(len(complete))
        found[metric] = optuna.importance.get_param_importances(
            study, target=target, evaluator=evaluator
        )
    return found


def rungs_of(rows: Sequence[DesignResult], fine_tuned: Sequence[FineTuned] = ()) -> Rungs | None:
    """How the stages of a study that probed or fine-tuned agree; None for one that did neither."""
    probed = {row.design: row for row in rows if row.probe_r2 and row.timed_as is None}
    both = [
        (row.probe_r2.value, row.accuracy.value)
        for row in probed.values()
        if row.probe_r2 and row.accuracy
    ]
    if not probed and not fine_tuned:
        return None
    tuned = [
        (each.before.accuracy.value, each.row.accuracy.value)
        for each in fine_tuned
        if each.before.accuracy and each.row.accuracy
    ]
    return Rungs(len(probed), len(both), _tau(both), len(tuned), _tau(tuned))


def _tau(pairs: Sequence[tuple[float, float]]) -> float | None:
    """Kendall's tau-b of two rankings; None where they are too short or all alike."""
    if len(pairs) < MIN_TRIALS_FOR_IMPORTANCE:
        return None
    from scipy.stats import kendalltau

    found = float(kendalltau(*zip(*pairs, strict=True))[0])
    return found if math.isfinite(found) else None
