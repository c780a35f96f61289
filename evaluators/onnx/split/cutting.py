"""A fused design's graph as several: an encoder for each modality, and their fusion.

An encoder has everything that depends on its modality alone: the trunk up to its deepest tap, and
the scaling, the pooling and the projection behind it. What depends on two modalities or more is the
fusion, which reads what the encoders give and nothing else. Parts have the nodes and the weights of
the whole graph, so they are of its precision and give what it gives.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf, prod

import numpy as np
import onnx
from onnx import NodeProto, ValueInfoProto, helper, shape_inference

from evaluators.onnx.passes.graph import Graph, read_by, rename
from search_space.errors import USAGE, FusionNasError
from search_space.modality import CALLED, Modality

CUT_TYPES = ("int64", "int32", "float32", "float16")
"""Elements of tensors that a graph is cut at: never quantised ones, which not all runtimes take."""
VIEWS = (
    "Cast",
    "DequantizeLinear",
    "DynamicQuantizeLinear",
    "Expand",
    "Flatten",
    "Identity",
    "QuantizeLinear",
    "Reshape",
    "Squeeze",
    "Tile",
    "Transpose",
    "Unsqueeze",
)
"""What stays beside its reader, in the fusion: it computes nothing, and what it reads is no larger
or of more digits."""
LINEAR = (*VIEWS, "Add", "Div", "Gather", "Gemm", "MatMul", "Mul", "Slice", "Split", "Sub")
"""Of one value and constants. Where several such make more bytes than the one value has, as keys
and values of attention do, they are in the fusion."""
MASK = "attention_mask"
"""Read by the text's encoder and, where it fuses tokens, by the fusion."""
FUSION = "fusion"
Types = Mapping[str, tuple[str, tuple[int, ...]]]
"""Element type and extents by value."""


class NotSplit(FusionNasError):
    """A graph that cannot be split; the text says why."""

    exit_code = USAGE


@dataclass(frozen=True)
class Cut:
    """A tensor that an encoder gives and the fusion reads.

    Attributes:
        name: in both parts.
        modality: of the encoder.
        dtype: of its elements, as NumPy names it.
        shape: its extents.
    """

    name: str
    modality: Modality
    dtype: str
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """Its size."""
        return _size(self.dtype, self.shape)


@dataclass(frozen=True)
class Split:
    """A design's graph as encoders, by modality, and a fusion.

    Attributes:
        encoders: each reads the inputs of its modality as the whole graph does.
        fusion: reads the cuts; gives what the whole graph gives.
        cuts: in the order in which the fusion reads them.
    """

    encoders: Mapping[Modality, onnx.ModelProto]
    fusion: onnx.ModelProto
    cuts: tuple[Cut, ...]

    def of(self, modality: Modality) -> tuple[Cut, ...]:
        """What one encoder gives: what is kept of an input that is encoded once."""
        return tuple(cut for cut in self.cuts if cut.modality == modality)


def split(model: onnx.ModelProto, inputs: Mapping[Modality, Sequence[str]]) -> Split:
    """Split the graph of a fused design; the model itself is not changed.

    Args:
        model: one graph, whose inputs have fixed extents.
        inputs: names of the graph's inputs by the modality that they are of.

    Raises:
        NotSplit: The graph reads one modality, or an input has an open extent.
    """
    for entry in model.graph.input:
        if not all(extent.dim_value for extent in entry.type.tensor_type.shape.dim):
            raise NotSplit(
                f"{entry.name} has no fixed length (--rewrites own-length): a design is split "
                "where its texts are padded to one length, as --rewrites all does"
            )
    source = onnx.ModelProto()
    source.CopyFrom(model)
    graph = _without_second_names(source)
    owner = {name: modality for modality, names in inputs.items() for name in names}
    depends = _dependences(graph)

    def of(name: str) -> frozenset[Modality]:
        return frozenset(owner[each] for each in depends.get(name, frozenset()))

    mixed = [node for node in graph.nodes if len(of(node.output[0])) > 1]
    if not mixed:
        raise NotSplit("the design reads one modality: there is nothing to split")
    wanted: dict[str, Modality] = {}
    for node in mixed:
        for name in read_by(node):
            if len(of(name)) == 1:
                (modality,) = of(name)
                wanted[_moved_back(graph, depends, name)] = modality
    types = _types(source)
    wanted = _gathered(graph, depends, wanted, types)
    cuts: list[Cut] = []
    renamed: dict[str, str] = {}
    encoders: dict[Modality, onnx.ModelProto] = {}
    for modality, names in inputs.items():
        own = [name for name, whose in wanted.items() if whose == modality and name != MASK]
        ends = {name: f"{CALLED[modality]}_{k}" for k, name in enumerate(own, 1)}
        if not ends:
            raise NotSplit(f"nothing that the design gives depends on {modality}")
        if wanted.get(MASK) == modality:
            ends[MASK] = f"{CALLED[modality]}_mask"
        for name, new in ends.items():
            known = name in types and types[name][0] in CUT_TYPES
            if not known or (name in graph.inputs and name != MASK):
                raise NotSplit(
                    f"{name}, which the fusion reads of {modality}, cannot be the input of a graph"
                )
            cuts.append(Cut(new, modality, *types[name]))
        renamed |= ends
        given = [entry for entry in source.graph.input if entry.name in names]
        encoders[modality] = _part(graph, given, {}, ends, types)
    said = {entry.name: entry.name for entry in source.graph.output}
    read = [_value(renamed[name], *types[name]) for name in renamed]
    fusion = _part(graph, read, renamed, said, types)
    return Split(encoders, fusion, tuple(cuts))


