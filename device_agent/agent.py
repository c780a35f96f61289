"""The agent: it answers one host over two streams, and is gone when the host is."""

import json
import os
import platform
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO, NoReturn

from device_agent import wire
from device_agent.board import read_board
from device_agent.checks import ProtocolError, as_tuple, check_int, check_sha256, take
from device_agent.child import HostGone, own_command, run_child
from device_agent.device import DeviceInfo, RuntimeInfo
from device_agent.job import Job
from device_agent.protocol import MeasureRequest
from device_agent.result import MeasureResult, Status
from device_agent.runtimes import RUNTIMES
from device_agent.store import MEBI, Store, StoreError

PATIENCE_S = 3.0
DESCRIBE_DEADLINE_S = 120.0

Answer = dict[str, object]


class Agent:
    """Answers the messages of one host, in turn; see `device_agent.wire` for what they are.

    Args:
        store: the agent's home.
        reader: unbuffered stream from the host; its descriptor tells when the host is gone.
        writer: stream to the host; nothing but frames may reach it.
        max_upload_bytes: the largest artifact taken.
    """

    def __init__(
        self, store: Store, reader: BinaryIO, writer: BinaryIO, max_upload_bytes: int
    ) -> None:
        """Keep the arguments."""
        self._store = store
        self._reader = reader
        self._writer = writer
        self._max_upload_bytes = max_upload_bytes
        self._answers: Mapping[str, Callable[[wire.Frame], Answer]] = {
            "hello": self._hello,
            "have": self._have,
            "put": self._put,
            "measure": self._measure,
            "result": self._result,
            "forget": self._forget,
            "bye": lambda frame: {"kind": "bye"},
        }

    def serve(self) -> None:
        """Answer until the host says `bye` or ends the stream.

        Raises:
            ProtocolError: a frame that cannot be read; the host was told, the stream is lost.
            HostGone: the host left while a job ran; the job is gone.
        """
        while True:
            try:
                frame = wire.receive(self._reader)
            except wire.TornFrame:
                raise
            except ProtocolError as error:
                self._refuse("bad-frame", error)
                raise
            if frame is None:
                return
            self._answer(frame)
            if frame.kind == "bye":
                return

    def _answer(self, frame: wire.Frame) -> None:
        try:
            if frame.kind not in self._answers:
                known = ", ".join(self._answers)
                raise ProtocolError(f"a message of kind {frame.kind!r}: send one of {known}")
            if frame.payload_bytes and frame.kind != "put":
                raise ProtocolError(f"a {frame.kind} with a payload: only put has one")
            answer = self._answers[frame.kind](frame)
        except wire.TornFrame:
            raise
        except ProtocolError as error:
            for _ in wire.payload(self._reader, frame.payload_bytes):
                pass
            self._refuse("bad-message", error)
        except StoreError as error:
            self._refuse(error.code, error)
        else:
            wire.send(self._writer, answer)

    def _refuse(self, code: str, error: Exception) -> None:
        wire.send(self._writer, {"kind": "error", "code": code, "message": str(error)[:8000]})

    def _hello(self, frame: wire.Frame) -> Answer:
        asked = take("hello", frame.control, ("kind", "versions"))
        span = as_tuple("hello: versions", asked["versions"])
        check_int("hello: number of versions", len(span), 2, 2)
        for version in span:
            check_int("hello: one version", version, 1, 2**31)
        version = min(span[1], wire.VERSIONS[1])
        if version < max(span[0], wire.VERSIONS[0]):
            ours = f"this agent speaks versions {list(wire.VERSIONS)}"
            raise ProtocolError(f"hello: versions {list(span)}, {ours}: send its own zipapp")
        ended = run_child(own_command("describe"), DESCRIBE_DEADLINE_S, self._reader.fileno())
        if ended.problem:
            problem = f"looking for runtimes failed: {ended.problem}"
            runtimes = tuple(RuntimeInfo(name, problem=problem) for name in RUNTIMES)
            info = describe(self._max_upload_bytes, runtimes)
        else:
            info = DeviceInfo.from_json(
                {**json.loads(ended.answer), "max_upload_bytes": self._max_upload_bytes}
            )
        return {"kind": "hello", "version": version, "info": info.as_json()}

    def _have(self, frame: wire.Frame) -> Answer:
        asked = take("have", frame.control, ("kind", "sha256s"))
        names = as_tuple("have: sha256s", asked["sha256s"])
        missing = [name for name in names if self._store.artifact(name) is None]
        return {"kind": "missing", "sha256s": missing}

    def _put(self, frame: wire.Frame) -> Answer:
        asked = take("put", frame.control, ("kind", "sha256", "length"))
        check_sha256("put: sha256", asked["sha256"])
        check_int("put: length", asked["length"], 0, self._max_upload_bytes)
        chunks = wire.payload(self._reader, frame.payload_bytes)
        self._store.receive(asked["sha256"], asked["length"], chunks)
        return {"kind": "stored", "sha256": asked["sha256"]}

    def _measure(self, frame: wire.Frame) -> Answer:
        asked = take("measure", frame.control, ("kind", "job_id", "request"))
        check_sha256("measure: job_id", asked["job_id"])
        request = MeasureRequest.from_json(asked["request"])
        kept = self._kept(asked["job_id"])
        if kept is not None and kept[0] != request:
            other = f"measure: job_id {asked['job_id'][:16]} names a job with another request"
            raise ProtocolError(f"{other}: give this one a name of its own")
        fetched = kept is not None and kept[1].status is not Status.ERROR
        if kept is None or not fetched:
            kept = request, self._run(request)
            self._keep(asked["job_id"], *kept)
        return _result(asked["job_id"], kept[1], fetched)

    def _keep(self, job_id: str, request: MeasureRequest, result: MeasureResult) -> None:
        try:
            both = {"request": request.as_json(), "result": result.as_json()}
            self._store.save_result(job_id, both)
        except StoreError as error:
            print(f"device_agent: the result is sent, but not kept: {error}", file=sys.stderr)

    def _run(self, request: MeasureRequest) -> MeasureResult:
        artifact = self._store.artifact(request.artifact_sha256)
        if artifact is None:
            gone = f"artifact {request.artifact_sha256[:16]} is not on the device: send it"
            return MeasureResult(Status.ERROR, gone)
        with self._store.scratch() as scratch:
            job = Job(request, artifact, scratch)
            file = scratch / "job.json"
            file.write_text(json.dumps(job.as_json(), allow_nan=False))
            ended = run_child(
                own_command("job", str(file)), request.deadline_s, self._reader.fileno()
            )
        if ended.problem:
            return MeasureResult(Status.ERROR, ended.problem, provider=request.provider)
        try:
            return MeasureResult.from_json(wire.parse_json(ended.answer))
        except ProtocolError as error:
            said = f"the job's process gave no valid result: {error}"
            return MeasureResult(Status.ERROR, said[:8000], provider=request.provider)

    def _result(self, frame: wire.Frame) -> Answer:
        asked = take("result", frame.control, ("kind", "job_id"))
        check_sha256("result: job_id", asked["job_id"])
        kept = self._kept(asked["job_id"])
        return _result(asked["job_id"], None if kept is None else kept[1], kept is not None)

    def _kept(self, job_id: str) -> tuple[MeasureRequest, MeasureResult] | None:
        kept = self._store.load_result(job_id)
        try:
            both = take("a kept result", kept, ("request", "result"))
            request = MeasureRequest.from_json(both["request"])
            return request, MeasureResult.from_json(both["result"])
        except ProtocolError:
            return None

    def _forget(self, frame: wire.Frame) -> Answer:
        asked = take("forget", frame.control, ("kind", "sha256s", "job_ids"))
        sha256s = as_tuple("forget: sha256s", asked["sha256s"])
        self._store.forget(sha256s, as_tuple("forget: job_ids", asked["job_ids"]))
        return {"kind": "forgotten"}


