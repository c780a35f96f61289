"""Parts of ONNX graphs: exported once, kept on disk, joined to whole graphs.

A part is kept as one file: the SHA-256 of an ONNX model in hexadecimal, then the model. A joined
graph is the bytes of its parts' nodes and weights one after another, for a protobuf message is the
concatenation of its fields: no weight is copied or encoded a second time.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal
from weakref import WeakValueDictionary

import onnx
import onnxruntime
from onnx import NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from evaluators.cached_files import ALTERED, move_whole, report, set_folder_aside
from evaluators.onnx.stripped import fill_for, without_values
from evaluators.onnx.versions import IR_VERSION, OPSET
from search_space.locks import NamedLock

DIGEST_CHARACTERS = 64
_NODE, _NAME, _INITIALIZER, _INPUT, _OUTPUT = 1, 2, 5, 11, 12
"""Fields of GraphProto."""
_GRAPH = 7
"""Field of ModelProto."""


@dataclass(frozen=True)
class Weight:
    """An initializer as it stands in a graph: with its values, without, with them elsewhere.

    `content` is the same for two weights of one type, shape and values. Small weights keep theirs
    in all three.
    """

    name: str
    content: bytes
    whole: bytes
    light: bytes
    outside: bytes
    values: onnxruntime.OrtValue | None

    def called(self, name: str) -> "Weight":
        """The same weight under another name."""
        tensor = onnx.GraphProto.FromString(self.whole).initializer[0]
        tensor.name = name
        return Weight.of(tensor)

    @staticmethod
    def of(tensor: TensorProto) -> "Weight":
        """`values` is None for a weight that is small."""
        name, tensor.name = tensor.name, ""
        content = hashlib.sha256(tensor.SerializeToString()).digest()
        tensor.name = name
        if (name, content) not in _known:
            _known[name, content] = made = Weight._made(tensor, content)
            return made
        return _known[name, content]

    @staticmethod
    def _made(tensor: TensorProto, content: bytes) -> "Weight":
        name = tensor.name
        whole, fill = _field(_INITIALIZER, tensor.SerializeToString()), fill_for(tensor)
        if fill is None:
            return Weight(name, content, whole, whole, whole, None)
        values = onnxruntime.OrtValue.ortvalue_from_numpy(numpy_helper.to_array(tensor).copy())
        without_values(tensor, fill)
        light = _field(_INITIALIZER, tensor.SerializeToString())
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="in memory")
        outside = _field(_INITIALIZER, tensor.SerializeToString())
        return Weight(name, content, whole, light, outside, values)


_known: WeakValueDictionary[tuple[str, bytes], Weight] = WeakValueDictionary()
"""Weights of the parts in memory: a trunk's are there once, for all text lengths."""


class Subgraph:
    """A graph whose inner names carry a prefix, ready to be cut and joined.

    Names in `shared` (its inputs and outputs) are kept, so that parts meet in them.
    """

    def __init__(self, model: onnx.ModelProto, prefix: str) -> None:
        graph = model.graph
        shared = {entry.name for entry in (*graph.input, *graph.output)}
        self._outputs = {entry.name for entry in graph.output}

        def renamed(name: str) -> str:
            return name if not name or name in shared else f"{prefix}/{name}"

        self.weights: dict[str, Weight] = {}
        for tensor in graph.initializer:
            tensor.name = renamed(tensor.name)
            self.weights[tensor.name] = Weight.of(tensor)
        self.alias: dict[str, str] = {}
        """Outputs that are an input as it came."""
        self._nodes: list[NodeProto] = []
        inputs = {entry.name for entry in graph.input}
        for node in graph.node:
            node.name = renamed(node.name)
            node.input[:] = [renamed(name) for name in node.input]
            node.output[:] = [renamed(name) for name in node.output]
            # The exporter has one of several equal weights stand for all: so does `joined`.
            if node.op_type == "Identity" and node.input[0] in self.weights:
                self.weights[node.output[0]] = self.weights[node.input[0]].called(node.output[0])
            elif node.op_type == "Identity" and node.input[0] in inputs:
                self.alias[node.output[0]] = node.input[0]
            else:
                # A node of its own: one that is part of the model would keep all of that.
                self._nodes.append(NodeProto())
                self._nodes[-1].CopyFrom(node)
        self._bytes = [_field(_NODE, node.SerializeToString()) for node in self._nodes]
        self._cuts: dict[tuple[str, ...], tuple[list[int], list[str]]] = {}

    def _cut(self, wanted: tuple[str, ...]) -> tuple[list[int], list[str]]:
        """The nodes that these outputs depend on, in order, and the weights they read."""
        if wanted not in self._cuts:
            needed, kept = set(wanted), []
            for k in range(len(self._nodes) - 1, -1, -1):
                node = self._nodes[k]
                if needed.intersection(node.output):
                    kept.append(k)
                    needed.update(name for name in _reads(node))
            self._cuts[wanted] = kept[::-1], [name for name in self.weights if name in needed]
        return self._cuts[wanted]

    def cut(self, wanted: Sequence[str], given: Mapping[str, str]) -> tuple[list[bytes], list[str]]:
        """Nodes and names of weights up to these outputs; inputs are read under `given` names."""
        kept, weights = self._cut(tuple(wanted))
        return [self._bound(k, given) for k in kept], weights

    def _bound(self, k: int, given: Mapping[str, str]) -> bytes:
        node = self._nodes[k]
        if not any(name in given for name in node.input):
            return self._bytes[k]
        bound = NodeProto()
        bound.CopyFrom(node)
        bound.input[:] = [given.get(name, name) for name in node.input]
        return _field(_NODE, bound.SerializeToString())


