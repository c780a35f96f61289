"""Verdicts: an order is claimed only where intervals exclude the other one."""

from dataclasses import replace

import numpy as np
import pytest

from evaluators.evaluation import Evaluation
from evaluators.statistics.paired import Correct, Paired
from studies.report.json_output import verdict_as_json
from studies.results import text as result_text
from studies.results.outcome import DesignResult, Standing, Timing, Value
from studies.results.study_outcome import figures_of
from studies.results.trial_record import StoredEvaluation, TrialResult
from studies.results.verdict import (
    BETWEEN_READINGS,
    CorrectBySplit,
    Judged,
    samples_to_decide,
    speed,
    verdict,
    verdict_on,
    with_verdicts,
)

SAMPLES = 686


def right(share: float, noise: float = 0.0, seeds: int = 3) -> Correct:
    """Right on the first `share` of the samples, but for some that are turned around at random."""
    rng = np.random.default_rng(round(1000 * noise))
    base = np.arange(SAMPLES) < share * SAMPLES
    rows = [base ^ (rng.random(SAMPLES) < noise) for _ in range(seeds)]
    return np.array(rows, dtype=np.float64)


def design(
    name: str,
    answers: Correct | None,
    ms: float,
    spread: float = 0.01,
    valid: float | None = None,
    state: str = "complete",
    timing: Timing = "alone",
) -> Judged:
    """A design of a latency that is known to `spread` of it, read on a board that did no more."""
    percent = valid if valid is not None else 0.0 if answers is None else 100 * answers.mean()
    latency = Value(ms, ms * (1 - spread), ms * (1 + spread))
    row = DesignResult(
        None, state, "", name=name, accuracy=Value(percent), latency=latency, timing=timing
    )  # type: ignore[arg-type]
    return Judged(row, answers)


class TestRules:
    def test_faster_and_more_accurate_dominates_by_so_many_points_and_times(self) -> None:
        own, rival = design("late", right(0.70), 20.0), design("trial", right(0.80), 10.0)
        found = verdict(own, [rival], "test")
        assert (found.kind, found.rival, found.held_against) == ("dominated", rival.row, 1)
        assert found.points is not None and found.points.points == pytest.approx(10, abs=0.2)
        assert 0 < found.points.low < 10 < found.points.high
        assert found.times_faster is not None
        assert found.times_faster.value == pytest.approx(2.0)
        assert found.times_faster.low is not None and 1.85 < found.times_faster.low < 1.92
        assert found.more_samples is None and found.why == ""

    def test_what_every_other_is_slower_or_less_accurate_than_is_on_the_front(self) -> None:
        own = design("mine", right(0.75), 10.0)
        slow, poor = design("slow", right(0.90), 11.0), design("poor", right(0.60), 5.0)
        found = verdict(own, [slow, poor], "test")
        assert (found.kind, found.rival, found.held_against) == ("on the front", None, 2)

    def test_a_faster_one_whose_paired_interval_holds_zero_decides_nothing(self) -> None:
        own = design("mine", right(0.75, noise=0.2), 20.0)
        rival = design("other", right(0.755, noise=0.25), 10.0)
        found = verdict(own, [rival], "test")
        assert found.kind == "not decidable"
        assert found.rival == rival.row
        assert found.points is not None and not found.points.significant
        assert found.why == "accuracy not significant (95 % CI includes 0)"

    def test_latencies_that_are_not_apart_decide_nothing_however_far_accuracies_are(self) -> None:
        own = design("mine", right(0.70), 10.0, spread=0.1)
        rival = design("other", right(0.80), 9.5, spread=0.1)
        found = verdict(own, [rival], "test")
        assert (found.kind, found.why) == (
            "not decidable",
            "difference in latency not significant",
        )
        assert found.more_samples is None, "more samples are not what is missing"

    def test_a_slower_or_less_accurate_one_within_the_intervals_keeps_it_off_the_front(
        self,
    ) -> None:
        own = design("mine", right(0.75, noise=0.2), 10.0)
        near = design("near", right(0.75, noise=0.25), 10.05)
        assert verdict(own, [near], "test").kind == "not decidable"

    def test_a_faster_one_that_is_right_on_the_same_samples_is_named_and_proves_nothing(
        self,
    ) -> None:
        own, twin = design("padded", right(0.8), 40.0), design("cut", right(0.8), 10.0)
        found = verdict(own, [twin], "test")
        assert (found.kind, found.rival) == ("not decidable", twin.row)
        assert found.points is not None and found.points.points == 0
        assert (found.why, found.more_samples) == ("both were right on the same samples", None)
        assert verdict(twin, [own], "test").kind == "on the front"

    def test_the_same_network_twice_is_a_tie_and_neither_dominates(self) -> None:
        one, two = design("one", right(0.8), 10.0), design("two", right(0.8), 10.0)
        assert verdict(one, [two], "test").kind == "on the front"
        assert verdict(two, [one], "test").kind == "on the front"

    def test_the_very_same_latency_lets_accuracy_decide(self) -> None:
        own, rival = design("mine", right(0.7), 10.0), design("other", right(0.8), 10.0)
        assert verdict(own, [rival], "test").kind == "dominated"
        assert verdict(rival, [own], "test").kind == "on the front"

    def test_the_rival_is_chosen_by_validation_and_not_by_the_samples_that_decide(self) -> None:
        own = design("mine", right(0.70), 20.0)
        lucky = design("lucky", right(0.80), 10.0, valid=70.0)
        chosen = design("chosen", right(0.75), 10.0, valid=78.0)
        found = verdict(own, [lucky, chosen], "test")
        assert (found.kind, found.rival) == ("dominated", chosen.row)

    def test_alone_it_is_on_the_front_and_that_it_is_alone_is_said(self) -> None:
        found = verdict(design("mine", right(0.5), 1.0), [], "valid")
        assert result_text.verdict(found) == (
            "on the front: there is no other design to compare it with"
        )
        beside = verdict(design("mine", right(0.5), 1.0), [design("s", None, 9.0)], "valid")
        assert result_text.verdict(beside) == (
            "on the front: the one other is significantly slower or less accurate"
        )


