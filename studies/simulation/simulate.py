"""Runs the search of a case in simulated time, and says what its stations did."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import optuna

from studies.report.progress import Silent
from studies.search.loop import Search
from studies.search.trial_index import TrialIndex
from studies.search.trial_runner import Evaluators, SearchTargets, TrialRunner
from studies.simulation.case import Case
from studies.simulation.engine import Engine, Station
from studies.simulation.parts import (
    PAIR,
    SPACE,
    Desk,
    NothingStored,
    SimulatedSampler,
    SimulatedStorage,
    SimulatedTiming,
    SimulatedTraining,
    SimulatedWorkers,
    World,
    quiet,
)

WHOLE_AT_MOST = 5_000
"""Trials up to which a study is simulated from its first trial to its last."""
TRIALS_A_WORKER = 4
"""Trials of each worker in a part of a longer study."""
NAME = "simulated"
SEED_STEP = 100_003
HANDS = "hands"


@dataclass(frozen=True)
class StationUse:
    """What one kind of station did while it was watched.

    Attributes:
        name: "boards", "database" or "asking".
        servers: of all its stations.
        utilisation: share of the time that its servers were held, 0 to 1.
        wait_s: mean seconds that a trial waited for it.
        held_s: mean seconds that a trial held it.
    """

    name: str
    servers: int
    utilisation: float
    wait_s: float
    held_s: float


@dataclass(frozen=True)
class Part:
    """A stretch of a study in simulated time.

    Attributes:
        before: trials that the study had when it began.
        trials: that ended while it was watched.
        seconds: simulated time of these.
        stations: by kind.
        working: share of the time that workers had a station or worked, 0 to 1; the rest they
            waited.
    """

    before: int
    trials: int
    seconds: float
    stations: tuple[StationUse, ...]
    working: float

    @property
    def trials_a_second(self) -> float:
        """Throughput."""
        return self.trials / self.seconds


@dataclass(frozen=True)
class Schedule:
    """A simulated case.

    Attributes:
        case: what was simulated.
        parts: one, of the whole study, or several of a long one: its begin, middle and end.
        seconds: from the first trial to the last; of a long study Simpson's rule over the parts.
        simulated: trials that were simulated.
    """

    case: Case
    parts: tuple[Part, ...]
    seconds: float
    simulated: int


def simulate(case: Case, seed: int = 0) -> Schedule:
    """Simulate a case, with the loop that runs real studies (`Search`, `TrialRunner`).

    The same case and seed give the same schedule. A study of over WHOLE_AT_MOST trials is simulated
    in three parts, at its begin, in its middle and at its end, each with all workers under way.
    """
    with quiet():
        if case.trials <= max(WHOLE_AT_MOST, 2 * TRIALS_A_WORKER * case.workers):
            part = _part(case, seed, 0, case.trials, whole=True)
            return Schedule(case, (part,), part.seconds, case.trials)
        length = max(WHOLE_AT_MOST // 3, TRIALS_A_WORKER * case.workers)
        begins = (0, (case.trials - length) // 2, case.trials - length)
        parts = tuple(
            _part(case, seed + k * SEED_STEP, before, length, whole=False)
            for k, before in enumerate(begins)
        )
    pace = [1 / part.trials_a_second for part in parts]
    seconds = case.trials * (pace[0] + 4 * pace[1] + pace[2]) / 6
    return Schedule(case, parts, seconds, length * len(parts))


def _part(case: Case, seed: int, before: int, trials: int, *, whole: bool) -> Part:
    """Simulate so many trials. A part that is not the whole study has no begin and no end.

    Its first third is not watched, in which workers that began at once come apart, and it stops
    while all of them work.
    """
    engine = Engine()
    world = World(case, engine, seed, before)
    storage = SimulatedStorage(world)
    optuna.create_study(storage=storage, study_name=NAME, directions=PAIR)
    sampler, index = SimulatedSampler(world), TrialIndex()
    evaluators = Evaluators(
        cast(Any, SimulatedTiming(world)), SimulatedTraining(world), cast(Any, NothingStored())
    )
    total = trials if whole else trials + case.workers

    def search(number: int) -> None:
        own = optuna.load_study(study_name=NAME, storage=storage)
        runner = TrialRunner(own, SPACE, evaluators, SearchTargets())
        workers = cast(Any, SimulatedWorkers(world, number))
        world.desks[engine.current] = Desk()
        Search(runner, workers, Silent(), lambda trial: sampler, index=index).run(total)

    for number in range(case.workers):
        engine.start(lambda number=number: search(number))  # type: ignore[misc]
    watched, over = engine.environment.event(), engine.environment.event()
    first = 0 if whole else trials // 3

    def on_end(ended: int) -> None:
        if ended == first and not watched.triggered:
            watched.succeed()
        if ended == trials and not over.triggered:
            over.succeed()

    world.on_end = on_end
    if first:
        engine.run(watched)
    begun = _Readings(world)
    engine.run(over)
    return begun.until_now(before, trials - first)


class _Readings:
    """What the stations had done when it was made."""

    def __init__(self, world: World) -> None:
        self._world, self._now_s = world, world.engine.now_s
        self._kinds: dict[str, Sequence[Station]] = {
            "boards": [world.boards],
            "asking": world.turns,
            HANDS: [world.hands],
        }
        if world.case.database_cores:
            self._kinds["database"] = [world.database]
        self._before = {name: self._sums(stations) for name, stations in self._kinds.items()}

    def until_now(self, before: int, trials: int) -> Part:
        """What they have done since."""
        world, seconds = self._world, self._world.engine.now_s - self._now_s
        found, held_s = [], 0.0
        for name, stations in self._kinds.items():
            busy, waited = (
                now - then
                for now, then in zip(self._sums(stations), self._before[name], strict=True)
            )
            held_s += busy if name != "asking" else 0.0  # a worker that asks works meanwhile
            if name != HANDS:
                servers = sum(station.servers for station in stations)
                share = busy / (servers * seconds) if seconds else 0.0
                found.append(StationUse(name, servers, share, waited / trials, busy / trials))
        working = held_s / (world.case.workers * seconds) if seconds else 0.0
        return Part(before, trials, seconds, tuple(found), min(1.0, working))

    @staticmethod
    def _sums(stations: Sequence[Station]) -> tuple[float, float]:
        return sum(s.busy_s() for s in stations), sum(s.waited_s for s in stations)
