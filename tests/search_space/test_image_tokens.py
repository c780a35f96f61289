"""The number of a picture's tokens as a decision: what is pooled, counted and exported."""

import itertools
import random
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from composed import assert_same, composing
from torch.nn import functional as F

from evaluators.costs import count_macs, example_inputs
from evaluators.latency.fusion_work import point_work
from evaluators.latency.tensorrt_check import covering, facets
from evaluators.onnx.builder import run_onnx
from evaluators.onnx.quantisation import reduce_precision
from search_space.design.encoder import EncoderShape
from search_space.design.genotype import IMAGE_TOKENS, FusionPoint, Genotype
from search_space.design.rules import canonical, fewest_image_tokens
from search_space.encoders.features import features_of, fused_tokens
from search_space.network.network import Fusion, build
from search_space.network.poolings import GridPooling
from search_space.network.rewrites import NONE
from search_space.space.named import SpaceError, load_space
from search_space.space.space import SearchSpace

TOKENS = Path(__file__).parents[2] / "examples" / "tokens.toml"
SMALL = Path(__file__).parents[1] / "support" / "small_space.toml"
TAP = 16
"""The last tap of MobileNetV2: maps of 7 x 7 cells at 224 pixels, 5 x 5 at 160, 3 x 3 at 96."""
CROSSED = Genotype(
    "bert-64", "mobilenet-0.35", 16, (FusionPoint(4, TAP, "cross-attention", 64),), image_tokens=4
)
WITH_CLASS_TOKEN = Genotype(
    "small-bert",
    "small-vit",
    16,
    (FusionPoint(2, 2, "bottleneck", 16),),
    vision_pooling="cls",
    image_tokens=16,
)
"""On patches of 6 x 6."""


@pytest.fixture(scope="module")
def space() -> SearchSpace:
    return load_space(str(TOKENS))


@pytest.fixture(scope="module")
def small() -> SearchSpace:
    return load_space(str(SMALL))


# -- the grid


@pytest.mark.parametrize("grid", [(7, 7), (6, 6), (5, 3), (1, 1)])
@pytest.mark.parametrize("with_class_token", [True, False])
def test_tokens_are_pooled_as_adaptive_average_pooling_does(
    grid: tuple[int, int], with_class_token: bool
) -> None:
    torch.manual_seed(0)
    cells, first = torch.randn(2, 5, *grid), torch.randn(2, 1, 5)
    tokens = cells.flatten(2).transpose(1, 2)
    for side in range(1, min(grid) + 1):
        expected = F.adaptive_avg_pool2d(cells, side).flatten(2).transpose(1, 2)
        given = tokens
        if with_class_token:
            given, expected = (torch.cat([first, each], 1) for each in (tokens, expected))
        pooling = GridPooling(grid, side, with_class_token)
        torch.testing.assert_close(pooling(given), expected)
        assert not pooling.state_dict(), "the design says what is averaged"


def test_all_tokens_are_pooled_by_nothing(space: SearchSpace) -> None:
    def network(tokens: int) -> str:
        return repr(Fusion(replace(CROSSED, image_tokens=tokens), space.shapes, 2))

    assert "GridPooling" not in network(0)
    assert "7x7 to 2x2" in network(4)


# -- the decision


def test_a_space_that_does_not_speak_of_image_tokens_has_the_vectors_that_it_had() -> None:
    for name in ("demo", "fusions", "trimodal"):
        asked = [decision.name for decision in load_space(name, weights="random").decisions]
        assert "image_tokens" not in asked


def test_a_design_with_all_image_tokens_is_written_as_before_there_were_fewer() -> None:
    plain = replace(CROSSED, image_tokens=0)
    assert plain.as_json() == {
        "text_encoder": "bert-64",
        "vision_encoder": "mobilenet-0.35",
        "text_tokens": 16,
        "points": [{"text_tap": 4, "vision_tap": 16, "operator": "cross-attention", "width": 64}],
        "attention_blocks": 0,
        "attention_over": "pooled",
        "text_pooling": "cls",
        "vision_pooling": "mean",
        "precision": "fp32",
    }
    assert plain.key == "6652b5ab0105eb828844a6e781b1e516dbf06010b9d5f7db1b32437a98f18f21"
    assert CROSSED.as_json() == {**plain.as_json(), "image_tokens": 4}
    assert Genotype.from_json(CROSSED.as_json()) == CROSSED
    assert CROSSED.key != plain.key


def test_a_design_has_one_vector_and_a_vector_one_design(space: SearchSpace) -> None:
    rng, met = random.Random(0), set()
    for _ in range(300):
        design = space.sample(rng)
        assert space.decode(space.encode(design)) == design
        met.add(design.image_tokens)
    # 49 are all of 7 x 7; of them beside 5 x 5, at another point, 25 are fused.
    assert met == {0, 1, 4, 9, 16, 25}


