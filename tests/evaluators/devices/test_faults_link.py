"""A link that is cut at any moment loses no result, repeats none, and leaves no process behind."""

import os
import pwd
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cutting import Board, measured
from faulty import FaultyRuntime, network, processes_of, request, run_host, within
from sshd import Sshd

from device_agent.wire import frames as wire
from device_agent.wire.request import Status, job_id_of
from evaluators.devices.client import DeviceLost

GONE_S = 10.0
"""Processes are gone in 2 s; a busy machine gets more."""
HANGS = [("compile", "hold the interpreter"), ("run", "sleep")]


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> FaultyRuntime:
    return FaultyRuntime(tmp_path_factory.mktemp("python") / "venv")


@pytest.fixture
def board(sshd: Sshd, runtime: FaultyRuntime, tmp_path: Path) -> Iterator[Board]:
    runtime.breaks()
    board = Board(sshd, runtime, tmp_path / "board")
    yield board
    assert within(GONE_S, lambda: processes_of(board.home) == []), "processes are left"


@pytest.mark.parametrize(("event", "fault"), HANGS)
def test_a_link_that_is_cut_in_a_build_or_timing_ends_it_and_it_is_done_once(
    board: Board, tmp_path: Path, event: str, fault: str
) -> None:
    artifact = network(tmp_path / "n.onnx")
    board.runtime.breaks(**{event: fault}, times=1)
    evaluator = board.evaluator()
    cutter = cuts_when(board, lambda: board.runtime.events(event))
    result, interruptions = measured(evaluator, artifact, 4)
    cutter.join()
    evaluator.close()
    assert result.status is Status.OK
    assert len(interruptions) == 1 and "measure: the agent is lost" in interruptions[0]
    assert board.runtime.events("done") == [request(artifact).artifact_sha256]
    assert [*(board.home / "incoming").iterdir()] == []


def cuts_when(board: Board, holds: Callable[[], object]) -> threading.Thread:
    """Cut the link once something holds."""

    def cut() -> None:
        assert within(30.0, holds)
        board.sshd.cut()

    cutter = threading.Thread(target=cut)
    cutter.start()
    return cutter


def test_a_link_that_is_cut_in_an_upload_leaves_no_part_of_it_and_it_is_sent_again(
    board: Board, tmp_path: Path
) -> None:
    elements = 2**22  # 16 MiB
    artifact = network(tmp_path / "n.onnx", size=elements)
    sha256 = request(artifact, elements).artifact_sha256
    evaluator = board.evaluator()
    part = board.home / "incoming" / f"{sha256}.part"
    cutter = cuts_when(board, part.exists)
    result, interruptions = measured(evaluator, artifact, elements)
    cutter.join()
    evaluator.close()
    assert result.status is Status.OK
    assert len(interruptions) == 1 and "put: the agent is lost" in interruptions[0]
    assert board.runtime.events("done") == [sha256]
    assert [*(board.home / "incoming").iterdir()] == [] and board.corrupt_files() == 0


class CutAtResult:
    """Reads from a device, and loses the link once the result of a job is kept there."""

    def __init__(self, board: Board, job: str, reader: wire.Reader) -> None:
        self._board, self._reader = board, reader
        self._result = board.home / "results" / job

    def read(self, size: int) -> bytes | None:
        found = self._reader.read(size)
        if self._result.exists():
            self._board.sshd.cut()
            raise OSError("the link broke before the result came")
        return found


def test_a_result_that_the_link_lost_is_fetched_and_not_measured_again(
    board: Board, tmp_path: Path
) -> None:
    artifact = network(tmp_path / "n.onnx")
    asked = request(artifact)
    job = job_id_of(asked)
    device = board.open()
    transport = device._transport
    transport.reader = CutAtResult(board, job, transport.reader)
    with device, pytest.raises(DeviceLost, match="before the result came"):
        device.measure(artifact, asked, job_id=job)
    with board.open() as again:
        kept = again.result(job)
        fetched = again.measure(artifact, asked, job_id=job)
    assert kept is not None and fetched == kept and kept.status is Status.OK
    assert board.runtime.events("done") == [asked.artifact_sha256]


HOST = """
from pathlib import Path
from evaluators.devices.registry import Device
from evaluators.devices.ssh.link import open_ssh_device
from faulty import request
artifact, fields = Path(sys.argv[1]), eval(sys.argv[2])
with open_ssh_device(Device(**fields)) as device:
    device.measure(artifact, request(artifact))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL, signal.SIGSTOP])
def test_a_host_that_is_ended_or_falls_silent_does_not_keep_the_device(
    board: Board, tmp_path: Path, number: signal.Signals
) -> None:
    artifact = network(tmp_path / "n.onnx")
    board.runtime.breaks(run="sleep", times=1)
    said: list[str] = []
    with run_host(HOST, artifact, vars(board.device())) as host:
        board.runtime.wait_for("run")
        os.kill(host.pid, number)
        if number is signal.SIGSTOP:  # as a laptop asleep: the next one waits, and is told
            waiting = threading.Thread(target=lambda: wait_in_vain(board, said))
            waiting.start()
            assert within(30.0, lambda: said)
            host.kill()
            waiting.join()
        assert within(GONE_S, lambda: processes_of(board.home) == [])
    with board.open() as device:
        assert device.measure(artifact, request(artifact)).status is Status.OK


def wait_in_vain(board: Board, said: list[str]) -> None:
    def give_up(text: str) -> None:
        said.append(text)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), board.open(waiting=give_up) as device:
        device.hello()


def test_a_shell_that_prints_when_it_starts_does_not_matter(board: Board, tmp_path: Path) -> None:
    if not pwd.getpwuid(os.getuid()).pw_shell.endswith("bash"):
        pytest.skip("this user's shell does not read .bashrc for a command over SSH")
    (board.sshd.home / ".bashrc").write_text("printf 'Welcome\\x1b[31m\\0'; echo oops >&2\n")
    artifact = network(tmp_path / "n.onnx")
    with board.open() as device:
        assert device.measure(artifact, request(artifact)).status is Status.OK
        assert "oops" in device._transport.stderr_tail(), "it did print"
