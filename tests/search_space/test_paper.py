"""The published designs of arXiv 2511.21889, in their own space and carried over to another."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode

from search_space.design.genotype import Genotype
from search_space.design.rules import fused_width
from search_space.encoders.features import Feature, features_of
from search_space.encoders.loading import load_trunk
from search_space.modality import MODALITIES
from search_space.network.branch import AttentionBlock
from search_space.network.network import Fusion, FusionNetwork, build
from search_space.space.named import load_space
from search_space.space.paper import (
    BERT,
    DESIGNS,
    LATE_CLIPS,
    LATE_RIGHT,
    MOBILENET,
    VIT,
    seeded_designs,
)
from search_space.space.space import SearchSpace

SMALL_SPACE = Path(__file__).parents[1] / "support" / "small_space.toml"

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
            assert (design.deepest_tap("text"), design.deepest_tap("vision")) == (12, layers)
            assert design.text_pooling == "pooler"


def test_the_late_accuracy_is_of_so_many_clips() -> None:
    assert round(100 * LATE_RIGHT / LATE_CLIPS, 1) == 83.3


def linear(inputs: int, outputs: int) -> int:
    return inputs * outputs + outputs


def bert(layers: int, pooler: bool) -> int:
    """Words, positions, two segments and a norm; layers of width 768 and 3072; the pooler."""
    layer = 4 * linear(768, 768) + linear(768, 3072) + linear(3072, 768) + 2 * 2 * 768
    embeddings = (30522 + 512 + 2) * 768 + 2 * 768
    return embeddings + layers * layer + pooler * linear(768, 768)


def vit(layers: int, final_norm: bool) -> int:
    """Patches of 16 x 16 x 3, a class token, 197 positions; layers as BERT's."""
    layer = 4 * linear(768, 768) + linear(768, 3072) + linear(3072, 768) + 2 * 2 * 768
    return linear(16 * 16 * 3, 768) + 768 + 197 * 768 + layers * layer + final_norm * 2 * 768


def mobilenet(layers: int, final_convolution: bool) -> int:
    """MobileNetV2 1.4: a stem to 24 channels, then bottlenecks that widen six times inside."""
    widths = [24] + [32] * 2 + [48] * 3 + [88] * 4 + [136] * 3 + [224] * 3 + [448]
    stem = (3 * 9 + 2) * 48 + (9 + 2) * 48 + 48 * 24 + 2 * 24
    inside = [(a + 2 + 9 + 2) * 6 * a + 6 * a * b + 2 * b for a, b in pairwise(widths)]
    return stem + sum(inside[:layers]) + final_convolution * (448 * 1792 + 2 * 1792)


def head(width: int) -> int:
    return linear(width, 512) + linear(512, 256) + linear(256, 2)


def block(width: int) -> int:
    """Query, key, value and output, the last linear map, and a norm."""
    return 5 * linear(width, width) + 2 * width


def conv_max(width: int) -> int:
    return linear(width * 9, 64) + 2 * 64


PARAMETERS: Mapping[str, tuple[int, int, int]] = {
    "late-mobilenetv2": (bert(12, True), mobilenet(16, True), head(768 + 1792)),
    "late-vit": (bert(12, True), vit(12, True), head(768 + 768)),
    "intermediate-mobilenetv2": (
        bert(8, False),
        mobilenet(8, False),
        conv_max(48) + 2 * conv_max(88) + 2 * linear(832, 512) + block(832) + head(1024 + 832),
    ),
    "intermediate-vit": (
        bert(8, False),
        vit(8, False),
        2 * linear(1536, 512) + block(1536) + head(1024 + 1536),
    ),
    "early-mobilenetv2": (bert(6, False), mobilenet(6, False), 4 * block(856) + head(856)),
    "early-vit": (bert(6, False), vit(6, False), 4 * block(1536) + head(1536)),
    "text-only": (bert(12, True), 0, head(768)),
    "vision-only-mobilenetv2": (0, mobilenet(16, True), head(1792)),
    "vision-only-vit": (0, vit(12, True), head(768)),
}
"""Weights of (text trunk, vision trunk, fusion and head), worked out from the source by hand."""

