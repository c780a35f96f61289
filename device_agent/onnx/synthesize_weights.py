"""Weights made on the device, for networks that were sent without them.

Latency depends on the graph, not on the weights, so a host may leave out the bytes of large tensors
and write instead, in the tensor's `doc_string`, from which numbers to draw. The same file and seed
give the same bytes on every machine. What is drawn are ordinary numbers, none of them subnormal:
arithmetic on those is slower.
"""

import math
import random
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from device_agent.onnx.file import MalformedFile, OnnxFile, Tensor

MARK = "fusion-nas-fill:"
BLOCK = 16_381
"""Numbers drawn for one tensor, then repeated: a prime, so that no two rows of it are equal."""
CHUNK_BYTES = 2**20
MAX_FILLED_BYTES = 2**31 - 1
FORMATS: Mapping[int, str] = {1: "f", 2: "B", 3: "b", 10: "e"}
"""`struct` format by `onnx.TensorProto.DataType`: float32, uint8, int8, float16."""
LIMITS: Mapping[str, tuple[float, float]] = {
    "f": (-1e6, 1e6),
    "e": (-65504.0, 65504.0),
    "B": (0.0, 255.0),
    "b": (-128.0, 127.0),
}
LEAST: Mapping[str, float] = {"f": 2.0**-126, "e": 2.0**-14}
"""The smallest normal number of a format."""

_NUMBER = r"-?\d{1,8}(?:\.\d{1,20})?(?:e-?\d{1,2})?"
_UNIFORM = re.compile(rf"uniform:({_NUMBER}):({_NUMBER})")


@dataclass(frozen=True)
class Fill:
    """From what the values of a tensor are drawn: evenly from `low` to `high`.

    Whole-number tensors take both bounds; equal bounds are a constant.
    """

    low: float
    high: float

    def __str__(self) -> str:
        """Return what stands in a tensor's `doc_string`."""
        return f"{MARK}uniform:{self.low:g}:{self.high:g}"


def fill_of(tensor: Tensor) -> Fill | None:
    """Return how a tensor is to be filled, or None where it does not ask for it.

    Raises:
        MalformedFile: it asks in a way that is not understood.
    """
    if not tensor.doc.startswith(MARK):
        return None
    asked = _UNIFORM.fullmatch(tensor.doc[len(MARK) :])
    code = FORMATS.get(tensor.data_type)
    where = f"tensor {tensor.name[:80]!r}: the fill {tensor.doc[:80]!r}"
    if asked is None or code is None:
        known = f"type {tensor.data_type} and uniform:LOW:HIGH"
        raise MalformedFile(f"{where} does not fit: known are types {[*FORMATS]}, here {known}")
    fill = Fill(float(asked[1]), float(asked[2]))
    least, most = LIMITS[code]
    if not least <= fill.low <= fill.high <= most:
        raise MalformedFile(f"{where} leaves {least:g} to {most:g}, or its low is over its high")
    if code in "bB" and not (fill.low.is_integer() and fill.high.is_integer()):
        raise MalformedFile(f"{where} has bounds that are not whole")
    return fill


def is_empty(tensor: Tensor) -> bool:
    """Whether a tensor that has elements holds none of them."""
    return tensor.raw is None and not tensor.typed and tensor.elements > 0


def fill_weights(stripped: Path, found: OnnxFile, seed: int, filled: Path) -> None:
    """Write the network with its missing weights drawn.

    Args:
        stripped: the file as it was sent.
        found: what it holds, checked by the guard.
        seed: of the weights.
        filled: where to write; it does not exist yet.

    Raises:
        MalformedFile: with its weights it would be larger than such a file may be.
        OSError: the file cannot be written.
    """
    empty = {k: t for k, t in enumerate(found.graph.initializers) if _to_fill(t)}
    grown = {k: _head(tensor) for k, tensor in empty.items()}
    more = sum(len(grown[k][0]) + _bytes(t) - _head_size(t) for k, t in empty.items())
    graph = found.graph_content
    head = b"\x3a" + _varint(graph.size + more)
    if found.size + more + len(head) > MAX_FILLED_BYTES:
        raise MalformedFile(f"with its weights it has over {MAX_FILLED_BYTES} bytes")
    draw = random.Random(seed)
    base = [draw.random() for _ in range(BLOCK)]
    with open(stripped, "rb") as source, open(filled, "xb") as file:
        data = source.read()
        file.write(data[: found.graph_field.start] + head)
        at = graph.start
        for k, tensor in empty.items():
            file.write(data[at : tensor.field.start])
            file.write(grown[k][0] + data[tensor.content.start : tensor.content.end] + grown[k][1])
            for chunk in _values(tensor, base, k):
                file.write(chunk)
            at = tensor.field.end
        file.write(data[at:])


def _to_fill(tensor: Tensor) -> bool:
    return fill_of(tensor) is not None and is_empty(tensor)


def _bytes(tensor: Tensor) -> int:
    return tensor.elements * struct.calcsize(FORMATS[tensor.data_type])


def _head(tensor: Tensor) -> tuple[bytes, bytes]:
    """What stands before the tensor's own fields once it is filled, and before its raw bytes."""
    raw = b"\x4a" + _varint(_bytes(tensor))
    return b"\x2a" + _varint(tensor.content.size + len(raw) + _bytes(tensor)), raw


def _head_size(tensor: Tensor) -> int:
    return tensor.content.start - tensor.field.start - len(_head(tensor)[1])


def _varint(number: int) -> bytes:
    made = bytearray()
    while number > 127:
        made.append(number & 127 | 128)
        number >>= 7
    return bytes([*made, number])


def _values(tensor: Tensor, base: list[float], turn: int) -> Iterator[bytes]:
    """Give the bytes of a tensor in pieces; `turn` keeps tensors of one kind from being equal."""
    fill = fill_of(tensor)
    assert fill is not None
    block = _block(FORMATS[tensor.data_type], fill, base, turn)
    left = _bytes(tensor)
    chunk = block * math.ceil(min(left, CHUNK_BYTES) / len(block))
    while left > 0:
        yield chunk[:left]
        left -= len(chunk)


def _block(code: str, fill: Fill, base: list[float], turn: int) -> bytes:
    low, span = fill.low, fill.high - fill.low
    at = turn * 7919 % BLOCK
    values: list[float] | list[int]
    if code in "bB":
        values = [int(low) + int(u * (int(span) + 1)) for u in base]
    elif span == 0:
        values = [low] * BLOCK
    else:
        least = LEAST[code]
        drawn = (low + u * span for u in base)
        values = [value if abs(value) >= least else least for value in drawn]
    packed = struct.pack(f"<{BLOCK}{code}", *values)
    at *= struct.calcsize(code)
    return packed[at:] + packed[:at]
