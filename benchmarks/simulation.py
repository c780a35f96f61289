"""How close `fusion-nas plan` comes to a study that was run: utilisation of device and workers.

    python benchmarks/simulation.py [--trials 24] [--workers 2] [--out FILE]

Runs a study of the tests' tiny space with several worker processes that share this machine as their
one device, takes its recorded seconds, and simulates the same workers, device and trials, with
several seeds of the drawn durations. Measured: of the time from the first trial's begin to the last
one's end, the share in which a worker held the device, and in which workers did not wait for it.
With --sleeping, evaluators sleep for drawn seconds in place of building, timing and training, and
the workers are threads: loop, storage, locks and records are real, and other work on the machine
disturbs less. Prints one JSON object.
"""

import argparse
import random
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import optuna
from main_job import machine, show

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

from tiny import new_place

from evaluators.evaluation import Evaluation, Measure, content_key
from evaluators.store import EvaluationStore
from search_space.design.genotype import Genotype
from search_space.locks import NamedLock
from studies.infra.storage import open_storage, quiet_optuna
from studies.infra.workers import Workers
from studies.report.progress import Silent
from studies.results.objectives import Goals
from studies.results.trial_record import FINISHED, TrialRecord
from studies.samplers.registry import sampler_maker
from studies.search.loop import Search
from studies.search.trial_runner import Evaluators, SearchTargets, TrialRunner
from studies.simulation.case import ON_THE_DEVICE, QUEUEING, Case, seconds_of
from studies.simulation.parts import SPACE
from studies.simulation.simulate import simulate
from studies.study.identity import directions_of

SEEDS = 10


def run(folder: Path, trials: int, workers: int) -> optuna.Study:
    """A finished study. Raises SystemExit where its command failed."""
    place = new_place(folder)
    many = ("--trials", str(trials), "--workers", str(workers), "--sampler", "random")
    done = place.finish(place.run(*many, "--name", "measured"))
    if done.returncode:
        raise SystemExit(done.stderr)
    return optuna.load_study(storage=open_storage(place.url), study_name="measured")


class Sleeping:
    """An evaluator that sleeps; timing holds the one device."""

    def __init__(self, kind: str, measure: str, lock: Path, seed: int) -> None:
        self._kind, self._measure, self._lock = kind, measure, NamedLock(lock)
        self._rng = random.Random(seed)

    def key(self, genotype: Genotype) -> str:
        """Of the evaluation alone: no design finds the figure of another."""
        return content_key(self._kind, {"draw": self._rng.random()})

    def evaluate(self, genotype: Genotype) -> Evaluation:
        """A figure that says nothing, after some seconds."""
        details: dict[str, Any] = {"fidelity": "asleep"}
        if self._kind == "latency":
            begun = time.perf_counter()
            with self._lock:
                details["queue_s"] = time.perf_counter() - begun
                time.sleep(self._rng.uniform(0.5, 1.5))
        else:
            time.sleep(self._rng.uniform(0.5, 2.5))
        measure = Measure(self._measure, 1.0 + self._rng.random(), "")
        return Evaluation(self.key(genotype), self._kind, (measure,), details)


def run_sleeping(folder: Path, trials: int, workers: int) -> optuna.Study:
    """A finished study of workers that sleep."""
    folder.mkdir()
    url = f"sqlite:///{folder / 'studies.db'}"
    directions = directions_of(Goals())
    optuna.create_study(storage=open_storage(url), study_name="measured", directions=directions)

    def work(number: int) -> None:
        study = optuna.load_study(storage=open_storage(url), study_name="measured")
        latency: Any = Sleeping("latency", "latency_ms", folder / "device.lock", 2 * number)
        quality: Any = Sleeping("quality", "accuracy", folder / "unused.lock", 2 * number + 1)
        store = EvaluationStore(folder / f"evaluations-{number}.jsonl")
        runner = TrialRunner(study, SPACE, Evaluators(latency, quality, store), SearchTargets())
        own = Workers(folder / "workers")
        Search(runner, own, Silent(), sampler_maker("random", 0, SPACE)).run(trials)
        own.close()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return optuna.load_study(storage=open_storage(url), study_name="measured")


def measured(study: optuna.Study, workers: int) -> dict[str, float]:
    """Seconds of the study, and the shares of them in which device and workers were busy."""
    trials = [t for t in study.get_trials(deepcopy=False) if t.state in FINISHED]
    begun = min(t.datetime_start for t in trials if t.datetime_start)
    ended = max(t.datetime_complete for t in trials if t.datetime_complete)
    seconds = (ended - begun).total_seconds()
    device = busy = 0.0
    for trial in trials:
        stages = TrialRecord.of(trial).result.seconds
        device += sum(stages.get(name, 0.0) for name in ON_THE_DEVICE)
        took = trial.duration.total_seconds() if trial.duration else 0.0
        busy += took - stages.get(QUEUEING, 0.0)
    return {
        "seconds": round(seconds, 2),
        "device": round(device / seconds, 4),
        "workers": round(busy / (workers * seconds), 4),
    }


def simulated(study: optuna.Study, trials: int, workers: int) -> dict[str, float]:
    """The same figures of simulations: medians over the seeds of the drawn durations."""
    case = Case(trials, workers, seconds_of(study), "the study")
    found: list[dict[str, float]] = []
    for seed in range(SEEDS):
        (part,) = simulate(case, seed).parts
        device = next(each for each in part.stations if each.name == "boards")
        found.append(
            {"seconds": part.seconds, "device": device.utilisation, "workers": part.working}
        )
    return {key: round(statistics.median(each[key] for each in found), 4) for key in found[0]}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--sleeping", action="store_true")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    quiet_optuna()
    about: dict[str, Any] = {"trials": given.trials, "workers": given.workers}
    about["evaluators"] = "sleeping" if given.sleeping else "real"
    about["machine"] = machine()
    with tempfile.TemporaryDirectory() as name:
        run_study = run_sleeping if given.sleeping else run
        study = run_study(Path(name) / "place", given.trials, given.workers)
        real = measured(study, given.workers)
        model = simulated(study, given.trials, given.workers)
    over = {key: round(model[key] / real[key] - 1, 4) for key in real}
    show(
        {**about, "measured": real, "simulated": model, "simulated over measured": over}, given.out
    )


if __name__ == "__main__":
    main()
