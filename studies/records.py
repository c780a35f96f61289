"""What is written beside each Optuna trial, and rows and outcomes read back from it.

Reading needs Optuna alone: a report can be made without data, device or torch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from evaluators.evaluation import Evaluation
from studies.front import (
    dominates,
    hypervolume_history,
    pareto_front,
    reference_point,
    standing,
)
from studies.outcome import Outcome, Row, State, Value
from studies.wording import counted

RECORD, NAME, CARRIED_OVER, WORKER, DESIGN = "record", "name", "carried_over", "worker", "design"
CONDITIONS, IDENTITY, SETTINGS = "conditions", "identity", "settings"
PROTOCOL = "training protocol"
SUBJECT, REFERENCES, TESTS = "subject", "references", "test"
UNSTABLE = "unstable"
METRICS = ["accuracy_percent", "latency_ms"]
MIN_TRIALS_FOR_IMPORTANCE = 8


def record_of(
    latency: Evaluation | None,
    quality: Evaluation | None,
    genotype: Mapping[str, Any],
    **more: Any,
) -> dict[str, Any]:
    """What a trial keeps: the design, its evaluations without raw samples, and more."""
    record: dict[str, Any] = {"genotype": dict(genotype), **more}
    for evaluation in (latency, quality):
        if evaluation is None:
            continue
        record[f"{evaluation.kind}_key"] = evaluation.key
        for measure in evaluation.measures:
            record[measure.name] = [measure.value, measure.low, measure.high]
    if quality is not None:
        record["fidelity"] = quality.details["fidelity"]
        allowed, asked = quality.details["fusion_epochs"]
        if allowed < asked:
            record["shortened"] = f"fusion trained for at most {allowed} of {asked} epochs"
    if latency is not None:
        record["onnx_sha256"] = latency.details.get("onnx_sha256", "")
        record["device"] = latency.details.get("device", "")
        if latency.unstable:
            record[UNSTABLE] = latency.unstable
    return record


def figures_of(record: Mapping[str, Any], tests: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The fields of a Row that are figures, from a record and from the test's figures."""

    def value(source: Mapping[str, Any], name: str) -> Value | None:
        return Value(*source[name]) if name in source else None

    def whole(name: str) -> int | None:
        return int(record[name][0]) if name in record else None

    tests = tests or {}
    return {
        "accuracy": value(record, "accuracy"),
        "accuracy_nonzero": value(record, "accuracy_nonzero"),
        "test_accuracy": value(tests, "accuracy"),
        "test_accuracy_nonzero": value(tests, "accuracy_nonzero"),
        "latency": value(record, "latency_ms"),
        "parameters": whole("parameters"),
        "macs": whole("macs"),
        "onnx_bytes": whole("onnx_bytes"),
        "fidelity": record.get("fidelity", ""),
        "shortened": record.get("shortened", ""),
        "device": record.get("device", ""),
        "published_accuracy": record.get("published_accuracy"),
        "published_latency_ms": record.get("published_latency_ms"),
        "reason": record.get("reason", ""),
        "duplicate_of": record.get("duplicate_of"),
    }


def is_unstable(trial: FrozenTrial) -> bool:
    """Whether a trial ended because its latency could not be read well enough."""
    return bool(trial.user_attrs.get(RECORD, {}).get(UNSTABLE))


def row_of(trial: FrozenTrial, tests: Mapping[str, Any]) -> Row:
    """One finished trial as a row; `tests` holds the test figures by trial number."""
    record = trial.user_attrs.get(RECORD, {})
    pruned = "unstable" if is_unstable(trial) else "infeasible"
    states = {TrialState.COMPLETE: "complete", TrialState.PRUNED: pruned}
    return Row(
        number=trial.number,
        state=states.get(trial.state, "failed"),  # type: ignore[arg-type]
        design=trial.user_attrs.get(DESIGN, ""),
        params=trial.params,
        name=trial.user_attrs.get(NAME, ""),
        carried_over=trial.user_attrs.get(CARRIED_OVER, ""),
        **figures_of(record, tests.get(str(trial.number))),
    )


def reference_row(name: str, design: str, carried_over: str, record: Mapping[str, Any]) -> Row:
    """A design outside the search, such as text alone."""
    state: State = "unstable" if record.get(UNSTABLE) else "complete"
    return Row(None, state, design, name=name, carried_over=carried_over, **figures_of(record))


def row_json(row: Row) -> dict[str, Any]:
    """A row as plain JSON values; `row_from_json` is the inverse."""
    return asdict(row)


def row_from_json(fields: Mapping[str, Any]) -> Row:
    """The row that `row_json` wrote."""
    names = ("accuracy", "accuracy_nonzero", "test_accuracy", "test_accuracy_nonzero", "latency")
    values = {name: Value(**fields[name]) if fields.get(name) else None for name in names}
    return Row(**{**fields, **values})


