"""Studies that earlier versions stored are opened, and give the figures that they gave then."""

import json
from pathlib import Path
from typing import Any

import optuna
import pytest
from stored_study import REPORT, stored_study
from typer.testing import CliRunner

from evaluators.latency.evaluator import LOCAL_TIMING
from studies.cli.app import app
from studies.config.settings import Settings
from studies.infra.locations import StorageError
from studies.study.identity import timing_of_0_1_0

REWORDED = {
    "the two latencies are no further apart than readings of one network, and ": (
        "difference in latency not significant; "
    ),
    "had a fusion so dear that": "had a fusion so expensive that",
    "the paired interval holds zero": "accuracy not significant (95 % CI includes 0)",
    "other designs on the front cannot be told from": (
        "other designs on the front are not significantly less accurate than"
    ),
    "by the means: over the same 686 samples the paired 95 % interval holds zero.": (
        "one: paired over the same 686 samples, at the 5 % level, after Holm's correction."
    ),
}
"""What a report says in other words than version 0.1.0 did; every figure is as it was."""
ADDED = ("summary", "significant", "crowded", "latency_is")
"""Keys that version 0.1.0 did not print."""


def without_added(value: Any) -> Any:
    if isinstance(value, list):
        return [without_added(each) for each in value]
    if isinstance(value, dict):
        return {name: without_added(each) for name, each in value.items() if name not in ADDED}
    return value


def test_a_study_of_version_0_1_0_gives_the_same_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FUSION_NAS_HOME", str(tmp_path / "home"))
    page = tmp_path / "page.html"
    flags = ["--storage", stored_study(tmp_path), "--page", str(page), "--json"]
    done = CliRunner().invoke(app, ["report", *flags])
    assert done.exit_code == 0, done.output
    expected = REPORT
    for then, now in REWORDED.items():
        assert then in expected
        expected = expected.replace(then, now)
    assert without_added(json.loads(done.stdout)) == json.loads(expected)
    assert "early-small-xcit" in page.read_text(encoding="utf-8")


def test_a_study_of_version_0_1_0_is_resumed_under_the_timing_it_began_with(tmp_path: Path) -> None:
    study = optuna.load_study(study_name=None, storage=stored_study(tmp_path))
    assert study.user_attrs["identity"]["timing"] == timing_of_0_1_0(LOCAL_TIMING)


def test_its_settings_are_read_and_stored_as_then(tmp_path: Path) -> None:
    study = optuna.load_study(study_name=None, storage=stored_study(tmp_path))
    stored = study.user_attrs["settings"]
    settings = Settings.from_stored(stored)
    assert json.loads(json.dumps(settings.to_stored())) == stored
    with pytest.raises(StorageError, match="knows colour; install that version"):
        Settings.from_stored({**stored, "colour": "red"})
