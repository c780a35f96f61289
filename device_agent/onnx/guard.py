"""What is refused of a network before any runtime reads it.

A file may come from anyone who may talk to the agent, and runtimes are large C++ programs that
follow paths, load code and allocate what a file tells them to. A file that is refused here is the
request's fault, never the design's.
"""

import graphlib
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from device_agent.onnx.file import Graph, MalformedFile, Node, OnnxFile, Tensor, Value, read_onnx
from device_agent.onnx.synthesize_weights import fill_of, is_empty
from device_agent.runtime import Unavailable

DOMAINS = ("", "ai.onnx")
MAX_FILE_BYTES = 2**31 - 1
"""A protobuf message may not be larger."""
MAX_NODES = 50_000
MAX_GRAPHS = 64
MAX_SUBGRAPH_DEPTH = 4
MAX_NAME = 1024
MAX_RANK = 8
MAX_ELEMENTS = 2**29
"""Of one tensor: 2 GiB of float32, as much as a whole file may hold."""
TAKES_SETTINGS = "ort_config"
GIVEN = -1

BITS: Mapping[int, int] = {
    1: 32, 2: 8, 3: 8, 4: 16, 5: 16, 6: 32, 7: 64, 9: 8, 10: 16, 11: 64, 12: 32, 13: 64, 16: 16,
    17: 8, 18: 8, 19: 8, 20: 8, 21: 4, 22: 4, 23: 4,
}  # fmt: skip
"""Of one element by `onnx.TensorProto.DataType`: floats, whole numbers and booleans alone."""
TYPED_FIELD: Mapping[int, str] = {
    **dict.fromkeys(BITS, "int32_data"),
    **{1: "float_data", 7: "int64_data", 11: "double_data", 12: "uint64_data", 13: "uint64_data"},
}

_OPERATOR = re.compile(r"[A-Za-z0-9_]{1,64}")


class RefusedFile(Unavailable):
    """A file that no runtime gets to see: malformed, hostile, or beyond what is sensible."""


def check_file(file: Path, weights_seed: int | None) -> OnnxFile:
    """Read an ONNX file and refuse it in words unless it is one plain network.

    Args:
        file: the file.
        weights_seed: of the weights that are missing in it; None: it must hold them all.

    Raises:
        RefusedFile: it is not.
    """
    try:
        found = read_onnx(file)
        check_network(found, weights_seed)
    except (MalformedFile, OSError) as error:
        hint = "export it again, with all in one file"
        raise RefusedFile(f"the network was refused before any runtime: {error}: {hint}") from None
    return found


def check_network(found: OnnxFile, weights_seed: int | None = None) -> None:
    """Refuse what `check_file` refuses; raises `MalformedFile`."""
    if found.size > MAX_FILE_BYTES:
        raise MalformedFile(f"it has {found.size} bytes, a network has at most {MAX_FILE_BYTES}")
    for what, count in (
        ("local functions", len(found.functions)),
        ("training graphs", found.training),
        ("device configurations", found.configurations),
    ):
        if count:
            raise MalformedFile(f"it brings {count} {what}, a network to time has none")
    for key, said in found.metadata:
        _check_name("a metadata key", key, least=0)
        if "\0" in said:
            raise MalformedFile(f"metadata {key!r} holds a NUL")
        if key.lower() == TAKES_SETTINGS:
            raise MalformedFile(f"metadata {key!r} would set the runtime's options")
    for domain, _ in found.opsets:
        _check_name("the domain of an operator set", domain, least=0)
    graphs = [*_graphs(found.graph, 0)]
    nodes = sum(len(graph.nodes) for graph, _ in graphs)
    if nodes > MAX_NODES or len(graphs) > MAX_GRAPHS:
        most = f"at most {MAX_NODES} in {MAX_GRAPHS} are taken"
        raise MalformedFile(f"it has {nodes} nodes in {len(graphs)} graphs, {most}")
    for graph, depth in graphs:
        for node in graph.nodes:
            _check_node(node)
        for value in (*graph.inputs, *graph.outputs, *graph.values):
            _check_value(value)
        if graph.sparse_initializers:
            raise MalformedFile(f"it has {graph.sparse_initializers} sparse tensors, none is taken")
        for tensor in graph.initializers:
            _check_name("the name of an initializer", tensor.name)
            _check_tensor(tensor, weights_seed if depth == 0 else None)
    _check_order(found.graph, frozenset())


def _graphs(graph: Graph, depth: int) -> Iterator[tuple[Graph, int]]:
    if depth > MAX_SUBGRAPH_DEPTH:
        raise MalformedFile(f"graphs within graphs over {MAX_SUBGRAPH_DEPTH} deep")
    yield graph, depth
    for node in graph.nodes:
        for inner in node.graphs:
            yield from _graphs(inner, depth + 1)


