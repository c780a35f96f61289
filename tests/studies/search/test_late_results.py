"""Results that come late, or cannot be written at once, are taken once or dropped."""

from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState
from tiny import Bench

from studies.infra.optuna_private import trial_of
from studies.results.trial_record import TrialRecord
from studies.search.loop import MAX_ATTEMPTS

ELSEWHERE = "another-host-0123abcd:1:cafe0001"


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "bench")


def test_a_result_that_comes_after_another_worker_has_told_one_is_dropped(bench: Bench) -> None:
    def ended_meanwhile() -> None:
        if len(bench.latency.timed) == 1:
            running = trial_of(bench.study, bench.trials[0])
            TrialRecord(worker=ELSEWHERE).store(running)
            bench.study.tell(running, [12.5, 3.5])

    bench.latency.fails = ended_meanwhile
    bench.search.run(2)
    first, second = bench.trials
    assert first.values == [12.5, 3.5] and TrialRecord.of(first).worker == ELSEWHERE
    assert second.state is TrialState.COMPLETE
    assert any("trial 0 was taken over by another worker" in line for line in bench.told.lines)


def test_a_result_is_dropped_where_another_worker_tells_just_before(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell = bench.study.tell

    def late(trial: optuna.Trial, *given: object, **named: object) -> object:
        if trial.number == 0:
            tell(trial, [12.5, 3.5])
        return tell(trial, *given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(bench.study, "tell", late)
    bench.search.run(2)
    first, second = bench.trials
    assert first.values == [12.5, 3.5] and second.state.is_finished()
    assert any("trial 0 was taken over by another worker" in line for line in bench.told.lines)


def test_a_result_that_could_not_be_written_is_written_by_the_next_run_and_made_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Evaluations are kept before a trial is told: they outlive a storage that refuses it."""

    def refused(*given: object, **named: object) -> None:
        raise optuna.exceptions.StorageInternalError("disk is full")

    with monkeypatch.context() as broken:
        broken.setattr(bench.study, "tell", refused)
        with pytest.raises(optuna.exceptions.StorageInternalError):
            bench.search.run(1)
    assert [trial.state for trial in bench.trials] == [TrialState.RUNNING]
    design = bench.trials[0].params
    bench.new_search(bench.workers).run(1)
    (trial,) = bench.trials
    assert trial.state is TrialState.COMPLETE and trial.params == design
    assert len(bench.latency.timed) == len(bench.quality.trained) == 1
    bench.new_search(bench.workers).run(1)
    assert bench.trials == [trial]


def test_a_trial_that_is_lost_again_and_again_keeps_its_design_and_is_given_up(
    bench: Bench,
) -> None:
    """Each of its workers ends in the middle; it is begun MAX_ATTEMPTS times and then failed."""
    designs = []

    def lost() -> BaseException:
        designs.append(bench.trials[0].params)
        return SystemExit()

    bench.latency.fails = lost  # type: ignore[assignment]
    for _ in range(MAX_ATTEMPTS):
        with pytest.raises(SystemExit):
            bench.new_search(bench.workers).run(1)
    bench.latency.fails = lambda: None
    bench.new_search(bench.workers).run(1)
    assert len(designs) == MAX_ATTEMPTS and all(each == designs[0] for each in designs)
    assert [trial.state for trial in bench.trials] == [TrialState.FAIL, TrialState.COMPLETE]