HEAD = ["linear", "relu", "dropout", "linear", "relu", "dropout", "linear"]
BLOCK = ["attention", "linear", "layer_norm"]
CONV_MAX = ["conv2d", "batch_norm", "relu", "amax"]
OPERATIONS: Mapping[str, list[str]] = {
    "late-mobilenetv2": ["cat 768 1792", *HEAD],
    "late-vit": ["cat 768 768", *HEAD],
    "intermediate-mobilenetv2": [
        *([*CONV_MAX, "cat 768 64", "linear", "relu"] * 2),
        *[*CONV_MAX, "cat 768 64", *BLOCK, "relu"],
        "cat 512 512 832",
        *HEAD,
    ],
    "intermediate-vit": [
        *(["cat 768 768", "linear", "relu"] * 2),
        *["cat 768 768", *BLOCK, "relu"],
        "cat 512 512 1536",
        *HEAD,
    ],
    "early-mobilenetv2": ["cat 768 88", *(BLOCK * 4), *HEAD],
    "early-vit": ["cat 768 768", *(BLOCK * 4), *HEAD],
    "text-only": HEAD,
    "vision-only-mobilenetv2": HEAD,
    "vision-only-vit": HEAD,
}
"""What happens after the trunks, in order; text stands first in every concatenation."""

CLS = (1, 768)
FEATURES: Mapping[str, dict[str, tuple[int, ...]]] = {
    "late-mobilenetv2": {"text-12-pooler": CLS, "vision-16-mean": (1, 1792)},
    "late-vit": {"text-12-pooler": CLS, "vision-12-cls": CLS},
    "intermediate-mobilenetv2": {
        **{f"text-{tap}-cls": CLS for tap in (4, 7, 8)},
        "vision-4-grid": (1, 48, 28, 28),
        "vision-7-grid": (1, 88, 14, 14),
        "vision-8-grid": (1, 88, 14, 14),
    },
    "intermediate-vit": {
        **{f"text-{tap}-cls": CLS for tap in (4, 7, 8)},
        **{f"vision-{tap}-cls": CLS for tap in (4, 7, 8)},
    },
    "early-mobilenetv2": {"text-6-cls": CLS, "vision-6-max": (1, 88)},
    "early-vit": {"text-6-cls": CLS, "vision-6-cls": CLS},
    "text-only": {"text-12-pooler": CLS},
    "vision-only-mobilenetv2": {"vision-16-mean": (1, 1792)},
    "vision-only-vit": {"vision-12-cls": CLS},
}
"""What is read from each trunk, by tap and pooling, for a batch of one."""


class Operations(TorchFunctionMode):
    """Writes down, in order, what a network does to its features."""

    NAMED = ("linear", "conv2d", "batch_norm", "relu", "amax", "dropout", "layer_norm")

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []
        self.attended: list[tuple[int, int]] = []
        self._inside = False

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        name = getattr(func, "__name__", "")
        if self._inside:
            return func(*args, **(kwargs or {}))
        if name == "multi_head_attention_forward":
            keys, heads = args[1].shape[0], args[4]
            self.seen.append("attention")
            self.attended.append((keys, heads))
        elif name == "cat":
            self.seen.append(" ".join(["cat", *(str(part.shape[1]) for part in args[0])]))
        elif name in self.NAMED:
            self.seen.append(name)
        # What an operation is made of is not an operation of the design.
        self._inside = True
        try:
            return func(*args, **(kwargs or {}))
        finally:
            self._inside = False


def at_full_size(paper: SearchSpace, name: str) -> FusionNetwork:
    """The published design without memory for its weights."""
    encoders = {spec.name: spec for spec in paper.encoders}
    with torch.device("meta"):
        return build(published(name), encoders, paper.shapes, classes=2)


