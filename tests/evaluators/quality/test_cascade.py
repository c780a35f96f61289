"""A cascade is as accurate and as fast as what its two designs answer and take."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluators.quality.cascade import (
    Answers,
    best_cascade,
    cascade,
    risk_coverage,
    selective_accuracy,
    thresholds,
)

INFINITE = float("inf")
MS = (1.0, 10.0)


def answers(rows: list[list[float]], labels: list[int]) -> Answers:
    return Answers(np.array(rows, dtype=float), np.array(labels))


SURE = answers([[9, 0], [0, 9], [0.1, 0], [0.1, 0]], [0, 1, 1, 1])
"""Right where it is sure, wrong where it is not."""
OTHER = answers([[0, 1], [1, 0], [0, 1], [0, 1]], [0, 1, 1, 1])
"""Right where the first one is not."""


@st.composite
def two(draw: st.DrawFn) -> tuple[Answers, Answers]:
    count, classes = draw(st.integers(1, 12)), draw(st.integers(2, 4))
    numbers = st.floats(-5, 5, width=32)
    logits = st.lists(
        st.lists(numbers, min_size=classes, max_size=classes), min_size=count, max_size=count
    )
    labels = draw(st.lists(st.integers(0, classes - 1), min_size=count, max_size=count))
    return answers(draw(logits), labels), answers(draw(logits), labels)


def test_the_first_answers_where_it_is_sure() -> None:
    found = cascade(SURE, OTHER, 0.9, MS)
    assert (found.percent, found.answered, found.expected_ms) == (100.0, 0.5, 6.0)


def test_a_threshold_is_chosen_that_is_better_than_either() -> None:
    found = best_cascade(SURE, OTHER, MS)
    assert found.percent == 100 and found.answered == 0.5 and 0.5 < found.threshold <= 1


def test_of_equally_accurate_thresholds_the_fastest_is_chosen() -> None:
    assert best_cascade(SURE, SURE, MS).answered == 1.0


def test_a_limit_on_the_mean_latency_holds() -> None:
    assert best_cascade(SURE, OTHER, MS, most_ms=5.0).expected_ms == 1.0
    with pytest.raises(ValueError, match=r"no threshold within 0\.5 ms: the fastest takes 1 ms"):
        best_cascade(SURE, OTHER, MS, most_ms=0.5)


@settings(max_examples=60)
@given(two())
def test_at_its_ends_a_cascade_is_one_of_its_designs(pair: tuple[Answers, Answers]) -> None:
    first, second = pair
    always, never = (cascade(*pair, each, MS) for each in (0.0, INFINITE))
    assert np.array_equal(always.correct, first.correct) and always.expected_ms == MS[0]
    assert np.array_equal(never.correct, second.correct) and never.expected_ms == sum(MS)


@settings(max_examples=60)
@given(two())
def test_the_best_cascade_is_on_validation_as_accurate_as_either(
    pair: tuple[Answers, Answers],
) -> None:
    found = best_cascade(*pair, MS)
    assert found.percent >= 100 * max(float(each.correct.mean()) for each in pair)
    shares = [cascade(*pair, each, MS).answered for each in thresholds(pair[0])]
    assert shares == sorted(shares, reverse=True) and {0.0, 1.0} <= {*shares}


@settings(max_examples=60)
@given(two())
def test_of_all_samples_selective_accuracy_is_accuracy(pair: tuple[Answers, Answers]) -> None:
    one, _ = pair
    assert selective_accuracy(one, 1.0) == pytest.approx(100 * float(one.correct.mean()))
    assert all(0 <= risk <= 100 for _, risk in risk_coverage(one))


def test_selective_accuracy_is_of_the_most_confident_answers() -> None:
    assert selective_accuracy(SURE, 0.5) == 100.0
    for wrong in (0.0, -0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="above 0, at most 1"):
            selective_accuracy(SURE, wrong)


def test_answers_to_other_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="answered other samples"):
        cascade(SURE, answers([[1, 0]] * 4, [0, 0, 1, 1]), 0.5, MS)
    with pytest.raises(ValueError, match="give one row a label"):
        answers([[1, 0]], [0, 1])
