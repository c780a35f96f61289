"""The fusion operators against plain loops over numbers, and what they all have in common."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from search_space.design.encoder import MODALITIES, EncoderShape, Modality
from search_space.design.genotype import OPERATORS, FusionPoint, Genotype, Operator
from search_space.design.rules import ATTENTION_HEADS, fused_width, violations
from search_space.design.signatures import SIGNATURES
from search_space.operators.tokens import (
    BOTTLENECK_TOKENS,
    PREFIX_TOKENS,
    Bottleneck,
    CrossAttention,
    CrossAttentionBoth,
    Prefix,
    SingleSequence,
)
from search_space.operators.vectors import (
    LOW_RANK,
    OPERATOR_MODULES,
    Bilinear,
    Gated,
    LowRankTensor,
    concatenation,
    product,
    summation,
    tensor,
)

Array = NDArray[Any]
BATCH, WIDTH, TEXT_LENGTH, VISION_LENGTH = 3, 8, 5, 4
LENGTHS: dict[Modality, int] = {"text": TEXT_LENGTH, "vision": VISION_LENGTH, "audio": 6}
FUSED: tuple[tuple[Operator, int], ...] = tuple(
    (name, count) for name in OPERATORS for count in (2, 3) if count <= SIGNATURES[name].most
)
"""Every operator with every number of modalities that it fuses."""


def numbers(*shape: int, seed: int = 0) -> Tensor:
    """Random numbers of this shape."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def array(values: Tensor) -> Array:
    """The same numbers for NumPy."""
    return values.detach().double().numpy()


def linear(layer: nn.Linear, values: Array) -> Array:
    return values @ array(layer.weight).T + array(layer.bias)


def pooled(given: Tensor | tuple[Tensor, ...]) -> Tensor:
    """A vector as it is, tokens as their means side by side: (B, width)."""
    return given if isinstance(given, Tensor) else torch.cat([one.mean(1) for one in given], 1)


