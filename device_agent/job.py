"""One measurement, made in a process of its own that holds nothing else."""

import json
import os
import signal
import sys
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from device_agent.board import peak_memory_mb, read_state
from device_agent.checks import ProtocolError, take
from device_agent.protocol import MeasureRequest
from device_agent.result import MAX_REASON, MeasureResult, Status
from device_agent.runtime import Refused, Unavailable
from device_agent.runtimes import RUNTIMES
from device_agent.timing import time_runs
from device_agent.wire import send_bytes


@dataclass(frozen=True)
class Job:
    """What the agent hands to a job's process.

    Attributes:
        request: what to measure.
        artifact: the ONNX file.
        scratch: an empty folder that the agent removes afterwards.
    """

    request: MeasureRequest
    artifact: Path
    scratch: Path

    def as_json(self) -> dict[str, object]:
        """Return the JSON object that `from_json` reads."""
        paths: dict[str, object] = {"artifact": str(self.artifact), "scratch": str(self.scratch)}
        return {"request": self.request.as_json(), **paths}

    @classmethod
    def from_json(cls, value: object) -> "Job":
        """Build from a JSON object; raises `ProtocolError` naming field and value."""
        found = take("Job", value, ("request", "artifact", "scratch"))
        request = MeasureRequest.from_json(found["request"])
        return cls(request, Path(found["artifact"]), Path(found["scratch"]))


def measure(job: Job, root: Path = Path("/")) -> MeasureResult:
    """Compile, check and time; what fails is in the result, nothing is raised.

    Args:
        job: what to measure.
        root: where the board's `/proc` and `/sys` stand.
    """
    request = job.request
    so_far = MeasureResult(Status.ERROR, "not begun", board_before=read_state(root))
    try:
        runtime = RUNTIMES.get(request.runtime)
        if runtime is None:
            known = ", ".join(RUNTIMES)
            raise Unavailable(f"runtime {request.runtime!r} is unknown: ask for one of {known}")
        version = runtime.version()
        so_far = replace(so_far, runtime_version=version, provider=request.provider)
        start = time.perf_counter()
        session = runtime.prepare(job.artifact, request, job.scratch)
        so_far = replace(so_far, compile_s=time.perf_counter() - start)
        so_far = replace(so_far, output_sha256=session.output_sha256())
        timing = time_runs(session.run_once, request.timing)
    except Refused as error:
        return _ended(so_far, Status.INFEASIBLE, str(error), root)
    except Unavailable as error:
        return _ended(so_far, Status.ERROR, str(error), root)
    except Exception as error:
        said = f"{type(error).__name__}: {error}: see the job's log"
        return _ended(so_far, Status.ERROR, f"the measurement broke off, {said}", root)
    return replace(
        so_far,
        status=Status.OK,
        reason="",
        samples_ms=timing.samples_ms,
        block_of=timing.block_of,
        steady=timing.steady,
        warmup_runs=timing.warmup_runs,
        peak_memory_mb=peak_memory_mb(),
        board_after=read_state(root),
    )


def run_job(file: Path, agent: BinaryIO, answer: BinaryIO) -> None:
    """Run the job that a JSON file holds, and write its result as JSON to `answer`.

    The process, and whatever it started, ends itself when `agent` ends: the agent is gone then.

    Raises:
        ProtocolError: the file holds no job.
    """
    if os.getpgrp() != os.getpid():
        os.setpgid(0, 0)
    _be_first_to_go()
    try:
        job = Job.from_json(json.loads(file.read_bytes()))
    except (OSError, ValueError) as error:
        hint = "jobs are started by an agent, see serve"
        raise ProtocolError(f"{file} holds no job, {error}: {hint}") from None
    threading.Thread(target=_end_with, args=(agent,), daemon=True).start()
    send_bytes(answer, json.dumps(measure(job).as_json(), allow_nan=False).encode())


def _ended(so_far: MeasureResult, status: Status, reason: str, root: Path) -> MeasureResult:
    after = read_state(root)
    memory_mb = peak_memory_mb()
    return replace(
        so_far,
        status=status,
        reason=reason[:MAX_REASON],
        board_after=after,
        peak_memory_mb=memory_mb,
    )


def _end_with(agent: BinaryIO) -> None:
    agent.read()
    os.killpg(0, signal.SIGKILL)


def _be_first_to_go() -> None:
    """Ask the kernel to end this process, not the agent, should memory run out."""
    try:
        with open("/proc/self/oom_score_adj", "w") as score:
            score.write("1000")
    except OSError:
        print("job: the kernel keeps no memory score for it", file=sys.stderr)
