"""The agent reads of an ONNX file what the `onnx` package wrote, and takes no other file."""

import contextlib
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from protobuf_bytes import part, varint

from device_agent.onnx.file import OnnxFile, Tensor, parse_onnx, read_onnx
from device_agent.onnx.protobuf import MAX_DEPTH, MAX_FIELDS, MalformedFile, Reading, Rule
from device_agent.onnx.tables import TABLES

onnx = pytest.importorskip("onnx")
np = pytest.importorskip("numpy")

TYPES = ["float32", "float16", "float64", "int8", "uint8", "int32", "int64", "bool", "uint64"]
MESSAGES = {
    "Model": "ModelProto", "OperatorSet": "OperatorSetIdProto", "Entry": "StringStringEntryProto",
    "Graph": "GraphProto", "Node": "NodeProto", "Attribute": "AttributeProto",
    "Tensor": "TensorProto", "Value": "ValueInfoProto", "Type": "TypeProto",
    "Shape": "TensorShapeProto", "Annotation": "TensorAnnotation", "Function": "FunctionProto",
}  # fmt: skip
names = st.text(min_size=1, max_size=12)


def tensor(name: str, dims: list[int], dtype: str, raw: bool) -> Any:
    values = (np.arange(int(np.prod(dims))) % 2).astype(dtype).reshape(dims)
    if raw:
        return onnx.numpy_helper.from_array(values, name)
    kind = onnx.helper.np_dtype_to_tensor_dtype(values.dtype)
    return onnx.helper.make_tensor(name, kind, dims, values.ravel().tolist())


tensors = st.builds(
    tensor, names, st.lists(st.integers(0, 4), max_size=4), st.sampled_from(TYPES), st.booleans()
)
values = st.builds(
    lambda name, dims: onnx.helper.make_tensor_value_info(name, 1, dims),
    names,
    st.none() | st.lists(st.none() | st.integers(0, 2**40) | names, max_size=4),
)


@st.composite
def nodes(draw: st.DrawFn, depth: int = 0) -> Any:
    """A node with attributes of every kind, that makes no sense as an operator."""
    some: dict[str, Any] = draw(
        st.dictionaries(
            st.sampled_from("abcdef"),
            st.integers(-(2**63), 2**63 - 1)
            | st.floats(width=32, allow_nan=False)
            | names
            | st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=3)
            | st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=3)
            | st.lists(names, min_size=1, max_size=3)
            | tensors,
        )
    )
    if depth < 2 and draw(st.booleans()):
        some["body"] = draw(graphs(depth + 1))
    ends = st.lists(st.just("") | names, max_size=3)
    made = (draw(names), draw(ends), draw(ends))
    return onnx.helper.make_node(*made, name=draw(names), domain=draw(st.just("") | names), **some)


@st.composite
def graphs(draw: st.DrawFn, depth: int = 0) -> Any:
    """A graph whose names do not fit together."""
    few = {"max_size": 3}
    return onnx.helper.make_graph(
        draw(st.lists(nodes(depth), **few)), draw(names), draw(st.lists(values, **few)),
        draw(st.lists(values, **few)), draw(st.lists(tensors, **few)),
        value_info=draw(st.lists(values, **few)),
    )  # fmt: skip


@st.composite
def models(draw: st.DrawFn) -> Any:
    """A whole file."""
    versions = draw(st.lists(st.tuples(names, st.integers(0, 2**40)), max_size=3))
    made = onnx.helper.make_model(
        draw(graphs()), opset_imports=[onnx.helper.make_opsetid(*pair) for pair in versions],
        ir_version=draw(st.integers(1, 2**40)), producer_name=draw(names),
    )  # fmt: skip
    onnx.helper.set_model_props(made, draw(st.dictionaries(names, st.text(max_size=9), max_size=3)))
    return made


def assert_tensor(found: Tensor, wrote: Any, data: bytes) -> None:
    said = (wrote.name, tuple(wrote.dims), wrote.data_type)
    assert (found.name, found.dims, found.data_type) == said
    assert not found.external and not found.parted
    held = found.raw and data[found.raw.start : found.raw.end]
    assert held == (wrote.raw_data if wrote.HasField("raw_data") else None)
    counts = {field.name: len(said) for field, said in wrote.ListFields() if "_data" in field.name}
    assert found.typed == {name: n for name, n in counts.items() if name != "raw_data"} | {
        name: n for name, n in found.typed.items() if n == 0
    }
    again = onnx.TensorProto.FromString(data[found.content.start : found.content.end])
    assert again == wrote


