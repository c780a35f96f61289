"""Adapters (LoRA) between frozen and whole training: accuracy on test, and seconds of training.

    python benchmarks/lora.py --shared ../shared --runs FILE --out FILE.json

Text alone with all-MiniLM-L6-v2, the mean of its last layer, on the texts of CMU-MOSI and of real
tweets. Three ways of training, each with the same seeds: fusion and head on frozen trunks, the
same with adapters of `--rank`, and the whole network after its head (`--fine-tune` of `run`).

Processor seconds are those of one training, from weights on disk to weights on disk, with what it
validates; on this machine wall seconds depend on what else runs. Features of frozen layers are made
before it, once for a data set, and timed apart. Each training that is done is a line of `--runs`,
which a run that was cut off goes on with. Intervals are over test samples, with three seeds or more
over these too.
"""

import argparse
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from main_job import machine, show

from evaluators.data import DataSet, load
from evaluators.features.preprocessing import Preprocessing
from evaluators.quality.evaluator import QualityEvaluator
from evaluators.quality.trainer import new_trainer
from evaluators.statistics.accuracy import measures_of
from evaluators.statistics.paired import Correct, correct_from, paired
from evaluators.training.config import ADAPTERS, TrainingProtocol
from search_space.design.adapting import adapted_layers
from search_space.design.genotype import FusionPoint, Genotype
from search_space.encoders.features import Feature
from search_space.space.named import load_space
from search_space.space.space import SearchSpace

SETS = ("mosi", "tweets")
FROZEN, WHOLE = "frozen", "whole"
GAIN, SECONDS = 0.5, 0.25
"""Goals: of the gain of whole training, and of its seconds."""
Row = dict[str, Any]


def train(
    data: DataSet, space: SearchSpace, genotype: Genotype, way: str, seed: int, home: Path
) -> Row:
    """One training, with what is right of the test split afterwards."""
    encoders = {spec.name: spec for spec in space.encoders}
    protocol = TrainingProtocol(trunks="frozen", seed=seed)
    trainer = new_trainer(
        Preprocessing(data, space.shapes), encoders, protocol, home, whole=way == WHOLE
    )
    evaluator = QualityEvaluator(trainer)
    features = features_made(evaluator, genotype, space)
    started = time.process_time()
    found = evaluator.evaluate(genotype)
    cpu = time.process_time() - started
    tested = evaluator.test(genotype)
    return {
        "seed": seed,
        "way": way,
        "trained": found.details["fidelity"],
        "valid_percent": found["accuracy"].value,
        "right": tested.details["right"],
        "processor_s": round(cpu, 2),
        "features_processor_s": round(features, 2),
        "wall_s": found.details["seconds"],
        "epochs": found.details["epochs"],
        "best_epoch": found.details["best_epoch"],
        "attempts": found.details["attempts"],
        "merged_distance": found.details.get("merged_distance_max"),
    }


def features_made(evaluator: QualityEvaluator, genotype: Genotype, space: SearchSpace) -> float:
    """Processor seconds in which what is kept of frozen layers was made; 0 where it was there."""
    wanted: list[tuple[Feature, ...] | None] = [None]
    if layers := adapted_layers(genotype, "text", space.shapes):
        wanted.append((Feature("text", layers.start - 1, "tokens"),))
    started = time.process_time()
    for each in wanted:
        for split in ("train", "valid"):
            evaluator.trainer.inputs.kept(genotype, split, each)  # type: ignore[arg-type]
    return time.process_time() - started


