"""A study so far, as the sampler that weighs every design reads it."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from studies.results.hypervolume import Floats, front_of, not_dominated, reference_pair
from studies.results.trial_record import TrialRecord, TrialRecordError
from studies.samplers.pool import DesignPool

PAIR = (StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE)
"""Of accuracy in percent and latency in ms, the first two objectives."""
MOST_OBJECTIVES = 3
LIMIT = "ms_over_latency_limit"


@dataclass(frozen=True)
class History:
    """A study so far, designs as indices of the pool.

    accuracy (percent) and latency (ms) are those of `complete`, (N,); there the latency of one that
    was trained and not timed is the predicted one. over: timed, over the latency limit, their ms in
    over_ms. rejected: infeasible, unstable or of an infinitely bad value. stopped: by the probe,
    before training. pending: in the hands of workers, or queued. limit_ms: the study's latency
    limit, else infinite. third: values of a third objective of `complete` such that more is better,
    (N,); None without one.
    """

    complete: list[int]
    accuracy: Floats
    latency: Floats
    over: list[int]
    over_ms: list[float]
    rejected: list[int]
    stopped: list[int]
    pending: list[int]
    failed: list[int]
    limit_ms: float
    third: Floats | None = None

    @property
    def begun(self) -> list[int]:
        """Designs that were tried or are being tried; those whose trial failed are not."""
        return [*self.complete, *self.over, *self.rejected, *self.stopped, *self.pending]

    @property
    def on_front(self) -> list[int]:
        """The complete designs that no other beats, each as often as it was tried."""
        if self.third is not None:
            gains = self._gains(self.third)
            best = not_dominated(gains)
            on_front = (gains[:, None] == best[None]).all(axis=2).any(axis=1)
            return [self.complete[i] for i in np.flatnonzero(on_front)]
        worst = reference_pair(np.inf)
        front = set(zip(*front_of(self.accuracy, self.latency, worst), strict=True))
        told = zip(self.accuracy, self.latency, strict=True)
        return [design for design, point in zip(self.complete, told, strict=True) if point in front]

    def below_the_front(self) -> Floats:
        """How far below the front the complete designs are: (N,), 0 on it.

        In percent of accuracy at their latency; with a third objective, how many designs beat them.
        """
        if self.third is not None:
            gains = self._gains(self.third)
            no_less = (gains[None] >= gains[:, None]).all(axis=2)
            more = (gains[None] > gains[:, None]).any(axis=2)
            return np.asarray((no_less & more).sum(axis=1), dtype=float)
        worst = reference_pair(np.inf)
        accuracy, latency = front_of(self.accuracy, self.latency, worst)
        at = np.searchsorted(latency, self.latency, side="right")
        return np.asarray(np.concatenate(([worst[0]], accuracy))[at] - self.accuracy)

    def _gains(self, third: Floats) -> Floats:
        """All three figures such that more is better: (N, 3)."""
        return np.stack([self.accuracy, -self.latency, third], axis=1)


def check_directions(directions: Sequence[StudyDirection]) -> None:
    """Raises ValueError for a study of other objectives than the sampler weighs."""
    if tuple(directions[:2]) != PAIR or len(directions) > MOST_OBJECTIVES:
        asked = ", ".join(f'"{direction.name.lower()}"' for direction in directions)
        raise ValueError(
            f"a study of directions=[{asked}]: EnumeratedEhviSampler weighs accuracy in percent "
            "(maximized), then latency in ms (minimized), and at most one objective more; create "
            'the study with directions=["maximize", "minimize"] and return the values in this order'
        )


def history_of(
    trials: Sequence[FrozenTrial],
    pool: DesignPool,
    answers: Callable[[FrozenTrial], Mapping[str, Any]],
    directions: Sequence[StudyDirection],
) -> History:
    """Reads the trials. Raises ValueError for values of which no model can be made.

    `answers` gives what a trial has stored or will store (`Proposals.answers`).
    """
    complete: list[int] = []
    values: list[Sequence[float]] = []
    over: list[int] = []
    over_ms: list[float] = []
    rejected: list[int] = []
    stopped: list[int] = []
    predicted: dict[int, tuple[float, float]] = {}
    pending: list[int] = []
    failed: list[int] = []
    limit = np.inf
    for trial in trials:
        design = pool.index_of(answers(trial))
        if design is None:
            continue
        if trial.state is TrialState.COMPLETE and not _works(trial, directions):
            rejected.append(design)
        elif trial.state is TrialState.COMPLETE:
            complete.append(design)
            values.append(trial.values)
            if LIMIT in trial.constraints:
                limit = trial.values[1] - trial.constraints[LIMIT]
        elif trial.state is TrialState.PRUNED and trial.constraints.get(LIMIT, 0.0) > 0:
            over.append(design)
            over_ms.append(_timed_ms(trial))
            limit = over_ms[-1] - trial.constraints[LIMIT]
        elif trial.state is TrialState.PRUNED:
            result = TrialRecord.of(trial).result
            if not result.stopped:
                rejected.append(design)
            elif result.accuracy and result.predicted and len(directions) == len(PAIR):
                # It was trained: both are nearly known.
                predicted[design] = result.accuracy.value, result.predicted.value
            else:
                stopped.append(design)
        elif trial.state in (TrialState.RUNNING, TrialState.WAITING):
            pending.append(design)
        elif trial.state is TrialState.FAIL:
            failed.append(design)
    timed_since = {*complete, *over, *rejected, *pending}
    for design in sorted(predicted.keys() - timed_since):
        complete.append(design)
        values.append(predicted[design])
    told = np.array(values, dtype=float).reshape(-1, len(directions))
    third = None
    if len(directions) > len(PAIR):
        third = told[:, 2] if directions[2] is StudyDirection.MAXIMIZE else -told[:, 2]
    return History(
        complete,
        told[:, 0],
        told[:, 1],
        over,
        over_ms,
        rejected,
        stopped,
        pending,
        failed,
        limit,
        third,
    )


def _works(trial: FrozenTrial, directions: Sequence[StudyDirection]) -> bool:
    """False where a value is infinitely bad: such a design is on no front.

    Raises ValueError for one that is infinitely good, and for a latency that is not above 0.
    """
    works = True
    for k, (value, direction) in enumerate(zip(trial.values, directions, strict=True)):
        bad = -math.inf if direction is StudyDirection.MAXIMIZE else math.inf
        if value == bad:
            works = False
        elif not math.isfinite(value) or (k == 1 and value <= 0):
            name = ("accuracy", "latency", "the third objective")[k]
            raise ValueError(
                f"trial {trial.number}: {name} is {value:g}; EnumeratedEhviSampler takes finite "
                f"values{' above 0' if k == 1 else ''}, and {bad:g} for a design that does not "
                "work. A stored value cannot be changed: copy the other trials to a new study with "
                "Study.add_trials"
            )
    return works


def _timed_ms(trial: FrozenTrial) -> float:
    latency = TrialRecord.of(trial).result.latency
    if latency is None:
        raise TrialRecordError(f"trial {trial.number}: over the latency limit, without a latency")
    return latency.value
