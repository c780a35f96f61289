"""What the exporter writes and no output depends on is taken out of a graph.

- Shapes and masks that are known when a graph is exported become constants.
- What gives back its input is left out; nodes that compute the same are one.
- Zeros that are put around a picture before a convolution become the convolution's own padding.
- The guard of attention against rows that are masked as a whole (Softmax, IsNaN, Where) moves
  behind the product with the values: runtimes fuse attention whose softmax goes straight into it.

Every rewrite leaves the outputs as they are, for rows that are masked as a whole too.
"""

from collections.abc import Collection
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import NodeProto, helper, shape_inference

from evaluators.onnx.passes.graph import Graph, attributes_of, read_by

FOLDED_BYTES = 2**16
"""Larger constants are cheaper to make than to carry."""
MARGIN_BYTES = 256
"""For name, type and shape of a tensor of so many bytes."""
ROUNDS = 8
LOWEST = -3e4
"""Instead of minus infinity, and a number of half precision too: added to a score, its exponential
is 0 all the same."""
PRODUCTS = ("MatMul", "Einsum", "Gemm")
"""What gives the scores of attention, before or after they are scaled by a constant."""
VIEWS = ("Expand", "Unsqueeze", "Squeeze", "Reshape", "Cast", "Identity")
NEVER_FOLDED = ("RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Loop")


def simplify(file: Path) -> None:
    """Rewrite an ONNX file in place."""
    model = onnx.load(str(file))
    simplify_model(model)
    onnx.save(model, str(file))


def simplify_model(model: onnx.ModelProto) -> None:
    """Rewrite a model in place."""
    weights = {tensor.name for tensor in model.graph.initializer}
    for _ in range(ROUNDS):
        before = len(model.graph.node)
        shapes = _shapes(model)
        graph = Graph(model)
        _fold(graph, shapes)
        _drop_idle(graph, shapes)
        _merge_equal(graph, weights)
        _pad_in_convolutions(graph)
        graph.finish()
        if len(model.graph.node) == before:
            break
    graph = Graph(model)
    _move_guards(graph)
    graph.finish()


def _shapes(model: onnx.ModelProto) -> dict[str, tuple[int | None, ...]]:
    """Extents of values as far as they are known; None for an open one."""
    inferred = shape_inference.infer_shapes(model).graph
    found: dict[str, tuple[int | None, ...]] = {}
    for entry in (*inferred.value_info, *inferred.input, *inferred.output):
        if entry.type.tensor_type.HasField("shape"):
            dims = entry.type.tensor_type.shape.dim
            found[entry.name] = tuple(
                dim.dim_value if dim.HasField("dim_value") else None for dim in dims
            )
    for tensor in inferred.initializer:
        found[tensor.name] = tuple(tensor.dims)
    return found


def _known(shape: "tuple[int | None, ...] | None") -> bool:
    return shape is not None and None not in shape


def _fold(graph: Graph, shapes: dict[str, tuple[int | None, ...]]) -> None:
    """Make constants of what depends on constants alone, as ONNX Runtime computes it."""
    small = {
        name
        for name, tensor in graph.constants.items()
        if tensor.ByteSize() <= FOLDED_BYTES + MARGIN_BYTES
    }
    found: dict[str, np.ndarray] = {}
    fixed, chosen = set(small), []
    for node in graph.nodes:
        shape = shapes.get(node.input[0]) if node.op_type == "Shape" else None
        if shape is not None and None not in shape and not node.attribute:
            found[node.output[0]] = np.array(shape, np.int64)
            graph.set_constant(node.output[0], found[node.output[0]])
            fixed.add(node.output[0])
        elif _is_foldable(node) and fixed.issuperset(read_by(node)):
            chosen.append(node)
            fixed.update(node.output)
    found.update(_computed(graph, chosen))
    kept = []
    for node in graph.nodes:
        values = [found.get(name) for name in node.output]
        known = [v for v in values if isinstance(v, np.ndarray) and v.nbytes <= FOLDED_BYTES]
        if len(known) < len(values) or graph.outputs.intersection(node.output):
            kept.append(node)
            continue
        for name, value in zip(node.output, known, strict=True):
            graph.set_constant(name, value)
    graph.nodes = kept
    graph.refresh()


def _is_foldable(node: NodeProto) -> bool:
    inner = any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute)
    return node.domain in ("", "ai.onnx") and node.op_type not in NEVER_FOLDED and not inner