class TestAtFullSize:
    @pytest.mark.parametrize("name", PUBLISHED)
    def test_every_part_has_as_many_parameters_as_the_source_has_it(
        self, paper: SearchSpace, name: str
    ) -> None:
        network = at_full_size(paper, name)
        trunks = dict(network.trunks.items())
        parts = (trunks.get("text"), trunks.get("vision"), network.fusion)
        counts = tuple(sum(p.numel() for p in part.parameters()) if part else 0 for part in parts)
        assert counts == PARAMETERS[name]

    def test_whole_encoders_are_of_the_known_sizes(self) -> None:
        assert bert(12, True) == 109_482_240
        assert vit(12, True) == 85_798_656
        assert round((mobilenet(16, True) + linear(1792, 1000)) / 1e6, 2) == 6.11

    @pytest.mark.parametrize("name", PUBLISHED)
    def test_it_reads_these_features_of_its_trunks(self, paper: SearchSpace, name: str) -> None:
        wanted = {feature.name for feature in features_of(published(name), paper.shapes)}
        assert wanted == set(FEATURES[name])

    @pytest.mark.parametrize("name", [name for name in PUBLISHED if name != "text-only"])
    def test_pictures_of_224_pixels_give_features_of_these_shapes(
        self, paper: SearchSpace, name: str
    ) -> None:
        network = at_full_size(paper, name)
        pixels = torch.empty(1, 3, 224, 224, device="meta")
        with torch.no_grad():
            found = network.trunks["vision"](pixels, network.wanted["vision"])
        shapes = {feature.name: tuple(value.shape) for feature, value in found.items()}
        assert shapes == {k: v for k, v in FEATURES[name].items() if k.startswith("vision")}

    def test_texts_give_features_of_these_shapes(self, paper: SearchSpace) -> None:
        trunk = load_trunk(paper.encoder(BERT), 12)
        texts = {k: v for shapes in FEATURES.values() for k, v in shapes.items() if "text" in k}
        ids = torch.ones(1, 32, dtype=torch.int64)
        read = tuple(_feature(name) for name in sorted(texts))
        with torch.no_grad():
            found = trunk(ids, ids, read)
        assert {feature.name: tuple(value.shape) for feature, value in found.items()} == texts

    @pytest.mark.parametrize("name", PUBLISHED)
    def test_what_follows_the_trunks_happens_in_this_order(
        self, paper: SearchSpace, name: str
    ) -> None:
        fusion = at_full_size(paper, name).fusion
        features = {
            feature: torch.empty(FEATURES[name][feature.name], device="meta")
            for feature in features_of(published(name), paper.shapes)
        }
        fastpath = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            with torch.no_grad(), Operations() as operations:
                logits = fusion(features, None)
        finally:
            torch.backends.mha.set_fastpath_enabled(fastpath)
        assert operations.seen == OPERATIONS[name]
        assert logits.shape == (1, 2)
        # Four heads over one key; no residual around them.
        assert set(operations.attended) <= {(1, 4)}
        blocks = [module for module in fusion.modules() if isinstance(module, AttentionBlock)]
        assert len(blocks) == len(operations.attended)
        assert not any(block.residual for block in blocks)

    @pytest.mark.parametrize("name", PUBLISHED)
    def test_three_tenths_are_dropped_between_the_heads_layers(
        self, paper: SearchSpace, name: str
    ) -> None:
        layers = list(at_full_size(paper, name).fusion.head)
        assert [type(layer).__name__.lower() for layer in layers] == HEAD
        assert [layer.p for layer in layers if isinstance(layer, torch.nn.Dropout)] == [0.3, 0.3]


def _feature(name: str) -> Feature:
    modality, tap, form = name.split("-")
    return Feature(modality, int(tap), form)  # type: ignore[arg-type]


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
        assert not any(seed.adapted for seed in seeds)

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
        assert seeds["intermediate-small-vit"].adapted == (
            "intermediate-vit of arXiv 2511.21889 scaled in proportion: "
            "taps 4x4, 7x7, 8x8 became 2x2, 3x3, 4x4, 512 tokens became 32"
        )
        assert all(seed.adapted for seed in seeds.values())

    def test_their_taps_and_widths_keep_their_proportion(self, demo: SearchSpace) -> None:
        seeds = {seed.name: seed.genotype for seed in seeded_designs(demo)}
        points = seeds["intermediate-small-mobilenet"].points
        assert [(p.text_tap, p.vision_tap, p.width) for p in points] == [
            (2, 4, 32),  # 512 of 768 is 43 of 64; 32 is the nearest width offered
            (3, 7, 32),
            (4, 8, 0),
        ]
        assert seeds["late-small-mobilenet"].deepest_tap("vision") == 16
        assert seeds["early-small-vit"].deepest_tap("vision") == 3

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

    def test_an_audio_encoder_takes_the_place_of_a_modality_that_a_space_lacks(self) -> None:
        for missing in ("text", "vision"):
            others = tuple(m for m in MODALITIES if m != missing)
            space = load_space("trimodal", modalities=others)
            seeds = seeded_designs(space)
            fused = [seed for seed in seeds if seed.genotype.is_fused]
            assert [seed.design.stage for seed in fused] == ["late", "intermediate", "early"]
            for seed in fused:
                assert tuple(seed.genotype.encoders) == others
                assert "small-log-mel-xcit instead of" in seed.adapted
                assert space.violations(seed.genotype) == ()

    def test_the_papers_encoders_are_known_by_name(self, paper: SearchSpace) -> None:
        assert set(paper.shapes) == {BERT, MOBILENET, VIT}
        assert {name: shape.depth for name, shape in paper.shapes.items()} == {
            BERT: 12,
            MOBILENET: 16,
            VIT: 12,
        }
