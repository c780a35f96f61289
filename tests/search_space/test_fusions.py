"""Every operator and pooling in a fusion: padding is not read, ONNX agrees, work is counted right.

Branches over trunks that are not there: features are drawn. Whole networks are over tiny trunks.
"""

import random
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from composed import assert_same, composing
from tiny import tiny_space
from torch import Tensor, nn

from evaluators.costs import count_macs
from evaluators.latency.fusion_work import point_work
from evaluators.onnx.builder import run_onnx
from evaluators.onnx.composition import _BranchOf
from evaluators.onnx.export import export
from evaluators.onnx.quantisation import reduce_precision
from search_space.design.encoder import EncoderShape
from search_space.design.genotype import TEXT_POOLINGS, VISION_POOLINGS, FusionPoint, Genotype
from search_space.design.rules import canonical, fused_width, violations
from search_space.encoders.features import Feature, map_tokens, read_at
from search_space.network.branch import Branch
from search_space.network.network import new_branch
from search_space.network.poolings import TokenPooling
from search_space.network.rewrites import NONE
from search_space.operators.definitions import FUSION_OPERATORS, OPERATORS, Operator
from search_space.space.space import SearchSpace

SHAPES = {
    "text": EncoderShape("text", "text", (16,), max_tokens=64),
    "image": EncoderShape("image", "vision", (12,), ((4, 3),), has_class_token=True),
}
REAL = (2, 6, 5)
"""Tokens of three texts."""


def fused(operator: Operator = "concatenation", **changes: Any) -> Genotype:
    """One point over the trunks that are not there, at width 8."""
    made = Genotype("text", "image", 16, (FusionPoint(1, 1, operator, 8),))
    made = canonical(replace(made, **changes), SHAPES)
    assert violations(made, SHAPES) == ()
    return made


def branch_of(genotype: Genotype) -> Branch:
    return new_branch(genotype, genotype.points[0], SHAPES, seed=0).eval()


def read_by(branch: Branch) -> list[Feature]:
    return list(branch.features.values())


def inputs(branch: Branch, length: int, real: Sequence[int], filler: int = 0) -> list[Tensor]:
    """What a branch reads of texts with so many real tokens, the same ones at any length.

    They are padded to `length` with large numbers drawn by `filler`.
    """
    made, image = [], SHAPES["image"]
    for feature in read_by(branch):
        width = (SHAPES["text"] if feature.modality == "text" else image).widths[0]
        size = {
            "tokens": (16 if feature.modality == "text" else map_tokens(image, 1), width),
            "grid": (width, *image.sides[0]),
        }.get(feature.form, (width,))
        drawn = torch.randn(len(real), *size, generator=torch.Generator().manual_seed(len(made)))
        if feature.modality == "text" and feature.form == "tokens":
            generator = torch.Generator().manual_seed(100 + filler)
            padded = 9 * torch.randn(len(real), length, width, generator=generator)
            for k, count in enumerate(real):
                padded[k, :count] = drawn[k, :count][:length]
            made.append(padded)
        else:
            made.append(drawn)
    if any(feature.over_text for feature in read_by(branch)):
        made.append((torch.arange(length).unsqueeze(0) < torch.tensor(real).unsqueeze(1)).long())
    return made


def said(branch: Branch, given: list[Tensor]) -> np.ndarray:
    with torch.no_grad():
        found: np.ndarray = _BranchOf(branch)(*given).numpy()
    return found


def readers() -> list[Genotype]:
    """A design for every way in which a text's tokens are read, or an image's."""
    pooled: dict[str, Any] = {"text_pooling": "attention", "vision_pooling": "attention"}
    over_tokens = {**pooled, "attention_blocks": 1, "attention_over": "tokens"}
    made = [fused(operator, **pooled) for operator in OPERATORS]
    made += [
        fused(o, text_pooling="mean")
        for o in OPERATORS
        if "text" in FUSION_OPERATORS[o].signature.tokens
    ]
    made += [fused(operator, **over_tokens) for operator in ("sum", "prefix", "bottleneck")]  # type: ignore[arg-type]
    alone = Genotype("text", None, 16, (FusionPoint(1, 0),), text_pooling="attention")
    return [*dict.fromkeys(made), alone]