def _computed(graph: Graph, nodes: list[NodeProto]) -> dict[str, np.ndarray]:
    """What nodes that read constants alone give."""
    if not nodes:
        return {}
    outputs = [name for node in nodes for name in node.output if name]
    given = {name for node in nodes for name in node.input if name in graph.constants}
    alone = helper.make_graph(
        nodes,
        "constants",
        [],
        [onnx.ValueInfoProto(name=name) for name in outputs],
        [graph.constants[name] for name in given],
    )
    model = helper.make_model(
        alone, opset_imports=graph.model.opset_import, ir_version=graph.model.ir_version
    )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return dict(zip(outputs, session.run(outputs, {}), strict=True))


def _drop_idle(graph: Graph, shapes: dict[str, tuple[int | None, ...]]) -> None:
    """Leave out what gives back its input."""
    kept = []
    for node in graph.nodes:
        source = node.input[0] if node.input else ""
        if _is_idle(graph, node, shapes) and node.output[0] not in graph.outputs:
            graph.replace(node.output[0], source)
        else:
            kept.append(node)
    graph.nodes = kept
    graph.refresh()


def _is_idle(graph: Graph, node: NodeProto, shapes: dict[str, tuple[int | None, ...]]) -> bool:
    if node.op_type == "Identity":
        return True
    before, after = (shapes.get(name) for name in (node.input or [""])[:1] + node.output[:1])
    if node.op_type in ("Expand", "Reshape"):
        return _known(before) and before == after
    if node.op_type == "Transpose":
        perm = attributes_of(node).get("perm")
        return isinstance(perm, list) and perm == list(range(len(perm)))
    if node.op_type == "Pad":
        pads = graph.value(node.input[1])
        return pads is not None and not pads.any()
    return False


def _merge_equal(graph: Graph, weights: Collection[str]) -> None:
    """Of nodes that compute the same from the same, keep the first."""
    first: dict[tuple[object, ...], NodeProto] = {}
    kept = []
    tensors: dict[tuple[object, ...], str] = {}
    for name, tensor in list(graph.constants.items()):
        value = graph.value(name)
        if value is None or value.nbytes > FOLDED_BYTES:
            continue
        # Weights may be equal before training alone: norms begin as 1 and 0.
        if name in weights and value.dtype.kind == "f" and value.size > 1:
            continue
        same = tensors.setdefault((tensor.data_type, value.shape, value.tobytes()), name)
        if same != name and name not in graph.outputs:
            graph.replace(name, same)
    for node in graph.nodes:
        told = tuple(sorted(each.SerializeToString() for each in node.attribute))
        key = (node.domain, node.op_type, tuple(node.input), len(node.output), told)
        found = first.setdefault(key, node)
        fixed = graph.outputs.intersection(node.output) or node.op_type in NEVER_FOLDED
        optional = "" in (*node.output, *found.output)
        if found is node or fixed or optional:
            kept.append(node)
            continue
        for old, new in zip(node.output, found.output, strict=True):
            graph.replace(old, new)
    graph.nodes = kept
    graph.refresh()


def _pad_in_convolutions(graph: Graph) -> None:
    """Give a convolution the zeros that a Pad puts around its input."""
    for node in graph.nodes:
        pads = _zeros_around(graph, node)
        readers = graph.readers[node.output[0]] if node.output else []
        if pads is None or node.output[0] in graph.outputs or not readers:
            continue
        if not all(_takes_pads(reader, node.output[0]) for reader in readers):
            continue
        for reader in readers:
            own = attributes_of(reader).get("pads") or [0] * len(pads)
            kept = [each for each in reader.attribute if each.name != "pads"]
            del reader.attribute[:]
            total = [int(a) + b for a, b in zip(own, pads, strict=True)]  # type: ignore[call-overload]
            reader.attribute.extend([*kept, helper.make_attribute("pads", total)])
        graph.replace(node.output[0], node.input[0])
    graph.refresh()


def _zeros_around(graph: Graph, node: NodeProto) -> list[int] | None:
    """How many zeros stand before and behind each spatial axis; None where it is anything else."""
    if node.op_type != "Pad" or attributes_of(node).get("mode", b"constant") != b"constant":
        return None
    pads = graph.value(node.input[1])
    if pads is None or (len(node.input) > 3 and node.input[3]) or (pads < 0).any():
        return None
    if len(node.input) > 2 and node.input[2]:
        value = graph.value(node.input[2])
        if value is None or value.any():
            return None
    halves = pads.reshape(2, -1)
    if halves.shape[1] < 3 or halves[:, :2].any():
        return None
    return [int(each) for each in halves[:, 2:].ravel()]


def _takes_pads(node: NodeProto, name: str) -> bool:
    automatic = attributes_of(node).get("auto_pad", b"NOTSET") != b"NOTSET"
    return node.op_type == "Conv" and not automatic and list(node.input).index(name) == 0