def told(rows: list[Row], data: DataSet) -> dict[str, Any]:
    """Return the results of each way of training, and its gain over frozen trunks."""
    samples = data.split("test")
    ways = list(dict.fromkeys(row["way"] for row in rows))
    right: dict[str, Correct] = {
        way: np.concatenate([correct_from(row["right"]) for row in rows if row["way"] == way])
        for way in ways
    }
    found: dict[str, Any] = {}
    for way in ways:
        own = [row for row in rows if row["way"] == way]
        accuracy = next(m for m in measures_of(right[way], samples) if m.name == "accuracy")
        gain = paired(right[way], right[FROZEN])
        found[way] = {
            "seeds": [row["seed"] for row in own],
            "test_percent": rounded(accuracy.value, accuracy.low, accuracy.high),
            "gain_points": rounded(gain.points, gain.low, gain.high) if way != FROZEN else None,
            "processor_s": [row["processor_s"] for row in own],
            "median_processor_s": round(float(np.median([row["processor_s"] for row in own])), 2),
            "merged_distance": [row["merged_distance"] for row in own],
        }
    for way in ways:
        if way not in (FROZEN, WHOLE) and WHOLE in found:
            gains = [found[each]["gain_points"]["value"] for each in (way, WHOLE)]
            seconds = [found[each]["median_processor_s"] for each in (way, WHOLE)]
            share = gains[0] / gains[1] if gains[1] > 0 else None
            found[way] |= {
                "share_of_gain": None if share is None else round(share, 2),
                "share_of_seconds": round(seconds[0] / seconds[1], 3),
                "at_least_half_of_the_gain": share is not None and share >= GAIN,
                "at_most_a_quarter_of_the_seconds": seconds[0] <= SECONDS * seconds[1],
            }
    return found


def rounded(value: float, low: float | None, high: float | None) -> dict[str, float]:
    """A figure with its 95 % interval."""
    return {
        "value": round(value, 2),
        "low": round(float(low or 0.0), 2),
        "high": round(float(high or 0.0), 2),
    }


def main() -> None:
    """Run the trainings that are missing, and print the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shared", type=Path, default=Path(__file__).parents[2] / "shared")
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--known", action="store_true", help="train nothing, print the stored figures"
    )
    parser.add_argument("--sets", nargs="*", default=SETS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    about, weights = machine(), args.shared / "weights"
    space = load_space(
        "demo",
        text_encoders=[str(weights / "all-MiniLM-L6-v2")],
        modalities=("text",),
        lora_ranks=[0, args.rank],
    )
    name = space.text_encoders[0]
    shape = space.shapes[name]
    frozen = Genotype(
        name, None, min(512, shape.max_tokens), (FusionPoint(shape.depth, 0),), text_pooling="mean"
    )
    adapted = replace(frozen, lora_rank=args.rank)
    ways = {FROZEN: frozen, f"LoRA rank {args.rank}": adapted, WHOLE: frozen}
    known: list[Row] = []
    if args.runs.is_file():
        known = [json.loads(line) for line in args.runs.read_text("utf-8").splitlines()]
    sets = {}
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        for each in args.sets:
            data = load(args.shared / "data" / each, cache=home / "data", modalities=("text",))
            sets[each] = data
            for seed in range(args.seeds):
                for way, genotype in ways.items():
                    done = {(row["data"], row["seed"], row["way"]) for row in known}
                    if args.known or (each, seed, way) in done:
                        continue
                    row = {"data": each, **train(data, space, genotype, way, seed, home / each)}
                    known.append(row)
                    with args.runs.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(row) + "\n")
                    brief = {key: row[key] for key in row if key != "right"}
                    print(json.dumps(brief), flush=True)
    result = {
        "encoder": name,
        "design": frozen.describe(),
        "adapted_layers": list(adapted_layers(adapted, "text", space.shapes)),
        "adapters": {"epochs": ADAPTERS.epochs, "rate": ADAPTERS.trunk_learning_rate},
        "goal": {"share_of_gain": GAIN, "share_of_seconds": SECONDS},
        **{
            each: {
                "test_samples": len(data.split("test")),
                "majority_percent": round(100 * data.majority("test")[1], 2),
                **told([row for row in known if row["data"] == each], data),
            }
            for each, data in sets.items()
        },
        "threads": 1,
        "machine": about,
    }
    show(result, args.out)


if __name__ == "__main__":
    main()
