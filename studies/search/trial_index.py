"""Where the trials of a study stand, kept up from one reading of the storage to the next."""

from collections.abc import Sequence

import numpy as np
from optuna.trial import FrozenTrial, TrialState

from studies.results.hypervolume import not_dominated, reference_value, volume
from studies.results.objectives import Goals
from studies.results.trial_record import FINISHED, TrialRecord, settled_key

AT_ONCE = 256
"""Values that are compared with each other at once; memory grows with its square."""


class TrialIndex:
    """What the loop has to know of all trials, at the same cost in a long study as in a short one.

    A trial that has ended never changes again, so each is looked at once after its end, whoever
    ended it; those that run or wait are looked at again in every reading.

    Attributes:
        running, waiting: the trials in these states, in order of number.
        finished: how many are complete or pruned, without those that time a design again.
        stopped: whether any ended before its last stage.
        names: what the finished ones are called, without those that were unstable.
        first: what `first_of_each` gives for all trials.
    """

    def __init__(self) -> None:
        self.running: list[FrozenTrial] = []
        self.waiting: list[FrozenTrial] = []
        self.finished = 0
        self.stopped = False
        self.names: set[str] = set()
        self.first: dict[str, int] = {}
        self._read = 0
        self._values: list[Sequence[float]] = []
        self._volume_of = 0
        self._front, self._greatest = np.empty((0, 0)), np.empty(0)

    def update(self, trials: Sequence[FrozenTrial]) -> None:
        """Takes in a reading: all trials of the study, each at the place of its number."""
        numbers = sorted(trial.number for trial in (*self.running, *self.waiting))
        changed = [*(trials[number] for number in numbers), *trials[self._read :]]
        self._read = len(trials)
        self.running = [trial for trial in changed if trial.state is TrialState.RUNNING]
        self.waiting = [trial for trial in changed if trial.state is TrialState.WAITING]
        for trial in changed:
            if trial.state not in FINISHED:
                continue
            if trial.state is TrialState.COMPLETE:
                self._values.append(trial.values)
            record = TrialRecord.of(trial)
            self.finished += not record.again
            self.stopped |= record.result.stopped
            if not record.result.unstable:
                self.names.add(record.name)
            if key := settled_key(trial, record):
                self.first[key] = min(trial.number, self.first.get(key, trial.number))

    def hypervolume(self, goals: Goals) -> float | None:
        """Of the complete trials, by the reference point of reports; None for under two.

        Only what has ended since the last call is compared, with the front.
        """
        signs = np.array([each.gain(1.0) for each in goals.objectives])
        if len(self._values) < 2:
            return None
        for begin in range(self._volume_of, len(self._values), AT_ONCE):
            new = np.array(self._values[begin : begin + AT_ONCE], dtype=float)
            known = self._front.reshape(-1, len(signs))
            self._front = not_dominated(np.concatenate([known, new * signs]))
            least = self._greatest if len(self._greatest) else new[0]
            self._greatest = np.maximum(least, new.max(axis=0))
        self._volume_of = len(self._values)
        worst = [
            sign * reference_value(each.higher, float(greatest))
            for each, sign, greatest in zip(goals.objectives, signs, self._greatest, strict=True)
        ]
        return volume(self._front, np.array(worst))