class TestDefinitions:
    def test_concatenation_puts_text_first(self) -> None:
        text, vision = numbers(2, 3), numbers(2, 5, seed=1)
        assert torch.equal(concatenation(text, vision)[:, :3], text)
        assert torch.equal(concatenation(text, vision)[:, 3:], vision)
        sound = numbers(2, 4, seed=2)
        assert torch.equal(concatenation(text, vision, sound)[:, 8:], sound)

    def test_product_is_the_papers(self) -> None:
        """F_j = T_j I_j and F_{N+j} = T_j I_{N-j} for j = 1 .. N, with I_0 read as I_N's turn."""
        n, text, vision = 6, numbers(2, 6), numbers(2, 6, seed=1)
        expected = np.zeros((2, 2 * n))
        for b in range(2):
            for j in range(n):  # from 0, so the paper's N - j is n - 1 - j
                expected[b, j] = array(text)[b, j] * array(vision)[b, j]
                expected[b, n + j] = array(text)[b, j] * array(vision)[b, n - 1 - j]
        np.testing.assert_allclose(array(product(text, vision)), expected, rtol=1e-6)

    def test_tensor_is_the_outer_product_with_the_text_index_slowest(self) -> None:
        text, vision = numbers(2, 3), numbers(2, 4, seed=1)
        expected = np.zeros((2, 12))
        for b in range(2):
            for i in range(3):
                for j in range(4):
                    expected[b, 4 * i + j] = array(text)[b, i] * array(vision)[b, j]
        np.testing.assert_allclose(array(tensor(text, vision)), expected, rtol=1e-6)
        sound = numbers(2, 5, seed=2)
        of_three = np.einsum("bi,bj,bk->bijk", array(text), array(vision), array(sound))
        found = array(tensor(text, vision, sound))
        np.testing.assert_allclose(found, of_three.reshape(2, 60), rtol=1e-5)

    def test_gates_of_three_add_up_to_one_in_every_feature(self) -> None:
        torch.manual_seed(0)
        module, parts = Gated(WIDTH, 3), [numbers(2, WIDTH, seed=k) for k in range(3)]
        arrays = [array(part) for part in parts]
        said = np.exp(linear(module.gate, np.concatenate(arrays, axis=1))).reshape(2, 3, WIDTH)
        expected = sum(said[:, k] / said.sum(axis=1) * one for k, one in enumerate(arrays))
        np.testing.assert_allclose(array(module(*parts)), expected, rtol=1e-5, atol=1e-6)

    def test_gated_weighs_every_feature_between_text_and_image(self) -> None:
        torch.manual_seed(0)
        module, text, vision = Gated(WIDTH, 2), numbers(2, WIDTH), numbers(2, WIDTH, seed=1)
        t, v = array(text), array(vision)
        gate = 1 / (1 + np.exp(-linear(module.gate, np.concatenate([t, v], axis=1))))
        found = array(module(text, vision))
        np.testing.assert_allclose(found, gate * t + (1 - gate) * v, rtol=1e-5, atol=1e-6)
        assert (found >= np.minimum(t, v) - 1e-6).all()
        assert (found <= np.maximum(t, v) + 1e-6).all()

    def test_sum_adds(self) -> None:
        text, vision = numbers(2, 3), numbers(2, 3, seed=1)
        np.testing.assert_allclose(array(summation(text, vision)), array(text) + array(vision))
        of_three = array(text) + 2 * array(vision)
        np.testing.assert_allclose(array(summation(text, vision, vision)), of_three, rtol=1e-6)

    def test_low_rank_tensor_is_the_outer_product_under_a_weight_tensor_of_rank_four(self) -> None:
        module, text, vision = drawn(LowRankTensor), numbers(2, WIDTH), numbers(2, WIDTH, seed=1)
        with_one = [
            np.pad(array(one), ((0, 0), (0, 1)), constant_values=1) for one in (text, vision)
        ]
        factors = [
            np.c_[array(layer.weight), array(layer.bias)].reshape(LOW_RANK, WIDTH, WIDTH + 1)
            for layer in module.factors
        ]
        whole = np.einsum("rni,rnj->nij", *factors)
        expected = np.einsum("nij,bi,bj->bn", whole, *with_one) + array(module.bias)
        assert LOW_RANK == 4
        np.testing.assert_allclose(array(module(text, vision)), expected, rtol=1e-4, atol=1e-4)

    def test_low_rank_tensor_of_three_is_their_outer_product_of_rank_four(self) -> None:
        module, parts = (
            drawn(LowRankTensor, modalities=3),
            [numbers(2, WIDTH, seed=k) for k in range(3)],
        )
        with_one = [np.pad(array(one), ((0, 0), (0, 1)), constant_values=1) for one in parts]
        factors = [
            np.c_[array(layer.weight), array(layer.bias)].reshape(LOW_RANK, WIDTH, WIDTH + 1)
            for layer in module.factors
        ]
        whole = np.einsum("rni,rnj,rnk->nijk", *factors)
        expected = np.einsum("nijk,bi,bj,bk->bn", whole, *with_one) + array(module.bias)
        np.testing.assert_allclose(array(module(*parts)), expected, rtol=1e-3, atol=1e-3)

    def test_bilinear_sums_five_products_a_feature_takes_the_root_and_the_length(self) -> None:
        module, text, vision = drawn(Bilinear), numbers(2, WIDTH), numbers(2, WIDTH, seed=1)
        expected = np.zeros((2, WIDTH))
        for b in range(2):
            for n in range(WIDTH):
                for k in range(5 * n, 5 * n + 5):
                    u, v = array(module.text.weight)[k], array(module.vision.weight)[k]
                    expected[b, n] += (u @ array(text)[b]) * (v @ array(vision)[b])
        expected = np.sign(expected) * np.sqrt(np.abs(expected))
        expected /= np.linalg.norm(expected, axis=1, keepdims=True)
        np.testing.assert_allclose(array(module(text, vision)), expected, rtol=1e-3, atol=1e-4)

    def test_bilinear_has_finite_slopes_where_nothing_is_read(self) -> None:
        module = drawn(Bilinear)
        text, vision = torch.zeros(2, WIDTH, requires_grad=True), numbers(2, WIDTH)
        module(text, vision).sum().backward()
        assert module(text, vision).isfinite().all()
        for values in (text, *module.parameters()):
            assert values.grad is not None and values.grad.isfinite().all()