@pytest.mark.parametrize("genotype", readers(), ids=Genotype.describe)
def test_padding_changes_nothing(genotype: Genotype) -> None:
    branch = branch_of(genotype)
    expected = said(branch, inputs(branch, max(REAL), REAL))
    first = inputs(branch, REAL[0], REAL, filler=3)
    alone = [part[:1] for part in first]  # without any padding, and without the others
    np.testing.assert_allclose(said(branch, alone), expected[:1], atol=1e-5)
    for filler, length in ((1, 6), (2, 11)):
        given = inputs(branch, length, REAL, filler)
        np.testing.assert_allclose(said(branch, given), expected, atol=1e-5)
    fewer = said(branch, inputs(branch, max(REAL), (1, *REAL[1:])))
    differs = np.abs(fewer - expected).max(1) > 1e-5
    assert differs.tolist() == [True, False, False], "real tokens count, of their own text alone"


@pytest.mark.parametrize("genotype", readers(), ids=Genotype.describe)
def test_padding_changes_nothing_in_onnx(genotype: Genotype, tmp_path: Path) -> None:
    branch = branch_of(genotype)
    expected = said(branch, inputs(branch, max(REAL), REAL))
    batch, length = ((1, 11), (len(REAL), 7))[readers().index(genotype) % 2]
    given = [part[:batch] for part in inputs(branch, length, REAL, filler=length)]
    found = exported(branch, given, tmp_path / "branch.onnx")
    np.testing.assert_allclose(found, expected[:batch], atol=1e-5)


def exported(branch: Branch, given: list[Tensor], file: Path) -> np.ndarray:
    """What ONNX Runtime says of the branch, exported for inputs of this size."""
    names = [f"input-{k}" for k in range(len(given))]
    export(_BranchOf(branch).eval(), tuple(given), file, names, ["fused"], {})
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(file), options, ["CPUExecutionProvider"])
    wanted = {entry.name for entry in session.get_inputs()}
    fed = {n: part.numpy() for n, part in zip(names, given, strict=True) if n in wanted}
    found: np.ndarray = session.run(None, fed)[0]
    return found


@pytest.mark.parametrize("genotype", readers(), ids=Genotype.describe)
def test_a_text_without_any_token_gives_finite_numbers_and_slopes(genotype: Genotype) -> None:
    branch = branch_of(genotype)
    found = _BranchOf(branch)(*inputs(branch, 4, (0, 3, 4)))
    found.sum().backward()
    assert found.isfinite().all()
    assert all(p.grad.isfinite().all() for p in branch.parameters() if p.grad is not None)


@pytest.mark.parametrize("masked", [True, False])
def test_pooling_by_attention_weighs_tokens_by_a_learned_query(masked: bool) -> None:
    torch.manual_seed(0)
    module = TokenPooling("attention", 5)
    tokens = torch.randn(2, 4, 5)
    mask = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1]]) if masked else None
    states = tokens.double().numpy()
    assert isinstance(module.query, nn.Linear) and module.query.bias is None
    scores = np.exp(states @ module.query.weight[0].detach().double().numpy())
    scores *= 1 if mask is None else mask.numpy()
    expected = np.einsum("bs,bsn->bn", scores / scores.sum(1, keepdims=True), states)
    np.testing.assert_allclose(module(tokens, mask).detach(), expected, rtol=1e-5, atol=1e-6)


# -- its work


@pytest.mark.parametrize("blocks", [0, 2])
@pytest.mark.parametrize("operator", OPERATORS)
def test_the_work_that_latency_is_predicted_from_is_what_torch_counts(
    operator: Operator, blocks: int
) -> None:
    for text, vision in (("attention", "attention"), ("mean", "conv-max"), ("cls", "mean")):
        design = fused(
            operator, text_pooling=text, vision_pooling=vision, attention_blocks=blocks,
            attention_over="tokens",
        )  # fmt: skip
        branch, parts = branch_of(design), dict[str, float]()
        given = inputs(branch, design.text_tokens, (design.text_tokens,))
        for on, work in point_work(design, design.points[0], SHAPES, NONE):
            kinds = [work.linear, work.attention, work.convolution]
            parts[on] = parts.get(on, 0) + sum(kinds) + (work.weights if on == "vectors" else 0)
        counted = count_macs(lambda b=branch, g=given: _BranchOf(b)(*g))  # type: ignore[misc]
        assert sum(parts.values()) == counted, design.describe()
        width = fused_width(design, design.points[0], SHAPES)
        assert said(branch, given).shape == (1, width)