def _move_guards(graph: Graph) -> None:
    """Move `Where(IsNaN(softmax), 0, softmax)` behind the product with the values.

    A softmax is NaN where all of its row is masked with minus infinity. With a finite number in
    its place the row is uniform instead; then the product of that row is multiplied by 0, and that
    of any other by 1. A softmax without a mask is NaN only where its scores are, which is no case
    to be hidden.
    """
    flags: dict[str, tuple[str, str]] = {}
    before: dict[int, list[NodeProto]] = {}
    after: dict[int, list[NodeProto]] = {}
    gone: set[int] = set()
    for where in list(graph.nodes):
        softmax = _guarded(graph, where)
        if softmax is None:
            continue
        product = graph.readers[where.output[0]]
        scores = graph.makers.get(softmax.input[0])
        if len(product) != 1 or product[0].op_type != "MatMul":
            continue
        if product[0].input[0] != where.output[0] or product[0].output[0] in graph.outputs:
            continue
        if scores is None or scores.op_type != "Add":
            if not _is_product(graph, softmax.input[0]):
                continue
        elif not _finish_masked(graph, scores, product[0], flags, before, after):
            continue
        gone.add(id(where))
        graph.replace(where.output[0], softmax.output[0])
    ordered = []
    for node in graph.nodes:
        ordered += before.get(id(node), [])
        if id(node) not in gone:
            ordered.append(node)
        ordered += after.get(id(node), [])
    graph.nodes = ordered
    graph.refresh()


def _is_product(graph: Graph, name: str) -> bool:
    """Whether a value is a product of matrices, or one that is scaled by constants."""
    maker = graph.makers.get(name)
    if maker is None or maker.op_type in PRODUCTS:
        return maker is not None
    if maker.op_type not in ("Mul", "Div"):
        return False
    others = [each for each in maker.input if graph.value(each) is None]
    return len(others) == 1 and _is_product(graph, others[0])


def _is_infinite_mask(graph: Graph, name: str) -> bool:
    """Whether a value is a choice between minus infinity and another constant."""
    maker = graph.makers.get(name)
    if maker is None:
        return False
    if maker.op_type in VIEWS:
        return _is_infinite_mask(graph, maker.input[0])
    choices = [graph.value(each) for each in maker.input[1:]]
    return maker.op_type == "Where" and any(
        value is not None and bool(np.isneginf(value).any()) for value in choices
    )


def _guarded(graph: Graph, where: NodeProto) -> NodeProto | None:
    """The softmax that a `Where` guards against NaN; None for any other node."""
    if where.op_type != "Where":
        return None
    asked, softmax = graph.makers.get(where.input[0]), graph.makers.get(where.input[2])
    instead = graph.value(where.input[1])
    if asked is None or asked.op_type != "IsNaN" or asked.input[0] != where.input[2]:
        return None
    if softmax is None or softmax.op_type != "Softmax" or instead is None or instead.any():
        return None
    return softmax


def _finish_masked(
    graph: Graph,
    scores: NodeProto,
    product: NodeProto,
    flags: dict[str, tuple[str, str]],
    before: dict[int, list[NodeProto]],
    after: dict[int, list[NodeProto]],
) -> bool:
    """Give the scores a finite mask, and the product its rows' flags; False where unclear."""
    from_scores = [_is_product(graph, name) for name in scores.input]
    if sum(from_scores) != 1 or len(graph.readers[scores.output[0]]) != 1:
        return False
    which = from_scores.index(False)
    mask = scores.input[which]
    if not _is_infinite_mask(graph, mask):
        return False
    if mask not in flags:
        name = f"{mask}/finite"
        lowest = graph.set_constant(f"{name}/lowest", np.array(LOWEST, np.float32))
        half = graph.set_constant(f"{name}/half", np.array(LOWEST / 2, np.float32))
        axes = graph.set_constant(f"{name}/axes", np.array([-1], np.int64))
        flags[mask] = name, f"{name}/flag"
        before[id(scores)] = [
            helper.make_node("Max", [mask, lowest], [name], name=name),
            helper.make_node("ReduceMax", [name, axes], [f"{name}/most"], name=f"{name}/most"),
            helper.make_node(
                "Greater", [f"{name}/most", half], [f"{name}/any"], name=f"{name}/any"
            ),
            helper.make_node(
                "Cast",
                [f"{name}/any"],
                [f"{name}/flag"],
                name=f"{name}/flag",
                to=onnx.TensorProto.FLOAT,
            ),
        ]
    finite, flag = flags[mask]
    scores.input[which] = finite
    whole = product.output[0]
    guarded = f"{whole}/guarded"
    graph.replace(whole, guarded)
    after[id(product)] = [helper.make_node("Mul", [whole, flag], [guarded], name=guarded)]
    return True
