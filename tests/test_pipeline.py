"""Several workers of one command: while a board times one design, others are built and trained."""

import json
import os
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import optuna
import pytest
import sshd
from desk import Desk, one_line
from sshd import start_sshd
from tiny import new_place

pytestmark = pytest.mark.skipif(bool(sshd.missing()), reason=sshd.missing())


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with start_sshd(tmp_path / "server") as server:
        made = Desk(new_place(tmp_path / "place", COLUMNS="80"), server)
        made.add()
        made.install()
        yield made


def command(desk: Desk, total: int, *more: str) -> list[str]:
    board = ("--device", "orin", "--timing", "shared", "--workers", "2")
    return desk.place.run(*board, "--trials", str(total), *more)


def trials(desk: Desk) -> list[optuna.trial.FrozenTrial]:
    (name,) = optuna.study.get_all_study_names(desk.place.url)
    return optuna.load_study(study_name=name, storage=desk.place.url).get_trials()


def at_work(desk: Desk) -> int:
    """How many workers have had a trial in hand, read without Optuna and without waiting."""
    file = desk.place.folder / "runs" / "fusion-nas.db"
    asked = "SELECT count(DISTINCT value_json) FROM trial_user_attributes WHERE key = 'worker'"
    with suppress(sqlite3.Error), sqlite3.connect(f"file:{file}?mode=ro", uri=True) as database:
        return int(database.execute(asked).fetchone()[0])
    return 0


def processes(group: int) -> list[str]:
    """What still runs in a process group."""
    listed = subprocess.run(["ps", "-eo", "pgid,stat,args"], capture_output=True, text=True).stdout
    rows = [line.split(maxsplit=2) for line in listed.splitlines()[1:]]
    return [args for pgid, state, args in rows if int(pgid) == group and state[0] != "Z"]


def gone(group: int) -> bool:
    until = time.monotonic() + 60
    while processes(group) and time.monotonic() < until:
        time.sleep(0.1)
    return not processes(group)


def test_workers_of_one_command_share_its_total(desk: Desk) -> None:
    done = desk.place.finish(command(desk, 40, "--json"))
    assert done.returncode == 0, done.stderr
    found = trials(desk)
    assert [trial.number for trial in found] == list(range(40))
    assert all(trial.state.is_finished() for trial in found)
    assert len({trial.user_attrs["worker"] for trial in found}) == 2
    outcome = json.loads(done.stdout)
    assert len(outcome["trials"]) == 40 and outcome["front"]
    assert done.stderr.count("looking at the test split") == 1
    keys = [evaluation["key"] for evaluation in desk.place.kept()]
    assert len(keys) == len(set(keys))


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_worker_outlives_the_first_and_the_command_goes_on(
    desk: Desk, how: signal.Signals
) -> None:
    running = desk.place.start(command(desk, 200))
    until = time.monotonic() + 90
    while at_work(desk) < 2 and running.poll() is None and time.monotonic() < until:
        time.sleep(0.05)
    os.kill(running.pid, how)
    assert running.wait(timeout=60) == (130 if how != signal.SIGKILL else -signal.SIGKILL)
    assert gone(running.pid), processes(running.pid)
    running.communicate()
    total = len(trials(desk)) + 1
    done = desk.place.finish(command(desk, total))
    assert done.returncode == 0, done.stderr
    assert [trial.number for trial in trials(desk)] == list(range(total))
    assert all(trial.state.is_finished() for trial in trials(desk))


def test_training_beside_the_device_that_times_is_refused(tmp_path: Path) -> None:
    place = new_place(tmp_path / "alone")
    one_line(place.finish(place.run("--workers", "2")), 2, "--workers 2", "give a board")
    one_line(place.finish(place.run("--workers", "0")), 2, "--workers 0", "give 1 to 64")