# -- whole networks over tiny trunks


def every_fusion() -> list[Genotype]:
    """Each operator once and each pooling with it in turn, on trunks of which both have all."""
    made = []
    for k, operator in enumerate(OPERATORS):
        point = FusionPoint(3 if k % 2 else 1, 2, operator, 16)
        poolings = TEXT_POOLINGS[k % len(TEXT_POOLINGS)], VISION_POOLINGS[k % len(VISION_POOLINGS)]
        made.append(Genotype("tiny-bert", "tiny-vit", 16, (point,), 0, "pooled", *poolings))
    first = FusionPoint(1, 1, "prefix", 16)
    by_attention = replace(made[0], text_pooling="attention", vision_pooling="attention")
    made += [
        by_attention,
        replace(by_attention, points=(first, FusionPoint(2, 3, "bilinear", 16))),
        replace(by_attention, attention_blocks=1, attention_over="tokens"),
        Genotype("tiny-bert", None, 16, (FusionPoint(2, 0),), text_pooling="attention"),
        Genotype(None, "tiny-vit", 0, (FusionPoint(0, 2),), vision_pooling="attention"),
    ]
    return made


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> SearchSpace:
    return tiny_space(tmp_path_factory.mktemp("space"))


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("parts")


@pytest.mark.parametrize("genotype", every_fusion(), ids=Genotype.describe)
def test_a_fusion_composed_is_the_one_exported_and_can_be_reduced_in_precision(
    space: SearchSpace, tmp_path: Path, parts: Path, genotype: Genotype
) -> None:
    precision = ("fp16", "int8-dynamic")[every_fusion().index(genotype) % 2]
    genotype = canonical(genotype, space.shapes)
    assert space.violations(genotype) == ()
    assert_same(space, genotype, tmp_path, parts, NONE)
    (whole,) = (tmp_path / "exported").glob("*.onnx")
    rows = composing(space, tmp_path, None)._random_inputs(genotype)
    logits = run_onnx(whole, rows)
    file = tmp_path / f"{precision}.onnx"
    shutil.copy(whole, file)
    reduce_precision(file, precision, (), "onnxruntime")  # type: ignore[arg-type]
    assert 0 < np.abs(run_onnx(file, rows) - logits).max() < 0.05


def test_a_branch_pooled_by_attention_is_kept_and_is_no_other_branch(
    space: SearchSpace, tmp_path: Path
) -> None:
    builder = composing(space, tmp_path / "made", tmp_path / "parts")
    counts = []
    for tap, pooling in ((1, "cls"), (1, "attention"), (2, "attention"), (2, "mean")):
        point = FusionPoint(tap, tap, "cross-attention", 16)
        asked = Genotype("tiny-bert", "tiny-vit", 16, (point,), text_pooling=pooling)  # type: ignore[arg-type]
        builder.build(asked)
        counts.append(len(list((tmp_path / "parts").glob("*.part"))))
    two_trunks_and_a_head = 3
    assert [count - two_trunks_and_a_head for count in counts] == [1, 2, 2, 3]


def test_designs_drawn_from_all_operators_and_poolings_can_be_built(space: SearchSpace) -> None:
    wide = replace(
        space, operators=OPERATORS, text_poolings=TEXT_POOLINGS, vision_poolings=VISION_POOLINGS
    )
    rng = random.Random(0)
    for design in (wide.sample(rng) for _ in range(40)):
        for k, point in enumerate(design.points):
            branch = new_branch(design, point, space.shapes, seed=k)
            assert list(branch.features.values()) == read_at(design, point, space.shapes)
