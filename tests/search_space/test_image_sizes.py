"""The size of pictures as a decision: what a size changes of an encoder, and what it does not."""

import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from evaluators.costs import static_costs
from search_space.design.encoder import EncoderError, EncoderSpec, spec_for
from search_space.encoders.features import Feature
from search_space.encoders.libraries import import_transformers
from search_space.encoders.loading import describe, load_trunk
from search_space.network.network import build
from search_space.space.named import SpaceError, load_space
from search_space.space.paper import seeded_designs
from search_space.space.space import SearchSpace

FAMILY = Path(__file__).parents[2] / "examples" / "family.toml"
GRID = Feature("vision", 3, "grid")
TINY_VIT = {
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": 32,
    "patch_size": 16,
}


@pytest.fixture(scope="module")
def family() -> SearchSpace:
    return load_space(str(FAMILY))


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> EncoderSpec:
    """A ViT of transformers with weights in a folder."""
    transformers = import_transformers()
    folder = tmp_path_factory.mktemp("vit") / "vit"
    torch.manual_seed(0)
    transformers.ViTModel(transformers.ViTConfig(**TINY_VIT)).save_pretrained(folder)
    return spec_for("vision", str(folder), "pretrained")


def test_every_vision_encoder_is_there_at_every_size(family: SearchSpace) -> None:
    found = {spec.name: family.shapes[spec.name].image_size for spec in family.encoders}
    assert {n: s for n, s in found.items() if s} == {
        "mobilenet-0.35": 96,
        "mobilenet-0.35-128px": 128,
        "mobilenet-0.35-64px": 64,
        "mobilenet-0.5": 96,
        "mobilenet-0.5-128px": 128,
        "mobilenet-0.5-64px": 64,
    }
    decisions = {decision.name: decision.choices for decision in family.decisions}
    assert decisions["vision_encoder"] == ("mobilenet-0.35", "mobilenet-0.5")
    assert decisions["image_size"] == (64, 96, 128)


def test_a_design_has_one_vector_and_a_vector_one_design(family: SearchSpace) -> None:
    rng, sizes = random.Random(0), set()
    for _ in range(200):
        design = family.sample(rng)
        assert family.decode(family.encode(design)) == design
        sizes.add(family.shapes[str(design.vision_encoder)].image_size)
    assert sizes == {64, 96, 128}


def test_at_its_own_size_an_encoder_gives_the_designs_of_a_space_without_sizes() -> None:
    plain, sized = load_space("demo"), load_space("demo", image_sizes=[32, 40, 48])
    own = {seed.name: seed.genotype.key for seed in seeded_designs(plain)}
    assert {seed.name: seed.genotype.key for seed in seeded_designs(sized)} == own


def test_published_designs_move_to_the_largest_size_where_their_own_is_not_offered() -> None:
    smaller = load_space("demo", image_sizes=[32, 48])
    late = seeded_designs(smaller)[0]
    assert late.genotype.vision_encoder == "small-xcit-48px"
    assert smaller.decode(smaller.encode(late.genotype)) == late.genotype


def test_a_vit_is_run_as_transformers_interpolates_its_positions(vit: EncoderSpec) -> None:
    transformers = import_transformers()
    model = transformers.ViTModel.from_pretrained(vit.source).eval()
    pixels = torch.randn(2, 3, 64, 64)
    at = vit.at(64)
    assert describe(at).sides == ((4, 4),) * 3 and describe(vit).sides == ((2, 2),) * 3
    with torch.no_grad():
        expected = model(pixel_values=pixels, interpolate_pos_encoding=True).last_hidden_state
        grid = load_trunk(at, 3)(pixels, (GRID,))[GRID]
    torch.testing.assert_close(grid.flatten(2).transpose(1, 2), expected[:, 1:])


def test_a_convolutional_encoder_keeps_its_weights(family: SearchSpace) -> None:
    spec = family.encoder("mobilenet-0.35")
    own, small = (load_trunk(each, 3).state_dict() for each in (spec, spec.at(64)))
    assert own.keys() == small.keys()
    assert all(torch.equal(own[name], small[name]) for name in own)


def test_multiply_accumulates_of_convolutions_fall_with_the_square(family: SearchSpace) -> None:
    design = next(s.genotype for s in seeded_designs(family) if s.design.stage == "vision-only")
    encoders = {spec.name: spec for spec in family.encoders}

    def macs(name: str) -> float:
        there = replace(design, vision_encoder=name)
        network = build(there, encoders, family.shapes, 2)
        return {m.name: m.value for m in static_costs(network, there, family.shapes)}["macs"]

    share = macs("mobilenet-0.35-64px") / macs("mobilenet-0.35-128px")
    assert 0.2 < share < 0.3  # the last layers have a cell or a few at any size


@pytest.mark.parametrize(
    "name", ["vit_tiny_patch16_224", "mobilenetv3_small_050", "xcit_nano_12_p8_224"]
)
def test_models_of_timm_take_other_sizes(name: str) -> None:
    spec = spec_for("vision", f"timm/{name}", "random").at(96)
    assert describe(spec).image_size == 96
    trunk = load_trunk(spec, 2)
    feature = Feature("vision", 2, "grid")
    with torch.no_grad():
        assert trunk(torch.zeros(1, 3, 96, 96), (feature,))[feature].shape[0] == 1


def test_a_size_that_an_encoder_does_not_take_is_named(vit: EncoderSpec) -> None:
    with pytest.raises(EncoderError, match="does not take pictures of 40 pixels: give a multiple"):
        describe(vit.at(40))
    with pytest.raises(EncoderError, match="does not take pictures of 100 pixels"):
        describe(spec_for("vision", "timm/vit_tiny_patch16_224", "random").at(100))


@pytest.mark.parametrize("sizes", ["[128, 96]", "[0]", "[96, 96]", '["96"]', "[9999]", "96"])
def test_sizes_that_are_no_list_of_sizes_are_refused(tmp_path: Path, sizes: str) -> None:
    file = tmp_path / "space.toml"
    file.write_text(FAMILY.read_text("utf-8").replace("[64, 96, 128]", sizes, 1), "utf-8")
    with pytest.raises(SpaceError, match="give rising whole numbers from 32 to 1024"):
        load_space(str(file))


def test_sizes_that_are_given_are_checked_too() -> None:
    for sizes in ([31], [1025], [96, 96]):
        with pytest.raises(SpaceError, match="give rising whole numbers from 32 to 1024"):
            load_space("demo", image_sizes=sizes)
