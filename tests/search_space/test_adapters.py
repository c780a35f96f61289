"""Adapters of trunks: where they are, what they compute, and the rank as a decision."""

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from text_families import CAUSAL, READ, spec_of
from tiny import SPACE, write_space
from torch import Tensor

from search_space.design.adapting import adapted_layers, greatest_rank_of
from search_space.design.encoder import EncoderSpec
from search_space.design.genotype import FusionPoint, Genotype
from search_space.design.rules import canonical
from search_space.encoders.features import Feature, features_of
from search_space.encoders.loading import describe, load_trunk
from search_space.network.adapted import AdaptedNetwork, Adapters
from search_space.network.adapters import ALPHA, adapt, merge
from search_space.network.network import FusionNetwork, build
from search_space.space.named import SpaceError, load_space
from search_space.space.space import SearchSpace

SMALL = Path(__file__).parents[1] / "support" / "small_space.toml"
ADAPTED = Genotype("tiny-bert", "tiny-vit", 16, (FusionPoint(3, 3, "gated", 16),), lora_rank=4)
CONVOLUTIONS = Genotype(
    "small-bert", "small-mobilenet", 16, (FusionPoint(2, 16, "gated", 16),), lora_rank=4
)


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> SearchSpace:
    file = tmp_path_factory.mktemp("space") / "tiny.toml"
    return load_space(str(write_space(file)), lora_ranks=[0, 4, 8])


@pytest.fixture(scope="module")
def small() -> SearchSpace:
    return load_space(str(SMALL))


def network_of(genotype: Genotype, space: SearchSpace) -> FusionNetwork:
    encoders = {spec.name: spec for spec in space.encoders}
    return build(genotype, encoders, space.shapes, 2)


def inputs_of(genotype: Genotype, space: SearchSpace) -> Iterator[Tensor]:
    torch.manual_seed(0)
    yield torch.randint(5, 60, (3, 16))
    mask = torch.ones(3, 16, dtype=torch.int64)
    mask[1, 9:] = 0
    yield mask
    side = space.shapes[str(genotype.vision_encoder)].image_size
    yield torch.randn(3, 3, side, side)


def moved(adapters: Adapters) -> None:
    """Weights that are no longer the first ones, of which B is zero."""
    with torch.no_grad():
        for k, weight in enumerate(adapters.weights.parameters()):
            weight.copy_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(k)))


# -- what an adapter computes


@pytest.mark.parametrize("made", ["linear", "convolution", "stride"])
def test_an_adapted_map_gives_the_frozen_one_plus_alpha_over_rank_times_b_a(made: str) -> None:
    torch.manual_seed(0)
    layer: torch.nn.Linear | torch.nn.Conv2d = torch.nn.Linear(6, 5)
    given = torch.randn(2, 3, 6)
    if made != "linear":
        layer = torch.nn.Conv2d(6, 5, 1, stride=2 if made == "stride" else 1)
        given = torch.randn(2, 6, 4, 4)
    weight, before = layer.weight.detach().clone(), layer(given)
    (adapter,) = adapt([layer], 2, torch.Generator().manual_seed(0))
    assert [tuple(part.shape) for part in (adapter.a, adapter.b)] == [(2, 6), (5, 2)]
    torch.testing.assert_close(layer(given), before, rtol=0, atol=0, msg="B is zero at first")
    torch.nn.init.normal_(adapter.b)
    trained = {name for name, part in layer.named_parameters() if part.requires_grad}
    assert trained == {"adapter.a", "adapter.b"}
    adapted = layer(given)
    merge([layer])
    torch.testing.assert_close(layer(given), adapted, rtol=0, atol=1e-5)
    update = ALPHA / 2 * adapter.b @ adapter.a
    torch.testing.assert_close(layer.weight.flatten(1), weight.flatten(1) + update)
    assert set(layer.state_dict()) == {"weight", "bias"}


@pytest.mark.parametrize("genotype", [ADAPTED, CONVOLUTIONS], ids=["transformers", "convolutions"])
def test_a_merged_network_answers_as_the_adapted_one_and_has_its_first_modules(
    space: SearchSpace, small: SearchSpace, genotype: Genotype
) -> None:
    of = space if genotype is ADAPTED else small
    network, inputs = network_of(genotype, of), tuple(inputs_of(genotype, of))
    before, frozen = repr(network), network(*inputs)
    shapes = {name: tensor.shape for name, tensor in network.state_dict().items()}
    adapters = Adapters(genotype, of.shapes, dict(network.trunks.items()), seed=0)
    torch.testing.assert_close(network(*inputs), frozen, rtol=0, atol=0)
    moved(adapters)
    adapted = network(*inputs)
    assert (adapted - frozen).abs().max() > 1e-3
    adapters.merge()
    torch.testing.assert_close(network(*inputs), adapted, rtol=0, atol=1e-4)
    assert repr(network) == before
    assert {name: tensor.shape for name, tensor in network.state_dict().items()} == shapes


