"""How close `fusion-nas plan` comes to a study that was run: utilisation of device and workers.

    python benchmarks/simulation.py [--trials 24] [--workers 2] [--out FILE]

Runs a study of the tests' tiny space with several worker processes that share this machine as their
one device, takes its recorded seconds, and simulates the same workers, device and trials, with
several seeds of the drawn durations. Measured: of the time from the first trial's begin to the last
one's end, the share in which a worker held the device, and in which workers did not wait for it.
Prints one JSON object.
"""

import argparse
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import optuna
from main_job import machine, show

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

from tiny import new_place

from studies.infra.storage import open_storage, quiet_optuna
from studies.results.trial_record import FINISHED, TrialRecord
from studies.simulation.case import ON_THE_DEVICE, QUEUEING, Case, seconds_of
from studies.simulation.simulate import simulate

SEEDS = 20


def run(folder: Path, trials: int, workers: int) -> optuna.Study:
    """A finished study. Raises SystemExit where its command failed."""
    place = new_place(folder)
    many = ("--trials", str(trials), "--workers", str(workers), "--sampler", "random")
    done = place.finish(place.run(*many, "--name", "measured"))
    if done.returncode:
        raise SystemExit(done.stderr)
    return optuna.load_study(storage=open_storage(place.url), study_name="measured")


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
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    quiet_optuna()
    about: dict[str, Any] = {"trials": given.trials, "workers": given.workers}
    about["machine"] = machine()
    with tempfile.TemporaryDirectory() as name:
        study = run(Path(name) / "place", given.trials, given.workers)
        real = measured(study, given.workers)
        model = simulated(study, given.trials, given.workers)
    over = {key: round(model[key] / real[key] - 1, 4) for key in real}
    show(
        {**about, "measured": real, "simulated": model, "simulated over measured": over}, given.out
    )


if __name__ == "__main__":
    main()
