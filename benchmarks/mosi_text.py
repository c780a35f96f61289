"""Text alone on CMU-MOSI with all-MiniLM-L6-v2, trained as a study trains it.

    python benchmarks/mosi_text.py --shared ../shared

Twice: on the encoder as it was loaded (`--trunks frozen` of `run`) and on the encoder fine-tuned
alone (`--trunks text-tuned`), by the fair protocol as `run` sets it on this machine. The design is
chosen by 5-fold cross-validation over train and valid (`--cv`) on the frozen encoder and on the
validation split on the tuned one; its networks of all seeds alone look at the test split, once.

Prints one JSON object; `--out FILE` keeps it. "has0" counts a score of 0 as non-negative, "nonzero"
leaves those clips out; intervals are over clips with seeds averaged. `--threads` is torch's.
"""

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from main_job import machine, show

from evaluators.data import DataSet, load
from evaluators.features.preprocessing import Preprocessing
from evaluators.quality.cross_validation import CrossValidatedEvaluator
from evaluators.quality.evaluator import QualityEvaluator
from evaluators.quality.trainer import Compute, new_trainer
from evaluators.statistics.accuracy import measures_of, spread_points
from evaluators.statistics.paired import correct_of
from search_space.design.genotype import FusionPoint, Genotype
from search_space.space.named import load_space
from search_space.space.space import SearchSpace
from studies.config.settings import load_settings
from studies.study.training_protocol import chosen_protocol, in_words

WIDTH = 512
REACH = {"frozen": 79.0, "text-tuned": 81.0}
"""has0 in percent on all test clips that is asked of each way of training."""


def designs(space: SearchSpace, trunks: str, tokens: int) -> list[Genotype]:
    """Text-only designs: of a frozen encoder its taps alone and together, of a tuned one the last.

    Taps of a frozen encoder are pooled to their mean: its first token tells nothing before the
    end. Taps together are projected to 512, as the paper's are.
    """
    name = space.text_encoders[0]
    depth = space.shapes[name].depth
    single: list[tuple[tuple[int, ...], str]] = [((depth,), "cls"), ((depth,), "mean")]
    if space.shapes[name].has_pooler:
        single.append(((depth,), "pooler"))
    if trunks == "frozen":
        single += [((tap,), "mean") for tap in range(1, depth)]
        together = (
            (depth - 2, depth),
            (depth - 2, depth - 1, depth),
            (depth // 3, 2 * depth // 3, depth),
        )
        single += [(taps, "mean") for taps in together]
    return [
        Genotype(
            name,
            None,
            tokens,
            tuple(
                FusionPoint(tap, 0, "concatenation", WIDTH if len(taps) > 1 else 0) for tap in taps
            ),
            text_pooling=pooling,  # type: ignore[arg-type]
        )
        for taps, pooling in single
    ]


def evaluators(
    data: DataSet, space: SearchSpace, trunks: str, seeds: Sequence[int], home: Path
) -> list[QualityEvaluator]:
    """One a seed, each set up as `fusion-nas run --trunks` does."""
    encoders = {spec.name: spec for spec in space.encoders}
    compute = "cuda" if torch.cuda.is_available() else "cpu"
    preprocessing, made = Preprocessing(data, space.shapes), []
    for seed in seeds:
        settings = load_settings("pareto", {"trunks": trunks, "seed": seed})
        protocol = chosen_protocol(settings, preprocessing, space, compute)
        trainer = new_trainer(preprocessing, encoders, protocol, home, compute=Compute(compute))
        made.append(QualityEvaluator(trainer))
    return made


def reached(
    data: DataSet, space: SearchSpace, trunks: str, seeds: Sequence[int], home: Path
) -> dict[str, Any]:
    """Trains all designs with all seeds, chooses on validation, and tests what was chosen."""
    started = time.perf_counter()
    by_seed = evaluators(data, space, trunks, seeds, home)
    tokens = min(512, space.shapes[space.text_encoders[0]].max_tokens)
    valid: dict[Genotype, list[float]] = {}
    judges: Sequence[QualityEvaluator | CrossValidatedEvaluator] = by_seed
    if trunks == "frozen":  # cheap enough to be chosen by cross-validation, with one seed
        judges = [CrossValidatedEvaluator(by_seed[0])]
    for genotype in designs(space, trunks, tokens):
        found = [trial_runner.evaluate(genotype) for trial_runner in judges]
        valid[genotype] = [each["accuracy"].value for each in found]
        print(genotype.describe(), [round(v, 2) for v in valid[genotype]], flush=True)
    chosen = max(valid, key=lambda genotype: sum(valid[genotype]))
    samples = data.split("test")
    right = np.concatenate([correct_of(evaluator.test(chosen)) for evaluator in by_seed])
    measures = {measure.name: measure for measure in measures_of(right, samples)}
    return {
        "trained": in_words(by_seed[0].protocol),
        "chosen": chosen.describe(),
        "chosen_by": "5-fold cross-validation over train and valid, first seed"
        if trunks == "frozen"
        else "the validation split, mean of all seeds",
        "of_designs": len(valid),
        "chosen_at_percent": [round(value, 2) for value in valid[chosen]],
        "test_clips": len(samples),
        **{
            {"accuracy": "has0_percent", "accuracy_nonzero": "nonzero_percent"}[name]: {
                "value": round(measure.value, 2),
                "low": round(float(measure.low or 0.0), 2),
                "high": round(float(measure.high or 0.0), 2),
            }
            for name, measure in measures.items()
        },
        "seeds": list(seeds),
        "by_seed_percent": [round(100 * float(row.mean()), 2) for row in right],
        "over_seeds": {name: round(value, 2) for name, value in spread_points(right).items()},
        "asked_percent": REACH[trunks],
        "holds": measures["accuracy"].value >= REACH[trunks],
        "wall_s": round(time.perf_counter() - started, 1),
    }


def main() -> None:
    """Run both ways and print what they reached."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shared", type=Path, default=Path(__file__).parents[2] / "shared")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=0, help="0: torch's choice")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    about, started = machine(), time.perf_counter()
    weights = args.shared / "weights"
    space = load_space(
        "demo",
        text_encoders=[str(weights / "all-MiniLM-L6-v2")],
        vision_encoders=[str(weights / "mobilenet_v2_1.0_224")],  # of the study, never trained here
    )
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        data = load(args.shared / "data" / "mosi", cache=home / "data", modalities=("text",))
        found = {trunks: reached(data, space, trunks, range(args.seeds), home) for trunks in REACH}
    result = {
        "data": data.note,
        "encoder": space.text_encoders[0],
        **found,
        "majority_percent": round(100 * data.majority("test")[1], 2),
        "wall_s": round(time.perf_counter() - started, 1),
        "threads": torch.get_num_threads(),
        "machine": about,
    }
    show(result, args.out)


if __name__ == "__main__":
    main()
