"""The published designs of arXiv 2511.21889, in their own space and carried over to another."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from search_space.genotype import Genotype
from search_space.named import load_space
from search_space.network import AttentionBlock, Fusion
from search_space.paper import BERT, DESIGNS, MOBILENET, VIT, seeded_designs
from search_space.rules import fused_width
from search_space.space import SearchSpace

SMALL_SPACE = Path(__file__).parent / "small_space.toml"

PUBLISHED = {
    "late-mobilenetv2": (84.25, 21.6),
    "late-vit": (83.62, None),
    "intermediate-mobilenetv2": (72.40, 13.5),
    "intermediate-vit": (None, None),
    "early-mobilenetv2": (67.89, 11.4),
    "early-vit": (None, 10.951),
    "text-only": (80.20, None),
    "vision-only-mobilenetv2": (43.22, None),
    "vision-only-vit": (50.17, None),
}
FUSED = [name for name in PUBLISHED if "only" not in name]


@pytest.fixture(scope="module")
def paper() -> SearchSpace:
    return load_space("paper", weights="random")


@pytest.fixture(scope="module")
def demo() -> SearchSpace:
    return load_space(str(SMALL_SPACE), weights="random")


def published(name: str) -> Genotype:
    return next(design.genotype for design in DESIGNS if design.name == name)


def test_the_figures_are_those_of_the_paper() -> None:
    assert {d.name: (d.accuracy_percent, d.latency_ms) for d in DESIGNS} == PUBLISHED


class TestDesigns:
    @pytest.mark.parametrize("name", FUSED)
    def test_the_fused_designs_lie_in_the_space_paper(self, paper: SearchSpace, name: str) -> None:
        design = published(name)
        assert paper.decode(paper.encode(design)) == design

    @pytest.mark.parametrize("name", PUBLISHED)
    def test_all_can_be_built(self, paper: SearchSpace, name: str) -> None:
        assert paper.violations(published(name)) == ()

    @pytest.mark.parametrize("name", PUBLISHED)
    def test_text_is_padded_to_512_tokens(self, name: str) -> None:
        design = published(name)
        assert design.text_tokens == (512 if design.text_encoder else 0)

    @pytest.mark.parametrize(
        ("name", "widths"),
        [
            ("late-mobilenetv2", [768 + 1792]),
            ("late-vit", [768 + 768]),
            ("intermediate-mobilenetv2", [512, 512, 768 + 64]),
            ("intermediate-vit", [512, 512, 768 + 768]),
            ("early-mobilenetv2", [768 + 88]),
            ("early-vit", [768 + 768]),
            ("text-only", [768]),
            ("vision-only-mobilenetv2", [1792]),
            ("vision-only-vit", [768]),
        ],
    )
    def test_the_widths_at_each_point_are_the_papers(
        self, paper: SearchSpace, name: str, widths: list[int]
    ) -> None:
        design = published(name)
        assert [fused_width(design, point, paper.shapes) for point in design.points] == widths
        with torch.device("meta"):
            head = Fusion(design, paper.shapes, classes=2).head
        layers = [module for module in head if isinstance(module, torch.nn.Linear)]
        assert [(layer.in_features, layer.out_features) for layer in layers] == [
            (sum(widths), 512),
            (512, 256),
            (256, 2),
        ]

    @pytest.mark.parametrize(
        ("stage", "taps", "blocks"),
        [
            ("intermediate", [(4, 4), (7, 7), (8, 8)], 1),
            ("early", [(6, 6)], 4),
        ],
    )
    def test_the_trunks_end_at_the_papers_layers(
        self, stage: str, taps: list[tuple[int, int]], blocks: int
    ) -> None:
        for vision in ("mobilenetv2", "vit"):
            design = published(f"{stage}-{vision}")
            assert [(point.text_tap, point.vision_tap) for point in design.points] == taps
            assert (design.attention_blocks, design.attention_over) == (blocks, "pooled")

    def test_late_fusion_runs_both_trunks_whole(self) -> None:
        for name, layers in (("late-mobilenetv2", 16), ("late-vit", 12)):
            design = published(name)
            assert (design.deepest_text_tap, design.deepest_vision_tap) == (12, layers)
            assert design.text_pooling == "pooler"


class TestAttentionOverOneVector:
    def test_its_softmax_is_the_identity(self) -> None:
        """Over one key every share is 1: query and key weights get no gradient."""
        torch.manual_seed(0)
        block = AttentionBlock(16, residual=False)
        block(torch.randn(3, 1, 16)).pow(3).sum().backward()
        gradient = block.attention.in_proj_weight.grad
        assert gradient is not None
        queries_and_keys, values = gradient[:32].abs(), gradient[32:].abs()
        assert queries_and_keys.max() < 1e-6 * values.max()  # nothing but rounding

    def test_over_tokens_queries_and_keys_do_learn(self) -> None:
        torch.manual_seed(0)
        block = AttentionBlock(16, residual=True)
        block(torch.randn(3, 4, 16)).pow(3).sum().backward()
        gradient = block.attention.in_proj_weight.grad
        assert gradient is not None
        assert gradient[:32].abs().sum(1).min() > 0

    def test_a_block_over_one_vector_is_one_affine_map_and_a_norm(self) -> None:
        torch.manual_seed(0)
        block, states = AttentionBlock(16, residual=False).eval(), torch.randn(3, 1, 16)
        attention = block.attention
        value, bias = attention.in_proj_weight[32:], attention.in_proj_bias[32:]
        folded = block.norm(block.linear(attention.out_proj(states @ value.T + bias)))
        torch.testing.assert_close(block(states), folded, rtol=1e-5, atol=1e-6)


class TestSeeds:
    def test_in_the_papers_space_they_are_the_papers(self, paper: SearchSpace) -> None:
        seeds = seeded_designs(paper)
        assert [(s.name, s.genotype) for s in seeds] == [(d.name, d.genotype) for d in DESIGNS]
        assert not any(seed.carried_over for seed in seeds)

    def test_in_another_space_they_say_what_was_brought_into_proportion(
        self, demo: SearchSpace
    ) -> None:
        seeds = {seed.name: seed for seed in seeded_designs(demo)}
        assert list(seeds) == [
            "late-small-mobilenet",
            "late-small-vit",
            "intermediate-small-mobilenet",
            "intermediate-small-vit",
            "early-small-mobilenet",
            "early-small-vit",
            "text-only",
            "vision-only-small-mobilenet",
            "vision-only-small-vit",
        ]
        assert seeds["intermediate-small-vit"].carried_over == (
            "intermediate-vit of arXiv 2511.21889 carried over in proportion: "
            "taps 4x4, 7x7, 8x8 became 2x2, 3x3, 4x4, 512 tokens became 32"
        )
        assert all(seed.carried_over for seed in seeds.values())

    def test_their_taps_and_widths_keep_their_proportion(self, demo: SearchSpace) -> None:
        seeds = {seed.name: seed.genotype for seed in seeded_designs(demo)}
        points = seeds["intermediate-small-mobilenet"].points
        assert [(p.text_tap, p.vision_tap, p.width) for p in points] == [
            (2, 4, 32),  # 512 of 768 is 43 of 64; 32 is the nearest width offered
            (3, 7, 32),
            (4, 8, 0),
        ]
        assert seeds["late-small-mobilenet"].deepest_vision_tap == 16
        assert seeds["early-small-vit"].deepest_vision_tap == 3

    def test_they_can_be_built_and_enqueued(self, demo: SearchSpace) -> None:
        for seed in seeded_designs(demo):
            assert demo.violations(seed.genotype) == ()
            if seed.genotype.text_encoder and seed.genotype.vision_encoder:
                assert demo.decode(demo.encode(seed.genotype)) == seed.genotype

    def test_taps_that_fall_together_are_one_point(self, demo: SearchSpace) -> None:
        shapes = {
            **demo.shapes,
            "small-bert": replace(demo.shapes["small-bert"], widths=(64,) * 2),
            "small-vit": replace(demo.shapes["small-vit"], widths=(64,) * 2),
        }
        shallow = replace(demo, shapes=shapes)
        seeds = {seed.name: seed.genotype for seed in seeded_designs(shallow)}
        points = seeds["intermediate-small-vit"].points
        assert [(p.text_tap, p.vision_tap, p.width) for p in points] == [(1, 1, 0), (1, 1, 32)]
        assert shallow.decode(shallow.encode(seeds["intermediate-small-vit"]))

    def test_an_encoder_without_a_pooler_gives_its_first_token(self, demo: SearchSpace) -> None:
        plain = replace(demo.shapes["small-bert"], has_pooler=False)
        seeds = seeded_designs(replace(demo, shapes={**demo.shapes, "small-bert": plain}))
        late = next(seed for seed in seeds if seed.name == "late-small-vit")
        assert late.genotype.text_pooling == "cls"

    def test_a_design_whose_kind_of_encoder_is_missing_is_left_out(self, demo: SearchSpace) -> None:
        encoders = tuple(e for e in demo.encoders if e.name != "small-vit")
        names = [seed.name for seed in seeded_designs(replace(demo, encoders=encoders))]
        assert names == [
            "late-small-mobilenet",
            "intermediate-small-mobilenet",
            "early-small-mobilenet",
            "text-only",
            "vision-only-small-mobilenet",
        ]

    def test_the_papers_encoders_are_known_by_name(self, paper: SearchSpace) -> None:
        assert set(paper.shapes) == {BERT, MOBILENET, VIT}
        assert {name: shape.depth for name, shape in paper.shapes.items()} == {
            BERT: 12,
            MOBILENET: 16,
            VIT: 12,
        }
