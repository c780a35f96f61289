"""How well readings in turns order designs while a load comes and goes.

    python benchmarks/turns.py --designs 40 --rounds 4 --out benchmarks/results/FILE.json

Random designs of the `demo` space with random weights are built once and read in turns: first
without a load, which is taken for the truth, then while other processes keep all processors busy
for some seconds, and rest for some. Pairs of designs are ordered where the 95 % interval of the
ratio of their latencies excludes 1. Reported, of all pairs:

- wrong: pairs that are ordered against the truth, of those that the truth orders.
- undecided: pairs that are not ordered, of those that the truth has at least 15 % apart.

For comparison, the same from one reading of each design (the first round), by the rule for readings
that were not taken in turns (`BETWEEN_READINGS`).
"""

import argparse
import multiprocessing
import os
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import combinations
from pathlib import Path
from typing import Any

from main_job import machine, show
from rich.console import Console

from evaluators.latency.readings import Reading, Readings
from evaluators.latency.turns import read_in_turns
from search_space.design.genotype import Genotype
from search_space.network.rewrites import NONE
from studies.config.settings import load_settings
from studies.paper.checks import timing_of
from studies.report.terminal import progress
from studies.results.outcome import DesignResult, Turns, Value
from studies.results.verdict import speed
from studies.study.context import load_space_of

APART = 1.15
"""Ratio of true latencies from which a pair should be ordered."""
BUSY_S = (1.0, 6.0)
"""Bounds of the seconds for which the load lasts, and for which it rests."""


def _keep_busy(seed: int) -> None:
    rng = random.Random(seed)
    while True:
        end = time.monotonic() + rng.uniform(*BUSY_S)
        while time.monotonic() < end:
            sum(range(10_000))
        time.sleep(rng.uniform(*BUSY_S))


@contextmanager
def load_that_comes_and_goes(seed: int) -> Iterator[None]:
    """One process a processor; all of them busy and idle at the same moments."""
    cores = os.cpu_count() or 1
    processes = [
        multiprocessing.Process(target=_keep_busy, args=(seed,), daemon=True) for _ in range(cores)
    ]
    for process in processes:
        process.start()
    try:
        yield
    finally:
        for process in processes:
            process.kill()


def drawn(count: int, seed: int, space: Any, key: Any) -> list[Genotype]:
    """Random designs whose graphs differ."""
    rng, found = random.Random(seed), dict[str, Genotype]()
    while len(found) < count:
        design = space.decode([rng.choice(each.choices) for each in space.decisions])
        if not space.violations(design):
            found.setdefault(key(design), design)
    return list(found.values())


def row(number: int, readings: Readings) -> DesignResult:
    """A design as a study holds it."""
    turns = Turns(1, readings)
    return DesignResult(number, "complete", "", latency=turns.latency, turns=turns)


def alone(number: int, reading: Reading | None) -> DesignResult:
    """The same of its first reading."""
    latency = reading and Value(reading.median_ms, reading.low_ms, reading.high_ms)
    return DesignResult(number, "complete", "", latency=latency)


def orders(rows: Sequence[DesignResult], truth: Sequence[DesignResult]) -> Mapping[str, int]:
    """Count pairs that are ordered wrongly, and pairs far apart that are not ordered."""
    found = {"ordered_by_truth": 0, "wrong": 0, "far_apart": 0, "undecided": 0}
    for a, b in combinations(range(len(rows)), 2):
        known, said = speed(truth[a], truth[b]), speed(rows[a], rows[b])
        if known is None or (true := _order(known)) == 0:
            continue
        order = 0 if said is None else _order(said)
        found["ordered_by_truth"] += 1
        found["wrong"] += order == -true
        if max(known.value, 1 / known.value) >= APART:
            found["far_apart"] += 1
            found["undecided"] += order == 0
    return found


def _order(ratio: Value) -> int:
    assert ratio.low is not None
    assert ratio.high is not None
    return (ratio.low > 1) - (ratio.high < 1)


def main() -> None:
    """Read the designs without and under the load, and write what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--designs", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--true-rounds", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    told = parser.parse_args()
    settings = load_settings("pareto", {"space": "demo", "weights": "random"})
    space = load_space_of(settings)
    with (
        progress(Console(stderr=True)) as reporter,
        timing_of(settings, space, 2, NONE, reporter) as latency,
    ):
        designs = drawn(told.designs, told.seed, space, latency.key)
        keys = [latency.key(design) for design in designs]
        true = read_in_turns(latency, designs, told.true_rounds)
        with load_that_comes_and_goes(told.seed):
            read = read_in_turns(latency, designs, told.rounds)
    truth = [row(k, true[key]) for k, key in enumerate(keys)]
    found = {
        "machine": machine(),
        "designs": len(designs),
        "rounds": told.rounds,
        "in turns": orders([row(k, read[key]) for k, key in enumerate(keys)], truth),
        "one reading": orders([alone(k, read[key][0]) for k, key in enumerate(keys)], truth),
        "true_ms": [t.latency and t.latency.value for t in truth],
        "true_cpu_ms": [[r and r.cpu_ms for r in true[key]] for key in keys],
        "readings_ms": [[r and r.median_ms for r in read[key]] for key in keys],
        "cpu_ms": [[r and r.cpu_ms for r in read[key]] for key in keys],
    }
    show(found, told.out)


if __name__ == "__main__":
    main()
