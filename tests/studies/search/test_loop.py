"""The loop: what is asked, what is told, what is evaluated, and what a cut-off leaves behind."""

import itertools
import math
import os
import subprocess
import sys
import warnings
from datetime import timedelta
from pathlib import Path

import numpy as np
import optuna
import pytest
import typer
from optuna.trial import TrialState
from tiny import SPACE, Bench, tiny_space

from evaluators.devices.client import DeviceLost
from evaluators.devices.pool import DeviceAway, DevicesDiffer, WrongAgent
from evaluators.devices.ssh.host_key import HostKeyChanged
from evaluators.devices.ssh.login import LogInFailed
from evaluators.evaluation import Measure
from evaluators.latency.evaluator import MeasureError
from search_space.errors import DEVICE, HOST_KEY, NUMBERS
from studies.cli.exits import errors
from studies.infra.leases import LEASE_S
from studies.infra.optuna_private import record_heartbeat, replace_attribute, trial_of
from studies.infra.workers import RELEASED, Workers
from studies.report.json_output import row_as_json
from studies.results.cautions import cautions_of
from studies.results.pareto import pareto_front
from studies.results.study_outcome import reference_row, rows_of
from studies.results.trial_record import TimingRecord, TrialRecord, TrialResult, genotype_of
from studies.results.verdict import Judged, verdict
from studies.samplers.registry import SAMPLERS, distributions, sampler_maker
from studies.search.loop import MAX_ATTEMPTS
from studies.search.trial_runner import UNSTABLE_IN_A_ROW, SearchStopped
from studies.study.run import NoStableReading, NothingTrained, check_readings, check_trainings


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "bench")


def constraints(trial: optuna.trial.FrozenTrial) -> dict[str, float]:
    return dict(trial.constraints.items())


def test_trials_is_the_total_of_the_study_not_of_the_command(bench: Bench) -> None:
    bench.search.run(3)
    bench.search.run(3)
    assert len(bench.trials) == 3
    bench.search.run(5)
    assert [t.number for t in bench.trials] == list(range(5))


def test_seeding_twice_queues_each_published_design_once(bench: Bench) -> None:
    bench.search.seed(bench.seeded)
    bench.search.seed(bench.seeded)
    bench.search.run(len(bench.seeded))
    bench.search.seed(bench.seeded)
    assert [TrialRecord.of(t).name for t in bench.trials] == [s.name for s in bench.seeded]


def test_seeds_that_the_total_leaves_no_room_for_are_told_with_the_total_that_does(
    bench: Bench,
) -> None:
    bench.search.seed(bench.seeded)
    bench.search.run(2)
    assert bench.told.lines[-1] == "1 of 3 seeded designs still waits: --trials 3 or more"
    bench.search.run(3)
    assert not any("wait" in line for line in bench.told.lines[-1:])


def test_seeding_a_study_that_has_its_trials_is_not_passed_over_in_silence(bench: Bench) -> None:
    bench.search.run(3)
    assert not any("wait" in line for line in bench.told.lines)
    bench.search.seed(bench.seeded)
    bench.search.run(3)
    assert bench.told.lines[-1] == "3 of 3 seeded designs still wait: --trials 6 or more"
    assert len([t for t in bench.trials if t.state.is_finished()]) == 3


def test_a_seeded_trial_is_the_published_design_with_the_words_that_carried_it(
    bench: Bench,
) -> None:
    bench.search.seed(bench.seeded)
    bench.search.run(len(bench.seeded))
    for trial, seeded in zip(bench.trials, bench.seeded, strict=True):
        assert TrialRecord.of(trial).result.key == seeded.genotype.key
        assert "scaled in proportion" in TrialRecord.of(trial).adapted
    shown = {row.name: row for row in rows_of(bench.study)}
    published = {s.name: s.design for s in bench.seeded}
    for name, row in shown.items():
        assert row.published_accuracy == published[name].accuracy_percent
        assert row.published_latency_ms == published[name].latency_ms


