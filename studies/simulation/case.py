"""What is simulated: workers, hosts, boards, a database, and how long the parts of a trial take."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import optuna
from optuna.trial import TrialState

from search_space.errors import USAGE, FusionNasError
from studies.results.text import counted
from studies.results.trial_record import FINISHED, TrialRecord

LEAST_TRIALS = 5
"""Finished trials with their stages from which durations are taken."""
ON_THE_DEVICE = ("compiling", "timing")
"""Stages in which a design has the device; before them it is built, after them it is trained."""
QUEUEING = "queueing"
"""Recorded as a stage, and left out: a simulation makes its own queues."""
GIVEN = ("asking", "building", "timing", "training")


class SimulationError(FusionNasError):
    """A schedule cannot be simulated; the text names the value."""

    exit_code = USAGE


@dataclass(frozen=True)
class TrialSeconds:
    """Seconds of one trial, by what it occupies.

    Attributes:
        asking: sampler and storage, while no other worker of the home can ask.
        building: the worker, before the design is timed.
        timing: worker and device, compiling included.
        training: the worker, after the design was timed; None where it was not trained.
    """

    asking: float
    building: float
    timing: float
    training: float | None


@dataclass(frozen=True)
class DatabaseCosts:
    """Seconds of the database's processor, and of the worker's, for what a trial reads and writes.

    Attributes:
        call_s: of the database, for one statement that reads or writes one trial.
        load_s: of the database, for each trial that a reading of the study sends: those that run,
            and those that ended since the worker's last reading.
        worker_s: of the worker, for each trial that it gets.
    """

    call_s: float
    load_s: float
    worker_s: float


FREE = DatabaseCosts(call_s=0.0, load_s=0.0, worker_s=0.0)
OF_THE_DATABASE = ("cores", "call", "load", "reading")


@dataclass(frozen=True)
class Case:
    """A study to be simulated.

    Attributes:
        trials: its total.
        workers: all of them; they begin at once.
        seconds: trials whose seconds are drawn, each as often.
        source: where these are from, in words.
        hosts: workers of one host share a home, and take turns to ask for a trial.
        boards: alike devices, first come, first served.
        database_cores: processors of the database; 0 where it takes no time of its own.
        costs: what the database does for a trial.
        asking_growth_s: seconds by which asking takes longer for each 1,000 trials of the study.
    """

    trials: int
    workers: int
    seconds: Sequence[TrialSeconds]
    source: str
    hosts: int = 1
    boards: int = 1
    database_cores: int = 0
    costs: DatabaseCosts = field(default=FREE)
    asking_growth_s: float = 0.0

    def __post_init__(self) -> None:
        for name in ("trials", "workers", "hosts", "boards"):
            if getattr(self, name) < 1:
                raise SimulationError(f"--{name} {getattr(self, name)}: give 1 or more")
        if self.hosts > self.workers:
            raise SimulationError(
                f"--hosts {self.hosts}: more than {counted(self.workers, 'worker')}; give fewer "
                "hosts or more --workers"
            )
        if self.asking_growth_s < 0:
            raise SimulationError(f"--asking-growth {self.asking_growth_s:g}: give 0 or more")


def seconds_of(study: optuna.Study) -> list[TrialSeconds]:
    """The seconds of a study's finished trials, one entry a trial.

    Asking is what no stage accounts for. A trial without recorded stages is left out, unless all of
    its results were cached: then it took only its asking.

    Raises SimulationError where under LEAST_TRIALS have their stages.
    """
    found, recorded = [], 0
    for trial in study.get_trials(deepcopy=False):
        if trial.state not in FINISHED or trial.duration is None:
            continue
        record = TrialRecord.of(trial)
        stages = dict(record.result.seconds)
        attempts = record.attempts or 0
        if record.again or attempts > 1:  # its span holds the time of a worker that ended
            continue
        recorded += bool(stages)
        asking = max(0.0, trial.duration.total_seconds() - sum(stages.values()))
        stages.pop(QUEUEING, 0.0)
        building = stages.pop("building", 0.0)
        timing = sum(stages.pop(name, 0.0) for name in ON_THE_DEVICE)
        trained = trial.state is TrialState.COMPLETE or record.result.training is not None
        after = sum(stages.values()) if trained else None
        found.append(TrialSeconds(asking, building, timing, after))
    if recorded < LEAST_TRIALS:
        raise SimulationError(
            f"study {study.study_name!r}: the stages of {counted(recorded, 'finished trial')} are "
            f"recorded, and durations need {LEAST_TRIALS}",
            "name another study, or give --seconds building=S, timing=S and training=S",
        )
    return found


def given_database(values: Mapping[str, float]) -> tuple[int, DatabaseCosts]:
    """(cores, costs) of a database, as given by name; no cores where nothing is given.

    Raises SimulationError.
    """
    for name, value in values.items():
        if name not in OF_THE_DATABASE:
            raise SimulationError(
                f"--database {name}={value:g}: choose of {', '.join(OF_THE_DATABASE)}"
            )
        if not 0 <= value < float("inf"):
            raise SimulationError(f"--database {name}={value:g}: give 0 or more")
    cores = values.get("cores", 1.0 if values else 0.0)
    if values and (cores < 1 or cores != int(cores)):
        raise SimulationError(f"--database cores={cores:g}: give 1 or more")
    costs = DatabaseCosts(*(values.get(name, 0.0) for name in OF_THE_DATABASE[1:]))
    return int(cores), costs


def given_seconds(values: Mapping[str, float]) -> TrialSeconds:
    """The seconds of every trial, as given by name. Raises SimulationError."""
    for name, value in values.items():
        if name not in GIVEN:
            raise SimulationError(f"--seconds {name}={value:g}: choose of {', '.join(GIVEN)}")
        if not 0 <= value < float("inf"):
            raise SimulationError(f"--seconds {name}={value:g}: give seconds of 0 or more")
    if not any(values.values()):
        raise SimulationError("--seconds: a trial that takes no time; give seconds above 0")
    training = values.get("training", 0.0)
    return TrialSeconds(
        values.get("asking", 0.0), values.get("building", 0.0), values.get("timing", 0.0), training
    )
