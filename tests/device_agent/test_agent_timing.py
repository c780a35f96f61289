"""The timing loop keeps to its protocol, whatever it times and by whatever clock."""

import gc
from collections.abc import Callable
from dataclasses import replace
from itertools import groupby
from math import exp
from random import Random
from statistics import median

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated_board import Board

from device_agent.board.state import BoardState
from device_agent.timing.loop import REFERENCE_WARMUP_RUNS, Timing
from device_agent.wire.request import TimingProtocol
from device_agent.wire.result import median_bounds, median_rank

QUICK = TimingProtocol(
    warmup_min_runs=2, warmup_min_s=0.0, steady_runs=2, min_repeats=6, max_repeats=60,
    min_time_s=0.0, max_time_s=1000.0, blocks=3, interval_share=100.0, block_tolerance=0.1,
    reference_tolerance=0.1, reference_runs=3, retries=2,
)  # fmt: skip
TRUSTING = replace(QUICK, block_tolerance=100.0)
SEEDS = 8
"""Boards that spread or drift at random; each is simulated in full."""


def samples(timing: Timing) -> tuple[float, ...]:
    return timing.rounds[-1].samples_ms


# -- warm-up and samples


def test_samples_are_the_runs_after_the_warm_up_in_milliseconds() -> None:
    board = Board(lambda run: 100.0 + run)
    timing = board.time(QUICK)
    assert timing.warmup_runs == 4
    # One run between the reference and the first sample is not counted.
    assert samples(timing) == tuple(100.0 + run for run in range(5, board.runs))
    assert timing.rounds[0].block_of == (0, 0, 1, 1, 2, 2)


def test_warm_up_lasts_until_the_runs_are_steady() -> None:
    timing = Board(lambda run: max(10.0, 100.0 - 10.0 * run)).time(QUICK)
    assert timing.steady
    assert set(samples(timing)) == {10.0}


def test_a_board_that_never_becomes_steady_is_timed_all_the_same_and_said_so() -> None:
    board = Board(lambda run: 100.0 * 1.5**run if run < 40 else 1.0)
    timing = board.time(replace(TRUSTING, warmup_max_s=2.0))
    assert not timing.steady
    assert len(samples(timing)) == 6


def test_the_warm_up_of_a_slow_network_has_runs_enough_to_become_steady() -> None:
    timing = Board(lambda run: 1500.0).time(TimingProtocol())
    assert timing.steady and timing.warmup_runs == 2 * TimingProtocol().steady_runs


def test_quick_runs_are_repeated_until_enough_time_has_passed() -> None:
    timing = Board(lambda run: 1.0).time(replace(QUICK, min_time_s=0.03))
    assert len(samples(timing)) == 30


def test_the_most_time_wins_over_the_least_number_but_every_block_has_a_sample() -> None:
    timing = Board(lambda run: 5000.0).time(replace(QUICK, max_time_s=3.0))
    assert timing.rounds[0].block_of == (0, 1, 2)


@pytest.mark.slow
@settings(max_examples=40)
@given(
    st.integers(1, 7), st.integers(7, 40), st.integers(0, 40), st.floats(0.001, 1000.0),
    st.floats(0.0, 1.0), st.floats(0.0, 2.0), st.sampled_from([0.0, 0.5, 100.0]),
)  # fmt: skip
def test_the_protocol_holds_for_any_run_time(
    blocks: int, least: int, more: int, run_ms: float, min_s: float, longer_s: float, share: float
) -> None:
    protocol = replace(
        TRUSTING, blocks=blocks, min_repeats=least, max_repeats=least + more, min_time_s=min_s,
        max_time_s=min_s + longer_s, interval_share=share,
    )  # fmt: skip
    timing = Board(lambda run: run_ms * (1 + run % 2)).time(protocol)
    taken = timing.rounds[-1]
    assert blocks <= len(taken.samples_ms) <= least + more
    assert sorted(set(taken.block_of)) == list(range(max(taken.block_of) + 1))
    assert len(set(taken.block_of)) >= blocks
    if sum(taken.samples_ms) < 1e3 * protocol.min_time_s * 0.99:
        assert len(taken.samples_ms) == least + more


