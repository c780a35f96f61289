"""The timing loop keeps to its protocol, whatever it times and by whatever clock."""

import gc
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agent.protocol import TimingProtocol
from device_agent.result import median_rank
from device_agent.timing import time_runs

QUICK = TimingProtocol(
    warmup_min_runs=2, warmup_min_s=0.0, steady_runs=2, min_repeats=6, max_repeats=60,
    min_time_s=0.0, max_time_s=1000.0, blocks=3,
)  # fmt: skip


class Board:
    """A clock and something to run on it: run number `n` takes `takes_ms(n)`."""

    def __init__(self, takes_ms: Callable[[int], float]) -> None:
        self.now_ns = 0
        self.runs = 0
        self._takes_ms = takes_ms

    def run_once(self) -> None:
        self.now_ns += round(self._takes_ms(self.runs) * 1e6)
        self.runs += 1

    def clock_ns(self) -> int:
        return self.now_ns


def test_samples_are_the_runs_after_the_warm_up_in_milliseconds() -> None:
    board = Board(lambda run: 10.0 + run)
    timing = time_runs(board.run_once, replace(QUICK, steady_tolerance=1.0), board.clock_ns)
    assert timing.warmup_runs == 4
    assert timing.samples_ms == tuple(10.0 + run for run in range(4, board.runs))
    assert timing.block_of == (0, 0, 1, 1, 2, 2)


def test_warm_up_lasts_until_the_runs_are_steady() -> None:
    board = Board(lambda run: max(10.0, 100.0 - 10.0 * run))
    timing = time_runs(board.run_once, QUICK, board.clock_ns)
    assert timing.steady
    assert set(timing.samples_ms) == {10.0}


def test_a_board_that_never_becomes_steady_is_timed_all_the_same_and_said_so() -> None:
    board = Board(lambda run: 100.0 * 1.5**run if run < 40 else 1.0)
    timing = time_runs(board.run_once, replace(QUICK, warmup_max_s=2.0), board.clock_ns)
    assert not timing.steady
    assert len(timing.samples_ms) == 6


def test_quick_runs_are_repeated_until_enough_time_has_passed() -> None:
    board = Board(lambda run: 1.0)
    timing = time_runs(board.run_once, replace(QUICK, min_time_s=0.03), board.clock_ns)
    assert len(timing.samples_ms) == 30


def test_the_most_time_wins_over_the_least_number_but_every_block_has_a_sample() -> None:
    board = Board(lambda run: 5000.0)
    timing = time_runs(board.run_once, replace(QUICK, max_time_s=3.0), board.clock_ns)
    assert timing.block_of == (0, 1, 2)


@given(
    st.integers(1, 7), st.integers(7, 40), st.integers(0, 40), st.floats(0.001, 1000.0),
    st.floats(0.0, 1.0), st.floats(0.0, 2.0),
)  # fmt: skip
def test_the_protocol_holds_for_any_run_time(
    blocks: int, least: int, more: int, run_ms: float, min_s: float, longer_s: float
) -> None:
    protocol = replace(
        QUICK, blocks=blocks, min_repeats=least, max_repeats=least + more, min_time_s=min_s,
        max_time_s=min_s + longer_s,
    )  # fmt: skip
    board = Board(lambda run: run_ms)
    timing = time_runs(board.run_once, protocol, board.clock_ns)
    assert blocks <= len(timing.samples_ms) <= least + more
    assert sorted(set(timing.block_of)) == list(range(blocks))
    if sum(timing.samples_ms) < 1e3 * protocol.min_time_s * 0.99:
        assert len(timing.samples_ms) == least + more


@pytest.mark.parametrize("enabled", [True, False])
def test_the_garbage_collector_rests_while_timing_and_is_set_back(enabled: bool) -> None:
    seen: list[bool] = []
    board = Board(lambda run: seen.append(gc.isenabled()) or 1.0)  # type: ignore[func-returns-value]
    was_enabled = gc.isenabled()
    try:
        (gc.enable if enabled else gc.disable)()
        timing = time_runs(board.run_once, QUICK, board.clock_ns)
        assert not any(seen[timing.warmup_runs :])
        assert gc.isenabled() is enabled
        with pytest.raises(ZeroDivisionError):
            time_runs(lambda: 1 / 0, QUICK, board.clock_ns)
        assert gc.isenabled() is enabled
    finally:
        (gc.enable if was_enabled else gc.disable)()


def test_a_clock_that_stands_still_is_refused() -> None:
    with pytest.raises(ValueError, match="does not advance"):
        time_runs(lambda: None, QUICK, lambda: 7)


def test_bounds_of_the_median_leave_out_as_many_samples_as_tables_say() -> None:
    # Conover, Practical Nonparametric Statistics: two-sided 95 % by the sign test.
    assert [median_rank(count) for count in (5, 6, 9, 20, 30, 100)] == [0, 0, 1, 5, 9, 39]
