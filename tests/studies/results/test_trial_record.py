"""What is kept beside a trial is read as it was written, and damage is told by trial and field."""

import json
import sqlite3
from contextlib import closing
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState
from stored_study import stored_study

from evaluators.evaluation import Evaluation, Measure
from search_space.design.genotype import FusionPoint, Genotype
from studies.infra.storage import open_storage
from studies.results.outcome import Value
from studies.results.study_outcome import reference_row, row_from_json, row_json
from studies.results.trial_record import (
    PublishedFigures,
    TrialRecord,
    TrialRecordError,
    TrialResult,
    genotype_of,
)

GENOTYPE = Genotype("text", "vision", 16, (FusionPoint(1, 1),))
LATENCY = Evaluation(
    "k1",
    "latency",
    (Measure("latency_ms", 2.5, "ms", "lower", 2.4, 2.6), Measure("parameters", 100, "")),
    {"onnx_sha256": "ab", "device": "board", "timing": "alone", "folded_blocks": 1},
)
QUALITY = Evaluation(
    "k2",
    "quality",
    (Measure("accuracy", 81.5, "%", "higher", 80.0, 83.0),),
    {"fidelity": "whole", "right": ["0110"]},
)
PROBE = Evaluation("k3", "probe", (Measure("probe_r2", 40.0, "%"),))
STORED = {
    "genotype": GENOTYPE.as_json(),
    "published_accuracy": 84.25,
    "published_latency_ms": None,
    "key": GENOTYPE.key,
    "latency_key": "k1",
    "latency_ms": [2.5, 2.4, 2.6],
    "parameters": [100, None, None],
    "probe_key": "k3",
    "probe_r2": [40.0, None, None],
    "quality_key": "k2",
    "accuracy": [81.5, 80.0, 83.0],
    "fidelity": "whole",
    "right": ["0110"],
    "shortened": "fusion trained for at most 3 of 9 epochs",
    "onnx_sha256": "ab",
    "device": "board",
    "timing": "alone",
    "folded": "1 attention block over a single key, where attention has no effect: folded",
    "crowded": "other programs used 1.7 of 2 processors",
}


def of_a_whole_trial(**more: Any) -> TrialResult:
    published = PublishedFigures(84.25, None)
    result = TrialResult(GENOTYPE, GENOTYPE.key, published=published, **more)
    result = result.with_evaluations(LATENCY, QUALITY, PROBE)
    assert result.training is not None and result.timing is not None
    short = replace(result.training, shortened="fusion trained for at most 3 of 9 epochs")
    crowded = replace(result.timing, crowded="other programs used 1.7 of 2 processors")
    return replace(result, training=short, timing=crowded)


def text_of(record: TrialRecord) -> str:
    """The attributes as a storage keeps them."""
    return json.dumps(record.to_attributes())


def test_a_trial_is_written_under_the_names_and_in_the_order_of_earlier_versions() -> None:
    record = TrialRecord(name="late", design="in words", result=of_a_whole_trial())
    written = {"name": "late", "design": "in words", "record": STORED}
    assert text_of(record) == json.dumps(written)
    assert TrialRecord.from_attributes(written, 0) == record


@pytest.mark.parametrize(
    ("more", "first", "last"),
    [
        ({"reason": "over a limit"}, "published_accuracy", "reason"),
        ({"reason": "not timed", "stopped": True}, "reason", "crowded"),
    ],
)
def test_the_reason_stands_where_it_was_known(more: Any, first: str, last: str) -> None:
    names = list(TrialRecord(result=of_a_whole_trial(**more)).to_attributes()["record"])
    assert (names[1], names[-1]) == (first, last)


def test_fields_that_are_not_set_are_not_written() -> None:
    assert TrialRecord().to_attributes() == {}
    assert TrialRecord(worker="w", attempts=0).to_attributes() == {"worker": "w", "attempts": 0}
    failed = TrialResult(reason="its worker ended")
    assert TrialRecord(result=failed).to_attributes() == {"record": {"reason": "its worker ended"}}


def test_every_trial_of_a_stored_study_is_written_again_byte_for_byte(tmp_path: Path) -> None:
    url = stored_study(tmp_path)
    study = optuna.load_study(study_name=None, storage=open_storage(url))  # type: ignore[arg-type]
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as database:
        query = "SELECT trial_id, key, value_json FROM trial_user_attributes"
        stored = {(trial, name): text for trial, name, text in database.execute(query)}
    written = {
        (trial._trial_id, name): json.dumps(value)
        for trial in study.get_trials()
        for name, value in TrialRecord.of(trial).to_attributes().items()
    }
    assert len(study.get_trials()) == 6 and written == stored


