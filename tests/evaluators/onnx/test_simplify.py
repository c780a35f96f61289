"""What is taken out of an exported graph changes no output, also where a row is masked whole."""

import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnxruntime.transformers.float16 import convert_float_to_float16
from onnxruntime.transformers.onnx_model import OnnxModel
from tiny import tiny_space
from torch import nn

from evaluators.onnx import export as exporting
from evaluators.onnx.builder import OnnxBuilder
from evaluators.onnx.export import export
from evaluators.onnx.passes.simplify import simplify, simplify_model
from search_space.design.genotype import FusionPoint, Genotype
from search_space.design.rules import violations
from search_space.operators.definitions import FUSION_OPERATORS
from search_space.space.space import SearchSpace

TOKENS = 16
DESIGN = Genotype("tiny-bert", "tiny-vit", TOKENS, (FusionPoint(2, 2, "gated", 16),))


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> SearchSpace:
    return tiny_space(tmp_path_factory.mktemp("space"))


@pytest.fixture
def before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The graph of an export as the exporter wrote it."""
    file = tmp_path / "before.onnx"

    def kept(path: Path) -> None:
        shutil.copy(path, file)
        simplify(path)

    monkeypatch.setattr(exporting, "simplify", kept)
    return file


def run(file: Path, feeds: list[dict[str, np.ndarray]]) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(file), options, ["CPUExecutionProvider"])
    return [session.run(None, feed)[0] for feed in feeds]


def kinds(file: Path) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load(str(file)).graph.node)


def feeds_of(file: Path) -> list[dict[str, np.ndarray]]:
    """Inputs whose texts have all, some, one and none of their tokens."""
    generator = np.random.default_rng(0)
    found = []
    for real in (TOKENS, 5, 1, 0):
        feed: dict[str, np.ndarray] = {}
        for entry in onnx.load(str(file)).graph.input:
            shape = [dim.dim_value for dim in entry.type.tensor_type.shape.dim]
            if entry.name == "input_ids":
                feed[entry.name] = generator.integers(0, 50, shape)
            elif entry.name == "attention_mask":
                feed[entry.name] = (np.arange(shape[1]) < real).astype(np.int64)[None]
            else:
                feed[entry.name] = generator.standard_normal(shape).astype(np.float32)
        found.append(feed)
    return found


def designs() -> list[Genotype]:
    """One design of every operator, some with attention blocks over tokens."""
    found = []
    for operator in FUSION_OPERATORS:
        for blocks, over in ((0, "pooled"), (1, "tokens")):
            point = FusionPoint(2, 2, operator, 16)
            found.append(
                replace(DESIGN, points=(point,), attention_blocks=blocks, attention_over=over)
            )
    return found


@pytest.mark.parametrize(
    "genotype", designs(), ids=lambda g: f"{g.points[0].operator}-{g.attention_blocks}"
)
def test_a_design_of_every_operator_gives_the_same_logits(
    space: SearchSpace, tmp_path: Path, before: Path, genotype: Genotype
) -> None:
    if violations(genotype, space.shapes):
        pytest.skip("this operator does not take these attention blocks")
    encoders = {spec.name: spec for spec in space.encoders}
    made = OnnxBuilder(encoders, space.shapes, 2, tmp_path / "built").build(genotype)
    feeds = feeds_of(before)
    for was, now in zip(run(before, feeds), run(made.path, feeds), strict=True):
        np.testing.assert_array_equal(was, now)
    assert kinds(before)["IsNaN"] > 0 and kinds(made.path)["IsNaN"] == 0
    assert sum(kinds(made.path).values()) < 0.75 * sum(kinds(before).values())
    assert kinds(made.path)["Pad"] == 0


def test_every_softmax_is_multiplied_with_the_values_at_once(
    space: SearchSpace, tmp_path: Path, before: Path
) -> None:
    point = FusionPoint(2, 2, "cross-attention", 16)
    encoders = {spec.name: spec for spec in space.encoders}
    built = OnnxBuilder(encoders, space.shapes, 2, tmp_path / "built")
    graph = onnx.load(str(built.build(replace(DESIGN, points=(point,))).path)).graph
    made = {name: node for node in graph.node for name in node.output}
    softmaxes = [node for node in graph.node if node.op_type == "Softmax"]
    assert softmaxes
    for softmax in softmaxes:
        (reader,) = [node for node in graph.node if softmax.output[0] in node.input]
        assert reader.op_type == "MatMul" and made[softmax.input[0]].op_type in ("Add", "MatMul")


class Attention(nn.Module):
    """One attention, some of whose rows may be masked as a whole."""

    def forward(self, x: torch.Tensor, allowed: torch.Tensor) -> torch.Tensor:
        mask = allowed > 0
        return 2 * nn.functional.scaled_dot_product_attention(x, x, x, attn_mask=mask)


def test_rows_that_are_masked_as_a_whole_stay_zero_and_the_others_as_they_were(
    tmp_path: Path, before: Path
) -> None:
    x, allowed = torch.randn(1, 2, 4, 8), torch.ones(1, 1, 4, 4, dtype=torch.int64)
    file = tmp_path / "attention.onnx"
    export(Attention(), (x, allowed), file, ["x", "allowed"], ["y"], {})
    assert kinds(before)["IsNaN"] == 1 and kinds(file)["IsNaN"] == 0
    given = allowed.numpy().copy()
    given[0, 0, 1] = 0  # all of a row
    given[0, 0, 2, 1:] = 0
    feed = {"x": x.numpy(), "allowed": given}
    (was,), (now,) = run(before, [feed]), run(file, [feed])
    np.testing.assert_array_equal(was, now)
    assert not now[0, :, 1].any() and now[0, :, 2].any()


def test_rows_that_are_masked_as_a_whole_stay_zero_in_half_precision_too(tmp_path: Path) -> None:
    x, allowed = torch.randn(1, 2, 4, 8), torch.ones(1, 1, 4, 4, dtype=torch.int64)
    file = tmp_path / "attention.onnx"
    export(Attention(), (x, allowed), file, ["x", "allowed"], ["y"], {})
    half = OnnxModel(convert_float_to_float16(onnx.load(str(file))))
    half.topological_sort()
    given = allowed.numpy().copy()
    given[0, 0, 1] = 0
    # ONNX Runtime computes some of it in single precision; the reference does as it is told.
    feed = {"x": x.numpy().astype(np.float16), "allowed": given}
    (found,) = ReferenceEvaluator(half.model).run(None, feed)
    assert np.isfinite(found).all()
    assert not found[0, :, 1].any() and found[0, :, 0].any()


def test_a_guard_stays_where_the_mask_is_not_minus_infinity(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["q", "k"], ["qk"]),
        helper.make_node("Add", ["qk", "mask"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["soft"]),
        helper.make_node("IsNaN", ["soft"], ["asked"]),
        helper.make_node("Where", ["asked", "zero", "soft"], ["guarded"]),
        helper.make_node("MatMul", ["guarded", "v"], ["y"]),
    ]
    names = ("q", "k", "v", "mask")
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [2, 2]) for n in names]
    out = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 2])]
    zero = numpy_helper.from_array(np.array(0, np.float32), "zero")
    graph = helper.make_graph(nodes, "g", ends, out, [zero])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    simplify_model(model)
    file = tmp_path / "now.onnx"
    onnx.save(model, str(file))
    lowest = np.full((2, 2), np.finfo(np.float32).min, np.float32)
    feed = dict.fromkeys("qkv", np.eye(2, dtype=np.float32)) | {"mask": lowest}
    (found,) = run(file, [feed])
    np.testing.assert_allclose(found, 0.5)  # a finite mask leaves a row uniform


def padded(value: float, pads: list[int], mode: str = "constant") -> onnx.ModelProto:
    """Pad, then a convolution that pads one row and column itself."""
    weights = np.random.default_rng(0).standard_normal((2, 2, 3, 3)).astype(np.float32)
    tensors = [
        numpy_helper.from_array(weights, "w"),
        numpy_helper.from_array(np.array(pads, np.int64), "pads"),
        numpy_helper.from_array(np.array(value, np.float32), "value"),
    ]
    nodes = [
        helper.make_node("Pad", ["x", "pads", "value"], ["p"], mode=mode),
        helper.make_node("Conv", ["p", "w"], ["y"], pads=[1, 1, 1, 1], strides=[2, 2]),
    ]
    ends = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2, 6, 6])]
    out = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    graph = helper.make_graph(nodes, "g", ends, out, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


@pytest.mark.parametrize(
    ("model", "goes"),
    [
        (padded(0.0, [0, 0, 0, 1, 0, 0, 2, 1]), True),
        (padded(0.0, [0] * 8), True),
        (padded(1.0, [0, 0, 0, 1, 0, 0, 2, 1]), False),
        (padded(0.0, [0, 1, 0, 0, 0, -1, 0, 0]), False),
        (padded(0.0, [0, 0, 0, 1, 0, 0, 2, 1], "edge"), False),
    ],
)
def test_zeros_around_a_picture_become_the_convolution_s_and_nothing_else_does(
    tmp_path: Path, model: onnx.ModelProto, goes: bool
) -> None:
    files = tmp_path / "was.onnx", tmp_path / "now.onnx"
    onnx.save(model, str(files[0]))
    simplify_model(model)
    onnx.save(model, str(files[1]))
    x = np.random.default_rng(1).standard_normal((1, 2, 6, 6)).astype(np.float32)
    (was,), (now,) = (run(file, [{"x": x}]) for file in files)
    np.testing.assert_array_equal(was, now)
    assert (kinds(files[1])["Pad"] == 0) == goes


def test_a_branch_that_does_nothing_stays_a_graph() -> None:
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 4]) for n in "xy"]
    node = helper.make_node("Identity", ["x"], ["y"])
    graph = helper.make_graph([node], "g", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    simplify_model(model)
    onnx.checker.check_model(model)
    assert [node.op_type for node in model.graph.node] == ["Identity"]


def test_every_operator_is_among_the_designs() -> None:
    assert {g.points[0].operator for g in designs()} == set(FUSION_OPERATORS)