def _without_second_names(source: onnx.ModelProto) -> Graph:
    """The graph with one name for each weight: extents are inferred from weights themselves."""
    graph = Graph(source)
    for node in list(graph.nodes):
        if node.op_type == "Identity" and node.input[0] in graph.constants:
            graph.replace(node.output[0], node.input[0])
            graph.nodes.remove(node)
    graph.finish()
    return Graph(source)


def _dependences(graph: Graph) -> dict[str, frozenset[str]]:
    """For each value, the graph's inputs that it depends on."""
    found = {name: frozenset({name}) for name in graph.inputs if name not in graph.constants}
    for node in graph.nodes:
        on = frozenset().union(*(found.get(name, frozenset()) for name in read_by(node)))
        found |= dict.fromkeys(node.output, on)
    return found


def _moved_back(graph: Graph, depends: Mapping[str, frozenset[str]], name: str) -> str:
    """The value before the views that a value comes through; the mask where it is of that alone."""
    if depends[name] == {MASK}:
        return MASK
    return [name, *_before(graph, depends, name, VIEWS)][-1]


def _before(
    graph: Graph, depends: Mapping[str, frozenset[str]], name: str, operators: Sequence[str]
) -> Iterator[str]:
    """What a value is made from by these operators of one value and constants, nearest first."""
    while name in graph.makers and graph.makers[name].op_type in operators:
        read = {each for each in read_by(graph.makers[name]) if depends.get(each)}
        if len(read) != 1:
            return
        (name,) = read
        yield name


def _gathered(
    graph: Graph,
    depends: Mapping[str, frozenset[str]],
    wanted: Mapping[str, Modality],
    types: Types,
) -> dict[str, Modality]:
    """The values to cut at, where several that one smaller value makes are replaced by that one."""
    found = dict(wanted)
    while True:
        made: dict[str, list[str]] = defaultdict(list)
        for name in found:
            for each in (name, *_before(graph, depends, name, LINEAR)):
                made[each].append(name)
        saved = {
            one: sum(_bytes(types, name) for name in names) - _bytes(types, one)
            for one, names in made.items()
            if len(names) > 1
            and one not in graph.inputs
            and one in types
            and types[one][0] in CUT_TYPES
        }
        best = max(saved, key=lambda one: saved[one], default=None)
        if best is None or saved[best] <= 0:
            return found
        modality = found[made[best][0]]
        kept = {name: whose for name, whose in found.items() if name not in made[best]}
        found = {**kept, best: modality}


def _bytes(types: Types, name: str) -> float:
    """The size of a value; infinite where it cannot be told."""
    return _size(*types[name]) if name in types else inf


def _size(dtype: str, shape: Sequence[int]) -> int:
    return prod(shape) * np.dtype(dtype).itemsize


def _part(
    graph: Graph,
    given: Sequence[ValueInfoProto],
    renamed: Mapping[str, str],
    ends: Mapping[str, str],
    types: Types,
) -> onnx.ModelProto:
    """The part from the `renamed` values, or from inputs, up to the `ends`, under their new names.

    What is an end and is read within the part too keeps its own name, and gets the new one beside.
    """
    needed, nodes = {name for name in ends if name not in renamed}, []
    for node in reversed(graph.nodes):
        if needed.intersection(node.output):
            made = NodeProto()
            made.CopyFrom(node)
            nodes.append(made)
            needed.update(name for name in read_by(node) if name not in renamed)
    nodes.reverse()
    for node in nodes:
        for old, new in renamed.items():
            rename(node, old, new)
    for old, new in ends.items():
        if old != new:
            nodes.append(helper.make_node("Identity", [old], [new], name=f"give {new}"))
    weights = [tensor for name, tensor in graph.constants.items() if name in needed]
    outputs = [_value(new, *types[old]) for old, new in ends.items()]
    made_graph = helper.make_graph(nodes, graph.model.graph.name, list(given), outputs, weights)
    source = graph.model
    return helper.make_model(
        made_graph,
        opset_imports=source.opset_import,
        ir_version=source.ir_version,
        producer_name="fusion-nas",
    )


def _types(source: onnx.ModelProto) -> Types:
    """Element type and extents of the values for which all can be told."""
    inferred = shape_inference.infer_shapes(source).graph
    found: dict[str, tuple[str, tuple[int, ...]]] = {}
    for entry in (*inferred.value_info, *inferred.input, *inferred.output):
        kind = entry.type.tensor_type
        extents = [e.dim_value for e in kind.shape.dim]
        if kind.elem_type and kind.HasField("shape") and all(extents):
            found[entry.name] = helper.tensor_dtype_to_np_dtype(kind.elem_type).name, tuple(extents)
    return found


def _value(name: str, dtype: str, shape: tuple[int, ...]) -> ValueInfoProto:
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    return helper.make_tensor_value_info(name, kind, shape)
