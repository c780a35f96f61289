"""A search space's vectors and its designs: one network, one genotype, one key."""

import json
import random
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from search_space.design.encoder import EncoderShape, EncoderSpec
from search_space.design.genotype import (
    ATTENTION_OVER,
    AUDIO_POOLINGS,
    IMAGE_TOKENS,
    PRECISIONS,
    TEXT_POOLINGS,
    VISION_POOLINGS,
    FusionPoint,
    Genotype,
)
from search_space.design.rules import canonical
from search_space.encoders.features import features_of, read_at
from search_space.network.network import Fusion
from search_space.operators.definitions import FUSION_OPERATORS, OPERATORS, Operator
from search_space.space.named import load_space
from search_space.space.space import SearchSpace

TEXT = EncoderShape("text", "text", (8,) * 4, max_tokens=64, has_pooler=True)
PLAIN_TEXT = EncoderShape("plain-text", "text", (12,) * 6, max_tokens=40)
CNN = EncoderShape("cnn", "vision", (8, 12, 20), ((8, 8), (4, 4), (2, 2)), image_size=32)
VIT = EncoderShape("vit", "vision", (8,) * 5, ((4, 4),) * 5, has_class_token=True, image_size=32)
SHAPES = {shape.name: shape for shape in (TEXT, PLAIN_TEXT, CNN, VIT)}

LITERAL = Genotype(
    "bert",
    "vit",
    64,
    (FusionPoint(4, 6, "gated", 128), FusionPoint(12, 12, "cross-attention", 0)),
    attention_blocks=2,
    attention_over="tokens",
    text_pooling="mean",
    vision_pooling="cls",
    precision="int8",
)
LITERAL_KEY = "7a869d5b292e06ea86a4f5c9a32ce2400b1c7857a6f7660e700f515c35b8df71"


def space_of(*shapes: EncoderShape, **rest: Any) -> SearchSpace:
    """A space over shapes made by hand, every decision open unless told otherwise."""
    fields: dict[str, Any] = {
        "text_tokens": (16, 32, 64),
        "fusion_points": (1, 3),
        "operators": OPERATORS,
        "widths": (0, 8, 32),
        "attention_blocks": (0, 2),
        "attention_over": ATTENTION_OVER,
        "text_poolings": TEXT_POOLINGS,
        "vision_poolings": VISION_POOLINGS,
        "precisions": PRECISIONS,
    }
    return SearchSpace(
        name="made-by-hand",
        encoders=tuple(EncoderSpec(s.name, s.modality, "timm", s.name, "random") for s in shapes),
        shapes={s.name: s for s in shapes},
        **(fields | rest),
    )


WHOLE = space_of(TEXT, PLAIN_TEXT, CNN, VIT)


def some(values: tuple[Any, ...]) -> st.SearchStrategy[tuple[Any, ...]]:
    """One or more of these values, in their order."""
    chosen = st.sets(st.sampled_from(values), min_size=1)
    return chosen.map(lambda kept: tuple(value for value in values if value in kept))


def ranges(low: int, high: int) -> st.SearchStrategy[tuple[int, int]]:
    """A least and a most within these bounds."""
    pairs = st.tuples(st.integers(low, high), st.integers(low, high))
    return pairs.map(lambda pair: (min(pair), max(pair)))


@st.composite
def text_shapes(draw: st.DrawFn, name: str) -> EncoderShape:
    width, depth = draw(st.sampled_from((4, 6, 8, 12))), draw(st.integers(1, 7))
    longest, pooler = draw(st.sampled_from((16, 20, 64))), draw(st.booleans())
    made = EncoderShape(name, "text", (width,) * depth, max_tokens=longest, has_pooler=pooler)
    return replace(made, adapts=draw(st.booleans()))


@st.composite
def vision_shapes(draw: st.DrawFn, name: str) -> EncoderShape:
    widths = tuple(draw(st.lists(st.sampled_from((4, 6, 8, 20)), min_size=1, max_size=7)))
    sides = tuple(draw(st.sampled_from(((1, 1), (3, 3), (8, 8), (14, 7)))) for _ in widths)
    return EncoderShape(name, "vision", widths, sides, has_class_token=draw(st.booleans()))


@st.composite
def audio_shapes(draw: st.DrawFn, name: str) -> EncoderShape:
    widths = tuple(draw(st.lists(st.sampled_from((4, 6, 8, 20)), min_size=1, max_size=7)))
    sides = (draw(st.sampled_from(((1, 99), (8, 50)))),) * len(widths)
    return EncoderShape(name, "audio", widths, sides, sound_size=(1, 64, 400))


