"""Networks built from designs, and trunks compared with the whole models they were cut from."""

import copy
import pickle
import random
from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from search_space.design.encoder import EncoderError, EncoderSpec
from search_space.design.genotype import FusionPoint, Genotype, TextPooling, VisionPooling
from search_space.encoders.features import Feature, Form, map_tokens
from search_space.encoders.libraries import import_timm, import_transformers
from search_space.encoders.loading import describe, load_trunk
from search_space.encoders.trunks import MapTrunk, TextTrunk
from search_space.network.branch import AttentionBlock
from search_space.network.network import FusionNetwork, build, input_names
from search_space.operators.definitions import Operator
from search_space.space.named import load_space
from search_space.space.paper import seeded_designs
from search_space.space.space import SearchSpace

CLASSES = 3
SMALL_SPACE = Path(__file__).parents[1] / "support" / "small_space.toml"
BERT, CNN, VIT = "small-bert", "small-mobilenet", "small-vit"


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@cache
def demo() -> SearchSpace:
    return load_space(str(SMALL_SPACE))


def network(genotype: Genotype, seed: int = 0) -> FusionNetwork:
    space = demo()
    return build(genotype, {e.name: e for e in space.encoders}, space.shapes, CLASSES, seed)


def numbers(*shape: int, seed: int = 0) -> Tensor:
    """Random numbers of this shape."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def words(batch: int, length: int, real: list[int] | None = None) -> tuple[Tensor, Tensor]:
    """Token ids (no special ones) and their mask, `real` tokens of each text being real."""
    generator = torch.Generator().manual_seed(5)
    ids = torch.randint(10, 200, (batch, length), generator=generator)
    kept = torch.tensor(real or [length] * batch).unsqueeze(1)
    mask = (torch.arange(length).unsqueeze(0) < kept).long()
    return ids * mask, mask


def inputs(genotype: Genotype, batch: int = 2) -> list[Tensor]:
    made: list[Tensor] = []
    if genotype.text_encoder:
        made += words(batch, genotype.text_tokens, [genotype.text_tokens, 9][:batch])
    if genotype.vision_encoder:
        made.append(numbers(batch, 3, 48, 48, seed=3))
    return made


def logits(genotype: Genotype, *given: Tensor, seed: int = 0) -> Tensor:
    with torch.no_grad():
        found: Tensor = network(genotype, seed)(*given)
    return found


def sampled(count: int) -> list[Genotype]:
    rng = random.Random(11)
    return [demo().sample(rng) for _ in range(count)]


def combinations() -> list[Genotype]:
    """Every operator under every kind of attention, with poolings of every kind in turn."""
    poolings: list[tuple[str, TextPooling, VisionPooling]] = [
        (VIT, "cls", "cls"),
        (CNN, "mean", "conv-max"),
        (VIT, "pooler", "max"),
        (CNN, "pooler", "mean"),
    ]
    found = []
    operators: tuple[Operator, ...] = demo().operators
    for operator in operators:
        for blocks, over in ((0, "pooled"), (1, "pooled"), (2, "tokens")):
            for vision, text_pooling, vision_pooling in poolings:
                last = demo().shapes[vision].depth
                points = (FusionPoint(2, 3, operator, 32), FusionPoint(6, last, operator, 32))
                found.append(
                    Genotype(
                        *(BERT, vision, 16, points, blocks, over, text_pooling, vision_pooling)
                    )
                )
    return found


def parts_of(names: Iterable[str]) -> set[str]:
    """Trunks and fusion that these parameters belong to."""
    return {".".join(n.split(".")[: 2 if n.startswith("trunks.") else 1]) for n in names}


class TestNetworks:
    @pytest.mark.parametrize("number", range(25))
    def test_a_sampled_design_gives_logits_that_depend_on_both_inputs(self, number: int) -> None:
        design = sampled(25)[number]
        built, given = network(design), inputs(design)
        with torch.no_grad():
            found = built(*given)
            other_text = built((given[0] + 7) * given[1], given[1], given[2])
            other_image = built(given[0], given[1], numbers(2, 3, 48, 48, seed=4))
        assert found.shape == (2, CLASSES)
        assert found.isfinite().all()
        for other in (other_text, other_image):
            assert (found - other).abs().max() > 1e-7

    def test_every_operator_attention_and_pooling_gives_logits(self) -> None:
        for design in combinations():
            assert demo().violations(design) == (), design
            found = logits(design, *inputs(design))
            assert found.shape == (2, CLASSES), design
            assert found.isfinite().all(), design

    def test_the_published_designs_give_logits_in_proportion(self) -> None:
        for seeded in seeded_designs(demo()):
            found = logits(seeded.genotype, *inputs(seeded.genotype))
            assert found.shape == (2, CLASSES), seeded.name
            assert found.isfinite().all(), seeded.name

    def test_a_seed_repeats_weights_and_outputs(self) -> None:
        design = sampled(3)[2]
        weights = []
        for seed in (0, 0, 1):
            torch.manual_seed(len(weights))  # the global random state has no say
            weights.append(network(design, seed).state_dict())
        first, again, other = weights
        assert first.keys() == again.keys() == other.keys()
        assert all(torch.equal(first[name], again[name]) for name in first)
        changed = {n for n in first if not torch.equal(first[n], other[n])}
        assert parts_of(changed) == {"trunks.text", "trunks.vision", "fusion"}
        given = inputs(design)
        assert torch.equal(logits(design, *given), logits(design, *given))

    def test_building_leaves_the_global_random_state_as_it_was(self) -> None:
        torch.manual_seed(3)
        expected = torch.rand(1)
        torch.manual_seed(3)
        network(sampled(1)[0])
        assert torch.equal(torch.rand(1), expected)

    def test_a_network_has_the_parameters_of_its_parts_alone(self) -> None:
        """Cut layers and unread poolers are gone, so sizes tell what is run."""
        design = Genotype(BERT, VIT, 16, (FusionPoint(2, 3),))
        built = network(design)
        trunk = built.trunks["text"]
        assert isinstance(trunk, TextTrunk)
        layer = sum(p.numel() for p in trunk.model.encoder.layer[0].parameters())  # type: ignore[union-attr,index]
        deeper = network(replace(design, points=(FusionPoint(4, 3),)))
        counts = [sum(p.numel() for p in n.parameters()) for n in (built, deeper)]
        assert counts[1] - counts[0] == 2 * layer
        built(*inputs(design)).sum().backward()
        unread = [name for name, p in built.named_parameters() if p.grad is None]
        assert unread == []

    def test_it_is_built_in_evaluation_mode_and_can_be_trained(self) -> None:
        design = replace(sampled(1)[0], vision_pooling="conv-max", attention_over="pooled")
        built, given = network(design), inputs(design)
        assert not any(module.training for module in built.modules())
        before = {name: p.clone() for name, p in built.named_parameters()}
        optimiser = torch.optim.SGD(built.train().parameters(), lr=0.1)
        nn.functional.cross_entropy(built(*given), torch.tensor([0, 2])).backward()
        optimiser.step()
        moved = [name for name, p in built.named_parameters() if not torch.equal(p, before[name])]
        assert parts_of(moved) == {"trunks.text", "trunks.vision", "fusion"}

    def test_a_design_that_cannot_be_built_is_refused_in_words(self) -> None:
        design = Genotype(BERT, CNN, 99, (FusionPoint(7, 1),))
        with pytest.raises(ValueError, match=r"text tap 7 of small-bert.*99 text tokens"):
            network(design)

    def test_its_inputs_are_named_in_order(self) -> None:
        design = sampled(1)[0]
        assert input_names(design) == ("input_ids", "attention_mask", "pixel_values")
        assert input_names(replace(design, vision_encoder=None)) == ("input_ids", "attention_mask")
        assert input_names(replace(design, text_encoder=None)) == ("pixel_values",)

    @pytest.mark.parametrize(("over", "still_depends"), [("pooled", False), ("tokens", True)])
    def test_attention_over_tokens_adds_to_what_it_reads_and_over_one_vector_replaces_it(
        self, over: Any, still_depends: bool
    ) -> None:
        design = Genotype(BERT, VIT, 16, (FusionPoint(2, 2, "concatenation", 32),), 2, over)
        built, given = network(design), inputs(design)
        for module in built.modules():
            if isinstance(module, AttentionBlock):
                nn.init.zeros_(module.linear.weight)
        with torch.no_grad():
            difference = built(*given) - built(given[0], given[1], -given[2])
        assert (difference.abs().max() > 1e-6) == still_depends

    def test_samples_of_a_batch_do_not_meet(self) -> None:
        for design in combinations()[::5]:
            given = inputs(design)
            alone = [logits(design, *(values[k : k + 1] for values in given)) for k in range(2)]
            torch.testing.assert_close(
                logits(design, *given), torch.cat(alone), rtol=1e-4, atol=1e-5
            )


class TestPadding:
    @pytest.mark.parametrize("pooling", ["cls", "mean", "pooler"])
    @pytest.mark.parametrize("operator", ["concatenation", "gated", "cross-attention"])
    @pytest.mark.parametrize("over", ["pooled", "tokens"])
    def test_longer_padding_changes_nothing(
        self, pooling: TextPooling, operator: Operator, over: Any
    ) -> None:
        points = (FusionPoint(3, 3, operator, 32), FusionPoint(6, 6, operator, 32))
        design = Genotype(BERT, VIT, 32, points, 2, over, pooling, "mean")
        built, image = network(design), numbers(2, 3, 48, 48)
        ids, mask = words(2, 16, [16, 5])
        found = {}
        with torch.no_grad():
            for length, filler in ((16, 0), (32, 0), (32, 77)):
                padded = (
                    nn.functional.pad(ids, (0, length - 16)),
                    nn.functional.pad(mask, (0, length - 16)),
                )
                filled = torch.where(padded[1] == 1, padded[0], filler)
                found[length, filler] = built(filled, padded[1], image)
            shorter = mask.clone()
            shorter[0, -6:] = 0
            fewer = built(ids, shorter, image)
        torch.testing.assert_close(found[32, 0], found[16, 0], rtol=0, atol=1e-5)
        torch.testing.assert_close(found[32, 77], found[16, 0], rtol=0, atol=1e-5)
        assert (fewer[0] - found[16, 0][0]).abs().max() > 1e-5  # real tokens do count

    def test_training_and_evaluation_treat_padding_alike(self) -> None:
        """The fast path of attention in evaluation gives what the training path does."""
        points = (FusionPoint(4, 4, "concatenation", 32),)
        design = Genotype(BERT, VIT, 16, points, 2, "tokens", "mean", "mean")
        built, given = network(design), inputs(design)
        fusion = built.fusion
        with torch.no_grad():
            features, mask = built.read(*given)
            fast = fusion(features, mask)
        fusion.train()
        fusion.head.eval()
        torch.testing.assert_close(fusion(features, given[1]), fast, rtol=0, atol=1e-5)


TEXT_MODELS: dict[str, dict[str, Any]] = {
    "bert": {"num_hidden_layers": 3},
    "distilbert": {"n_layers": 3, "dim": 32, "hidden_dim": 64, "n_heads": 4},
    "roberta": {"num_hidden_layers": 3, "pad_token_id": 1},
    "electra": {"num_hidden_layers": 3, "embedding_size": 16},
    "mpnet": {"num_hidden_layers": 3},
    "roberta-prelayernorm": {"num_hidden_layers": 3, "pad_token_id": 1},
}
SMALL_TEXT = {"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 64}


def text_spec(model_type: str, **config: Any) -> EncoderSpec:
    sizes = {} if model_type == "distilbert" else SMALL_TEXT
    config = {**sizes, "vocab_size": 300, **TEXT_MODELS.get(model_type, {}), **config}
    return EncoderSpec(model_type, "text", "transformers", model_type, "random", model_type, config)


def whole_of(spec: EncoderSpec, seed: int = 0) -> Any:
    """The model as its library gives it, with the weights that the trunks are drawn from."""
    torch.manual_seed(seed)
    if spec.library == "timm":
        return import_timm().create_model(spec.source, num_classes=0, **spec.config).eval()
    transformers = import_transformers()
    if spec.weights == "pretrained":
        return transformers.AutoModel.from_pretrained(spec.source, local_files_only=True).eval()
    config = transformers.AutoConfig.for_model(spec.model_type, **spec.config)
    return transformers.AutoModel.from_config(config).eval()


def read(modality: str, form: Form, taps: int) -> tuple[Feature, ...]:
    return tuple(Feature(modality, tap, form) for tap in range(1, taps + 1))  # type: ignore[arg-type]


def check_text(spec: EncoderSpec, depths: list[int]) -> None:
    """Every tap of every cut against the whole model's hidden states."""
    ids, mask = words(2, 12, [12, 7])
    whole = whole_of(spec)
    pad = whole.config.pad_token_id or 0
    ids = torch.where(mask == 1, ids, pad)
    with torch.no_grad():
        output = whole(input_ids=ids, attention_mask=mask, output_hidden_states=True)
        expected = [*output.hidden_states[1:-1], output.last_hidden_state]
        for depth in depths:
            trunk = load_trunk(spec, depth)
            wanted = read("text", "tokens", depth)
            found = trunk(ids, mask, wanted)
            for feature in wanted:
                torch.testing.assert_close(
                    found[feature], expected[feature.tap - 1], rtol=1e-5, atol=1e-5
                )


