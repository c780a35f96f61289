"""What a design costs as a whole and by its parts, where a share of the pictures is repeated.

MobileNetV2 and MiniLM, 64 tokens, random fusions, one thread of this CPU. Two figures of each:

- its whole graph, its encoders and its fusion timed by the agent in turns, and the mean latency
  that the parts add up to for each share of repeats;
- requests answered by whole and parts in turns, each with a text of its own and a picture of which
  a share was asked about before: mean wall and processor time a request, median over turns.
"""

import argparse
import json
import platform
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnxruntime

from device_agent.wire.request import MeasureRequest, TensorSpec
from device_agent.wire.result import Status
from evaluators.latency.evaluator import LOCAL_TIMING
from evaluators.onnx.builder import OnnxBuilder, run_onnx
from evaluators.onnx.split.files import Part, check_parts, write_parts
from search_space.design.genotype import FusionPoint, Genotype
from search_space.network.network import input_names
from search_space.network.rewrites import ALL
from search_space.operators.definitions import Operator
from search_space.space.named import load_space
from search_space.space.space import SearchSpace
from studies.study.context import local_device

SHARES = (0.0, 0.5, 0.9)
OPERATORS: tuple[Operator, ...] = ("concatenation", "cross-attention-both")
TURNS = (1, -1, -1, 1)
TEXT_TOKENS = 64


def designs(space: SearchSpace) -> dict[str, Genotype]:
    """Late fusions, and one whose attention blocks run over all tokens, by name."""
    names = {spec.modality: spec.name for spec in space.encoders}
    text, vision = names["text"], names["vision"]
    late = space.shapes[text].depth, space.shapes[vision].depth
    found = {
        operator: Genotype(text, vision, TEXT_TOKENS, (FusionPoint(*late, operator, 128),))
        for operator in OPERATORS
    }
    point = FusionPoint(*late, "concatenation", 128)
    found["two blocks over tokens"] = Genotype(text, vision, TEXT_TOKENS, (point,), 2, "tokens")
    return found