# -- when to stop


def test_sampling_ends_as_soon_as_the_interval_of_the_median_is_narrow() -> None:
    protocol = replace(QUICK, interval_share=0.01)
    assert len(samples(Board(lambda run: 10.0).time(protocol))) == 6


def test_a_wide_interval_is_sampled_on_in_blocks_of_the_same_size_until_it_is_narrow() -> None:
    # Of every four runs three take 10 ms: the bounds leave the fourth out once there are enough.
    timing = Board(lambda run: 15.0 if run % 4 == 3 else 10.0).time(
        replace(TRUSTING, interval_share=0.01)
    )
    taken = timing.rounds[0]
    assert 9 < len(taken.samples_ms) < TRUSTING.max_repeats
    assert len(taken.samples_ms) == 2 * len(taken.block_medians_ms)
    assert median_bounds(taken.samples_ms) == (10.0, 10.0)
    assert median_bounds(taken.samples_ms[:-2]) == (10.0, 15.0)


def test_an_interval_that_stays_wide_is_sampled_to_the_most_repeats_or_time() -> None:
    protocol = replace(TRUSTING, interval_share=0.01)
    spread = Board(lambda run: 10.0 + run % 7)
    assert len(samples(spread.time(protocol))) == protocol.max_repeats
    taken = samples(Board(lambda run: 10.0 + run % 7).time(replace(protocol, max_time_s=0.2)))
    assert 200.0 <= sum(taken) < 200.0 + 17.0


@pytest.mark.parametrize(("count", "rank"), [(5, 0), (6, 0), (9, 1), (20, 5), (30, 9), (100, 39)])
def test_bounds_of_the_median_leave_out_as_many_samples_as_tables_say(
    count: int, rank: int
) -> None:
    # Conover, Practical Nonparametric Statistics: two-sided 95 % by the sign test.
    assert median_rank(count) == rank
    bounds = median_bounds([float(k) for k in range(count)])
    assert bounds == (None if count < 6 else (rank, count - 1 - rank))


def test_a_round_whose_blocks_are_already_apart_is_not_sampled_any_longer() -> None:
    spread = Board(lambda run: (10.0 + run % 7) * 1.3**run)
    timing = spread.time(replace(QUICK, interval_share=0.01, retries=0, warmup_max_s=0.0))
    assert timing.rounds[0].instability_reasons and len(samples(timing)) == 6


# -- what is not trusted


def phases(board: Board, timing: Timing) -> list[str]:
    """What ran after the warm-up: `A` for a reading of the drift reference, `B` for blocks."""
    order = board.order[timing.warmup_runs :]
    return ["A" if kind == "A" else "B" for kind, _ in groupby(order)]


def test_a_steady_board_is_timed_once_between_two_readings_of_the_drift_reference() -> None:
    board = Board(lambda run: 10.0)
    timing = board.time(QUICK)
    assert phases(board, timing) == ["A", "B", "A"]
    assert (
        timing.rounds[0].drift_reference_ms == (1.0, 1.0)
        and timing.rounds[0].instability_reasons == ()
    )
    readings = 2 * (REFERENCE_WARMUP_RUNS + QUICK.reference_runs)
    assert board.order.count("A") == readings


def noisy(seed: int, ms: float, sigma: float) -> Callable[[int], float]:
    """Runs that are spread, each for itself, and never drift."""
    drawn = Random(seed)
    return lambda run: ms * exp(drawn.gauss(0.0, sigma))


@pytest.mark.parametrize("asked", [0.01, 0.3])
def test_a_trusted_round_has_an_interval_as_narrow_as_asked(asked: float) -> None:
    protocol = replace(TimingProtocol(), interval_share=asked, retries=0)
    found = []
    for seed in range(SEEDS):
        drawn = Random(seed)
        (taken,) = Board(lambda run: 1500.0 * drawn.choice((1.0, 1.5))).time(protocol).rounds  # noqa: B023
        low, high = median_bounds(taken.samples_ms) or (0.0, 1e9)
        wide = (high - low) / median(taken.samples_ms)
        assert bool(taken.instability_reasons) == (wide > asked), taken.instability_reasons
        found += [
            reason
            for reason in taken.instability_reasons
            if f"% wide, {100 * asked:g} % asked" in reason
        ]
    assert found


