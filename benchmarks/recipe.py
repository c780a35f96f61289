"""Whether every design trains: random designs held to a linear probe of their own features.

    python benchmarks/recipe.py --runs runs.jsonl --designs 60 --seeds 3
    python benchmarks/recipe.py --runs runs.jsonl --report [--out RESULT.json]

Random designs of a space on real tweets, on frozen trunks, by the product's own recipe. Runs are
appended to --runs as they end, so a second call goes on. Test is looked at once a training and
chooses nothing. Texts have 64 tokens at most; outer products wider than 64 are left out, since
their heads alone take minutes to train on two cores.
"""

import argparse
import json
import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from main_job import machine, show

from evaluators.data import DataSet, load
from evaluators.features.preprocessing import Preprocessing
from evaluators.quality.evaluator import QualityEvaluator
from evaluators.quality.trainer import DesignTrainer, new_trainer
from evaluators.training.check import PROBE_STRENGTH
from evaluators.training.config import named_protocol
from evaluators.training.linear_probe import probe_scores
from search_space.design.genotype import Genotype
from search_space.space.named import load_space
from search_space.space.space import SearchSpace

FIXED = {"text_tokens": 64, "precision": "fp32"}
WIDEST_TENSOR = 64


def designs(space: SearchSpace, count: int, seed: int) -> list[Genotype]:
    """So many different designs, decisions drawn uniformly."""
    rng, found = random.Random(seed), []
    while len(found) < count:
        vector = [FIXED.get(d.name, rng.choice(d.choices)) for d in space.decisions]
        design = space.decode(vector)
        wide = any(p.operator == "tensor" and p.width > WIDEST_TENSOR for p in design.points)
        if not (wide or space.violations(design) or design in found):
            found.append(design)
    return found


def trainer(data: DataSet, space: SearchSpace, home: Path, seed: int) -> DesignTrainer:
    """A trainer on frozen trunks, as `--trunks frozen` on a CPU."""
    protocol = replace(named_protocol("fair", seed), trunks="frozen")
    encoders = {spec.name: spec for spec in space.encoders}
    return new_trainer(Preprocessing(data, space.shapes), encoders, protocol, home)


def trained(one: DesignTrainer, design: Genotype) -> dict[str, Any]:
    """What one training came to, in percent."""
    quality, started = QualityEvaluator(one), time.perf_counter()
    valid = quality.evaluate(design)
    seconds = time.perf_counter() - started
    test = quality.test(design)["accuracy"].value
    seen, asked = (one.inputs.kept(design, split) for split in ("train", "test"))
    scores = probe_scores(seen, asked, len(one.data.classes), PROBE_STRENGTH)
    return {
        "design": design.describe(),
        "valid": valid["accuracy"].value,
        "test": test,
        "probe_valid": valid.details["probe_percent"],
        "probe_test": 100 * float((scores.argmax(1) == asked.labels.numpy()).mean()),
        "attempts": valid.details["attempts"],
        "constant": valid.details["constant"],
        "did_not_train": valid.details["did_not_train"],
        "epochs": valid.details["epochs"],
        "seconds": round(seconds, 1),
    }


def report(runs: Sequence[dict[str, Any]], majority: float) -> dict[str, Any]:
    """Shares of trainings that failed, and how far apart designs are."""

    def percent(holds: Sequence[bool]) -> float:
        return round(100 * sum(holds) / len(holds), 1)

    by_design: dict[str, list[float]] = {}
    for run in runs:
        by_design.setdefault(run["key"], []).append(run["test"])
    means = [statistics.mean(tests) for tests in by_design.values()]
    seconds = [run["seconds"] for run in runs if "seconds" in run]
    stuck = [abs(r["valid"] - majority) <= 0.5 and r["probe_valid"] >= majority + 3 for r in runs]
    return {
        "trainings": len(runs),
        "designs": len(by_design),
        "majority_valid": majority,
        "at_majority_though_probe_is_3_above_percent": percent(stuck),
        "constant_percent": percent([run["constant"] for run in runs]),
        "second_attempts_percent": percent([run["attempts"] > 1 for run in runs]),
        "valid_within_1_of_probe_or_above_percent": percent(
            [run["valid"] >= run["probe_valid"] - 1 for run in runs]
        ),
        "test_within_1_of_probe_or_above_percent": percent(
            [run["test"] >= run["probe_test"] - 1 for run in runs]
        ),
        "test_mean": round(statistics.mean(means), 2),
        "test_deviation_between_designs": round(statistics.pstdev(means), 2),
        "test_worst_design": round(min(means), 2),
        "test_best_design": round(max(means), 2),
        "probe_test_mean": round(statistics.mean(run["probe_test"] for run in runs), 2),
        "seconds_median": statistics.median(seconds) if seconds else None,
        "machine": machine(),
    }


def main() -> None:
    """Train what is missing, or report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--shared", type=Path, default=Path(__file__).parents[2] / "shared")
    parser.add_argument("--home", type=Path, help="of cached features; beside --runs if left out")
    parser.add_argument("--space", default="fusions")
    parser.add_argument("--designs", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--draw", type=int, default=11, help="seed of the designs")
    parser.add_argument("--report", action="store_true")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    home = given.home or given.runs.with_suffix(".home")
    data = load(given.shared / "data" / "tweets", cache=home / "cache")
    runs = []
    if given.runs.is_file():
        runs = [json.loads(line) for line in given.runs.read_text().splitlines()]
    if given.report:
        labels = [sample.label for sample in data.split("valid")]
        majority = 100 * max(map(labels.count, labels)) / len(labels)
        show(report(runs, majority), given.out)
        return
    weights = given.shared / "weights"
    space = load_space(
        given.space,
        text_encoders=[str(weights / "all-MiniLM-L6-v2")],
        vision_encoders=[str(weights / "mobilenet_v2_1.0_224")],
    )
    done = {(run["key"], run["seed"]) for run in runs}
    for seed in range(given.seeds):
        one = trainer(data, space, home, seed)
        for design in designs(space, given.designs, given.draw):
            if (design.key, seed) in done:
                continue
            row = {"key": design.key, "seed": seed, **trained(one, design)}
            with given.runs.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
