"""ONNX nodes that are written one after another, with names of their own."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

PREFIX = "prepare/"
"""Of all names of nodes, tensors and constants that prepare inputs."""


class Nodes:
    """Nodes and constants of one graph, in the order in which they run.

    Attributes:
        nodes: so far.
        constants: that they read.
    """

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []

    def constant(self, value: Any, dtype: type[np.generic]) -> str:
        """Add a constant, and return its name."""
        name = f"{PREFIX}constant-{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def add(self, kind: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """Add a node of one output, and return the name of its output."""
        made = output or f"{PREFIX}{kind.lower()}-{len(self.nodes)}"
        name = f"{PREFIX}node-{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [made], name=name, **attributes))
        return made

    def cast(self, name: str, dtype: int) -> str:
        """The tensor as another type, of `onnx.TensorProto`."""
        return self.add("Cast", name, to=dtype)

    def floats(self, value: Any) -> str:
        """A float32 constant."""
        return self.constant(value, np.float32)

    def whole(self, value: int | Sequence[int]) -> str:
        """An int64 constant."""
        return self.constant(value, np.int64)
