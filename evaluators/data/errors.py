"""The one error of this package: everything that is wrong with some data, in one readable block."""

from __future__ import annotations

from collections.abc import Sequence

SHOWN = 20


class DataError(Exception):
    """Data that cannot be used as it is.

    `problems` holds every problem found, also those that `str()` leaves out after the first 20.
    `heading` names the file or folder; `advice` says what to do next, where one line serves all.
    """

    def __init__(self, heading: str, problems: Sequence[str] = (), advice: str = "") -> None:
        super().__init__(heading, tuple(problems), advice)
        self.heading = heading
        self.problems: tuple[str, ...] = tuple(problems) or (heading,)
        self.advice = advice
        self._listed = tuple(problems)

    def __str__(self) -> str:
        lines = [self.heading, *(f"  {problem}" for problem in self._listed[:SHOWN])]
        if len(self._listed) > SHOWN:
            lines.append(f"  and {len(self._listed) - SHOWN:,} more")
        if self.advice:
            lines.append(self.advice)
        return "\n".join(lines)


def short(value: str, length: int = 40) -> str:
    """`value` quoted, escaped and cut to `length` characters, for an error text."""
    return repr(value if len(value) <= length else value[: length - 3] + "...")
