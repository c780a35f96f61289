"""What a study's own readings tell of designs that were not timed yet."""

from collections.abc import Mapping, Sequence

import numpy as np
import optuna
from optuna.trial import FrozenTrial

from evaluators.latency.features import LatencyFeatures
from evaluators.latency.model import LatencyModel, TimedDesign
from evaluators.latency.transfer import LeaveOneOut, Transferred, leave_one_out, transferred
from evaluators.latency.trunk_work import TrunkWork
from evaluators.onnx.rewriting import Rewriting
from search_space.design.genotype import Genotype
from search_space.space.space import SearchSpace
from studies.results.hypervolume import Floats
from studies.results.objectives import LATENCY, measure_on
from studies.results.trial_record import FINISHED, TrialRecord

MOST_FOR_ERROR = 100
"""With more readings the leave-one-out error, a fit for each, takes too long."""
Readings = Mapping[str, Sequence[TimedDesign]]
"""Readings of other devices, by their name."""


class LearnedLatency:
    """The device's latency model, learnt from the readings of one study as they come.

    Before the first reading it tells cheap designs from expensive ones. Samplers go by it. It is no
    result: every design on a front was timed.
    """

    def __init__(
        self,
        study: optuna.Study,
        space: SearchSpace,
        rewriting: Rewriting,
        earlier: Readings | None = None,
        board: str | None = None,
    ) -> None:
        """Learn from a study's readings.

        Args:
            study: the study.
            space: of its designs.
            rewriting: before timing.
            earlier: readings of other devices: what is expected before the first of this, and which
                of them this one is like.
            board: the board beside the first one that is meant; None for the first.
        """
        self._study, self._board = study, board
        self._features = LatencyFeatures(TrunkWork(space.encoders, space.shapes), rewriting)
        self._costs: dict[str, Floats] = {}
        self._others = {
            name: LatencyModel.fit(self._features, readings)
            for name, readings in (earlier or {}).items()
            if readings
        }
        self._readings: list[TimedDesign] = []
        self._known = transferred(self._features, (), self._others)

    def __call__(self, designs: Sequence[Genotype]) -> tuple[Floats, Floats]:
        """(median ms, relative standard deviation) of N designs, (N,) each."""
        self._learn()
        if not designs:
            return np.empty(0), np.empty(0)
        new = {g.key: g for g in designs if g.key not in self._costs}
        self._costs |= zip(new, self._features.of(list(new.values())), strict=True)
        return self._known.model.predict(np.array([self._costs[g.key] for g in designs]))

    def by_owner(self, designs: Sequence[Genotype]) -> list[dict[str, float]]:
        """Expected ms by encoder, of the fusion with the head (`fusion`), and fixed (`network`)."""
        self._learn()
        return self._known.model.by_owner(self._features.of(designs)) if designs else []

    @property
    def readings(self) -> int:
        """How many readings it has learnt from."""
        self._learn()
        return len(self._readings)

    @property
    def known(self) -> Transferred:
        """The model after all readings, and which device it began from."""
        self._learn()
        return self._known

    def error(self) -> LeaveOneOut | None:
        """The model's error on readings left out; None for too few or too many of them."""
        self._learn()
        if len(self._readings) > MOST_FOR_ERROR:
            return None
        return leave_one_out(self._known, self._readings, self._others)

    def _learn(self) -> None:
        readings = readings_of(self._study, self._board)
        if len(readings) != len(self._readings):
            self._known = transferred(self._features, readings, self._others)
            self._readings = readings


def readings_of(study: optuna.Study, board: str | None = None) -> list[TimedDesign]:
    """The readings of a study's trials on its first board, or on one beside it."""
    read = (reading_of(trial, board) for trial in study.get_trials(deepcopy=False))
    return [each for each in read if each is not None]


def reading_of(trial: FrozenTrial, board: str | None = None) -> TimedDesign | None:
    """The latency that a trial measured, over the limit or not; None where it has none.

    On the first board, or on one beside it.
    """
    if trial.state not in FINISHED:
        return None
    result = TrialRecord.of(trial).result
    measure = LATENCY.measure if board is None else measure_on(board, LATENCY.measure)
    latency = result.measures.get(measure)
    if result.unstable or latency is None or latency.low is None or latency.high is None:
        return None
    if result.genotype is None:
        return None
    return TimedDesign(
        result.genotype, latency.value, (latency.high - latency.low) / 2 / latency.value
    )
