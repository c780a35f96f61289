"""A reduced precision is one graph, timed with random weights and judged with trained ones."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from quick_evaluators import demo, design

from evaluators.onnx.builder import OnnxBuilder, run_onnx
from evaluators.onnx.quantisation import For, recipe_of
from search_space.design.genotype import FusionPoint, Genotype, Precision
from search_space.network.network import FusionNetwork, build

SPECS = {spec.name: spec for spec in demo().encoders}
REDUCED: tuple[Precision, ...] = ("fp16", "int8", "int8-dynamic")
MATRIX_PRODUCTS = ("MatMul", "Gemm")


def builder(folder: Path, runtime: For = "onnxruntime") -> OnnxBuilder:
    return OnnxBuilder(SPECS, demo().shapes, 2, folder, runtime)


def trained(genotype: Genotype) -> FusionNetwork:
    """Weights of another seed than the builder's own stand for trained ones."""
    return build(genotype, SPECS, demo().shapes, 2, seed=5)


def samples(genotype: Genotype, scale: float, count: int = 8) -> list[tuple[torch.Tensor, ...]]:
    made = []
    for k in range(count):
        generator = torch.Generator().manual_seed(k)
        ids = torch.randint(0, 1024, (1, genotype.text_tokens), generator=generator)
        pixels = scale * torch.randn((1, 3, 40, 40), generator=generator)
        made.append((ids, torch.ones_like(ids), pixels))
    return made


def load(path: Path) -> Any:
    return onnx.load(str(path))


def skeleton(path: Path) -> list[object]:
    """Everything of a graph but the numbers in it."""
    graph = load(path).graph
    made: list[object] = []
    for node in graph.node:
        kept = [a for a in node.attribute if not a.HasField("t")]
        told = sorted((a.name, a.SerializeToString()) for a in kept)
        made.append((node.op_type, node.domain, list(node.input), list(node.output), told))
    weights = sorted((one.name, one.data_type, tuple(one.dims)) for one in graph.initializer)
    return made + weights


def nodes(path: Path, kinds: Iterable[str]) -> list[Any]:
    return [node for node in load(path).graph.node if node.op_type in kinds]


@pytest.mark.parametrize("precision", REDUCED)
@pytest.mark.parametrize("runtime", ["onnxruntime", "tensorrt"])
def test_what_is_judged_is_the_graph_that_was_timed(
    tmp_path: Path, precision: Precision, runtime: For
) -> None:
    asked = design("gated", precision=precision)
    timed = builder(tmp_path, runtime).build(asked)
    judged = builder(tmp_path, runtime).build(asked, trained(asked), samples(asked, 1.0))
    assert skeleton(timed.path) == skeleton(judged.path)
    assert timed.sha256 != judged.sha256


def scales(path: Path) -> dict[str, Any]:
    graph = load(path).graph
    return {
        one.name: numpy_helper.to_array(one)
        for one in graph.initializer
        if one.name.endswith("_scale")
    }


def test_int8_is_calibrated_on_the_inputs_it_is_given(tmp_path: Path) -> None:
    asked = design(precision="int8")
    network = trained(asked)
    small, large = (
        scales(builder(tmp_path).build(asked, network, samples(asked, scale)).path)
        for scale in (0.1, 10.0)
    )
    assert small.keys() == large.keys() and len(small) > 20
    assert any(not np.array_equal(small[name], large[name]) for name in small)


def test_calibrated_inputs_come_out_close_to_torch(tmp_path: Path) -> None:
    rows = samples(design(), 1.0)
    everywhere: list[tuple[Precision, For]] = [(each, "onnxruntime") for each in REDUCED]
    for precision, runtime in (*everywhere, ("int8", "tensorrt")):
        asked = design(precision=precision)
        network = trained(asked)
        made = builder(tmp_path, runtime).build(asked, network, rows)
        with torch.inference_mode():
            expected = torch.cat([network(*row) for row in rows]).numpy()
        assert np.abs(run_onnx(made.path, rows) - expected).max() < 0.2


def test_on_a_cpu_every_matrix_product_with_weights_but_the_head_s_last_is_quantised(
    tmp_path: Path,
) -> None:
    made = builder(tmp_path).build(design("gated", precision="int8"))
    weights = {one.name for one in load(made.path).graph.initializer}
    plain = [n for n in nodes(made.path, MATRIX_PRODUCTS) if weights & set(n.input[1:2])]
    assert len(plain) == 1 and "logits" in plain[0].output
    assert not [n for n in nodes(made.path, ["QuantizeLinear"]) if "logits" in n.input]
    kinds = {one.data_type for one in load(made.path).graph.initializer if "zero_point" in one.name}
    assert onnx.TensorProto.UINT8 in kinds


def test_what_goes_to_tensorrt_is_symmetric_over_fp16_and_has_its_convolutions_quantised(
    tmp_path: Path,
) -> None:
    asked = Genotype("small-bert", "small-xcit", 16, (FusionPoint(2, 2),), precision="int8")
    model = load(builder(tmp_path, "tensorrt").build(asked).path)
    onnx.checker.check_model(model, full_check=True)  # strict types, as a typed network has them
    graph = model.graph
    large = [one for one in graph.initializer if np.prod(one.dims) > 64]
    kinds = onnx.TensorProto
    assert {one.data_type for one in large} & {kinds.FLOAT, kinds.FLOAT16} == {kinds.FLOAT16}
    assert {one.data_type for one in graph.initializer if "_scale" in one.name} == {kinds.FLOAT16}
    values = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
    made = {name: node for node in graph.node for name in node.output}
    pairs = [n for n in graph.node if n.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert pairs and {node.domain for node in graph.node} <= {"", "ai.onnx"}
    for node in pairs:
        zero = values[node.input[2]]
        assert zero.dtype == np.int8 and not zero.any(), "TensorRT takes no other zero point"
    for node in graph.node:
        if node.op_type == "Conv":
            sources = [made[name].op_type for name in node.input[:2]]
            assert sources == ["DequantizeLinear"] * 2
    asymmetric = {one.data_type for one in graph.initializer if "zero_point" in one.name}
    assert asymmetric == {onnx.TensorProto.INT8}


def test_fp16_is_typed_throughout_with_inputs_and_outputs_as_they_were(tmp_path: Path) -> None:
    made = builder(tmp_path).build(design("cross-attention", precision="fp16"))
    model = load(made.path)
    onnx.checker.check_model(model, full_check=True)  # strict types, as a typed network has them
    ends = {e.name: e.type.tensor_type.elem_type for e in (*model.graph.input, *model.graph.output)}
    kinds = onnx.TensorProto
    assert ends == {
        "input_ids": kinds.INT64, "attention_mask": kinds.INT64,
        "pixel_values": kinds.FLOAT, "logits": kinds.FLOAT,
    }  # fmt: skip
    large = [one for one in model.graph.initializer if np.prod(one.dims) > 64]
    assert {one.data_type for one in large} & {kinds.FLOAT, kinds.FLOAT16} == {kinds.FLOAT16}


def test_a_key_holds_how_int8_is_made_and_for_whom() -> None:
    assert recipe_of("fp32", "tensorrt") == {}
    assert recipe_of("int8", "onnxruntime") != recipe_of("int8", "tensorrt")
    assert recipe_of("fp16", "onnxruntime") == recipe_of("fp16", "tensorrt") != {}