class TestTextTrunks:
    @pytest.mark.parametrize("model_type", TEXT_MODELS)
    def test_cut_at_any_depth_they_give_the_whole_models_hidden_states(
        self, model_type: str
    ) -> None:
        spec = text_spec(model_type)
        assert describe(spec).depth == 3
        assert describe(spec).widths == (32,) * 3
        check_text(spec, [1, 2, 3])

    def test_real_weights_too(self, shared: Path) -> None:
        folder = shared / "weights/all-MiniLM-L6-v2"
        check_text(EncoderSpec("minilm", "text", "transformers", str(folder)), [2, 6])

    def test_the_pooler_is_the_models_own(self) -> None:
        spec = text_spec("bert")
        ids, mask = words(2, 12, [12, 7])
        with torch.no_grad():
            expected = whole_of(spec)(input_ids=ids, attention_mask=mask).pooler_output
            feature = Feature("text", 3, "pooler")
            found = load_trunk(spec, 3)(ids, mask, (feature,))[feature]
        torch.testing.assert_close(found, expected)

    def test_a_cut_trunk_and_a_model_without_one_have_no_pooler(self) -> None:
        ids, mask = words(1, 4)
        for spec, depth in ((text_spec("bert"), 2), (text_spec("distilbert"), 3)):
            with pytest.raises(ValueError, match="no pooler at this tap"):
                load_trunk(spec, depth)(ids, mask, (Feature("text", depth, "pooler"),))

    def test_pooled_forms_are_taken_from_real_tokens(self) -> None:
        ids, mask = words(2, 12, [12, 7])
        forms: tuple[Form, ...] = ("tokens", "cls", "mean")
        tokens, first, mean = (Feature("text", 2, form) for form in forms)
        with torch.no_grad():
            found = load_trunk(text_spec("bert"), 2)(ids, mask, (tokens, first, mean))
        torch.testing.assert_close(found[first], found[tokens][:, 0])
        torch.testing.assert_close(found[mean][1], found[tokens][1, :7].mean(0))

    def test_the_longest_text_leaves_out_positions_that_stand_for_padding(self) -> None:
        positions = {"max_position_embeddings": 40}
        for model_type, longest in (("bert", 40), ("roberta", 38), ("mpnet", 38)):
            spec = text_spec(model_type, **positions)
            assert describe(spec).max_tokens == longest
            load_trunk(spec, 1)(*words(1, longest), ())  # runs at that length

    def test_there_is_no_tap_beyond_the_last_layer(self) -> None:
        for depth in (0, 4):
            with pytest.raises(EncoderError, match=f"text tap {depth} of bert: it has taps 1 to 3"):
                load_trunk(text_spec("bert"), depth)

    def test_layers_that_are_shared_are_refused_in_words(self) -> None:
        spec = text_spec("albert", embedding_size=16, num_hidden_layers=3)
        with pytest.raises(EncoderError, match="shared layers, as in ALBERT"):
            describe(spec)