def test_more_image_tokens_than_a_tap_has_are_read_as_all_that_it_has(space: SearchSpace) -> None:
    def read(size: int, tokens: int, **changes: object) -> Genotype:
        said = {
            "image_size": size,
            "image_tokens": tokens,
            "vision_tap_1": TAP,
            "operator_1": "cross-attention",
            **changes,
        }
        return space.decode([said.get(d.name, d.choices[0]) for d in space.decisions])

    assert [read(224, n).image_tokens for n in (0, 1, 4, 9, 16, 49)] == [0, 1, 4, 9, 16, 0]
    assert [read(160, n).image_tokens for n in (0, 1, 4, 9, 16, 49)] == [0, 1, 4, 9, 16, 0]
    assert [read(96, n).image_tokens for n in (0, 1, 4, 9, 16, 49)] == [0, 1, 4, 0, 0, 0]
    # A second point at a larger map: as many as the smaller one has.
    both = {"fusion_points": 2, "vision_tap_2": 1, "operator_2": "bottleneck"}
    assert [read(96, n, **both).image_tokens for n in (0, 4, 9, 16, 49)] == [0, 4, 9, 9, 9]


def test_a_number_of_tokens_that_no_point_fuses_changes_no_design(space: SearchSpace) -> None:
    dead = replace(CROSSED, points=(FusionPoint(4, TAP, "concatenation", 64),))
    assert canonical(dead, space.shapes).image_tokens == 0
    attended = replace(dead, attention_blocks=2, attention_over="tokens")
    assert canonical(attended, space.shapes).image_tokens == 4
    alone = Genotype(None, "mobilenet-0.35", 0, (FusionPoint(0, TAP),), image_tokens=4)
    assert canonical(alone, space.shapes).image_tokens == 0
    by_query = replace(dead, vision_pooling="attention")
    assert canonical(by_query, space.shapes).image_tokens == 0, "which pools them by itself"


def test_of_one_token_every_pooling_is_that_token(space: SearchSpace, small: SearchSpace) -> None:
    both = replace(
        CROSSED, points=(FusionPoint(4, TAP, "cross-attention-both", 64),), image_tokens=1
    )
    found = {
        canonical(replace(both, vision_pooling=pooling), space.shapes).key  # type: ignore[arg-type]
        for pooling in ("mean", "max", "conv-max", "attention", "cls")
    }
    assert len(found) == 1
    beside = replace(WITH_CLASS_TOKEN, image_tokens=1)
    assert canonical(beside, small.shapes).vision_pooling == "cls"


def test_more_image_tokens_than_there_are_is_refused_in_words(space: SearchSpace) -> None:
    small_picture = replace(CROSSED, vision_encoder="mobilenet-0.35-96px", image_tokens=16)
    assert space.violations(small_picture) == (
        "16 image tokens: vision tap 16 of mobilenet-0.35-96px has 9 (3 x 3): "
        "choose one of 0, 1, 4, 9 (0 for all)",
    )
    assert space.violations(replace(small_picture, image_tokens=9)) == ()


@pytest.mark.parametrize("tokens", [5, -1, 64])
def test_a_number_that_is_no_grid_is_refused_in_words(space: SearchSpace, tokens: int) -> None:
    design = canonical(replace(CROSSED, image_tokens=tokens), space.shapes)
    design = replace(design, image_tokens=tokens)
    assert space.violations(design) == (
        f"image tokens {tokens}: choose one of 0, 1, 4, 9, 16, 25, 36, 49",
    )


def test_image_tokens_without_a_vision_encoder_are_refused_in_words(space: SearchSpace) -> None:
    alone = Genotype("bert-64", None, 16, (FusionPoint(2, 0),), image_tokens=4)
    assert space.violations(alone) == ("4 image tokens without a vision encoder: must be 0",)


@pytest.mark.parametrize("told", ["[16, 4]", "[4, 4]", "[5]", "[-1]", '["4"]', "4", "[true]"])
def test_numbers_that_are_no_grids_are_refused(tmp_path: Path, told: str) -> None:
    file = tmp_path / "space.toml"
    file.write_text(TOKENS.read_text("utf-8").replace("[0, 1, 4, 9, 16, 49]", told, 1), "utf-8")
    with pytest.raises(SpaceError, match="give rising numbers of 0, 1, 4, 9, 16, 25, 36, 49"):
        load_space(str(file))


def test_a_space_that_fuses_no_tokens_has_no_use_for_image_tokens() -> None:
    family = str(TOKENS.with_name("family.toml"))
    with pytest.raises(SpaceError, match="no operator of this space takes an image's tokens"):
        load_space(family, image_tokens=[4])
    assert load_space(str(TOKENS), image_tokens=[9, 1]).image_tokens == (1, 9)


