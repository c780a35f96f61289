"""One honest figure, and no order between designs that the same samples do not tell apart."""

from math import comb
from typing import Any

import numpy as np
import pytest

from evaluators.data import Sample, wilson
from evaluators.evaluation import Evaluation
from evaluators.statistics.accuracy import mean_over_seeds, measures_of
from evaluators.statistics.paired import (
    Paired,
    correct_from,
    correct_of,
    correct_rows,
    holm,
    paired,
)


def answers(*rows: str) -> Any:
    return correct_from(rows)


def differing(better: int, worse: int, count: int) -> Paired:
    """Two designs that differ on some samples: one is right alone on `better`, once on `worse`."""
    a, b = np.ones((1, count)), np.ones((1, count))
    b[0, :better] = 0
    a[0, better : better + worse] = 0
    return paired(a, b)


def exact_mcnemar(better: int, worse: int) -> float:
    """Two-sided p of so uneven a split, or a worse one, of the differing samples."""
    count = better + worse
    tail = sum(comb(count, k) for k in range(min(better, worse) + 1)) / 2**count
    return min(1.0, 2 * tail)


def test_the_difference_is_in_points_and_its_interval_holds_it() -> None:
    found = differing(70, 30, 686)
    assert found.points == pytest.approx(100 * 40 / 686)
    assert found.low < found.points < found.high and found.count == 686
    assert found.significant
    swapped = differing(30, 70, 686)
    assert swapped.points == pytest.approx(-found.points) and swapped.significant


def test_a_design_is_never_better_than_itself() -> None:
    same = differing(0, 0, 686)
    assert same.points == 0 and same.low < 0 < same.high and not same.significant


@pytest.mark.parametrize("count", [120, 686])
def test_no_order_is_claimed_where_mcnemars_exact_test_sees_none(count: int) -> None:
    for better in range(0, 26, 3):
        for worse in range(better + 1):
            found, p = differing(better, worse, count), exact_mcnemar(better, worse)
            assert not found.significant or p < 0.075, (better, worse, p)
            assert found.significant or p > 0.012, (better, worse, p)


def test_the_p_value_is_below_5_percent_exactly_where_the_interval_excludes_zero() -> None:
    for better in range(0, 40, 3):
        for worse in range(better + 1):
            found = differing(better, worse, 300)
            assert (found.p_value < 0.05) == (found.low > 0 or found.high < 0), (better, worse)


def test_holm_multiplies_the_smallest_p_value_by_the_number_of_tests() -> None:
    pairs = {"a": differing(40, 10, 300), "b": differing(20, 8, 300), "c": differing(5, 5, 300)}
    found = holm(pairs)
    assert list(found) == list(pairs)
    assert found["a"].adjusted_p == pytest.approx(3 * pairs["a"].p_value)
    assert found["b"].adjusted_p == pytest.approx(2 * pairs["b"].p_value)
    assert found["c"].adjusted_p == 1
    assert holm({"b": pairs["b"]})["b"].significant == pairs["b"].significant


def test_of_many_designs_that_do_not_differ_holm_calls_hardly_ever_one_significant() -> None:
    rng, alone, together = np.random.default_rng(0), 0, 0
    for _ in range(60):
        base = (rng.random((1, 200)) < 0.7).astype(float)
        pairs = {k: paired((rng.random((1, 200)) < 0.7).astype(float), base) for k in range(8)}
        alone += any(pair.significant for pair in pairs.values())
        together += any(pair.significant for pair in holm(pairs).values())
    assert together <= 6 < alone


def test_the_interval_holds_the_truth_nineteen_times_in_twenty() -> None:
    rng = np.random.default_rng(0)
    kept = 0
    for _ in range(300):
        both = rng.random((2, 1, 229)) < np.array([0.82, 0.78])[:, None, None]
        shared = rng.random((1, 229)) < 0.6  # samples that are easy or hard for both
        a, b = (np.where(shared, both[0], own).astype(float) for own in both)
        truth = 100 * 0.4 * 0.04
        found = paired(a, b)
        kept += found.low <= truth <= found.high
    assert 0.93 <= kept / 300 <= 0.98


