"""How well a latency model that read 20 designs knows others, beside two usual stand-ins.

    python benchmarks/latency_model.py --shared ../shared --readings FILE.jsonl \
        --out benchmarks/results/DATE-latency-model.json

Designs over MiniLM and MobileNetV2 1.0 with random weights: 16 to 64 tokens, 1 to 3 points, all
operators, 0 to 4 attention blocks, fp32 and dynamic int8. `--held-out` of them, drawn from
`--seed`, are timed on this machine by the product's protocol; ten of these again, which says how
far a reading repeats itself; and `--read` others that the model chose out of 400. What
`--readings` holds already is not timed again, so a run that was cut off goes on.

What is told of the held-out designs, by the model, by multiply-accumulates (MACs) and by tables of
operators (as Harmonic-NAS sums them):

- error: mean absolute error as a share of the reading. MACs and tables are first brought to ms by
  the one factor that fits the 20 readings best.
- tau: Kendall's, of the readings.
- table of all: each operator's time, by its kind and the shapes of its inputs, is the median over
  every graph read, the held-out ones too: no table can know more. Table of the read: over the 20
  alone; an operator that none of them holds takes the mean of its kind.
- within: the share of held-out readings within two of the model's deviations.
- of operators: the same with the sum of the profiled operators' medians as latency, of a graph
  itself. Other programs' turns hardly reach it. The table of all is no rival there: it holds the
  very figures that it is to predict.
- narrow heads: the held-out designs without a tensor product. One of 128 x 128 features makes the
  head's first layer 33 MB of weights, more than caches hold, whose time is that of the memory.
"""

import argparse
import os
import random
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from latency_readings import Readings
from main_job import machine, show
from scipy.stats import kendalltau

from evaluators.latency.features import LatencyFeatures
from evaluators.latency.model import LatencyModel, TimedDesign
from evaluators.latency.trunk_work import TrunkWork
from evaluators.onnx.rewriting import Rewriting
from search_space.design.genotype import Genotype
from search_space.network.rewrites import ALL
from search_space.space.named import load_space
from search_space.space.space import SearchSpace

POOL, AGAIN = 400, 10
GOAL = 0.05
OPERATOR_HALF_WIDTH = 0.02
"""Of a sum of operators, which comes without an interval."""


def space_of(shared: Path) -> SearchSpace:
    """The space that designs are drawn from."""
    folders = [
        [str(shared / "weights" / name)] for name in ("all-MiniLM-L6-v2", "mobilenet_v2_1.0_224")
    ]
    space = load_space("paper", *folders, weights="random")
    return replace(space, text_tokens=(16, 24, 32, 48, 64), attention_blocks=(0, 4))


def drawn(space: SearchSpace, seed: int, held_out: int) -> tuple[list[Genotype], list[Genotype]]:
    """Designs that are held out, and those that the model may choose from; no design twice."""
    rng = random.Random(seed)
    found: dict[str, Genotype] = {}
    while len(found) < held_out + POOL:
        design = space.sample(rng)
        found.setdefault(design.key, design)
    designs = list(found.values())
    return designs[:held_out], designs[held_out:]


def operators_ms(reading: dict[str, Any]) -> float:
    """What the operators of a graph take together."""
    return float(sum(count * ms for _, count, ms in reading["operators"]))