def assert_graph(found: Any, wrote: Any, data: bytes) -> None:
    assert found.name == wrote.name
    for ours, theirs in (
        (found.inputs, wrote.input),
        (found.outputs, wrote.output),
        (found.values, wrote.value_info),
    ):
        assert [value.name for value in ours] == [value.name for value in theirs]
        for one, other in zip(ours, theirs, strict=True):
            kind = other.type.tensor_type
            dims = None
            if kind.HasField("shape"):
                known = [dim.HasField("dim_value") for dim in kind.shape.dim]
                extents = [dim.dim_value for dim in kind.shape.dim]
                dims = tuple(n if sure else None for n, sure in zip(extents, known, strict=True))
            assert (one.elem_type, one.dims) == (kind.elem_type, dims)
    for one, other in zip(found.initializers, wrote.initializer, strict=True):
        assert_tensor(one, other, data)
    for node, other in zip(found.nodes, wrote.node, strict=True):
        assert (node.op_type, node.domain, node.name) == (other.op_type, other.domain, other.name)
        assert (node.inputs, node.outputs) == (tuple(other.input), tuple(other.output))
        assert node.attributes == tuple(attribute.name for attribute in other.attribute)
        held = [attribute.t for attribute in other.attribute if attribute.HasField("t")]
        for ours, theirs in zip(node.tensors, held, strict=True):
            assert_tensor(ours, theirs, data)
        bodies = [attribute.g for attribute in other.attribute if attribute.HasField("g")]
        for ours, theirs in zip(node.graphs, bodies, strict=True):
            assert_graph(ours, theirs, data)


@given(models())
@settings(deadline=None, max_examples=150)
def test_what_onnx_writes_is_read_as_onnx_reads_it(wrote: Any) -> None:
    data = wrote.SerializeToString()
    found = parse_onnx(data)
    assert_graph(found.graph, wrote.graph, data)
    assert found.ir_version == wrote.ir_version and found.size == len(data)
    assert found.opsets == tuple((one.domain, one.version) for one in wrote.opset_import)
    assert found.metadata == tuple((one.key, one.value) for one in wrote.metadata_props)
    assert (found.functions, found.training, found.configurations) == ((), 0, 0)
    graph = onnx.GraphProto.FromString(data[found.graph_content.start : found.graph_content.end])
    assert graph == wrote.graph


def rules(descriptor: Any) -> dict[int, tuple[str, str, bool]]:
    """Name, kind and multiplicity of every field of a message of the installed ONNX."""
    kinds = {
        "INT64": "int", "INT32": "int", "ENUM": "int", "STRING": "text", "BYTES": "bytes",
        "MESSAGE": "message", "FLOAT": "float",
    }  # fmt: skip
    numbers = {"FLOAT": "fixed32", "DOUBLE": "fixed64"}
    found = {}
    for field in descriptor.fields:
        kind = next(
            k[5:] for k in dir(field) if k[:5] == "TYPE_" and getattr(field, k) == field.type
        )
        many = field.is_repeated if hasattr(field, "is_repeated") else field.label == 3
        if many and kind not in ("STRING", "BYTES", "MESSAGE"):
            found[field.number] = (field.name, numbers.get(kind, "varints"), False)
        else:
            found[field.number] = (field.name, kinds[kind], many)
    return found


@pytest.mark.parametrize("ours", MESSAGES)
def test_the_tables_are_those_of_the_onnx_package(ours: str) -> None:
    theirs = rules(getattr(onnx, MESSAGES[ours]).DESCRIPTOR)
    for number, rule in TABLES[ours].items():
        if number not in theirs:
            continue  # a field of a newer ONNX than the one here
        name, kind, many = theirs[number]
        if rule.kind == "bytes" and kind != "bytes":
            continue  # counted, not read
        assert (rule.name, rule.kind, rule.many) == (name, kind, many)
    assert set(theirs) <= set(TABLES[ours]), "a field of this ONNX is not in the table"


# -- what is no such file


def must_be_malformed(data: bytes, words: str) -> None:
    with pytest.raises(MalformedFile, match=words):
        parse_onnx(data)


def good() -> bytes:
    ends = [onnx.helper.make_tensor_value_info(name, 1, [4]) for name in "xy"]
    node = onnx.helper.make_node("Add", ["x", "w"], ["y"], name="only")
    weights = onnx.numpy_helper.from_array(np.ones(4, "f"), "w")
    graph = onnx.helper.make_graph([node], "g", ends[:1], ends[1:], [weights])
    made: bytes = onnx.helper.make_model(graph, ir_version=8).SerializeToString()
    return made


@given(st.binary(max_size=400))
@settings(deadline=None, max_examples=300)
def test_arbitrary_bytes_are_a_file_or_malformed_and_nothing_else(noise: bytes) -> None:
    try:
        assert isinstance(parse_onnx(noise), OnnxFile)
    except MalformedFile as error:
        assert str(error)


