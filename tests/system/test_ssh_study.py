"""`fusion-nas run --device` as users run it, against a real OpenSSH server."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
import sshd
from desk import Desk
from sshd import start_sshd
from tiny import new_place

from search_space import errors as codes

pytestmark = pytest.mark.skipif(bool(sshd.missing()), reason=sshd.missing())


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with start_sshd(tmp_path / "server") as server:
        yield Desk(new_place(tmp_path / "place", COLUMNS="80"), server)


def trials(desk: Desk) -> list[optuna.trial.FrozenTrial]:
    name = optuna.study.get_all_study_names(desk.place.url)[0]
    return optuna.load_study(study_name=name, storage=desk.place.url).get_trials()


@pytest.mark.slow
def test_a_study_is_timed_on_a_board_and_resumed_there(desk: Desk) -> None:
    desk.add()
    desk.install()
    command = desk.place.run("--device", "orin", "--timing", "shared", "--seed-paper", "--json")
    done = desk.place.finish([*command, "--trials", "3"])
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout)
    assert {trial["device"] for trial in outcome["trials"]} == {"orin"}
    assert outcome["conditions"]["device"].startswith("orin: ")
    first = trials(desk)
    again = desk.place.finish([*command, "--trials", "4"])
    assert again.returncode == 0, again.stderr
    assert trials(desk)[:3] == first
    timed = [kept for kept in desk.place.kept() if kept["kind"] == "latency"]
    assert {kept["details"]["device"] for kept in timed} == {"orin"}
    left = desk.server.home / ".fusion-nas"
    for folder in ("artifacts", "incoming", "results"):
        assert list((left / folder).iterdir()) == []
    exported = desk.place.finish(desk.place.command("export", "0", "--out", "out"))
    assert exported.returncode == 0, exported.stderr


@pytest.mark.slow
def test_alike_boards_share_a_study(desk: Desk, tmp_path: Path) -> None:
    with start_sshd(tmp_path / "twin") as other:
        twin = Desk(desk.place, other)
        for name, board in (("orin", desk), ("twin", twin)):
            board.add(name)
            board.install(name)
        both = ("--device", "orin", "--device", "twin", "--timing", "shared")
        command = desk.place.run(*both, "--trials", "6", "--json")
        together = [desk.place.start(command) for _ in range(2)]
        outcomes = []
        for running in together:
            out, errors = running.communicate(timeout=120)
            assert running.returncode == 0, errors
            outcomes.append(json.loads(out))
        assert len(desk.agents()) == len(twin.agents()) == 1, "each has a home of its own"
    assert {trial["device"] for trial in outcomes[0]["trials"]} == {"orin", "twin"}
    assert [trial.number for trial in trials(desk)] == list(range(6))


@pytest.mark.slow
def test_unlike_boards_do_not_share_a_study(desk: Desk) -> None:
    bare = sys._base_executable  # type: ignore[attr-defined]
    program = "import importlib.util; print(importlib.util.find_spec('onnxruntime'))"
    found = subprocess.run([bare, "-I", "-c", program], capture_output=True, text=True)
    if found.stdout != "None\n":
        pytest.skip(f"{bare} has a runtime too: run the tests in an environment of their own")
    desk.add("orin")
    desk.install("orin")
    desk.add("nano")
    desk.install("nano", bare)
    command = desk.place.run("--device", "orin", "--device", "nano", "--trials", "1")
    done = desk.place.finish(command)
    assert done.returncode == codes.DEVICE
    last = done.stderr.splitlines()[-1]
    assert "runtime onnxruntime" in last and "None" in last and "unlike devices" in last