def _check_node(node: Node) -> None:
    _check_name("the name of a node", node.name, least=0)
    if not _OPERATOR.fullmatch(node.op_type):
        raise MalformedFile(f"node {node.name!r}: operator {_show(node.op_type)} is no name of one")
    where = f"node {node.name!r} ({node.op_type})"
    if node.domain not in DOMAINS:
        known = "only those of ONNX itself are taken"
        raise MalformedFile(f"{where}: an operator of domain {_show(node.domain)}: {known}")
    if len(set(node.attributes)) != len(node.attributes):
        raise MalformedFile(f"{where}: an attribute is given twice")
    if node.references or node.sparse_tensors:
        what = "refers to a function's attributes" if node.references else "holds sparse tensors"
        raise MalformedFile(f"{where}: it {what}")
    for name in (*node.inputs, *node.outputs, *node.attributes):
        _check_name(f"{where}: a name", name, least=0)
    for tensor in node.tensors:
        _check_tensor(tensor, None)


def _check_value(value: Value) -> None:
    _check_name("the name of an input, output or value", value.name)
    known = [extent for extent in value.dims or () if extent is not None]
    _check_extents(f"value {value.name!r}", known)


def _check_tensor(tensor: Tensor, weights_seed: int | None) -> None:
    where = f"tensor {_show(tensor.name)}"
    if tensor.external:
        raise MalformedFile(f"{where} says that its values lie in another file")
    if tensor.parted:
        raise MalformedFile(f"{where} says to be a part of another")
    if tensor.data_type not in BITS:
        raise MalformedFile(f"{where}: elements of type {tensor.data_type} are not taken")
    _check_extents(where, tensor.dims)
    if weights_seed is not None and fill_of(tensor) is not None and is_empty(tensor):
        return
    needed = (tensor.elements * BITS[tensor.data_type] + 7) // 8
    if tensor.raw is not None:
        held, unit = tensor.raw.size, "bytes"
        wrong = held != needed or bool(tensor.typed)
    else:
        needed, unit = _typed_elements(tensor), "numbers"
        held = sum(tensor.typed.values())
        wrong = held != needed or set(tensor.typed) - {TYPED_FIELD[tensor.data_type]} != set()
    if wrong:
        asked = f"dims {list(tensor.dims)} of type {tensor.data_type} ask for {needed}"
        left = "; weights that were left out need a seed" if fill_of(tensor) is not None else ""
        raise MalformedFile(f"{where} holds {held} {unit}, its {asked}{left}")


def _typed_elements(tensor: Tensor) -> int:
    """How many numbers a field other than `raw_data` holds: those of four bits in pairs."""
    return (tensor.elements + 1) // 2 if BITS[tensor.data_type] == 4 else tensor.elements


def _check_extents(where: str, extents: Iterable[int]) -> None:
    extents = list(extents)
    if len(extents) > MAX_RANK:
        raise MalformedFile(f"{where} has {len(extents)} dimensions, at most {MAX_RANK} are taken")
    elements = 1
    for extent in extents:
        if extent < 0:
            raise MalformedFile(f"{where} has an extent of {extent}")
        elements *= extent
    if max([elements, *extents]) > MAX_ELEMENTS:
        raise MalformedFile(f"{where}: {extents} is over {MAX_ELEMENTS} elements")


def _check_order(graph: Graph, outside: frozenset[str]) -> frozenset[str]:
    """Check that every name is made once, before it is read; return those read from outside."""
    makers: dict[str, int] = {}
    for value in graph.inputs:
        _make_once(value.name, GIVEN, makers, outside)
    # A file of an old IR version names its initializers among the inputs.
    held: dict[str, int] = {}
    for tensor in graph.initializers:
        _make_once(tensor.name, GIVEN, held, outside)
    makers |= held
    for k, node in enumerate(graph.nodes):
        for name in filter(None, node.outputs):
            _make_once(name, k, makers, outside)
    known = outside | makers.keys()
    before: dict[int, set[int]] = {}
    read: set[str] = set()
    for k, node in enumerate(graph.nodes):
        names = set(filter(None, node.inputs))
        for inner in node.graphs:
            names |= _check_order(inner, known)
        for name in names:
            if name not in known:
                said = f"node {node.name!r} ({node.op_type}) reads {_show(name)}"
                raise MalformedFile(f"{said}, which nothing makes")
        before[k] = {makers[name] for name in names if makers.get(name, GIVEN) != GIVEN}
        read |= names
    for value in graph.outputs:
        if value.name not in known:
            raise MalformedFile(f"output {_show(value.name)} is made by nothing")
        read.add(value.name)
    try:
        graphlib.TopologicalSorter(before).prepare()
    except graphlib.CycleError as error:
        circle = [graph.nodes[k].name or graph.nodes[k].op_type for k in error.args[1][:6]]
        raise MalformedFile(f"nodes wait for each other in a circle: {circle}") from None
    return frozenset(read - makers.keys())


def _make_once(name: str, maker: int, makers: dict[str, int], outside: frozenset[str]) -> None:
    if name in makers or name in outside:
        raise MalformedFile(f"the name {_show(name)} is made twice")
    makers[name] = maker


def _check_name(what: str, name: str, least: int = 1) -> None:
    """Names are text of one line; what looks like a path in them is never used as one."""
    if not least <= len(name) <= MAX_NAME or not name.isprintable():
        raise MalformedFile(f"{what} is {_show(name)}: give {least} to {MAX_NAME} plain characters")


def _show(name: str) -> str:
    shown = ascii(name)
    return shown if len(shown) <= 80 else shown[:77] + "..."
