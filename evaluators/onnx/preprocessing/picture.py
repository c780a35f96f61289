"""A picture of any size as what a vision encoder reads, as ONNX operators."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from onnx import TensorProto, ValueInfoProto, helper

from evaluators.onnx.preprocessing.nodes import Nodes

IMAGE = "image"


def image_input() -> ValueInfoProto:
    """The input of a decoded picture: uint8 (height, width, 3), RGB, of any size."""
    return helper.make_tensor_value_info(IMAGE, TensorProto.UINT8, ["height", "width", 3])


def add_image(nodes: Nodes, rule: Mapping[str, Any], to: str) -> None:
    """Add the nodes that make float32 (1, 3, S, S) of a picture.

    The picture is resized to a square by an antialiased bilinear filter in 8 bits, as Pillow's
    `resize` does it, brought to 0..1 and normalised by channel. `exclude_outside` has the filter
    leave out what lies beyond the border; Pillow does so too, and the operator's default repeats
    the border. Values differ from Pillow's by rounding: one or two of 255 levels.

    Args:
        nodes: takes them.
        rule: "size" S in pixels, "mean" and "std" of three channels.
        to: name of the output.
    """
    size = rule["size"]
    mean, std = (np.array(rule[key], np.float32).reshape(1, 3, 1, 1) for key in ("mean", "std"))
    channels = nodes.add("Transpose", IMAGE, perm=[2, 0, 1])
    batch = nodes.add("Unsqueeze", channels, nodes.whole([0]))
    square = nodes.add(
        "Resize",
        batch,
        "",
        "",
        nodes.whole([1, 3, size, size]),
        mode="linear",
        coordinate_transformation_mode="half_pixel",
        antialias=1,
        exclude_outside=1,
    )
    values = nodes.cast(square, TensorProto.FLOAT)
    scaled = nodes.add("Div", values, nodes.floats(255))
    centred = nodes.add("Sub", scaled, nodes.floats(mean))
    nodes.add("Div", centred, nodes.floats(std), output=to)
