"""What the agent answers to each question of the host that has the device."""

import hashlib
import json
import platform
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from device_agent.board.cpu_contention import others_s
from device_agent.board.description import DeviceInfo, DeviceState, RuntimeInfo
from device_agent.board.power import unreadable_rails
from device_agent.board.state import read_board, read_state
from device_agent.checks import ProtocolError, as_tuple, check_int, check_sha256, take
from device_agent.jobs.child import Ended, own_command, run_child
from device_agent.jobs.job import Job
from device_agent.runtime import LACKS_MEMORY
from device_agent.runtimes import runtimes as all_runtimes
from device_agent.storage.store import Store, StoreError, disk_errors
from device_agent.wire import frames as wire
from device_agent.wire.request import MeasureRequest
from device_agent.wire.result import MAX_REASON, MeasureResult, Status
from device_agent.wire.streams import MESSAGE_S, SLOWEST_BYTES_S, HostReader

DESCRIBE_DEADLINE_S = 120.0
LEAST_DEADLINE_S = 0.1

Answer = dict[str, object]


class Agent:
    """Answers what a host asks of the device while it has it.

    Args:
        store: the agent's home.
        reader: stream from the host; its descriptor tells when the host is gone.
        device: descriptor that holds the device; what is started here holds it too, so that
            nobody measures beside a process that cannot be killed.
        max_upload_bytes: the largest artifact taken.
    """

    def __init__(
        self, store: Store, reader: HostReader, device: int, max_upload_bytes: int
    ) -> None:
        """Keep the arguments."""
        self._store = store
        self._reader = reader
        self._device = device
        self._max_upload_bytes = max_upload_bytes
        self._said: DeviceInfo | None = None
        self._answers: Mapping[str, Callable[[wire.Frame], Answer]] = {
            "have": self._have,
            "put": self._put,
            "measure": self._measure,
            "result": self._result,
            "state": self._state,
            "forget": self._forget,
        }

    def answer(self, frame: wire.Frame) -> Answer:
        """Return the answer to anything but `hello` and `bye`.

        Raises:
            TornFrame: the stream ended inside the payload.
            ProtocolError: the message is not valid; its payload was not read.
            StoreError: the home could not do it; the payload was read.
            HostGone: the host left while a job ran; the job is gone.
        """
        if frame.kind not in self._answers:
            known = ", ".join(self._answers)
            raise ProtocolError(f"a message of kind {frame.kind!r}: send one of {known}")
        return self._answers[frame.kind](frame)

    def info(self) -> DeviceInfo:
        """Say what the device is; runtimes are loaded in a process of their own."""
        ended = self._child("describe", "--for-agent", deadline_s=DESCRIBE_DEADLINE_S)
        if ended.problem:
            problem = f"looking for runtimes failed: {ended.problem}"
            runtimes = tuple(RuntimeInfo(name, problem=problem) for name in all_runtimes())
            self._said = describe(self._max_upload_bytes, runtimes)
        else:
            said = {**json.loads(ended.answer), "max_upload_bytes": self._max_upload_bytes}
            self._said = DeviceInfo.from_json(said)
        return self._said

    def _have(self, frame: wire.Frame) -> Answer:
        asked = take("have", frame.control, ("kind", "sha256s"))
        names = as_tuple("have: sha256s", asked["sha256s"])
        missing = [name for name in names if self._store.artifact(name) is None]
        return {"kind": "missing", "sha256s": missing}

    def _put(self, frame: wire.Frame) -> Answer:
        asked = take("put", frame.control, ("kind", "sha256", "length"))
        check_sha256("put: sha256", asked["sha256"])
        check_int("put: length", asked["length"], 0, self._max_upload_bytes)
        self._reader.begin(MESSAGE_S + asked["length"] / SLOWEST_BYTES_S)
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
            raise ProtocolError(f"{other}: give this one another name")
        fetched = kept is not None and _is_final(kept[1])
        if kept is None or not fetched:
            kept = request, self._of_what_was_said(self._run(request))
            self._keep(asked["job_id"], *kept)
        return _result(asked["job_id"], kept[1], fetched)

    def _of_what_was_said(self, result: MeasureResult) -> MeasureResult:
        """Return ERROR where the board is no longer what the host was told, else the result."""
        if self._said is None:
            return result
        changes = self._said.differences(replace(self._said, board=read_board()))
        if not changes:
            return result
        since = f"the device changed since the link was opened: {'; '.join(changes)}"
        reason = f"{since}: set it back, or begin another study with it as it is"
        return MeasureResult(Status.ERROR, reason[:MAX_REASON], provider=result.provider)

    def _keep(self, job_id: str, request: MeasureRequest, result: MeasureResult) -> None:
        try:
            both = {"request": request.as_json(), "result": result.as_json()}
            self._store.save_result(job_id, both)
        except StoreError as error:
            print(f"device_agent: the result is sent, but not stored: {error}", file=sys.stderr)

    def _run(self, request: MeasureRequest) -> MeasureResult:
        artifact = self._store.artifact(request.artifact_sha256)
        if artifact is None:
            gone = f"artifact {request.artifact_sha256[:16]} is not on the device: send it"
            return MeasureResult(Status.ERROR, gone)
        end_s = time.monotonic() + request.deadline_s
        first, may_pass = self._attempt(request, artifact, request.deadline_s)
        if not may_pass:
            return first
        # Once may be the board's fault, or another program's that had the memory. Twice is the
        # design's: it would be so for ever.
        left_s = max(end_s - time.monotonic(), LEAST_DEADLINE_S)
        second, may_pass = self._attempt(request, artifact, left_s)
        if not may_pass:
            return second
        twice = f"{second.reason}; and the first time: {first.reason}"
        return replace(second, reason=twice[:MAX_REASON])

    def _attempt(
        self, request: MeasureRequest, artifact: Path, deadline_s: float
    ) -> tuple[MeasureResult, bool]:
        """Run the job once; return what came of it, and whether that may pass by itself."""
        ended = self._job(request, artifact, deadline_s)
        if ended.problem:
            status = Status.INFEASIBLE if ended.crashed else Status.ERROR
            failed = MeasureResult(status, ended.problem, provider=request.provider)
            return failed, ended.crashed
        try:
            result = MeasureResult.from_json(wire.parse_json(ended.answer))
        except ProtocolError as error:
            said = f"the job's process gave no valid result: {error}"
            return MeasureResult(Status.ERROR, said[:MAX_REASON], provider=request.provider), False
        infeasible = result.status is Status.INFEASIBLE
        return result, infeasible and result.reason.startswith(LACKS_MEMORY)

    def _job(self, request: MeasureRequest, artifact: Path, deadline_s: float) -> Ended:
        with self._store.scratch() as scratch:
            file = scratch / "job.json"
            with disk_errors(f"writing {file}", scratch):
                job = Job(request, artifact, scratch, self._store.kept)
                file.write_text(json.dumps(job.as_json(), allow_nan=False))
            return self._child("job", str(file), deadline_s=deadline_s)

    def _child(self, *arguments: str, deadline_s: float) -> Ended:
        host = self._reader.fileno()
        return run_child(own_command(*arguments), deadline_s, host, inherited=(self._device,))

    def _result(self, frame: wire.Frame) -> Answer:
        asked = take("result", frame.control, ("kind", "job_id"))
        check_sha256("result: job_id", asked["job_id"])
        kept = self._kept(asked["job_id"])
        return _result(asked["job_id"], None if kept is None else kept[1], kept is not None)

    def _kept(self, job_id: str) -> tuple[MeasureRequest, MeasureResult] | None:
        kept = self._store.load_result(job_id)
        if kept is None:
            return None
        try:
            both = take("a stored result", kept, ("request", "result"))
            request = MeasureRequest.from_json(both["request"])
            return request, MeasureResult.from_json(both["result"])
        except ProtocolError:
            self._store.discard_result(job_id)
            return None

    def _state(self, frame: wire.Frame) -> Answer:
        take("state", frame.control, ("kind",))
        free_mb, unreadable = self._store.free_mb(), unreadable_rails(Path("/"))
        state = DeviceState(time.time(), free_mb, read_state(), others_s(), unreadable)
        return {"kind": "state", "state": state.as_json()}

    def _forget(self, frame: wire.Frame) -> Answer:
        asked = take("forget", frame.control, ("kind", "sha256s", "job_ids"))
        sha256s = as_tuple("forget: sha256s", asked["sha256s"])
        self._store.forget(sha256s, as_tuple("forget: job_ids", asked["job_ids"]))
        return {"kind": "forgotten"}


def describe(max_upload_bytes: int, runtimes: tuple[RuntimeInfo, ...] | None = None) -> DeviceInfo:
    """Say what the device is; loads every runtime unless told of them."""
    if runtimes is None:
        runtimes = tuple(runtime.describe() for runtime in all_runtimes().values())
    python = platform.python_version()
    return DeviceInfo(read_board(), runtimes, python, max_upload_bytes, own_sha256())


def own_sha256() -> str | None:
    """Return the SHA-256 of the one file that this agent runs from; None for its sources."""
    top = Path(__file__).resolve().parent.parent
    return hashlib.sha256(top.read_bytes()).hexdigest() if top.is_file() else None


def _is_final(result: MeasureResult) -> bool:
    """Whether measuring again would tell nothing new."""
    return result.status is Status.INFEASIBLE or (result.status is Status.OK and result.stable)


def _result(job_id: str, result: MeasureResult | None, fetched: bool) -> Answer:
    shown = None if result is None else result.as_json()
    return {"kind": "result", "job_id": job_id, "result": shown, "fetched": fetched}