def drawn(make: Callable[..., Any], training: bool = False, modalities: int = 2) -> Any:
    """A module with all of its weights drawn: biases start at zero, norms at the identity."""
    torch.manual_seed(0)
    asked = () if make in (Bilinear, CrossAttentionBoth, Prefix) else (modalities,)
    module = make(WIDTH, *asked).train(training)
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    return module


def normed(layer: nn.LayerNorm, values: Array) -> Array:
    centred = values - values.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + layer.eps)
    return scaled * array(layer.weight) + array(layer.bias)


def attended(module: nn.MultiheadAttention, asking: Array, asked: Array, read: Array) -> Array:
    """Four-headed attention of the tokens (B, S, N) to those of (B, K, N) that `read` (B, K) is
    True for."""
    weight, bias = array(module.in_proj_weight), array(module.in_proj_bias)
    parts = [
        values @ weight[k * WIDTH : (k + 1) * WIDTH].T + bias[k * WIDTH : (k + 1) * WIDTH]
        for k, values in enumerate((asking, asked, asked))
    ]
    size = WIDTH // ATTENTION_HEADS
    query, key, value = (part.reshape(len(part), -1, ATTENTION_HEADS, size) for part in parts)
    scores = np.exp(np.einsum("blhd,bphd->bhlp", query, key) / math.sqrt(size))
    scores *= read[:, None, None, :]
    seen = np.einsum("bhlp,bphd->blhd", scores / scores.sum(-1, keepdims=True), value)
    return linear(module.out_proj, seen.reshape(asking.shape))


def encoded(layer: Any, states: Array, read: Array) -> Array:
    """A pre-norm transformer encoder layer over (B, S, N), of which `read` (B, S) can be read."""
    before = normed(layer.norm1, states)
    states = states + attended(layer.self_attn, before, before, read)
    middle = linear(layer.linear1, normed(layer.norm2, states))
    return states + linear(
        layer.linear2, middle * (1 + np.vectorize(math.erf)(middle / 2**0.5)) / 2
    )