@st.composite
def made_spaces(draw: st.DrawFn) -> SearchSpace:
    """Spaces over one or two encoders a modality that offer only part of every decision.

    Up to one of sound; without text or without pictures where there is one.
    """
    sounds = draw(st.integers(0, 1))
    absent = draw(st.sampled_from(("", "text", "vision"))) if sounds else ""
    shapes = [draw(audio_shapes("audio-0"))] if sounds else []
    if absent != "text":
        shapes += [draw(text_shapes(f"text-{k}")) for k in range(draw(st.integers(1, 2)))]
    if absent != "vision":
        shapes += [draw(vision_shapes(f"vision-{k}")) for k in range(draw(st.integers(1, 2)))]
    return space_of(
        *shapes,
        text_tokens=draw(some((16, 24, 64))),
        fusion_points=draw(ranges(1, 3)),
        operators=draw(some(OPERATORS)),
        widths=draw(some((0, 8, 32, 256))),
        attention_blocks=draw(ranges(0, 3)),
        attention_over=draw(some(ATTENTION_OVER)),
        text_poolings=draw(some(TEXT_POOLINGS)),
        vision_poolings=draw(some(VISION_POOLINGS)),
        precisions=draw(some(PRECISIONS)),
        audio_poolings=draw(some(AUDIO_POOLINGS)),
        image_tokens=draw(st.one_of(st.just(()), some(IMAGE_TOKENS))),
        lora_ranks=draw(st.one_of(st.just(()), some((0, 4, 8)))),
    )


spaces = st.one_of(
    st.deferred(lambda: st.sampled_from((named("demo"), named("paper")))), made_spaces()
)
_loaded: dict[str, SearchSpace] = {}


def named(name: str) -> SearchSpace:
    """A space that comes with the toolkit, on random weights."""
    if name not in _loaded:
        _loaded[name] = load_space(name, weights="random")
    return _loaded[name]


def vectors(space: SearchSpace) -> st.SearchStrategy[tuple[Any, ...]]:
    """Any vector of this space."""
    return st.tuples(*(st.sampled_from(decision.choices) for decision in space.decisions))


def vector(space: SearchSpace, **said: Any) -> list[Any]:
    """The vector that says this, with first choices for the rest."""
    assert said.keys() <= {decision.name for decision in space.decisions}
    return [said.get(decision.name, decision.choices[0]) for decision in space.decisions]


def network_of(genotype: Genotype, shapes: dict[str, EncoderShape]) -> tuple[Any, ...]:
    """What is computed, told by the network itself: equal for two spellings of one network."""
    branches = []
    with torch.device("meta"):
        fusion = Fusion(genotype, shapes, classes=2)
    for point, branch in zip(genotype.points, fusion.branches, strict=True):
        read = read_at(genotype, point, shapes)
        branches.append((*read, branch.over_tokens, repr(branch)))
    return (
        (genotype.encoders, genotype.text_tokens),
        (features_of(genotype, shapes), genotype.precision, repr(fusion.head)),
        tuple(branches),
    )


