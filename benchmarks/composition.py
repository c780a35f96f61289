"""How much sooner a design's ONNX is there when it is composed of kept parts than when exported.

    python benchmarks/composition.py --shared ../shared \\
        --out benchmarks/results/DATE-composition.json

Random designs over MiniLM and MobileNetV2 1.0 with random weights, in fp32, batch 1, each text
length as likely. Times are wall clock, one thread, of one process; each design is built

- as before: its network is made, exported, checked, compared with torch, its costs counted, its
  large weights left out for the device. The export inside, of the network that is already there, is
  timed by itself: `export alone`;
- composed for the first time, which exports what parts it needs that are not kept yet;
- composed once more, all parts known: `composed`. Of that, `graph alone` is what stands for the
  export: the graph joined of its parts and written as the device gets it, without large weights;
  `graph alone, whole` the same with all of its weights. `composed` has comparison and costs too.

Ratios are medians over the designs of one design's own ratio. `over all designs` counts the export
of parts: it is the sum of all exports, or of all builds as before, over that of all first builds.
`operators`: designs whose graph holds other operators than the exported one, as written and after
the optimisations that ONNX Runtime makes for every device; `--compared` says of how many. Those as
written differ where the exporter lost a shape that a part knows (MobileNetV2's averaged tokens):
it then computes sizes in the graph. Optimised, attention over such tokens keeps one `Where` over
the padding mask a block, where the exported graph has one for all blocks.
"""

import argparse
import os
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import onnx
import onnxruntime
import torch
from main_job import machine, show

from evaluators.onnx import builder as onnx_builder
from evaluators.onnx import composition
from evaluators.onnx import export as exporting
from evaluators.onnx.builder import OnnxBuilder
from evaluators.onnx.stripped import strip_weights
from search_space.design.encoder import spec_for
from search_space.design.genotype import ATTENTION_OVER, TEXT_POOLINGS, VISION_POOLINGS, Genotype
from search_space.encoders.loading import describe
from search_space.operators.definitions import OPERATORS
from search_space.space.space import SearchSpace

GOAL = 30.0


def space_over(weights: Path, tokens: Sequence[int]) -> SearchSpace:
    """All designs over MiniLM and MobileNetV2 1.0."""
    encoders = (
        spec_for("text", str(weights / "all-MiniLM-L6-v2"), "random"),
        spec_for("vision", str(weights / "mobilenet_v2_1.0_224"), "random"),
    )
    return SearchSpace(
        name="composition",
        encoders=encoders,
        shapes={spec.name: describe(spec) for spec in encoders},
        text_tokens=tuple(tokens),
        fusion_points=(1, 3),
        operators=OPERATORS,
        widths=(0, 32, 64, 128, 256),
        attention_blocks=(0, 4),
        attention_over=ATTENTION_OVER,
        text_poolings=TEXT_POOLINGS,
        vision_poolings=VISION_POOLINGS,
        precisions=("fp32",),
    )


class Exports:
    """Stands for the exporter and keeps how long each export took, in s."""

    def __init__(self) -> None:
        self.taken: list[float] = []
        self._export = exporting.export

    def __call__(self, *arguments: Any) -> None:
        started = time.perf_counter()
        self._export(*arguments)
        self.taken.append(time.perf_counter() - started)


def operators(file: Path, optimised: Path | None = None) -> Counter[str]:
    """How often each operator stands in a graph, optimised where a file for that is given."""
    if optimised is not None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(optimised)
        onnxruntime.InferenceSession(str(file), options, ["CPUExecutionProvider"])
        file = optimised
    model = onnx.load(str(file), load_external_data=False)
    return Counter(node.op_type for node in model.graph.node)


