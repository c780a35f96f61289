"""What an ONNX file holds, listed without a runtime, and without reading the weights.

The file is mapped, not copied.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from mmap import ACCESS_READ, mmap
from pathlib import Path

from device_agent.onnx.protobuf import MalformedFile, Message, Reading, Span
from device_agent.onnx.tables import TABLES

__all__ = ["Graph", "MalformedFile", "Node", "OnnxFile", "Span", "Tensor", "Value", "read_onnx"]

TYPED = ("float_data", "int32_data", "string_data", "int64_data", "double_data", "uint64_data")


@dataclass(frozen=True)
class Tensor:
    """A tensor that the file holds, or says to be elsewhere.

    Attributes:
        name: empty for the value of an attribute.
        dims: its extents as the file gives them, negative ones too.
        data_type: the number of `onnx.TensorProto.DataType`.
        doc: its `doc_string`.
        raw: where its bytes lie; None where it has none.
        typed: how many elements it holds in other fields than `raw_data`, by field.
        external: whether it says that its bytes lie in another file.
        parted: whether it says to be a segment of a larger one.
        field: the whole field in the file, from its tag.
        content: the tensor's message.
    """

    name: str
    dims: tuple[int, ...]
    data_type: int
    doc: str
    raw: Span | None
    typed: Mapping[str, int]
    external: bool
    parted: bool
    field: Span
    content: Span

    @property
    def elements(self) -> int:
        """The product of its extents."""
        return math.prod(self.dims)


@dataclass(frozen=True)
class Value:
    """An input or output of a graph.

    `elem_type` is None where it is no plain tensor; an extent that the file leaves open is None.
    """

    name: str
    elem_type: int | None
    dims: tuple[int | None, ...] | None


@dataclass(frozen=True)
class Node:
    """One operator with its names, and the tensors and graphs among its attributes."""

    op_type: str
    domain: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: tuple[str, ...]
    tensors: tuple[Tensor, ...]
    graphs: tuple["Graph", ...]
    sparse_tensors: int
    references: int


@dataclass(frozen=True)
class Graph:
    """A graph or subgraph; `values` are the names that `value_info` tells the types of."""

    name: str
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    values: tuple[Value, ...]
    nodes: tuple[Node, ...]
    initializers: tuple[Tensor, ...]
    sparse_initializers: int


@dataclass(frozen=True)
class OnnxFile:
    """A whole file.

    Attributes:
        ir_version: None where the file does not say it.
        opsets: domain and version of every operator set.
        graph: its graph.
        graph_field: the field of the graph, from its tag.
        graph_content: the graph's message.
        functions: domain and name of every local function.
        training: number of training graphs.
        configurations: number of descriptions of several devices.
        metadata: keys and values.
        size: bytes of the file.
    """

    ir_version: int | None
    opsets: tuple[tuple[str, int], ...]
    graph: Graph
    graph_field: Span
    graph_content: Span
    functions: tuple[tuple[str, str], ...]
    training: int
    configurations: int
    metadata: tuple[tuple[str, str], ...]
    size: int


def read_onnx(file: Path) -> OnnxFile:
    """List what an ONNX file holds.

    Raises:
        MalformedFile: it is no such file; nothing else is raised for any content.
        OSError: it cannot be opened.
    """
    with open(file, "rb") as opened:
        if not opened.seek(0, 2):
            raise MalformedFile("the file is empty")
        with mmap(opened.fileno(), 0, access=ACCESS_READ) as data:
            return parse_onnx(data)


def parse_onnx(data: bytes | mmap) -> OnnxFile:
    """List what the bytes of an ONNX file hold; raises `MalformedFile`."""
    reading = Reading(data, TABLES)
    model = reading.message("Model")
    graphs = model.messages.get("graph")
    if not graphs:
        raise MalformedFile("the file holds no graph")
    return OnnxFile(
        ir_version=model.ints.get("ir_version"),
        opsets=tuple(
            (one.text("domain"), one.ints.get("version", 0)) for one in _all(model, "opset_import")
        ),
        graph=_graph(reading, graphs[0]),
        graph_field=graphs[0].whole,
        graph_content=graphs[0].content,
        functions=tuple((one.text("domain"), one.text("name")) for one in _all(model, "functions")),
        training=len(model.spans.get("training_info", ())),
        configurations=len(model.spans.get("configuration", ())),
        metadata=tuple(
            (one.text("key"), one.text("value")) for one in _all(model, "metadata_props")
        ),
        size=len(data),
    )


def _all(message: Message, name: str) -> list[Message]:
    return message.messages.get(name, [])


def _graph(reading: Reading, graph: Message) -> Graph:
    return Graph(
        name=graph.text("name"),
        inputs=tuple(_value(one) for one in _all(graph, "input")),
        outputs=tuple(_value(one) for one in _all(graph, "output")),
        values=tuple(_value(one) for one in _all(graph, "value_info")),
        nodes=tuple(_node(reading, one) for one in _all(graph, "node")),
        initializers=tuple(_tensor(reading, one) for one in _all(graph, "initializer")),
        sparse_initializers=len(graph.spans.get("sparse_initializer", ())),
    )


def _node(reading: Reading, node: Message) -> Node:
    attributes = _all(node, "attribute")
    tensors = [one for a in attributes for one in (*_all(a, "t"), *_all(a, "tensors"))]
    graphs = [one for a in attributes for one in (*_all(a, "g"), *_all(a, "graphs"))]
    sparse = ("sparse_tensor", "sparse_tensors")
    return Node(
        op_type=node.text("op_type"),
        domain=node.text("domain"),
        name=node.text("name"),
        inputs=tuple(node.texts.get("input", ())),
        outputs=tuple(node.texts.get("output", ())),
        attributes=tuple(a.text("name") for a in attributes),
        tensors=tuple(_tensor(reading, one) for one in tensors),
        graphs=tuple(_graph(reading, one) for one in graphs),
        sparse_tensors=sum(len(a.spans.get(name, ())) for a in attributes for name in sparse),
        references=sum(bool(a.text("ref_attr_name")) for a in attributes),
    )


def _tensor(reading: Reading, tensor: Message) -> Tensor:
    typed = {name: _elements(reading, name, tensor.spans[name]) for name in _held(tensor)}
    raw = tensor.spans.get("raw_data")
    return Tensor(
        name=tensor.text("name"),
        dims=reading.numbers(tensor.spans.get("dims", [])),
        data_type=tensor.ints.get("data_type", 0),
        doc=tensor.text("doc_string"),
        raw=raw[0] if raw else None,
        typed=typed,
        external=bool(tensor.ints.get("data_location")) or bool(_all(tensor, "external_data")),
        parted="segment" in tensor.spans,
        field=tensor.whole,
        content=tensor.content,
    )


def _held(tensor: Message) -> list[str]:
    return [name for name in TYPED if name in tensor.spans]


def _elements(reading: Reading, name: str, spans: list[Span]) -> int:
    if name == "string_data":
        return len(spans)
    if name in ("float_data", "double_data"):
        return sum(span.size for span in spans) // (4 if name == "float_data" else 8)
    return reading.count_varints(spans)


def _value(value: Message) -> Value:
    types = _all(value, "type")
    tensors = _all(types[0], "tensor_type") if types else []
    if not tensors:
        return Value(value.text("name"), None, None)
    shapes = _all(tensors[0], "shape")
    dims = None
    if shapes:
        dims = tuple(one.ints.get("dim_value") for one in _all(shapes[0], "dim"))
    return Value(value.text("name"), tensors[0].ints.get("elem_type", 0), dims)
