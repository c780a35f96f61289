"""What the loop knows of a study's trials is what a look at all of them would say."""

import random
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from studies.results.study_outcome import first_of_each
from studies.results.trial_record import TimingRecord, TrialRecord, TrialResult
from studies.search.trial_index import TrialIndex

STATES = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


def two_objectives() -> optuna.Study:
    return optuna.create_study(directions=["maximize", "minimize"])


def end(
    study: optuna.Study, trial: optuna.Trial, state: TrialState, key: str, unstable: str = ""
) -> None:
    timing = TimingRecord(unstable=unstable)
    TrialRecord(result=TrialResult(key=key, timing=timing)).store(trial)
    study.tell(trial, [50.0, 1.0] if state is TrialState.COMPLETE else None, state=state)


def assert_same_as_a_look_at_all(trial_index: TrialIndex, trials: list[FrozenTrial]) -> None:
    assert trial_index.running == [t for t in trials if t.state is TrialState.RUNNING]
    assert trial_index.waiting == [t for t in trials if t.state is TrialState.WAITING]
    finished = [t for t in trials if t.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    assert trial_index.finished == len(finished)
    steady = [trial for trial in finished if not TrialRecord.of(trial).result.unstable]
    assert trial_index.names == {TrialRecord.of(trial).name for trial in steady}
    assert trial_index.first == first_of_each([(t, TrialRecord.of(t)) for t in trials])


def test_it_holds_whatever_order_the_trials_of_several_workers_end_in() -> None:
    draw, study, trial_index = random.Random(0), two_objectives(), TrialIndex()
    running: list[optuna.Trial] = []
    for _ in range(400):
        step = draw.choice(("queue", "ask", "ask", "end", "end", "read"))
        if step == "queue":
            study.enqueue_trial(
                {}, user_attrs=TrialRecord(name=f"seeded {draw.randrange(5)}").to_attributes()
            )
        elif step == "ask":
            running.append(study.ask())
        elif step == "end" and running:
            unstable = "halves apart" if draw.random() < 0.2 else ""
            trial = running.pop(draw.randrange(len(running)))
            end(study, trial, draw.choice(STATES), str(draw.randrange(20)), unstable)
        else:
            trial_index.update(study.get_trials(deepcopy=False))
            assert_same_as_a_look_at_all(trial_index, study.get_trials(deepcopy=False))
    assert (
        trial_index.finished > 50 and len(trial_index.first) > 10 and len(trial_index.running) > 3
    )


def test_a_trial_that_has_ended_is_looked_at_once() -> None:
    study, trial_index = two_objectives(), TrialIndex()
    for key in "abc":
        end(study, study.ask(), TrialState.COMPLETE, key=key)
    trial_index.update(study.get_trials(deepcopy=False))
    end(study, study.ask(), TrialState.PRUNED, key="a")
    unread: list[Any] = [None] * 3
    trial_index.update([*unread, study.get_trials(deepcopy=False)[3]])
    assert trial_index.finished == 4 and trial_index.first == {"a": 0, "b": 1, "c": 2}