def test_so_few_samples_that_no_interval_is_known_are_a_doubt() -> None:
    (taken,) = Board(lambda run: 5000.0).time(replace(QUICK, max_time_s=3.0, retries=0)).rounds
    assert taken.instability_reasons == (
        "the 95 % interval is unknown: 3 samples are too few for one",
    )


@pytest.mark.parametrize(("ms", "sigma"), [(100.0, 0.05), (10.0, 0.08), (1500.0, 0.01)])
def test_spread_without_drift_is_no_doubt_and_costs_no_round(ms: float, sigma: float) -> None:
    timings = [Board(noisy(seed, ms, sigma)).time(TimingProtocol()) for seed in range(SEEDS)]
    assert (
        sum(not timing.steady or bool(timing.rounds[-1].instability_reasons) for timing in timings)
        <= 1
    )
    assert sum(len(timing.rounds) for timing in timings) <= 1.5 * SEEDS


def test_spread_too_wide_for_the_most_time_is_told_as_such_and_not_taken_again() -> None:
    timings = [Board(noisy(seed, 100.0, 0.16)).time(TimingProtocol()) for seed in range(SEEDS)]
    once = [timing.rounds[0] for timing in timings if len(timing.rounds) == 1]
    assert len(once) >= 0.75 * SEEDS
    assert all(
        "wide, 1 % asked" in reason for taken in once for reason in taken.instability_reasons
    )
    assert all(len(taken.instability_reasons) == 1 for taken in once)


@pytest.mark.parametrize("ms", [10.0, 100.0])
def test_a_drift_in_spread_runs_is_a_doubt(ms: float) -> None:
    for seed in range(SEEDS):
        spread = noisy(seed, ms, 0.03)
        board = Board(lambda run: spread(run) * (1.0 + 0.5e-5 * ms * run))  # noqa: B023
        timing = board.time(replace(TimingProtocol(), retries=0, interval_share=0.001))
        assert "half of the blocks are" in timing.rounds[0].instability_reasons[0]


def test_blocks_that_drift_apart_are_taken_again_between_references_until_they_agree() -> None:
    board = Board(lambda run: 10.0 + 5.0 * max(0, run - 7) if run < 11 else 40.0)
    timing = board.time(replace(QUICK, blocks=2))
    assert len(timing.rounds) == 2
    assert phases(board, timing) == ["A", "B", "A", "B", "A"]  # two readings between
    first, last = timing.rounds
    assert "the first and the second half of the blocks are" in first.instability_reasons[0]
    assert "10 % are allowed" in first.instability_reasons[0]
    assert last.instability_reasons == () and set(last.samples_ms) == {40.0}


def test_one_disturbed_block_among_many_is_no_drift() -> None:
    board = Board(lambda run: 20.0 if run in (11, 12, 13) else 10.0)
    (taken,) = board.time(replace(QUICK, min_repeats=21, blocks=7)).rounds
    assert 20.0 in taken.block_medians_ms and taken.instability_reasons == ()


def test_every_round_is_reference_block_block_reference() -> None:
    board = Board(lambda run: 10.0 * 1.2**run)
    timing = board.time(replace(QUICK, blocks=2, warmup_max_s=0.0, retries=1))
    one = "A" * (REFERENCE_WARMUP_RUNS + QUICK.reference_runs)
    blocks = "N" * (1 + QUICK.min_repeats)
    assert board.order[timing.warmup_runs :] == 2 * (one + blocks + one)
    assert [r.block_of for r in timing.rounds] == 2 * [(0, 0, 0, 1, 1, 1)]


def test_a_drift_that_never_ends_is_timed_again_so_often_and_no_oftener() -> None:
    board = Board(lambda run: 10.0 * 1.2**run)
    timing = board.time(replace(QUICK, warmup_max_s=0.0))
    assert len(timing.rounds) == 1 + QUICK.retries
    assert all(taken.instability_reasons for taken in timing.rounds)


