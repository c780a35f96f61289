"""`fusion-nas worker`: a study goes on from another home, on what its own settings say."""

import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import commands
import optuna
import pytest
from desk import one_line
from tiny import Place, new_place

from studies.results.study_outcome import SUBJECT
from studies.search.stopping import STOPPED
from studies.study.worker import PREPARING, TOTAL

TOTAL_AT_FIRST = 2
PROGRAM = (
    f"import sys; sys.path.insert(0, {str(Path(commands.__file__).parent)!r}); import commands; "
    "commands.time_briefly(); from studies.cli.app import main; sys.exit(main())"
)
"""`fusion-nas` in a process of its own, with the short readings of the tests."""


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A place with a study of two trials."""
    place = new_place(tmp_path_factory.mktemp("begun"))
    done = place.finish(place.run("--trials", str(TOTAL_AT_FIRST), "--name", "shared"))
    assert done.returncode == 0, done.stderr
    return place


@pytest.fixture
def elsewhere(begun: Place, tmp_path: Path) -> Place:
    """Another host: its own home and its own copy of data and space."""
    folder = tmp_path / "elsewhere"
    shutil.copytree(begun.data, folder / "data")
    shutil.copy(begun.folder / "tiny.toml", folder)
    return replace(begun, folder=folder)


def study_of(place: Place) -> optuna.Study:
    return optuna.load_study(study_name="shared", storage=place.url)


def join(place: Place, url: str, *more: str) -> list[str]:
    own = ("--data", str(place.data), "--space", str(place.folder / "tiny.toml"))
    log = ("--log-file", str(place.folder / "worker.log"))
    return place.command("worker", "--name", "shared", "--storage", url, *own, *log, *more)


def on_another_host(place: Place, command: list[str]) -> subprocess.CompletedProcess[str]:
    """Under another host name; skipped where this user cannot change it."""
    renamed = ["unshare", "--uts", "sh", "-c", 'hostname another-host && exec "$@"', "sh"]
    if subprocess.run([*renamed, "true"], capture_output=True).returncode:
        pytest.skip("this user cannot change the host name of a process")
    return subprocess.run(
        [*renamed, sys.executable, "-c", PROGRAM, *command[3:]],
        cwd=place.folder,
        env=place.environment(),
        capture_output=True,
        text=True,
    )


def test_a_worker_of_another_host_does_what_is_left_and_the_run_ends_the_study(
    begun: Place, elsewhere: Place
) -> None:
    study, total = study_of(begun), TOTAL_AT_FIRST + 2
    assert study.user_attrs[TOTAL] == TOTAL_AT_FIRST
    command, tests = study.user_attrs["command"], study.user_attrs["test"]
    study.set_user_attr(TOTAL, total)  # as a run that asks for more does when it begins
    hidden = begun.data.rename(begun.folder / "not-on-the-other-host")
    done = on_another_host(elsewhere, join(elsewhere, begun.url))
    hidden.rename(begun.data)
    assert done.returncode == 0, done.stderr
    assert f"the study has {total} finished trials; this worker ends" in done.stdout
    trials = study.get_trials()
    assert len(trials) == total and all(trial.state.is_finished() for trial in trials)
    homes = {trial.user_attrs["worker"].split(":")[0] for trial in trials}
    assert len(homes) == 2
    again = study_of(begun).user_attrs
    assert again["command"] == command, "the command that repeats the study is still the run's"
    assert again["test"] == tests, "a worker leaves the test split alone"
    done = begun.finish(begun.run("--trials", str(total), "--name", "shared", "--json"))
    assert done.returncode == 0, done.stderr
    assert len(study.get_trials()) == total


def test_a_worker_begins_nothing_where_a_rule_of_the_run_has_ended_the_search(
    begun: Place, elsewhere: Place
) -> None:
    study = study_of(begun)
    before = len(study.get_trials())
    study.set_user_attr(TOTAL, before + 5)
    study.set_user_attr(STOPPED, "2 hours have passed (--hours)")
    done = elsewhere.finish(join(elsewhere, begun.url))
    assert done.returncode == 0, done.stderr
    assert f"stopped at {before} of {before + 5} trials: 2 hours have passed" in done.stdout
    assert len(study.get_trials()) == before


def test_a_worker_waits_for_a_run_that_prepares_the_study(begun: Place, elsewhere: Place) -> None:
    study = study_of(begun)
    study.set_user_attr(STOPPED, "")
    study.set_user_attr(TOTAL, PREPARING)
    waiting = elsewhere.start(join(elsewhere, begun.url))
    until = time.monotonic() + 60
    log = elsewhere.folder / "worker.log"
    while "which prepares the study" not in (log.read_text() if log.exists() else ""):
        assert waiting.poll() is None and time.monotonic() < until
        time.sleep(0.1)
    study.set_user_attr(TOTAL, len(study.get_trials()))
    assert waiting.wait(60) == 0
    waiting.communicate()


def test_a_study_that_is_not_made_whole_is_refused(begun: Place, elsewhere: Place) -> None:
    made = optuna.create_study(storage=begun.url, study_name="half")
    made.set_user_attr(SUBJECT, study_of(begun).user_attrs[SUBJECT])
    half = elsewhere.command("worker", "--name", "half", "--storage", begun.url)
    one_line(elsewhere.finish(half), 6, "study 'half' is not complete", "when `run` reports trials")
    optuna.delete_study(storage=begun.url, study_name="half")


def test_a_worker_without_the_study_or_its_data_is_refused(begun: Place, elsewhere: Place) -> None:
    none = elsewhere.command("worker", "--name", "other", "--storage", begun.url)
    one_line(elsewhere.finish(none), 2, "no study 'other'", "it holds shared")
    gone = elsewhere.command("worker", "--storage", begun.url, "--data", "/no/such/folder")
    one_line(elsewhere.finish(gone), 2, "--data /no/such/folder: there is no such folder")
    labels = elsewhere.data / "label.csv"
    rows = labels.read_text().splitlines()
    labels.write_text("\n".join(rows[:-1]) + "\n")
    one_line(elsewhere.finish(join(elsewhere, begun.url)), 6, "made with another data")