@given(st.data())
@settings(deadline=None, max_examples=300)
def test_a_damaged_file_is_a_file_or_malformed_and_nothing_else(data: st.DataObject) -> None:
    damaged = bytearray(good())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(damaged) - 1))
        damaged[at] = data.draw(st.integers(0, 255))
    with contextlib.suppress(MalformedFile):
        parse_onnx(bytes(damaged[: data.draw(st.integers(0, len(damaged)))]))


@given(st.data())
def test_a_graph_that_is_cut_short_is_malformed(data: st.DataObject) -> None:
    whole = good()
    field = parse_onnx(whole).graph_field
    with pytest.raises(MalformedFile):
        parse_onnx(whole[: data.draw(st.integers(field.start, field.end - 1))])


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "no graph"),
        (b"\x08\x08", "no graph"),
        (part(7, b"") * 2, r"Model\.graph stands twice"),
        (b"\x08\x08\x08\x09" + part(7, b""), r"Model\.ir_version stands twice"),
        (part(1, b"\x08"), r"Model\.ir_version has wire type 2"),
        (b"\x3b", r"Model\.graph has wire type 3"),
        (b"\x39" + b"\0" * 8, r"Model\.graph has wire type 1"),
        (part(15, b"") + part(7, b""), "Model has no field 15"),
        (b"\x02\x00", "Model has no field 0"),
        (b"\xff" * 5 + b"\x7f", "Model has no field"),
        (b"\x08" + b"\xff" * 9 + b"\x02", "over 64 bits"),
        (b"\x08" + b"\x80" * 10 + b"\x00", "over 10 bytes"),
        (b"\x08\x80", "ends inside a number"),
        (b"\x3a\x05\x00", "bytes after what holds it"),
        (b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "bytes after what holds it"),
        (part(2, b"\xff\xfe") + part(7, b""), r"Model\.producer_name is no UTF-8"),
        (part(2, b"x" * 70_000) + part(7, b""), "70000 bytes of text"),
        (part(7, part(5, part(1, b"\x80"))), r"Tensor\.dims ends inside a number"),
        (part(7, part(5, part(4, b"abc"))), r"Tensor\.float_data ends inside a number"),
        (part(7, part(5, b"\x25abc")), "bytes after what holds it"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(data: bytes, words: str) -> None:
    must_be_malformed(data, words)


def test_nesting_without_end_is_refused_without_recursing() -> None:
    nested = b""
    for _ in range(3 * MAX_DEPTH):  # graph, node, attribute, graph, ...
        nested = part(1, part(5, part(6, nested)))
    must_be_malformed(part(7, nested), f"nested over {MAX_DEPTH} deep")


@pytest.mark.parametrize(
    "bomb",
    [
        part(7, part(5, b"\x08\x01" * (MAX_FIELDS + 10))),
        part(7, part(5, part(1, b"\x01" * (MAX_FIELDS + 10)))),
        part(7, b"\x0a\x00" * (MAX_FIELDS + 10)),
        part(7, part(1, b"\x0a\x00" * (MAX_FIELDS + 10))),
    ],
    ids=["numbers", "packed numbers", "nodes", "names"],
)
def test_a_file_of_millions_of_tiny_fields_is_given_up_soon(bomb: bytes) -> None:
    start = time.monotonic()
    must_be_malformed(bomb, r"over \d+ fields in \d+ bytes")
    assert time.monotonic() - start < 60.0, "hangs"


def test_a_large_file_is_listed_without_reading_its_weights(tmp_path: Path) -> None:
    content = part(8, b"big") + b"\x4a" + varint(2**30)
    inner = b"\x2a" + varint(len(content) + 2**30) + content
    with open(tmp_path / "sparse", "wb") as file:
        file.write(b"\x3a" + varint(len(inner) + 2**30) + inner)
        size = file.truncate(file.tell() + 2**30)
    (found,) = read_onnx(tmp_path / "sparse").graph.initializers
    assert found.name == "big" and found.raw == (size - 2**30, size)


def test_an_empty_file_is_malformed_and_a_missing_one_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    with pytest.raises(MalformedFile, match="empty"):
        read_onnx(tmp_path / "empty")
    with pytest.raises(FileNotFoundError):
        read_onnx(tmp_path / "none")


def test_numbers_are_counted_over_pieces_and_read_with_their_sign() -> None:
    data = varint(2**64 - 1) * 300_000
    tables = {"M": {1: Rule("n", "varints")}}
    reading = Reading(part(1, data), tables)
    spans = reading.message("M").spans["n"]
    assert reading.count_varints(spans) == 300_000
    assert reading.numbers([spans[0]._replace(end=spans[0].start + 20)]) == (-1, -1)
