"""The form in which a fusion is trained: the deployed network computes the same function."""

import random
from pathlib import Path
from typing import cast

import pytest
import torch
from torch import Tensor

from search_space.design.genotype import FusionPoint, Genotype
from search_space.encoders.features import Feature, features_of, map_tokens
from search_space.network.branch import Branch
from search_space.network.network import Fusion, new_fusion
from search_space.network.scaling import Affine, Scales, set_scaling
from search_space.network.training_form import TrainingForm
from search_space.space.named import load_space
from search_space.space.paper import DESIGNS
from search_space.space.space import SearchSpace

BATCH, TOKENS = 5, 16


def spaces() -> list[SearchSpace]:
    small = Path(__file__).parents[1] / "support" / "small_space.toml"
    return [
        load_space(str(small)),
        load_space("fusions", weights="random", image_tokens=(0, 4, 16)),
        load_space("trimodal"),
    ]


def features(
    genotype: Genotype, space: SearchSpace, generator: torch.Generator
) -> tuple[dict[Feature, Tensor], Tensor | None]:
    """Random features far from mean 0 and deviation 1, and the mask of texts of every length."""
    made = {}
    for feature in features_of(genotype, space.shapes):
        shape = space.shapes[genotype.encoders[feature.modality]]
        width = shape.widths[feature.tap - 1]
        size: tuple[int, ...] = (BATCH, width)
        if feature.form == "grid":
            size = (BATCH, width, *shape.sides[feature.tap - 1])
        elif feature.form == "tokens":
            length = TOKENS if feature.over_text else map_tokens(shape, feature.tap)
            size = (BATCH, length, width)
        made[feature] = 3 + 0.1 * torch.randn(size, generator=generator)
    mask = (torch.arange(TOKENS) < torch.randint(1, TOKENS, (BATCH, 1), generator=generator)).long()
    return made, mask if genotype.text_encoder else None


def scales(read: dict[Feature, Tensor], generator: torch.Generator) -> Scales:
    def drawn(feature: Feature) -> Affine:
        width = read[feature].shape[1 if feature.form == "grid" else -1]
        factor = 0.5 + 9 * torch.rand(width, generator=generator)
        return Affine(factor, torch.randn(width, generator=generator) - 3 * factor)

    tokens = [feature for feature in read if feature.form == "tokens"]
    return Scales({f: drawn(f) for f in read}, {f: drawn(f) for f in tokens})


def trained_and_deployed(
    genotype: Genotype, space: SearchSpace, seed: int
) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    fusion = new_fusion(genotype, space.shapes, 3, seed).eval()
    read, mask = features(genotype, space, generator)
    form = TrainingForm(fusion, scales(read, generator))
    for parameter in fusion.parameters():  # as if it had been trained
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
    with torch.inference_mode():
        trained = fusion(read, mask)
        form.deploy()
        return trained, fusion(read, mask)


def designs_of(space: SearchSpace, each: int) -> list[Genotype]:
    """So many designs with each operator of a space, and fusions that are quickly made."""
    rng, found = random.Random(0), []
    operators = next(d.choices for d in space.decisions if d.name == "operator_1")
    for operator in operators:
        made = 0
        while made < each:
            genotype = space.sample(rng)
            widths = [point.width for point in genotype.points if point.operator == "tensor"]
            if (
                any(p.operator == operator for p in genotype.points)
                and max(widths, default=0) <= 64
            ):
                found.append(genotype)
                made += 1
    return found


@pytest.mark.parametrize(
    ("space", "each"),
    list(zip(spaces(), (12, 1, 6), strict=True)),
    ids=["small", "fusions", "trimodal"],
)
def test_the_deployed_network_computes_what_the_trained_one_does(
    space: SearchSpace, each: int
) -> None:
    for seed, genotype in enumerate(designs_of(space, each)):
        trained, deployed = trained_and_deployed(genotype, space, seed)
        torch.testing.assert_close(deployed, trained, atol=1e-3, rtol=1e-3, msg=genotype.describe())


def test_the_published_designs_are_built_without_scaling() -> None:
    space = load_space("paper", weights="random")
    for design in DESIGNS:
        fusion: Fusion = new_fusion(design.genotype, space.shapes, 2, 0)
        assert not [
            name for name, _ in fusion.named_buffers() if ".scalings." in name or "first" in name
        ]


def test_a_first_token_that_is_read_is_scaled_by_itself() -> None:
    """Both affine maps, one after the other, are the first token's own."""
    space = load_space("fusions", weights="random")
    point = FusionPoint(2, 3, "cross-attention", 64)
    text, vision = space.text_encoders[0], space.vision_encoders[0]
    genotype = Genotype(text, vision, 64, (point,), text_pooling="cls")
    fusion = new_fusion(genotype, space.shapes, 3, 0)
    read, _ = features(genotype, space, torch.Generator().manual_seed(0))
    given = scales(read, torch.Generator().manual_seed(1))
    set_scaling(fusion, given)
    branch = cast(Branch, fusion.branches[0])
    assert list(branch.first_tokens) == ["text"], "the vision tokens are only attended to"
    feature = branch.features["text"]
    tokens = read[feature]
    scaled = branch.scalings["text"](branch.first_tokens["text"](tokens))
    of_all, of_first = given.features[feature], given.first_tokens[feature]
    expected = tokens * of_all.factor + of_all.offset
    expected[:, 0] = tokens[:, 0] * of_first.factor + of_first.offset
    torch.testing.assert_close(scaled, expected, atol=1e-4, rtol=1e-4)


def test_a_deployed_fusion_has_the_weights_of_a_new_one_by_name_and_size() -> None:
    space = spaces()[0]
    for seed, genotype in enumerate(designs_of(space, 4)):
        fusion = new_fusion(genotype, space.shapes, 3, seed)
        expected = {name: weight.shape for name, weight in fusion.state_dict().items()}
        read, _ = features(genotype, space, torch.Generator().manual_seed(seed))
        TrainingForm(fusion, scales(read, torch.Generator().manual_seed(seed))).deploy()
        assert {n: weight.shape for n, weight in fusion.state_dict().items()} == expected