def test_a_seed_that_the_space_does_not_offer_is_left_out_and_named(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "bench")
    narrow = SPACE.replace('text_pooling = ["cls", "mean", "pooler"]', 'text_pooling = ["mean"]')
    bench.space = tiny_space(tmp_path, narrow)
    search = bench.new_search(bench.workers)
    search.seed(bench.seeded)
    search.run(1)
    assert any("is left out: text_pooling" in line for line in bench.told.lines)


def test_a_seed_whose_trial_failed_is_tried_again(bench: Bench) -> None:
    bench.latency.fails = lambda: MeasureError("the board is hot")
    bench.search.seed(bench.seeded[:1])
    with pytest.raises(SearchStopped):
        bench.search.run(1)
    bench.latency.fails = lambda: None
    bench.search.seed(bench.seeded[:1])
    bench.search.run(1)
    states = [t.state.name for t in bench.trials if TrialRecord.of(t).name]
    assert states == ["FAIL", "COMPLETE"]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_decision_is_asked_every_time_by_every_sampler(bench: Bench, sampler: str) -> None:
    # 12 trials are past the random start of tpe and gp.
    bench.new_search(bench.workers, sampler).run(12)
    wanted = distributions(bench.space)
    for trial in bench.trials:
        assert trial.distributions == wanted
        assert trial.state in (TrialState.COMPLETE, TrialState.PRUNED)


def test_a_sampler_draws_the_same_after_a_cut_as_without_one(tmp_path: Path) -> None:
    whole, cut = Bench(tmp_path / "whole"), Bench(tmp_path / "cut")
    whole.new_search(whole.workers, "tpe").run(14)
    for total in (3, 11, 14):
        cut.new_search(cut.workers, "tpe").run(total)
    assert [t.params for t in whole.trials] == [t.params for t in cut.trials]


def test_workers_that_start_together_draw_apart(bench: Bench) -> None:
    make, drawn = sampler_maker("random", 0, bench.space), []
    for trial in range(3):
        bench.study.sampler = make(trial)
        drawn.append(tuple(bench.study.ask(distributions(bench.space)).params.items()))
    assert len(set(drawn)) == 3


def test_what_cannot_be_built_is_pruned_with_a_constraint_and_never_timed(
    bench: Bench, tmp_path: Path
) -> None:
    at = SPACE.index("[[vision_encoder]]")
    uneven = SPACE[:at] + SPACE[at:].replace("hidden_size = 16", "hidden_size = 18")
    bench.space = tiny_space(tmp_path, uneven.replace("widths = [0, 16]", "widths = [0]"))
    bench.new_search(bench.workers).run(20)
    unbuildable = [t for t in bench.trials if constraints(t)["violations"] > 0]
    assert 0 < len(unbuildable) < 20, "products of unequal widths cannot be built"
    for trial in unbuildable:
        assert trial.state is TrialState.PRUNED
        assert TrialRecord.of(trial).result.reason
        genotype = genotype_of(trial)
        assert genotype.key not in bench.latency.timed


def test_what_the_device_cannot_run_is_pruned_and_never_trained(bench: Bench) -> None:
    bench.latency.infeasible = lambda genotype: True
    bench.search.run(12)
    assert bench.latency.timed and not bench.quality.trained
    for trial in bench.trials:
        assert trial.state is TrialState.PRUNED
        assert any(value > 0 for value in constraints(trial).values())


def test_what_is_over_the_latency_limit_is_never_trained(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "bench", limit_ms=4.0)
    bench.search.run(30)
    timed = set(bench.latency.timed)
    fast = {
        TrialRecord.of(t).result.key
        for t in bench.trials
        if (latency := TrialRecord.of(t).result.latency) and latency.value <= 4.0
    }
    assert fast < timed
    assert sorted(bench.quality.trained) == sorted(fast)
    for trial in bench.trials:
        if TrialRecord.of(trial).result.key in timed - fast:
            assert trial.state is TrialState.PRUNED
            assert constraints(trial)["ms_over_latency_limit"] > 0
            assert "over the latency limit of 4 ms" in TrialRecord.of(trial).result.reason