TIMM_MODELS: dict[str, tuple[str, int, dict[str, Any]]] = {
    "vit": ("vit_tiny_patch16_224", 32, {"img_size": 32, "patch_size": 8, "depth": 4}),
    "vit with registers": (
        "vit_small_patch14_reg4_dinov2",
        28,
        {"img_size": 28, "patch_size": 7, "depth": 2, "embed_dim": 48, "num_heads": 4},
    ),
    "vit with registers alone": (
        "vit_medium_patch16_reg1_gap_256",
        32,
        {"img_size": 32, "patch_size": 8, "depth": 2, "embed_dim": 48, "num_heads": 4},
    ),
    "distilled deit": (
        "deit_tiny_distilled_patch16_224",
        32,
        {"img_size": 32, "patch_size": 8, "depth": 3},
    ),
    "convit": ("convit_tiny", 224, {"depth": 2, "local_up_to_layer": 1}),
    "mobilenetv3": ("mobilenetv3_small_050", 64, {}),
    "efficientnet": ("tinynet_e", 64, {}),
    "resnet": ("resnet18", 64, {}),
    "swin": (
        "swin_tiny_patch4_window7_224",
        56,
        {"img_size": 56, "depths": (1, 1, 1, 1), "embed_dim": 24},
    ),
    "convnext": ("convnext_femto", 64, {}),
    "efficientformer": ("efficientformerv2_s0", 224, {}),
    "levit": ("levit_128s", 224, {}),
}
CLASS_TOKENS = {"vit": 1, "vit with registers": 5, "distilled deit": 2}


