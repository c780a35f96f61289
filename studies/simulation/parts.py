"""What stands for the world in a simulation: evaluators, storage, homes and a sampler.

`Search` and `TrialRunner` are the ones that run a real study. What they call is replaced: each part
lets simulated time pass for the worker that calls, on the station that the real one would occupy.
"""

import random
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.storages import InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from evaluators.evaluation import Evaluation, Measure
from search_space.design.encoder import EncoderShape, EncoderSpec
from search_space.design.genotype import Genotype
from search_space.space.space import SearchSpace
from studies.samplers.registry import distributions
from studies.simulation.case import Case, TrialSeconds
from studies.simulation.engine import Engine, Station

INFEASIBLE = "as recorded: timed and not trained"
SPACE = SearchSpace(
    name="simulated",
    encoders=(
        EncoderSpec("text", "text", "transformers", "simulated"),
        EncoderSpec("vision", "vision", "timm", "simulated"),
    ),
    shapes={
        "text": EncoderShape("text", "text", (8, 8, 8, 8), max_tokens=16),
        "vision": EncoderShape("vision", "vision", (8, 8, 8, 8), ((2, 2),) * 4, image_size=8),
    },
    text_tokens=(8, 16),
    fusion_points=(1, 3),
    operators=("concatenation", "gated"),
    widths=(0, 8),
    attention_blocks=(0, 2),
    attention_over=("pooled", "tokens"),
    text_poolings=("cls", "mean"),
    vision_poolings=("mean", "max"),
    precisions=("fp32", "int8"),
)
"""What simulated trials decide, as many decisions as in a space that users search."""
DESIGNS = 64
"""Designs that simulated trials name; what they are decides nothing."""


class Desk:
    """The trial of one worker: its seconds, and its place in the draw."""

    def __init__(self) -> None:
        self.trial = ""
        self.seconds = TrialSeconds(0.0, 0.0, 0.0, None)
        self.seen = 0
        """Ended trials that the worker has read."""
        self.database_s = self.reading_s = 0.0
        """Owed for statements: seconds of the database, and of the worker that reads trials."""


class World:
    """The stations of a case, and the trials of its workers."""

    def __init__(self, case: Case, engine: Engine, seed: int, before: int) -> None:
        """`before`: trials that the study already has."""
        self.case, self.engine, self.before = case, engine, before
        self.boards = Station(engine, case.boards)
        self.database = Station(engine, max(1, case.database_cores))
        self.turns = [Station(engine, 1) for _ in range(case.hosts)]
        self.hands = Station(engine, case.workers)
        """Each worker's own: none waits for it."""
        self.desks: dict[Any, Desk] = {}
        self.ended = 0
        self.begun = 0
        self.on_end: Callable[[int], None] = lambda ended: None
        self._rng = random.Random(seed)
        self._undrawn: list[TrialSeconds] = []
        engine.before_waiting = self._pay

    @property
    def desk(self) -> Desk:
        """Of the worker that runs."""
        return self.desks[self.engine.current]

    def draw(self) -> None:
        """Draw the seconds of the trial that the running worker begins.

        All of the case come once, in a drawn order, before any comes again.
        """
        if not self._undrawn:
            self._undrawn = list(self.case.seconds)
            self._rng.shuffle(self._undrawn)
        self.begun += 1
        desk = self.desk
        desk.trial, desk.seconds = f"drawn {self.begun}", self._undrawn.pop()

    def work(self, seconds: float) -> None:
        """Let the running worker work for so long, on nothing that is shared."""
        self.hands.use(seconds)

    def charge(self, sent: int = 0) -> None:
        """Charge for a statement, and for trials that it sends: paid before the worker next waits.

        The simulated time of a study's many small statements passes at once.
        """
        costs = self.case.costs
        desk = self.desks.get(self.engine.current)
        if desk is not None and self.case.database_cores:
            desk.database_s += costs.call_s + costs.load_s * sent
            desk.reading_s += costs.worker_s * sent

    def _pay(self) -> None:
        desk = self.desks.get(self.engine.current)
        if desk is None:
            return
        database_s, reading_s = desk.database_s, desk.reading_s
        desk.database_s = desk.reading_s = 0.0
        if database_s > 0:
            self.database.use(database_s)
        if reading_s > 0:
            self.hands.use(reading_s)


class SimulatedTiming:
    """Timing that takes the seconds of the worker's trial: building, then a board."""

    def __init__(self, world: World) -> None:
        self._world = world

    def key(self, genotype: Genotype) -> str:
        """Of the trial, so that none finds the reading of another."""
        return f"latency of {self._world.desk.trial}"

    def evaluate(self, genotype: Genotype) -> Evaluation:
        """What the drawn trial came to: infeasible where it was not trained."""
        world, seconds = self._world, self._world.desk.seconds
        if seconds.building:
            world.work(seconds.building)
        if seconds.timing:
            world.boards.use(seconds.timing)
        infeasible = INFEASIBLE if seconds.training is None else ""
        measures = () if infeasible else (Measure("latency_ms", 1.0, "ms", "lower", 1.0, 1.0),)
        return Evaluation(self.key(genotype), "latency", measures, infeasible=infeasible)


