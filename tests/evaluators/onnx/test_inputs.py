"""What an ONNX file reads, as specifications that a device can fill."""

from collections.abc import Sequence
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from evaluators.onnx.inputs import input_specs


def network(path: Path, kind: int, shape: Sequence[int | str]) -> Path:
    read = helper.make_tensor_value_info("x", kind, shape)
    given = helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)
    cast = helper.make_node("Cast", ["x"], ["y"], to=TensorProto.FLOAT)
    onnx.save(helper.make_model(helper.make_graph([cast], "g", [read], [given])), path)
    return path


@pytest.mark.parametrize(
    ("kind", "dtype", "low", "high"),
    [
        (TensorProto.FLOAT, "float32", 0, 1),
        (TensorProto.FLOAT16, "float16", 0, 1),
        (TensorProto.INT64, "int64", 0, 2),
        (TensorProto.INT32, "int32", 0, 2),
        (TensorProto.UINT8, "uint8", 0, 256),
        (TensorProto.INT16, "int16", -32768, 32768),
    ],
)
def test_inputs_are_drawn_from_what_their_type_is_used_for(
    tmp_path: Path, kind: int, dtype: str, low: int, high: int
) -> None:
    (spec,) = input_specs(network(tmp_path / "n.onnx", kind, ["height", 4, 3]), {"x": (2, 4, 3)})
    assert (spec.dtype, spec.shape, spec.low, spec.high) == (dtype, (2, 4, 3), low, high)


@pytest.mark.parametrize(
    ("shapes", "said"),
    [
        ({}, r"input 'x' is \(height, 4, 3\): give its extents"),
        ({"y": (1,)}, "'y' is no input; there are x"),
        ({"x": (2, 4)}, "give its extents"),
    ],
)
def test_extents_that_are_missing_or_of_no_input_are_named(
    tmp_path: Path, shapes: dict[str, tuple[int, ...]], said: str
) -> None:
    path = network(tmp_path / "n.onnx", TensorProto.UINT8, ["height", 4, 3])
    with pytest.raises(ValueError, match=said):
        input_specs(path, shapes)


def test_a_type_that_devices_do_not_take_is_named_with_those_that_they_do(tmp_path: Path) -> None:
    path = network(tmp_path / "n.onnx", TensorProto.DOUBLE, [1])
    with pytest.raises(ValueError, match=r"'x' is float64; devices take int64, .*uint8, int16"):
        input_specs(path, {})
