"""What an ONNX file reads, as specifications that a device can fill."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx

from device_agent.wire.request import BOUNDS, DTYPES, TensorSpec

RAW = ("uint8", "int16")
"""Elements of pictures and sounds as they are read from files."""


def input_specs(path: Path, shapes: Mapping[str, Sequence[int]]) -> tuple[TensorSpec, ...]:
    """Return the inputs of an ONNX file: floats are drawn from [0, 1), whole numbers are 0 or 1.

    Pixels (uint8) and samples of sound (int16) are drawn from all that their type has.

    Args:
        path: the file; its weights are not read.
        shapes: extents by input name, instead of those of the file.

    Raises:
        ValueError: for a file that is no ONNX, an input whose extents are not known, a name in
            `shapes` that is no input, or an element type that devices do not take.
    """
    try:
        graph = onnx.load(str(path), load_external_data=False).graph
    except Exception as error:  # protobuf's own error has no public base class
        raise ValueError(f"{path}: cannot be read as ONNX ({error})") from error
    weights = {each.name for each in graph.initializer}
    read = [each for each in graph.input if each.name not in weights]
    unknown = set(shapes) - {each.name for each in read}
    if unknown:
        names = ", ".join(each.name for each in read)
        raise ValueError(f"{path}: {sorted(unknown)[0]!r} is no input; there are {names}")
    return tuple(_spec(path, each, shapes.get(each.name)) for each in read)


def _spec(path: Path, value: onnx.ValueInfoProto, given: Sequence[int] | None) -> TensorSpec:
    tensor = value.type.tensor_type
    kind = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
    if kind not in DTYPES:
        raise ValueError(
            f"{path}: input {value.name!r} is {kind}; devices take {', '.join(DTYPES)}"
        )
    own = [extent.dim_value or extent.dim_param or "?" for extent in tensor.shape.dim]
    extents = [each for each in (own if given is None else given) if isinstance(each, int)]
    if len(extents) != len(own):
        said = ", ".join(map(str, own))
        raise ValueError(
            f"{path}: input {value.name!r} is ({said}): give its extents, such as 1,64"
        )
    low, high = 0.0, 2.0 if kind in BOUNDS else 1.0
    if kind in RAW:
        low, high = map(float, BOUNDS[kind])
    return TensorSpec(value.name, kind, tuple(extents), low=low, high=high)
