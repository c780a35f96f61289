"""How much layers compute, from their shapes alone; latency is predicted from it."""

from dataclasses import dataclass
from typing import Literal

ATTENTION_HEADS = 4
MLP_RATIO = 2
"""Features in the middle of an encoder layer's MLP, by its width."""

On = Literal["tokens", "vectors", "maps", "poolings"]
"""What work is done on. Attention, operators and projections on tokens or vectors, a convolution on
a feature map; poolings are of feature maps to vectors."""


@dataclass(frozen=True)
class Work:
    """Work of one inference at batch 1.

    linear, convolution, depthwise, attention: multiply-accumulates of products with weights, of
    convolutions of one group and of several, and of products of activations. elements: values
    written by all operators. weights: values that products with weights read. operators: how many
    run.
    """

    linear: float = 0.0
    convolution: float = 0.0
    depthwise: float = 0.0
    attention: float = 0.0
    elements: float = 0.0
    weights: float = 0.0
    operators: float = 0.0

    def plus(self, other: "Work") -> "Work":
        """What both do."""
        more = vars(other)
        return Work(**{name: done + more[name] for name, done in vars(self).items()})

    def less(self, other: "Work") -> "Work":
        """What this does beyond the other, nothing of it negative."""
        mine = vars(self)
        return Work(**{name: max(0.0, mine[name] - done) for name, done in vars(other).items()})


def gemm(inputs: float, outputs: float, operators: float = 1) -> Work:
    """Return the work of a product of one vector with weights."""
    return Work(weights=inputs * outputs, elements=outputs, operators=operators)


def linear(count: int, inputs: int, outputs: int) -> Work:
    """Return the work of a product of tokens with weights."""
    return Work(
        linear=count * inputs * outputs,
        weights=inputs * outputs,
        elements=count * outputs,
        operators=2,
    )


def attention(queries: int, keys: int, width: int) -> Work:
    """Return the work of an attention module and its norm."""
    return Work(
        linear=2 * (queries + keys) * width * width,
        attention=2 * queries * keys * width,
        weights=4 * width * width,
        elements=3 * ATTENTION_HEADS * queries * keys + 4 * (queries + keys) * width,
        operators=25,
    )


def encoder_layer(count: int, width: int) -> Work:
    """Return the work of a transformer encoder layer: attention, an MLP and their norms."""
    middle = MLP_RATIO * width
    mlp = linear(count, width, middle).plus(linear(count, middle, width))
    activations = Work(elements=count * (middle + 2 * width), operators=6)
    return attention(count, count, width).plus(mlp).plus(activations)
