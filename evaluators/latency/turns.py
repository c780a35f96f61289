"""Several designs timed in turns, so that what slows the device down slows all of them alike."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack

from evaluators.latency.evaluator import LatencyEvaluator, MeasureError, brief
from evaluators.latency.readings import Reading, Readings
from evaluators.onnx.builder import Artifact
from search_space.design.genotype import Genotype


def read_in_turns(
    latency: LatencyEvaluator,
    designs: Sequence[Genotype],
    rounds: int,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Readings]:
    """Time all designs once a round, and return the readings by the designs' latency keys.

    Rounds go through the designs forwards, backwards, backwards, forwards: a drift that is linear
    over four rounds does not favour a design. Each is built once. Nothing is stored.

    Args:
        latency: Builds and times.
        designs: Those that rewrites bring to one graph are timed as one.
        rounds: Readings of each design.
        progress: Called with the readings taken and the readings in all.

    Raises:
        ParityError, MeasureError, DeviceError: As `LatencyEvaluator.evaluate`.
    """
    by_key = {latency.key(design): design for design in designs}
    readings: dict[str, list[Reading | None]] = {key: [] for key in by_key}
    with ExitStack() as stack:
        artifacts = {}
        for key, design in by_key.items():
            built = latency.build(design)
            artifacts[key] = latency.as_sent(built)
            for artifact in {built.path: built, artifacts[key].path: artifacts[key]}.values():
                stack.callback(artifact.discard)
        for k in range(rounds):
            for key in by_key if k % 4 in (0, 3) else reversed(by_key):
                readings[key].append(_reading(latency, by_key[key], artifacts[key]))
                if progress:
                    progress(sum(map(len, readings.values())), rounds * len(by_key))
    latency.settle()
    return {key: tuple(found) for key, found in readings.items()}


def _reading(latency: LatencyEvaluator, design: Genotype, artifact: Artifact) -> Reading | None:
    try:
        found = latency.time(design, artifact, brief(latency.protocol))
    except MeasureError:  # of this design; those of the link end the run
        return None
    if found.infeasible or found.unstable:
        return None
    taken = found["latency_ms"]
    low = taken.value if taken.low is None else taken.low
    high = taken.value if taken.high is None else taken.high
    details = found.details
    return Reading(
        taken.value,
        low,
        high,
        details["crowded"],
        details["cpu_ms"],
        {name: found[f"latency_{name}_ms"].value for name in ("p95", "p99", "jitter")},
        details["device"],
    )