class TestVectors:
    @settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
    @given(data=st.data(), space=spaces)
    def test_a_design_is_encoded_and_decoded_to_itself(
        self, data: st.DataObject, space: SearchSpace
    ) -> None:
        design = space.decode(data.draw(vectors(space)))
        assert space.decode(space.encode(design)) == design

    @settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
    @given(data=st.data(), space=spaces)
    def test_a_decoded_design_is_canonical_and_stays_so(
        self, data: st.DataObject, space: SearchSpace
    ) -> None:
        design = space.decode(data.draw(vectors(space)))
        assert canonical(design, space.shapes) == design
        assert list(design.points) == sorted(set(design.points))

    @settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
    @given(data=st.data(), space=spaces)
    def test_two_vectors_share_a_key_exactly_when_they_share_a_network(
        self, data: st.DataObject, space: SearchSpace
    ) -> None:
        one = data.draw(vectors(space))
        other = list(one)
        for _ in range(data.draw(st.integers(1, 2))):
            k = data.draw(st.integers(0, len(one) - 1))
            other[k] = data.draw(st.sampled_from(space.decisions[k].choices))
        a, b = space.decode(one), space.decode(other)
        if space.violations(a) or space.violations(b):
            return
        same = network_of(a, space.shapes) == network_of(b, space.shapes)
        assert same == (a.key == b.key) == (a == b)

    @settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
    @given(data=st.data(), space=spaces)
    def test_the_order_of_fusion_points_does_not_matter(
        self, data: st.DataObject, space: SearchSpace
    ) -> None:
        asked = data.draw(vectors(space))
        said = dict(zip((d.name for d in space.decisions), asked, strict=True))
        count = said["fusion_points"]
        order = data.draw(st.permutations(range(1, count + 1)))
        parts = ("text_tap", "vision_tap", "audio_tap", "operator", "width")
        moved = {
            f"{part}_{k}": said[f"{part}_{order[k - 1]}"]
            for part in parts
            for k in range(1, count + 1)
            if f"{part}_{k}" in said
        }
        assert space.decode(vector(space, **(said | moved))) == space.decode(asked)

    @settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
    @given(data=st.data(), space=spaces)
    def test_a_design_survives_json(self, data: st.DataObject, space: SearchSpace) -> None:
        design = space.decode(data.draw(vectors(space)))
        fields = json.loads(json.dumps(design.as_json()))
        assert fields == design.as_json()
        assert Genotype.from_json(fields) == design
        assert Genotype.from_json(fields).key == design.key

    @pytest.mark.parametrize("name", ["demo", "paper"])
    def test_every_sampled_design_can_be_built(self, name: str) -> None:
        space, rng = named(name), random.Random(0)
        designs = [space.sample(rng) for _ in range(200)]
        assert not any(space.violations(design) for design in designs)
        assert len({design.key for design in designs}) > 190

    def test_sampling_is_repeated_by_its_seed(self) -> None:
        drawn = [[named("demo").sample(random.Random(seed)).key] for seed in (1, 1, 2)]
        assert drawn[0] == drawn[1] != drawn[2]

    def test_a_space_without_a_buildable_design_says_so(self) -> None:
        shapes = replace(TEXT, widths=(6,)), replace(CNN, widths=(10,) * 3)
        space = space_of(*shapes, operators=("cross-attention",), widths=(0,))
        with pytest.raises(ValueError, match="no buildable design in 10000 draws"):
            space.sample(random.Random(0))

    def test_its_size_counts_vectors(self) -> None:
        space = space_of(TEXT, CNN, fusion_points=(1, 1), widths=(0,), precisions=("fp32",))
        # tokens, text taps, vision taps, operators, blocks, over, text and vision poolings
        poolings = len(TEXT_POOLINGS) * len(VISION_POOLINGS)
        assert space.size == 3 * 4 * 3 * len(OPERATORS) * 3 * 2 * poolings

    def test_a_vector_of_another_length_is_refused(self) -> None:
        asked = vector(WHOLE)
        with pytest.raises(ValueError, match=r"a vector of 20 choices: made-by-hand asks 21"):
            WHOLE.decode(asked[:-1])
        with pytest.raises(ValueError, match=r"a vector of 22 choices"):
            WHOLE.decode([*asked, "fp32"])

    @pytest.mark.parametrize(
        ("name", "choice"),
        [("text_encoder", "cnn"), ("text_tap_1", 7), ("width_2", 31), ("precision", "fp8")],
    )
    def test_a_choice_that_is_not_offered_is_refused(self, name: str, choice: Any) -> None:
        with pytest.raises(ValueError, match=f"{name} = {choice!r}: space made-by-hand offers"):
            WHOLE.decode(vector(WHOLE, **{name: choice}))

    def test_a_number_equal_to_a_choice_gives_the_same_key(self) -> None:
        asked = vector(WHOLE, width_1=8, attention_blocks=1)
        floats = vector(WHOLE, width_1=8.0, attention_blocks=1.0, text_tap_1=1.0)
        assert WHOLE.decode(floats).key == WHOLE.decode(asked).key

    def test_taps_are_carried_over_in_proportion_to_a_shallower_encoder(self) -> None:
        taps = [
            WHOLE.decode(vector(WHOLE, text_encoder="text", text_tap_1=tap)).points[0].text_tap
            for tap in range(1, 7)
        ]
        assert taps == [1, 2, 2, 3, 4, 4]

    def test_a_text_longer_than_the_encoder_takes_is_cut_to_its_longest(self) -> None:
        design = WHOLE.decode(vector(WHOLE, text_encoder="plain-text", text_tokens=64))
        assert design.text_tokens == 40

    @pytest.mark.parametrize(
        ("changed", "named_in_error"),
        [
            ({"text_tokens": 17}, "text_tokens = 17"),
            ({"text_encoder": "bert"}, "bert"),
            ({"precision": "fp8"}, "precision = 'fp8'"),
            ({"points": (FusionPoint(1, 1, "concatenation", 5),)}, "width_1 = 5"),
            ({"text_pooling": "pooler"}, "not a canonical design"),
            ({"text_encoder": None}, "unimodal"),
        ],
    )
    def test_a_foreign_design_is_refused_by_name(
        self, changed: dict[str, Any], named_in_error: str
    ) -> None:
        design = replace(WHOLE.decode(vector(WHOLE)), **changed)
        with pytest.raises((ValueError, KeyError), match=named_in_error):
            WHOLE.encode(design)

    def test_a_pooling_that_is_not_offered_is_named(self) -> None:
        space = space_of(TEXT, CNN, text_poolings=("cls",))
        design = replace(space.decode(vector(space)), text_pooling="mean")
        with pytest.raises(ValueError, match="text_pooling = 'mean'"):
            space.encode(design)