class TestSeeds:
    """Three trainings tell how far seeds lie apart; one does not, and the verdict says so."""

    @pytest.mark.parametrize("seeds", [1, 2])
    def test_an_order_from_fewer_than_three_trainings_says_that_other_seeds_are_not_covered(
        self, seeds: int
    ) -> None:
        own = design("late", right(0.70, seeds=3), 20.0)
        rival = design("trial", right(0.80, seeds=seeds), 10.0)
        found = verdict(own, [rival], "test")
        assert found.kind == "dominated" and found.covers_seeds is False
        assert result_text.verdict(found).endswith("; other seeds of training are not covered")
        assert verdict(rival, [own], "test").covers_seeds is None, "it is faster: that is enough"

    def test_with_three_there_is_no_more_to_say(self) -> None:
        own, rival = design("late", right(0.70), 20.0), design("trial", right(0.80), 10.0)
        found = verdict(own, [rival], "test")
        assert found.covers_seeds is True
        assert "seeds" not in result_text.verdict(found)

    def test_seeds_that_lie_further_apart_than_the_designs_leave_their_order_open(self) -> None:
        own = design("late", right(0.75), 20.0)
        seeds = [right(share, seeds=1)[0] for share in (0.70, 0.80, 0.81)]
        found = verdict(own, [design("trial", np.array(seeds), 10.0)], "test")
        assert found.kind == "not decidable" and found.more_samples is None
        assert (
            found.why
            == "accuracy not significant (95 % CI includes 0) because of the spread between seeds"
        )