def test_a_record_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        TrialRecord().name = "other"  # type: ignore[misc]


def test_a_trial_of_before_0_1_0_is_read() -> None:
    old = {"record": {"duplicate_of": 3, "key": "k", "latency_ms": [2.5, 2.4, 2.6]}}
    result = TrialRecord.from_attributes(old, 4).result
    assert result.key == "k" and result.latency == Value(2.5, 2.4, 2.6)
    assert result.timing is None and result.training is None


@pytest.mark.parametrize(
    ("attributes", "field"),
    [
        ({"name": 3}, "name"),
        ({"worker": None}, "worker"),
        ({"attempts": -1}, "attempts"),
        ({"attempts": True}, "attempts"),
        ({"record": "text"}, "record"),
        ({"record": {"genotype": {}}}, "record.genotype"),
        ({"record": {"genotype": 5}}, "record.genotype"),
        ({"record": {"stopped": "yes"}}, "record.stopped"),
        ({"record": {"published_accuracy": "84"}}, "record.published_accuracy"),
        ({"record": {"predicted_ms": [1.0, 2.0]}}, "record.predicted_ms"),
        ({"record": {"latency_ms": "fast"}}, "record.latency_ms"),
        ({"record": {"latency_ms": [None, 1.0, 2.0]}}, "record.latency_ms"),
        ({"record": {"accuracy": [float("nan"), None, None]}}, "record.accuracy"),
        ({"record": {"fidelity": "whole", "right": ["01x"]}}, "record.right"),
        ({"record": {"timing": "twice"}}, "record.timing"),
    ],
)
def test_a_damaged_attribute_is_named_with_its_trial(attributes: Any, field: str) -> None:
    study = optuna.create_study(directions=["maximize", "minimize"])
    study.add_trial(optuna.trial.create_trial(state=TrialState.PRUNED))
    study.add_trial(optuna.trial.create_trial(state=TrialState.PRUNED, user_attrs=attributes))
    with pytest.raises(TrialRecordError, match=f"^trial 1: {field} is not "):
        TrialRecord.of(study.get_trials(deepcopy=False)[1])


def test_a_trial_without_a_design_is_named() -> None:
    study = optuna.create_study()
    study.add_trial(optuna.trial.create_trial(state=TrialState.FAIL))
    with pytest.raises(TrialRecordError, match=r"trial 0: record.genotype is missing"):
        genotype_of(study.trials[0])


def test_a_reference_is_stored_under_the_names_of_earlier_versions() -> None:
    row = reference_row("text-only", "words", "taps 6 became 3", of_a_whole_trial())
    stored = row_json(row)
    assert stored["carried_over"] == "taps 6 became 3" and "adapted" not in stored
    assert row_from_json(json.loads(json.dumps(stored))) == row


def test_seconds_by_stage_are_kept_and_damage_is_named() -> None:
    record = TrialRecord(result=TrialResult(GENOTYPE, seconds={"training": 3.5}))
    attributes = record.to_attributes()
    assert TrialRecord.from_attributes(attributes, 0) == record
    attributes["record"]["seconds"] = {"training": "long"}
    with pytest.raises(TrialRecordError, match=r"trial 4: record\.seconds is not numbers"):
        TrialRecord.from_attributes(attributes, 4)


def test_figures_have_names_of_their_own_for_tables() -> None:
    result = TrialResult(GENOTYPE).with_evaluations(LATENCY, QUALITY)
    found = result.columns(TrialState.COMPLETE)
    assert found == {
        "status": "complete",
        "accuracy": 81.5,
        "accuracy_low": 80.0,
        "accuracy_high": 83.0,
        "latency_ms": 2.5,
        "latency_ms_low": 2.4,
        "latency_ms_high": 2.6,
        "parameters": 100.0,
    }


@pytest.mark.parametrize(
    ("latency", "reason", "status"),
    [
        (LATENCY, "over the limit", "infeasible"),
        (replace(LATENCY, unstable="halves differ"), "halves differ", "unstable"),
    ],
)
def test_infeasible_and_unstable_trials_have_different_states(
    latency: Evaluation, reason: str, status: str
) -> None:
    result = replace(TrialResult(GENOTYPE).with_evaluations(latency), reason=reason)
    found = result.columns(TrialState.PRUNED)
    assert (found["status"], found["reason"]) == (status, reason)