class TestDeadChoices:
    """Choices that change nothing in the network do not change the design."""

    def same(self, first: dict[str, Any], second: dict[str, Any]) -> bool:
        return WHOLE.decode(vector(WHOLE, **first)) == WHOLE.decode(vector(WHOLE, **second))

    def test_what_no_attention_block_runs_over(self) -> None:
        assert self.same({"attention_over": "pooled"}, {"attention_over": "tokens"})
        alive = {"attention_blocks": 1}
        assert not self.same({**alive, "attention_over": "tokens"}, alive)

    def test_points_beyond_the_count(self) -> None:
        assert self.same({"fusion_points": 1}, {"fusion_points": 1, "text_tap_2": 4, "width_3": 8})

    def test_a_point_said_twice(self) -> None:
        assert self.same({"fusion_points": 1}, {"fusion_points": 3})

    def test_the_pooler_away_from_the_last_layer(self) -> None:
        for tap, dead in ((1, True), (6, False)):
            first = {"text_tap_1": tap, "text_pooling": "pooler"}
            assert self.same(first, {"text_tap_1": tap, "text_pooling": "cls"}) == dead

    def test_the_pooler_of_an_encoder_without_one(self) -> None:
        last = {"text_encoder": "plain-text", "text_tap_1": 6}
        assert self.same({**last, "text_pooling": "pooler"}, {**last, "text_pooling": "cls"})

    def test_the_class_token_of_a_cnn(self) -> None:
        for encoder, dead in (("cnn", True), ("vit", False)):
            first = {"vision_encoder": encoder, "vision_pooling": "cls"}
            assert self.same(first, {**first, "vision_pooling": "mean"}) == dead

    def test_the_convolution_that_no_point_reads(self) -> None:
        tokens = {"attention_blocks": 1, "attention_over": "tokens"}
        first, second = {"vision_pooling": "conv-max"}, {"vision_pooling": "max"}
        assert self.same({**tokens, **first}, {**tokens, **second})
        assert not self.same(first, second)

    @pytest.mark.parametrize("operator", OPERATORS)
    def test_the_pooling_of_a_modality_that_an_operator_leaves_in_tokens(
        self, operator: Operator
    ) -> None:
        said = {"operator_1": operator, "width_1": 8, "vision_encoder": "vit"}
        image_alone = operator == "cross-attention-vision"
        text_alone = operator in ("cross-attention", "single-sequence", "non-local")
        for modality, dead, other in (
            ("text", image_alone, "mean"),
            ("vision", text_alone, "max"),
        ):
            first = {**said, f"{modality}_pooling": "cls"}
            assert self.same(first, {**said, f"{modality}_pooling": other}) == dead

    def test_widths_that_an_operator_cannot_use_are_read_as_the_nearest_that_it_can(self) -> None:
        assert self.same(
            {"operator_1": "tensor", "width_1": 0}, {"operator_1": "tensor", "width_1": 32}
        )
        unequal = {"operator_1": "product", "vision_encoder": "cnn", "vision_tap_1": 5}
        assert self.same({**unequal, "width_1": 0}, {**unequal, "width_1": 8})