class TestMissing:
    own = design("mine", right(0.75), 10.0)

    @pytest.mark.parametrize(
        ("changed", "why"),
        [
            (replace(own, correct=None), "it is not stored on which samples mine was right"),
            (replace(own, row=replace(own.row, latency=None)), "mine has no latency"),
            (
                replace(own, row=replace(own.row, latency=None, reason="no kernel for it")),
                "mine has no latency: no kernel for it",
            ),
            (
                replace(own, row=replace(own.row, latency=Value(10.0))),
                "the latency of mine has no interval",
            ),
            (
                replace(own, row=replace(own.row, state="unstable")),
                "the latency of mine is not stable",
            ),
        ],
    )
    def test_a_design_of_which_a_figure_is_missing_is_not_decidable(
        self, changed: Judged, why: str
    ) -> None:
        found = verdict(changed, [design("other", right(0.5), 5.0)], "test")
        assert (found.kind, found.why, found.rival) == ("not decidable", why, None)
        assert result_text.verdict(found) == f"not decidable: {why}"

    def test_a_rival_of_which_it_is_not_known_keeps_it_off_the_front(self) -> None:
        hot = design("hot", right(0.9), 5.0, state="unstable")
        found = verdict(self.own, [hot], "test")
        assert (found.kind, found.why) == ("not decidable", "the latency of hot is not stable")
        unstable_but_poor = design("poor", right(0.5), 5.0, state="unstable")
        assert verdict(self.own, [unstable_but_poor], "test").kind == "on the front"

    def test_a_rival_that_cannot_run_there_is_left_out(self) -> None:
        whole = design("impossible", right(0.99), 1.0)
        found = verdict(self.own, [replace(whole, row=replace(whole.row, latency=None))], "test")
        assert (found.kind, found.held_against) == ("on the front", 0)

    def test_designs_judged_on_other_samples_are_an_error(self) -> None:
        with pytest.raises(ValueError, match="same samples"):
            verdict(self.own, [design("other", right(0.5)[:, :400], 5.0)], "test")


class TestWhatWouldDecide:
    def test_four_times_the_samples_halve_the_interval(self) -> None:
        assert samples_to_decide(Paired(1.0, -1.0, 3.0, 500)) == 1500

    def test_what_is_decided_needs_no_more(self) -> None:
        assert samples_to_decide(Paired(2.0, 1.0, 3.0, 500)) is None

    @pytest.mark.parametrize("points", [0.0, 0.001])
    def test_designs_that_are_alike_would_take_more_than_anyone_has(self, points: float) -> None:
        assert samples_to_decide(Paired(points, -2.0, 2.0, 686)) is None

    def test_the_spread_between_seeds_stays_however_many_samples_there_are(self) -> None:
        by_seeds = Paired(1.0, -3.0, 5.0, 500, seeds=3, seeds_half=1.0)
        assert samples_to_decide(by_seeds) is None
        partly = Paired(2.0, -1.0, 5.0, 500, seeds=3, seeds_half=1.0)
        assert samples_to_decide(partly) == 840, "500 (3^2 - 1^2) / (2^2 - 1^2), less those there"

    def test_that_many_samples_do_decide(self) -> None:
        """Drawn anew with the same difference, so many samples leave zero outside, mostly."""
        rng = np.random.default_rng(1)

        def drawn(count: int) -> tuple[Judged, Judged]:
            """Of the samples 12 % are right for the rival alone, 8 % for the other alone."""
            which = rng.random((1, count))
            own, rival = which < 0.68, (which < 0.60) | (which > 0.88)
            return (
                design("own", own.astype(float), 20.0),
                design("rival", rival.astype(float), 10.0),
            )

        own, rival = drawn(300)
        first = verdict(own, [rival], "test")
        assert first.kind == "not decidable" and first.more_samples is not None
        true = Paired(4.0, -1.0, 9.0, 300)
        enough = 300 + 3 * (samples_to_decide(true) or 0)
        kinds = [verdict(own, [rival], "test").kind for own, rival in map(drawn, [enough] * 20)]
        assert kinds.count("dominated") >= 15