def test_layers_that_are_not_adapted_are_as_they_were() -> None:
    spec = EncoderSpec(
        "tiny", "text", "transformers", "tiny", "random", "bert",
        {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2,
         "intermediate_size": 32, "vocab_size": 64},
    )  # fmt: skip
    trunk, fresh = load_trunk(spec, 3), load_trunk(spec, 3)
    layers = trunk.last_layers(3)
    for adapter in adapt(layers, 2, torch.Generator().manual_seed(0)):
        torch.nn.init.ones_(adapter.b)
    merge(layers)
    changed = {
        name
        for name, tensor in trunk.state_dict().items()
        if not torch.equal(tensor, fresh.state_dict()[name])
    }
    assert len(changed) == 6, "query, key, value, output and the two maps of the feed-forward part"
    assert all(".layer.2." in name and name.endswith(".weight") for name in changed)


# -- from a kept tap on


@pytest.mark.parametrize("genotype", [ADAPTED, CONVOLUTIONS], ids=["transformers", "convolutions"])
def test_from_the_last_frozen_tap_on_the_adapted_layers_give_what_the_whole_trunk_gives(
    space: SearchSpace, small: SearchSpace, genotype: Genotype
) -> None:
    of = space if genotype is ADAPTED else small
    network = network_of(genotype, of)
    ids, mask, pixels = inputs_of(genotype, of)
    trunks = dict(network.trunks.items())
    adapters = Adapters(genotype, of.shapes, trunks, seed=0)
    moved(adapters)
    whole = network(ids, mask, pixels)
    fresh = dict(network_of(genotype, of).trunks.items())
    upper = AdaptedNetwork(genotype, of.shapes, network.fusion, trunks)
    kept = fresh["text"](ids, mask, tuple(f for f in upper.wanted if f.modality == "text"))
    kept |= fresh["vision"](pixels, tuple(f for f in upper.wanted if f.modality == "vision"))
    torch.testing.assert_close(upper.train().eval()(kept, mask), whole, rtol=0, atol=1e-5)


def test_what_is_read_of_frozen_layers_is_what_the_adapted_ones_go_on_from(
    space: SearchSpace,
) -> None:
    points = (FusionPoint(1, 1, "gated", 16), FusionPoint(3, 2, "gated", 16))
    genotype = replace(ADAPTED, points=points)
    trunks = dict(network_of(genotype, space).trunks.items())
    Adapters(genotype, space.shapes, trunks, seed=0)
    fusion = network_of(genotype, space).fusion
    read = AdaptedNetwork(genotype, space.shapes, fusion, trunks).wanted
    assert set(read) == {
        Feature("text", 1, "cls"),
        Feature("text", 2, "tokens"),
        Feature("vision", 1, "mean"),
        Feature("vision", 1, "cls"),
        Feature("vision", 1, "grid"),
    }
    assert Feature("text", 3, "cls") in features_of(genotype, space.shapes)


def test_trunks_stay_in_evaluation_mode_while_adapters_are_trained(small: SearchSpace) -> None:
    network = network_of(CONVOLUTIONS, small)
    trunks = dict(network.trunks.items())
    Adapters(CONVOLUTIONS, small.shapes, trunks, seed=0)
    upper = AdaptedNetwork(CONVOLUTIONS, small.shapes, network.fusion, trunks).train()
    assert upper.fusion.training
    assert not any(module.training for module in upper.trunks.modules())


# -- where they are


def test_adapted_is_the_last_third_of_the_layers_that_run_and_never_the_first(
    small: SearchSpace,
) -> None:
    def layers(text: int, vision: int) -> list[range]:
        genotype = replace(CONVOLUTIONS, points=(FusionPoint(text, vision, "gated", 16),))
        return [adapted_layers(genotype, m, small.shapes) for m in ("text", "vision")]

    assert layers(6, 16) == [range(5, 7), range(11, 17)]
    assert layers(4, 3) == [range(3, 5), range(3, 4)]
    assert layers(2, 1) == [range(2, 3), range(0)]


