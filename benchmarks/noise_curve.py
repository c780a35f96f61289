"""What a curve of accuracy over noise costs, beside training the design that it is of.

    python benchmarks/noise_curve.py --shared ../shared [--designs 12] [--out FILE]

On real tweets with all-MiniLM-L6-v2 and MobileNetV2, features kept beforehand, one thread: designs
of the space `fusion-1152` and one that reads tokens. "trial" is training and validation of the
fusion as a study does it, "curve" the 20 points of one curve (of three that the robustness of a
design is made of), all three of which are timed at once, with all that comes before them.
"""

import argparse
import random
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
from main_job import machine, show
from plain_trial import PROTOCOL, SEED

from evaluators.data import load
from evaluators.features.preprocessing import Preprocessing
from evaluators.quality.evaluator import QualityEvaluator
from evaluators.quality.robustness import Noise, RobustnessEvaluator
from evaluators.quality.trainer import new_trainer
from search_space.design.genotype import Genotype
from search_space.space.named import load_space

CURVES = 3


def main() -> None:
    """Time, and print the shares."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--shared", type=Path, default=Path(__file__).parents[2] / "shared")
    parser.add_argument("--designs", type=int, default=12)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    about = machine()
    shared = given.shared.resolve()
    text, vision = (
        str(shared / "weights" / name) for name in ("all-MiniLM-L6-v2", "mobilenet_v2_1.0_224")
    )
    space = load_space("fusion-1152", [text], [vision])
    encoders = {spec.name: spec for spec in space.encoders}
    rng = random.Random(SEED)
    designs = [space.sample(rng) for _ in range(given.designs)]
    point = replace(designs[0].points[0], operator="cross-attention", width=32)
    designs.append(replace(designs[0], points=(point,)))
    rows = []
    with tempfile.TemporaryDirectory() as home:
        data = load(shared / "data" / "tweets", cache=Path(home) / "data")
        quality = QualityEvaluator(
            new_trainer(Preprocessing(data, space.shapes), encoders, PROTOCOL, Path(home))
        )
        robustness = RobustnessEvaluator(quality.trainer, Noise())
        for design in designs:
            for split in ("train", "valid"):
                quality.trainer.inputs.kept(design, split)
            rows.append(timed(quality, robustness, design))
            print(rows[-1], flush=True)
    shares = [row["curve_over_trial"] for row in rows]
    result = {
        "designs": rows,
        "median_curve_over_trial": round(statistics.median(shares), 4),
        "greatest_curve_over_trial": max(shares),
        "machine": about,
    }
    show(result, given.out)


def timed(
    quality: QualityEvaluator, robustness: RobustnessEvaluator, design: Genotype
) -> dict[str, float | str]:
    """Processor seconds of a trial and of a curve."""
    begun = time.process_time()
    quality.evaluate(design)
    trial = time.process_time() - begun
    begun = time.process_time()
    robustness.evaluate(design)
    curve = (time.process_time() - begun) / CURVES
    return {
        "design": design.describe(),
        "trial_cpu_s": round(trial, 3),
        "curve_cpu_s": round(curve, 3),
        "curve_over_trial": round(curve / trial, 4),
    }


if __name__ == "__main__":
    main()