class TestPlantedTruth:
    """Many draws of designs whose true accuracies are known: claims are rarely wrong."""

    DRAWS = 60

    def kinds(self, own: float, rivals: list[float], seed: int) -> list[str]:
        """Verdicts on a design among rivals half as slow, all of these true accuracies."""
        rng = np.random.default_rng(seed)

        def judged(name: str, share: float, ms: float) -> Judged:
            def percent() -> float:
                return 100 * float((rng.random(229) < share).mean())

            answers = (rng.random((1, 400)) < share).astype(float)
            return design(name, answers, ms, valid=percent())

        found = []
        for _ in range(self.DRAWS):
            others = [judged(f"rival {k}", share, 10.0) for k, share in enumerate(rivals)]
            found.append(verdict(judged("own", own, 20.0), others, "test").kind)
        return found

    def test_equals_are_rarely_called_dominated_however_many_there_are(self) -> None:
        """5 % of 60 are 3; nine or more come about once in five hundred."""
        assert self.kinds(0.75, [0.75], seed=0).count("dominated") < 9
        assert self.kinds(0.75, [0.75] * 8, seed=1).count("dominated") < 9

    def test_one_that_is_clearly_worse_is_dominated_and_one_that_is_clearly_better_is_not(
        self,
    ) -> None:
        assert self.kinds(0.60, [0.75, 0.65], seed=2).count("dominated") > 0.9 * self.DRAWS
        better = self.kinds(0.90, [0.75, 0.65], seed=3)
        assert set(better) <= {"on the front", "not decidable"}
        assert better.count("on the front") > 0.9 * self.DRAWS

    def test_the_front_is_claimed_only_where_every_rival_is_excluded(self) -> None:
        assert self.kinds(0.75, [0.60, 0.60, 0.77], seed=4).count("on the front") < 9


class TestSpeed:
    @staticmethod
    def read(ms: float, half: float, timing: Timing) -> DesignResult:
        """A row whose latency has an interval of `half` of it to either side."""
        return DesignResult(
            0, "complete", "", latency=Value(ms, ms * (1 - half), ms * (1 + half)), timing=timing
        )

    def test_one_network_read_at_two_times_is_ordered_one_time_in_twenty(self) -> None:
        """Each reading's own interval is narrow, and held alone would claim most of the orders."""
        rng = np.random.default_rng(0)
        timings: tuple[Timing, ...] = ("alone", "shared")
        for timing in timings:
            claimed = disjoint = 0
            for _ in range(1000):
                a, b = (
                    self.read(10 * np.exp(BETWEEN_READINGS[timing] * z), 0.005, timing)
                    for z in rng.standard_normal(2)
                )
                found = speed(a, b)
                assert found is not None and found.low is not None and found.high is not None
                assert a.latency is not None and b.latency is not None
                claimed += found.low >= 1 or found.high < 1
                disjoint += not result_text.overlap(a.latency, b.latency)
            assert 25 <= claimed <= 75
            assert disjoint > 600

    def test_a_wide_reading_keeps_the_width_that_is_its_own(self) -> None:
        found = speed(self.read(20.0, 0.1, "alone"), self.read(10.0, 0.001, "alone"))
        assert found is not None and found.low is not None and found.high is not None
        assert found.low < 1.8 and found.high > 2.2

    def test_where_the_machine_did_other_work_latencies_have_to_be_further_apart(self) -> None:
        board = speed(self.read(11.0, 0.005, "alone"), self.read(10.0, 0.005, "alone"))
        shared = speed(self.read(11.0, 0.005, "shared"), self.read(10.0, 0.005, "shared"))
        assert board is not None and board.low is not None and board.low > 1
        assert shared is not None and shared.low is not None and shared.low < 1

    def test_a_latency_of_which_it_is_not_kept_how_it_was_read_counts_as_shared(self) -> None:
        assert DesignResult(0, "complete", "").timing == "shared"
        board = Evaluation("k", "latency", details={"timing": "alone"})
        kept = StoredEvaluation("latency", "k", {"latency_ms": Value(1.0, 0.9, 1.1)})
        assert figures_of(TrialResult().with_evaluations(board))["timing"] == "alone"
        assert (
            figures_of(TrialResult().with_evaluations(Evaluation("k", "latency")))["timing"]
            == "shared"
        )
        assert figures_of(TrialResult(evaluations=(kept,)))["timing"] == "shared"

    def test_without_intervals_there_is_none(self) -> None:
        bare = DesignResult(0, "complete", "", latency=Value(20.0))
        assert speed(bare, bare) is None


