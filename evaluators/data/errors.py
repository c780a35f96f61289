"""The one error of this package: everything that is wrong with some data, in one readable block."""

from __future__ import annotations

from collections.abc import Sequence

from search_space.errors import DATA, FusionNasError

SHOWN = 20


class DataError(FusionNasError):
    """Data that cannot be used as it is.

    `problems` holds every problem found, also those that `str()` leaves out after the first 20.
    `heading` names the file or folder; `advice` says what to do next, where one line serves all.
    """

    exit_code = DATA
    is_block = True

    def __init__(self, heading: str, problems: Sequence[str] = (), advice: str = "") -> None:
        lines = [heading, *(f"  {problem}" for problem in problems[:SHOWN])]
        if len(problems) > SHOWN:
            lines.append(f"  and {len(problems) - SHOWN:,} more")
        if advice:
            lines.append(advice)
        super().__init__("\n".join(lines))
        self.args = (heading, tuple(problems), advice)  # what pickle hands to this constructor
        self.heading = heading
        self.problems: tuple[str, ...] = tuple(problems) or (heading,)
        self.advice = advice


def short(value: str, length: int = 40) -> str:
    """`value` quoted, escaped and cut to `length` characters, for an error text."""
    return repr(value if len(value) <= length else value[: length - 3] + "...")
