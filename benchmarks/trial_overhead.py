"""What a trial costs beside building, timing and training, whose cost it is, and how it grows.

Runs a study of the `demo` space on SQLite with evaluations that cost nothing and are as long as
real ones. CPU time, so that other work and the disk's pace do not count, is charged to whoever
spends it: `own` is this toolkit (with what Optuna's study and trial do between its calls),
`sampler` and `storage` are Optuna's, whoever called them. Of each, and of all together, it gives
the median of the 100 trials before a point, in ms, and the process's resident memory at that
point. Every sampler has a process and a study of its own. Trials between the hundreds that are
measured are drawn by chance and written to storage and store as they would have been left there;
`--every` runs them too, which takes several times as long. `--in-memory` takes Optuna's storage in
memory, by far the quicker one, for a look at `own` and `sampler`. Prints one JSON object;
`--out FILE` keeps it.

    python benchmarks/trial_overhead.py [--at 100 5000] [--sampler random --sampler tpe] [--every]
"""

import argparse
import multiprocessing
import os
import random
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
from evaluators.store import EvaluationStore, known_or_new
from search_space.design.genotype import Genotype
from search_space.space.named import load_space
from studies.infra.storage import open_storage, quiet_optuna
from studies.infra.workers import Workers
from studies.results.objectives import Goals
from studies.results.trial_record import TrialRecord, TrialResult
from studies.samplers.registry import SAMPLERS, distributions, sampler_maker
from studies.search.loop import Search
from studies.search.trial_runner import Evaluators, SearchTargets, TrialRunner
from studies.study.identity import directions_of

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
    """A reporter that notes what each trial was spent on."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self.trials: list[Counter[str]] = []

    def trial(self, done: int, total: int, text: str) -> None:
        self._meter.settle()
        self.trials.append(self._meter.spent.copy())
        self._meter.spent.clear()

    def step(self, what: str, done: int, total: int) -> None: ...

    def line(self, text: str) -> None: ...


class Grown:
    """A study that costs nothing but its own overhead, and what was spent on its trials."""

    def __init__(self, sampler: str, folder: Path, url: str) -> None:
        self._meter, self._space = Meter(), load_space("demo")
        self.readings = Readings(self._meter)
        self._latency: Any = Free("latency", "latency_ms", "ms", READINGS)
        self._quality: Any = Free("quality", "accuracy", "%")
        storage = open_storage(url) if url else optuna.storages.InMemoryStorage()
        self.study = optuna.create_study(storage=storage, directions=directions_of(Goals()))
        self._meter.charge_all("storage", self.study._storage)
        self._store = EvaluationStore(folder / "evaluations.jsonl")
        make = sampler_maker(sampler, 0, self._space)

        def draw(number: int) -> optuna.samplers.BaseSampler:
            made: optuna.samplers.BaseSampler = self._meter.charge_all("sampler", make(number))
            return made

        evaluators = Evaluators(self._latency, self._quality, self._store)
        runner = TrialRunner(self.study, self._space, evaluators, SearchTargets())
        workers, charged = Workers(folder / "workers"), self._meter.charge("sampler", draw)
        self._search = Search(runner, workers, self.readings, charged)

    def run(self, total: int) -> None:
        """Goes on to so many trials."""
        self._meter.settle()
        self._meter.spent.clear()
        self._search.run(total)

    def write(self, total: int) -> None:
        """Writes trials of drawn designs until there are so many."""
        chance, asked = random.Random(total), distributions(self._space)
        for _ in range(total - len(self.study.get_trials(deepcopy=False))):
            vector = [chance.choice(decision.choices) for decision in self._space.decisions]
            design = self._space.decode(vector)
            latency, _ = known_or_new(self._store, self._latency, design)
            quality, _ = known_or_new(self._store, self._quality, design)
            result = TrialResult(design, design.key).with_evaluations(latency, quality)
            record = TrialRecord(design=design.describe(), result=result)
            trial = optuna.trial.create_trial(
                params=dict(zip(asked, vector, strict=True)),
                distributions=asked,
                values=[quality["accuracy"].value, latency["latency_ms"].value],
                user_attrs=record.to_attributes(),
            )
            self.study.add_trial(trial)


def grow(sampler: str, points: list[int], every: bool, in_memory: bool) -> dict[str, Any]:
    """A study of as many trials as the last point, and what a trial costs at each."""
    quiet_optuna()
    ms, resident_mb = {}, {}
    with tempfile.TemporaryDirectory() as name:
        url = "" if in_memory else f"sqlite:///{name}/studies.db"
        grown = Grown(sampler, Path(name), url)
        for point in points:
            if not every:
                grown.write(point - WINDOW)
            grown.run(point)
            ms[point] = cost(grown.readings.trials)
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            resident_mb[point] = round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, 1)
        results = [TrialRecord.of(t).result for t in grown.study.get_trials(deepcopy=False)]
    first, last = ms[min(ms)], ms[max(ms)]
    return {
        "sampler": sampler,
        "storage": "memory" if in_memory else "SQLite",
        "trials": len(results),
        "of_them_run": len(grown.readings.trials),
        "distinct_designs": len({result.key for result in results if result.key}),
        "ms_a_trial_at": {str(point): costs for point, costs in ms.items()},
        "last_over_first": {part: round(last[part] / first[part], 2) for part in last},
        "resident_mb_at": {str(point): mb for point, mb in resident_mb.items()},
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
    parser.add_argument("--at", type=int, nargs="+", default=POINTS, metavar="TRIALS")
    parser.add_argument("--sampler", choices=sorted(SAMPLERS), action="append")
    parser.add_argument("--every", action="store_true")
    parser.add_argument("--in-memory", action="store_true")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    about, grown = machine(), []
    for sampler in given.sampler or ["random", "tpe"]:
        with multiprocessing.get_context("spawn").Pool(1) as alone:
            how = (sampler, sorted(given.at), given.every, given.in_memory)
            grown.append(alone.apply(grow, how))
    what = f"CPU ms a trial beside building, timing and training: medians of {WINDOW} trials"
    show({"what": what, "samplers": grown, "machine": about}, given.out)


if __name__ == "__main__":
    main()
