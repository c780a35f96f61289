"""One host's visit: it waits for its turn, has the device to itself, asks, and is answered."""

import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

from device_agent.agent import Agent, Answer
from device_agent.checks import ProtocolError, as_tuple, check_int, check_text, take
from device_agent.storage.lease import MAX_CLIENT, Queue
from device_agent.storage.store import MEBI, Store, StoreError
from device_agent.wire import frames as wire
from device_agent.wire.streams import MESSAGE_S, HostGone, HostReader, HostWriter, take_streams

IDLE_S = 60.0
LEASE_S = 900.0
"""So long a host may have the device without a job while others wait."""
DONE_IDLE_S = 2.0
"""So long after a job a host that asks nothing keeps the device while others wait."""
TICK_S = 0.5
WAITING_EVERY_S = 2.0
MAX_MESSAGE = 8000
MOST_WAITING = 100
"""So many waiting clients are listed."""


class OtherVersion(ProtocolError):
    """The host speaks no version that this agent does."""


class HostSession:
    """Takes the frames of one host in turn; see `device_agent.wire.frames` for what they are.

    Args:
        store: the agent's home.
        queue: of those who want the device of that home.
        reader: stream from the host; its descriptor tells when the host is gone.
        writer: stream to the host; nothing but frames may reach it.
        max_upload_bytes: the largest artifact taken.
        idle_s: how long a host that asks nothing keeps the device while others wait.
        lease_s: how long a host keeps it without a job while others wait.
    """

    def __init__(
        self,
        store: Store,
        queue: Queue,
        reader: HostReader,
        writer: HostWriter,
        max_upload_bytes: int,
        idle_s: float = IDLE_S,
        lease_s: float = LEASE_S,
    ) -> None:
        """Keep the arguments."""
        self._store, self._queue = store, queue
        self._reader, self._writer = reader, writer
        self._max_upload_bytes = max_upload_bytes
        self._idle_s, self._lease_s = idle_s, lease_s
        self._told: tuple[str, int] | None = None
        self._reported_at_s = 0.0

    def serve(self) -> None:
        """Answer until the host says `bye` or ends the stream, with the device from `hello` on.

        Raises:
            ProtocolError: a frame that cannot be read; the host was told, the stream is lost.
            HostGone: the host left while it waited or a job ran; the job is gone.
        """
        frame = self._receive()
        while frame is not None and frame.kind != "bye":
            if frame.kind == "queue":
                self._answer_queue(frame)
                frame = self._receive()
                continue
            client = self._client_of(frame)
            if client is None:
                frame = self._receive()
                continue
            with self._queue.turn(client, self._wait) as device:
                self._store.sweep()
                frame = self._converse(device, frame)
            break
        if frame is not None:
            self._send({"kind": "bye"})

    def _answer_queue(self, frame: wire.Frame) -> None:
        """Tell who has the device and who waits for it, whoever that is."""
        try:
            take("queue", frame.control, ("kind",))
        except ProtocolError as error:
            self._skip_payload(frame)
            self._refuse("bad-message", error)
            return
        holder, busy_s = self._queue.holder() or (None, None)
        waiting = self._queue.waiting()[:MOST_WAITING]
        self._send({"kind": "queue", "holder": holder, "busy_s": busy_s, "waiting": waiting})

    def _client_of(self, frame: wire.Frame) -> str | None:
        """Return who says hello; None where it was refused."""
        try:
            if frame.kind != "hello":
                raise ProtocolError(f"a {frame.kind!r} before hello: say hello first")
            _check_versions(frame.control)
            asked = take("hello", frame.control, ("kind", "versions", "client"))
            check_text("hello: client", asked["client"], MAX_CLIENT)
        except ProtocolError as error:
            self._skip_payload(frame)
            code = "version" if isinstance(error, OtherVersion) else "bad-message"
            self._refuse(code, error)
            return None
        return str(asked["client"])

    def _wait(self, holder: str, place: int) -> None:
        """Tell the host for whom it waits, when that is news and now and then; rest a moment."""
        now_s = time.monotonic()
        if self._told != (holder, place) or now_s - self._reported_at_s >= WAITING_EVERY_S:
            self._send({"kind": "waiting", "holder": holder, "place": place})
            self._told, self._reported_at_s = (holder, place), now_s
        if self._reader.ready(TICK_S):
            raise HostGone("the host ended the link or spoke out of turn while it waited")

    def _converse(self, device: int, hello: wire.Frame) -> wire.Frame | None:
        """Answer whatever is asked; return the `bye`, or None where the host is to be let go."""
        agent = Agent(self._store, self._reader, device, self._max_upload_bytes)
        frame: wire.Frame | None = hello
        done = False
        lease_end_s = time.monotonic() + self._lease_s
        while frame is not None and frame.kind != "bye":
            if done and frame.kind in ("have", "measure") and self._queue.others_wait():
                self._give_way("a job was done and another client waits")
                return None
            if not done and time.monotonic() > lease_end_s and self._queue.others_wait():
                self._give_way(f"no job in {self._lease_s:g} s while another client waited")
                return None
            if frame.kind == "hello":
                self._answer_hello(agent, frame)
            else:
                self._answer(agent, frame)
            done = done or frame.kind == "measure"
            frame = self._next(min(self._idle_s, DONE_IDLE_S) if done else self._idle_s)
        return frame

    def _answer_hello(self, agent: Agent, frame: wire.Frame) -> None:
        if self._client_of(frame) is not None:
            version = _check_versions(frame.control)
            answer: Answer = {"kind": "hello", "version": version, "info": agent.info().as_json()}
            self._send(answer)

    def _answer(self, agent: Agent, frame: wire.Frame) -> None:
        try:
            answer = agent.answer(frame)
        except wire.TornFrame:
            raise
        except ProtocolError as error:
            self._skip_payload(frame)
            self._refuse("bad-message", error)
        except StoreError as error:
            self._refuse(error.code, error)
        else:
            self._send(answer)

    def _next(self, idle_s: float) -> wire.Frame | None:
        """Return the next frame; None at the end of the stream, or when others had to wait."""
        idle_until_s = time.monotonic() + idle_s
        while not self._reader.ready(TICK_S):
            if time.monotonic() >= idle_until_s and self._queue.others_wait():
                self._give_way(f"nothing was asked for {idle_s:g} s while another client waited")
                return None
        return self._receive()

    def _give_way(self, why: str) -> None:
        self._refuse("gave-way", HostGone(f"{why}: open the device again"))

    def _receive(self) -> wire.Frame | None:
        self._reader.begin(MESSAGE_S)
        try:
            frame = wire.receive(self._reader)
            if frame is not None and frame.payload_bytes and frame.kind != "put":
                raise ProtocolError(f"a {frame.kind!r} with a payload: only put has one")
            return frame
        except wire.TornFrame:
            raise
        except ProtocolError as error:
            self._refuse("bad-frame", error)
            raise

    def _send(self, answer: Mapping[str, object]) -> None:
        self._writer.begin(MESSAGE_S)
        wire.send(self._writer, answer)

    def _skip_payload(self, frame: wire.Frame) -> None:
        for _ in wire.payload(self._reader, frame.payload_bytes):
            pass

    def _refuse(self, code: str, error: Exception) -> None:
        message = str(error)[:MAX_MESSAGE]
        self._send({"kind": "error", "code": code, "message": message})