def test_a_named_design_over_the_limit_is_read_once_more_and_the_better_reading_counts(
    tmp_path: Path,
) -> None:
    bench = Bench(tmp_path / "bench", limit_ms=10.0)
    names = [seeded.name for seeded in bench.seeded]
    keys = [seeded.genotype.key for seeded in bench.seeded]
    readings = {keys[0]: [31.0, 1.6], keys[1]: [12.0, 11.0], keys[2]: [3.0, 99.0]}
    bench.latency.ms = lambda genotype: readings[genotype.key].pop(0)
    bench.search.seed(bench.seeded)
    bench.search.run(3)
    found = {TrialRecord.of(t).name: TrialRecord.of(t).result for t in bench.trials}
    latencies = [found[name].latency for name in names[:3]]
    assert [each and each.value for each in latencies] == [1.6, 11.0, 3.0]
    assert found[names[1]].reason == (
        "11.000 ms is over the latency limit of 10 ms, the lower of two readings"
    )
    assert readings == {keys[0]: [], keys[1]: [], keys[2]: [99.0]}, "what is under it is read once"


SHAKY = "none of 4 rounds of timing can be trusted; in the last, the blocks are 31.0 % apart"


def test_a_design_whose_latency_is_not_stable_is_never_trained_and_on_no_front(
    bench: Bench,
) -> None:
    calls = iter(range(1000))
    bench.latency.unstable = lambda genotype: SHAKY if next(calls) % 3 == 0 else ""
    # The fastest by far, were it to be believed.
    bench.latency.ms = lambda genotype: 5.0 + int(genotype.key[4:8], 16) / 2**16
    bench.search.run(9)
    rows = rows_of(bench.study)
    shaky = [row for row in rows if row.state == "unstable"]
    assert shaky and {row.state for row in rows} <= {"complete", "unstable", "infeasible"}
    for row in shaky:
        trial = bench.trials[row.number or 0]
        assert trial.state is TrialState.PRUNED and constraints(trial)["unstable"] > 0
        assert TrialRecord.of(trial).result.key not in bench.quality.trained
        assert row.reason == SHAKY and row.latency is not None and row not in pareto_front(rows)
    (caution,) = [text for text in cautions_of(rows, {}) if "no stable latency" in text]
    assert caution.startswith(f"{len(shaky)} trial") and SHAKY in caution
    assert any(line.endswith(SHAKY) for line in bench.told.lines)


def test_a_reference_whose_latency_is_not_stable_is_told() -> None:
    row = reference_row(
        "text-only",
        "a text encoder",
        "",
        TrialResult(reason=SHAKY, timing=TimingRecord(unstable=SHAKY)),
    )
    assert row.state == "unstable"
    (caution,) = cautions_of((), {}, (row,))
    assert caution == f"The latency of text-only is not stable: {SHAKY}"


def test_a_design_that_was_not_stable_is_timed_again_when_it_comes_up_again(bench: Bench) -> None:
    bench.latency.unstable = lambda genotype: SHAKY
    bench.search.seed(bench.seeded[:1])
    bench.search.run(1)
    bench.latency.unstable = lambda genotype: ""
    bench.search.seed(bench.seeded[:1])
    bench.search.seed(bench.seeded[:1])
    bench.search.run(2)
    shaky, good = rows_of(bench.study)
    assert (shaky.state, good.state) == ("unstable", "complete")
    assert shaky.name == good.name and good.duplicate_of is None
    assert len(bench.latency.timed) == 2 and pareto_front((shaky, good)) == (good,)
    bench.search.seed(bench.seeded[:1])
    assert len(bench.trials) == 2, "once it was timed well it is not queued again"


