"""Layers of torch in NumPy, by their definitions, for the references of fusion operators.

Weights are a module's state by parameter name. Padding (B, S) is True where a token is padding, and
None where all are real.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from search_space.operators.work import ATTENTION_HEADS

Array = NDArray[np.float64]
Weights = Mapping[str, Array]
Padding = NDArray[np.bool_]
Paddings = Sequence[Padding | None]

NORM_EPSILON = 1e-5
"""Added to the variance by a LayerNorm, as torch has it."""


def part(weights: Weights, name: str) -> Weights:
    """Return the weights of a module's part, under their names in that part."""
    return {k.removeprefix(f"{name}."): w for k, w in weights.items() if k.startswith(f"{name}.")}


def linear(weights: Weights, values: Array) -> Array:
    """Compute an `nn.Linear` with a bias."""
    return values @ weights["weight"].T + weights["bias"]


def layer_norm(weights: Weights, values: Array) -> Array:
    """Compute an `nn.LayerNorm` over the last axis."""
    centred = values - values.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + NORM_EPSILON)
    normed: Array = scaled * weights["weight"] + weights["bias"]
    return normed


def attention(weights: Weights, queries: Array, keys: Array, padding: Padding | None) -> Array:
    """Compute an `nn.MultiheadAttention` of (B, L, N) to (B, P, N), whose padding is (B, P)."""
    width = queries.shape[-1]
    projected = [
        values @ weight.T + bias
        for values, weight, bias in zip(
            (queries, keys, keys),
            np.split(weights["in_proj_weight"], 3),
            np.split(weights["in_proj_bias"], 3),
            strict=True,
        )
    ]
    size = width // ATTENTION_HEADS
    query, key, value = (p.reshape(len(p), -1, ATTENTION_HEADS, size) for p in projected)
    scores = np.exp(np.einsum("blhd,bphd->bhlp", query, key) / math.sqrt(size))
    if padding is not None:
        scores = scores * ~padding[:, None, None, :]
    shares = scores / scores.sum(-1, keepdims=True)
    attended = np.einsum("bhlp,bphd->blhd", shares, value).reshape(queries.shape)
    return linear(part(weights, "out_proj"), attended)


def encoder_layer(weights: Weights, states: Array, padding: Padding | None) -> Array:
    """Compute a pre-norm `nn.TransformerEncoderLayer` with GELU over (B, S, N)."""
    before = layer_norm(part(weights, "norm1"), states)
    states = states + attention(part(weights, "self_attn"), before, before, padding)
    middle = linear(part(weights, "linear1"), layer_norm(part(weights, "norm2"), states))
    gelu = middle * (1 + np.vectorize(math.erf)(middle / math.sqrt(2))) / 2
    return states + linear(part(weights, "linear2"), gelu)


def joint_padding(padding: Paddings, tokens: Sequence[Array]) -> Padding:
    """Return the padding (B, all S) of several sequences (B, S, N) one after another."""
    each = [
        np.zeros(t.shape[:2], dtype=bool) if p is None else p
        for p, t in zip(padding, tokens, strict=True)
    ]
    return np.concatenate(each, axis=1)
