"""A share of samples has the interval that its sample size earns."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluators.data import wilson


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
