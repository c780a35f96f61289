"""A design split into encoders and a fusion gives what its whole graph gives."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper
from quick_evaluators import demo, design
from tiny import tiny_space
from torch import Tensor

from device_agent.wire.request import TensorSpec
from evaluators.onnx.artifacts import ParityError
from evaluators.onnx.builder import OnnxBuilder, run_onnx
from evaluators.onnx.inputs import input_specs
from evaluators.onnx.split.cutting import NotSplit, split
from evaluators.onnx.split.files import Part, check_parts, run_parts, write_parts
from search_space.design.genotype import AttentionOver, FusionPoint, Genotype
from search_space.design.rules import canonical
from search_space.network.network import INPUTS, input_names
from search_space.network.rewrites import OWN_LENGTH
from search_space.operators.definitions import OPERATORS, Operator
from search_space.space.named import load_space
from search_space.space.space import SearchSpace

TWO_POINTS = (FusionPoint(1, 1, "gated", 16), FusionPoint(2, 2, "cross-attention-both", 32))
GATED = Genotype("tiny-bert", "tiny-vit", 16, (FusionPoint(2, 2, "gated", 16),))
THREE = ("gated", "bottleneck")


def building(space: SearchSpace, folder: Path, **more: object) -> OnnxBuilder:
    encoders = {spec.name: spec for spec in space.encoders}
    return OnnxBuilder(
        encoders,
        space.shapes,
        3,
        folder / "built",
        parts=folder / "parts",
        **more,  # type: ignore[arg-type]
    )


@pytest.fixture(scope="module")
def builder(tmp_path_factory: pytest.TempPathFactory) -> OnnxBuilder:
    return building(demo(), tmp_path_factory.mktemp("demo"))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> OnnxBuilder:
    folder = tmp_path_factory.mktemp("tiny")
    return building(tiny_space(folder), folder)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    for file in tmp_path.glob("*.onnx"):
        file.unlink()


def rows_of(builder: OnnxBuilder, genotype: Genotype) -> list[tuple[Tensor, ...]]:
    return [builder.rewriting.fed(genotype, row) for row in builder._random_inputs(genotype)]


def split_of(builder: OnnxBuilder, genotype: Genotype, folder: Path) -> tuple[Part, ...]:
    """Return the parts of a design, once they were found to give what it gives."""
    whole = builder.build(genotype)
    rows, names = rows_of(builder, genotype), input_names(genotype)
    expected = run_onnx(whole.path, rows)
    parts = write_parts(whole.path, genotype, whole.inputs, folder)
    assert check_parts(parts, genotype, names, rows, expected) <= 1e-5
    assert np.abs(expected[0] - expected[1]).max() > 1e-4, "inputs make a difference"
    whole.discard()
    return parts


def unfused(
    paths: Sequence[Path], names: Sequence[str], rows: Iterable[Sequence[Tensor]]
) -> np.ndarray:
    """Return the logits by these graphs one after another, each operator as it is written."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    providers = ["CPUExecutionProvider"]
    sessions = [onnxruntime.InferenceSession(str(path), options, providers) for path in paths]
    logits = []
    for row in rows:
        known = {n: t.contiguous().numpy() for n, t in zip(names, row, strict=True)}
        for session in sessions:
            outputs = [entry.name for entry in session.get_outputs()]
            given = session.run(outputs, {i.name: known[i.name] for i in session.get_inputs()})
            known.update(zip(outputs, given, strict=True))
        logits.append(known["logits"])
    return np.concatenate(logits)


def sizes_of(parts: tuple[Part, ...]) -> dict[str, list[tuple[str, tuple[int, ...]]]]:
    return {part.name: [(cut.name, cut.shape) for cut in part.gives] for part in parts}


