"""Builds the tabulated benchmark: every design of `fusion-1152`, trained and timed.

    python benchmarks/build_table.py train --rows DIR --data DATA --text-encoder T \\
        --vision-encoder V
    python benchmarks/build_table.py probe --rows DIR --data DATA ... (the same)
    python benchmarks/build_table.py time --rows DIR --text-encoder T --vision-encoder V
    python benchmarks/build_table.py write --rows DIR --out studies/tables/fusion-1152.parquet

Each step but the last keeps a JSON line a design in --rows and goes on from there when it is
called again; several processes may train at once, `--part 0/2` and `--part 1/2`. Time on a machine
that does nothing else: a design's latency is the least of --readings medians, taken in passes over
all designs, for on a shared machine others can only make a reading longer.
"""

import argparse
import json
import random
import statistics
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from evaluators.data import load
from evaluators.evaluation import Evaluation
from evaluators.features.preprocessing import Preprocessing
from evaluators.latency.evaluator import LOCAL_TIMING, LatencyEvaluator, Runs
from evaluators.onnx.builder import OnnxBuilder
from evaluators.quality.evaluator import QualityEvaluator
from evaluators.quality.probe import ProbeEvaluator
from evaluators.quality.trainer import new_trainer
from evaluators.training.config import TrainingProtocol
from search_space.design.genotype import Genotype
from search_space.network.rewrites import ALL
from search_space.space.named import load_space
from search_space.space.space import SearchSpace
from studies.study.context import local_device
from studies.table.table import DECISIONS, NAME, all_designs, write_table

SEEDS = (0, 1, 2)
CLASSES = 3
"""Of the tweets: a head of that width is timed."""


def lines(file: Path) -> list[dict[str, Any]]:
    """What a file of JSON lines holds; a torn last line is left out."""
    found = []
    for line in file.read_text("utf-8").splitlines() if file.is_file() else ():
        with suppress(json.JSONDecodeError):
            found.append(json.loads(line))
    return found


def row_of(space: SearchSpace, genotype: Genotype) -> dict[str, Any]:
    """The decisions that tell the table's designs apart."""
    decided = dict(zip((d.name for d in space.decisions), space.encode(genotype), strict=True))
    return {name: decided[name] for name in DECISIONS}


def todo(
    space: SearchSpace, done: list[dict[str, Any]]
) -> Iterator[tuple[dict[str, Any], Genotype]]:
    """Designs that have no line yet, in the space's order."""
    known = {tuple(line[name] for name in DECISIONS) for line in done}
    for genotype in all_designs(space).values():
        row = row_of(space, genotype)
        if tuple(row.values()) not in known:
            yield row, genotype


def keep(file: Path, line: dict[str, Any]) -> None:
    """Appends a line."""
    with file.open("a", encoding="utf-8") as out:
        out.write(json.dumps(line) + "\n")


def percent(evaluation: Evaluation) -> float:
    """The accuracy, as it will stand in the table."""
    return round(evaluation["accuracy"].value, 4)


def train(space: SearchSpace, rows: Path, data: str, part: str) -> None:
    """Trains every design from each of SEEDS on features of frozen trunks."""
    torch.set_num_threads(1)
    rows.mkdir(parents=True, exist_ok=True)
    at, of = (int(number) for number in part.split("/"))
    file = rows / f"trained-{at}-{of}.jsonl"
    encoders = {spec.name: spec for spec in space.encoders}
    loaded, protocol = load(Path(data), cache=rows / "data"), TrainingProtocol(trunks="frozen")
    first = QualityEvaluator(
        new_trainer(Preprocessing(loaded, space.shapes), encoders, protocol, rows)
    )
    judges = [first.other(protocol=replace(protocol, seed=seed)) for seed in SEEDS]
    order = {key: k for k, key in enumerate(all_designs(space))}
    for row, genotype in todo(space, trained(rows)):
        if order[genotype.key] % of != at:
            continue
        line: dict[str, Any] = {**row, "valid_accuracy": [], "test_accuracy": [], "training_s": []}
        for judge in judges:
            begun = time.perf_counter()
            line["valid_accuracy"].append(percent(judge.evaluate(genotype)))
            line["training_s"].append(round(time.perf_counter() - begun, 4))
            line["test_accuracy"].append(percent(judge.test(genotype)))
            judge.trainer.forget_weights(genotype)
        keep(file, line)