def _reads(node: NodeProto) -> Iterable[str]:
    yield from node.input
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for inner in graph.node:
                yield from _reads(inner)


@dataclass(frozen=True)
class Joined:
    """A graph as the byte strings that make its file."""

    nodes: list[bytes]
    weights: list[Weight]
    ends: bytes

    def chunks(self, form: Literal["whole", "light", "outside"]) -> list[bytes]:
        """The file in pieces, its weights in one of the forms of `Weight`."""
        weights: list[bytes] = [getattr(weight, form) for weight in self.weights]
        graph = [*self.nodes, _field(_NAME, b"main_graph"), *weights, self.ends]
        # In the order of their numbers, as protobuf writes them.
        head = onnx.ModelProto(ir_version=IR_VERSION, producer_name="fusion-nas")
        tail = onnx.ModelProto(opset_import=[onnx.OperatorSetIdProto(version=OPSET)])
        size = _tag(_GRAPH, sum(map(len, graph)))
        return [head.SerializeToString(), size, *graph, tail.SerializeToString()]

    def outside(self) -> dict[str, onnxruntime.OrtValue]:
        """The values that the form "outside" leaves out."""
        return {w.name: w.values for w in self.weights if w.values is not None}


def joined(
    pieces: Sequence[tuple[Subgraph, Sequence[str], Mapping[str, str]]],
    between: Sequence[NodeProto],
    inputs: Sequence[ValueInfoProto],
    output: ValueInfoProto,
) -> Joined:
    """One graph of parts, each cut at its wanted outputs; the last follows the nodes `between`."""
    nodes: list[bytes] = []
    kept: dict[bytes, Weight] = {}
    equal: list[bytes] = []
    for k, (part, wanted, given) in enumerate(pieces):
        if k == len(pieces) - 1:
            nodes += [_field(_NODE, node.SerializeToString()) for node in between]
        own, names = part.cut(wanted, given)
        for name in names:
            weight = part.weights[name]
            first = kept.setdefault(weight.content, weight)
            if first.name != name:
                same = helper.make_node("Identity", [first.name], [name], name=f"same as {name}")
                equal.append(_field(_NODE, same.SerializeToString()))
        nodes += own
    ends = [_field(_INPUT, entry.SerializeToString()) for entry in inputs]
    ends.append(_field(_OUTPUT, output.SerializeToString()))
    return Joined(equal + nodes, list(kept.values()), b"".join(ends))


def _field(number: int, content: bytes) -> bytes:
    return _tag(number, len(content)) + content


def _tag(number: int, length: int) -> bytes:
    """Number and length of a field, as protobuf writes them before its content."""
    written = bytearray([number << 3 | 2])
    while length > 0x7F:
        written.append(length & 0x7F | 0x80)
        length >>= 7
    written.append(length)
    return bytes(written)


class SubgraphStore:
    """Parts by content key, made once for all processes that share the folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, key: str, prefix: str, make: Callable[[Path], None]) -> Subgraph:
        """The part of this key; `make` writes its ONNX file where it is not kept, or damaged."""
        file = self._folder / f"{key}.part"
        model = _read(file)
        if model is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            with NamedLock(f"{file}.lock"):  # a second worker waits and finds it done
                model = _read(file)
                if model is None:
                    if file.exists():
                        report(file, ALTERED if file.is_file() else "is no file")
                    self._make(file, make)
                    model = _read(file)
        assert model is not None, f"{file} was written a moment ago"
        return Subgraph(model, prefix)

    def _make(self, file: Path, make: Callable[[Path], None]) -> None:
        with TemporaryDirectory(prefix="making-", dir=self._folder) as making:
            exported, whole = Path(making) / "part.onnx", Path(making) / "part"
            make(exported)
            onnx.checker.check_model(str(exported), full_check=False)
            content = exported.read_bytes()
            with open(whole, "wb") as out:
                out.write(hashlib.sha256(content).hexdigest().encode())
                out.write(content)
            set_folder_aside(file)
            move_whole(whole, file)


def _read(file: Path) -> onnx.ModelProto | None:
    """The kept model; None where there is none or it is not what was written."""
    try:
        content = file.read_bytes()
    except (FileNotFoundError, IsADirectoryError):
        return None
    told, model = content[:DIGEST_CHARACTERS], memoryview(content)[DIGEST_CHARACTERS:]
    if hashlib.sha256(model).hexdigest().encode() != told:
        return None
    return onnx.ModelProto.FromString(bytes(model))
