"""Designs that were proposed and are not stored as answers yet, shared through the study's storage.

A trial stores an answer when it is asked for, after the sampler has made its proposal. Until then
other samplers of the study, of this process or of any other, would take the design for untried. So
a proposal is written beside its trial, as Optuna's TPESampler and GPSampler do with theirs (system
attributes), and a design that two trials were given at the same moment is left to one of them.
"""

import time
from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from search_space.space.space import Choice
from studies.infra.optuna_private import set_system_attribute

PROPOSED = "ehvi:proposed"
"""System attribute of a trial: [answers in the order of the decisions, whether they are settled];
null where the proposal was withdrawn."""
QUEUED = "fixed_params"
"""System attribute of Optuna: answers that `Study.enqueue_trial` gave."""
LOOK_EVERY_S = 0.02
PATIENCE_S = 5.0
"""So long a proposal of the same design may stay open; it counts as settled then."""

Design = Callable[[Mapping[str, Any]], int | None]
"""The design that answers spell, by its index; None where not all are given."""


class Proposals:
    """The proposals of one study's trials, by the names of its decisions."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = tuple(names)

    def answers(self, trial: FrozenTrial) -> Mapping[str, Any]:
        """What a trial has stored; of one that runs or waits also what it will store, if known."""
        if trial.state.is_finished():
            return trial.params
        queued = trial.system_attrs.get(QUEUED) or {}
        return {**queued, **self._proposed(trial), **trial.params}

    def claim(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        answers: Mapping[str, Choice],
        design: Design,
        ended: Container[int] = (),
    ) -> bool:
        """Write a trial's proposal; False, and withdrawn, where another trial has the design.

        `ended` are the numbers of trials that had ended when the proposal was made: it is none of
        theirs, or they failed.

        A proposal is written first and the others are read then, so of two trials that were given
        one design at least one sees the other. It yields to one that is settled and to a lower
        number; where only higher numbers are open, it waits until they have withdrawn or settled.
        """
        own = design(answers)
        values = [answers[name] for name in self._names]
        set_system_attribute(study, trial, PROPOSED, [values, False])
        end_s = time.monotonic() + PATIENCE_S
        while same := [
            other
            for other in study.get_trials(deepcopy=False)
            if other.number not in ended
            and other.number != trial.number
            and other.state is not TrialState.FAIL
            and design(self.answers(other)) == own
        ]:
            lost = any(self._is_settled(each) or each.number < trial.number for each in same)
            if lost or time.monotonic() >= end_s:
                self.withdraw(study, trial)
                return False
            time.sleep(LOOK_EVERY_S)
        set_system_attribute(study, trial, PROPOSED, [values, True])
        return True

    def withdraw(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Let others have what was proposed to this trial."""
        set_system_attribute(study, trial, PROPOSED, None)

    def _proposed(self, trial: FrozenTrial) -> dict[str, Any]:
        found = trial.system_attrs.get(PROPOSED)
        return {} if found is None else dict(zip(self._names, found[0], strict=True))

    def _is_settled(self, trial: FrozenTrial) -> bool:
        """Whether its design is certain: tried, settled, queued, or stored answer by answer."""
        if trial.state.is_finished():
            return True
        found = trial.system_attrs.get(PROPOSED)
        return found is None or bool(found[1])