def rows_of(study: optuna.Study) -> tuple[Row, ...]:
    """All finished trials in order of number."""
    tests = study.user_attrs.get(TESTS, {})
    finished = [t for t in study.get_trials(deepcopy=False) if t.state.is_finished()]
    first: dict[str, int] = {}
    rows = []
    for trial in sorted(finished, key=lambda t: t.number):
        row = row_of(trial, tests)
        key = trial.user_attrs.get(RECORD, {}).get("key")
        if key and row.state == "complete" and first.setdefault(key, trial.number) != trial.number:
            # Two workers may have had the same design in hand at once, neither knowing it.
            row = replace(row, duplicate_of=first[key])
        rows.append(row)
    return tuple(rows)


def outcome_of(study: optuna.Study) -> Outcome:
    """Everything there is to show of a study that this toolkit made. Raises KeyError otherwise."""
    rows = rows_of(study)
    references = tuple(row_from_json(r) for r in study.user_attrs.get(REFERENCES, []))
    subject = study.user_attrs[SUBJECT]
    reference = reference_point(rows)
    named = [row for row in rows if row.name and row.state == "complete"]
    return Outcome(
        study=study.study_name,
        title=subject["title"],
        data_name=subject["data_name"],
        data_note=subject["data_note"],
        majority=tuple(subject["majority"]),
        ceilings=subject["ceilings"],
        rows=rows,
        references=references,
        front=pareto_front(rows),
        standings=tuple(standing(row, rows) for row in named),
        hypervolume=hypervolume_history(rows, reference),
        reference_point=reference,
        importances=_importances(study),
        conditions=study.user_attrs[CONDITIONS],
        latency_limit_ms=subject["latency_limit_ms"],
        cautions=cautions_of(rows, subject, references),
    )


def cautions_of(
    rows: Sequence[Row], subject: Mapping[str, Any], references: Sequence[Row] = ()
) -> tuple[str, ...]:
    """What a reader must know before believing the front."""
    found = [*subject.get("cautions", [])]
    failed = [row for row in rows if row.state == "failed"]
    if failed:
        found.append(
            f"{len(failed)} trials failed and are on no front; trial {failed[0].number}: "
            f"{failed[0].reason or 'no reason was kept'}"
        )
    unstable = [row for row in rows if row.state == "unstable"]
    if unstable:
        found.append(
            f"{counted(len(unstable), 'trial')} had no stable latency: on no front, not trained, "
            f"to be timed again when the design comes up again. {unstable[0].label}: "
            f"{unstable[0].reason}"
        )
    front = pareto_front(rows)
    for row in references:
        if row.state == "unstable":
            found.append(f"The latency of {row.label} is not stable: {row.reason}")
            continue
        beaten = [other for other in front if dominates(row, other)]
        if beaten:
            found.append(
                f"{row.label}, outside the search, dominates {len(beaten)} of "
                f"{counted(len(front), 'design')} on the front, {beaten[0].label} first: one "
                "modality alone is no less accurate and no slower."
            )
    if len({row.fidelity for row in rows if row.fidelity}) > 1:
        found.append(
            "Late designs train fusion and head on frozen trunks, all others are trained whole; "
            "both start from trunks that were fine-tuned alone."
        )
    shortened = [row for row in rows if row.shortened]
    if shortened:
        first = ", ".join(row.label for row in shortened[:5])
        found.append(
            f"{counted(len(shortened), 'trial')} ({first}{', ...' if len(shortened) > 5 else ''}) "
            "had a fusion so dear that it got fewer epochs than the others: their accuracy is "
            "what this bound allows."
        )
    best = [row for row in front if row.accuracy]
    if len(best) > 1:
        top = max(best, key=lambda row: row.accuracy.value if row.accuracy else 0)
        if top.accuracy and top.accuracy.low is not None:
            tied = [r for r in best if r.accuracy and r.accuracy.value >= top.accuracy.low]
            if len(tied) > 1:
                found.append(
                    f"{len(tied)} of the {len(best)} designs on the front lie within the 95 % "
                    f"interval of the most accurate one ({top.accuracy.low:.1f} to "
                    f"{top.accuracy.high:.1f} %): these data do not order them."
                )
    return tuple(found)


def _importances(study: optuna.Study) -> dict[str, dict[str, float]]:
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    found: dict[str, dict[str, float]] = {}
    if len(complete) < MIN_TRIALS_FOR_IMPORTANCE:
        return found
    for at, metric in enumerate(METRICS):
        values = {trial.values[at] for trial in complete}
        if len(values) < 2:
            continue

        def target(trial: FrozenTrial, at: int = at) -> float:
            return float(trial.values[at])

        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
        found[metric] = optuna.importance.get_param_importances(
            study, target=target, evaluator=evaluator
        )
    return found
