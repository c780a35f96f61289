"""One client has the device at a time, in the order they came, whoever dies in between."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from device_agent.storage.lease import UNNAMED, Queue
from device_agent.storage.store import NOTE

ROOT = Path(__file__).parents[2]
TAKES_TURNS = """
import sys, time
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from device_agent.storage.lease import Queue
def waits(holder, place):
    print("waits", place, holder, flush=True)
    time.sleep(0.02)
with Queue(Path(sys.argv[2])).turn(sys.argv[3], waits):
    print("holds", flush=True)
    sys.stdin.read()
"""


class Client:
    """A process that wants the device, has it, and gives it back when it is told to."""

    def __init__(self, home: Path, name: str) -> None:
        command = [sys.executable, "-c", TAKES_TURNS, str(ROOT), str(home), name]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)

    def says(self, wanted: str) -> str:
        """Read until a line that begins so."""
        assert self.process.stdout
        while line := self.process.stdout.readline():
            if line.startswith(wanted):
                return line.strip()
        raise AssertionError(f"it ended and never said {wanted!r}")

    def gives_back(self) -> None:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.close()
        self.process.wait(20)
        self.process.stdout.close()

    def is_killed(self) -> None:
        self.process.kill()
        self.gives_back()


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Callable[[str], Client]]:
    made: list[Client] = []

    def begin(name: str) -> Client:
        made.append(Client(tmp_path, name))
        return made[-1]

    yield begin
    for one in made:
        one.is_killed()


def test_the_first_who_came_is_the_next(client: Callable[[str], Client]) -> None:
    first = client("first")
    first.says("holds")
    others = []
    for place in (1, 2, 3):
        others.append(client(f"number {place}"))
        assert others[-1].says("waits") == f"waits {place} first"
    first.gives_back()
    for k, one in enumerate(others):
        one.says("holds")
        for place, later in enumerate(others[k + 1 :], 1):
            later.says(f"waits {place} number {k + 1}")
        one.gives_back()


@pytest.mark.parametrize("victim", [0, 1], ids=["holds", "waits"])
def test_nobody_waits_for_the_dead(client: Callable[[str], Client], victim: int) -> None:
    three = [client("a")]
    three[0].says("holds")
    for name in "bc":
        three.append(client(name))
        three[-1].says("waits")
    three[victim].is_killed()
    if victim == 1:
        three[2].says("waits 1 a")
        three[0].gives_back()
        three[2].says("holds")
    else:
        three[1].says("holds")
        three[2].says("waits 1 b")


def test_who_gives_up_waiting_holds_nobody_up(tmp_path: Path) -> None:
    def gives_up(holder: str, place: int) -> None:
        raise KeyboardInterrupt(f"{holder}, {place}")

    with Queue(tmp_path).turn("a", gives_up):
        with pytest.raises(KeyboardInterrupt, match="a, 1"), Queue(tmp_path).turn("b", gives_up):
            pass
        assert not Queue(tmp_path).others_wait()
    with Queue(tmp_path).turn("c", gives_up):
        pass
    assert list((tmp_path / "queue").iterdir()) == []


def test_a_holder_sees_that_others_wait(tmp_path: Path, client: Callable[[str], Client]) -> None:
    queue = Queue(tmp_path)
    with queue.turn("a", lambda holder, place: None):
        assert not queue.others_wait()
        client("b").says("waits")
        assert queue.others_wait()


def test_a_process_that_was_started_by_the_holder_holds_too(tmp_path: Path) -> None:
    said: list[str] = []

    def waits(holder: str, place: int) -> None:
        said.append(holder)
        if len(said) == 2:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()

    with Queue(tmp_path).turn("a", waits) as device:
        child = subprocess.Popen(["sleep", "600"], pass_fds=(device,), start_new_session=True)
    with Queue(tmp_path).turn("b", waits):
        assert said == ["a", "a"]


@pytest.mark.parametrize("name", ["", "\0\xff" * 5000])
def test_whatever_a_holder_is_called_the_others_get_a_name(tmp_path: Path, name: str) -> None:
    said: list[str] = []

    def waits(holder: str, place: int) -> None:
        said.append(holder)
        raise KeyboardInterrupt

    queue = Queue(tmp_path)
    with queue.turn(name, waits), pytest.raises(KeyboardInterrupt), queue.turn("b", waits):
        pass
    assert 1 <= len(said[0]) <= 200
    assert name or said == [UNNAMED]


def test_many_at_once_are_all_served_one_by_one(
    tmp_path: Path, client: Callable[[str], Client]
) -> None:
    log = tmp_path / "log"
    code = TAKES_TURNS.replace(
        "    sys.stdin.read()\n",
        "    log = open(sys.argv[4], 'a')\n"
        "    for word in ('in', 'out'):\n"
        "        log.write(f'{word} {sys.argv[3]}\\n'); log.flush(); time.sleep(0.01)\n",
    )
    many = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(ROOT), str(tmp_path), str(k), str(log)],
            stdout=subprocess.DEVNULL,
        )
        for k in range(8)
    ]
    end = time.monotonic() + 40
    for one in many:
        assert one.wait(max(1.0, end - time.monotonic())) == 0
    lines = log.read_text().split("\n")[:-1]
    assert len(lines) == 16
    assert all(
        i == f"in {i.split()[1]}" and o == f"out {i.split()[1]}"
        for i, o in zip(lines[::2], lines[1::2], strict=True)
    )
    assert list((tmp_path / "queue").iterdir()) == []


def test_a_folder_in_place_of_the_lock_is_removed_with_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "lock" / "inside").mkdir(parents=True)
    with Queue(tmp_path).turn("me", lambda holder, place: None):
        assert (tmp_path / "lock").read_bytes() == b"me"
    assert capsys.readouterr().err == f"{NOTE}the lock of the device's queue is made again\n"
