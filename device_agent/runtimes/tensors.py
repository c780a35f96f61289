"""Outputs, whatever runtime they come from: seen to be finite, and digested the same way."""

import hashlib
import math
import struct
from collections.abc import Iterable
from dataclasses import dataclass

from device_agent.runtime import Refused

FLOATS = {"float16": "e", "float32": "f", "float64": "d"}


@dataclass(frozen=True)
class Output:
    """One output of a network.

    Attributes:
        name: as the graph names it.
        dtype: such as `float32`.
        shape: its extents.
        content: its elements, little endian, as in C.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    content: bytes


def digest(outputs: Iterable[Output]) -> str:
    """Return the SHA-256 of outputs; raises `Refused` where one holds NaN or an infinity."""
    found = hashlib.sha256()
    for output in outputs:
        _check_finite(output)
        found.update(f"{output.name} {output.dtype} {output.shape}\n".encode())
        found.update(output.content)
    return found.hexdigest()


def _check_finite(output: Output) -> None:
    code = FLOATS.get(output.dtype)
    if code is None:
        return
    count = len(output.content) // struct.calcsize(code)
    values = struct.unpack(f"<{count}{code}", output.content)
    bad = sum(1 for value in values if not math.isfinite(value))
    if bad:
        raise Refused(f"output {output.name}: {bad} of {count} values are NaN or inf")
