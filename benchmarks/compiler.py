"""What NVIDIA's parser and builder make of every operator in every precision, without a GPU.

    pip install 'fusion-nas[tensorrt-rtx]'
    python benchmarks/compiler.py --out FILE.json [--paper]

One design for each fusion operator, over pooled features and over tokens in turns, on the small
encoders of the space `demo`; with --paper also the published designs at full size, with random
weights. Each is built in fp32, fp16 and int8. Rows are written as they end; a second call goes on.
A table in Markdown lies beside the JSON.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from main_job import machine

from evaluators.latency.tensorrt_check import PRECISIONS, check_designs
from search_space.design.genotype import FusionPoint, Genotype
from search_space.design.rules import canonical, violations
from search_space.operators.definitions import FUSION_OPERATORS
from search_space.space.named import load_space
from search_space.space.paper import seeded_designs
from search_space.space.space import SearchSpace

ATTENTION = ((0, "pooled"), (2, "pooled"), (1, "tokens"))


def operators(space: SearchSpace) -> Iterator[tuple[str, Genotype]]:
    """Name a design for each operator and attention that may go together."""
    text, vision = (next(s for s in space.encoders if s.modality == m) for m in ("text", "vision"))
    for operator in FUSION_OPERATORS:
        for blocks, over in ATTENTION:
            point = FusionPoint(2, 2, operator, 32)
            design = Genotype(
                text.name,
                vision.name,
                32,
                (point,),
                attention_blocks=blocks,
                attention_over=over,  # type: ignore[arg-type]
            )
            design = canonical(design, space.shapes)
            if not violations(design, space.shapes):
                yield f"{operator}, {blocks} blocks over {over}", design


def published(space: SearchSpace) -> Iterator[tuple[str, Genotype]]:
    """Name the paper's designs."""
    for seeded in seeded_designs(space):
        yield seeded.name, seeded.genotype


def main() -> None:
    """Build what is missing in the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--paper", action="store_true")
    given = parser.parse_args()
    rows: list[dict[str, Any]] = []
    if given.out.is_file():
        rows = json.loads(given.out.read_text())["networks"]
    done = {(row["design"], row["precision"]) for row in rows}
    space = load_space("paper" if given.paper else "demo", weights="random")
    for name, design in (published if given.paper else operators)(space):
        for precision in PRECISIONS:
            if (name, precision) in done:
                continue
            with TemporaryDirectory() as folder:
                (one,) = check_designs(
                    space, [replace(design, precision=precision)], Path(folder), True
                )
            rows.append(
                {
                    "design": name,
                    "precision": precision,
                    "nodes": one.nodes,
                    **one.taken.as_json(),
                }
            )
            print(json.dumps(rows[-1]), flush=True)
            found = {"machine": machine(), "networks": rows}
            given.out.write_text(json.dumps(found, indent=1) + "\n")
            given.out.with_suffix(".md").write_text(table(rows))


def table(rows: list[dict[str, Any]]) -> str:
    """Write a row for each network."""
    heads = ("design", "precision", "parsed", "built", "nodes", "layers", "fused attention", "s")
    lines = [
        f"# Networks compiled by TensorRT-RTX {rows[0]['version']} for compute capability 8.6",
        "",
        "`fused attention`: layers of the engine that are fused attention, those of the encoders",
        "included. `s`: seconds to build. `python benchmarks/compiler.py`.",
        "",
        "| " + " | ".join(heads) + " |",
        "|" + "---|" * len(heads),
    ]
    names = list(dict.fromkeys(row["design"] for row in rows))
    for row in sorted(rows, key=lambda row: names.index(row["design"])):
        said = ["yes" if row[each] else f"no: {row['refused']}" for each in ("parsed", "built")]
        seconds = "" if row["build_s"] is None else f"{row['build_s']:.1f}"
        figures = (row["nodes"], row["layers"], row["attention"], seconds)
        cells = (row["design"], row["precision"], *said, *map(str, figures))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
