"""The drift reference: one small network, the same everywhere, that tells a board's drift.

Its ONNX file is written here by hand with the standard library, so that the agent needs nothing
to make it: two convolutions and two matrix products, each but the last with a Relu behind it, of
weights that follow a rule. Of 62 million multiplications, it takes about a millisecond on a fast
processor. On a faster device it reads a taller picture, and ends in a mean so that no large output
has to be copied. Opset 13, float32, static shapes.
"""

import struct
from collections.abc import Sequence

from device_agent.wire.request import TensorSpec

SIZES = (28, 112, 448, 1792, 7168, 28672)
"""Rows of the picture: each size is four times the work of the one before."""
FLOAT32 = 1
OPSET = 13
IR = 7
RULE_LENGTH = 97


def reference_inputs(size: int = 0) -> tuple[TensorSpec, ...]:
    """Return the input of a size; beyond the first its values are ones, which need no drawing."""
    shape = (1, 16, SIZES[size], 28)
    if size == 0:
        return (TensorSpec("x", "float32", shape, low=-1.0, high=1.0),)
    return (TensorSpec("x", "float32", shape, fill="ones"),)


def reference_onnx(size: int = 0) -> bytes:
    """Return the reference as the bytes of an ONNX file; always the same bytes for a size."""
    last = "y" if size == 0 else "m4"
    nodes = [
        _conv("x", "w1", "c1"),
        _node("Relu", ["c1"], "r1"),
        _conv("r1", "w2", "c2"),
        _node("Relu", ["c2"], "r2"),
        _node("MatMul", ["r2", "w3"], "m3"),
        _node("Relu", ["m3"], "r3"),
        _node("MatMul", ["r3", "w4"], last),
    ]
    if size:
        nodes.append(_node("GlobalAveragePool", [last], "y"))
    weights = (
        _weights("w1", (64, 16, 3, 3)),
        _weights("w2", (64, 64, 3, 3)),
        _weights("w3", (28, 256)),
        _weights("w4", (256, 28)),
    )
    graph = b"".join(_part(1, node) for node in nodes) + _part(2, b"anchor")
    graph += b"".join(_part(5, one) for one in weights)
    shape = (1, 64, 1, 1) if size else (1, 64, 28, 28)
    graph += _part(11, _end("x", reference_inputs(size)[0].shape)) + _part(12, _end("y", shape))
    return _number(1, IR) + _part(7, graph) + _part(8, _number(2, OPSET))


def _conv(source: str, weights: str, target: str) -> bytes:
    ints = (("kernel_shape", (3, 3)), ("pads", (1, 1, 1, 1)))
    node = _node("Conv", [source, weights], target)
    for name, values in ints:
        listed = b"".join(_number(8, value) for value in values)
        node += _part(5, _part(1, name.encode()) + listed + _number(20, 7))
    return node


def _node(operator: str, sources: Sequence[str], target: str) -> bytes:
    ends = b"".join(_part(1, name.encode()) for name in sources) + _part(2, target.encode())
    return ends + _part(3, target.encode()) + _part(4, operator.encode())


def _weights(name: str, shape: Sequence[int]) -> bytes:
    """Return a tensor whose element i is ((37 i) mod 97 - 48) / 480: small, of both signs."""
    count = 1
    for extent in shape:
        count *= extent
    rule = [((37 * i) % RULE_LENGTH - RULE_LENGTH // 2) / 480 for i in range(RULE_LENGTH)]
    cycle = struct.pack(f"<{RULE_LENGTH}f", *rule)
    raw = (cycle * (count // RULE_LENGTH + 1))[: 4 * count]
    dims = b"".join(_number(1, extent) for extent in shape)
    return dims + _number(2, FLOAT32) + _part(8, name.encode()) + _part(9, raw)


def _end(name: str, shape: Sequence[int]) -> bytes:
    dims = b"".join(_part(1, _number(1, extent)) for extent in shape)
    tensor = _number(1, FLOAT32) + _part(2, dims)
    return _part(1, name.encode()) + _part(2, _part(1, tensor))


def _part(field: int, content: bytes) -> bytes:
    """One field of a protobuf message that holds bytes."""
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _number(field: int, value: int) -> bytes:
    """One field of a protobuf message that holds a whole number."""
    return _varint(field << 3) + _varint(value)


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])
