"""When a search ends before its total: after some hours, or without progress."""

import time
from collections.abc import Callable, Sequence
from datetime import datetime

import optuna
from optuna.trial import FrozenTrial, TrialState

from studies.results.objectives import Goals
from studies.results.trial_record import TrialRecord

_FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
STOPPED = "stopped"
"""User attribute of a study: which rule ended its search, in words; empty for none."""


class StoppingRules:
    """Stop after `hours` of this run, or after `patience` trials without a gain in hypervolume."""

    are_own = True
    """Whether these are rules of this run, which other workers of the study follow."""

    def __init__(
        self,
        hours: float | None = None,
        patience: int | None = None,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._hours, self._patience, self._clock_s = hours, patience, clock_s
        self._begun_s = clock_s()

    @property
    def are_given(self) -> bool:
        """Whether there is any rule."""
        return self._hours is not None or self._patience is not None

    def reached(self, trials: Sequence[FrozenTrial], goals: Goals) -> str:
        """Return which rule ends the search now, in words; empty for none."""
        if self._hours is not None and self._clock_s() - self._begun_s >= 3600 * self._hours:
            return f"{self._hours:g} hours have passed (--hours)"
        if self._patience is not None:
            since = trials_without_gain(trials, goals)
            if since >= self._patience:
                return f"{since} trials in a row have added no hypervolume (--patience)"
        return ""


class StoppedByTheRun(StoppingRules):
    """Stop where another worker of the study stopped by a rule."""

    are_own = False

    def __init__(self, study: optuna.Study) -> None:
        super().__init__()
        self._study = study

    @property
    def are_given(self) -> bool:
        """Whether there is any rule."""
        return True

    def reached(self, trials: Sequence[FrozenTrial], goals: Goals) -> str:
        """Return which rule ended the search, in words; empty for none."""
        return str(self._study.user_attrs.get(STOPPED, ""))


def trials_without_gain(trials: Sequence[FrozenTrial], goals: Goals) -> int:
    """Count the finished trials since the last that added to the hypervolume.

    A trial adds to it exactly if no earlier one is at least as good in every objective. Infeasible
    trials are without a gain. Not counted are failed trials, designs that were given by name, and
    those that are not timed yet or were stopped by the probe: they say little of the search.
    """
    finished = [trial for trial in trials if trial.state in _FINISHED]
    finished.sort(key=lambda trial: trial.datetime_complete or datetime.max)
    front: list[tuple[float, ...]] = []
    since = 0
    for trial in finished:
        record = TrialRecord.of(trial)
        since += not (record.name or record.again or record.result.stopped)
        if trial.state is not TrialState.COMPLETE:
            continue
        gains = tuple(o.gain(v) for o, v in zip(goals.objectives, trial.values, strict=True))
        if not any(_covers(other, gains) for other in front):
            front = [other for other in front if not _covers(gains, other)] + [gains]
            since = 0
    return since


def _covers(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return all(x >= y for x, y in zip(a, b, strict=True))
