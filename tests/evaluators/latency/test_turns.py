"""One of many short readings: what is asked of it, and that a quiet device is timed as always."""

from dataclasses import replace

from device_agent.wire.request import TimingProtocol
from evaluators.latency.evaluator import BOARD_TIMING, LOCAL_TIMING, brief


def test_a_device_that_does_nothing_else_is_timed_as_always() -> None:
    assert brief(BOARD_TIMING) == BOARD_TIMING


def test_a_short_reading_is_taken_once_and_as_wide_as_it_is() -> None:
    short = brief(LOCAL_TIMING)
    assert short.retries == 0 and short.max_time_s < LOCAL_TIMING.max_time_s
    assert min(short.interval_share, short.block_tolerance, short.reference_tolerance) > 1e5
    assert short.min_repeats == LOCAL_TIMING.min_repeats


def test_a_short_reading_crosses_the_wire() -> None:
    short = brief(replace(LOCAL_TIMING, blocks=3))
    assert TimingProtocol.from_json(short.as_json()) == short