def table_of(readings: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Milliseconds of each operator, and of each kind of operator."""
    found: dict[str, list[float]] = {}
    for reading in readings:
        for name, _, ms in reading["operators"]:
            found.setdefault(name, []).append(ms)
    table = {name: float(np.median(ms)) for name, ms in found.items()}
    kinds: dict[str, list[float]] = {}
    for name, ms in table.items():
        kinds.setdefault(name.partition(" ")[0], []).append(ms)
    return table | {kind: float(np.mean(ms)) for kind, ms in kinds.items()}


def summed(table: dict[str, float], readings: Sequence[dict[str, Any]]) -> np.ndarray:
    """Each graph's operators by the table; an operator unknown even by its kind takes nothing."""
    return np.array(
        [
            sum(
                count * table.get(name, table.get(name.partition(" ")[0], 0.0))
                for name, count, _ in one["operators"]
            )
            for one in readings
        ]
    )


def judged(said: np.ndarray, seen: np.ndarray) -> dict[str, float]:
    """Error and tau of predictions."""
    off = np.abs(said / seen - 1)
    return {
        "error": float(off.mean()),
        "median_error": float(np.median(off)),
        "tau": float(kendalltau(said, seen).statistic),
    }


def compared(
    features: LatencyFeatures,
    read: Sequence[dict[str, Any]],
    held: Sequence[dict[str, Any]],
    of_operators: bool,
) -> dict[str, Any]:
    """Model, MACs and tables on the held-out readings."""

    def ms_of(rows: Sequence[dict[str, Any]]) -> np.ndarray:
        return np.array([operators_ms(one) if of_operators else one["ms"] for one in rows])

    def half_width(one: dict[str, Any]) -> float:
        spread = (one["high_ms"] - one["low_ms"]) / 2 / one["ms"]
        return OPERATOR_HALF_WIDTH if of_operators else float(spread)

    taken, seen = ms_of(read), ms_of(held)
    readings = [
        TimedDesign(Genotype.from_json(one["genotype"]), float(ms), half_width(one))
        for one, ms in zip(read, taken, strict=True)
    ]
    model = LatencyModel.fit(features, readings)
    costs = features.of([Genotype.from_json(one["genotype"]) for one in held])
    said, deviation = model.predict(costs)
    found: dict[str, Any] = {
        "model": {
            **judged(said, seen),
            "misfit": model.misfit,
            "mean_deviation": float(deviation.mean()),
            "within": float((np.abs(np.log(seen / said)) < 2 * deviation).mean()),
        }
    }
    rivals = {
        "macs": [np.array([float(one["macs"]) for one in rows]) for rows in (read, held)],
        "table of the read": [summed(table_of(read), rows) for rows in (read, held)],
        "table of all": [summed(table_of([*read, *held]), rows) for rows in (read, held)],
    }
    for name, (before, after) in rivals.items():
        factor = np.exp(np.median(np.log(taken / before)))
        found[name] = judged(factor * after, seen)
    return found


def repeated(held: Sequence[dict[str, Any]], again: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """How far two readings of a design are apart, as shares of the first."""
    first = {Genotype.from_json(one["genotype"]).key: one for one in held}
    pairs = [(first[Genotype.from_json(one["genotype"]).key], one) for one in again]
    wall = [abs(b["ms"] / a["ms"] - 1) for a, b in pairs]
    tau = kendalltau([a["ms"] for a, _ in pairs], [b["ms"] for _, b in pairs]).statistic
    operators = [abs(operators_ms(b) / operators_ms(a) - 1) for a, b in pairs]
    return {
        "designs": len(pairs),
        "readings_apart": float(np.mean(wall)),
        "operators_apart": float(np.mean(operators)),
        "tau_of_readings": float(tau),
    }


def measured(args: argparse.Namespace, home: Path) -> dict[str, Any]:
    """Time what is not timed yet, and compare."""
    space = space_of(args.shared.resolve())
    held, pool = drawn(space, args.seed, args.held_out)
    features = LatencyFeatures(TrunkWork(space.encoders, space.shapes), Rewriting(ALL))
    chosen = LatencyModel.fit(features, []).next_to_time(features.of(pool), args.read)
    readings = Readings(args.readings, space, home)
    try:
        of_held = readings.take("held-out", held)
        of_again = readings.take("again", held[:AGAIN])
        of_read = readings.take("read", [pool[k] for k in chosen])
    finally:
        readings.close()
    narrow = [
        one
        for one in of_held
        if all(point["operator"] != "tensor" for point in one["genotype"]["points"])
    ]
    widths = [(one["high_ms"] - one["low_ms"]) / one["ms"] for one in of_held]
    return {
        "goal_error": GOAL,
        "read": len(of_read),
        "held_out": len(of_held),
        "unstable": sum(bool(one["unstable"]) for one in (*of_read, *of_held)),
        "median_interval": float(np.median(widths)),
        "ms_of_held_out": [one["ms"] for one in of_held],
        "repeatability": repeated(of_held, of_again),
        "readings": compared(features, of_read, of_held, of_operators=False),
        "of operators": compared(features, of_read, of_held, of_operators=True),
        "of operators, narrow heads": compared(features, of_read, narrow, of_operators=True),
        "narrow_heads": len(narrow),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shared", type=Path, default=Path(__file__).parents[2] / "shared")
    parser.add_argument(
        "--readings", type=Path, required=True, help="JSON lines, kept as they come"
    )
    parser.add_argument("--read", type=int, default=20, help="designs that the model reads")
    parser.add_argument(
        "--held-out", type=int, default=60, help="designs; those to choose from follow them"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    about = machine()
    with tempfile.TemporaryDirectory() as home:
        found = measured(args, Path(home))
    about["load_after"] = os.getloadavg()[0]
    given = {"read": args.read, "held_out": args.held_out, "seed": args.seed}
    show({"machine": about, "settings": given, **found}, args.out)


if __name__ == "__main__":
    main()
