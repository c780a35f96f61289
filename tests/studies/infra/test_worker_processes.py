"""Several workers of one command: while a board times one design, others are built and trained."""

import json
import os
import signal
import sqlite3
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

from studies.infra.priority import LOWEST

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


def at_work(desk: Desk) -> set[str]:
    """The workers that have a trial in hand or had it last, read without Optuna or waiting."""
    file = desk.place.folder / "runs" / "fusion-nas.db"
    asked = "SELECT DISTINCT value_json FROM trial_user_attributes WHERE key = 'worker'"
    with suppress(sqlite3.Error), sqlite3.connect(f"file:{file}?mode=ro", uri=True) as database:
        return {str(row[0]) for row in database.execute(asked)}
    return set()


def processes(group: int) -> list[str]:
    """What still runs in a process group."""
    return [args for _, pgid, _, args in listed() if pgid == group]


def listed() -> list[tuple[int, int, int, str]]:
    """Process, group, niceness and command of all that runs; cheap enough to be asked often."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended meanwhile
            args = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            # The name before the bracket may have blanks and brackets of its own.
            state, _, group, *more = (folder / "stat").read_text().rpartition(")")[2].split()
            if state != "Z":
                found.append((int(folder.name), int(group), int(more[13]), args.strip()))
    return found


def gone(group: int) -> bool:
    until = time.monotonic() + 60
    while processes(group) and time.monotonic() < until:
        time.sleep(0.1)
    return not processes(group)


@pytest.mark.slow
def test_workers_of_one_command_share_its_total(desk: Desk) -> None:
    done = desk.place.finish(command(desk, 6, "--json"))
    assert done.returncode == 0, done.stderr
    found = trials(desk)
    assert [trial.number for trial in found] == list(range(6))
    assert all(trial.state.is_finished() for trial in found)
    assert len({trial.user_attrs["worker"] for trial in found}) == 2
    outcome = json.loads(done.stdout)
    assert len(outcome["trials"]) == 6 and outcome["front"]
    assert done.stderr.count("evaluating the test split") == 1
    keys = [evaluation["key"] for evaluation in desk.place.kept()]
    assert len(keys) == len(set(keys))


@pytest.mark.slow
def test_no_worker_outlives_the_first_and_the_command_goes_on(desk: Desk) -> None:
    """The study goes on after each of the signals, and is ended by the next one."""
    for how in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        had = at_work(desk)
        running = desk.place.start(command(desk, 200))
        until = time.monotonic() + 90
        while len(at_work(desk) - had) < 2 and running.poll() is None and time.monotonic() < until:
            time.sleep(0.05)
        assert len(at_work(desk) - had) == 2, "both workers of this command have a trial in hand"
        os.kill(running.pid, how)
        assert running.wait(timeout=60) == (130 if how != signal.SIGKILL else -signal.SIGKILL)
        assert gone(running.pid), processes(running.pid)
        running.communicate()
    total = len(trials(desk)) + 1
    done = desk.place.finish(command(desk, total, "--workers", "1"))
    assert done.returncode == 0, done.stderr
    assert [trial.number for trial in trials(desk)] == list(range(total))
    assert all(trial.state.is_finished() for trial in trials(desk))


def test_training_that_cannot_give_way_to_this_machines_timings_is_refused(tmp_path: Path) -> None:
    place = new_place(tmp_path / "alone")
    for flag, value in (("--timing", "alone"), ("--runtime", "cuda")):
        refused = place.finish(place.run("--workers", "2", flag, value))
        one_line(refused, 2, f"--workers 2 with --device local and {flag} {value}", "give a board")
    one_line(place.finish(place.run("--workers", "0")), 2, "--workers 0", "give 1 to 64")


@pytest.mark.slow
def test_workers_on_this_machine_train_behind_the_agents_that_time(tmp_path: Path) -> None:
    place = new_place(tmp_path / "place")
    running = place.start(place.run("--workers", "2", "--trials", "6"))
    timing, workers = set[tuple[str, int]](), dict[int, int]()
    own = os.getpriority(os.PRIO_PROCESS, 0)
    while running.poll() is None:
        for pid, group, nice, args in listed():
            if ".pyz" in args and str(place.home) in args:
                timing.add((args.split(".pyz ")[1].split()[0], nice))
            elif group == running.pid:
                workers[pid] = nice
        time.sleep(0.1)
    said = running.communicate()
    assert running.returncode == 0, said
    assert {("serve", own), ("job", own)} <= timing and {nice for _, nice in timing} == {own}
    (name,) = optuna.study.get_all_study_names(place.url)
    found = optuna.load_study(study_name=name, storage=place.url).get_trials()
    pids = {int(trial.user_attrs["worker"].split(":")[1]) for trial in found}
    assert len(pids) == 2 and {workers[pid] for pid in pids} == {LOWEST}
    assert all(trial.state.is_finished() for trial in found) and len(found) == 6