class TestRests:
    """A space may offer nothing but dead choices; its designs still have vectors."""

    @pytest.mark.parametrize(
        ("offered", "said"),
        [
            ({"fusion_points": (2, 3)}, {}),
            ({"text_poolings": ("pooler",)}, {"text_tap_1": 1}),
            ({"vision_poolings": ("cls",)}, {"vision_encoder": "cnn"}),
            ({"vision_poolings": ("conv-max", "max")}, {"operator_1": "cross-attention"}),
            ({"attention_over": ("tokens",)}, {"attention_blocks": 0}),
        ],
    )
    def test_a_design_at_rest_is_encoded(self, offered: Any, said: Any) -> None:
        space = space_of(TEXT, CNN, VIT, **offered)
        design = space.decode(vector(space, **said))
        assert space.decode(space.encode(design)) == design


class TestKeys:
    def test_a_key_is_the_same_in_every_process(self) -> None:
        assert LITERAL.key == LITERAL_KEY

    def test_a_key_does_not_depend_on_the_process_hash_seed(self) -> None:
        program = (
            "import json, sys; from search_space.design.genotype import Genotype; "
            "print(Genotype.from_json(json.loads(sys.argv[1])).key)"
        )
        found = {
            subprocess.run(
                [sys.executable, "-c", program, json.dumps(LITERAL.as_json())],
                env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(filter(None, sys.path))},
                capture_output=True,
                text=True,
                check=True,
            ).stdout.strip()
            for seed in ("1", "2")
        }
        assert found == {LITERAL_KEY}

    @pytest.mark.parametrize(
        "change",
        [
            {"text_encoder": "roberta"},
            {"vision_encoder": "deit"},
            {"text_tokens": 32},
            {"points": LITERAL.points[:1]},
            {"points": (FusionPoint(4, 6, "gated", 64), LITERAL.points[1])},
            {"attention_blocks": 3},
            {"attention_over": "pooled"},
            {"text_pooling": "cls"},
            {"vision_pooling": "max"},
            {"precision": "fp32"},
        ],
    )
    def test_every_property_is_in_the_key(self, change: dict[str, Any]) -> None:
        assert replace(LITERAL, **change).key != LITERAL_KEY

    def test_missing_and_unknown_fields_are_refused(self) -> None:
        fields = LITERAL.as_json()
        for broken in (
            {k: v for k, v in fields.items() if k != "text_tokens"},
            {k: v for k, v in fields.items() if k != "points"},
            {**fields, "colour": "red"},
        ):
            with pytest.raises(TypeError):
                Genotype.from_json(broken)

    def test_a_design_is_told_in_one_line(self) -> None:
        assert LITERAL.describe() == (
            "bert + vit; 4x6 gated->128, 12x12 cross-attention; 2 attention over tokens; "
            "64 tokens (mean); vision cls; int8"
        )