def timm_spec(name: str) -> EncoderSpec:
    source, _, config = TIMM_MODELS[name]
    return EncoderSpec(name, "vision", "timm", source, "random", None, config)


def hugging_spec(model_type: str, **config: Any) -> EncoderSpec:
    return EncoderSpec(
        model_type, "vision", "transformers", model_type, "random", model_type, config
    )


SMALL_VIT = {
    "image_size": 24,
    "patch_size": 8,
    "num_hidden_layers": 3,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_attention_heads": 4,
}


def taps_of(trunk: nn.Module, images: Tensor) -> list[tuple[Tensor, Tensor | None]]:
    assert isinstance(trunk, MapTrunk)
    with torch.no_grad():
        return list(trunk.taps(images))


class TestTimmTrunks:
    @pytest.mark.parametrize("name", TIMM_MODELS)
    def test_cut_at_any_depth_they_give_the_whole_models_features(self, name: str) -> None:
        spec, images = timm_spec(name), numbers(2, 3, *[TIMM_MODELS[name][1]] * 2)
        whole = whole_of(spec)
        with torch.no_grad():
            _, expected = whole.forward_intermediates(images, output_fmt="NCHW")
            output = whole.forward_features(images)
        full = len(expected)
        for depth in range(1, full + 1):
            found = taps_of(load_trunk(spec, depth), images)
            assert len(found) == depth
            for (grid, _), state in zip(found[: full - 1], expected, strict=False):
                torch.testing.assert_close(grid, state, rtol=1e-4, atol=1e-5)
        grid, class_token = found[-1]  # of the whole trunk
        cells = grid.flatten(2).transpose(1, 2)
        if output.ndim == 4:
            rows = output if getattr(whole, "output_fmt", "NCHW") == "NHWC" else None
            output = output.flatten(2).transpose(1, 2) if rows is None else rows.flatten(1, 2)
        torch.testing.assert_close(cells, output[:, -cells.shape[1] :], rtol=1e-4, atol=1e-5)
        assert (class_token is not None) == (name in CLASS_TOKENS)
        if class_token is not None:
            torch.testing.assert_close(class_token, output[:, 0], rtol=1e-4, atol=1e-5)
            assert output.shape[1] - cells.shape[1] == CLASS_TOKENS[name]

    @pytest.mark.parametrize("name", TIMM_MODELS)
    def test_their_shape_is_told_without_weights(self, name: str) -> None:
        spec, size = timm_spec(name), TIMM_MODELS[name][1]
        shape = describe(spec)
        assert shape.has_class_token == (name in CLASS_TOKENS)
        images = numbers(1, 3, shape.image_size, shape.image_size)
        if "img_size" in spec.config:
            assert shape.image_size == size
        found = taps_of(load_trunk(spec, shape.depth), images)
        assert shape.widths == tuple(grid.shape[1] for grid, _ in found)
        assert shape.sides == tuple(tuple(grid.shape[2:]) for grid, _ in found)

    @pytest.mark.parametrize("name", ["vit", "mobilenetv3", "efficientnet", "resnet", "convnext"])
    def test_no_weights_are_carried_that_are_never_read(self, name: str) -> None:
        spec, images = timm_spec(name), numbers(2, 3, *[TIMM_MODELS[name][1]] * 2)
        for depth in (1, describe(spec).depth):
            trunk = load_trunk(spec, depth)
            assert isinstance(trunk, MapTrunk)
            grid, class_token = list(trunk.taps(images))[-1]
            (grid.sum() + (0 if class_token is None else class_token.sum())).backward()
            unread = [n for n, p in trunk.named_parameters() if p.grad is None]
            assert unread == []

    def test_models_without_feature_maps_are_refused_in_words(self) -> None:
        for name in ("pit_ti_224", "crossvit_tiny_240"):
            spec = EncoderSpec(name, "vision", "timm", name, "random")
            with pytest.raises(EncoderError, match=f"{name}: its layers give no feature maps"):
                describe(spec)


