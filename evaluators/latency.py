"""How fast a design is on a device, asked of the agent that runs there."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from device_agent.protocol import (
    DeviceInfo,
    MeasureRequest,
    MeasureResult,
    Status,
    TimingProtocol,
    job_id_of,
)
from evaluators.device_client import DeviceClient, DeviceError, DeviceLost, DeviceTimeout
from evaluators.evaluation import Evaluation, Measure, content_key
from evaluators.onnx_builder import Artifact, OnnxBuilder
from search_space.genotype import Genotype

LOCAL_TIMING = TimingProtocol(
    warmup_min_s=0.1, warmup_max_s=2.0, min_repeats=20, min_time_s=0.3, max_time_s=10.0
)
ATTEMPTS = 2


class MeasureError(Exception):
    """The device, the link or the request failed, not the design; it may be tried again."""


@dataclass(frozen=True)
class Runs:
    """On what a design is timed: runtime, provider, threads of one operator, and how."""

    runtime: str = "onnxruntime"
    provider: str = "CPUExecutionProvider"
    threads: int = 0
    timing: TimingProtocol = field(default=LOCAL_TIMING)
    deadline_s: float = 600.0


class LatencyEvaluator:
    """Builds a design with random weights and has it compiled and timed.

    Latency depends on the graph, not on the weights, so it comes before any training.
    """

    def __init__(
        self, builder: OnnxBuilder, open_device: Callable[[], DeviceClient], runs: Runs
    ) -> None:
        self._builder, self._open, self._runs = builder, open_device, runs
        self._device = open_device()

    def device(self) -> DeviceInfo:
        """What the device says of itself."""
        return self._device.hello()

    def close(self) -> None:
        """Ends the device's agent."""
        self._device.close()

    def key(self, genotype: Genotype) -> str:
        """Design, classes, device, runtime and its version, provider, threads, timing."""
        runs = self._runs
        return content_key(
            "latency",
            {
                "genotype": genotype.key,
                "encoders": self._builder.encoders_of(genotype),
                "classes": self._builder.classes,
                "device": self.device().fingerprint,
                "runtime": [runs.runtime, runs.provider, runs.threads],
                "timing": runs.timing.as_json(),
            },
        )

    def evaluate(self, genotype: Genotype) -> Evaluation:
        """Median latency of one inference with its interval, and the static costs.

        An infeasible design gives an evaluation that says why. Raises ValueError for a design
        that cannot be built, ParityError where its ONNX differs from torch, MeasureError where
        device or request failed, DeviceError where the agent is lost.
        """
        artifact = self._builder.build(genotype)
        try:
            return self.time(genotype, artifact)
        finally:
            artifact.discard()  # random weights are of no further use

    def time(self, genotype: Genotype, artifact: Artifact) -> Evaluation:
        """The same for a design that is already built."""
        runs = self._runs
        request = MeasureRequest(
            artifact.sha256,
            artifact.inputs,
            runs.runtime,
            runs.provider,
            runs.timing,
            threads=runs.threads,
            deadline_s=runs.deadline_s,
        )
        result = self._measure(artifact, request)
        key = self.key(genotype)
        if result.status is Status.INFEASIBLE:
            return Evaluation(key, "latency", artifact.costs, infeasible=result.reason)
        if result.status is Status.ERROR:
            raise MeasureError(result.reason)
        low, high = result.interval_ms
        measures = [
            Measure("latency_ms", result.median_ms, "ms", "lower", low, high),
            Measure("compile_s", result.compile_s or 0.0, "s", "lower"),
            *artifact.costs,
        ]
        if result.peak_memory_mb is not None:
            measures.append(Measure("peak_memory_mb", result.peak_memory_mb, "MB", "lower"))
        kept = result.as_json()
        details = {
            "onnx_sha256": artifact.sha256,
            "torch_difference": artifact.max_difference,
            "samples_ms": kept["samples_ms"],
            "block_medians_ms": list(result.block_medians_ms),
            "mad_ms": result.mad_ms,
            "steady": result.steady,
            "provider": result.provider,
            "runtime_version": result.runtime_version,
            "board_before": kept["board_before"],
            "board_after": kept["board_after"],
        }
        return Evaluation(key, "latency", tuple(measures), details)

    def _measure(self, artifact: Artifact, request: MeasureRequest) -> MeasureResult:
        """Asks, and asks again over a new link where the first one was lost."""
        job = job_id_of(request)
        for attempt in range(1, ATTEMPTS + 1):
            try:
                result = self._device.measure(artifact.path, request, job_id=job)
                with suppress(DeviceError):  # what is measured stays good; the next call will tell
                    self._device.forget([artifact.sha256], [job])
                return result
            except (DeviceLost, DeviceTimeout) as error:
                self._device.close()
                self._device = self._open()
                if attempt == ATTEMPTS:
                    raise MeasureError(f"the device was lost {ATTEMPTS} times: {error}") from error
        raise AssertionError("unreachable")
