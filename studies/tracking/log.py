"""Logs each finished trial of a study once, whichever worker and whichever run finished it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import optuna

from search_space.redaction import redacted_url
from studies.results.study_outcome import CONDITIONS
from studies.results.trial_record import TrialRecord
from studies.tracking.trackers import Tracker, open_tracker

TRACKED = "tracked"
"""User attribute of a study: by tracker, which trials have been logged there."""


class TrialLog:
    """The trackers of one study, and which of its trials they have.

    The study itself says which trials were logged, so a resumed one logs only what is new. Two
    hosts that log one study to one tracker at the same moment may log a trial twice, at the same
    place of its plots. A tracker that fails ends no study: it is reported, and the next run logs
    what it lacks.
    """

    def __init__(
        self,
        study: optuna.Study,
        wanted: Sequence[str],
        report: Callable[[str], object],
        opened: Callable[[str, str, Mapping[str, str]], Tracker] = open_tracker,
    ) -> None:
        """Open every tracker that is wanted; `report` takes a line of text."""
        self._study, self._report = study, report
        self._trackers: dict[str, Tracker] = {}
        conditions = dict(study.user_attrs.get(CONDITIONS, {}))
        for each in wanted:
            with self._reported(each):
                self._trackers[each] = opened(each, study.study_name, conditions)

    @contextmanager
    def _reported(self, wanted: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # clients raise whatever they like
            self._trackers.pop(wanted, None)
            said = " ".join(str(error).split()) or type(error).__name__
            self._report(f"{redacted_url(wanted)} failed ({said[:200]}): trials are logged no more")

    def update(self) -> None:
        """Log the finished trials that a tracker does not have yet."""
        if not self._trackers:
            return
        trials = [t for t in self._study.get_trials(deepcopy=False) if t.state.is_finished()]
        before = self._study.user_attrs.get(TRACKED, {})
        known: dict[str, Any] = dict(before)
        for wanted, tracker in list(self._trackers.items()):
            logged, name = _Numbers.of(known.get(redacted_url(wanted))), redacted_url(wanted)
            with self._reported(wanted):
                for trial in trials:
                    if trial.number not in logged:
                        tracker.log(trial.number, *_figures(trial))
                        logged.add(trial.number)
            known[name] = logged.as_json()
        if known != before:
            self._study.set_user_attr(TRACKED, known)

    def close(self) -> None:
        """Log what is left, and end the runs."""
        self.update()
        for wanted, tracker in list(self._trackers.items()):
            with self._reported(wanted):
                tracker.close()


def _figures(trial: optuna.trial.FrozenTrial) -> tuple[dict[str, float], str]:
    """What a tracker plots of a trial, and its design with its status in words."""
    result = TrialRecord.of(trial).result
    columns = result.columns(trial.state)
    found = {name: float(v) for name, v in columns.items() if isinstance(v, (int, float))}
    found |= {f"seconds_{stage}": spent for stage, spent in result.seconds.items()}
    design = "" if result.genotype is None else result.genotype.describe()
    return found, f"{design} ({columns['status']})"


class _Numbers:
    """Numbers of trials: all below `through`, and `more` beyond it."""

    def __init__(self, through: int, more: set[int]) -> None:
        self._through, self._more = through, more

    @classmethod
    def of(cls, stored: Any) -> "_Numbers":
        return cls(0, set()) if stored is None else cls(stored["through"], set(stored["more"]))

    def __contains__(self, number: int) -> bool:
        return number < self._through or number in self._more

    def add(self, number: int) -> None:
        self._more.add(number)
        while self._through in self._more:
            self._more.remove(self._through)
            self._through += 1

    def as_json(self) -> dict[str, Any]:
        return {"through": self._through, "more": sorted(self._more)}