class TestTransformersVisionTrunks:
    def check_mobilenet(self, spec: EncoderSpec, depths: list[int]) -> None:
        images = numbers(2, 3, 64, 64)
        whole = whole_of(spec)
        whole.load_state_dict(
            load_trunk(spec, 16).state_dict()
        )  # random weights are the trunk's own
        with torch.no_grad():
            output = whole(pixel_values=images, output_hidden_states=True)
        expected = output.hidden_states
        assert len(expected) == 16
        for depth in depths:
            found = taps_of(load_trunk(spec, depth), images)
            assert len(found) == depth
            for (grid, _), state in zip(found[:15], expected, strict=False):
                torch.testing.assert_close(grid, state, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found[-1][0], output.last_hidden_state, rtol=1e-4, atol=1e-5)

    def test_mobilenet_gives_the_whole_models_hidden_states(self) -> None:
        self.check_mobilenet(hugging_spec("mobilenet_v2", depth_multiplier=0.35), [1, 6, 15, 16])

    def test_real_mobilenet_weights_too(self, shared: Path) -> None:
        folder = shared / "weights/mobilenet_v2_1.0_224"
        spec = EncoderSpec("mobilenet", "vision", "transformers", str(folder))
        real = whole_of(spec).state_dict()
        assert all(map(torch.equal, real.values(), load_trunk(spec, 16).state_dict().values()))
        self.check_mobilenet(spec, [8, 16])
        assert describe(spec).widths[-1] == 1280
        assert describe(spec).image_size == 224

    @pytest.mark.parametrize("model_type", ["vit", "deit", "dinov2"])
    def test_vits_give_the_whole_models_hidden_states(self, model_type: str) -> None:
        sizes = {
            k: v for k, v in SMALL_VIT.items() if (model_type, k) != ("dinov2", "intermediate_size")
        }
        spec, images = hugging_spec(model_type, **sizes), numbers(2, 3, 24, 24)
        with torch.no_grad():
            output = whole_of(spec)(pixel_values=images, output_hidden_states=True)
        for depth in (1, 2, 3):
            found = taps_of(load_trunk(spec, depth), images)
            states = [*output.hidden_states[1:3], output.last_hidden_state][:depth]
            for (grid, class_token), state in zip(found, states, strict=True):
                cells = grid.flatten(2).transpose(1, 2)
                torch.testing.assert_close(cells, state[:, -9:], rtol=1e-4, atol=1e-5)
                torch.testing.assert_close(class_token, state[:, 0], rtol=1e-4, atol=1e-5)
        assert not torch.allclose(output.hidden_states[3], output.last_hidden_state)

    def test_a_vit_without_a_class_token_gives_none(self) -> None:
        spec = hugging_spec("siglip_vision_model", **SMALL_VIT)
        assert not describe(spec).has_class_token
        grid, class_token = taps_of(load_trunk(spec, 3), numbers(1, 3, 24, 24))[-1]
        assert grid.shape == (1, 32, 3, 3)
        assert class_token is None

    @pytest.mark.parametrize("model_type", ["resnet", "swin", "bert"])
    def test_other_architectures_are_refused_in_words(self, model_type: str) -> None:
        with pytest.raises(EncoderError, match=r"choose (MobileNetV2|another encoder)"):
            describe(hugging_spec(model_type))


