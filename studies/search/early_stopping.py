"""Which designs are worth their next stage: training after the probe, timing after that.

Optuna's pruners know one objective. Here a design is stopped by both: what it promises is held
against the accuracies and latencies of the trials so far.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from optuna.trial import FrozenTrial, TrialState

from evaluators.evaluation import Evaluator
from search_space.design.genotype import Genotype
from studies.results.hypervolume import Floats, area, reference_pair
from studies.results.trial_record import TrialRecord, genotype_of
from studies.search.latency_prediction import LearnedLatency

PROBED_AT_LEAST = 6
"""Designs that are trained before the probe stops any."""
TRAINED_SHARE = 0.4
"""Of the probed designs, those that the fewest others beat in both objectives are trained."""
READINGS_AT_LEAST = 5
"""Designs that are timed before the latency model is asked."""
UNSURE = 0.1
"""Relative standard deviation of a predicted latency above which the design is timed at once."""
SURE = 2.0
"""Standard deviations by which a predicted latency is taken to be lower than predicted."""
PROMISING = 0.003
"""Share of the front's hypervolume that a design must be able to add to be timed at the end."""
LAST_TRIES = 2
"""How often a design is timed at the end before it is left untimed."""


@dataclass(frozen=True)
class EarlyStopping:
    """What stands between a design's stages. Both parts are optional.

    probe: judges designs before they are trained. latency: predicts what a design will take, so
    that it is trained first and timed at the end of the study, if it may stand on the front by
    then; no prediction is ever a result.
    """

    probe: Evaluator | None = None
    latency: LearnedLatency | None = None

    def predicted(self, genotype: Genotype, limit_ms: float | None) -> "Predicted | None":
        """The latency to go by instead of a reading; None where the design has to be timed first.

        That is so before READINGS_AT_LEAST readings, where the model is UNSURE, and where the
        design may be over the limit.
        """
        if self.latency is None or self.latency.readings < READINGS_AT_LEAST:
            return None
        found, relative = self._told([genotype])
        may_be_over = limit_ms is not None and found[0].high > limit_ms
        return None if relative[0] > UNSURE or may_be_over else found[0]

    def _told(self, genotypes: Sequence[Genotype]) -> "tuple[list[Predicted], Floats]":
        assert self.latency is not None
        ms, relative = self.latency(genotypes)
        low, high = ms * np.exp(-SURE * relative), ms * np.exp(SURE * relative)
        return [Predicted(*map(float, each)) for each in zip(ms, low, high, strict=True)], relative

    def after_probe(self, r2: float, ms: float, trials: Sequence[FrozenTrial]) -> str:
        """Why a probed design is not trained, in words; empty for one that is.

        r2: what its probe explains, in percent. It is trained where it is among the TRAINED_SHARE
        of probed designs that the fewest others beat: explain more, and are no slower. Designs
        over the same taps are probed alike, so none of them beats another.
        """
        earlier = _probed(trials)
        if len(earlier) < PROBED_AT_LEAST:
            return ""
        points = np.array([*earlier, (r2, ms)])
        explained, slow = points.T
        beaten = ((explained[:, None] > explained) & (slow[:, None] <= slow)).sum(axis=0)
        before = int((beaten < beaten[-1]).sum())
        if before < TRAINED_SHARE * len(points):
            return ""
        return (
            f"not trained: its probe explains {r2:.1f} % at {ms:.3g} ms, and "
            f"{beaten[-1]} of {len(earlier)} probed designs beat that"
        )

    def next_to_time(self, trials: Sequence[FrozenTrial]) -> FrozenTrial | None:
        """The trained design that may add most to the front, once it is timed; None for none.

        Taken to be as fast as SURE standard deviations below what the model predicts by now; it
        must add PROMISING. A design that was timed, or is being timed, is not asked for again; one
        whose reading failed or was unstable is, after all others, LAST_TRIES times in all.
        """
        if self.latency is None:
            return None
        waiting, tries = trained_and_not_timed(trials)
        least = min((tries[key] for key in waiting), default=0)
        waiting = {key: each for key, each in waiting.items() if tries[key] == least < LAST_TRIES}
        if not waiting:
            return None
        candidates = list(waiting.values())
        predicted, _ = self._told([genotype_of(each.trial) for each in candidates])
        timed = [trial.values for trial in trials if trial.state is TrialState.COMPLETE]
        accuracy, ms = np.array(timed, dtype=float).reshape(-1, 2).T
        slowest = max([*ms, *(each.high for each in predicted)])
        worst = reference_pair(slowest)
        before = area(accuracy, ms, worst)
        after = [
            area(np.append(accuracy, one.accuracy), np.append(ms, each.low), worst)
            for one, each in zip(candidates, predicted, strict=True)
        ]
        best = int(np.argmax(after))
        return candidates[best].trial if after[best] > (1 + PROMISING) * before else None


@dataclass(frozen=True)
class Predicted:
    """A latency in ms that nobody has measured, with SURE standard deviations to each side."""

    ms: float
    low: float
    high: float


@dataclass(frozen=True)
class Untimed:
    """A trial whose design was trained, with its accuracy in percent, and not timed."""

    trial: FrozenTrial
    accuracy: float


def trained_and_not_timed(
    trials: Sequence[FrozenTrial],
) -> tuple[dict[str, Untimed], Counter[str]]:
    """Designs by key whose latency nobody has read or is reading, and how often it was tried."""
    read = [(trial, TrialRecord.of(trial)) for trial in trials]
    waiting = {
        record.result.key: Untimed(trial, record.result.accuracy.value)
        for trial, record in read
        if record.result.stopped and record.result.accuracy
    }
    tries: Counter[str] = Counter()
    for trial, record in read:
        if trial.state is TrialState.COMPLETE:
            waiting.pop(record.result.key, None)
        elif trial.state is TrialState.FAIL or record.result.unstable:
            tries[record.again] += 1
        else:
            waiting.pop(record.again, None)
    return waiting, tries


def _probed(trials: Sequence[FrozenTrial]) -> list[tuple[float, float]]:
    """(percent explained, latency measured or predicted) of the designs that were probed."""
    found = {}
    for trial in trials:
        result = TrialRecord.of(trial).result
        latency = result.latency or result.predicted
        if result.probe and latency:
            found[result.key] = result.probe.value, latency.value
    return list(found.values())