def serve(home: Path, max_upload_mb: int, keep_mb: int, idle_s: float = IDLE_S) -> int:
    """Serve the host on standard input and output until it is gone; return the exit status.

    From here on, whatever prints to standard output prints to standard error.
    """
    source, sink = take_streams()
    reader, writer = HostReader(source.fileno()), HostWriter(sink.fileno())
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _leave)
    try:
        wire.send_bytes(writer, wire.MAGIC)
        try:
            store = Store(home, keep_mb)
            limit = min(max_upload_mb, keep_mb) * MEBI
            HostSession(store, Queue(home), reader, writer, limit, idle_s).serve()
        except StoreError as error:
            wire.send(writer, {"kind": "error", "code": error.code, "message": str(error)})
            return 1
        except OSError as error:
            if isinstance(error, BrokenPipeError):
                raise
            said = f"the agent's home {home} cannot be used: {error}: give another with --home"
            wire.send(writer, {"kind": "error", "code": "disk-error", "message": said})
            return 1
    except (ProtocolError, HostGone, BrokenPipeError) as error:
        print(f"device_agent: {error}", file=sys.stderr)
        return 1
    return 0


def _check_versions(hello: Mapping[str, object]) -> int:
    """Return the version that a hello and this agent both speak."""
    span = as_tuple("hello: versions", hello.get("versions"))
    check_int("hello: number of versions", len(span), 2, 2)
    for version in span:
        check_int("hello: one version", version, 1, 2**31)
    version = min(span[1], wire.VERSIONS[1])
    if version < max(span[0], wire.VERSIONS[0]):
        ours = f"hello: versions {list(span)}, this agent speaks {list(wire.VERSIONS)}"
        old, new = ("agent", "host") if span[0] > wire.VERSIONS[1] else ("host", "agent")
        hint = "put the host's own agent there with `fusion-nas device install NAME`"
        raise OtherVersion(f"{ours}: an old {old} and a newer {new}; {hint}")
    return int(version)


def _leave(number: int, frame: object) -> NoReturn:
    raise SystemExit(128 + number)
