"""How fast a design is on a device, asked of the agent that runs there."""

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

from device_agent.board.power import Energy
from device_agent.wire.request import (
    DeviceInfo,
    MeasureRequest,
    MeasureResult,
    Status,
    TimingProtocol,
    job_id_of,
)
from evaluators.devices.client import DeviceError, DeviceLost, DeviceTimeout
from evaluators.evaluation import Evaluation, Measure, content_key
from evaluators.latency.drift import BestDriftReferences
from evaluators.latency.reuse import Reuse, expected
from evaluators.onnx.builder import Artifact, OnnxBuilder
from evaluators.onnx.quantisation import recipe_of
from evaluators.onnx.split.files import write_parts
from evaluators.onnx.stripped import strip_weights
from search_space.design.genotype import Genotype
from search_space.design.reading import plugin_key
from search_space.errors import DEVICE, FusionNasError
from search_space.modality import CALLED
from search_space.network.rewrites import folded_blocks

ANY = 1e6
"""A share or a number of processors that no reading exceeds."""
BOARD_TIMING = TimingProtocol()
"""For a board that does nothing else."""
LOCAL_TIMING = TimingProtocol(
    warmup_min_s=0.1,
    warmup_max_s=2.0,
    min_repeats=20,
    min_time_s=0.15,
    max_time_s=10.0,
    interval_share=0.2,
    block_tolerance=0.25,
    reference_tolerance=0.5,
    reference_runs=15,
    others_cores=ANY,
    watch_board=False,
    retries=3,
)
"""For this machine, where the search itself and others run too: only gross instability counts."""
CROWDED_CORES = 0.1
"""Processors that other programs may take from a design before its reading is called crowded; a
board's reading is refused from the same load on (`TimingProtocol.others_cores`)."""
MOST_OVER_CPU = 1.1
"""Wall time over processor time, of one thread, up to which a reading is not disturbed."""
ATTEMPTS = 5
"""A design in whose trial the device is lost so often may be why: the next one is tried."""


class TimingDevice(Protocol):
    """What designs are timed on: a `DeviceClient`, or several devices that stand for one."""

    @property
    def name(self) -> str:
        """Of the device that measured last."""

    def hello(self) -> DeviceInfo:
        """As `DeviceClient.hello`."""

    def measure(
        self, artifact: Path, request: MeasureRequest, *, job_id: str | None = None
    ) -> MeasureResult:
        """As `DeviceClient.measure`."""

    def forget(self, artifacts: Iterable[str] = (), job_ids: Iterable[str] = ()) -> None:
        """As `DeviceClient.forget`."""

    def close(self) -> None:
        """As `DeviceClient.close`."""


class MeasureError(FusionNasError):
    """The device, the link or the request failed, not the design; it may be tried again."""

    exit_code = DEVICE


@dataclass(frozen=True)
class Runs:
    """On what a design is timed: runtime, provider, threads of one operator, and how.

    With a seed for its weights a design crosses the link without them and the device makes them;
    with None it is sent whole, for when its outputs have to be right. `deadline_s` is for all of
    a job, compiling included; None is `deadline_of` its runtime.
    """

    runtime: str = "onnxruntime"
    provider: str = "CPUExecutionProvider"
    threads: int = 0
    timing: TimingProtocol = field(default=LOCAL_TIMING)
    deadline_s: float | None = None
    weights_seed: int | None = 0


def deadline_of(runtime: str) -> float:
    """How long a job may take, in s: TensorRT tries kernels, on a small board for long."""
    return 3600.0 if runtime == "tensorrt" else 600.0


