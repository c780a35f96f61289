"""The host's side of a device: ask its agent to measure, with a deadline on every call.

A measurement that went wrong on the device is a `MeasureResult` that says so. What is raised here
is about the agent itself: `DeviceLost`, `DeviceTimeout` and `DeviceRefused`, all `DeviceError`.
"""

import getpass
import math
import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Self, TypeVar

from device_agent.board.description import DeviceState
from device_agent.bundle import build_zipapp
from device_agent.checks import (
    ProtocolError,
    check_choice,
    take,
)
from device_agent.runtimes.plugin import PluginSource
from device_agent.storage.lease import MAX_CLIENT
from device_agent.storage.store import NOTE
from device_agent.wire import frames as wire
from device_agent.wire.request import DeviceInfo, MeasureRequest, MeasureResult
from evaluators.devices.answers import (
    QueueAnswer,
    info_of,
    missing_of,
    queue_of,
    result_of,
    state_of,
    waiting_of,
)
from evaluators.devices.link import (
    CLOSE_S,
    STDERR_BYTES,
    DeviceError,
    DeviceLost,
    DeviceRefused,
    DeviceTimeout,
    LocalTransport,
    Transport,
)
from evaluators.devices.text import plain, plain_json, plain_lines

__all__ = [
    "CLOSE_S",
    "STDERR_BYTES",
    "DeviceClient",
    "DeviceError",
    "DeviceLost",
    "DeviceRefused",
    "DeviceTimeout",
    "LocalTransport",
    "Transport",
    "open_local_device",
]

CALL_DEADLINE_S = 60.0
HELLO_DEADLINE_S = 150.0
MEASURE_SLACK_S = 30.0
QUEUE_S = 4 * 3600.0
"""So long one place in the queue may take: the client before builds and times one network."""
SLOWEST_UPLOAD_BYTES_S = 250_000.0
UPLOADS = 2
DAMAGED = ("wrong-length", "wrong-sha256")
LEFT = ("gave-way", "bad-frame")
"""With these errors an agent ends."""

T = TypeVar("T")
Heard = SimpleQueue[dict[str, Any] | BaseException]