class TestVisionForms:
    def test_a_large_map_is_averaged_to_at_most_seven_by_seven_tokens(self) -> None:
        spec, images = hugging_spec("mobilenet_v2", image_size=160), numbers(1, 3, 160, 160)
        shape = describe(spec)
        wanted = (*read("vision", "tokens", 4), *read("vision", "grid", 4))
        with torch.no_grad():
            found = load_trunk(spec, 4)(images, wanted)
        for tap in range(1, 5):
            tokens = found[Feature("vision", tap, "tokens")]
            assert tokens.shape[1] == map_tokens(shape, tap) <= 49
        grid, tokens = found[wanted[4]][0], found[wanted[0]][0]  # 40 x 40 cells by sixes
        torch.testing.assert_close(tokens[0], grid[:, :6, :6].mean((1, 2)))
        torch.testing.assert_close(tokens[-1], grid[:, 36:, 36:].mean((1, 2)))

    def test_the_class_token_comes_first_among_tokens(self) -> None:
        spec = timm_spec("distilled deit")
        forms: tuple[Form, ...] = ("tokens", "cls", "grid", "mean", "max")
        tokens, first, grid, mean, highest = (Feature("vision", 2, form) for form in forms)
        with torch.no_grad():
            found = load_trunk(spec, 2)(numbers(2, 3, 32, 32), (tokens, first, grid, mean, highest))
        assert found[tokens].shape[1] == 1 + 16 == map_tokens(describe(spec), 2)
        assert torch.equal(found[tokens][:, 0], found[first])
        assert torch.equal(found[tokens][:, 1:], found[grid].flatten(2).transpose(1, 2))
        torch.testing.assert_close(found[mean], found[tokens][:, 1:].mean(1))
        assert torch.equal(found[highest], found[tokens][:, 1:].amax(1))

    def test_a_class_token_that_is_not_there_is_refused_in_words(self) -> None:
        with pytest.raises(ValueError, match="no class token"):
            load_trunk(timm_spec("resnet"), 2)(
                numbers(1, 3, 64, 64), (Feature("vision", 1, "cls"),)
            )


