"""Where the trials of a study stand, kept up from one reading of the storage to the next."""

from collections.abc import Sequence

from optuna.trial import FrozenTrial, TrialState

from studies.results.trial_record import FINISHED, TrialRecord, settled_key


class TrialIndex:
    """What the loop has to know of all trials, at the same cost in a long study as in a short one.

    A trial that has ended never changes again, so each is looked at once after its end, whoever
    ended it; those that run or wait are looked at again in every reading.

    Attributes:
        running, waiting: the trials in these states, in order of number.
        finished: how many are complete or pruned, without those that time a design again.
        names: what the finished ones are called, without those that were unstable.
        first: what `first_of_each` gives for all trials.
    """

    def __init__(self) -> None:
        self.running: list[FrozenTrial] = []
        self.waiting: list[FrozenTrial] = []
        self.finished = 0
        self.names: set[str] = set()
        self.first: dict[str, int] = {}
        self._read = 0

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
            record = TrialRecord.of(trial)
            self.finished += not record.again
            if not record.result.unstable:
                self.names.add(record.name)
            if key := settled_key(trial, record):
                self.first[key] = min(trial.number, self.first.get(key, trial.number))