def test_encoders_of_timm_take_no_adapters(small: SearchSpace) -> None:
    assert not small.shapes["small-vit"].adapts
    beside = replace(CONVOLUTIONS, vision_encoder="small-vit", points=(FusionPoint(6, 6),))
    assert [adapted_layers(beside, m, small.shapes) for m in ("text", "vision")] == [
        range(5, 7),
        range(0),
    ]


@pytest.mark.parametrize(
    ("family", "takes"),
    [("roberta", True), ("distilbert", True), ("electra", True), ("ibert", False), ("gpt2", False)],
)
def test_a_family_of_text_encoders_takes_adapters_if_its_layers_go_on_from_a_tap(
    family: str, takes: bool
) -> None:
    assert describe(spec_of(family, {**READ, **CAUSAL}[family])).adapts == takes


def test_a_projection_between_embeddings_and_layers_takes_no_adapters() -> None:
    narrow = {**READ["electra"], "embedding_size": 8}
    assert not describe(spec_of("electra", narrow)).adapts


# -- the decision


def test_a_space_that_does_not_speak_of_adapters_has_the_vectors_that_it_had() -> None:
    for name in ("demo", "fusions", "trimodal"):
        asked = [decision.name for decision in load_space(name, weights="random").decisions]
        assert "lora_rank" not in asked


def test_a_design_without_adapters_is_written_as_before_there_were_any(space: SearchSpace) -> None:
    plain = ADAPTED.without_adapters
    assert "lora_rank" not in plain.as_json()
    assert ADAPTED.as_json() == {**plain.as_json(), "lora_rank": 4}
    assert Genotype.from_json(ADAPTED.as_json()) == ADAPTED
    assert ADAPTED.key != plain.key
    assert ADAPTED.describe() == f"{plain.describe().removesuffix('; fp32')}; LoRA rank 4; fp32"


def test_a_design_has_one_vector_and_a_vector_one_design(space: SearchSpace) -> None:
    rng, met = random.Random(0), set()
    for _ in range(200):
        design = space.sample(rng)
        assert space.decode(space.encode(design)) == design
        met.add(design.lora_rank)
    assert met == {0, 4, 8}


def test_a_rank_that_no_layer_has_a_use_for_changes_no_design(space: SearchSpace) -> None:
    first = replace(ADAPTED, points=(FusionPoint(1, 1, "gated", 16),))
    assert canonical(first, space.shapes).lora_rank == 0
    deeper = replace(ADAPTED, points=(FusionPoint(1, 2, "gated", 16),))
    assert canonical(deeper, space.shapes).lora_rank == 4
    (found,) = space.violations(first)
    assert found.startswith("LoRA rank 4: no layer that the design runs takes adapters")


# -- what is refused


def test_a_rank_above_the_width_is_refused_in_words(
    space: SearchSpace, small: SearchSpace, tmp_path: Path
) -> None:
    assert space.violations(replace(ADAPTED, lora_rank=16)) == ()
    assert space.violations(replace(ADAPTED, lora_rank=17)) == (
        "LoRA rank 17: the last layers of tiny-bert are 16 features wide at the narrowest: choose "
        "a rank up to 16",
        "LoRA rank 17: the last layers of tiny-vit are 16 features wide at the narrowest: choose a "
        "rank up to 16",
    )
    assert greatest_rank_of(small.shapes["small-mobilenet"]) == 32
    file = write_space(tmp_path / "tiny.toml", f"lora_rank = [0, 17]\n{SPACE}")
    with pytest.raises(SpaceError, match=r"of tiny-bert are 16 features wide .*: give ranks up to"):
        load_space(str(file))


@pytest.mark.parametrize("told", ["[8, 4]", "[4, 4]", "[-1]", '["4"]', "4", "[true]"])
def test_ranks_that_are_no_rising_numbers_are_refused(tmp_path: Path, told: str) -> None:
    file = write_space(tmp_path / "tiny.toml", f"lora_rank = {told}\n{SPACE}")
    with pytest.raises(SpaceError, match="give rising whole numbers from 0"):
        load_space(str(file))


def test_a_space_of_encoders_that_take_no_adapters_has_no_use_for_a_rank() -> None:
    with pytest.raises(SpaceError, match=r"none of .* takes adapters"):
        load_space("demo", modalities=("vision",), lora_ranks=[4])
    assert not describe(load_space("demo").encoder("small-xcit")).adapts
