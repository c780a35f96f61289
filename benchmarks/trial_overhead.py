"""What a trial costs beside building, timing and training, whose cost it is, and how it grows.

Runs a study of the `demo` space on SQLite with evaluations that cost nothing and are as long as
real ones. CPU time, so that other work and the disk's pace do not count, is charged to whoever
spends it: `own` is this toolkit (with what Optuna's study and trial do between its calls),
`sampler` and `storage` are Optuna's, whoever called them. Of each, and of all together, it gives
the median of the 100 trials before a point, in ms, and the process's resident memory at that
point. Every sampler has a process and a study of its own. Prints one JSON object; `--out FILE`
keeps it.

    python benchmarks/trial_overhead.py [--trials 5000] [--sampler random --sampler tpe]
"""

import argparse
import multiprocessing
import os
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
from main_job import machine, show

from evaluators.evaluation import Evaluation, Measure, content_key
from evaluators.store import EvaluationStore
from search_space.genotype import Genotype
from search_space.named import load_space
from studies.identity import DIRECTIONS
from studies.samplers import SAMPLERS, sampler_maker
from studies.search import Search
from studies.storage import open_storage, quiet_optuna
from studies.workers import Workers

POINTS = (100, 500, 1000, 2000, 5000)
WINDOW = 100
PARTS = ("own", "sampler", "storage")
READINGS = 400
"""Runs of which a latency's evaluation keeps the time; of local agents 300 to 700."""


class Free:
    """An evaluator whose one measure is drawn from the design's key."""

    def __init__(self, kind: str, measure: str, unit: str, readings: int = 0) -> None:
        self._kind, self._measure, self._unit = kind, measure, unit
        self._readings = readings

    def key(self, genotype: Genotype) -> str:
        return content_key(self._kind, {"genotype": genotype.key})

    def evaluate(self, genotype: Genotype) -> Evaluation:
        value = 1.0 + int(self.key(genotype)[:6], 16) % 9000 / 100
        measure = Measure(self._measure, value, self._unit)
        details = {
            "fidelity": "none",
            "fusion_epochs": [1, 1],
            "right": ["01" * 114 + "0"],
            "samples_ms": [value + k / 3 for k in range(self._readings)],
        }
        return Evaluation(self.key(genotype), self._kind, (measure,), details)


class Meter:
    """Charges CPU time to the innermost of the calls that are under way."""

    def __init__(self) -> None:
        self.spent: Counter[str] = Counter()
        self._working, self._since = ["own"], time.process_time()

    def settle(self) -> None:
        """Charges what was spent until now."""
        now = time.process_time()
        self.spent[self._working[-1]] += now - self._since
        self._since = now

    def charge(self, part: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """The same call, charged to a part."""

        def charged(*given: Any, **named: Any) -> Any:
            self.settle()
            self._working.append(part)
            try:
                return call(*given, **named)
            finally:
                self.settle()
                self._working.pop()

        return charged

    def charge_all(self, part: str, thing: Any) -> Any:
        """The same object, every public method of it charged to a part."""
        for name in dir(thing):
            if not name.startswith("_") and callable(method := getattr(thing, name)):
                setattr(thing, name, self.charge(part, method))
        return thing


class Readings:
    """A reporter that notes what each trial was spent on, and the memory at points."""

    def __init__(self, meter: Meter, points: tuple[int, ...]) -> None:
        self._meter, self._points = meter, points
        self.trials: list[Counter[str]] = []
        self.resident_mb: dict[int, float] = {}

    def trial(self, done: int, total: int, text: str) -> None:
        self._meter.settle()
        self.trials.append(self._meter.spent.copy())
        self._meter.spent.clear()
        if len(self.trials) in self._points:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            self.resident_mb[len(self.trials)] = pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    def line(self, text: str) -> None: ...


def grow(sampler: str, trials: int) -> dict[str, Any]:
    """A study of so many trials, and what a trial costs at each point."""
    quiet_optuna()
    meter, space = Meter(), load_space("demo")
    readings = Readings(meter, (*(p for p in POINTS if p < trials), trials))
    latency: Any = Free("latency", "latency_ms", "ms", READINGS)
    quality: Any = Free("quality", "accuracy", "%")
    make = sampler_maker(sampler, 0, space)

    def draw(number: int) -> optuna.samplers.BaseSampler:
        made: optuna.samplers.BaseSampler = meter.charge_all("sampler", make(number))
        return made

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        storage = open_storage(f"sqlite:///{folder / 'studies.db'}")
        study = optuna.create_study(storage=storage, directions=DIRECTIONS)
        meter.charge_all("storage", study._storage)
        workers, store = Workers(folder / "workers"), EvaluationStore(folder / "evaluations.jsonl")
        drawn = meter.charge("sampler", draw)
        Search(study, space, latency, quality, store, workers, None, readings, drawn).run(trials)
        workers.close()
        records = [t.user_attrs.get("record", {}) for t in study.get_trials(deepcopy=False)]
    at = {point: cost(readings.trials[:point]) for point in readings.resident_mb}
    first, last = at[min(at)], at[max(at)]
    return {
        "sampler": sampler,
        "trials": len(readings.trials),
        "distinct_designs": len({record["key"] for record in records if "key" in record}),
        "ms_a_trial_at": {str(point): costs for point, costs in at.items()},
        "last_over_first": {part: round(last[part] / first[part], 2) for part in ("own", "all")},
        "resident_mb_at": {str(p): round(mb, 1) for p, mb in readings.resident_mb.items()},
    }


def cost(trials: list[Counter[str]]) -> dict[str, float]:
    """Median ms of each part, and of all together, over the last WINDOW of these trials."""
    window = trials[-WINDOW:]
    whole = {part: [spent[part] for spent in window] for part in PARTS}
    whole["all"] = [spent.total() for spent in window]
    return {part: round(1000 * statistics.median(seconds), 2) for part, seconds in whole.items()}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=5000)
    parser.add_argument("--sampler", choices=sorted(SAMPLERS), action="append")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    about, grown = machine(), []
    for sampler in given.sampler or ["random", "tpe"]:
        with multiprocessing.get_context("spawn").Pool(1) as alone:
            grown.append(alone.apply(grow, (sampler, given.trials)))
    what = f"CPU ms a trial beside building, timing and training: medians of {WINDOW} trials"
    show({"what": what, "samplers": grown, "machine": about}, given.out)


if __name__ == "__main__":
    main()
