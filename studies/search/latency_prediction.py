"""What a study's own readings tell of designs that were not timed yet."""

from collections.abc import Sequence

import numpy as np
import optuna
from optuna.trial import FrozenTrial

from evaluators.latency.features import LatencyFeatures
from evaluators.latency.model import LatencyModel, TimedDesign
from evaluators.latency.trunk_work import TrunkWork
from evaluators.onnx.rewriting import Rewriting
from search_space.design.genotype import Genotype
from search_space.space.space import SearchSpace
from studies.results.hypervolume import Floats
from studies.results.trial_record import FINISHED, TrialRecord


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
        earlier: Sequence[TimedDesign] = (),
    ) -> None:
        """`earlier` are readings of another device: what is expected before the first of this."""
        self._study = study
        self._features = LatencyFeatures(TrunkWork(space.encoders, space.shapes), rewriting)
        self._costs: dict[str, Floats] = {}
        self._prior = LatencyModel.fit(self._features, earlier)
        self._model, self._learnt = self._fitted(()), 0

    def _fitted(self, readings: Sequence[TimedDesign]) -> LatencyModel:
        return LatencyModel.fit(self._features, readings, self._prior)

    def __call__(self, designs: Sequence[Genotype]) -> tuple[Floats, Floats]:
        """(median ms, relative standard deviation) of N designs, (N,) each."""
        self._learn()
        if not designs:
            return np.empty(0), np.empty(0)
        new = {g.key: g for g in designs if g.key not in self._costs}
        self._costs |= zip(new, self._features.of(list(new.values())), strict=True)
        return self._model.predict(np.array([self._costs[g.key] for g in designs]))

    def by_owner(self, designs: Sequence[Genotype]) -> list[dict[str, float]]:
        """Expected ms by encoder, of the fusion with the head (`fusion`), and fixed (`network`)."""
        self._learn()
        return self._model.by_owner(self._features.of(designs)) if designs else []

    @property
    def readings(self) -> int:
        """How many readings it has learnt from."""
        self._learn()
        return self._learnt

    def _learn(self) -> None:
        timed = {trial.number: trial for trial in self._study.get_trials(deepcopy=False)}
        readings = [r for r in map(reading_of, timed.values()) if r is not None]
        if len(readings) != self._learnt:
            self._model = self._fitted(readings)
            self._learnt = len(readings)


def reading_of(trial: FrozenTrial) -> TimedDesign | None:
    """The latency that a trial measured, over the limit or not; None where it has none."""
    if trial.state not in FINISHED:
        return None
    result = TrialRecord.of(trial).result
    latency = result.latency
    if result.unstable or latency is None or latency.low is None or latency.high is None:
        return None
    if result.genotype is None:
        return None
    return TimedDesign(
        result.genotype, latency.value, (latency.high - latency.low) / 2 / latency.value
    )
