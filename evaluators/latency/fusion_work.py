"""What a design computes at its fusion points, from shapes alone."""

from collections.abc import Iterator
from typing import Literal

from evaluators.latency.trunk_work import Work
from search_space.design.encoder import Modality
from search_space.design.genotype import FusionPoint, Genotype, Operator
from search_space.design.rules import (
    ATTENTION_HEADS,
    CONV_MAX_WIDTH,
    Shapes,
    branch_widths,
    fused_width,
    own_widths,
)
from search_space.design.signatures import fuses_tokens, pools
from search_space.encoders.features import map_tokens, read_at
from search_space.network.rewrites import Rewrites, folded_blocks
from search_space.operators.tokens import BOTTLENECK_TOKENS, MLP_RATIO, PREFIX_TOKENS
from search_space.operators.vectors import BILINEAR_FACTORS, LOW_RANK

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
    if genotype.is_fused:
        width = next(iter(branch_widths(genotype, point, shapes).values()))
        lengths = _lengths(genotype, point, shapes)
        if genotype.attends_over_tokens(point):
            count = sum(lengths.values())
            for _ in range(genotype.attention_blocks):
                yield "tokens", attention(count, count, width)
                yield "tokens", product(count, width, width)
        yield from operator_work(point.operator, tuple(lengths.values()), width)
    if point == genotype.points[-1] and genotype.attention_over == "pooled":
        folded = folded_blocks(genotype, rewrites)
        products = folded + 5 * (genotype.attention_blocks - folded)
        yield "vectors", gemm(products * fused, fused, 2 * products)


def operator_work(
    operator: Operator, lengths: tuple[int, ...], width: int
) -> Iterator[tuple[On, Work]]:
    """An operator's own work on so many tokens of each modality, at the width that it works in."""
    text, image, count = lengths[0], lengths[1], len(lengths)
    if operator == "gated":
        yield "vectors", gemm(count * width, width if count == 2 else count * width)
    elif operator == "low-rank-tensor":
        yield "vectors", gemm(count * width, LOW_RANK * width, operators=3 + count)
    elif operator == "bilinear":
        yield "vectors", gemm(2 * width, BILINEAR_FACTORS * width, operators=12)
    elif operator == "single-sequence":
        yield "tokens", encoder(sum(lengths), width)
    elif operator == "prefix":
        yield "vectors", gemm(width, PREFIX_TOKENS * width, operators=2)
        yield "tokens", encoder(PREFIX_TOKENS + text, width)
    elif operator == "bottleneck":
        for length in 2 * lengths:
            yield "tokens", encoder(length + BOTTLENECK_TOKENS, width)
    if operator in ("cross-attention", "cross-attention-both"):
        yield "tokens", attention(text, image, width)
    if operator in ("cross-attention-vision", "cross-attention-both"):
        yield "tokens", attention(image, text, width)


def _lengths(genotype: Genotype, point: FusionPoint, shapes: Shapes) -> dict[Modality, int]:
    """Tokens of each modality."""
    return {
        m: genotype.text_tokens if m == "text" else map_tokens(shapes[name], point.tap(m))
        for m, name in genotype.encoders.items()
    }


def _projections(
    genotype: Genotype, point: FusionPoint, shapes: Shapes
) -> Iterator[tuple[On, Work]]:
    """Of each modality to the operator's width, and of a concatenation."""
    own, reached = own_widths(genotype, point, shapes), branch_widths(genotype, point, shapes)
    over_tokens = genotype.attends_over_tokens(point)
    asked = point.width > 0 and (point.operator != "concatenation" or over_tokens)
    lengths = _lengths(genotype, point, shapes)
    for modality, count in lengths.items():
        before, after = own[modality], reached[modality]
        if not genotype.is_fused or (not asked and before == after):
            continue
        if fuses_tokens(genotype, point, modality):
            yield "tokens", product(count, before, after)
        else:
            yield "vectors", gemm(before, after)
    if point.operator == "concatenation" and point.width and not over_tokens:
        yield "vectors", gemm(sum(reached.values()), point.width)


def _poolings(genotype: Genotype, point: FusionPoint, shapes: Shapes) -> Iterator[tuple[On, Work]]:
    """Of what the trunks pool for this point, and of what it pools itself."""
    own, reached = own_widths(genotype, point, shapes), branch_widths(genotype, point, shapes)
    yield "poolings", Work(operators=2)
    for feature in read_at(genotype, point, shapes):
        modality = feature.modality
        if feature.form == "pooler":
            yield "vectors", gemm(own[modality], own[modality])
        if modality != "text":
            shape = shapes[genotype.encoders[modality]]
            height, width = shape.sides[feature.tap - 1]
            cells, values = height * width, height * width * shape.widths[feature.tap - 1]
            if feature.form == "grid":
                yield "maps", Work(convolution=9 * values * CONV_MAX_WIDTH)
                yield "poolings", Work(elements=2 * cells * CONV_MAX_WIDTH, operators=1)
            else:
                yield "poolings", Work(elements=values)
    for modality, count in _lengths(genotype, point, shapes).items():
        if genotype.pooling(modality) == "attention" and pools(point, modality):
            width = (reached if fuses_tokens(genotype, point, modality) else own)[modality]
            yield "tokens", weighted_sum(count, width)


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