@pytest.mark.parametrize(
    ("spec", "given"),
    [
        (text_spec("bert"), words(2, 12, [12, 7])),
        (hugging_spec("mobilenet_v2", depth_multiplier=0.35), (numbers(2, 3, 48, 48),)),
        (hugging_spec("vit", **SMALL_VIT), (numbers(2, 3, 24, 24),)),
        (timm_spec("vit"), (numbers(2, 3, 32, 32),)),
    ],
    ids=["bert", "mobilenet", "vit", "timm"],
)
class TestEveryTrunk:
    """What holds for each kind of trunk."""

    def run(self, spec: EncoderSpec, trunk: nn.Module, given: tuple[Tensor, ...]) -> list[Tensor]:
        wanted = read(spec.modality, "mean", 2)
        with torch.no_grad():
            found = trunk(*given, wanted)
        assert tuple(found) == wanted
        return list(found.values())

    def test_running_twice_gives_the_same(
        self, spec: EncoderSpec, given: tuple[Tensor, ...]
    ) -> None:
        trunk = load_trunk(spec, 2)
        assert not trunk.training
        first, second = self.run(spec, trunk, given), self.run(spec, trunk, given)
        assert all(map(torch.equal, first, second))

    def test_no_weights_are_carried_that_are_never_read(
        self, spec: EncoderSpec, given: tuple[Tensor, ...]
    ) -> None:
        trunk = load_trunk(spec, 2)
        wanted = read(spec.modality, "tokens", 2)
        sum(values.sum() for values in trunk(*given, wanted).values()).backward()
        assert [name for name, p in trunk.named_parameters() if p.grad is None] == []

    def test_untrained_it_passes_signal_to_every_tap(
        self, spec: EncoderSpec, given: tuple[Tensor, ...]
    ) -> None:
        """Large enough for half precision, and different for different samples."""
        depth = describe(spec).depth
        wanted = read(spec.modality, "mean", depth)
        with torch.no_grad():
            found = load_trunk(spec, depth)(*given, wanted)
        for feature, values in found.items():
            assert 1e-3 < values.abs().max() < 1e3, feature
            assert (values[0] - values[1]).abs().max() > 1e-4, feature

    def test_nothing_is_kept_after_a_run(
        self, spec: EncoderSpec, given: tuple[Tensor, ...]
    ) -> None:
        trunk = load_trunk(spec, 2)
        self.run(spec, trunk, given)
        assert not hasattr(trunk, "layers") or trunk.layers.kept == []

    def test_a_copy_is_a_trunk_of_its_own(
        self, spec: EncoderSpec, given: tuple[Tensor, ...]
    ) -> None:
        trunk = load_trunk(spec, 2)
        before = self.run(spec, trunk, given)
        for other in (copy.deepcopy(trunk), pickle.loads(pickle.dumps(trunk))):
            assert all(map(torch.equal, self.run(spec, other, given), before))
            with torch.no_grad():
                for parameter in other.parameters():
                    parameter.mul_(1.5)
            assert not all(map(torch.equal, self.run(spec, other, given), before))
            assert all(map(torch.equal, self.run(spec, trunk, given), before))

    def test_its_weights_are_those_of_any_deeper_trunk(
        self, spec: EncoderSpec, given: tuple[Tensor, ...]
    ) -> None:
        cut, whole = load_trunk(spec, 2), load_trunk(spec, describe(spec).depth)
        weights, all_weights = cut.state_dict(), whole.state_dict()
        assert weights.keys() < all_weights.keys()
        assert all(torch.equal(weights[name], all_weights[name]) for name in weights)
        assert len(self.run(spec, cut, given)) == 2
