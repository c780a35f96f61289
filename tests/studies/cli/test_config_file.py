"""`--config FILE`, `--dry-run` and `doctor`."""

import json
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState
from plugin_packages import MAXIMUM, on_path, write_package
from tiny import Place, finished_place, new_place
from typer.testing import CliRunner

from studies.cli import doctor
from studies.cli.app import app
from studies.config import settings
from studies.config.usage import UsageError
from studies.results.trial_record import TimingRecord, TrialRecord, TrialResult


@pytest.fixture
def finished(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return finished_place(tmp_path_factory.getbasetemp())


def planned(place: Place, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Any:
    monkeypatch.setenv("FUSION_NAS_HOME", str(place.home))
    monkeypatch.chdir(place.folder)
    done = CliRunner().invoke(app, ["run", *arguments, "--dry-run", "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.output)


def config(folder: Path, text: str) -> str:
    file = folder / "study.toml"
    file.write_text(text, encoding="utf-8")
    return str(file)


def test_a_file_gives_flags_and_the_command_line_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = new_place(tmp_path / "place")
    file = config(
        tmp_path,
        f'data = "{place.data}"\nspace = "tiny.toml"\ntrials = 30\nseed-paper = true\n'
        'threads = 1\nlatency_limit = 5\nprecision = "fp32"\nsampler = "random"\n',
    )
    plan = planned(place, monkeypatch, "--config", file)
    assert (plan["study"], plan["total"], plan["sampler"]) == ("pareto-data-tiny", 30, "random")
    assert plan["named"][0] == "late-tiny-vit" and plan["sampled"] == 30 - len(plan["named"])
    plan = planned(place, monkeypatch, "--config", file, "--trials", "40", "--sampler", "tpe")
    assert (plan["total"], plan["sampler"]) == (40, "tpe")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("latencylimit = 5", "latencylimit: run has no such flag; did you mean latency-limit"),
        ("config = 'x'", "config: run has no such flag"),
        ("trials = 'many'", "trials = 'many': give a whole number"),
        ("trials = true", "trials = True: give a whole number"),
        ("seed-paper = 1", "seed-paper = 1: give true or false"),
        ("data = ['a', 'b']", "data = ['a', 'b']: give a text"),
        ("data = ''", "data = '': it is empty; give a text, or leave the key out"),
        ("trials = ", "not TOML"),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused(tmp_path: Path, text: str, said: str) -> None:
    done = CliRunner().invoke(app, ["run", "--config", config(tmp_path, text), "--dry-run"])
    assert done.exit_code == 2
    assert said in done.output


def test_what_a_file_gave_is_a_condition_of_the_study(tmp_path: Path) -> None:
    place = new_place(tmp_path / "place")
    file = config(tmp_path, "trials = 9\nsampler = 'random'\n")
    done = place.finish(place.run("--config", file, "--trials", "1", "--json"))
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)["conditions"]["configuration"]
    assert said == "study.toml: sampler = 'random'; given on the command line: trials"


def test_a_dry_run_tells_what_is_left_and_starts_nothing(
    finished: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {file: file.stat().st_mtime_ns for file in finished.home.rglob("*")}
    plan = planned(finished, monkeypatch, *finished.flags(), "--trials", "12", "--seed-paper")
    assert plan["exists"] and plan["finished"] == 5 and plan["remaining"] == 7
    assert plan["named"] == [] and plan["trainings"] == plan["timings"] == plan["sampled"] == 7
    assert plan["seconds"] > 0 and plan["seconds_from"] == "5 trials of this study"
    assert plan["weight_bytes"] > 0 and plan["free_bytes"] > 0 and plan["refused"] == []
    assert before == {file: file.stat().st_mtime_ns for file in finished.home.rglob("*")}


def test_a_dry_run_tells_that_the_run_would_be_refused(
    finished: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = planned(finished, monkeypatch, *finished.flags(), "--latency-limit", "5")
    assert plan["refused"] == ["latency limit"]


def test_a_dry_run_of_a_new_study_makes_no_storage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = new_place(tmp_path / "place")
    plan = planned(place, monkeypatch, *place.flags(), "--trials", "3", "--cv")
    assert not plan["exists"] and plan["seconds"] is None and plan["trainings"] == 15
    assert not (place.folder / "runs").exists() and not place.home.exists()


def test_a_dry_run_counts_the_designs_of_a_list_as_the_run_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = new_place(tmp_path / "place")
    flags = ("--study", "ablation-attention", *place.flags(), "--trials", "3")
    done = place.finish(place.command("run", *flags[:-1], "1"))
    assert done.returncode == 0, done.stderr
    before = planned(place, monkeypatch, *flags)
    assert (before["finished"], before["remaining"]) == (1, 2)
    study = optuna.load_study(study_name=before["study"], storage=place.url)
    trial = study.ask()
    result = TrialResult(timing=TimingRecord(unstable="halves apart"))
    TrialRecord(name=before["named"][0], result=result).store(trial)
    study.tell(trial, state=TrialState.PRUNED)
    after = planned(place, monkeypatch, *flags)
    assert (after["finished"], after["remaining"]) == (1, 2), "that design is timed again"
    assert after["named"] == before["named"]


def test_the_doctor_names_versions_devices_and_caches(
    finished: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FUSION_NAS_HOME", str(finished.home))
    done = CliRunner().invoke(app, ["doctor", "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.output)
    assert {"fusion-nas", "torch", "optuna"} <= found["packages"].keys()
    assert "CPUExecutionProvider" in found["providers"]
    assert found["caches"]["evaluations"] > 0 and found["free_bytes"] > 0


def test_the_doctor_says_how_to_resolve_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    required = ["numpy>=99", "no-such-package>=1", "pytest>=1; extra == 'dev'"]
    monkeypatch.setattr(doctor.metadata, "requires", lambda name: required)
    done = CliRunner().invoke(app, ["doctor"])
    assert done.exit_code == 2
    said = " ".join(done.output.split())
    assert "Remedy: pip install 'numpy>=99'" in said
    assert "no-such-package is not installed" in said and "2 problems" in said


def test_the_doctor_lists_plugins_and_those_that_fail(tmp_path: Path) -> None:
    write_package(tmp_path, "fusion-maximum", MAXIMUM, "maximum = fusion_maximum:Maximum")
    write_package(tmp_path, "lost", "import no_such_module", "lost = lost:Lost", "2.0")
    with on_path(tmp_path):
        done = CliRunner().invoke(app, ["doctor"])
        listed = json.loads(CliRunner().invoke(app, ["doctor", "--json"]).stdout)["plugins"]
    assert done.exit_code == 0, done.output
    said = " ".join(done.output.split())
    assert "maximum (fusion-maximum 1.0): fusion_nas.operators" in said
    assert "advice: plugin lost of lost 2.0 cannot be used: lost:Lost cannot be loaded" in said
    assert "No module named 'no_such_module'" in said and "pip uninstall lost" in said
    assert {each["name"]: bool(each["failure"]) for each in listed} == {
        "lost": True,
        "maximum": False,
    }


def test_a_password_in_the_file_is_not_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: dict[str, Any] = {}

    def load(study: str, options: dict[str, Any]) -> None:
        found.update(options)
        raise UsageError("far enough")

    monkeypatch.setattr(settings, "load_settings", load)
    file = config(tmp_path, 'storage = "postgresql://me:S3cr3t@host/db"\n')
    CliRunner().invoke(app, ["run", "--config", file])
    assert found["storage"] == "postgresql://me:S3cr3t@host/db"
    assert "S3cr3t" not in found["configuration"] and "me:***@host" in found["configuration"]
