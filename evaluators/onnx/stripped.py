"""Networks without their large weights, to be filled in on the device that times them.

Latency depends on the graph, not on the weights. What is left out of a tensor is told by the range
that its own values spread over, so that activations keep their scale, variances stay positive and
quantised numbers stay in their range; `device_agent.onnx.synthesize_weights` draws from it.
"""

import hashlib
import math
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import numpy as np
import onnx
from onnx import numpy_helper

from device_agent.onnx.synthesize_weights import FORMATS, Fill
from evaluators.onnx.artifacts import Artifact

KEPT_BYTES = 4096
"""Tensors of up to so many bytes stay: shapes, axes, scales, biases."""
LARGEST, LEAST_SPREAD = 1e4, 1e-6
"""Tensors that hold a larger number (masks with minus infinity), or hardly spread, stay too."""
DIGITS = 3


def strip_weights(artifact: Artifact) -> Artifact:
    """The same network in a file of its own beside the artifact's, without its large weights.

    Whole-number tensors other than quantised weights stay as they are. The caller discards it.
    """
    model = onnx.load(str(artifact.path), load_external_data=False)
    for tensor in model.graph.initializer:
        fill = fill_for(tensor)
        if fill is not None:
            without_values(tensor, fill)
    content = model.SerializeToString(deterministic=True)
    digest = hashlib.sha256(content).hexdigest()
    path = artifact.path.with_name(f"{digest}-{uuid4().hex[:8]}.onnx")
    try:
        path.write_bytes(content)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return replace(artifact, path=Path(path), sha256=digest, stripped=True)


def without_values(tensor: onnx.TensorProto, fill: Fill) -> None:
    """Leaves a tensor's values out and tells how they are to be drawn."""
    for field in ("raw_data", "float_data", "int32_data"):
        tensor.ClearField(field)
    tensor.doc_string = str(fill)


def fill_for(tensor: onnx.TensorProto) -> Fill | None:
    """From where to where a tensor's values may be drawn; None where it is to stay."""
    if tensor.data_type not in FORMATS:
        return None
    values = numpy_helper.to_array(tensor)
    if values.nbytes <= KEPT_BYTES:
        return None
    least, most = float(values.min()), float(values.max())
    if not max(abs(least), abs(most)) <= LARGEST:  # NaN is not either
        return None
    mean = float(values.mean(dtype=np.float64))
    spread = math.sqrt(3.0) * float(values.std(dtype=np.float64))
    low, high = max(least, mean - spread), min(most, mean + spread)
    if values.dtype.kind in "iu":
        return Fill(math.floor(low), math.ceil(high))
    if least == most and (least == 0.0 or abs(least) >= LEAST_SPREAD):
        return Fill(_rounded(least), _rounded(least))
    if high - low < LEAST_SPREAD:
        return None
    return Fill(_rounded(low), _rounded(high))


def _rounded(number: float) -> float:
    """A few digits are enough, and do not tell two builds of one design apart."""
    return float(f"{number:.{DIGITS}g}")
