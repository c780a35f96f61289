"""A lock that is held for long is no silence: its holder is named, and its death frees it."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from search_space import locks
from search_space.locks import NamedLock, holder_of

HOLDS = """
import sys, time
from filelock import FileLock
lock = FileLock(sys.argv[1])
lock.acquire()
print("holds", flush=True)
time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", HOLDS, str(tmp_path / "x.lock")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "holds\n"
        yield process
        process.kill()


def test_a_stopped_holder_is_named_and_its_death_lets_the_others_go_on(
    tmp_path: Path,
    holder: subprocess.Popen[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(locks, "SAID_AFTER_S", 0.2)
    os.kill(holder.pid, signal.SIGSTOP)
    said = ""

    def end_it_once_it_is_named() -> None:
        nonlocal said
        until = time.monotonic() + 20
        while not said and time.monotonic() < until:
            said += capsys.readouterr().err
            time.sleep(0.05)
        holder.kill()

    watcher = threading.Thread(target=end_it_once_it_is_named)
    watcher.start()
    with NamedLock(tmp_path / "x.lock"):
        watcher.join()
    assert f"held by process {holder.pid}, which is stopped; `kill -CONT {holder.pid}`" in said
    assert said.count("\n") == 1


def test_a_holder_is_named_and_a_lock_without_one_is_not_blamed_on_anybody(
    tmp_path: Path, holder: subprocess.Popen[str]
) -> None:
    assert holder_of(tmp_path / "x.lock") == f"held by process {holder.pid}"
    (tmp_path / "y.lock").touch()
    assert holder_of(tmp_path / "y.lock").startswith("held by a process of another")
    assert holder_of(tmp_path / "none.lock") == "who holds it is not known here"


def test_a_folder_in_place_of_a_lock_is_renamed_with_what_it_holds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x.lock").mkdir()
    (tmp_path / "x.lock" / "somebody's").write_text("work")
    with NamedLock(tmp_path / "x.lock") as held:
        assert held.is_locked and (tmp_path / "x.lock").is_file()
    (aside,) = tmp_path.glob("x.lock.aside-*")
    assert (aside / "somebody's").read_text() == "work"
    said = capsys.readouterr().err
    assert (
        said == f"{tmp_path / 'x.lock'} is a folder where a file belongs: renamed to {aside.name}\n"
    )