def seconds(work: Callable[[], object]) -> float:
    """How long it takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


class Bench:
    """Builds designs in both ways and takes the time."""

    def __init__(self, space: SearchSpace, folder: Path) -> None:
        encoders = {spec.name: spec for spec in space.encoders}
        self._folder, self._graph = folder, folder / "graph.onnx"
        self.before, self.parts = Exports(), Exports()
        self._exporting = OnnxBuilder(encoders, space.shapes, 2, folder / "exported")
        self._composing = OnnxBuilder(
            encoders, space.shapes, 2, folder / "composed", parts=folder / "parts"
        )
        onnx_builder.export = self.before  # type: ignore[assignment, attr-defined]
        composition.export = self.parts  # type: ignore[assignment, attr-defined]

    def _write(self, genotype: Genotype, form: Any) -> None:
        composer = self._composing._composer
        assert composer is not None
        inputs = self._composing.rewriting.fed(
            genotype, self._composing._random_inputs(genotype)[0]
        )
        started = time.perf_counter()
        chunks = composer.compose(genotype, inputs).graph.chunks(form)
        with open(self._graph, "wb") as file:
            file.writelines(chunks)
        self._taken = time.perf_counter() - started

    def measure(self, genotype: Genotype, compared: bool) -> dict[str, Any]:
        """One design's figures, in s."""
        started = time.perf_counter()
        exported = self._exporting.build(genotype)
        strip_weights(exported).discard()
        before = time.perf_counter() - started
        first = seconds(lambda: self._composing.build(genotype, weights=False).discard())
        again = seconds(lambda: self._composing.build(genotype, weights=False).discard())
        found: dict[str, Any] = {
            "design": genotype.describe(),
            "as before": before,
            "export alone": self.before.taken[-1],
            "composed first": first,
            "composed": again,
        }
        for name, form in (("graph alone", "light"), ("graph alone, whole", "whole")):
            self._write(genotype, form)
            found[name] = self._taken
        made = self._composing.build(genotype)
        found["difference"] = made.max_difference
        costs = [{m.name: m.value for m in one.costs} for one in (made, exported)]
        told = [(c["parameters"], c["macs"], c["weight_bytes"]) for c in costs]
        found["same costs"] = told[0] == told[1]
        found["onnx_bytes"] = [c["onnx_bytes"] for c in costs]
        if compared:
            files = (made.path, exported.path)
            raw, raw_exported = map(operators, files)
            lean, lean_exported = (operators(f, self._folder / "optimised.onnx") for f in files)
            found["operators"] = {
                "as written": [dict(raw - raw_exported), dict(raw_exported - raw)],
                "optimised": [dict(lean - lean_exported), dict(lean_exported - lean)],
            }
        for one in (made, exported):
            one.discard()
        return found


def ratios(found: Sequence[dict[str, Any]], slow: str, fast: str) -> dict[str, Any]:
    """Median and quartiles of one figure over another."""
    each = [one[slow] / one[fast] for one in found]
    low, _, high = quantiles(each, n=4)
    return {"median": median(each), "quartiles": [low, high], "least": min(each)}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shared", type=Path, default=Path(__file__).parents[2] / "shared")
    parser.add_argument("--designs", type=int, default=40)
    parser.add_argument("--tokens", type=int, nargs="+", default=[32, 64, 128])
    parser.add_argument("--compared", type=int, default=8, help="designs to compare operators of")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    about, rng = machine(), random.Random(args.seed)
    space = space_over(args.shared / "weights", args.tokens)
    with tempfile.TemporaryDirectory() as folder:
        bench, found = Bench(space, Path(folder)), []
        for k in range(args.designs):
            found.append(bench.measure(space.sample(rng), k < args.compared))
    about["load_after"] = os.getloadavg()[0]
    sums = {name: sum(one[name] for one in found) for name in ("as before", "composed first")}
    figures = ("as before", "export alone", "composed", "graph alone", "graph alone, whole")
    compared = [one["operators"] for one in found if "operators" in one]
    result = {
        "machine": about,
        "settings": {k: v for k, v in vars(args).items() if k not in ("out", "shared")},
        "median_s": {name: median(one[name] for one in found) for name in figures},
        "times_faster": {
            "goal": GOAL,
            "export alone / graph alone": ratios(found, "export alone", "graph alone"),
            "export alone / graph alone, whole": ratios(
                found, "export alone", "graph alone, whole"
            ),
            "export alone / composed": ratios(found, "export alone", "composed"),
            "as before / composed": ratios(found, "as before", "composed"),
        },
        "over all designs": {
            "parts exported": len(bench.parts.taken),
            "their export, s": sum(bench.parts.taken),
            "all exports / (parts' exports + all graphs alone)": sum(bench.before.taken)
            / (sum(bench.parts.taken) + sum(one["graph alone"] for one in found)),
            "as before / composed first": sums["as before"] / sums["composed first"],
        },
        "greatest difference": max(one["difference"] for one in found),
        "designs of other costs": sum(not one["same costs"] for one in found),
        "operators": {
            "compared": len(compared),
            **{
                form: sum(any(one[form]) for one in compared)
                for form in ("as written", "optimised")
            },
        },
        "designs": found,
    }
    show(result, args.out)


if __name__ == "__main__":
    main()
