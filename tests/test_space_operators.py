"""The fusion operators against plain loops over numbers, and what they all have in common."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from search_space.encoders import EncoderShape
from search_space.genotype import OPERATORS, FusionPoint, Genotype, Operator
from search_space.operators import (
    OPERATOR_MODULES,
    CrossAttention,
    Gated,
    concatenation,
    product,
    tensor,
)
from search_space.rules import ATTENTION_HEADS, fused_width
from search_space.signatures import SIGNATURES

Array = NDArray[Any]
BATCH, WIDTH, TEXT_LENGTH, VISION_LENGTH = 3, 8, 5, 4


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

    def test_gated_weighs_every_feature_between_text_and_image(self) -> None:
        torch.manual_seed(0)
        module, text, vision = Gated(WIDTH), numbers(2, WIDTH), numbers(2, WIDTH, seed=1)
        t, v = array(text), array(vision)
        gate = 1 / (1 + np.exp(-linear(module.gate, np.concatenate([t, v], axis=1))))
        found = array(module(text, vision))
        np.testing.assert_allclose(found, gate * t + (1 - gate) * v, rtol=1e-5, atol=1e-6)
        assert (found >= np.minimum(t, v) - 1e-6).all()
        assert (found <= np.maximum(t, v) + 1e-6).all()

    @pytest.mark.parametrize("training", [True, False])
    def test_cross_attention_lets_text_tokens_query_image_tokens(self, training: bool) -> None:
        torch.manual_seed(0)
        module = CrossAttention(WIDTH).train(training)
        for parameter in module.parameters():  # biases start at zero, norms at the identity
            nn.init.normal_(parameter)
        text, vision = numbers(2, TEXT_LENGTH, WIDTH), numbers(2, VISION_LENGTH, WIDTH, seed=1)
        with torch.no_grad():
            found = array(*module(text, vision, torch.ones(2, TEXT_LENGTH)))
        weight, bias = array(module.attention.in_proj_weight), array(module.attention.in_proj_bias)
        parts = [
            (values @ weight[k * WIDTH : (k + 1) * WIDTH].T + bias[k * WIDTH : (k + 1) * WIDTH])
            for k, values in enumerate((array(text), array(vision), array(vision)))
        ]
        query, key, value = (
            p.reshape(2, -1, ATTENTION_HEADS, WIDTH // ATTENTION_HEADS) for p in parts
        )
        scores = np.einsum("blhd,bphd->bhlp", query, key) / math.sqrt(WIDTH // ATTENTION_HEADS)
        shares = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
        seen = np.einsum("bhlp,bphd->blhd", shares, value).reshape(2, TEXT_LENGTH, WIDTH)
        mixed = array(text) + linear(module.attention.out_proj, seen)
        centred = mixed - mixed.mean(-1, keepdims=True)
        normed = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + module.norm.eps)
        expected = normed * array(module.norm.weight) + array(module.norm.bias)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", OPERATORS)
class TestEveryOperator:
    """What holds for each operator, and must for the next one."""

    def module(self, name: Operator) -> nn.Module:
        torch.manual_seed(0)
        return OPERATOR_MODULES[name](WIDTH).eval()

    def inputs(self, name: Operator, seed: int = 0) -> list[Tensor]:
        """Vectors or tokens of text and image, as its signature has them; a mask where it asks."""
        made = []
        for k, (modality, length) in enumerate((("text", TEXT_LENGTH), ("vision", VISION_LENGTH))):
            tokens = SIGNATURES[name].takes(modality) == "tokens"  # type: ignore[arg-type]
            size = (BATCH, length, WIDTH) if tokens else (BATCH, WIDTH)
            made.append(numbers(*size, seed=seed + k))
        if SIGNATURES[name].gives:
            made.append(torch.ones(BATCH, TEXT_LENGTH, dtype=torch.int64))
        return made

    def fused(self, name: Operator, inputs: list[Tensor]) -> Tensor:
        """What it gives, tokens as their mean: (B, width)."""
        return pooled(self.module(name)(*inputs))

    def test_gives_as_many_features_as_the_rules_say(self, name: Operator) -> None:
        shapes = {
            "text": EncoderShape("text", "text", (WIDTH,), max_tokens=64),
            "vision": EncoderShape("vision", "vision", (WIDTH,), ((2, 2),)),
        }
        point = FusionPoint(1, 1, name)
        design = Genotype("text", "vision", 16, (point,))
        fused = self.fused(name, self.inputs(name))
        assert fused.shape == (BATCH, fused_width(design, point, shapes))

    def test_gives_the_tokens_that_its_signature_says(self, name: Operator) -> None:
        given = self.module(name)(*self.inputs(name))
        lengths = {"text": TEXT_LENGTH, "vision": VISION_LENGTH}
        if gives := SIGNATURES[name].gives:
            assert [one.shape for one in given] == [(BATCH, lengths[m], WIDTH) for m in gives]
        else:
            assert given.ndim == 2

    def test_treats_every_sample_alone(self, name: Operator) -> None:
        inputs = self.inputs(name)
        alone = [self.fused(name, [part[k : k + 1] for part in inputs]) for k in range(BATCH)]
        together = self.fused(name, inputs)
        torch.testing.assert_close(together, torch.cat(alone), rtol=1e-5, atol=1e-6)

    def test_sends_gradients_to_both_inputs_and_all_weights(self, name: Operator) -> None:
        module, (text, vision, *mask) = self.module(name), self.inputs(name)
        text.requires_grad_(), vision.requires_grad_()
        pooled(module(text, vision, *mask)).pow(3).sum().backward()
        for values in (text, vision, *module.parameters()):
            assert values.grad is not None
            assert values.grad.abs().sum() > 0
        assert all((values.grad != 0).flatten(1).any(1).all() for values in (text, vision))  # type: ignore[union-attr]

    def test_leaves_its_inputs_as_they_were(self, name: Operator) -> None:
        inputs = self.inputs(name)
        before = [values.clone() for values in inputs]
        self.fused(name, inputs)
        assert all(map(torch.equal, inputs, before))

    def test_is_repeated_by_its_seed(self, name: Operator) -> None:
        inputs = self.inputs(name)
        assert torch.equal(self.fused(name, inputs), self.fused(name, inputs))


def test_every_operator_has_a_module_and_a_signature() -> None:
    assert tuple(OPERATOR_MODULES) == tuple(SIGNATURES) == OPERATORS