def describe(max_upload_bytes: int, runtimes: tuple[RuntimeInfo, ...] | None = None) -> DeviceInfo:
    """Say what the device is; loads every runtime unless told of them."""
    if runtimes is None:
        runtimes = tuple(runtime.describe() for runtime in RUNTIMES.values())
    return DeviceInfo(read_board(), runtimes, platform.python_version(), max_upload_bytes)


def serve(home: Path, max_upload_mb: int, keep_mb: int) -> int:
    """Serve the host on standard input and output until it is gone; return the exit status.

    From here on, whatever prints to standard output prints to standard error.
    """
    reader, writer = take_streams()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _leave)
    try:
        wire.send_bytes(writer, wire.MAGIC)
        try:
            store = Store(home, keep_mb)
            with store.held(PATIENCE_S):
                limit = min(max_upload_mb, keep_mb) * MEBI
                Agent(store, reader, writer, limit).serve()
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


def take_streams() -> tuple[BinaryIO, BinaryIO]:
    """Take standard input and output away from everyone else and return them, unbuffered."""
    reader = os.fdopen(os.dup(0), "rb", buffering=0)
    writer = os.fdopen(os.dup(1), "wb", buffering=0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return reader, writer


def _result(job_id: str, result: MeasureResult | None, fetched: bool) -> Answer:
    shown = None if result is None else result.as_json()
    return {"kind": "result", "job_id": job_id, "result": shown, "fetched": fetched}


def _leave(number: int, frame: object) -> NoReturn:
    raise SystemExit(128 + number)
