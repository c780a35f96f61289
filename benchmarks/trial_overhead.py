"""What a trial costs beside building, timing and training: asking, decoding, looking up, telling.

Runs a study of the `demo` space twice on SQLite with evaluations that cost nothing; the second
time every one of them is in the store already. Prints JSON, milliseconds a trial.

    python benchmarks/trial_overhead.py [--trials 100] [--sampler tpe]
"""

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import optuna

from evaluators.evaluation import Evaluation, Measure, content_key
from evaluators.store import EvaluationStore
from search_space.genotype import Genotype
from search_space.named import load_space
from studies.identity import DIRECTIONS
from studies.samplers import SAMPLERS, sampler_maker
from studies.search import Search
from studies.storage import open_storage, quiet_optuna
from studies.workers import Workers


class _Free:
    """An evaluator whose one measure is drawn from the design's key."""

    def __init__(self, kind: str, measure: str, unit: str) -> None:
        self._kind, self._measure, self._unit = kind, measure, unit

    def key(self, genotype: Genotype) -> str:
        return content_key(self._kind, {"genotype": genotype.key})

    def evaluate(self, genotype: Genotype) -> Evaluation:
        value = 1.0 + int(self.key(genotype)[:6], 16) % 9000 / 100
        measure = Measure(self._measure, value, self._unit)
        details = {"fidelity": "none", "fusion_epochs": [1, 1], "right": ["01" * 114 + "0"]}
        return Evaluation(self.key(genotype), self._kind, (measure,), details)


class _Clock:
    """A reporter that notes when each trial ended."""

    def __init__(self) -> None:
        self.times = [time.perf_counter()]

    def trial(self, done: int, total: int, text: str) -> None:
        self.times.append(time.perf_counter())

    def line(self, text: str) -> None: ...


def measure(folder: Path, trials: int, sampler: str) -> list[float]:
    """Milliseconds of each trial of a study whose evaluations are all known."""
    quiet_optuna()
    space = load_space("demo")
    storage = open_storage(f"sqlite:///{folder / 'studies.db'}")
    store = EvaluationStore(folder / "evaluations.jsonl")
    latency: Any = _Free("latency", "latency_ms", "ms")
    quality: Any = _Free("quality", "accuracy", "%")
    clock = _Clock()
    for name in ("new", "known"):
        study = optuna.create_study(storage=storage, study_name=name, directions=DIRECTIONS)
        workers, clock = Workers(folder / "workers"), _Clock()
        draw = sampler_maker(sampler, 0, space)
        Search(study, space, latency, quality, store, workers, None, clock, draw).run(trials)
        workers.close()
    return [1000 * (b - a) for a, b in zip(clock.times, clock.times[1:], strict=False)]


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--sampler", choices=sorted(SAMPLERS), default="tpe")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        ms = measure(Path(folder), given.trials, given.sampler)
    deciles = statistics.quantiles(ms, n=10)
    found = {
        "what": "ms a trial beside building, timing and training",
        "sampler": given.sampler,
        "trials": given.trials,
        "median_ms": round(statistics.median(ms), 2),
        "p90_ms": round(deciles[-1], 2),
        "last_tenth_median_ms": round(statistics.median(ms[-max(1, len(ms) // 10) :]), 2),
        "machine": {
            "processor": platform.machine(),
            "cores": os.cpu_count(),
            "system": platform.system(),
            "python": platform.python_version(),
            "optuna": version("optuna"),
        },
    }
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