@pytest.mark.parametrize("over", [None, "pooled", "tokens"])
@pytest.mark.parametrize("operator", OPERATORS)
def test_parts_give_what_the_whole_gives(
    tiny: OnnxBuilder, folder: Path, operator: Operator, over: AttentionOver | None
) -> None:
    width = 15 if operator == "tensor-fusion" else 16  # its (width + 1)^2 features share four heads
    point = FusionPoint(2, 3, operator, width if over == "pooled" else 16)
    genotype = Genotype("tiny-bert", "tiny-vit", 16, (point,), 2 if over else 0, over or "pooled")
    parts = split_of(tiny, genotype, folder)
    assert [part.name for part in parts] == ["text", "image", "fusion"]
    text, image, fusion = parts
    assert {spec.name for spec in text.inputs} == {"input_ids", "attention_mask"}
    assert {spec.name for spec in image.inputs} == {"pixel_values"}
    given = {cut.name for cut in (*text.gives, *image.gives)}
    assert {spec.name for spec in fusion.inputs} == given
    for part in parts:
        described = input_specs(part.path, {})
        assert {(s.name, s.dtype, s.shape) for s in described} == {
            (s.name, s.dtype, s.shape) for s in part.inputs
        }


@pytest.mark.parametrize("precision", ["fp16", "int8", "int8-dynamic"])
@pytest.mark.parametrize("operator", ["film", "cross-attention-both", "concatenation"])
def test_parts_are_of_the_precision_of_the_whole(
    builder: OnnxBuilder, folder: Path, operator: str, precision: str
) -> None:
    genotype = design(operator, precision=precision)
    whole = builder.build(genotype)
    rows, names = rows_of(builder, genotype), input_names(genotype)
    parts = write_parts(whole.path, genotype, whole.inputs, folder)
    check_parts(parts, genotype, names, rows, run_onnx(whole.path, rows))
    # Fused kernels skip roundings, and which are fused depends on where a graph ends.
    expected = unfused([whole.path], names, rows)
    found = unfused([part.path for part in parts], names, rows)
    assert np.abs(found - expected).max() <= (1e-3 if precision == "fp16" else 1e-5)
    kinds = {"fp16": "float16", "int8": "float32", "int8-dynamic": "float32"}
    image = next(part for part in parts if part.name == "image")
    assert {cut.dtype for cut in image.gives} == {kinds[precision]}
    whole.discard()


def test_three_modalities_have_three_encoders(
    tmp_path_factory: pytest.TempPathFactory, folder: Path
) -> None:
    space = load_space("trimodal")
    names = {m: next(s.name for s in space.encoders if s.modality == m) for m in INPUTS}
    points = tuple(FusionPoint(1, 1, operator, 16, audio_tap=1) for operator in THREE)
    points = (points[0], replace(points[1], text_tap=2, vision_tap=2, audio_tap=2))
    genotype = Genotype(names["text"], names["vision"], 16, points, audio_encoder=names["audio"])
    parts = split_of(building(space, tmp_path_factory.mktemp("three")), genotype, folder)
    assert [part.name for part in parts] == ["text", "image", "sound", "fusion"]


@pytest.mark.parametrize("pooling", ["mean", "max", "conv-max", "attention"])
def test_what_is_kept_of_a_picture_is_pooled_and_projected(
    builder: OnnxBuilder, folder: Path, pooling: str
) -> None:
    genotype = design("gated", vision_pooling=pooling)
    parts = split_of(builder, genotype, folder)
    assert sizes_of(parts)["image"] == [("image_1", (1, 16))]
    assert parts[1].bytes == 64


def test_tokens_that_are_attended_over_are_kept_once_and_not_their_keys_and_values(
    builder: OnnxBuilder, folder: Path
) -> None:
    parts = split_of(builder, design("cross-attention-both"), folder)
    assert sizes_of(parts)["image"] == [("image_1", (1, 25, 16))]
    assert ("text_mask", (1, 16)) in sizes_of(parts)["text"]


