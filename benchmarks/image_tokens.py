"""What fewer image tokens save: multiply-accumulates and latency of designs that fuse tokens.

    python benchmarks/image_tokens.py --shared ../shared --out FILE

Pretrained MiniLM (32 tokens) and MobileNetV2, both tapped at their last layer, at 224 and 160
pixels, with random fusions of width 384: cross-attention both ways, and four attention blocks over
the tokens. Each design at 1, 4, 9, 16 and 49 image tokens and at all that the tap has; more than it
has are refused, and 49 of 7 x 7 are all.

The exported graphs, each of which was compared with torch, run in ONNX Runtime with `--threads`
threads at batch 1, in blocks A B C .. C B A in one run, one session alive at a time. A block's
figure is the median over its runs, of wall time and of the process's CPU time, which other work on
the machine stretches less; a design's is the median over its blocks. `cpu_ratio_to_all` is the
median over the blocks of its CPU time by that of the same design with all image tokens in the same
pass. `load_before` and `load_after` say how busy the machine was. Prints one JSON object;
`--out FILE` keeps it.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnxruntime
import torch
from main_job import machine

from evaluators.costs import count_macs, example_inputs
from evaluators.onnx.builder import OnnxBuilder
from search_space.design.genotype import FusionPoint, Genotype
from search_space.design.rules import canonical
from search_space.network.network import build
from search_space.space.named import load_space
from search_space.space.space import SearchSpace

SIZES = (224, 160)
COUNTS = (1, 4, 9, 16, 49, 0)
WIDTH, TEXT_TOKENS, BLOCKS = 384, 32, 4
WARM_UP = 5
Feed = dict[str, np.ndarray]


@dataclass
class Row:
    """One design at one size with one number of image tokens."""

    about: dict[str, Any]
    file: Path
    feed: Feed
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def told(self, of_all: "Row") -> dict[str, Any]:
        """What is known of it; `of_all` is the same design with all image tokens."""
        ratios = [own / other for own, other in zip(self.cpu, of_all.cpu, strict=True)]
        return {
            **self.about,
            "ms": round(median(self.wall), 3),
            "cpu_ms": round(median(self.cpu), 3),
            "cpu_ratio_to_all": round(median(ratios), 3),
            "cpu_ms_of_blocks": [round(each, 3) for each in self.cpu],
        }


def designs(space: SearchSpace) -> Iterator[tuple[str, int, Genotype]]:
    """Each kind at each size, with all image tokens."""
    (text,), taps = space.text_encoders, space.shapes
    for size in SIZES:
        (vision,) = (n for n in space.vision_encoders if taps[n].image_size == size)
        point = FusionPoint(taps[text].depth, taps[vision].depth, "cross-attention-both", WIDTH)
        crossed = Genotype(text, vision, TEXT_TOKENS, (point,), text_pooling="mean")
        yield "cross-attention both ways", size, crossed
        yield (
            f"{BLOCKS} attention blocks over tokens",
            size,
            replace(
                crossed,
                points=(replace(point, operator="sum"),),
                attention_blocks=BLOCKS,
                attention_over="tokens",
            ),
        )


def rows_of(space: SearchSpace, folder: Path) -> tuple[list[Row], list[dict[str, Any]]]:
    """Rows to be timed, and what is not timed."""
    encoders = {spec.name: spec for spec in space.encoders}
    builder, rest = OnnxBuilder(encoders, space.shapes, 2, folder), []
    rows = []
    for kind, size, design in designs(space):
        for count in COUNTS:
            asked = replace(design, image_tokens=count)
            about = {"design": kind, "pixels": size, "image_tokens": count or "all"}
            if found := space.violations(asked):
                rest.append({**about, "refused": found[0]})
                continue
            if canonical(asked, space.shapes) != asked:
                rest.append({**about, "same_as": "all"})
                continue
            network = build(asked, encoders, space.shapes, 2)
            inputs = example_inputs(asked, space.shapes)
            features, mask = network.read(*inputs)
            about["fusion_macs"] = count_macs(lambda n=network, f=features, m=mask: n.fusion(f, m))
            about["macs"] = count_macs(lambda n=network, i=inputs: n(*i))
            artifact = builder.build(asked, network)
            torch.manual_seed(0)
            ids = torch.randint(1000, 20_000, inputs[0].shape)
            given = (ids, inputs[1], torch.randn(inputs[2].shape))
            names = [entry.name for entry in artifact.inputs]
            feed = {n: part.numpy() for n, part in zip(names, given, strict=True)}
            rows.append(Row(about, artifact.path, feed))
    return rows, rest


def alike(row: Row, rows: list[Row]) -> Row:
    """The row of the same design and size with all image tokens."""
    same = ("design", "pixels")
    return next(
        other
        for other in rows
        if other.about["image_tokens"] == "all"
        and all(other.about[k] == row.about[k] for k in same)
    )


def block(row: Row, threads: int, runs: int) -> None:
    """One block of runs."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(row.file), options, ["CPUExecutionProvider"])
    wall, cpu = [], []
    for k in range(WARM_UP + runs):
        started, worked = time.perf_counter(), time.process_time()
        session.run(None, row.feed)
        if k >= WARM_UP:
            wall.append(1e3 * (time.perf_counter() - started))
            cpu.append(1e3 * (time.process_time() - worked))
    row.wall.append(median(wall))
    row.cpu.append(median(cpu))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shared", type=Path, default=Path(__file__).parents[2] / "shared")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=int, default=20, help="runs of a block")
    parser.add_argument("--passes", type=int, default=3, help="times forth and back")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    about, weights = machine(), args.shared / "weights"
    space = load_space(
        "fusions",
        [str(weights / "all-MiniLM-L6-v2")],
        [str(weights / "mobilenet_v2_1.0_224")],
        image_sizes=SIZES,
    )
    with tempfile.TemporaryDirectory() as folder:
        rows, rest = rows_of(space, Path(folder))
        for _ in range(args.passes):
            for row in (*rows, *reversed(rows)):
                block(row, args.threads, args.runs)
    about["load_after"] = os.getloadavg()[0]
    given = {k: v for k, v in vars(args).items() if k not in ("out", "shared")}
    told = {
        "machine": about,
        "settings": given,
        "rows": [row.told(alike(row, rows)) for row in rows],
        "not_timed": rest,
    }
    text = json.dumps(told, indent=2)
    print(text)
    if args.out:
        args.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