@pytest.mark.parametrize("spread", [0.0, 0.1, 0.2])
def test_with_three_seeds_the_interval_holds_what_other_seeds_bring_too(spread: float) -> None:
    """Two designs of one true accuracy; each training is better or worse as a whole by `spread`
    standard deviations of a sample's difficulty: 0, some 2.4 and 4.8 points."""
    rng = np.random.default_rng(0)
    kept = kept_by_samples = 0
    for _ in range(150):
        easy = 1.0 + rng.standard_normal(300)
        own = 0.3 * rng.standard_normal(300)
        a, b = (
            np.array(
                [
                    easy + sign * own + spread * rng.standard_normal() + noise > 0
                    for noise in 0.5 * rng.standard_normal((3, 300))
                ],
                dtype=np.float64,
            )
            for sign in (1, -1)
        )
        found = paired(a, b)
        alone = paired(a.mean(0, keepdims=True), b.mean(0, keepdims=True))
        kept += found.low <= 0 <= found.high
        kept_by_samples += alone.low <= 0 <= alone.high
        assert found.low <= alone.low + 1e-9 and found.high >= alone.high - 1e-9
    assert 0.91 <= kept / 150 <= 0.99
    assert kept_by_samples / 150 < 0.9 or spread == 0.0


def test_one_or_two_seeds_say_nothing_of_others_and_tell_so() -> None:
    three = answers("1100", "1010", "1001")
    assert paired(three, three[::-1]).covers_seeds
    for few in (three[:1], three[:2]):
        found = paired(three, few)
        assert not found.covers_seeds and found.seeds == len(few) and found.seeds_half == 0


def test_seeds_that_are_right_equally_often_add_nothing() -> None:
    rng = np.random.default_rng(0)
    one = (rng.random(300) < 0.8).astype(float)
    other = (rng.random(300) < 0.7).astype(float)
    thrice = paired(np.repeat(one[None], 3, axis=0), np.repeat(other[None], 3, axis=0))
    once = paired(one[None], other[None])
    assert (thrice.low, thrice.high, thrice.seeds_half) == (once.low, once.high, 0.0)


def test_seeds_are_averaged_and_may_differ_in_number() -> None:
    three = answers("1100", "1010", "1001")
    one = answers("1000")
    found = paired(three, one)
    assert found.points == pytest.approx(25.0) and found.count == 4
    assert found == paired(three[::-1], one), "the order of seeds is nothing"


def test_designs_that_were_judged_on_other_samples_are_not_paired() -> None:
    with pytest.raises(ValueError, match="4 samples of one design and 3 of the other"):
        paired(answers("1100"), answers("110"))
    with pytest.raises(ValueError, match="not empty"):
        paired(np.zeros((0, 3)), answers("110"))


def test_right_answers_are_kept_as_one_digit_a_sample() -> None:
    right = np.array([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]])
    assert correct_rows(right) == ["101", "001"]
    assert np.array_equal(correct_from(correct_rows(right)), right)
    evaluation = Evaluation("k", "test", details={"right": ["101", "001"]})
    assert np.array_equal(correct_of(evaluation), right)
    with pytest.raises(KeyError, match="evaluate the design again"):
        correct_of(Evaluation("k", "test"))


def test_one_seed_has_wilsons_interval_and_more_have_one_of_like_width() -> None:
    rng = np.random.default_rng(1)
    one = (rng.random((1, 686)) < 0.8).astype(float)
    single, alike = mean_over_seeds(one), mean_over_seeds(np.repeat(one, 3, axis=0))
    assert single == wilson(int(one.sum()), 686)
    assert alike.value == single.value
    assert alike.low == pytest.approx(single.low, abs=0.003)
    assert alike.high == pytest.approx(single.high, abs=0.003)
    apart = mean_over_seeds((rng.random((3, 686)) < 0.8).astype(float))
    assert apart.high - apart.low < alike.high - alike.low, "seeds that differ average out"
    sure = mean_over_seeds(np.ones((3, 40)))
    assert sure.value == sure.high == 1.0 and sure.low < 0.97


def test_non_zero_leaves_out_samples_of_score_zero_only(tmp_path: Any) -> None:
    scores = (-1.0, 0.0, 2.0, 0.6)
    samples = [Sample(str(k), "v", "t", 1, s, "test", tmp_path) for k, s in enumerate(scores)]
    by_name = {m.name: m for m in measures_of(answers("1011", "1001"), samples)}
    assert by_name["accuracy"].value == pytest.approx(62.5)
    assert by_name["accuracy_nonzero"].value == pytest.approx(100 * 5 / 6)
    plain = [Sample(str(k), "v", "t", 1, None, "test", tmp_path) for k in range(4)]
    assert [m.name for m in measures_of(answers("1011"), plain)] == ["accuracy"]
    with pytest.raises(ValueError, match="3 answers for 4 samples"):
        measures_of(answers("101"), plain)