# -- what follows from it


def test_designs_that_differ_in_image_tokens_read_the_same_features(space: SearchSpace) -> None:
    read = [
        features_of(replace(CROSSED, image_tokens=tokens), space.shapes) for tokens in (0, 1, 16)
    ]
    assert read[0] == read[1] == read[2]


def test_work_is_what_torch_counts_and_falls_with_the_tokens(
    space: SearchSpace, small: SearchSpace
) -> None:
    for design, of in ((CROSSED, space), (WITH_CLASS_TOKEN, small)):
        counts, (point,) = [], design.points
        for tokens in (1, 4, 9, 16):
            own = replace(design, image_tokens=tokens)
            assert own == canonical(own, of.shapes)
            counts.append(fusion_macs(own, of))
            extra = of.shapes[str(own.vision_encoder)].has_class_token
            assert fused_tokens(own, point, "vision", of.shapes) == tokens + extra
        counts.append(fusion_macs(replace(design, image_tokens=0), of))
        assert counts == sorted(counts)


def fusion_macs(design: Genotype, space: SearchSpace) -> float:
    """Multiply-accumulates of a design's fusion point, as latency is predicted from them."""
    (point,), encoders = design.points, {spec.name: spec for spec in space.encoders}
    network = build(design, encoders, space.shapes, 2)
    features, mask = network.read(*example_inputs(design, space.shapes))
    counted = count_macs(lambda: network.fusion.branches[0](features, mask))
    parts = 0.0
    for on, work in point_work(design, point, space.shapes, NONE):
        parts += work.linear + work.attention + (work.weights if on == "vectors" else 0)
    assert parts == counted
    return parts


@pytest.mark.parametrize("with_class_token", [True, False])
def test_a_design_composed_is_the_design_exported_in_every_precision(
    small: SearchSpace, tmp_path: Path, with_class_token: bool
) -> None:
    of, design = small, WITH_CLASS_TOKEN
    if not with_class_token:
        of, point = load_space("demo"), FusionPoint(2, 2, "cross-attention", 16)
        design = Genotype("small-bert", "small-xcit", 16, (point,), image_tokens=4)
    assert_same(of, design, tmp_path, tmp_path / "parts", NONE)
    (whole,) = (tmp_path / "exported").glob("*.onnx")
    names = [entry.name for entry in onnx.load(str(whole)).graph.input]
    rows = composing(of, tmp_path, None)._random_inputs(design)
    feeds = [{n: part.numpy() for n, part in zip(names, row, strict=True)} for row in rows]
    logits = run_onnx(whole, rows)
    for precision in ("fp16", "int8-dynamic", "int8"):
        file = tmp_path / f"{precision}.onnx"
        shutil.copy(whole, file)
        reduce_precision(file, precision, feeds, "onnxruntime")  # type: ignore[arg-type]
        assert 0 < np.abs(run_onnx(file, rows) - logits).max() < 0.05


def test_branches_of_other_grids_are_other_parts(small: SearchSpace, tmp_path: Path) -> None:
    builder = composing(small, tmp_path / "made", tmp_path / "parts")
    counts = []
    for tokens, tap in ((16, 2), (4, 2), (4, 3), (0, 3)):
        point = FusionPoint(2, tap, "bottleneck", 16)
        builder.build(replace(WITH_CLASS_TOKEN, points=(point,), image_tokens=tokens))
        counts.append(len(list((tmp_path / "parts").glob("*.part"))))
    two_trunks_and_a_head = 3
    assert [count - two_trunks_and_a_head for count in counts] == [1, 2, 2, 3]


def test_a_check_of_a_space_covers_every_number_of_tokens(space: SearchSpace) -> None:
    met = set().union(*(facets(design) for design in covering(space, samples=400)))
    assert {("image tokens", str(count)) for count in (1, 4, 9, 16)} <= met


def test_a_map_of_other_extents_on_either_side_is_pooled_too() -> None:
    wide = EncoderShape("wide", "vision", (8,), ((2, 6),))
    shapes = {"wide": wide, "text": EncoderShape("text", "text", (8,), max_tokens=16)}
    for tokens, square in itertools.product(IMAGE_TOKENS, (False, True)):
        own = {**shapes, "wide": replace(wide, sides=((2, 2),) if square else ((2, 6),))}
        made = Genotype("text", "wide", 16, (FusionPoint(1, 1, "non-local", 8),))
        assert fewest_image_tokens(made, own) == 4
        found = canonical(replace(made, image_tokens=tokens), own).image_tokens
        assert found == (0 if square and tokens == 4 else tokens)
