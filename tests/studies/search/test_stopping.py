"""A search ends after some hours, or after some trials without a gain in hypervolume."""

from datetime import datetime, timedelta
from pathlib import Path

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState
from tiny import Bench

from studies.config.options import SearchOptions
from studies.config.usage import UsageError
from studies.infra.workers import RELEASED
from studies.results.objectives import Goals
from studies.results.trial_record import TrialRecord, TrialResult
from studies.samplers.registry import distributions
from studies.search.stopping import StoppingRules, trials_without_gain

GOALS = Goals()
BEGUN = datetime(2026, 1, 1)


def trials(*values: tuple[float, float] | None) -> list[FrozenTrial]:
    """Finished trials of (accuracy, ms), one a minute; None for one that was pruned."""
    made = []
    for k, pair in enumerate(values):
        state = TrialState.PRUNED if pair is None else TrialState.COMPLETE
        trial = optuna.trial.create_trial(state=state, values=pair)
        trial.number = k
        trial.datetime_complete = BEGUN + timedelta(minutes=k)
        made.append(trial)
    return made


def test_a_dominated_or_infeasible_trial_is_no_gain() -> None:
    assert trials_without_gain([], GOALS) == 0
    assert trials_without_gain(trials((70, 2.0)), GOALS) == 0
    assert trials_without_gain(trials((70, 2.0), (60, 3.0), None), GOALS) == 2
    assert trials_without_gain(trials((70, 2.0), (60, 3.0), (60, 1.0)), GOALS) == 0
    assert trials_without_gain(trials((70, 2.0), (70, 2.0)), GOALS) == 1


def test_trials_count_in_the_order_in_which_they_ended() -> None:
    found = trials((70, 2.0), (60, 3.0))
    found[0].datetime_complete, found[1].datetime_complete = (
        found[1].datetime_complete,
        found[0].datetime_complete,
    )
    assert trials_without_gain(found, GOALS) == 0


def test_designs_that_were_given_and_those_that_were_not_timed_yet_do_not_count() -> None:
    found = trials((70, 2.0), (60, 3.0), None, None)
    TrialRecord(name="late-vit").store(found[1])  # type: ignore[arg-type]
    TrialRecord(result=TrialResult(stopped=True)).store(found[2])  # type: ignore[arg-type]
    assert trials_without_gain(found, GOALS) == 1


def test_hours_are_those_of_this_run() -> None:
    now = [100.0]
    rules = StoppingRules(hours=0.5, clock_s=lambda: now[0])
    assert rules.reached([], GOALS) == ""
    now[0] += 1800
    assert rules.reached([], GOALS) == "0.5 hours have passed (--hours)"


def test_a_search_without_progress_ends_and_says_so(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.quality.percent = lambda genotype: 70.0
    bench.latency.ms = lambda genotype: 3.0
    bench.search._stopping = StoppingRules(patience=3)
    bench.search.run(20)
    assert len(bench.trials) == 4
    (said,) = [line for line in bench.told.lines if "stopped" in line]
    assert said == (
        "stopped at 4 of 20 trials: 3 trials in a row have added no hypervolume (--patience)"
    )
    bench.search._stopping, bench.search._stopped = StoppingRules(), ""
    bench.search.run(6)
    assert len(bench.trials) == 6


@pytest.mark.parametrize("given", [{"hours": 0.0}, {"hours": float("nan")}, {"patience": 0}])
def test_a_rule_that_cannot_be_meant_is_refused(given: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=r"--hours|--patience"):
        SearchOptions(**given)  # type: ignore[arg-type]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("worker", [f"{RELEASED}somebody", ""], ids=["signed", "not signed"])
def test_a_stopped_search_does_not_wait_for_the_trial_of_a_dead_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, worker: str
) -> None:
    monkeypatch.setattr("studies.search.loop.LOOK_EVERY_S", 0.05)
    monkeypatch.setattr("studies.search.loop.ASKING_AT_MOST", timedelta(seconds=1))
    bench = Bench(tmp_path)
    bench.search.run(2)
    left = bench.study.ask(distributions(bench.space))
    TrialRecord(worker=worker).store(left)
    rules = StoppingRules(hours=1e-9)
    stopped = bench.new_search(bench.workers)
    stopped._stopping = rules
    stopped.run(20)
    assert [t.state.is_finished() for t in bench.trials] == [True, True, False]