def test_a_device_on_which_nothing_is_stable_ends_the_run_and_says_what_to_do(
    bench: Bench,
) -> None:
    bench.latency.unstable = lambda genotype: SHAKY
    said = r"the device is unsteady, 20 readings .* 31.0 % apart: keep other work off the device"
    with pytest.raises(SearchStopped, match=said):
        bench.search.run(60)
    assert not bench.quality.trained
    assert sum(row.state == "unstable" for row in rows_of(bench.study)) == UNSTABLE_IN_A_ROW


def test_a_study_whose_readings_were_all_unstable_says_what_to_do_and_does_not_end_well(
    bench: Bench,
) -> None:
    bench.latency.unstable = lambda genotype: SHAKY
    bench.search.run(4)
    with pytest.raises(NoStableReading) as raised:
        check_readings(bench.study)
    assert raised.value.exit_code == DEVICE and raised.value.study is bench.study
    assert "4 readings of 4 trials unstable, none stable" in str(raised.value)
    assert SHAKY in str(raised.value) and "--timing shared" in str(raised.value)
    bench.latency.unstable = lambda genotype: ""
    bench.search.run(5)
    check_readings(bench.study)


def test_a_study_in_which_nothing_trained_says_so_and_does_not_end_well(bench: Bench) -> None:
    bench.quality.check = lambda genotype: {"constant": True, "did_not_train": CONSTANT}
    bench.search.run(3)
    with pytest.raises(NothingTrained) as raised:
        check_trainings(bench.study)
    assert raised.value.exit_code == NUMBERS and raised.value.study is bench.study
    assert "of 3 trials none trained; the last of 3" in str(raised.value)
    assert CONSTANT in str(raised.value)
    bench.quality.check = lambda genotype: {}
    bench.search.run(5)
    check_trainings(bench.study)


def test_stable_readings_over_a_limit_are_no_fault_of_the_device(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "limited", limit_ms=0.1)
    calls = itertools.count()
    bench.latency.unstable = lambda genotype: SHAKY if next(calls) == 0 else ""
    bench.search.run(3)
    assert {row.state for row in rows_of(bench.study)} == {"unstable", "infeasible"}
    check_readings(bench.study)


def test_some_unstable_readings_in_a_row_end_no_run(bench: Bench) -> None:
    calls = iter(range(1000))
    bench.latency.unstable = lambda genotype: "" if next(calls) % 6 == 5 else SHAKY
    bench.search.run(30)
    states = [row.state for row in rows_of(bench.study)]
    assert len(states) == 30 and states.count("unstable") >= UNSTABLE_IN_A_ROW
    assert "complete" in states


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (HostKeyChanged, HOST_KEY),
        (LogInFailed, DEVICE),
        (WrongAgent, DEVICE),
        (DevicesDiffer, DEVICE),
        (DeviceAway, DEVICE),
    ],
)
def test_what_only_a_person_can_mend_ends_the_run_at_once_and_costs_no_trial(
    bench: Bench, kind: type[Exception], code: int
) -> None:
    bench.latency.fails = lambda: kind("orin: look at it")
    workers = Workers(bench.home / "workers")
    with pytest.raises(typer.Exit) as left, errors():
        bench.new_search(workers).run(2)
    workers.close()
    assert left.value.exit_code == code and len(bench.latency.timed) == 1
    assert "orin: look at it; once that is resolved, the same command" in str(left.value.__cause__)
    assert [t.state for t in bench.trials] == [TrialState.RUNNING]
    bench.latency.fails = lambda: None
    bench.search.run(2)
    assert [t.state for t in bench.trials] == [TrialState.COMPLETE] * 2


def test_a_design_that_comes_again_is_marked_and_costs_nothing(bench: Bench) -> None:
    for _ in range(2):
        bench.study.enqueue_trial(
            dict(zip(distributions(bench.space), vector_of(bench), strict=True))
        )
    bench.search.run(2)
    assert len(bench.latency.timed) == len(bench.quality.trained) == 1
    first, second = rows_of(bench.study)
    assert (first.duplicate_of, second.duplicate_of) == (None, 0)
    assert second.accuracy == first.accuracy and second.latency == first.latency


