"""An ONNX graph that passes rewrite in place: who makes a value, who reads it, what is constant."""

from collections import defaultdict
from collections.abc import Iterable

import numpy as np
import onnx
from onnx import NodeProto, helper, numpy_helper


class Graph:
    """The graph of a model, whose nodes stay in an order in which they can run.

    Constants are initializers; a `Constant` node of a tensor becomes one at the start.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.outputs = {entry.name for entry in model.graph.output}
        self.inputs = {entry.name for entry in model.graph.input}
        self.nodes: list[NodeProto] = []
        self.constants = {tensor.name: tensor for tensor in model.graph.initializer}
        for node in model.graph.node:
            tensor = _tensor_of(node)
            if tensor is None or node.output[0] in self.outputs:
                self.nodes.append(node)
            else:
                self.set_constant(node.output[0], tensor)
        self.refresh()

    def refresh(self) -> None:
        """Look again at who makes and who reads what."""
        self.makers = {name: node for node in self.nodes for name in node.output}
        self.readers: dict[str, list[NodeProto]] = defaultdict(list)
        for node in self.nodes:
            for name in read_by(node):
                self.readers[name].append(node)

    def value(self, name: str) -> np.ndarray | None:
        """The values of a constant; None for anything else."""
        found = self.constants.get(name)
        return None if found is None else numpy_helper.to_array(found)

    def set_constant(self, name: str, value: "np.ndarray | onnx.TensorProto") -> str:
        """Make a constant of this name, and return the name."""
        tensor = onnx.TensorProto()
        made = numpy_helper.from_array(value) if isinstance(value, np.ndarray) else value
        tensor.CopyFrom(made)
        tensor.name = name
        self.constants[name] = tensor
        return name

    def replace(self, old: str, new: str) -> None:
        """Have all who read a value read another one."""
        for node in self.readers.pop(old, []):
            rename(node, old, new)
            self.readers[new].append(node)

    def finish(self) -> None:
        """Write nodes and constants back, without what no output depends on."""
        needed, kept = set(self.outputs), []
        for node in reversed(self.nodes):
            if needed.intersection(node.output):
                kept.append(node)
                needed.update(read_by(node))
        copies = []
        for node in reversed(kept):
            copies.append(NodeProto())
            copies[-1].CopyFrom(node)
        del self.model.graph.node[:]
        self.model.graph.node.extend(copies)
        tensors = [tensor for name, tensor in self.constants.items() if name in needed]
        del self.model.graph.initializer[:]
        self.model.graph.initializer.extend(tensors)
        del self.model.graph.value_info[:]


def read_by(node: NodeProto) -> Iterable[str]:
    """All that a node reads, by the graphs inside it too."""
    yield from (name for name in node.input if name)
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for inner in graph.node:
                yield from read_by(inner)


def attributes_of(node: NodeProto) -> dict[str, object]:
    """A node's attributes as Python values."""
    return {each.name: helper.get_attribute_value(each) for each in node.attribute}


def _tensor_of(node: NodeProto) -> "np.ndarray | onnx.TensorProto | None":
    if node.op_type != "Constant":
        return None
    (name, value), *more = attributes_of(node).items()
    if more:
        return None
    if name == "value":
        assert isinstance(value, onnx.TensorProto)
        return value
    kinds = {"value_int": np.int64, "value_ints": np.int64, "value_float": np.float32}
    return np.array(value, kinds[name]) if name in kinds else None


def rename(node: NodeProto, old: str, new: str) -> None:
    """Have a node, and the nodes of graphs inside it, read another value."""
    node.input[:] = [new if name == old else name for name in node.input]
    for attribute in node.attribute:
        for inner in (attribute.g, *attribute.graphs):
            for each in inner.node:
                rename(each, old, new)