class TestViolations:
    """What cannot be built is told in words, all of it at once."""

    GOOD = Genotype("text", "cnn", 32, (FusionPoint(2, 2),))

    def test_a_buildable_design_has_none(self) -> None:
        assert WHOLE.violations(self.GOOD) == ()

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (
                {"text_encoder": "bert"},
                "text encoder 'bert' is unknown here: choose one of text, plain",
            ),
            ({"text_encoder": "cnn"}, "text encoder 'cnn' is unknown here"),
            (
                {"vision_encoder": "text"},
                "vision encoder 'text' is unknown here: choose one of cnn, vit",
            ),
            ({"points": (FusionPoint(5, 2),)}, "text tap 5 of text: it has taps 1 to 4"),
            ({"points": (FusionPoint(2, 0),)}, "vision tap 0 of cnn: it has taps 1 to 3"),
            ({"points": (FusionPoint(2, 4),)}, "vision tap 4 of cnn: it has taps 1 to 3"),
            ({"text_tokens": 15}, "15 text tokens: text takes 16 to 64"),
            ({"text_tokens": 65}, "65 text tokens: text takes 16 to 64"),
            ({"text_encoder": None, "vision_encoder": None}, "no encoder: a design needs a text"),
            ({"text_encoder": None}, "text tap 2 without a text encoder: must be 0"),
            ({"text_encoder": None}, "32 text tokens without a text encoder: must be 0"),
            ({"points": ()}, "0 fusion points: a design has 1 to 3"),
            ({"points": tuple(FusionPoint(k, 1) for k in (1, 2, 3, 4))}, "4 fusion points"),
            ({"attention_blocks": 9}, "9 attention blocks: a design has 0 to 8"),
            ({"attention_blocks": -1}, "-1 attention blocks"),
            ({"attention_over": "layers"}, "attention over 'layers': choose one of pooled, tokens"),
            ({"text_pooling": "max"}, "text pooling 'max': choose one of cls, mean, pooler"),
            ({"vision_pooling": "min"}, "vision pooling 'min': choose one of"),
            ({"precision": "fp8"}, "precision 'fp8': choose one of fp32, fp16, int8, int8-dynamic"),
            (
                {"points": (FusionPoint(2, 2, "mix"),)},
                "operator 'mix' is none of concatenation",
            ),
            ({"points": (FusionPoint(2, 2, width=-1),)}, "width -1: 0 (the trunks' own) or more"),
            (
                {"points": (FusionPoint(2, 2, "product"),)},
                "product at taps 2x2 needs equal widths, the trunks give 8 and 1",
            ),
            ({"points": (FusionPoint(2, 2, "gated"),)}, "gated at taps 2x2 needs equal widths"),
            (
                {"points": (FusionPoint(2, 2, "tensor", 129),)},
                "gives 16,641 features, at most 16,384 are built",
            ),
            (
                {"points": (FusionPoint(2, 2, "cross-attention", 6),)},
                "4 attention heads cannot share 6 features",
            ),
            (
                {
                    "points": (FusionPoint(2, 2, width=6),),
                    "attention_blocks": 1,
                    "attention_over": "tokens",
                },
                "4 attention heads cannot share 6 features",
            ),
            (
                {"points": (FusionPoint(2, 2, width=6),), "attention_blocks": 1},
                "4 attention heads cannot share 6 features",
            ),
            (
                {"points": (FusionPoint(2, 2, "tensor", 60),), "attention_blocks": 1},
                "attention over a vector of 3,600 features at taps 2x2: at most 2,560",
            ),
            ({"vision_pooling": "cls"}, "vision pooling 'cls': cnn has no class token"),
            (
                {
                    "text_encoder": "plain-text",
                    "points": (FusionPoint(6, 2),),
                    "text_pooling": "pooler",
                },
                "text pooling 'pooler': plain-text has no pooler",
            ),
        ],
    )
    def test_each_rule_is_told(self, change: dict[str, Any], words: str) -> None:
        found = WHOLE.violations(replace(self.GOOD, **change))
        assert any(words in violation for violation in found), found

    @pytest.mark.parametrize(
        "change",
        [
            {"points": (FusionPoint(2, 0, "product"),)},
            {"points": (FusionPoint(2, 0),), "attention_blocks": 1, "attention_over": "tokens"},
        ],
    )
    def test_a_unimodal_design_has_nothing_to_fuse(self, change: dict[str, Any]) -> None:
        design = Genotype("text", None, 32, (FusionPoint(2, 0),))
        assert WHOLE.violations(design) == ()
        assert "nothing to fuse" in "; ".join(WHOLE.violations(replace(design, **change)))

    def test_all_are_told_at_once(self) -> None:
        design = Genotype("bert", "cnn", 8, (FusionPoint(1, 9, "mix"),), attention_blocks=99)  # type: ignore[arg-type]
        found = "; ".join(WHOLE.violations(design))
        assert all(part in found for part in ("'bert'", "vision tap 9", "'mix'", "99 attention"))

    @pytest.mark.parametrize("operator", ["product", "gated", "sum", "low-rank-tensor", "bilinear"])
    def test_a_width_to_project_to_makes_unequal_trunks_meet(self, operator: Any) -> None:
        asked = FusionPoint(2, 2, operator)
        told = (
            f"{operator} at taps 2x2 needs equal widths, the trunks give 8 and 12: "
            "give the point a width to project both to"
        )
        assert WHOLE.violations(replace(self.GOOD, points=(asked,))) == (told,)
        mended = replace(self.GOOD, points=(replace(asked, width=8),))
        assert WHOLE.violations(mended) == ()

    @pytest.mark.parametrize(
        "operator", [o for o in OPERATORS if FUSION_OPERATORS[o].signature.gives]
    )
    def test_heads_that_cannot_share_a_width_are_told_with_the_way_out(self, operator: Any) -> None:
        design = replace(self.GOOD, points=(FusionPoint(2, 2, operator, 6),))
        assert WHOLE.violations(design) == (
            f"{operator} at taps 2x2: 4 attention heads cannot share 6 features: "
            "choose a width that 4 divides",
        )