def test_each_of_several_points_has_its_own_features(builder: OnnxBuilder, folder: Path) -> None:
    genotype = replace(design(), points=TWO_POINTS)
    sizes = sizes_of(split_of(builder, genotype, folder))
    assert sizes["image"] == [("image_1", (1, 16)), ("image_2", (1, 25, 32))]


def test_a_text_at_its_own_length_is_refused_with_the_way_out(
    tmp_path_factory: pytest.TempPathFactory, folder: Path
) -> None:
    made = tmp_path_factory.mktemp("open")
    lengths = {"rewrites": OWN_LENGTH, "text_lengths": lambda name: (4, 9)}
    whole = building(tiny_space(made), made, **lengths).build(GATED)
    with pytest.raises(NotSplit, match=r"input_ids has no fixed length .* as --rewrites all does"):
        write_parts(whole.path, GATED, whole.inputs, folder)
    whole.discard()


def test_a_fusion_holds_no_encoder_and_encoders_no_fusion(
    builder: OnnxBuilder, folder: Path
) -> None:
    text, image, fusion = split_of(builder, design("gated", vision_pooling="conv-max"), folder)
    kinds = {
        p.name: {n.op_type for n in onnx.load(str(p.path)).graph.node} for p in (image, fusion)
    }
    assert "Conv" in kinds["image"] and "Conv" not in kinds["fusion"]
    assert fusion.path.stat().st_size < image.path.stat().st_size + text.path.stat().st_size


@pytest.mark.parametrize("alone", ["text", "vision"])
def test_a_design_of_one_modality_is_not_split(
    builder: OnnxBuilder, folder: Path, alone: str
) -> None:
    both = design()
    one = {
        "text": replace(both, vision_encoder=None, points=(FusionPoint(2, 0),)),
        "vision": replace(both, text_encoder=None, text_tokens=0, points=(FusionPoint(0, 2),)),
    }[alone]
    whole = builder.build(canonical(one, demo().shapes))
    with pytest.raises(NotSplit, match="reads one modality: there is nothing to split"):
        write_parts(whole.path, one, whole.inputs, folder)
    assert not list(folder.iterdir())
    whole.discard()


def test_parts_of_another_design_are_found_out(builder: OnnxBuilder, folder: Path) -> None:
    one, other = design("sum"), design("product")
    parts = split_of(builder, one, folder)
    whole = builder.build(other)
    rows, names = rows_of(builder, other), input_names(other)
    with pytest.raises(ParityError, match=r"differ from the whole graph's by .* please report it"):
        check_parts(parts, other, names, rows, run_onnx(whole.path, rows))
    whole.discard()


def test_a_type_that_no_device_takes_is_not_cut_at() -> None:
    """A comparison gives truth values, which are no input of a timed graph."""
    entry = helper.make_tensor_value_info
    model = helper.make_model(
        helper.make_graph(
            [
                helper.make_node("Greater", ["pixel_values", "zero"], ["bright"]),
                helper.make_node("Where", ["bright", "input_values", "zero"], ["logits"]),
            ],
            "compared",
            [entry(n, TensorProto.FLOAT, (1, 4)) for n in ("pixel_values", "input_values")],
            [entry("logits", TensorProto.FLOAT, (1, 4))],
            [helper.make_tensor("zero", TensorProto.FLOAT, (), [0.0])],
        )
    )
    with pytest.raises(NotSplit, match="bright, which the fusion reads of vision, cannot be"):
        split(model, {"vision": ["pixel_values"], "audio": ["input_values"]})


def test_rows_are_run_one_after_another(builder: OnnxBuilder, folder: Path) -> None:
    genotype = design()
    parts = split_of(builder, genotype, folder)
    rows = rows_of(builder, genotype)
    assert run_parts(parts, input_names(genotype), rows).shape == (len(rows), 3)
    assert all(isinstance(spec, TensorSpec) for part in parts for spec in part.inputs)
