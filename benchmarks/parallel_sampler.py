"""How much a sampler loses where several workers ask it at once: hypervolume at equal trials.

    python benchmarks/parallel_sampler.py [--workers 8] [--trials 64] [--seeds 20] [--out FILE]

Studies of the table that comes with the toolkit, each with one worker and with several. A trial
takes its training time of the table and a second; who ends first asks first, so that a proposal is
made while the designs of the others are evaluated. Samplers are given the accuracy of one training
seed, and the hypervolume is that of the means, as in `samplers.py`. Prints one JSON object: for
each sampler the median over seeds of both, and of their ratio.
"""

import argparse
import heapq
import time
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from main_job import machine, show

from studies.results.objectives import Goals
from studies.samplers.registry import SAMPLERS, distributions, sampler_maker
from studies.study.identity import directions_of
from studies.table.table import Table, load_table


def volume_of(table: Table, sampler: str, seed: int, workers: int, trials: int) -> dict[str, float]:
    """The share of the front's hypervolume that a study of so many workers finds."""
    rng = np.random.default_rng(seed)
    count, seeds = table.accuracy.shape
    told = table.accuracy[np.arange(count), rng.integers(seeds, size=count)]
    make, asked = sampler_maker(sampler, seed, table.space), distributions(table.space)
    study = optuna.create_study(directions=directions_of(Goals()), sampler=make(0))
    rows: list[int] = []
    free = [(0.0, worker) for worker in range(min(workers, trials))]
    in_hand: dict[int, tuple[optuna.Trial, int]] = {}
    begun, asking_s = 0, 0.0
    while free:
        now, worker = heapq.heappop(free)
        if worker in in_hand:
            trial, row = in_hand.pop(worker)
            study.tell(trial, [float(told[row]), float(table.latency[row])])
            rows.append(row)
        if begun == trials:
            continue
        study.sampler = make(begun)
        begun += 1
        start = time.perf_counter()
        trial = study.ask(asked)
        asking_s += time.perf_counter() - start
        row = table.row(trial.params)
        in_hand[worker] = trial, row
        heapq.heappush(free, (now + 1.0 + float(table.training_s[row]), worker))
    return {
        "share": table.volume(rows),
        "above_lowest": table.volume(rows, float(table.mean.min())),
        "different": len(set(rows)),
        "asking_s": asking_s / trials,
    }


def compared(table: Table, sampler: str, seeds: int, workers: int, trials: int) -> dict[str, Any]:
    """Medians over seeds of one worker, of several, and of the ratio of the two."""
    runs: dict[int, list[dict[str, float]]] = {1: [], workers: []}
    for seed in range(seeds):
        for count, found in runs.items():
            found.append(volume_of(table, sampler, seed, count, trials))
    entry: dict[str, Any] = {"sampler": sampler, "seeds": seeds}
    for count, found in runs.items():
        name = "serial" if count == 1 else f"{count} workers"
        entry[name] = {key: round(float(np.median([f[key] for f in found])), 4) for key in found[0]}
    for key in ("share", "above_lowest"):
        ratios = [b[key] / a[key] for a, b in zip(runs[1], runs[workers], strict=True)]
        low, middle, high = (round(float(q), 4) for q in np.quantile(ratios, (0.0, 0.5, 1.0)))
        entry[f"{key}: parallel over serial"] = {"least": low, "median": middle, "most": high}
    return entry


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--trials", type=int, default=64)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--sampler", choices=sorted(SAMPLERS), action="append")
    parser.add_argument("--table", type=Path)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    table = load_table(given.table)
    entries = [
        compared(table, sampler, given.seeds, given.workers, given.trials)
        for sampler in given.sampler or ["ehvi", "random"]
    ]
    about = {"trials": given.trials, "workers": given.workers, "machine": machine()}
    show({**about, "samplers": entries}, given.out)


if __name__ == "__main__":
    main()
