"""The values of a network's inputs, made from a seed with the standard library alone.

The same seed and spec give the same bytes with every runtime and on every machine.
"""

import random
import struct

from device_agent.wire.request import TensorSpec

FORMATS = {"int64": "q", "int32": "i", "float32": "f", "float16": "e", "uint8": "B", "int16": "h"}


def tensor_bytes(spec: TensorSpec, seed: int) -> bytes:
    """Return the elements of one input, little endian, rows last to first as in C."""
    code = FORMATS[spec.dtype]
    if spec.fill == "zeros":
        return bytes(spec.elements * struct.calcsize(code))
    if spec.fill == "ones":
        return struct.pack(f"<{code}", 1) * spec.elements
    draw = random.Random(f"{seed}/{spec.name}")
    values: list[float]
    if spec.fill == "normal":
        values = [draw.gauss(0.0, 1.0) for _ in range(spec.elements)]
    elif spec.is_integer:
        low, span = int(spec.low), int(spec.high) - int(spec.low)
        values = [low + int(draw.random() * span) for _ in range(spec.elements)]
    else:
        span_real = spec.high - spec.low
        values = [spec.low + draw.random() * span_real for _ in range(spec.elements)]
    return struct.pack(f"<{spec.elements}{code}", *values)
