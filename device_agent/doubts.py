"""Why a round of timing is not to be trusted, in words with the figures that say so."""

from device_agent.board import BoardState, throttled
from device_agent.protocol import TimingProtocol
from device_agent.result import Round, half_medians

CLOCK_SHARE = 0.01
"""A clock limit that fell by less was only rounded."""
MOST_CHANGES = 16
"""Of a board's changes this many are told."""


def doubts_of(
    taken: Round, protocol: TimingProtocol, before: BoardState, after: BoardState
) -> tuple[str, ...]:
    """Return what speaks against a round; nothing where all of it agrees.

    Args:
        taken: the round.
        protocol: how far apart its blocks and its anchors may be.
        before: the board's state at its start.
        after: the board's state at its end.
    """
    return (
        *_apart(
            "the first and the second half of the blocks",
            half_medians(taken.samples_ms, taken.block_of),
            protocol.block_tolerance,
        ),
        *_apart("the drift anchor before and after", taken.anchor_ms, protocol.anchor_tolerance),
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


def apart(medians_ms: tuple[float, float]) -> float:
    """Return how far two readings are apart, as a share of the smaller one."""
    return max(medians_ms) / min(medians_ms) - 1.0


def _apart(what: str, medians_ms: tuple[float, float], tolerance: float) -> tuple[str, ...]:
    share = apart(medians_ms)
    if share <= tolerance:
        return ()
    figures = ", ".join(f"{median_ms:.4g}" for median_ms in medians_ms)
    allowed = f"{100 * tolerance:g} % are allowed"
    return (f"{what} are {100 * share:.1f} % apart ({figures} ms; {allowed})",)
