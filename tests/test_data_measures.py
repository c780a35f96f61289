"""Accuracy is a mean over samples, with the interval that its sample size earns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluators.data import Sample, accuracy, wilson


def clip(score: float | None, label: int | None = None) -> Sample:
    index = label if label is not None else int(score is not None and score >= 0)
    return Sample("a", "a", "", index, score, "test", Path("a.png"))


def test_zero_counts_as_non_negative_and_is_left_out_of_the_non_zero_accuracy() -> None:
    samples = [clip(-1.0), clip(0.0), clip(0.0), clip(2.0)]
    shares = accuracy(np.array([0, 0, 1, 0]), samples)
    assert (shares["accuracy"].right, shares["accuracy"].count) == (2, 4)
    assert (shares["accuracy_nonzero"].right, shares["accuracy_nonzero"].count) == (1, 2)
    assert float(shares["accuracy"]) == 0.5


def test_samples_without_scores_have_one_accuracy() -> None:
    shares = accuracy(np.array([2, 1]), [clip(None, 2), clip(None, 0)])
    assert set(shares) == {"accuracy"} and shares["accuracy"].value == 0.5


def test_the_interval_is_wilsons() -> None:
    share = wilson(81, 263)  # Newcombe 1998, table I, method 3: 0.2553 to 0.3662
    assert (round(share.low, 4), round(share.high, 4)) == (0.2553, 0.3662)
    share = wilson(15, 148)  # the same table: 0.0624 to 0.1605
    assert (round(share.low, 4), round(share.high, 4)) == (0.0624, 0.1605)
    assert round(wilson(0, 20).high, 4) == 0.1611 and wilson(0, 20).low == 0.0


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_holds_the_mean_and_mirrors(counts: tuple[int, int]) -> None:
    right, count = counts
    share, mirror = wilson(right, count), wilson(count - right, count)
    assert 0 <= share.low <= share.value <= share.high <= 1
    assert share.low == pytest.approx(1 - mirror.high, abs=1e-12)


@pytest.mark.parametrize(("right", "count"), [(1, 0), (-1, 3), (4, 3)])
def test_counts_that_are_no_share_are_refused(right: int, count: int) -> None:
    with pytest.raises(ValueError, match="is no share"):
        wilson(right, count)


@pytest.mark.parametrize("predicted", [np.array([1]), np.array([[0, 1]]), np.array([0.2, 0.9])])
def test_predictions_must_be_one_class_index_per_sample(predicted: np.ndarray) -> None:
    with pytest.raises(ValueError, match="give one class index each"):
        accuracy(predicted, [clip(1.0), clip(1.0)])


def test_no_samples_have_no_accuracy() -> None:
    with pytest.raises(ValueError, match="no samples"):
        accuracy(np.array([], dtype=int), [])
