"""The host's side of a device: ask its agent to measure, with a deadline on every call.

A measurement that went wrong on the device is a `MeasureResult` that says so. What is raised here
is about the agent itself: `DeviceLost`, `DeviceTimeout` and `DeviceRefused`, all `DeviceError`.
"""

import os
import secrets
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Protocol, Self, TypeVar

from device_agent import wire
from device_agent.bundle import build_zipapp
from device_agent.checks import ProtocolError, as_tuple, check_choice, take
from device_agent.protocol import DeviceInfo, MeasureRequest, MeasureResult

STDERR_BYTES = 16 * 1024
HELLO_DEADLINE_S = 150.0
MEASURE_SLACK_S = 30.0
SLOWEST_UPLOAD_BYTES_S = 250_000.0
CLOSE_S = 2.0

T = TypeVar("T")


class DeviceError(Exception):
    """A device's agent could not be asked."""


class DeviceLost(DeviceError):
    """The agent or the link to it ended; open the device again."""


class DeviceTimeout(DeviceError):
    """The agent did not answer in time and was given up; open the device again."""


class DeviceRefused(DeviceError):
    """The agent answers, and says no.

    Its `code` is `disk-full`, `disk-error`, `wrong-length`, `wrong-sha256`, `too-large`, `busy`,
    `bad-message` or `bad-frame`.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{message} ({code})")
        self.code = code


class Transport(Protocol):
    """A pair of byte streams from and to a running agent, which goes when `writer` ends."""

    reader: wire.Reader
    writer: wire.Writer

    def stderr_tail(self) -> str:
        """Return the last that the agent and its jobs printed."""

    def close(self) -> None:
        """End the agent; a read or write that another thread is held in ends too. Never raises."""


class LocalTransport:
    """An agent that runs as a child process of this one."""

    def __init__(self, command: Sequence[str]) -> None:
        """Start the process by its command; raises `DeviceLost` when that fails."""
        pipe = subprocess.PIPE
        try:
            self._process = subprocess.Popen(
                command, stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0, start_new_session=True
            )
        except OSError as error:
            raise DeviceLost(f"the agent did not start with {command[0]}: {error}") from error
        stdin, stdout, stderr = self._process.stdin, self._process.stdout, self._process.stderr
        assert stdin and stdout and stderr
        self.writer: wire.Writer = stdin
        self.reader: wire.Reader = stdout
        self._pipes = (stdin, stdout)
        self.pid = self._process.pid
        self._tail = bytearray()
        self._drain = threading.Thread(target=self._keep_tail, args=(stderr,), daemon=True)
        self._drain.start()

    def stderr_tail(self) -> str:
        """Return the last 16 KiB that the agent and its jobs printed."""
        return bytes(self._tail).decode("utf-8", "replace").strip()

    def close(self) -> None:
        """End the agent and its job, in two seconds or by force, and give the pipes back."""
        self._process.terminate()
        try:
            self._process.wait(CLOSE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._drain.join(CLOSE_S)
        for pipe in self._pipes:
            pipe.close()

    def _keep_tail(self, stream: IO[bytes]) -> None:
        with stream:
            while chunk := stream.read(4096):
                self._tail += chunk
                del self._tail[:-STDERR_BYTES]


class DeviceClient:
    """Asks one agent, one question at a time; use it in a `with` statement.

    It closes its transport. `call_deadline_s` is for each question that needs no work of the
    device. After `DeviceLost` or `DeviceTimeout` it has ended and a new one must be opened; a job
    that ran to its end can be fetched by its `job_id`.
    """

    def __init__(self, transport: Transport, call_deadline_s: float = 60.0) -> None:
        self._transport = transport
        self._call_deadline_s = call_deadline_s
        self._info: DeviceInfo | None = None
        self._heard = False
        self._ended = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def hello(self) -> DeviceInfo:
        """Return what the agent says of its device, asked once; raises `DeviceError` as all do."""
        if self._info is None:
            asked = {"kind": "hello", "versions": list(wire.VERSIONS)}
            self._info = self._ask(asked, "hello", _info_of, HELLO_DEADLINE_S)
        return self._info

    def measure(
        self, artifact: Path, request: MeasureRequest, *, job_id: str | None = None
    ) -> MeasureResult:
        """Send the artifact unless the device has it, measure, and return what came of it.

        Args:
            artifact: the ONNX file whose SHA-256 the request names.
            request: what to do with it.
            job_id: name of the job, see `device_agent.protocol.job_id_of`. When a job of that name
                ended before, and not with ERROR, its result is fetched and nothing is run. Without
                one, it is run in any case.

        Raises:
            OSError: the artifact cannot be opened.
            DeviceError: the agent could not be asked; `DeviceRefused` leaves the client usable.
        """
        self.hello()
        self._send_if_missing(artifact, request.artifact_sha256)
        name = job_id or secrets.token_hex(32)
        asked = {"kind": "measure", "job_id": name, "request": request.as_json()}
        deadline_s = request.deadline_s + MEASURE_SLACK_S
        result = self._ask(asked, "result", lambda answer: _result_of(answer, name), deadline_s)
        assert result is not None
        return result

    def result(self, job_id: str) -> MeasureResult | None:
        """Return what came of a job that ended before, with ERROR too; None when nothing did."""
        self.hello()
        asked = {"kind": "result", "job_id": job_id}
        wait_s = self._call_deadline_s
        return self._ask(asked, "result", lambda answer: _result_of(answer, job_id), wait_s)

    def forget(self, artifacts: Iterable[str] = (), job_ids: Iterable[str] = ()) -> None:
        """Remove artifacts, by SHA-256, and results from the device where they are."""
        self.hello()
        asked = {"kind": "forget", "sha256s": [*artifacts], "job_ids": [*job_ids]}
        self._ask(asked, "forgotten", lambda answer: None, self._call_deadline_s)

    def close(self) -> None:
        """End the agent, and with it a job that still runs. Never raises; may be called twice."""
        if self._ended:
            return
        with suppress(DeviceError):
            self._ask({"kind": "bye"}, "bye", lambda answer: None, CLOSE_S)
        self._end("it was closed")

    def _send_if_missing(self, artifact: Path, sha256: str) -> None:
        have = {"kind": "have", "sha256s": [sha256]}
        if not self._ask(have, "missing", _missing_of, self._call_deadline_s):
            return
        with open(artifact, "rb") as file:
            length = os.fstat(file.fileno()).st_size
            if length > (most := self.hello().max_upload_bytes):
                said = f"{artifact} has {length} bytes, the agent takes {most}: build a smaller one"
                raise DeviceRefused("too-large", said)
            asked = {"kind": "put", "sha256": sha256, "length": length}
            deadline_s = self._call_deadline_s + length / SLOWEST_UPLOAD_BYTES_S
            self._ask(asked, "stored", lambda answer: None, deadline_s, file, length)

    def _ask(
        self,
        asked: Mapping[str, object],
        kind: str,
        parse: Callable[[dict[str, Any]], T],
        deadline_s: float,
        file: wire.Reader | None = None,
        length: int = 0,
    ) -> T:
        """Send one message, with a file's content as payload, and parse the answer to it."""
        question = str(asked["kind"])
        if self._ended:
            raise DeviceLost(f"{question}: this client has ended, {self._ended}: open another")
        exchange: Future[dict[str, Any]] = Future()
        work = (exchange, lambda: self._exchange(asked, file, length))
        threading.Thread(target=_fulfil, args=work, daemon=True).start()
        try:
            if exchange in wait([exchange], deadline_s).not_done:
                raise DeviceTimeout(f"{question}: no answer in {deadline_s:g} s")
            answer = exchange.result()
            if answer["kind"] == "error":
                refused = take("error", answer, ("kind", "code", "message"))
                raise DeviceRefused(str(refused["code"]), f"{question}: {refused['message']}")
            check_choice(f"the kind of the answer to {question}", answer["kind"], (kind,))
            return parse(answer)
        except DeviceRefused:
            raise
        except DeviceTimeout as error:
            self._end(str(error))
            raise DeviceTimeout(f"{error}: look at the device. {self._log()}") from None
        except (OSError, ProtocolError) as error:
            self._end(f"{question} failed: {error}")
            raise DeviceLost(f"{question}: the agent is lost: {error}. {self._log()}") from error
        except BaseException:
            self._end(f"{question} was interrupted")
            raise

    def _exchange(
        self, asked: Mapping[str, object], file: wire.Reader | None, length: int
    ) -> dict[str, Any]:
        if not self._heard:
            wire.skip_to_preamble(self._transport.reader)
            self._heard = True
        unsent: OSError | None = None
        try:
            wire.send(self._transport.writer, asked, length)
            if file is not None:
                for chunk in wire.payload(file, length):
                    wire.send_bytes(self._transport.writer, chunk)
        except OSError as error:
            unsent = error  # The agent may have said why before it left.
        frame = wire.receive(self._transport.reader)
        if frame is None:
            raise unsent or wire.TornFrame("it ended without an answer")
        if frame.payload_bytes:
            raise ProtocolError(f"a {frame.kind} with a payload: no answer has one")
        return frame.control

    def _end(self, why: str) -> None:
        if not self._ended:
            self._ended = why
            self._transport.close()

    def _log(self) -> str:
        tail = self._transport.stderr_tail()
        return f"It printed last:\n{tail}" if tail else "It printed nothing."


