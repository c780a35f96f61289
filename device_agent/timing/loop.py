"""The one timing loop: every runtime on every device is timed by it."""

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from statistics import median

from device_agent.board.state import BoardState
from device_agent.timing.instability import differ, instability_reasons_of, is_narrow, width_reasons
from device_agent.wire.request import TimingProtocol
from device_agent.wire.result import Round, half_samples

REFERENCE_WARMUP_RUNS = 5
"""Runs of the reference that are not counted: the network has just had caches and cores."""

Clock = Callable[[], int]
"""Nanoseconds since any fixed moment, never falling."""


@dataclass(frozen=True)
class Timed:
    """What is timed, and what is watched meanwhile.

    Attributes:
        run_once: runs the network once.
        run_drift_reference: runs the drift reference once, in the same process by the same runtime.
        read_state: reads the state of the board.
        others_s: seconds of processor time that other programs have taken so far, all processors
            together; None where the system does not tell.
        process_ns: processor time of this process so far, where it is the work of the network: it
            is not if threads wait for work, or an accelerator does it. None then.
    """

    run_once: Callable[[], object]
    run_drift_reference: Callable[[], object]
    read_state: Callable[[], BoardState]
    others_s: Callable[[], float | None]
    process_ns: Clock | None = None


@dataclass(frozen=True)
class Timing:
    """What the loop saw.

    Attributes:
        rounds: every round in the order taken; the last one counts, those before were unstable.
        warmup_runs: runs of the warm-up.
        steady: whether the warm-up became steady before its time was up.
    """

    rounds: tuple[Round, ...]
    warmup_runs: int
    steady: bool


def time_runs(
    timed: Timed, protocol: TimingProtocol, clock_ns: Clock = time.perf_counter_ns
) -> Timing:
    """Warm the network up, then time it in rounds as the protocol says.

    A round is reference, block, block (more where the interval is still wide), reference: A B B A.
    Of a steady drift both ends of the round are as far away as its middle, so it shows in the
    references and in the blocks, not in one of them alone. The garbage collector rests while
    samples are taken and is set back as it was afterwards.

    Raises:
        ValueError: the clock did not advance during a run; time something longer.
        Exception: whatever is timed raises.
    """
    warmup_runs, steady = _warm_up(timed.run_once, protocol, clock_ns)
    rounds: list[Round] = []
    with _garbage_collector_resting():
        while not rounds or (rounds[-1].instability_reasons and len(rounds) <= protocol.retries):
            rounds.append(_take_round(timed, protocol, clock_ns))
    last = rounds[-1]
    if (
        not last.instability_reasons
    ):  # Only now: taken again, a round would be as wide, for as long.
        rounds[-1] = replace(
            last, instability_reasons=width_reasons(last.samples_ms, protocol.interval_share)
        )
    return Timing(tuple(rounds), warmup_runs, steady)


def _warm_up(
    run_once: Callable[[], object], protocol: TimingProtocol, clock_ns: Clock
) -> tuple[int, bool]:
    start_ns = clock_ns()
    runs_ms: list[float] = []
    while True:
        runs_ms.append(_one_run_ms(run_once, clock_ns))
        passed_s = (clock_ns() - start_ns) / 1e9
        enough = len(runs_ms) >= protocol.warmup_min_runs and passed_s >= protocol.warmup_min_s
        if not enough or len(runs_ms) < 2 * protocol.steady_runs:
            continue
        last = runs_ms[-protocol.steady_runs :]
        before = runs_ms[-2 * protocol.steady_runs : -protocol.steady_runs]
        if abs(median(last) - median(before)) <= protocol.steady_tolerance * median(before):
            return len(runs_ms), True
        if passed_s >= protocol.warmup_max_s:
            # Of runs that are merely spread the medians are apart too: that is not warming up.
            return len(runs_ms), not differ(before, last, protocol.steady_tolerance)


def _take_round(timed: Timed, protocol: TimingProtocol, clock_ns: Clock) -> Round:
    board_before = timed.read_state()
    start_ns, others_before_s = clock_ns(), timed.others_s()
    before_ms = _anchor_ms(timed.run_drift_reference, protocol, clock_ns)
    timed.run_once()  # The reference had the caches: the first run after it is not a sample.
    spent_before_ns = timed.process_ns() if timed.process_ns else 0
    samples_ms, block_of = _take_blocks(timed.run_once, protocol, clock_ns)
    cpu_ms = None
    if timed.process_ns:
        cpu_ms = (timed.process_ns() - spent_before_ns) / 1e6 / len(samples_ms)
    after_ms = _anchor_ms(timed.run_drift_reference, protocol, clock_ns)
    others_s, passed_s = timed.others_s(), (clock_ns() - start_ns) / 1e9
    others = None
    if others_s is not None and others_before_s is not None:
        others = max(0.0, others_s - others_before_s) / passed_s
    taken = Round(tuple(samples_ms), tuple(block_of), (before_ms, after_ms), others, cpu_ms=cpu_ms)
    instability_reasons = instability_reasons_of(taken, protocol, board_before, timed.read_state())
    return replace(taken, instability_reasons=instability_reasons)


def _anchor_ms(
    run_drift_reference: Callable[[], object], protocol: TimingProtocol, clock_ns: Clock
) -> float:
    for _ in range(REFERENCE_WARMUP_RUNS):
        run_drift_reference()
    return float(
        median(_one_run_ms(run_drift_reference, clock_ns) for _ in range(protocol.reference_runs))
    )


def _take_blocks(
    run_once: Callable[[], object], protocol: TimingProtocol, clock_ns: Clock
) -> tuple[list[float], list[int]]:
    start_ns = clock_ns()
    samples_ms: list[float] = []
    block_of: list[int] = []
    block = 0
    while True:
        to_come = max(protocol.blocks - block, 1)
        most = (protocol.max_repeats - len(samples_ms)) // to_come
        max_s = (protocol.max_time_s - (clock_ns() - start_ns) / 1e9) / to_come
        taken = _take_block(run_once, protocol, most, max_s, clock_ns)
        samples_ms += taken
        block_of += [block] * len(taken)
        block += 1
        if block < protocol.blocks:
            continue
        passed_s = (clock_ns() - start_ns) / 1e9
        spent = len(samples_ms) >= protocol.max_repeats or passed_s >= protocol.max_time_s
        # A round that drifts is taken again: more samples of it would be for nothing.
        lost = differ(*half_samples(samples_ms, block_of), protocol.block_tolerance)
        if spent or lost or is_narrow(samples_ms, protocol.interval_share):
            return samples_ms, block_of


def _take_block(
    run_once: Callable[[], object],
    protocol: TimingProtocol,
    most: int,
    max_s: float,
    clock_ns: Clock,
) -> list[float]:
    """Take one block's share of the minima, at least one and at most `most` samples."""
    least = -(-protocol.min_repeats // protocol.blocks)
    min_s = protocol.min_time_s / protocol.blocks
    start_ns = clock_ns()
    samples_ms: list[float] = []
    while True:
        samples_ms.append(_one_run_ms(run_once, clock_ns))
        passed_s = (clock_ns() - start_ns) / 1e9
        if len(samples_ms) >= most or passed_s >= max_s:
            return samples_ms
        if len(samples_ms) >= least and passed_s >= min_s:
            return samples_ms


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
