"""Which designs are stopped before they are trained or timed, and what a study tells of them."""

import json
from pathlib import Path

import pytest
from optuna.trial import TrialState
from tiny import Bench, Place, new_place

from evaluators.evaluation import Evaluation, Measure, content_key
from evaluators.latency.evaluator import MeasureError
from evaluators.onnx.rewriting import Rewriting
from search_space.design.genotype import Genotype
from search_space.network.rewrites import NONE
from studies.results.study_outcome import rows_of, rungs_of
from studies.results.trial_record import TrialRecord, genotype_of
from studies.search.early_stopping import (
    LAST_TRIES,
    PROBED_AT_LEAST,
    READINGS_AT_LEAST,
    EarlyStopping,
)
from studies.search.latency_prediction import LearnedLatency
from studies.search.loop import Search


class FakeProbe:
    """A probe that knows what training will come to."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self.probed: list[str] = []

    def key(self, genotype: Genotype) -> str:
        return content_key("probe", {"genotype": genotype.key})

    def evaluate(self, genotype: Genotype) -> Evaluation:
        self.probed.append(genotype.key)
        measure = Measure("probe_r2", self._bench.quality.percent(genotype) - 3, "%", "higher")
        return Evaluation(self.key(genotype), "probe", (measure,))


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return new_bench(tmp_path / "bench")


def new_bench(folder: Path) -> Bench:
    made = Bench(folder)
    made.quality.percent = lambda g: 50.0 + 3 * g.deepest_tap("text") + int(g.key[:4], 16) % 9
    return made


def with_probe(bench: Bench) -> tuple[Search, FakeProbe]:
    probe = FakeProbe(bench)
    return bench.new_search(bench.workers, early=EarlyStopping(probe)), probe


def with_deferred_timing(bench: Bench) -> Search:
    learnt = LearnedLatency(bench.study, bench.space, Rewriting(NONE))
    return bench.new_search(bench.workers, early=EarlyStopping(latency=learnt))


def front_of_all(bench: Bench) -> set[tuple[float, float]]:
    """(accuracy, latency) that no other design which was trained beats, timed or not."""
    points = {
        (bench.quality.percent(g), bench.latency.ms(g))
        for g in (genotype_of(t) for t in bench.trials)
    }
    return {
        (a, ms)
        for a, ms in points
        if not any(b >= a and n <= ms and (b, n) != (a, ms) for b, n in points)
    }


# The probe


def test_designs_that_many_others_beat_are_not_trained(bench: Bench) -> None:
    search, probe = with_probe(bench)
    search.run(30)
    stopped = [t for t in bench.trials if TrialRecord.of(t).result.stopped]
    assert len(bench.trials) == 30 and 5 < len(stopped) < 25
    assert {t.state for t in stopped} == {TrialState.PRUNED}
    assert len(set(bench.quality.trained)) == len(bench.quality.trained)
    trained = {
        TrialRecord.of(t).result.key for t in bench.trials if TrialRecord.of(t).result.accuracy
    }
    assert trained == set(bench.quality.trained)
    assert not {TrialRecord.of(t).result.key for t in stopped} & trained
    assert "probed designs beat that" in TrialRecord.of(stopped[0]).result.reason
    assert set(bench.quality.trained) <= set(probe.probed)


def test_the_first_designs_and_those_with_a_name_are_always_trained(bench: Bench) -> None:
    search, _ = with_probe(bench)
    bench.quality.percent = lambda g: 50.0  # all alike, so that the slowest is beaten by all
    search.run(PROBED_AT_LEAST)
    assert {t.state for t in bench.trials} == {TrialState.COMPLETE}
    search.seed(bench.seeded)
    search.run(PROBED_AT_LEAST + len(bench.seeded))
    assert {t.state for t in bench.trials} == {TrialState.COMPLETE}


def test_a_study_tells_how_well_probe_and_training_agree(bench: Bench) -> None:
    search, _ = with_probe(bench)
    search.run(30)
    found = rungs_of(rows_of(bench.study))
    assert found is not None
    assert found.trained == len(bench.quality.trained) < found.probed
    assert found.tau == pytest.approx(1.0)


def test_a_study_without_a_probe_says_nothing_of_rungs(bench: Bench) -> None:
    bench.search.run(4)
    assert rungs_of(rows_of(bench.study)) is None


# Few readings


@pytest.fixture(scope="module")
def deferred(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """A finished study of forty designs with deferred timing; it is only read."""
    made = new_bench(tmp_path_factory.mktemp("deferred") / "bench")
    with_deferred_timing(made).run(40)
    return made


def test_few_designs_are_timed_and_the_front_is_that_of_timing_all(deferred: Bench) -> None:
    bench = deferred
    counted = [t for t in bench.trials if not TrialRecord.of(t).again]
    assert len(counted) == 40 and len(set(bench.quality.trained)) > 15
    assert READINGS_AT_LEAST <= len(bench.latency.timed) < 0.7 * len(bench.quality.trained)
    rows = [row for row in rows_of(bench.study) if row.state == "complete"]
    points = {
        (row.accuracy.value, row.latency.value) for row in rows if row.accuracy and row.latency
    }
    fronts = front_of_all(bench)
    assert len(points & fronts) >= 0.7 * len(fronts)


def test_no_design_that_was_not_timed_is_complete(deferred: Bench) -> None:
    bench = deferred
    timed = set(bench.latency.timed)
    complete = [t for t in bench.trials if t.state is TrialState.COMPLETE]
    assert {TrialRecord.of(t).result.key for t in complete} <= timed
    untimed = [t for t in bench.trials if TrialRecord.of(t).result.stopped]
    assert untimed
    for trial in untimed:
        result = TrialRecord.of(trial).result
        assert result.latency is None and result.accuracy and result.accuracy.value > 0
        assert result.predicted and result.predicted.low and result.predicted.high
        assert result.predicted.low <= result.predicted.value <= result.predicted.high


def test_what_may_be_over_the_limit_is_timed_before_it_is_trained(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "bench", limit_ms=3.5)
    with_deferred_timing(bench).run(20)
    over = [t for t in bench.trials if t.constraints.get("ms_over_latency_limit", 0) > 0]
    assert over
    for trial in over:
        assert TrialRecord.of(trial).result.key not in bench.quality.trained


def test_a_run_that_was_ended_before_the_last_readings_takes_them_when_it_goes_on(
    bench: Bench,
) -> None:
    search = with_deferred_timing(bench)

    def interrupt() -> Exception | None:
        counted = [t for t in bench.trials if TrialRecord.of(t).again]
        if counted:
            raise KeyboardInterrupt
        return None

    bench.latency.fails = interrupt
    with pytest.raises(KeyboardInterrupt):
        search.run(40)
    bench.workers.close()
    bench.latency.fails = lambda: None
    again = Bench(bench.home)
    again.quality.percent = bench.quality.percent
    with_deferred_timing(again).run(40)
    assert not [t for t in again.trials if not t.state.is_finished()]
    assert [t for t in again.trials if TrialRecord.of(t).again and t.state is TrialState.COMPLETE]
    before = len(again.trials)
    with_deferred_timing(again).run(40)
    assert len(again.trials) == before


def test_a_design_that_cannot_be_timed_at_the_end_keeps_no_other_from_it(bench: Bench) -> None:
    search, asked = with_deferred_timing(bench), list[str]()

    def fails() -> Exception | None:
        again = [t for t in bench.trials if TrialRecord.of(t).again]
        if not again:
            return None
        asked.append(TrialRecord.of(again[-1]).again)
        return MeasureError("no kernel") if asked[-1] == asked[0] else None

    bench.latency.fails = fails
    search.run(40)
    states = [t.state for t in bench.trials if TrialRecord.of(t).again == asked[0]]
    assert set(states) == {TrialState.FAIL} and len(states) <= LAST_TRIES
    assert len(set(asked)) > 1
    number = next(t.number for t in bench.trials if TrialRecord.of(t).again == asked[0])
    (untimed,) = (
        row
        for row in rows_of(bench.study)
        if row.state == "stopped" and row.design == TrialRecord.of(bench.trials[number]).design
    )
    assert untimed.timed_as is None and untimed.reason.startswith("not timed")
    before = len(bench.trials)
    with_deferred_timing(bench).run(40)
    assert len(bench.trials) == before


def test_a_design_that_was_timed_at_the_end_is_told_once(deferred: Bench) -> None:
    rows = rows_of(deferred.study)
    superseded = [row for row in rows if row.timed_as is not None]
    assert superseded
    for row in superseded:
        timed = rows[row.timed_as or 0]
        assert timed.design == row.design and timed.state == "complete"
        assert row.reason == f"timed at the end, as trial {timed.number}"
    assert sum(row.timed_as is None for row in rows) == 40


# The command


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return new_place(tmp_path_factory.mktemp("early") / "place")


@pytest.mark.slow
def test_the_command_stops_early_says_so_and_goes_on(place: Place) -> None:
    flags = ("--probe", "--deferred-timing", "--json")
    done = place.finish(place.run("--trials", "14", *flags))
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert "closed-form probe" in told["conditions"]["stages"]
    assert "may add 0.3 % to the hypervolume" in told["conditions"]["stages"]
    probed = {row["design"] for row in told["trials"] if row["probe_r2_percent"]}
    assert told["rungs"]["probed"] == len(probed) >= 10
    stopped = [row for row in told["trials"] if row["state"] == "stopped"]
    for row in stopped:
        assert row["latency_ms"] is None or row["valid_accuracy_percent"] is None
    fronts = set(told["front"])
    assert fronts and not fronts & {row["number"] for row in stopped}
    shown = (place.folder / "runs" / f"{told['study']}.html").read_text(encoding="utf-8")
    assert f"{told['rungs']['probed']} designs probed" in shown
    done = place.finish(place.run("--trials", "15", "--json"))
    assert done.returncode == 0, done.stderr
    stages = json.loads(done.stdout)["conditions"]["stages"]
    assert stages.endswith("; then every feasible design is timed and trained")


def test_designs_that_a_later_command_would_leave_untimed_are_told(bench: Bench) -> None:
    few = with_deferred_timing(bench)
    few.run(12)
    waiting = [t for t in bench.trials if TrialRecord.of(t).result.stopped]
    assert waiting
    bench.told.lines.clear()
    bench.new_search(bench.workers).run(12)
    (told,) = [line for line in bench.told.lines if "never timed" in line]
    assert "--deferred-timing times those that may stand on the front" in told
    bench.told.lines.clear()
    few.run(12)
    assert not [line for line in bench.told.lines if "never timed" in line]
