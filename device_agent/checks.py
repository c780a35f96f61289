"""Checks that every value of the protocol passes, whether it was built here or came as JSON."""

import math
import re
from collections.abc import Callable, Collection
from typing import Any

SHA256 = re.compile(r"[0-9a-f]{64}")


class ProtocolError(ValueError):
    """A value or a message does not keep to the protocol; the text names field and value."""


def check_int(name: str, value: object, low: int, high: int) -> None:
    """Raise `ProtocolError` unless `value` is an int (no bool) in `low` to `high`, both allowed."""
    if type(value) is not int or not low <= value <= high:
        raise ProtocolError(f"{name} is {_show(value)}: give a whole number from {low} to {high}")


def check_real(name: str, value: object, low: float, high: float) -> None:
    """Raise `ProtocolError` unless `value` is a finite number in `low` to `high`, both allowed."""
    if type(value) not in (int, float) or not _finite(value) or not low <= value <= high:  # type: ignore[operator]
        raise ProtocolError(f"{name} is {_show(value)}: give a number from {low} to {high}")


def check_text(name: str, value: object, most: int, least: int = 1) -> None:
    """Raise `ProtocolError` unless `value` is text of `least` to `most` characters."""
    if not isinstance(value, str) or not least <= len(value) <= most:
        raise ProtocolError(f"{name} is {_show(value)}: give text of {least} to {most} characters")


def check_choice(name: str, value: object, choices: Collection[str]) -> None:
    """Raise `ProtocolError` unless `value` is one of `choices`."""
    if not isinstance(value, str) or value not in choices:
        raise ProtocolError(f"{name} is {_show(value)}: give one of {', '.join(choices)}")


def check_sha256(name: str, value: object) -> None:
    """Raise `ProtocolError` unless `value` is 64 lower-case hexadecimal digits."""
    if not isinstance(value, str) or not SHA256.fullmatch(value):
        raise ProtocolError(f"{name} is {_show(value)}: give 64 lower-case hexadecimal digits")


def check_known(check: Callable[..., None], name: str, value: object, *bounds: object) -> None:
    """Apply `check` to `value` and its bounds, unless it is None: not known."""
    if value is not None:
        check(name, value, *bounds)


def check_type(name: str, value: object, kind: type) -> None:
    """Raise `ProtocolError` unless `value` is of exactly this kind."""
    if type(value) is not kind:
        raise ProtocolError(f"{name} is {_show(value)}: give a {kind.__name__}")


def take(where: str, value: object, names: Collection[str]) -> dict[str, Any]:
    """Return the JSON object `value` when it holds exactly `names`.

    Raises:
        ProtocolError: it is no object, lacks a name, or holds one that nobody asked for.
    """
    if not isinstance(value, dict):
        raise ProtocolError(f"{where} is {_show(value)}: give a JSON object")
    missing = [name for name in names if name not in value]
    unknown = [str(name) for name in value if name not in names]
    if missing or unknown:
        raise ProtocolError(f"{where}: fields missing {missing}, unknown {[*map(_show, unknown)]}")
    return dict(value)


def as_tuple(name: str, value: object) -> tuple[Any, ...]:
    """Return a JSON array as a tuple; raises `ProtocolError` for anything else."""
    if not isinstance(value, list):
        raise ProtocolError(f"{name} is {_show(value)}: give a JSON array")
    return tuple(value)


def _finite(value: Any) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _show(value: object) -> str:
    if isinstance(value, int) and value.bit_length() > 128:
        return "a huge whole number"
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