def brief(timing: TimingProtocol) -> TimingProtocol:
    """Return the timing of one of many short readings of a design.

    On a shared device the speed of a network changes within seconds: of ten readings of a design
    the slowest took 2.3 times as long as the fastest (median of 40 designs; at most 2.9). Many
    short readings, apart in time, then give narrower intervals than few long ones: of pairs of 40
    designs that were 15 % apart, 4 long readings left 40 % undecided, 12 short ones 6 %
    (`benchmarks/turns.py`). So a reading may be as wide as it is and is not taken again. A device
    that does nothing else is timed as always.
    """
    if timing.watch_board:
        return timing
    return replace(
        timing,
        warmup_min_s=0.02,
        warmup_max_s=0.5,
        steady_tolerance=1.0,
        min_time_s=0.05,
        max_time_s=2.0,
        interval_share=ANY,
        block_tolerance=ANY,
        reference_tolerance=ANY,
        reference_runs=3,
        retries=0,
    )


class LatencyEvaluator:
    """Builds a design with random weights and has it compiled and timed.

    Latency depends on the graph, not on the weights, so it comes before any training. With shares
    of inputs that are not encoded again it is the expected one, from readings of a design's parts.
    Its methods are for one thread, which `begin` lets do something else while the device works.
    """

    def __init__(
        self,
        builder: OnnxBuilder,
        open_device: Callable[[], TimingDevice],
        runs: Runs,
        reuse: Reuse | None = None,
    ) -> None:
        self._builder, self._open, self._runs = builder, open_device, runs
        self._reuse = reuse or Reuse()
        self._device = open_device()
        self._timing: Timing | None = None
        self._is_closed = False
        self._unsettled: list[tuple[str, str]] = []
        self._drift_references = BestDriftReferences()

    def device(self) -> DeviceInfo:
        """What the device says of itself."""
        return self._device.hello()

    @property
    def protocol(self) -> TimingProtocol:
        """How designs are timed."""
        return self._runs.timing

    def timing(self) -> str:
        """How designs are timed, in words for who reads the figures."""
        how = self._runs.timing
        percent = [
            100 * p for p in (how.interval_share, how.block_tolerance, how.reference_tolerance)
        ]
        wide, blocks, drift = (f"{one:g} %" for one in percent)
        board, slower = "", ""
        if how.watch_board:
            board = ", other programs ran, or the board lowered its clocks"
            slower = (
                f"; not trusted with a drift reference over {drift} slower than in an earlier one"
            )
        return (
            f"median of at least {how.min_repeats} runs in {how.blocks} blocks between two "
            f"readings of a drift reference, after warm-up; more blocks until its 95 % interval is "
            f"{wide} wide; taken again, up to {how.retries} times, where its halves are over "
            f"{blocks} apart or drift references over {drift}{board}{slower}"
        )

    def close(self) -> None:
        """End the device's agent; while a design that `begin` sent is timed, once that is over.

        The agent also ends with this process.
        """
        self._is_closed = True
        if self._timing is None or not self._timing.is_running():
            self._device.close()

    def key(self, genotype: Genotype) -> str:
        """Design, classes, device, runtime and its version, provider, threads, timing, weights.

        Of designs with operators of plugins also the version of their packages.

        Designs that rewrites bring to one graph have one key.
        """
        runs, rewriting = self._runs, self._builder.rewriting
        return content_key(
            "latency",
            {
                "genotype": rewriting.timed(genotype).key,
                "encoders": self._builder.encoders_of(genotype),
                "classes": self._builder.classes,
                "device": self.device().fingerprint,
                "runtime": [runs.runtime, runs.provider, runs.threads],
                "timing": runs.timing.as_json(),
                "weights_seed": runs.weights_seed,
                **rewriting.key(genotype),
                **self._reuse.key(genotype),
                **self._builder.graph_key(),
                **recipe_of(genotype.precision, self._builder.runtime),
                **plugin_key(genotype),
            },
        )

    def evaluate(self, genotype: Genotype) -> Evaluation:
        """Median latency of one inference with its interval, and the static costs.

        An infeasible design gives an evaluation that says why. Raises ValueError for a design
        that cannot be built, ParityError where its ONNX differs from torch, MeasureError where
        device or request failed, DeviceError where the agent is lost.
        """
        artifact, build_s = self._built(genotype)
        try:
            return self._reading(genotype, artifact, build_s)
        finally:
            artifact.discard()  # random weights are of no further use

    def begin(
        self, genotype: Genotype, again: Callable[[Evaluation], bool] = lambda found: False
    ) -> "Timing":
        """Build a design, and have it timed in the background. Raises what `build` raises.

        What `again` holds for is timed once more. Building is over on return: it draws random
        numbers, which would change those of a training.
        """
        artifact, build_s = self._built(genotype)

        def readings() -> list[Evaluation]:
            try:
                found = [self._reading(genotype, artifact, build_s)]
                if again(found[0]):
                    found.append(self._reading(genotype, artifact, build_s))
                return found
            finally:
                artifact.discard()
                if self._is_closed:
                    self._device.close()

        self._timing = Timing(readings)
        return self._timing

    def _reading(self, genotype: Genotype, artifact: Artifact, build_s: float) -> Evaluation:
        """Time a built design, with the seconds that it was built and waited for its turn."""
        before_s = self._waited_s()
        found = _with(self.time(genotype, artifact), build_s)
        if (waited_s := self._waited_s() - before_s) > 0:
            found = replace(found, details={**found.details, "queue_s": round(waited_s, 4)})
        return found

    def _waited_s(self) -> float:
        """Seconds that the device was waited for so far; 0 where it does not count them."""
        return float(getattr(self._device, "waited_s", 0.0))

    def _built(self, genotype: Genotype) -> tuple[Artifact, float]:
        start = time.perf_counter()
        artifact = self.build(genotype)
        return artifact, round(time.perf_counter() - start, 4)

    def build(self, genotype: Genotype) -> Artifact:
        """Build a design as it is timed, with random weights. Raises as `OnnxBuilder.build`."""
        return self._builder.build(genotype, weights=self._runs.weights_seed is None)

    def time(
        self, genotype: Genotype, artifact: Artifact, timing: TimingProtocol | None = None
    ) -> Evaluation:
        """The same for a design that is already built, by another timing if one is given."""
        sent, timing = self.as_sent(artifact), timing or self._runs.timing
        try:
            if self._reuse.of(genotype):
                return self._expected(genotype, artifact, sent, timing)
            return self._time(genotype, artifact, sent, timing)
        finally:
            if sent is not artifact:
                sent.discard()

    def as_sent(self, artifact: Artifact) -> Artifact:
        """Return what crosses the link: without weights, unless they are sent; maybe itself."""
        is_whole = self._runs.weights_seed is not None and not artifact.stripped
        return strip_weights(artifact) if is_whole else artifact

    def _expected(
        self, genotype: Genotype, artifact: Artifact, sent: Artifact, timing: TimingProtocol
    ) -> Evaluation:
        """The latency where a share of the inputs was encoded before, of which `sent` is cut.

        All that one modality alone decides needs no part: nothing is run for a repeated input.
        """
        shares = {CALLED[m]: share for m, share in self._reuse.of(genotype).items()}
        if not genotype.is_fused:
            (name,) = shares
            found = {name: self._time(genotype, artifact, sent, timing)}
            return expected(found, shares, artifact.costs)
        found = {}
        with TemporaryDirectory(prefix="parts-", dir=sent.path.parent) as folder:
            for part in write_parts(sent.path, genotype, artifact.inputs, Path(folder)):
                file = replace(sent, path=part.path, sha256=part.sha256, inputs=part.inputs)
                found[part.name] = self._time(genotype, artifact, file, timing)
        return expected(found, shares, artifact.costs)

    def _time(
        self, genotype: Genotype, artifact: Artifact, sent: Artifact, timing: TimingProtocol
    ) -> Evaluation:
        """The latency of `artifact`, of which the device gets the file `sent`."""
        runs = self._runs
        request = MeasureRequest(
            sent.sha256,
            sent.inputs,
            runs.runtime,
            runs.provider,
            timing,
            threads=runs.threads,
            deadline_s=runs.deadline_s or deadline_of(runs.runtime),
            weights_seed=runs.weights_seed,
        )
        self.settle()
        result, interruptions = self._measure(sent, request)
        key = self.key(genotype)
        if result.status is Status.INFEASIBLE:
            return Evaluation(key, "latency", artifact.costs, infeasible=result.reason)
        if result.status is Status.ERROR:
            self.settle()  # there is nothing to lose
            raise MeasureError(result.reason)
        unstable = _unstable(result) or self._drift_references.slower_than_before(
            self._device.name, result, timing
        )
        if unstable:
            self.settle()  # it is to be measured anew
        low, high = result.interval_ms
        measures = [
            Measure("latency_ms", result.median_ms, "ms", "lower", low, high),
            Measure("latency_p95_ms", result.percentiles_ms["p95"], "ms", "lower"),
            Measure("latency_p99_ms", result.percentiles_ms["p99"], "ms", "lower"),
            Measure("latency_jitter_ms", result.jitter_ms, "ms", "lower"),
            Measure("compile_s", result.compile_s or 0.0, "s", "lower"),
            *artifact.costs,
        ]
        if result.peak_memory_mb is not None:
            measures.append(Measure("peak_memory_mb", result.peak_memory_mb, "MB", "lower"))
        if result.energy is not None:
            measures.append(Measure("energy_mj", result.energy.mj_per_inference, "mJ", "lower"))
            above = result.energy.mj_above_idle
            measures.append(Measure("energy_above_idle_mj", above, "mJ", "lower"))
        kept = result.as_json()
        details = {
            "device": self._device.name,
            "timing": "alone" if timing.watch_board else "shared",
            "board": self._device.hello().as_json()["board"],
            "onnx_sha256": artifact.sha256,
            "sent_sha256": sent.sha256,
            "weights_seed": runs.weights_seed,
            "torch_difference": artifact.max_difference,
            "rewritten": list(artifact.rewritten),
            "folded_blocks": folded_blocks(genotype, self._builder.rewriting.rewrites),
            "samples_ms": list(result.samples_ms),
            "block_medians_ms": list(result.block_medians_ms),
            "anchor_ms": list(result.rounds[-1].drift_reference_ms),
            "others_cores": result.rounds[-1].others_cores,
            "cpu_ms": result.rounds[-1].cpu_ms,
            "crowded": waited(result.median_ms, result.rounds[-1].cpu_ms)
            or crowded_by(
                result.rounds[-1].others_cores, self._device.hello().board.cores, runs.threads
            ),
            "earlier_rounds": [one.as_json() for one in result.rounds[:-1]],
            "mad_ms": result.mad_ms,
            "percentiles_ms": result.percentiles_ms,
            "jitter_ms": result.jitter_ms,
            "anchor_size": result.drift_reference_size,
            "waits_by": result.waits_by,
            "steady": result.steady,
            "provider": result.provider,
            "runtime_version": result.runtime_version,
            "device_ms": result.device_ms,
            "energy": None if result.energy is None else _energy(result.energy),
            "board_before": kept["board_before"],
            "board_after": kept["board_after"],
            "interruptions": interruptions,
        }
        return Evaluation(key, "latency", tuple(measures), details, unstable=unstable)

    def settle(self) -> None:
        """Has the device forget what it measured so far: the evaluations are kept by now.

        The next evaluation does so by itself. Until then a host that was ended before it could
        keep its evaluation finds the result on the device, and nothing is measured twice.
        """
        jobs = self._unsettled
        if jobs:
            try:
                self._device.forget([sha256 for sha256, _ in jobs], [job for _, job in jobs])
            except DeviceError:  # what is measured stays good; the next call finds a new link
                self._device.close()
            else:
                self._unsettled = []

    def _measure(
        self, artifact: Artifact, request: MeasureRequest
    ) -> tuple[MeasureResult, list[str]]:
        """Asks, and asks again over a new link where one was lost, which is told in words."""
        boot = self._boot()
        interruptions: list[str] = []
        while True:
            try:
                job = job_id_of(request, device=self._device.hello())
                result = self._device.measure(artifact.path, request, job_id=job)
            except (DeviceLost, DeviceTimeout) as error:
                if self._is_closed:
                    raise
                self._device.close()
                self._device = self._open()
                interruptions.append(" ".join(str(error).split()))
                if len(interruptions) == ATTEMPTS:
                    restarted = self._restarted_since(boot)
                    lost = f"the device was lost {ATTEMPTS} times{restarted and ', ' + restarted}"
                    raise MeasureError(f"{lost}: {interruptions[-1]}") from error
            else:
                self._unsettled.append((artifact.sha256, job))
                if interruptions and (restarted := self._restarted_since(boot)):
                    interruptions.append(restarted)
                return result, interruptions

    def _restarted_since(self, boot: tuple[str, str | None]) -> str:
        """In words whether the device was restarted; empty where it was not or does not tell."""
        (name, before), (name_now, now) = boot, self._boot()
        if name_now != name or None in (before, now) or now == before:
            return ""
        return f"and was restarted in between, boot {before} to {now}"

    def _boot(self) -> tuple[str, str | None]:
        """The device's name, for there may be several, and the id of its boot."""
        try:
            return self._device.name, self._device.hello().board.boot_id
        except DeviceError:
            return self._device.name, None


