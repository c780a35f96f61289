"""A real run that is killed, interrupted or repeated: nothing is lost, nothing is done twice."""

import json
import os
import shutil
import signal
import sqlite3
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import optuna
import pytest
from tiny import Place, finished_place, new_place

TOTAL = 7


@pytest.fixture
def finished(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return finished_place(tmp_path_factory.getbasetemp())


@pytest.fixture
def place(tmp_path: Path, finished: Place) -> Place:
    """A copy of the finished study's place, at no cost."""
    shutil.copytree(finished.folder, tmp_path / "place", symlinks=True)
    return Place(tmp_path / "place")


def trials(place: Place) -> list[optuna.trial.FrozenTrial]:
    (name,) = optuna.study.get_all_study_names(place.url)
    return optuna.load_study(study_name=name, storage=place.url).get_trials()


def begun(place: Place) -> int:
    """How many trials the storage knows, read without Optuna and without waiting."""
    with suppress(sqlite3.Error):
        file = place.folder / "runs" / "fusion-nas.db"
        with sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=1) as db:
            return int(
                db.execute("SELECT count(*) FROM trials WHERE state != 'WAITING'").fetchone()[0]
            )
    return 0


@pytest.mark.slow
def test_a_run_killed_at_any_moment_goes_on_and_loses_nothing(tmp_path: Path) -> None:
    place = new_place(tmp_path / "place")
    command = place.run("--trials", str(TOTAL), "--seed-paper")
    # After how many trials begun, and how long after that, the run is killed.
    for trials_begun, seconds in ((1, 0.15), (3, 0.0), (5, 0.4)):
        running = place.start(command)
        until = time.monotonic() + 60
        while begun(place) < trials_begun and running.poll() is None and time.monotonic() < until:
            time.sleep(0.005)
        time.sleep(seconds)
        os.killpg(running.pid, signal.SIGKILL)
        assert running.wait() == -signal.SIGKILL
        running.communicate()
    done = place.finish(command)
    assert done.returncode == 0, done.stderr
    found = trials(place)
    assert [t.number for t in found] == list(range(TOTAL))
    assert {t.state.name for t in found} <= {"COMPLETE", "PRUNED"}
    names = Counter(t.user_attrs["name"] for t in found if "name" in t.user_attrs)
    assert names == {"late-tiny-vit": 1, "intermediate-tiny-vit": 1, "early-tiny-vit": 1}
    # A reading that is unstable on a busy machine is kept too, and its design is timed again.
    trusted = [evaluation for evaluation in place.kept() if not evaluation["unstable"]]
    keys = Counter(evaluation["key"] for evaluation in trusted)
    assert set(keys.values()) == {1}
    for trial in found:
        record = trial.user_attrs["record"]
        assert record["latency_key"] in keys or trial.state.name == "PRUNED"


@pytest.mark.slow
def test_an_interrupt_is_one_line_and_code_130_and_the_command_goes_on(place: Place) -> None:
    running = place.start(place.run("--trials", "30"))
    until = time.monotonic() + 60
    while begun(place) < 6 and running.poll() is None and time.monotonic() < until:
        time.sleep(0.01)
    os.kill(running.pid, signal.SIGINT)
    _, errors = running.communicate(timeout=30)
    assert running.returncode == 130
    assert errors == "fusion-nas: interrupted; the same command goes on from here\n"
    began = begun(place)
    done = place.finish(place.run("--trials", str(began)))
    assert done.returncode == 0, done.stderr
    assert [t.number for t in trials(place)] == list(range(began))
    assert all(t.state.is_finished() for t in trials(place))


def test_the_same_command_again_does_nothing_twice(place: Place) -> None:
    before = (place.home / "evaluations.jsonl").read_bytes()
    done = place.finish(place.run("--trials", "5", "--seed-paper", "--json"))
    assert done.returncode == 0, done.stderr
    assert (place.home / "evaluations.jsonl").read_bytes() == before
    assert len(json.loads(done.stdout)["trials"]) == 5


@pytest.mark.slow
def test_a_resumed_study_may_change_its_sampler_and_says_so(place: Place) -> None:
    done = place.finish(place.run("--trials", "6", "--sampler", "ehvi", "--json"))
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout)
    assert len(outcome["trials"]) == 6
    assert outcome["conditions"]["sampler"] == "tpe, seed 0, then ehvi"


@pytest.mark.slow
def test_two_runs_at_once_share_home_device_and_study(place: Place) -> None:
    command = place.run("--trials", "8")
    together = [place.start(command) for _ in range(2)]
    for running in together:
        _, errors = running.communicate(timeout=90)
        assert running.returncode == 0, errors
    assert [t.number for t in trials(place)] == list(range(8))
    assert all(t.state.is_finished() for t in trials(place))
