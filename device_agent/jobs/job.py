"""One measurement, made in a process of its own that holds nothing else."""

import json
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from device_agent.board.cpu_contention import others_s
from device_agent.board.power import Energy, EnergyError, find_meter, measure_energy
from device_agent.board.state import peak_memory_mb, read_state
from device_agent.checks import ProtocolError, take
from device_agent.jobs.child import end_with, own_command
from device_agent.jobs.drift import drift_session
from device_agent.jobs.limits import limit_process
from device_agent.onnx.file import MalformedFile
from device_agent.onnx.guard import RefusedFile, check_file
from device_agent.onnx.synthesize_weights import fill_weights
from device_agent.runtime import Refused, Session, Unavailable
from device_agent.runtimes import runtimes
from device_agent.timing.loop import Timed, time_runs
from device_agent.wire.frames import send_bytes
from device_agent.wire.request import MeasureRequest
from device_agent.wire.result import MAX_REASON, MeasureResult, Status


@dataclass(frozen=True)
class Job:
    """What the agent hands to a job's process.

    Attributes:
        request: what to measure.
        artifact: the ONNX file.
        scratch: an empty folder that the agent removes afterwards.
        kept: a folder of the agent's home for what need not be made again, such as engines.
    """

    request: MeasureRequest
    artifact: Path
    scratch: Path
    kept: Path

    def as_json(self) -> dict[str, object]:
        """Return the JSON object that `from_json` reads."""
        names = ("artifact", "scratch", "kept")
        return {"request": self.request.as_json(), **{n: str(getattr(self, n)) for n in names}}

    @classmethod
    def from_json(cls, value: object) -> "Job":
        """Build from a JSON object; raises `ProtocolError` naming field and value."""
        found = take("Job", value, ("request", "artifact", "scratch", "kept"))
        request = MeasureRequest.from_json(found["request"])
        return cls(request, *(Path(found[name]) for name in ("artifact", "scratch", "kept")))


def measure(job: Job, root: Path = Path("/")) -> MeasureResult:
    """Compile, check and time; what fails is in the result, nothing is raised.

    Args:
        job: what to measure.
        root: where the board's `/proc` and `/sys` stand.
    """
    request = job.request
    so_far = MeasureResult(Status.ERROR, "not begun", board_before=read_state(root))
    try:
        runtime = runtimes().get(request.runtime)
        if runtime is None:
            known = ", ".join(runtimes())
            raise Unavailable(f"runtime {request.runtime!r} is unknown: ask for one of {known}")
        network = _network(job)
        version = runtime.version()
        so_far = replace(so_far, runtime_version=version, provider=request.provider)
        start = time.perf_counter()
        session = runtime.prepare(network, request, job.scratch, job.kept)
        took_s = time.perf_counter() - start
        built_s = session.extras().build_s
        so_far = replace(so_far, compile_s=took_s if built_s is None else built_s)
        if network != job.artifact:
            network.unlink()  # Soon enough, its weights are never written to the board's disk.
        so_far = replace(so_far, output_sha256=session.output_sha256())
        drift_reference, size = drift_session(runtime, request, job.scratch, job.kept)
        so_far = replace(so_far, drift_reference_size=size)
        timed = Timed(
            session.run_once,
            drift_reference.run_once,
            lambda: read_state(root),
            lambda: others_s(root),
            time.process_time_ns if on_one_thread(request) else None,
        )
        timing = time_runs(timed, request.timing)
        extras = session.extras()  # Before the runs of the energy pass are added.
        energy = _energy(session, request, root)
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
        rounds=timing.rounds,
        steady=timing.steady,
        warmup_runs=timing.warmup_runs,
        device_ms=extras.device_ms,
        waits_by=extras.waits_by,
        energy=energy,
        peak_memory_mb=peak_memory_mb(),
        board_after=read_state(root),
    )


def on_one_thread(request: MeasureRequest) -> bool:
    """Return whether the network is run by one thread of this process and nothing else."""
    return request.threads == 1 and request.provider == "CPUExecutionProvider"


def run_job(file: Path, agent: BinaryIO, answer: BinaryIO) -> None:
    """Run the job that a JSON file holds, and write its result as JSON to `answer`.

    The process, and whatever it started, ends itself when `agent` ends: the agent is gone then.

    Raises:
        ProtocolError: the file holds no job.
    """
    try:
        job = Job.from_json(json.loads(file.read_bytes()))
    except (OSError, ValueError) as error:
        hint = "jobs are started by an agent, see serve"
        raise ProtocolError(f"{file} holds no job, {error}: {hint}") from None
    end_with(agent)
    _be_first_to_go()
    limit_process()
    send_bytes(answer, json.dumps(measure(job).as_json(), allow_nan=False).encode())


def _network(job: Job) -> Path:
    """Return the file for the runtime, which has not seen it before it was found harmless.

    Raises:
        RefusedFile: it is not.
        Unavailable: the weights that it lacks cannot be written.
    """
    seed = job.request.weights_seed
    found = check_file(job.artifact, seed)
    if seed is None:
        return job.artifact
    filled = job.scratch / "filled.onnx"
    try:
        fill_weights(job.artifact, found, seed, filled)
    except MalformedFile as error:
        raise RefusedFile(f"the network's weights were not made: {error}") from None
    except OSError as error:
        hint = "make room in the agent's home"
        raise Unavailable(f"the network's weights cannot be written: {error}: {hint}") from error
    return filled


def _energy(session: Session, request: MeasureRequest, root: Path) -> Energy | None:
    """Measure energy in a pass of its own, after the timing that reading rails would disturb."""
    sampler = own_command("rails", str(root))
    meter = find_meter(root, sampler) if request.energy_s else None
    if meter is None:
        return None
    try:
        return measure_energy(session.run_once, meter, request.energy_s)
    except EnergyError as error:  # The latency is none the worse for it.
        print(f"job: no energy: {error}", file=sys.stderr)
        return None


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


def _be_first_to_go() -> None:
    """Ask the kernel to end this process, not the agent, should memory run out."""
    try:
        with open("/proc/self/oom_score_adj", "w") as score:
            score.write("1000")
    except OSError:
        print("job: the kernel keeps no memory score for it", file=sys.stderr)