class SimulatedTraining:
    """Training that takes the seconds of the worker's trial."""

    def __init__(self, world: World) -> None:
        self._world = world

    def key(self, genotype: Genotype) -> str:
        """Of the trial, so that none finds the training of another."""
        return f"training of {self._world.desk.trial}"

    def evaluate(self, genotype: Genotype) -> Evaluation:
        """An accuracy that says nothing."""
        self._world.work(self._world.desk.seconds.training or 0.0)
        measure = Measure("accuracy", 50.0, "%", "higher")
        return Evaluation(self.key(genotype), "quality", (measure,), {"fidelity": "simulated"})


class NothingStored:
    """A store of evaluations in which no trial finds that of another."""

    def get(self, key: str) -> None:
        """None: nothing is known."""

    def put(self, evaluation: Evaluation) -> None:
        """Keep nothing."""


class SimulatedStorage(InMemoryStorage):
    """Optuna's storage in memory, that charges the database for each call."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """As Optuna's."""
        self._world.charge()
        return super().create_new_trial(study_id, template_trial)

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: Any
    ) -> None:
        """As Optuna's."""
        self._world.charge()
        super().set_trial_param(trial_id, param_name, param_value_internal, distribution)

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        """As Optuna's."""
        self._world.charge()
        super().set_trial_user_attr(trial_id, key, value)

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """As Optuna's."""
        self._world.charge()
        super().set_trial_system_attr(trial_id, key, value)

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        """As Optuna's; counts trials that end."""
        self._world.charge()
        done = super().set_trial_state_values(trial_id, state, values)
        if state.is_finished():
            self._world.ended += 1
            self._world.on_end(self._world.ended)
        return done

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """As Optuna's."""
        self._world.charge()
        return super().get_trial(trial_id)

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """As Optuna's, charged as a reading through its cache: what has changed is sent."""
        world = self._world
        if (desk := world.desks.get(world.engine.current)) is not None:
            world.charge(world.begun - desk.seen)  # those that run, and those that ended since
            desk.seen = world.ended
        return super().get_all_trials(study_id, deepcopy, states)


class NoFile:
    """Instead of the file that tells others of a home that a worker asks."""

    def write_text(self, text: str, encoding: str = "") -> None:
        """Write nothing."""

    def unlink(self, missing_ok: bool = False) -> None:
        """Remove nothing."""


class SimulatedWorkers:
    """A home's turn and its live workers, as `studies.infra.workers.Workers` gives them."""

    def __init__(self, world: World, number: int) -> None:
        self._world = world
        self._turn = world.turns[number % len(world.turns)]
        self.name = f"simulated-{number % len(world.turns)}:{number}"
        self.asking = NoFile()

    @property
    def turn(self) -> AbstractContextManager[None]:
        """Held by the worker of the home that asks for a trial."""
        return self._turn.held()

    def is_dead(self, name: str, age_s: float | None = None) -> bool:
        """No worker dies."""
        return False

    def is_asking(self, study_name: str) -> bool:
        """None died while it asked."""
        return False

    def leased(self, trial: optuna.Trial) -> AbstractContextManager[None]:
        """No worker loses its lease."""
        return nullcontext()

    def pause(self, seconds: float) -> None:
        """Wait for the end: no trial is left to begin, and none is given back."""
        self._world.engine.before_waiting()
        self._world.engine.wait(self._world.engine.environment.event())


class SimulatedSampler(optuna.samplers.BaseSampler):
    """Takes the seconds that asking took, and answers with any design."""

    def __init__(self, world: World) -> None:
        self._world, self._asked = world, distributions(SPACE)
        rng = random.Random(0)
        vectors = [
            [rng.choice(decision.choices) for decision in SPACE.decisions] for _ in range(DESIGNS)
        ]
        self._params = [
            dict(zip(self._asked, vector, strict=True))
            for vector in vectors
            if not SPACE.violations(SPACE.decode(vector))
        ]

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Every decision."""
        return self._asked

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """A design, after the time that the sampler takes."""
        world = self._world
        world.draw()
        grown = world.case.asking_growth_s * (world.before + trial.number) / 1000
        world.work(world.desk.seconds.asking + grown)
        return self._params[trial.number % len(self._params)]

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Not asked: every decision is answered by `sample_relative`."""
        raise AssertionError(param_name)


@contextmanager
def quiet() -> Iterator[None]:
    """No line of Optuna for each of the simulated trials."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


PAIR = (StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE)