class DeviceClient:
    """Asks one agent, one question at a time; use it in a `with` statement.

    It closes its transport. After `DeviceLost` or `DeviceTimeout` it has ended and a new one must
    be opened; a job that ran to its end can be fetched by its `job_id`. Whatever the device says
    comes out of here as plain text, see `device_text`.

    Args:
        transport: to the agent.
        call_deadline_s: for each question that needs no work of the device.
        name: of the device, as the user calls it.
        client: who asks, for others who wait; at most 200 characters, else user and machine.
        waiting: told who has the device, and this client's place in the queue, as long as others
            have it; what it raises gives up.
    """

    def __init__(
        self,
        transport: Transport,
        call_deadline_s: float = CALL_DEADLINE_S,
        name: str = "local",
        client: str | None = None,
        waiting: Callable[[str], None] | None = None,
    ) -> None:
        self.name = name
        self._transport = transport
        self._call_deadline_s = call_deadline_s
        self._client = client or _who_asks()
        self._waiting = waiting
        self._info: DeviceInfo | None = None
        self._heard = False
        self._ended = ""
        self._noted: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def hello(self) -> DeviceInfo:
        """Return what the agent says of its device, asked once; raises `DeviceError` as all do.

        It waits until no client that came before has the device, as long as the queue moves: a
        client that is still at the same place after `QUEUE_S` gives up.
        """
        if self._info is None:
            span = list(wire.VERSIONS)
            asked = {"kind": "hello", "versions": span, "client": self._client}
            try:
                self._info = self._ask(asked, "hello", info_of, HELLO_DEADLINE_S)
            except DeviceRefused as error:
                if error.code != "bad-message":
                    raise
                hint = f"an old agent: run `fusion-nas device install {self.name}`"
                raise DeviceRefused("version", f"{hint}: it does not take {error}") from None
        return self._info

    def queue(self) -> QueueAnswer:
        """Return who has the device and who waits for it, without waiting; ask before `hello`.

        Raises:
            DeviceRefused: with code `version` where the agent is of a version that tells no queue.
            DeviceError: the agent could not be asked.
        """
        try:
            return self._ask({"kind": "queue"}, "queue", queue_of, self._call_deadline_s)
        except DeviceRefused as error:
            if error.code != "bad-message":
                raise
            hint = f"an old agent: run `fusion-nas device install {self.name}`"
            raise DeviceRefused("version", f"{hint}: it tells no queue") from None

    def measure(
        self, artifact: Path, request: MeasureRequest, *, job_id: str | None = None
    ) -> MeasureResult:
        """Send the artifact unless the device has it, measure, and return what came of it.

        Args:
            artifact: the ONNX file whose SHA-256 the request names.
            request: what to do with it.
            job_id: name of the job, see `device_agent.wire.request.job_id_of`. When a job of that
                name ended before with a stable reading or INFEASIBLE, its result is fetched
                and nothing is run. Without one, it is run in any case.

        Raises:
            OSError: the artifact cannot be opened.
            DeviceError: the agent could not be asked; `DeviceRefused` leaves the client usable.
        """
        self.hello()
        self._send_if_missing(artifact, request.artifact_sha256)
        name = job_id or secrets.token_hex(32)
        asked = {"kind": "measure", "job_id": name, "request": request.as_json()}
        deadline_s = request.deadline_s + MEASURE_SLACK_S
        result = self._ask(asked, "result", lambda answer: result_of(answer, name), deadline_s)
        assert result is not None
        self._tell_notes()
        return result

    def result(self, job_id: str) -> MeasureResult | None:
        """Return what came of a job that ended before, with ERROR too; None when nothing did."""
        self.hello()
        asked = {"kind": "result", "job_id": job_id}
        wait_s = self._call_deadline_s
        return self._ask(asked, "result", lambda answer: result_of(answer, job_id), wait_s)

    def state(self) -> DeviceState:
        """Return the state that the device is in now."""
        self.hello()
        return self._ask({"kind": "state"}, "state", state_of, self._call_deadline_s)

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
        self._tell_notes()

    def _tell_notes(self) -> None:
        """Tell once of each thing that the agent found damaged and made anew."""
        for line in plain_lines(self._transport.stderr_tail()).splitlines():
            if line.startswith(NOTE) and line not in self._noted and self._waiting is not None:
                self._noted.add(line)
                self._waiting(f"{self.name}: {line.removeprefix(NOTE)}")

    def _send_if_missing(self, artifact: Path, sha256: str) -> None:
        have = {"kind": "have", "sha256s": [sha256]}
        if not self._ask(have, "missing", missing_of, self._call_deadline_s):
            return
        for upload in range(1, UPLOADS + 1):
            try:
                return self._send(artifact, sha256)
            except DeviceRefused as error:
                if error.code not in DAMAGED or upload == UPLOADS:
                    raise

    def _send(self, artifact: Path, sha256: str) -> None:
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
        heard: Heard = SimpleQueue()
        work = (heard, self._exchange(asked, file, length))
        threading.Thread(target=_hear, args=work, daemon=True).start()
        try:
            answer = self._answer(question, heard, deadline_s)
            if answer["kind"] == "error":
                refused = take("error", answer, ("kind", "code", "message"))
                if refused["code"] in LEFT:
                    raise ProtocolError(f"it left: {refused['message']}")
                raise DeviceRefused(str(refused["code"]), f"{question}: {refused['message']}")
            check_choice(f"the kind of the answer to {question}", answer["kind"], (kind,))
            return parse(answer)
        except DeviceRefused:
            raise
        except DeviceTimeout as error:
            self._end(str(error))
            raise DeviceTimeout(f"{error}: look at the device. {self._log()}") from None
        except (OSError, ProtocolError) as error:
            if self._ended:  # whoever is told of waiting gave up
                raise
            self._end(f"{question} failed: {error}")
            raise DeviceLost(f"{question}: the agent is lost: {error}. {self._log()}") from error
        except BaseException:
            self._end(f"{question} was interrupted")
            raise

    def _answer(self, question: str, heard: Heard, deadline_s: float) -> dict[str, Any]:
        """Return what is heard, `waiting` apart, which has the deadline begin anew.

        That has an end too: in a queue that moves the place becomes less.
        """
        least, moved_s = math.inf, time.monotonic()
        while True:
            try:
                said = heard.get(timeout=deadline_s)
            except Empty:
                raise DeviceTimeout(f"{question}: no answer in {deadline_s:g} s") from None
            if isinstance(said, BaseException):
                raise said
            if said["kind"] != "waiting" or question != "hello":
                return said
            text, place = waiting_of(said)
            if place < least:
                least, moved_s = place, time.monotonic()
            elif time.monotonic() - moved_s > QUEUE_S:
                waited = f"{question}: the queue did not move for {QUEUE_S:g} s, {text}"
                raise DeviceTimeout(f"{waited}; see who has the device")
            try:
                if self._waiting is not None:
                    self._waiting(text)
            except BaseException:
                self._end(f"{question} was given up")
                raise

    def _exchange(
        self, asked: Mapping[str, object], file: wire.Reader | None, length: int
    ) -> Iterator[dict[str, Any]]:
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
        while True:
            frame = wire.receive(self._transport.reader)
            if frame is None:
                raise unsent or wire.TornFrame("it ended without an answer")
            if frame.payload_bytes:
                raise ProtocolError(f"a {plain(frame.kind)} with a payload: no answer has one")
            yield plain_json(frame.control)
            if frame.kind != "waiting" or asked["kind"] != "hello":
                return

    def _end(self, why: str) -> None:
        if not self._ended:
            self._ended = why
            self._transport.close()

    def _log(self) -> str:
        tail = plain_lines(self._transport.stderr_tail())
        return f"It printed last:\n{tail}" if tail else "It printed nothing."


def open_local_device(
    home: Path, python: str = sys.executable, plugin: PluginSource | None = None
) -> DeviceClient:
    """Start the agent that devices get as a child process, and return a client for it.

    The home is made where missing and held by one agent at a time; `python` runs the agent and has
    the runtimes that are to be measured; `plugin` is one beside those of the agent. Raises
    `DeviceLost` when it does not start, `OSError` when the home cannot be made.
    """
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    agent = build_zipapp(home / "agent")
    command = [python, "-I", str(agent), "serve", "--home", str(home.resolve())]
    return DeviceClient(LocalTransport(command, plugin.environment() if plugin else None))


def _hear(heard: Heard, exchange: Iterator[dict[str, Any]]) -> None:
    try:
        for said in exchange:
            heard.put(said)
    except BaseException as error:
        heard.put(error)


def _who_asks() -> str:
    try:
        user = getpass.getuser()
    except (OSError, KeyError, ImportError):  # This user has no name here.
        user = f"user {os.getuid()}"
    return plain(f"{user} at {socket.gethostname()}, process {os.getpid()}")[:MAX_CLIENT]