def test_a_reference_that_drifts_makes_a_round_unstable_although_the_blocks_agree() -> None:
    reading = REFERENCE_WARMUP_RUNS + QUICK.reference_runs
    board = Board(lambda run: 10.0, lambda run: 1.0 if run < reading else 1.5)
    timing = board.time(QUICK)
    first, last = timing.rounds
    assert first.drift_reference_ms == (1.0, 1.5) and last.drift_reference_ms == (1.5, 1.5)
    assert first.instability_reasons == (
        "the drift reference before and after are 50.0 % apart (1, 1.5 ms; 10 % are allowed)",
    )
    assert last.instability_reasons == ()


@pytest.mark.parametrize(
    ("after", "said"),
    [
        (BoardState(clock_limits_mhz=(("policy0", 1500.0),)), "policy0 fell from 2000 to 1500 MHz"),
        (BoardState(throttled_by=("cpufreq",)), "cpufreq held clocks down"),
        (BoardState(governor="powersave"), "governor went from None to powersave"),
    ],
)
def test_a_round_in_which_the_board_slowed_down_is_taken_again(
    after: BoardState, said: str
) -> None:
    good = BoardState(clock_limits_mhz=(("policy0", 2000.0),))
    timing = Board(lambda run: 10.0, states=(good, after, good)).time(QUICK)
    assert len(timing.rounds) == 2
    assert said in timing.rounds[0].instability_reasons[0]


def test_a_protocol_may_leave_the_board_s_state_out() -> None:
    hot = BoardState(throttled_by=("cpu-throttle",))
    timing = Board(lambda run: 10.0, states=(hot,)).time(replace(QUICK, watch_board=False))
    assert [taken.instability_reasons for taken in timing.rounds] == [()]


def test_a_board_that_is_held_down_all_the_time_is_never_trusted() -> None:
    hot = BoardState(throttled_by=("cpu-throttle",))
    timing = Board(lambda run: 10.0, states=(hot,)).time(QUICK)
    assert timing.rounds[-1].instability_reasons == ("cpu-throttle held clocks down",)


def test_a_board_that_is_busy_with_something_else_is_not_trusted() -> None:
    timing = Board(lambda run: 10.0, others=0.5).time(QUICK)
    assert len(timing.rounds) == 1 + QUICK.retries
    (reason,) = timing.rounds[-1].instability_reasons
    assert reason == "other programs kept 0.50 processors busy (0.1 are allowed)"
    assert timing.rounds[-1].others_cores == pytest.approx(0.5)


@pytest.mark.parametrize("others", [0.0, 0.09, None])
def test_a_board_that_does_little_else_or_does_not_tell_is_trusted(others: float | None) -> None:
    (taken,) = Board(lambda run: 10.0, others=others).time(QUICK).rounds
    assert taken.instability_reasons == () and taken.others_cores == (
        None if others is None else pytest.approx(others)
    )


def test_a_clock_limit_that_rises_or_appears_is_no_doubt() -> None:
    slow = BoardState(clock_limits_mhz=(("policy0", 1500.0),))
    fast = BoardState(clock_limits_mhz=(("policy0", 2000.0), ("gpu", 900.0)))
    assert len(Board(lambda run: 10.0, states=(slow, fast)).time(QUICK).rounds) == 1


# -- what the loop needs


@pytest.mark.parametrize("enabled", [True, False])
def test_the_garbage_collector_rests_while_timing_and_is_set_back(enabled: bool) -> None:
    seen: list[bool] = []
    board = Board(lambda run: seen.append(gc.isenabled()) or 1.0)  # type: ignore[func-returns-value]
    was_enabled = gc.isenabled()
    try:
        (gc.enable if enabled else gc.disable)()
        timing = board.time(QUICK)
        assert not any(seen[timing.warmup_runs :])
        assert gc.isenabled() is enabled
        with pytest.raises(ZeroDivisionError):
            Board(lambda run: 1 / 0).time(QUICK)
        assert gc.isenabled() is enabled
    finally:
        (gc.enable if was_enabled else gc.disable)()


def test_a_clock_that_stands_still_is_refused() -> None:
    with pytest.raises(ValueError, match="does not advance"):
        Board(lambda run: 0.0).time(QUICK)
