"""Why a round of timing is not to be trusted, in words with the figures that say so."""

from collections.abc import Sequence
from statistics import median

from device_agent.board.state import BoardState, throttled
from device_agent.wire.request import TimingProtocol
from device_agent.wire.result import Round, half_samples, median_bounds

CLOCK_SHARE = 0.01
"""A clock limit that fell by less was only rounded."""
MOST_CHANGES = 16
"""Of a board's changes this many are told."""


def instability_reasons_of(
    taken: Round, protocol: TimingProtocol, before: BoardState, after: BoardState
) -> tuple[str, ...]:
    """Return what speaks against a round; nothing where all of it agrees.

    Args:
        taken: the round.
        protocol: how far apart its blocks and its drift references may be.
        before: the board's state at its start.
        after: the board's state at its end.
    """
    return (
        *_halves(taken, protocol.block_tolerance),
        *_apart(
            "the drift reference before and after",
            taken.drift_reference_ms,
            protocol.reference_tolerance,
        ),
        *_company(taken.others_cores, protocol.others_cores),
        *(board_got_worse(before, after) if protocol.watch_board else ()),
    )


def board_got_worse(before: BoardState, after: BoardState) -> tuple[str, ...]:
    """Return in words how the board lost speed between two states, as far as it tells."""
    found = [*throttled(before, after)]
    if before.governor != after.governor:
        found.append(f"the clock's governor went from {before.governor} to {after.governor}")
    limits_mhz = dict(before.clock_limits_mhz)
    for clock, after_mhz in after.clock_limits_mhz:
        before_mhz = limits_mhz.get(clock, after_mhz)
        if after_mhz < before_mhz * (1 - CLOCK_SHARE):
            found.append(f"the limit of {clock} fell from {before_mhz:.0f} to {after_mhz:.0f} MHz")
    return tuple(found[:MOST_CHANGES])


def _company(cores: float | None, allowed: float) -> tuple[str, ...]:
    if cores is None or cores <= allowed:
        return ()
    return (f"other programs kept {cores:.2f} processors busy ({allowed:g} are allowed)",)


def differ(first_ms: Sequence[float], second_ms: Sequence[float], tolerance: float) -> bool:
    """Return whether what two samples were drawn from differs by more than is allowed.

    Their medians have to be over `tolerance` apart, and further than the samples' own spread
    explains: the bounds of the two medians do not overlap. Of fewer than six samples the bounds
    are the smallest and the largest.
    """
    if _share((median(first_ms), median(second_ms))) <= tolerance:
        return False
    first, second = (median_bounds(s) or (min(s), max(s)) for s in (first_ms, second_ms))
    return max(first[0], second[0]) > min(first[1], second[1])


def is_narrow(samples_ms: Sequence[float], share: float) -> bool:
    """Return whether the 95 % interval of the median is known, and as narrow as is asked."""
    bounds = median_bounds(samples_ms)
    return bounds is not None and bounds[1] - bounds[0] <= share * median(samples_ms)


def _halves(taken: Round, tolerance: float) -> tuple[str, ...]:
    halves = half_samples(taken.samples_ms, taken.block_of)
    if not differ(*halves, tolerance):
        return ()
    medians_ms = float(median(halves[0])), float(median(halves[1]))
    return _apart("the first and the second half of the blocks", medians_ms, tolerance)


def width_reasons(samples_ms: Sequence[float], share: float) -> tuple[str, ...]:
    """Return what speaks against samples whose median is not known as well as is asked."""
    if is_narrow(samples_ms, share):
        return ()
    bounds = median_bounds(samples_ms)
    if bounds is None:
        return (f"the 95 % interval is unknown: {len(samples_ms)} samples are too few for one",)
    percent = 100 * (bounds[1] - bounds[0]) / median(samples_ms)
    return (f"the 95 % interval is {percent:.3g} % wide, {100 * share:g} % asked",)


def _share(medians_ms: tuple[float, float]) -> float:
    """Return how far two readings are apart, as a share of the smaller one."""
    return max(medians_ms) / min(medians_ms) - 1.0


def _apart(what: str, medians_ms: tuple[float, float], tolerance: float) -> tuple[str, ...]:
    share = _share(medians_ms)
    if share <= tolerance:
        return ()
    figures = ", ".join(f"{median_ms:.4g}" for median_ms in medians_ms)
    allowed = f"{100 * tolerance:g} % are allowed"
    return (f"{what} are {100 * share:.1f} % apart ({figures} ms; {allowed})",)