class Runner:
    """Sessions of whole and parts that take and give tensors by name, on one thread."""

    def __init__(self, whole: Path, parts: Sequence[Part]) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level, options.intra_op_num_threads = 3, 1
        files = {"whole": whole, **{part.name: part.path for part in parts}}
        self._sessions: dict[str, Any] = {
            name: onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
            for name, path in files.items()
        }

    def run(self, name: str, known: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return what one graph gives."""
        session = self._sessions[name]
        names = [entry.name for entry in session.get_outputs()]
        read = {entry.name: known[entry.name] for entry in session.get_inputs()}
        return dict(zip(names, session.run(names, read), strict=True))


def requests_ms(
    runner: Runner, specs: Sequence[TensorSpec], share: float | None, count: int, seed: int
) -> tuple[float, float]:
    """Return mean wall and processor time of a request; None: the whole graph answers.

    Which requests repeat a picture is drawn, their number is not: count * share.
    """
    rng = np.random.default_rng(seed)
    repeated = np.zeros(count, bool)
    repeated[rng.permutation(count)[: round(count * (share or 0.0))]] = True
    kept: dict[str, np.ndarray] = {}
    feeds = [_drawn(specs, rng) for _ in range(count)]
    kept = runner.run("image", _drawn(specs, rng)) if share is not None else {}
    wall, cpu = time.perf_counter(), time.thread_time()
    for fed, is_repeated in zip(feeds, repeated, strict=True):
        if share is None:
            runner.run("whole", fed)
            continue
        if not is_repeated:
            kept = runner.run("image", fed)
        runner.run("fusion", runner.run("text", fed) | kept)
    spent = time.perf_counter() - wall, time.thread_time() - cpu
    return 1000 * spent[0] / count, 1000 * spent[1] / count


def _drawn(specs: Sequence[TensorSpec], rng: np.random.Generator) -> dict[str, np.ndarray]:
    made: dict[str, np.ndarray] = {}
    for spec in specs:
        if spec.fill == "normal":
            made[spec.name] = rng.standard_normal(spec.shape, np.float32)
        elif spec.fill == "ones":
            made[spec.name] = np.ones(spec.shape, np.int64)
        else:
            made[spec.name] = rng.integers(0, int(spec.high), spec.shape, np.int64)
    return made


def main() -> None:
    """Time the designs, and print figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, required=True, help="folder of both encoders")
    parser.add_argument("--requests", type=int, default=40, help="of each arm and turn")
    asked = parser.parse_args()
    text, vision = asked.weights / "all-MiniLM-L6-v2", asked.weights / "mobilenet_v2_1.0_224"
    space = load_space("paper", (str(text),), (str(vision),), (), "random")
    found: dict[str, Any] = {
        "machine": f"{platform.machine()}, one thread, shared with other work",
        "onnxruntime": onnxruntime.__version__,
        "encoders": ["all-MiniLM-L6-v2", "mobilenet_v2_1.0_224"],
        "text_tokens": TEXT_TOKENS,
        "requests": asked.requests * len(TURNS),
        "designs": {},
    }
    with TemporaryDirectory() as scratch:
        home = Path(scratch)
        encoders = {spec.name: spec for spec in space.encoders}
        builder = OnnxBuilder(
            encoders, space.shapes, 3, home / "onnx", rewrites=ALL, parts=home / "parts"
        )
        opener, held = local_device(home, "cpu")
        for name, genotype in designs(space).items():
            artifact = builder.build(genotype)
            parts = write_parts(artifact.path, genotype, artifact.inputs, home)
            rows = builder._random_inputs(genotype)
            expected = run_onnx(artifact.path, rows)
            difference = check_parts(parts, genotype, input_names(genotype), rows, expected)
            inputs = {"whole": artifact.inputs, **{part.name: part.inputs for part in parts}}
            files = {"whole": artifact.path, **{part.name: part.path for part in parts}}
            digests = {"whole": artifact.sha256, **{part.name: part.sha256 for part in parts}}
            wall: dict[str, list[float]] = {each: [] for each in files}
            cpu: dict[str, list[float]] = {each: [] for each in files}
            print(
                f"{name}: built, the parts differ by {difference:.1e}", file=sys.stderr, flush=True
            )
            device = opener()  # anew: an agent that hears nothing for a minute ends
            for turn in TURNS:
                for each in list(files)[::turn]:
                    request = MeasureRequest(
                        digests[each], inputs[each], timing=LOCAL_TIMING, threads=1
                    )
                    result = device.measure(files[each], request)
                    if result.status is not Status.OK:
                        raise RuntimeError(f"{name}: {each}: {result.reason}")
                    wall[each].append(result.median_ms)
                    cpu[each].append(result.rounds[-1].cpu_ms or float("nan"))
            device.close()
            runner = Runner(artifact.path, parts)
            arms: tuple[float | None, ...] = (None, *SHARES)
            asked_ms: dict[float | None, list[tuple[float, float]]] = {arm: [] for arm in arms}
            for k, turn in enumerate(TURNS):
                for arm in arms[::turn]:
                    spent = requests_ms(runner, artifact.inputs, arm, asked.requests, k)
                    asked_ms[arm].append(spent)
            found["designs"][name] = {
                "design": genotype.describe(),
                "greatest_difference_from_whole": difference,
                "image_bytes": next(part.bytes for part in parts if part.name == "image"),
                "wall_ms": {each: median(values) for each, values in wall.items()},
                "cpu_ms": {each: median(values) for each, values in cpu.items()},
                "readings": {"wall_ms": wall, "cpu_ms": cpu},
                "expected_cpu_ms": {
                    str(share): sum(median(v) for n, v in cpu.items() if n != "whole")
                    - share * median(cpu["image"])
                    for share in SHARES
                },
                "request_ms": {
                    "whole" if arm is None else str(arm): {
                        "wall": median(one[0] for one in spent),
                        "cpu": median(one[1] for one in spent),
                        "by_turn": spent,
                    }
                    for arm, spent in asked_ms.items()
                },
            }
            artifact.discard()
            print(f"{name}: done", file=sys.stderr, flush=True)
        held.release()
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
