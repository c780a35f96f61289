"""How far readings of one network lie apart that were taken at different times.

    python benchmarks/repeats.py --timing shared --readings 8 --out benchmarks/results/FILE.json

The published designs in proportion, in the `demo` space with random weights, are read in turn,
each by a job of its own as a study does it; then all again. A reading's 95 % interval is that of
its own runs, so it does not hold what changes from one job to the next. Said of all networks
together, over the readings that are not marked unstable:

- between_readings: standard deviation of the logarithm of a reading about its network's mean, less
  what its own interval accounts for: a relative deviation.
- pairs, disjoint: pairs of readings of one network, and those whose intervals share no point.
- median_ratio: of the slower over the faster one of such a pair.

`--of FILE` says the same of the readings that `latency_truth.py` kept.
"""

import argparse
import json
import math
import os
import tempfile
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from statistics import mean, median, variance

from main_job import machine, show
from rich.console import Console

from search_space.network.rewrites import NONE
from search_space.space.paper import seeded_designs
from studies.config.settings import load_settings
from studies.paper.checks import timing_of
from studies.report.terminal import progress
from studies.study.context import load_space_of

Reading = tuple[float, float, float]
"""Median, and the bounds of its 95 % interval, in ms."""


def read(timing: str, readings: int) -> dict[str, list[Reading]]:
    """So many readings of each network, in turn."""
    settings = load_settings("pareto", {"timing": timing, "space": "demo", "weights": "random"})
    space = load_space_of(settings)
    found: dict[str, list[Reading]] = {}
    with (
        progress(Console(stderr=True)) as reporter,
        timing_of(settings, space, 2, NONE, reporter) as latency,
    ):
        for _ in range(readings):
            for seeded in seeded_designs(space):
                evaluation = latency.evaluate(seeded.genotype)
                of_one = found.setdefault(seeded.name, [])
                if not evaluation.unstable:
                    ms = evaluation["latency_ms"]
                    of_one.append((ms.value, ms.low or ms.value, ms.high or ms.value))
    return found


def kept(file: Path) -> dict[str, list[Reading]]:
    """The readings that `latency_truth.py` kept."""
    networks = json.loads(file.read_text(encoding="utf-8"))["networks"]
    return {
        network["network"]: [
            (one["median_ms"], one["low_ms"], one["high_ms"])
            for one in network["ours"]
            if not one["flagged"]
        ]
        for network in networks
    }


def apart(networks: Sequence[Sequence[Reading]]) -> dict[str, float | int]:
    """What the readings of these networks come to."""
    several = [one for one in networks if len(one) > 1]
    freedom = sum(len(one) - 1 for one in several)
    squares = sum((len(one) - 1) * variance(math.log(r[0]) for r in one) for one in several)
    own = mean((math.log(high / low) / (2 * 1.96)) ** 2 for one in several for _, low, high in one)
    pairs = [pair for one in several for pair in combinations(one, 2)]
    return {
        "networks": len(several),
        "readings": sum(map(len, several)),
        "between_readings": math.sqrt(max(0.0, squares / freedom - own)),
        "own_half_width": 1.96 * math.sqrt(own),
        "pairs": len(pairs),
        "disjoint": sum(max(a[1], b[1]) > min(a[2], b[2]) for a, b in pairs),
        "median_ratio": median(max(a[0], b[0]) / min(a[0], b[0]) for a, b in pairs),
    }


def main() -> None:
    """Read, and print how far readings lie apart."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--timing", choices=("shared", "alone"), default="shared")
    parser.add_argument("--readings", type=int, default=8, help="of each network")
    parser.add_argument("--of", type=Path, help="a file that latency_truth.py wrote")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if args.of is not None:
        show(apart(list(kept(args.of).values())), args.out)
        return
    about = machine()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["FUSION_NAS_HOME"] = folder
        found = read(args.timing, args.readings)
    about["load_after"] = os.getloadavg()[0]
    result = {
        "timing": args.timing,
        **apart(list(found.values())),
        "ms": {name: [round(one[0], 4) for one in of_one] for name, of_one in found.items()},
        "machine": about,
    }
    show(result, args.out)


if __name__ == "__main__":
    main()