def vector_of(bench: Bench) -> tuple[str | int, ...]:
    return bench.space.encode(bench.seeded[0].genotype)


def test_the_same_design_in_two_hands_at_once_counts_once(bench: Bench) -> None:
    """Neither worker could know of the other; the rows say so all the same."""
    bench.search.seed(bench.seeded[:1])
    bench.search.run(1)
    twin = bench.trials[0]
    bench.study.add_trial(
        optuna.trial.create_trial(
            params=twin.params,
            distributions=twin.distributions,
            values=twin.values,
            user_attrs=TrialRecord(result=TrialRecord.of(twin).result).to_attributes(),
        )
    )
    assert rows_of(bench.study)[1].duplicate_of == 0


@pytest.mark.parametrize("error", [MeasureError("no answer"), DeviceLost("cable out")])
def test_three_failures_in_a_row_end_the_run_with_the_last_reason(
    bench: Bench, error: Exception
) -> None:
    bench.latency.fails = lambda: error
    with pytest.raises(SearchStopped, match=f"3 trials in a row failed, the last: {error}"):
        bench.search.run(30)
    assert [t.state for t in bench.trials].count(TrialState.FAIL) == 3
    bench.latency.fails = lambda: None
    bench.search.run(4)
    done = [t for t in bench.trials if t.state.is_finished() and t.state is not TrialState.FAIL]
    assert len(done) >= 4


def test_single_failures_do_not_end_the_run_and_do_not_count(bench: Bench) -> None:
    calls = iter(range(1000))
    bench.latency.fails = lambda: MeasureError("flaky") if next(calls) % 3 == 0 else None
    bench.search.run(12)
    states = [t.state for t in bench.trials]
    assert TrialState.FAIL in states
    assert len(states) - states.count(TrialState.FAIL) == 12


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_never_told_and_never_kept(bench: Bench, value: float) -> None:
    bench.quality.percent = lambda genotype: value
    with pytest.raises(SearchStopped, match="not a finite number"):
        bench.search.run(20)
    kept = bench.store.path.read_text() if bench.store.path.exists() else ""
    assert "quality" not in kept
    for trial in bench.trials:
        assert trial.state in (TrialState.FAIL, TrialState.PRUNED) and trial.values is None
    with pytest.raises(ValueError):
        Measure("accuracy", value, "%")


def killed_worker(bench: Bench, trial: optuna.Trial, sign: bool = True) -> None:
    """Leaves a trial as a worker of this home does that was killed."""
    program = (
        "import os, sys; from pathlib import Path; from studies.infra.workers import Workers\n"
        "print(Workers(Path(sys.argv[1])).name, flush=True); os.kill(os.getpid(), 9)"
    )
    command = [sys.executable, "-c", program, str(bench.home / "workers")]
    name = subprocess.run(command, capture_output=True, text=True).stdout.strip()
    assert name
    if sign:
        TrialRecord(worker=name).store(trial)


def test_a_trial_whose_worker_was_killed_is_finished_by_the_next_run(bench: Bench) -> None:
    trial = bench.study.ask(distributions(bench.space))
    killed_worker(bench, trial)
    bench.search.run(1)
    assert [t.number for t in bench.trials] == [0]
    assert bench.trials[0].params == trial.params
    assert bench.trials[0].state.is_finished()


