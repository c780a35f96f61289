"""The one timing loop: every runtime on every device is timed by it."""

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median

from device_agent.protocol import TimingProtocol

Clock = Callable[[], int]
"""Nanoseconds since any fixed moment, never falling."""


@dataclass(frozen=True)
class Timing:
    """What the loop saw.

    Attributes:
        samples_ms: time of every run after the warm-up, in the order taken.
        block_of: for every sample the index of its block, from 0.
        warmup_runs: runs of the warm-up.
        steady: whether the warm-up became steady before its time was up.
    """

    samples_ms: tuple[float, ...]
    block_of: tuple[int, ...]
    warmup_runs: int
    steady: bool


def time_runs(
    run_once: Callable[[], object], protocol: TimingProtocol, clock_ns: Clock = time.perf_counter_ns
) -> Timing:
    """Warm `run_once` up, then time it in blocks as the protocol says.

    The garbage collector rests while blocks are taken and is set back as it was afterwards.

    Raises:
        ValueError: the clock did not advance during a run; time something longer.
        Exception: whatever `run_once` raises.
    """
    warmup_runs, steady = _warm_up(run_once, protocol, clock_ns)
    samples_ms: list[float] = []
    block_of: list[int] = []
    with _garbage_collector_resting():
        for block in range(protocol.blocks):
            taken = _take_block(run_once, protocol, block, clock_ns)
            samples_ms += taken
            block_of += [block] * len(taken)
    return Timing(tuple(samples_ms), tuple(block_of), warmup_runs, steady)


def _warm_up(
    run_once: Callable[[], object], protocol: TimingProtocol, clock_ns: Clock
) -> tuple[int, bool]:
    start_ns = clock_ns()
    runs_ms: list[float] = []
    while True:
        runs_ms.append(_one_run_ms(run_once, clock_ns))
        passed_s = (clock_ns() - start_ns) / 1e9
        steady = _is_steady(runs_ms, protocol)
        enough = len(runs_ms) >= protocol.warmup_min_runs and passed_s >= protocol.warmup_min_s
        if enough and (steady or passed_s >= protocol.warmup_max_s):
            return len(runs_ms), steady


def _is_steady(runs_ms: list[float], protocol: TimingProtocol) -> bool:
    window = protocol.steady_runs
    if len(runs_ms) < 2 * window:
        return False
    before, last = median(runs_ms[-2 * window : -window]), median(runs_ms[-window:])
    return abs(last - before) <= protocol.steady_tolerance * before


def _take_block(
    run_once: Callable[[], object], protocol: TimingProtocol, block: int, clock_ns: Clock
) -> list[float]:
    least = _share(protocol.min_repeats, block, protocol.blocks)
    most = _share(protocol.max_repeats, block, protocol.blocks)
    min_s, max_s = protocol.min_time_s / protocol.blocks, protocol.max_time_s / protocol.blocks
    start_ns = clock_ns()
    samples_ms: list[float] = []
    while True:
        samples_ms.append(_one_run_ms(run_once, clock_ns))
        passed_s = (clock_ns() - start_ns) / 1e9
        if len(samples_ms) >= most or passed_s >= max_s:
            return samples_ms
        if len(samples_ms) >= least and passed_s >= min_s:
            return samples_ms


def _share(total: int, block: int, blocks: int) -> int:
    """Return the block's share of `total`, the first blocks taking what does not divide."""
    return total // blocks + (1 if block < total % blocks else 0)


def _one_run_ms(run_once: Callable[[], object], clock_ns: Clock) -> float:
    start_ns = clock_ns()
    run_once()
    end_ns = clock_ns()
    if end_ns <= start_ns:
        took = f"a run took {end_ns - start_ns} ns by the clock"
        raise ValueError(f"{took}, which does not advance: time something longer")
    return (end_ns - start_ns) / 1e6


@contextmanager
def _garbage_collector_resting() -> Iterator[None]:
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