class Timing:
    """A design that is being timed, in a thread that does not keep the process from ending."""

    def __init__(self, readings: Callable[[], list[Evaluation]]) -> None:
        """Begin."""
        self._readings = readings
        self._found: list[Evaluation] = []
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, daemon=True, name="timing")
        self._thread.start()

    def _work(self) -> None:
        try:
            self._found = self._readings()
        except BaseException as error:
            self._error = error

    def is_running(self) -> bool:
        """Whether it is not over yet."""
        return self._thread.is_alive()

    def readings(self) -> list[Evaluation]:
        """Wait until it is over; return the readings in order, or raise as `evaluate` does."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._found


def _with(found: Evaluation, build_s: float) -> Evaluation:
    """An evaluation with the seconds that building took."""
    return replace(found, details={**found.details, "build_s": build_s})


def _energy(energy: Energy) -> dict[str, object]:
    return {**energy.as_json(), "mj_above_idle": energy.mj_above_idle}


def crowded_by(others_cores: float | None, cores: int | None, threads: int) -> str:
    """Say which load left a design fewer processors than its threads; empty where it had them.

    Args:
        others_cores: Processors that other programs kept busy on average; None where not known.
        cores: Processors of the device.
        threads: Of the design; 0 is one a processor.
    """
    if others_cores is None or cores is None:
        return ""
    free = max(0, cores - (threads or cores))
    if others_cores <= free + CROWDED_CORES:
        return ""
    return f"other programs used {others_cores:.1f} of {cores} processors"


def waited(median_ms: float, cpu_ms: float | None) -> str:
    """Say for how much of its latency a design waited for a processor; empty where it did not.

    Args:
        median_ms: Wall time of one inference.
        cpu_ms: Processor time of one inference, on one thread; None where not known.
    """
    if cpu_ms is None or median_ms <= MOST_OVER_CPU * cpu_ms:
        return ""
    return f"{100 * (1 - cpu_ms / median_ms):.0f} % of it was waiting for a processor"


def _unstable(result: MeasureResult) -> str:
    if result.stable:
        return ""
    if not result.rounds[-1].instability_reasons:
        return f"the timing cannot be trusted: {'; '.join(result.instability_reasons)}"
    count = len(result.rounds)
    none = "the one round" if count == 1 else f"none of {count} rounds"
    how = "cannot" if count == 1 else "can"
    return (
        f"{none} of timing {how} be trusted; in the last, {'; '.join(result.instability_reasons)}"
    )
