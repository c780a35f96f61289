"""Readings that benchmarks of latency models rest on: candidates timed here, kept as they come.

A reading is one JSON line: the design, its latency with its interval as the product measures it
(`evaluators.latency.evaluator`, this machine's protocol, one thread), its multiply-accumulates,
and what ONNX Runtime's profiler says of its operators: the median of each over its runs,
which hardly sees other programs' turns. What a file holds already is not timed again.
"""

import json
import statistics
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from device_agent.wire.request import TensorSpec
from evaluators.latency.evaluator import LOCAL_TIMING, LatencyEvaluator, Runs
from evaluators.onnx.builder import Artifact, OnnxBuilder
from search_space.design.genotype import Genotype
from search_space.network.rewrites import ALL
from search_space.space.space import SearchSpace
from studies.study.context import local_device

THREADS = 1
PROFILED_RUNS = 12
WARM_UP = 4


class Readings:
    """A file of readings of one machine, by what each is for and its design."""

    def __init__(self, file: Path, space: SearchSpace, home: Path) -> None:
        encoders = {spec.name: spec for spec in space.encoders}
        builder = OnnxBuilder(encoders, space.shapes, 2, home / "onnx", rewrites=ALL)
        device, self._held = local_device(home, "cpu")
        runs = Runs(threads=THREADS, timing=LOCAL_TIMING)
        self._latency, self._builder = LatencyEvaluator(builder, device, runs), builder
        self._file, self._home = file, home
        self.kept: dict[tuple[str, str], dict[str, Any]] = {}
        if file.is_file():
            for line in file.read_text(encoding="utf-8").splitlines():
                one = json.loads(line)
                self.kept[one["role"], Genotype.from_json(one["genotype"]).key] = one

    def close(self) -> None:
        """Ends the agent."""
        self._latency.close()
        self._held.release()

    def take(self, role: str, designs: Iterable[Genotype]) -> list[dict[str, Any]]:
        """One reading of each, in the order given; taken now where the file has none."""
        found = []
        for genotype in designs:
            key = role, genotype.key
            if key not in self.kept:
                self.kept[key] = self._taken(role, genotype)
                with open(self._file, "a", encoding="utf-8") as file:
                    file.write(json.dumps(self.kept[key]) + "\n")
            found.append(self.kept[key])
        return found

    def _taken(self, role: str, genotype: Genotype) -> dict[str, Any]:
        begun = time.monotonic()
        artifact = self._builder.build(genotype)
        try:
            evaluation = self._latency.time(genotype, artifact)
            operators = profiled(artifact, self._home)
        finally:
            artifact.discard()
        latency = evaluation["latency_ms"]
        return {
            "role": role,
            "genotype": genotype.as_json(),
            "ms": latency.value,
            "low_ms": latency.low,
            "high_ms": latency.high,
            "unstable": evaluation.unstable,
            "macs": evaluation["macs"].value,
            "operators": operators,
            "seconds": time.monotonic() - begun,
        }


def profiled(artifact: Artifact, folder: Path) -> list[tuple[str, int, float]]:
    """Operators of a graph as the runtime runs it: (kind and input shapes, count, ms of one).

    The milliseconds are the median over nodes and runs.
    """
    session = _session(artifact, profile=str(folder / "profile"))
    run = _runner(session, artifact)
    for _ in range(WARM_UP + PROFILED_RUNS):
        run()
    file = Path(session.end_profiling())
    events = json.loads(file.read_text(encoding="utf-8"))
    file.unlink()
    by_node: dict[str, list[Any]] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            by_node.setdefault(event["name"], []).append(event)
    times: dict[str, list[float]] = {}
    counts: dict[str, int] = {}
    for runs in by_node.values():
        said = runs[0]["args"]
        inputs = [extents for one in said["input_type_shape"] for extents in one.values()]
        shapes = ["x".join(map(str, extents)) for extents in inputs]
        key = f"{said['op_name']} {' '.join(shapes)}"
        counts[key] = counts.get(key, 0) + 1
        times.setdefault(key, []).extend(e["dur"] / 1e3 for e in runs[WARM_UP:])
    return [(key, counts[key], statistics.median(times[key])) for key in sorted(times)]


def _session(artifact: Artifact, profile: str = "") -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = THREADS, 1
    options.log_severity_level = 3
    if profile:
        options.enable_profiling, options.profile_file_prefix = True, profile
    return onnxruntime.InferenceSession(str(artifact.path), options, ["CPUExecutionProvider"])


def _runner(session: onnxruntime.InferenceSession, artifact: Artifact) -> Callable[[], object]:
    generator = np.random.default_rng(0)
    feed = {spec.name: _filled(spec, generator) for spec in artifact.inputs}
    return lambda: session.run(None, feed)


def _filled(spec: TensorSpec, generator: np.random.Generator) -> np.ndarray:
    if spec.fill == "ones":
        return np.ones(spec.shape, spec.dtype)
    if spec.fill == "normal":
        return generator.standard_normal(spec.shape).astype(spec.dtype)
    return generator.integers(int(spec.low), int(spec.high), spec.shape).astype(spec.dtype)