class TestOfAStudy:
    def rows(self) -> tuple[DesignResult, DesignResult]:
        late, front = design("late", None, 20.0).row, design("", None, 10.0).row
        return replace(late, number=0), replace(front, number=7, accuracy=Value(80.0))

    def test_named_designs_are_held_against_the_front_on_test(self) -> None:
        late, front = self.rows()
        answers = {0: right(0.7), 7: right(0.8)}
        standings = with_verdicts(
            [Standing(late, on_front=False, dominated_by=front)],
            [front],
            {"test": answers, "valid": {}},
        )
        found = standings[0].verdict
        assert found is not None
        assert (found.kind, found.split, found.rival) == ("dominated", "test", front)
        said = result_text.standing(standings[0])
        assert said.startswith("dominated by trial 7, which has +9.9 points (+")
        assert said.endswith(" and is 2.00 times as fast (1.91 to 2.10)")

    def test_before_test_is_looked_at_validation_decides(self) -> None:
        late, front = self.rows()
        answers: dict[int | str, Correct] = {0: right(0.7), 7: right(0.8)}
        by_split: CorrectBySplit = {"test": {0: right(0.7)}, "valid": answers}
        (judged,) = with_verdicts([Standing(late, on_front=False)], [front], by_split)
        assert judged.verdict is not None and judged.verdict.split == "valid"

    def test_one_design_that_lacks_test_puts_all_verdicts_on_validation(self) -> None:
        late, front = self.rows()
        early = replace(late, number=1, name="early")
        answers: dict[int | str, Correct] = {0: right(0.7), 1: right(0.6), 7: right(0.8)}
        by_split: CorrectBySplit = {"test": {0: right(0.7), 7: right(0.8)}, "valid": answers}
        standings = [Standing(row, on_front=False) for row in (late, early)]
        judged = with_verdicts(standings, [front], by_split)
        assert [one.verdict.split for one in judged if one.verdict] == ["valid", "valid"]

    def test_without_answers_the_means_are_told_as_before(self) -> None:
        late, front = self.rows()
        standing = Standing(late, False, front, points_lost=4.0, times_slower=2.0)
        (same,) = with_verdicts([standing], [front], {"test": {}, "valid": {}})
        assert same == standing
        assert (
            result_text.standing(same) == "dominated by trial 7: +4.0 points at 0.50x the latency"
        )

    def test_a_reference_is_found_by_its_name(self) -> None:
        late, _ = self.rows()
        text = design("text-only", None, 10.0).row
        answers: dict[int | str, Correct] = {0: right(0.7), "text-only": right(0.8)}
        found = verdict_on("test", late, [text], {"test": answers, "valid": {}})
        assert found is not None and found.rival == text

    def test_in_words_and_as_json_an_undecided_order_says_what_would_decide_it(self) -> None:
        own = design("early", right(0.75, noise=0.2), 20.0)
        rival = design("text-only", right(0.77, noise=0.25), 10.0)
        found = verdict(own, [rival], "test")
        said = result_text.verdict(found)
        assert said.startswith("not decidable against text-only, which has -0.4 points (")
        assert " and is 2.00 times as fast (" in said
        assert "more samples may decide" in said
        told = verdict_as_json(found)
        assert told is not None
        assert told["rival"] == {"name": "text-only", "number": None}
        assert told["more_samples"] == found.more_samples
        assert set(told["points"]) == {"value", "low", "high", "samples", "seeds", "significant"}


def test_a_design_that_is_slower_is_said_to_be_slower() -> None:
    assert result_text.times(Value(2.0, 1.9, 2.1)) == "2.00 times as fast (1.90 to 2.10)"
    assert result_text.times(Value(0.5, 0.4, 0.8)) == "2.00 times slower (1.25 to 2.50)"
    unsure = result_text.times(Value(0.9, 0.7, 1.1))
    assert unsure == "1.11 times slower (0.909 to 1.43), not significant"
    assert result_text.times(None) == ""
