"""What a design computes at its fusion points, from shapes alone."""

from collections.abc import Iterator
from typing import Literal

from evaluators.trunk_work import Work
from search_space.encoders import MODALITIES
from search_space.features import text_feature, vision_feature, vision_tokens
from search_space.genotype import FusionPoint, Genotype, Operator
from search_space.operators import BILINEAR_FACTORS, LOW_RANK
from search_space.rewrites import Rewrites, folded_blocks
from search_space.rules import (
    ATTENTION_HEADS,
    CONV_MAX_WIDTH,
    Shapes,
    branch_widths,
    fused_width,
    own_widths,
)
from search_space.signatures import fuses_tokens, pools
from search_space.token_operators import BOTTLENECK_TOKENS, MLP_RATIO, PREFIX_TOKENS

On = Literal["tokens", "vectors", "maps", "poolings"]
"""What work is done on. Attention, operators and projections on tokens or vectors, a convolution on
a feature map; poolings are of feature maps to vectors."""


def point_work(
    genotype: Genotype, point: FusionPoint, shapes: Shapes, rewrites: Rewrites
) -> Iterator[tuple[On, Work]]:
    """Work of one inference at this point after the rewrites; the head is no part of it."""
    fused = fused_width(genotype, point, shapes)
    yield "tokens", Work(operators=2)
    yield "vectors", Work(elements=fused, operators=3)
    yield from _poolings(genotype, point, shapes)
    yield from _projections(genotype, point, shapes)
    text, vision = branch_widths(genotype, point, shapes)
    if text and vision:
        lengths = _lengths(genotype, point, shapes)
        if genotype.attends_over_tokens(point):
            for _ in range(genotype.attention_blocks):
                yield "tokens", attention(sum(lengths), sum(lengths), text)
                yield "tokens", product(sum(lengths), text, text)
        yield from operator_work(point.operator, *lengths, text)
    if point == genotype.points[-1] and genotype.attention_over == "pooled":
        folded = folded_blocks(genotype, rewrites)
        products = folded + 5 * (genotype.attention_blocks - folded)
        yield "vectors", gemm(products * fused, fused, 2 * products)


def operator_work(
    operator: Operator, text: int, image: int, width: int
) -> Iterator[tuple[On, Work]]:
    """An operator's own work on so many tokens, at the width that it works in."""
    if operator == "gated":
        yield "vectors", gemm(2 * width, width)
    elif operator == "low-rank-tensor":
        yield "vectors", gemm(2 * width, LOW_RANK * width, operators=5)
    elif operator == "bilinear":
        yield "vectors", gemm(2 * width, BILINEAR_FACTORS * width, operators=12)
    elif operator == "single-sequence":
        yield "tokens", encoder(text + image, width)
    elif operator == "prefix":
        yield "vectors", gemm(width, PREFIX_TOKENS * width, operators=2)
        yield "tokens", encoder(PREFIX_TOKENS + text, width)
    elif operator == "bottleneck":
        for count in (text, image, text, image):
            yield "tokens", encoder(count + BOTTLENECK_TOKENS, width)
    if operator in ("cross-attention", "cross-attention-both"):
        yield "tokens", attention(text, image, width)
    if operator in ("cross-attention-vision", "cross-attention-both"):
        yield "tokens", attention(image, text, width)


def _lengths(genotype: Genotype, point: FusionPoint, shapes: Shapes) -> tuple[int, int]:
    """Tokens of text and of image; 0 for an absent modality."""
    name = genotype.vision_encoder
    return genotype.text_tokens, vision_tokens(shapes[name], point.vision_tap) if name else 0


def _projections(
    genotype: Genotype, point: FusionPoint, shapes: Shapes
) -> Iterator[tuple[On, Work]]:
    """Of each modality to the operator's width, and of a concatenation."""
    own, reached = own_widths(genotype, point, shapes), branch_widths(genotype, point, shapes)
    over_tokens = genotype.attends_over_tokens(point)
    asked = point.width > 0 and (point.operator != "concatenation" or over_tokens)
    lengths = _lengths(genotype, point, shapes)
    for modality, count, before, after in zip(MODALITIES, lengths, own, reached, strict=True):
        if not asked and before == after:
            continue
        if fuses_tokens(genotype, point, modality):
            yield "tokens", product(count, before, after)
        else:
            yield "vectors", gemm(before, after)
    if point.operator == "concatenation" and point.width and not over_tokens:
        yield "vectors", gemm(sum(reached), point.width)


def _poolings(genotype: Genotype, point: FusionPoint, shapes: Shapes) -> Iterator[tuple[On, Work]]:
    """Of what the trunks pool for this point, and of what it pools itself."""
    own, reached = own_widths(genotype, point, shapes), branch_widths(genotype, point, shapes)
    yield "poolings", Work(operators=2)
    said, seen = text_feature(genotype, point, shapes), vision_feature(genotype, point)
    if said is not None and said.form == "pooler":
        yield "vectors", gemm(own[0], own[0])
    if seen is not None:
        shape = shapes[str(genotype.vision_encoder)]
        height, width = shape.sides[point.vision_tap - 1]
        cells, values = height * width, height * width * shape.widths[point.vision_tap - 1]
        if seen.form == "grid":
            yield "maps", Work(convolution=9 * values * CONV_MAX_WIDTH)
            yield "poolings", Work(elements=2 * cells * CONV_MAX_WIDTH, operators=1)
        else:
            yield "poolings", Work(elements=values)
    asked = (genotype.text_pooling, genotype.vision_pooling)
    lengths = _lengths(genotype, point, shapes)
    for k, modality in enumerate(MODALITIES):
        if lengths[k] and asked[k] == "attention" and pools(point, modality):
            width = reached[k] if fuses_tokens(genotype, point, modality) else own[k]
            yield "tokens", weighted_sum(lengths[k], width)


def gemm(inputs: float, outputs: float, operators: float = 1) -> Work:
    """A product of one vector with weights."""
    return Work(weights=inputs * outputs, elements=outputs, operators=operators)


def product(count: int, inputs: int, outputs: int) -> Work:
    """A product of tokens with weights."""
    return Work(
        linear=count * inputs * outputs,
        weights=inputs * outputs,
        elements=count * outputs,
        operators=2,
    )


def weighted_sum(count: int, width: int) -> Work:
    """The pooling of tokens by a learned query."""
    return Work(
        linear=count * width,
        attention=count * width,
        weights=width,
        elements=3 * count + width,
        operators=7,
    )


def attention(queries: int, keys: int, width: int) -> Work:
    """An attention module and its norm."""
    return Work(
        linear=2 * (queries + keys) * width * width,
        attention=2 * queries * keys * width,
        weights=4 * width * width,
        elements=3 * ATTENTION_HEADS * queries * keys + 4 * (queries + keys) * width,
        operators=25,
    )


def encoder(count: int, width: int) -> Work:
    """A transformer encoder layer: attention, an MLP and their norms."""
    middle = MLP_RATIO * width
    mlp = product(count, width, middle).plus(product(count, middle, width))
    activations = Work(elements=count * (middle + 2 * width), operators=6)
    return attention(count, count, width).plus(mlp).plus(activations)