@pytest.mark.parametrize("training", [True, False])
class TestDefinitionsOverTokens:
    """Against NumPy, over texts of three and five real tokens."""

    text, vision = numbers(2, TEXT_LENGTH, WIDTH), numbers(2, VISION_LENGTH, WIDTH, seed=1)
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    t, v, real, all_of_it = array(text), array(vision), mask.numpy() == 1, np.ones((2, 9)) > 0

    def given(self, module: nn.Module, vision: Tensor | None = None, *more: Tensor) -> list[Array]:
        shown = self.vision if vision is None else vision
        padding = [self.mask == 0, None, *(None for _ in more)]
        with torch.no_grad():
            found = module(padding, self.text, shown, *more)
        return [array(one) for one in found]

    def same(self, found: list[Array], *expected: Array) -> None:
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)

    def crossed(self, module: CrossAttention, asking: Array, asked: Array, read: Array) -> Array:
        return normed(module.norm, asking + attended(module.attention, asking, asked, read))

    def test_cross_attention_lets_text_tokens_query_image_tokens(self, training: bool) -> None:
        module = drawn(OPERATOR_MODULES["cross-attention"], training)
        expected = self.crossed(module, self.t, self.v, self.all_of_it[:, :VISION_LENGTH])
        self.same(self.given(module), expected)

    def test_its_counterpart_lets_image_tokens_query_real_text_tokens(self, training: bool) -> None:
        module = drawn(OPERATOR_MODULES["cross-attention-vision"], training)
        self.same(self.given(module), self.crossed(module, self.v, self.t, self.real))

    def test_both_ways_are_the_two_side_by_side(self, training: bool) -> None:
        module = drawn(CrossAttentionBoth, training)
        text = self.crossed(module.text, self.t, self.v, self.all_of_it[:, :VISION_LENGTH])
        self.same(self.given(module), text, self.crossed(module.vision, self.v, self.t, self.real))

    def test_single_sequence_encodes_all_tokens_with_their_modality(self, training: bool) -> None:
        module = drawn(SingleSequence, training)
        marks = array(module.modality)
        states = np.concatenate([self.t + marks[0], self.v + marks[1]], axis=1)
        read = np.concatenate([self.real, self.all_of_it[:, :VISION_LENGTH]], axis=1)
        self.same(self.given(module), encoded(module.layer, states, read)[:, :TEXT_LENGTH])

    def test_prefix_puts_four_tokens_of_the_image_before_the_text(self, training: bool) -> None:
        module, image = drawn(Prefix, training), numbers(2, WIDTH, seed=2)
        prefix = linear(module.prefix, array(image)).reshape(2, PREFIX_TOKENS, WIDTH)
        read = np.concatenate([self.all_of_it[:, :PREFIX_TOKENS], self.real], axis=1)
        states = encoded(module.layer, np.concatenate([prefix, self.t], axis=1), read)
        assert PREFIX_TOKENS == 4
        self.same(self.given(module, image), states[:, PREFIX_TOKENS:])

    def test_bottleneck_exchanges_the_mean_of_four_tokens_once(self, training: bool) -> None:
        module = drawn(Bottleneck, training)
        shared = np.repeat(array(module.tokens)[None], 2, axis=0)
        text, vision = self.t, self.v
        of_text = np.concatenate([self.real, self.all_of_it[:, :BOTTLENECK_TOKENS]], axis=1)
        of_vision = self.all_of_it[:, : VISION_LENGTH + BOTTLENECK_TOKENS]
        for k in range(2):
            layers = [of_modality[k] for of_modality in module.layers]
            said = encoded(layers[0], np.concatenate([text, shared], axis=1), of_text)
            seen = encoded(layers[1], np.concatenate([vision, shared], axis=1), of_vision)
            text, vision = said[:, :TEXT_LENGTH], seen[:, :VISION_LENGTH]
            shared = (said[:, TEXT_LENGTH:] + seen[:, VISION_LENGTH:]) / 2
        assert (BOTTLENECK_TOKENS, [len(layers) for layers in module.layers]) == (4, [2, 2])
        self.same(self.given(module), text, vision)

    def test_a_third_sequence_is_read_by_single_sequence_and_bottleneck(
        self, training: bool
    ) -> None:
        sound = numbers(2, 3, WIDTH, seed=3)
        one = drawn(SingleSequence, training, modalities=3)
        parts = (self.t, self.v, array(sound))
        states = np.concatenate([p + array(one.modality)[k] for k, p in enumerate(parts)], axis=1)
        read = np.concatenate([self.real, self.all_of_it[:, :7]], axis=1)
        expected = encoded(one.layer, states, read)[:, :TEXT_LENGTH]
        self.same(self.given(one, self.vision, sound), expected)
        module = drawn(Bottleneck, training, modalities=3)
        shared = np.repeat(array(module.tokens)[None], 2, axis=0)
        made = list(parts)
        for k in range(2):
            told = []
            for m, own in enumerate(made):
                real = self.real if m == 0 else self.all_of_it[:, : own.shape[1]]
                seen = np.concatenate([real, self.all_of_it[:, :BOTTLENECK_TOKENS]], axis=1)
                both = encoded(module.layers[m][k], np.concatenate([own, shared], axis=1), seen)
                made[m] = both[:, : own.shape[1]]
                told.append(both[:, own.shape[1] :])
            shared = np.mean(told, axis=0)
        self.same(self.given(module, self.vision, sound), *made)