def probe(space: SearchSpace, rows: Path, data: str) -> None:
    """Probes every design once."""
    torch.set_num_threads(1)
    file, encoders = rows / "probed.jsonl", {spec.name: spec for spec in space.encoders}
    loaded = load(Path(data), cache=rows / "data")
    protocol = TrainingProtocol(trunks="frozen")
    judge = ProbeEvaluator(
        new_trainer(Preprocessing(loaded, space.shapes), encoders, protocol, rows)
    )
    for row, genotype in todo(space, lines(file)):
        begun = time.perf_counter()
        reached = judge.evaluate(genotype)["probe_r2"].value
        seconds = round(time.perf_counter() - begun, 4)
        keep(file, {**row, "probe_r2": round(reached, 4), "probe_s": seconds})


def trained(rows: Path) -> list[dict[str, Any]]:
    """All lines that training has kept."""
    return [line for file in sorted(rows.glob("trained-*.jsonl")) for line in lines(file)]


def read(space: SearchSpace, rows: Path, readings: int) -> None:
    """Times every design once in each of so many passes, each in an order of its own."""
    encoders = {spec.name: spec for spec in space.encoders}
    builder = OnnxBuilder(
        encoders, space.shapes, CLASSES, rows / "onnx", rewrites=ALL, parts=rows / "parts"
    )
    device, held = local_device(rows, "cpu")
    latency = LatencyEvaluator(builder, device, Runs(threads=1, timing=LOCAL_TIMING))
    for number in range(readings):
        file = rows / f"timed-{number}.jsonl"
        left = list(todo(space, lines(file)))
        random.Random(number).shuffle(left)
        for row, genotype in left:
            found = latency.evaluate(genotype)
            if found.unstable:
                continue  # a later pass has it
            told = found["latency_ms"]
            costs = {name: int(found[name].value) for name in ("parameters", "macs")}
            keep(file, {**row, "ms": [told.value, told.low, told.high], **costs})
    latency.close()
    held.release()


def write(space: SearchSpace, rows: Path, out: Path) -> None:
    """Puts both together as one Parquet file. Raises ValueError for a design without its lines."""

    def by_design(found: list[dict[str, Any]]) -> dict[tuple[Any, ...], list[dict[str, Any]]]:
        kept: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
        for line in found:
            kept.setdefault(tuple(line[name] for name in DECISIONS), []).append(line)
        return kept

    taught, probed = by_design(trained(rows)), by_design(lines(rows / "probed.jsonl"))
    timed = by_design([ln for file in sorted(rows.glob("timed-*.jsonl")) for ln in lines(file)])
    table = []
    for genotype in all_designs(space).values():
        row = row_of(space, genotype)
        at = tuple(row.values())
        if not (at in taught and at in probed and at in timed):
            raise ValueError(f"{genotype.describe()} is not trained, probed or timed yet: go on")
        least = min(timed[at], key=lambda line: line["ms"][0])
        figures = taught[at][0]
        table.append(
            {
                **row,
                "valid_accuracy": figures["valid_accuracy"],
                "test_accuracy": figures["test_accuracy"],
                "latency_ms": least["ms"][0],
                "latency_low_ms": least["ms"][1],
                "latency_high_ms": least["ms"][2],
                "latency_readings_ms": [line["ms"][0] for line in timed[at]],
                "parameters": least["parameters"],
                "macs": least["macs"],
                "probe_r2": probed[at][0]["probe_r2"],
                "probe_s": probed[at][0]["probe_s"],
                "training_s": round(statistics.median(figures["training_s"]), 4),
            }
        )
    write_table(table, out)
    print(f"{out}: {len(table)} designs, {out.stat().st_size / 1024:.0f} KiB")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("step", choices=("train", "probe", "time", "write"))
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--data")
    parser.add_argument("--text-encoder")
    parser.add_argument("--vision-encoder")
    parser.add_argument("--part", default="0/1")
    parser.add_argument("--readings", type=int, default=3)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    texts = [given.text_encoder] if given.text_encoder else []
    visions = [given.vision_encoder] if given.vision_encoder else []
    space = load_space(NAME, texts, visions, None if texts and visions else "random")
    if given.step == "train":
        train(space, given.rows, given.data, given.part)
    elif given.step == "probe":
        probe(space, given.rows, given.data)
    elif given.step == "time":
        read(space, given.rows, given.readings)
    else:
        write(space, given.rows, given.out)


if __name__ == "__main__":
    main()