def test_a_trial_killed_while_it_was_asked_for_is_decided_and_finished(bench: Bench) -> None:
    bench.search.seed(bench.seeded[:1])
    half = bench.study.ask({"text_tokens": distributions(bench.space)["text_tokens"]})
    bench.workers.asking.write_text(bench.study.study_name)
    bench.search.run(1)
    assert [t.number for t in bench.trials] == [half.number]
    assert TrialRecord.of(bench.trials[0]).result.key == bench.seeded[0].genotype.key


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A trial that nobody signed is passed over after three seconds."""
    monkeypatch.setattr("studies.search.loop.LOOK_EVERY_S", 0.05)
    monkeypatch.setattr("studies.search.loop.ASKING_AT_MOST", timedelta(seconds=3.0))


@pytest.mark.usefixtures("impatient")
def test_a_trial_that_a_live_worker_has_just_asked_for_is_left_to_it(bench: Bench) -> None:
    asked = bench.study.ask(distributions(bench.space))
    bench.search.run(2)
    first, second = bench.trials
    assert first.datetime_complete > second.datetime_complete, "the other one was made meanwhile"
    assert f"waiting for trial {asked.number}, which no worker has begun yet" in bench.told.lines


def test_a_trial_in_the_hands_of_another_live_worker_is_left_to_it(bench: Bench) -> None:
    other = Workers(bench.home / "workers")
    trial = bench.study.ask(distributions(bench.space))
    TrialRecord(worker=other.name).store(trial)
    bench.search.run(2)
    assert bench.trials[0].state is TrialState.RUNNING
    other.close()
    bench.search.run(2)
    assert bench.trials[0].state is not TrialState.RUNNING


def test_workers_of_another_home_count_as_alive(tmp_path: Path) -> None:
    ours, theirs = Workers(tmp_path / "ours"), Workers(tmp_path / "theirs")
    assert not ours.is_dead(theirs.name)


ELSEWHERE = "container-0badcafe:7:01234567"


def in_other_hands(bench: Bench, age_s: float | None) -> optuna.Trial:
    """A trial that a worker of another host and home has, which showed life so long ago."""
    trial = bench.study.ask(distributions(bench.space))
    if age_s is not None:
        record_heartbeat(trial.study, trial)
        with bench.storage.engine.begin() as connection:
            back = f"UPDATE trial_heartbeats SET heartbeat = datetime('now', '-{age_s} seconds')"
            connection.exec_driver_sql(back)
    TrialRecord(worker=ELSEWHERE).store(trial)
    return trial


def test_a_trial_whose_lease_ran_out_is_taken_over_from_any_host(bench: Bench) -> None:
    trial = in_other_hands(bench, LEASE_S + 5)
    bench.search.run(1)
    assert [t.number for t in bench.trials] == [trial.number]
    assert bench.trials[0].params == trial.params and bench.trials[0].state.is_finished()
    assert TrialRecord.of(bench.trials[0]).worker == bench.workers.name


@pytest.mark.usefixtures("impatient")
def test_a_trial_whose_worker_died_before_it_signed_is_waited_for_and_taken_over(
    bench: Bench,
) -> None:
    """It has neither name nor heartbeat, and its home is another one."""
    bench.study.ask(distributions(bench.space))
    bench.search.run(1)
    assert [t.state.is_finished() for t in bench.trials] == [True]
    assert bench.search.left_to_others == []


def test_a_worker_suspended_before_it_signed_leaves_the_trial_to_who_took_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def taken_meanwhile(study: optuna.Study, trial: optuna.Trial) -> None:
        monkeypatch.undo()
        assert study.trials[-1].params == {}, "choices are written by who has signed"
        TrialRecord(worker=ELSEWHERE).store(trial)
        study.tell(trial.number, state=TrialState.PRUNED)

    monkeypatch.setattr("studies.search.loop.record_heartbeat", taken_meanwhile)
    bench.search.run(2)
    workers = [TrialRecord.of(trial).worker for trial in bench.trials]
    assert workers == [ELSEWHERE, bench.workers.name]
    assert bench.trials[0].state is TrialState.PRUNED


@pytest.mark.parametrize("where", ["ask", "decide"])
def test_a_worker_suspended_as_it_took_a_trial_goes_on_with_the_next(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    if where == "decide":  # of a trial that is taken over
        TrialRecord(worker=f"{RELEASED}x").store(bench.study.ask())
    place, name = (bench.study, "ask") if where == "ask" else (bench.search, "_decide")
    real = getattr(place, name)

    def ended_meanwhile(*given: object) -> None:
        monkeypatch.undo()
        trial = real() if where == "ask" else bench.study.trials[0]
        bench.study.tell(trial.number, state=TrialState.PRUNED)
        raise optuna.exceptions.UpdateFinishedTrialError

    monkeypatch.setattr(place, name, ended_meanwhile)
    bench.search.run(2)
    assert [trial.state.is_finished() for trial in bench.trials] == [True, True]
    assert not bench.workers.asking.exists()


def test_a_trial_of_another_live_worker_is_waited_for_and_taken_over_when_it_dies(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = in_other_hands(bench, 0)
    monkeypatch.setattr("studies.search.loop.LOOK_EVERY_S", 0.05)
    monkeypatch.setattr("studies.infra.workers.LEASE_S", 1.0)
    bench.search.run(1)
    assert [t.state.is_finished() for t in bench.trials] == [True]
    assert f"waiting for trial {trial.number} of worker {ELSEWHERE}" in bench.told.lines
    assert bench.search.left_to_others == []


def test_a_study_that_ends_short_says_so_and_take_over_completes_it(bench: Bench) -> None:
    in_other_hands(bench, None)
    bench.search.run(1)
    assert bench.trials[0].state is TrialState.RUNNING and len(bench.trials) == 1
    assert bench.search.left_to_others == [f"trial 0 of worker {ELSEWHERE}"]
    person = Workers(bench.home / "workers", take_over=True)
    search = bench.new_search(person)
    search.run(1)
    person.close()
    assert [t.state.is_finished() for t in bench.trials] == [True] and not search.left_to_others


def test_who_stood_still_beyond_its_lease_leaves_the_trial_to_the_other(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = []

    def taken_meanwhile() -> None:
        running = trial_of(bench.study, bench.trials[0])
        if not results:
            TrialRecord(worker=ELSEWHERE).store(running)
        results.append(TrialRecord.of(bench.trials[0]).result)

    monkeypatch.setattr("studies.search.loop.LOOK_EVERY_S", 0.05)
    monkeypatch.setattr("studies.infra.workers.LEASE_S", 1.0)
    bench.latency.fails = taken_meanwhile
    bench.search.run(1)
    # The other did nothing more, so the trial came back, with nothing told in between.
    assert results == [TrialResult()] and bench.trials[0].state.is_finished()
    first, second = bench.told.lines[:2]
    assert first.startswith("trial 0 was taken over by another worker")
    assert second == f"waiting for trial 0 of worker {ELSEWHERE}"
    assert TrialRecord.of(bench.trials[0]).attempts == 2


def test_of_two_workers_that_take_a_trial_over_one_gets_it(bench: Bench) -> None:
    in_other_hands(bench, 0)
    frozen = bench.trials[0]
    taken = [
        replace_attribute(bench.study, frozen, "worker", ELSEWHERE, name) for name in ("a", "b")
    ]
    assert taken == [True, False] and bench.trials[0].user_attrs["worker"] == "a"
    unsigned = [replace_attribute(bench.study, frozen, "x", None, name) for name in ("a", "b")]
    assert unsigned == [True, False]


def test_an_error_that_ends_the_run_gives_its_trial_free(bench: Bench) -> None:
    bench.latency.fails = lambda: OSError("no such folder")
    workers = Workers(bench.home / "workers")
    with pytest.raises(OSError):
        bench.new_search(workers).run(1)
    workers.close()
    bench.latency.fails = lambda: None
    bench.search.run(1)
    assert [t.state.is_finished() for t in bench.trials] == [True]


def test_a_lock_that_is_deleted_under_a_live_worker_does_not_make_it_dead(bench: Bench) -> None:
    other = Workers(bench.home / "workers")
    assert not bench.workers.is_dead(other.name, age_s=1.0)
    next((bench.home / "workers").glob(f"{other.name.replace(':', '-')}.lock")).unlink()
    assert not bench.workers.is_dead(other.name, age_s=1.0)
    assert bench.workers.is_dead(other.name, age_s=LEASE_S + 1)
    other.close()


@pytest.mark.usefixtures("impatient")
def test_bytes_that_are_no_text_in_a_workers_file_stop_nobody(bench: Bench) -> None:
    bench.workers.asking.write_bytes(b"\xff\xfe\0")
    bench.study.ask(distributions(bench.space))
    bench.search.run(2)
    assert sum(t.state.is_finished() for t in bench.trials) == 2


def test_locks_of_workers_killed_long_ago_are_swept_and_those_of_live_ones_are_not(
    bench: Bench,
) -> None:
    folder = bench.home / "workers"
    old = folder / "host-0badcafe-7-01234567.lock"
    old.touch()
    for file in folder.glob("*.lock"):
        os.utime(file, (0, 0))
    Workers(folder).close()
    left = {file.name for file in folder.glob("*.lock")}
    assert old.name not in left
    assert f"{bench.workers.name.replace(':', '-')}.lock" in left


def test_a_trial_that_kills_its_worker_every_time_is_given_up(bench: Bench) -> None:
    trial = bench.study.ask(distributions(bench.space))
    TrialRecord(attempts=MAX_ATTEMPTS).store(trial)
    killed_worker(bench, trial)
    bench.search.run(1)
    assert bench.trials[0].state is TrialState.FAIL
    assert rows_of(bench.study)[0].reason == "its worker ended in the middle of it 3 times"
    assert len(bench.trials) == 2


def test_being_interrupted_is_no_failed_attempt_of_a_trial(bench: Bench) -> None:
    def interrupt() -> Exception:
        raise KeyboardInterrupt

    warnings.simplefilter("error")
    bench.latency.fails = interrupt
    bench.search.seed(bench.seeded[:1])
    for _ in range(2 * MAX_ATTEMPTS):
        workers = Workers(bench.home / "workers")
        with pytest.raises(KeyboardInterrupt):
            bench.new_search(workers).run(1)
        workers.close()
    bench.latency.fails = lambda: None
    bench.search.run(1)
    assert [t.state.name for t in bench.trials] == ["COMPLETE"]


CONSTANT = (
    "did not train: the same class for every sample, 58.0 % on validation; "
    "a linear probe of its features 70.0 %"
)
BELOW = "did not train: 61.0 % on validation; a linear probe of its features 70.0 %"


def test_a_design_that_gives_every_sample_one_class_is_on_no_front_and_in_no_verdict(
    bench: Bench,
) -> None:
    early = next(seed for seed in bench.seeded if seed.name.startswith("early"))
    bench.quality.percent = lambda genotype: 99.0 if genotype == early.genotype else 60.0
    bench.quality.check = lambda genotype: (
        {"constant": True, "did_not_train": CONSTANT} if genotype == early.genotype else {}
    )
    bench.search.seed(bench.seeded)
    bench.search.run(len(bench.seeded))
    rows = {row.name: row for row in rows_of(bench.study)}
    row = rows[early.name]
    assert (row.state, row.reason) == ("untrained", CONSTANT)
    assert row not in pareto_front(tuple(rows.values()))
    assert constraints(bench.trials[row.number or 0])["did_not_train"] > 0
    others = [Judged(other, np.array([[1.0, 0.0]])) for other in rows.values()]
    own, held = next(j for j in others if j.row is row), [j for j in others if j.row is not row]
    assert verdict(own, held, "valid").why == f"{early.name} {CONSTANT}"
    assert verdict(held[0], others, "valid").held_against == len(others) - 1
    assert any(CONSTANT in line for line in bench.told.lines)
    assert any(
        "1 trial did not train and is on no front" in c
        for c in cautions_of(tuple(rows.values()), {})
    )


def test_a_design_below_its_probe_is_reported_with_the_probe(bench: Bench) -> None:
    bench.quality.check = lambda genotype: {"constant": False, "did_not_train": BELOW}
    bench.search.run(1)
    (row,) = rows_of(bench.study)
    assert (row.state, row.did_not_train) == ("complete", BELOW)
    assert any(BELOW in caution for caution in cautions_of((row,), {}))
    assert row_as_json(row)["did_not_train"] == BELOW