@pytest.mark.parametrize(("name", "count"), FUSED)
class TestEveryOperator:
    """What holds for each operator, and must for the next one, of two modalities and of three."""

    def module(self, name: Operator, count: int) -> nn.Module:
        torch.manual_seed(0)
        return OPERATOR_MODULES[name](WIDTH, count).eval()

    def inputs(self, name: Operator, count: int, seed: int = 0) -> list[Tensor]:
        """Vectors or tokens, as its signature has them."""
        made = []
        for k, modality in enumerate(MODALITIES[:count]):
            tokens = modality in SIGNATURES[name].tokens
            size = (BATCH, LENGTHS[modality], WIDTH) if tokens else (BATCH, WIDTH)
            made.append(numbers(*size, seed=seed + k))
        return made

    def given(self, name: Operator, inputs: list[Tensor]) -> Any:
        """What it gives of texts without padding."""
        padding = [None] * len(inputs)
        asked = [padding] if SIGNATURES[name].gives else []
        return self.module(name, len(inputs))(*asked, *inputs)

    def fused(self, name: Operator, inputs: list[Tensor]) -> Tensor:
        """What it gives, tokens as their mean: (B, width)."""
        return pooled(self.given(name, inputs))

    def test_gives_as_many_features_as_the_rules_say(self, name: Operator, count: int) -> None:
        shapes = {
            "text": EncoderShape("text", "text", (WIDTH,), max_tokens=64),
            "vision": EncoderShape("vision", "vision", (WIDTH,), ((2, 2),)),
            "audio": EncoderShape("audio", "audio", (WIDTH,), ((1, 6),)),
        }
        point = FusionPoint(1, 1, name, audio_tap=count - 2)
        sound = "audio" if count == 3 else None
        design = Genotype("text", "vision", 16, (point,), audio_encoder=sound)
        assert violations(design, shapes) == ()
        fused = self.fused(name, self.inputs(name, count))
        assert fused.shape == (BATCH, fused_width(design, point, shapes))

    def test_gives_the_tokens_that_its_signature_says(self, name: Operator, count: int) -> None:
        given = self.given(name, self.inputs(name, count))
        if gives := [m for m in SIGNATURES[name].gives if m in MODALITIES[:count]]:
            assert [one.shape for one in given] == [(BATCH, LENGTHS[m], WIDTH) for m in gives]
        else:
            assert given.ndim == 2

    def test_treats_every_sample_alone(self, name: Operator, count: int) -> None:
        inputs = self.inputs(name, count)
        alone = [self.fused(name, [part[k : k + 1] for part in inputs]) for k in range(BATCH)]
        together = self.fused(name, inputs)
        torch.testing.assert_close(together, torch.cat(alone), rtol=1e-5, atol=1e-6)

    def test_sends_gradients_to_all_inputs_and_all_weights(
        self, name: Operator, count: int
    ) -> None:
        module, inputs = self.module(name, count), self.inputs(name, count)
        for values in inputs:
            values.requires_grad_()
        asked = [[None] * count] if SIGNATURES[name].gives else []
        pooled(module(*asked, *inputs)).pow(3).sum().backward()
        for values in (*inputs, *module.parameters()):
            assert values.grad is not None
            assert values.grad.abs().sum() > 0
        assert all((values.grad != 0).flatten(1).any(1).all() for values in inputs)  # type: ignore[union-attr]

    def test_leaves_its_inputs_as_they_were(self, name: Operator, count: int) -> None:
        inputs = self.inputs(name, count)
        before = [values.clone() for values in inputs]
        self.fused(name, inputs)
        assert all(map(torch.equal, inputs, before))

    def test_is_repeated_by_its_seed(self, name: Operator, count: int) -> None:
        inputs = self.inputs(name, count)
        assert torch.equal(self.fused(name, inputs), self.fused(name, inputs))


def test_every_operator_has_a_module_and_a_signature() -> None:
    assert tuple(OPERATOR_MODULES) == tuple(SIGNATURES) == OPERATORS
