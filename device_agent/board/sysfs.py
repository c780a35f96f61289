"""Small files of the kernel: read whole, believed only where they make sense, never raising."""

import re
from collections.abc import Iterable
from pathlib import Path

MOST_BYTES = 2**20


def text(path: Path) -> str | None:
    """Return what a file says, stripped; None where it cannot be read or is empty."""
    try:
        with open(path, "rb") as file:
            raw = file.read(MOST_BYTES)
    except (OSError, ValueError):
        return None
    return raw.decode("utf-8", "replace").strip("\0 \t\r\n") or None


def as_number(said: str | None) -> float | None:
    """Return the number that a text is; None where it is none, or one that cannot be meant."""
    try:
        number = float(said) if said is not None else None
    except ValueError:
        return None
    return number if number is not None and abs(number) < 1e18 else None


def number(path: Path, scale: float = 1.0) -> float | None:
    """Return the number in a file times `scale`; None where there is none."""
    found = as_number(text(path))
    return None if found is None else round(found * scale, 6)


def in_order(paths: Iterable[Path]) -> list[Path]:
    """Return paths by the number in their names, so that `zone2` comes before `zone10`."""
    return sorted(paths, key=lambda path: int("".join(re.findall(r"\d", path.name)) or 0))
