"""Two clients, other versions, damaged bytes and hostile words harm no host and no result."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from faulty import FaultyRuntime, network, open_agent, processes_of, request, serving, within
from sample_outcome import hostile

from device_agent.board.description import DeviceInfo, RuntimeInfo
from device_agent.board.state import Board
from device_agent.wire import frames as wire
from device_agent.wire.request import MeasureResult, Status, job_id_of
from evaluators.devices.client import (
    DeviceClient,
    DeviceLost,
    DeviceRefused,
    LocalTransport,
    open_local_device,
)
from evaluators.devices.text import plain, plain_lines
from studies.report import page

ESCAPE = "\x1b]0;mine\x07\x1b[31mred\x1b[0m\r\n\u202e<script>alert(1)</script>"
INFO = DeviceInfo(Board(), (), "3.10.12", 2**30)


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> FaultyRuntime:
    return FaultyRuntime(tmp_path_factory.mktemp("python") / "venv")


@pytest.fixture(autouse=True)
def nothing_is_left(tmp_path: Path, runtime: FaultyRuntime) -> Iterator[None]:
    runtime.breaks()
    yield
    assert within(10.0, lambda: processes_of(tmp_path) == []), "processes are left"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


# -- two clients


def test_a_second_client_waits_is_told_for_whom_and_is_next(
    home: Path, tmp_path: Path, runtime: FaultyRuntime
) -> None:
    artifact = network(tmp_path / "n.onnx")
    said: list[str] = []
    results: list[MeasureResult] = []

    def measure_too() -> None:
        with open_agent(serving(home, runtime.python), waiting=said.append) as second:
            results.append(second.measure(artifact, request(artifact)))

    with open_agent(serving(home, runtime.python), client="study pareto of alice") as first:
        assert first.measure(artifact, request(artifact)).status is Status.OK
        other = threading.Thread(target=measure_too)
        other.start()
        assert within(30.0, lambda: said)
        with pytest.raises(DeviceLost, match=r"a job was done|nothing was asked for 2 s"):
            first.measure(artifact, request(artifact))
        other.join(60.0)
    assert results[0].status is Status.OK
    assert said[0] == "held by study pareto of alice; this client is number 1 in the queue"


def test_who_waits_for_a_host_that_times_without_a_pause_has_every_second_turn(
    home: Path, tmp_path: Path, runtime: FaultyRuntime
) -> None:
    turns: list[str] = []
    ended = threading.Event()
    command = serving(home, runtime.python)
    artifacts = [network(tmp_path / f"{k}.onnx", k) for k in range(2)]

    def times(name: str, artifact: Path, until: Callable[[], bool]) -> None:
        device = open_agent(command, client=name)
        while not until():
            try:
                device.measure(artifact, request(artifact))
                turns.append(name)
            except DeviceLost:
                device.close()
                device = open_agent(command, client=name)
        device.close()

    eager = threading.Thread(target=times, args=("eager", artifacts[0], ended.is_set))
    eager.start()
    try:
        assert within(30.0, lambda: turns)
        times("other", artifacts[1], lambda: turns.count("other") >= 2)
    finally:
        ended.set()
        eager.join(60.0)
    first = turns.index("other")
    second = turns.index("other", first + 1)
    assert second - first <= 2, turns


def test_who_waits_is_told_again_and_again_and_may_give_up(
    home: Path, runtime: FaultyRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []

    def gives_up(text: str) -> None:
        said.append(text)
        if len(said) == 4:  # every word begins the deadline anew
            raise TimeoutError(text)

    with open_agent(serving(home, runtime.python)) as first:
        first.hello()
        second = open_agent(serving(home, runtime.python), waiting=gives_up)
        with monkeypatch.context() as patch, pytest.raises(TimeoutError, match="held by"):
            patch.setattr("evaluators.devices.client.HELLO_DEADLINE_S", 5.0)
            second.hello()
        with pytest.raises(DeviceLost, match="has ended, hello was given up"):
            second.hello()
        assert first.result("0" * 64) is None
    with open_agent(serving(home, runtime.python)) as third:
        assert third.hello().python


def test_who_asks_nothing_while_another_waits_is_let_go(
    home: Path, tmp_path: Path, runtime: FaultyRuntime
) -> None:
    artifact = network(tmp_path / "n.onnx")
    command = serving(home, runtime.python, "--idle-s", "0.5")
    with open_agent(command) as idle:
        idle.hello()
        time.sleep(1.0)
        assert idle.result("0" * 64) is None, "nobody waited"
        with open_agent(command) as other:
            assert other.measure(artifact, request(artifact)).status is Status.OK
        with pytest.raises(DeviceLost, match=r"nothing was asked for 0\.5 s while another"):
            idle.result("0" * 64)


# -- other versions


def test_a_host_of_another_version_is_told_which_side_is_old(
    home: Path, runtime: FaultyRuntime
) -> None:
    command = serving(home, runtime.python)
    oldest, newest = wire.VERSIONS
    for versions, named in (
        ([1, oldest - 1], "an old host"),
        ([newest + 1, newest + 7], "an old agent"),
    ):
        transport = LocalTransport(command)
        wire.skip_to_preamble(transport.reader)
        wire.send(transport.writer, {"kind": "hello", "versions": versions})
        frame = wire.receive(transport.reader)
        assert frame is not None and frame.control["code"] == "version"
        assert named in frame.control["message"]
        assert "fusion-nas device install" in frame.control["message"]
        transport.close()


def speaks(*frames: dict[str, Any], stderr: str = "") -> LocalTransport:
    """An agent that says these frames whatever it is asked."""
    said = wire.MAGIC + b"".join(map(wire.encode, frames))
    code = f"import sys; sys.stderr.write({stderr!r}); sys.stderr.flush(); "
    code += f"sys.stdout.buffer.write({said!r}); sys.stdout.flush(); sys.stdin.read()"
    return LocalTransport([sys.executable, "-c", code])


def error(code: str, message: str) -> dict[str, Any]:
    return {"kind": "error", "code": code, "message": message}


@pytest.mark.parametrize(
    "answer",
    [
        error("bad-message", """hello: fields missing [], unknown ["'client'"]"""),
        error("version", "hello: versions [2, 2], this agent speaks [1, 1]: an old agent"),
    ],
)
def test_an_old_agent_is_called_so_and_how_to_mend_it(answer: dict[str, Any]) -> None:
    with DeviceClient(speaks(answer), name="orin") as device, pytest.raises(DeviceRefused) as old:
        device.hello()
    assert old.value.code == "version" and "an old agent" in str(old.value)
    if answer["code"] == "bad-message":
        assert "fusion-nas device install orin" in str(old.value)


# -- damaged, late and doubled bytes


class Flips:
    """A transport that flips one bit of the `at`-th byte that is sent."""

    def __init__(self, inner: LocalTransport, at: int) -> None:
        self._inner, self._at, self._sent = inner, at, 0
        self.reader: wire.Reader = inner.reader
        self.writer: wire.Writer = self

    def write(self, data: bytes | memoryview, /) -> int:
        sent = bytearray(data)
        if 0 <= self._at - self._sent < len(sent):
            sent[self._at - self._sent] ^= 1
        taken = self._inner.writer.write(bytes(sent))
        assert taken is not None
        self._sent += taken
        return taken

    def flush(self) -> None:
        self._inner.writer.flush()

    def stderr_tail(self) -> str:
        return self._inner.stderr_tail()

    def close(self) -> None:
        self._inner.close()


def test_a_byte_that_is_flipped_in_an_upload_is_noticed_and_it_is_sent_again(
    home: Path, tmp_path: Path, runtime: FaultyRuntime
) -> None:
    artifact = network(tmp_path / "n.onnx", size=100_000)
    asked = request(artifact, 100_000)
    transport = Flips(LocalTransport(serving(home, runtime.python)), at=200_000)
    with DeviceClient(transport) as device:
        assert device.measure(artifact, asked).status is Status.OK
        assert transport._sent > 2 * artifact.stat().st_size
    kept = home / "artifacts" / asked.artifact_sha256
    assert kept.read_bytes() == artifact.read_bytes()
    assert [*(home / "artifacts").iterdir()] == [kept]


@pytest.mark.parametrize("at", [0, 4, 14, 60])
def test_a_byte_that_is_flipped_in_a_message_never_changes_what_is_done(
    home: Path, runtime: FaultyRuntime, at: int
) -> None:
    transport = Flips(LocalTransport(serving(home, runtime.python)), at)
    with DeviceClient(transport, call_deadline_s=5.0) as device:
        try:
            device.hello()
        except (DeviceLost, DeviceRefused) as told:
            assert str(told)
        assert device._ended or device.result("0" * 64) is None


def hello(info: DeviceInfo = INFO) -> dict[str, Any]:
    return {"kind": "hello", "version": wire.VERSIONS[1], "info": info.as_json()}


def result(job_id: str, reason: str = "not begun") -> dict[str, Any]:
    failed = MeasureResult(Status.ERROR, reason).as_json()
    return {"kind": "result", "job_id": job_id, "result": failed, "fetched": False}


@pytest.mark.parametrize("late", ["of another job", "doubled"])
def test_a_late_or_doubled_result_is_never_taken_for_that_of_another_job(
    tmp_path: Path, late: str
) -> None:
    artifacts = [network(tmp_path / f"{k}.onnx", k) for k in range(2)]
    asked = [request(artifact) for artifact in artifacts]
    first, second = map(job_id_of, asked)
    have = {"kind": "missing", "sha256s": []}
    answers = {
        "of another job": [hello(), have, result(second)],
        "doubled": [hello(), have, result(first), result(first), have],
    }
    with DeviceClient(speaks(*answers[late])) as device:
        if late == "doubled":
            assert device.measure(artifacts[0], asked[0], job_id=first).reason == "not begun"
            with pytest.raises(DeviceLost, match=r"kind of the answer to have is 'result'"):
                device.measure(artifacts[1], asked[1], job_id=second)
        else:
            with pytest.raises(DeviceLost, match=f"job_id is '{second[:16]}"):
                device.measure(artifacts[0], asked[0], job_id=first)


# -- hostile words


def test_whatever_a_device_says_is_shown_as_text(tmp_path: Path) -> None:
    runtimes = (RuntimeInfo("onnxruntime", problem=ESCAPE, providers=(ESCAPE,)),)
    info = DeviceInfo(Board(model=ESCAPE, power_mode=ESCAPE), runtimes, ESCAPE[:60], 2**30)
    waiting = {"kind": "waiting", "holder": ESCAPE, "place": 1}
    artifact = network(tmp_path / "n.onnx")
    asked = request(artifact)
    job = job_id_of(asked)
    missing = {"kind": "missing", "sha256s": []}
    answers = (waiting, hello(info), missing, result(job, ESCAPE), error(ESCAPE, ESCAPE))
    babble = {"kind": ESCAPE[:30]}
    said: list[str] = []
    transport = speaks(*answers, babble, stderr=ESCAPE)
    with DeviceClient(transport, waiting=said.append) as device:
        found = device.hello()
        measured = device.measure(artifact, asked, job_id=job)
        with pytest.raises(DeviceRefused) as refused:
            device.result(job)
        with pytest.raises(DeviceLost) as lost:
            device.result(job)
    model = found.board.model
    assert model is not None and model.startswith("␛]0;mine␇␛[31mred␛[0m")
    assert len(model) == len(ESCAPE), "no cap on a length is overrun"
    texts = [model, found.python, found.runtimes[0].problem, found.runtimes[0].providers[0]]
    texts += [said[0], measured.reason, str(refused.value), refused.value.code]
    assert all(text.isprintable() for text in texts)
    assert all(line.isprintable() for line in str(lost.value).splitlines())
    assert "alert(1)" in str(lost.value), "what it printed is shown"
    shown = page.render(hostile(model))
    assert "<script>alert" not in shown and "&lt;script&gt;alert" in shown


def test_what_can_be_shown_stays_as_it_is() -> None:
    assert plain("Jetson Orin Nano – 8 GB, 25 °C, 時") == "Jetson Orin Nano – 8 GB, 25 °C, 時"
    assert plain("a\tb\nc\x7f\x9b\ud800") == "a b c␡\ufffd\ufffd"
    assert plain_lines("one\n\x1b[2Jtwo\r\nthree") == "one\n␛[2Jtwo\nthree"


def test_a_shell_that_prints_does_not_matter(home: Path, tmp_path: Path) -> None:
    python = tmp_path / "python"
    noise = "printf '\\033[31mWelcome\\000\\n'; cat /proc/cpuinfo; echo oops >&2"
    python.write_text(f'#!/bin/sh\n{noise}\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    with open_local_device(home, str(python)) as device:
        assert device.hello().python