def open_local_device(home: Path, python: str = sys.executable) -> DeviceClient:
    """Start the agent that devices get as a child process, and return a client for it.

    The home is made where missing and held by one agent at a time; `python` runs the agent and has
    the runtimes that are to be measured. Raises `DeviceLost` when it does not start, `OSError`
    when the home cannot be made.
    """
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    agent = build_zipapp(home / "agent")
    command = [python, "-I", str(agent), "serve", "--home", str(home.resolve())]
    return DeviceClient(LocalTransport(command))


def _fulfil(future: Future[T], work: Callable[[], T]) -> None:
    try:
        future.set_result(work())
    except BaseException as error:
        future.set_exception(error)


def _info_of(answer: dict[str, Any]) -> DeviceInfo:
    return DeviceInfo.from_json(take("hello", answer, ("kind", "version", "info"))["info"])


def _missing_of(answer: dict[str, Any]) -> tuple[str, ...]:
    return as_tuple("missing: sha256s", take("missing", answer, ("kind", "sha256s"))["sha256s"])


def _result_of(answer: dict[str, Any], job_id: str) -> MeasureResult | None:
    found = take("result", answer, ("kind", "job_id", "result", "fetched"))
    check_choice("result: job_id", found["job_id"], (job_id,))
    return None if found["result"] is None else MeasureResult.from_json(found["result"])
