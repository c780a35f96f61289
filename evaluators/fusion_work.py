"""What a design computes at its fusion points, from shapes alone."""

from dataclasses import dataclass

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
from search_space.signatures import fuses_tokens
from search_space.token_operators import BOTTLENECK_TOKENS, MLP_RATIO, PREFIX_TOKENS


@dataclass(frozen=True)
class PointWork:
    """Work at one fusion point, by what it is done on.

    tokens, vectors: of attention, operator and projections. convolution: of the pooling "conv-max".
    pooling: of feature maps to vectors.
    """

    tokens: Work
    vectors: Work
    convolution: Work
    pooling: Work


def point_work(
    genotype: Genotype, point: FusionPoint, shapes: Shapes, rewrites: Rewrites
) -> PointWork:
    """Work of one inference at this point after the rewrites; the head is no part of it."""
    own = own_widths(genotype, point, shapes)
    text, vision = branch_widths(genotype, point, shapes)
    fused = fused_width(genotype, point, shapes)
    tokens, vectors = Work(operators=2), Work(elements=fused, operators=3)
    said = text_feature(genotype, point, shapes)
    if said is not None and said.form == "pooler":
        vectors = vectors.plus(gemm(own[0], own[0]))
    over_tokens = genotype.attends_over_tokens(point)
    if text and vision:
        sizes = (
            genotype.text_tokens,
            vision_tokens(shapes[str(genotype.vision_encoder)], point.vision_tap),
        )
        asked = point.width > 0 and (point.operator != "concatenation" or over_tokens)
        sides = zip(MODALITIES, sizes, own, (text, vision), strict=True)
        for modality, count, before, after in sides:
            if not asked and before == after:
                continue
            if fuses_tokens(genotype, point, modality):
                tokens = tokens.plus(product(count, before, after))
            else:
                vectors = vectors.plus(gemm(before, after))
        for _ in range(genotype.attention_blocks if over_tokens else 0):
            tokens = tokens.plus(attention(sum(sizes), sum(sizes), text))
            tokens = tokens.plus(product(sum(sizes), text, text))
        on_tokens, on_vectors = operator_work(point.operator, *sizes, text)
        tokens, vectors = tokens.plus(on_tokens), vectors.plus(on_vectors)
    if point.operator == "concatenation" and point.width and not over_tokens:
        vectors = vectors.plus(gemm(text + vision, point.width))
    if point == genotype.points[-1] and genotype.attention_over == "pooled":
        folded = folded_blocks(genotype, rewrites)
        products = folded + 5 * (genotype.attention_blocks - folded)
        vectors = vectors.plus(gemm(products * fused, fused, 2 * products))
    return PointWork(tokens, vectors, *_map_work(genotype, point, shapes))


def operator_work(
    operator: Operator, text_tokens: int, vision_tokens: int, width: int
) -> tuple[Work, Work]:
    """An operator's own work on tokens and on vectors, at the width that it works in."""
    tokens = vectors = Work()
    if operator == "gated":
        vectors = gemm(2 * width, width)
    elif operator == "low-rank-tensor":
        vectors = gemm(2 * width, LOW_RANK * width, operators=5)
    elif operator == "bilinear":
        vectors = gemm(2 * width, BILINEAR_FACTORS * width, operators=12)
    elif operator == "single-sequence":
        tokens = encoder(text_tokens + vision_tokens, width)
    elif operator == "prefix":
        vectors = gemm(width, PREFIX_TOKENS * width, operators=2)
        tokens = encoder(text_tokens + PREFIX_TOKENS, width)
    elif operator == "bottleneck":
        for count in (text_tokens, text_tokens, vision_tokens, vision_tokens):
            tokens = tokens.plus(encoder(count + BOTTLENECK_TOKENS, width))
    if operator in ("cross-attention", "cross-attention-both"):
        tokens = tokens.plus(attention(text_tokens, vision_tokens, width))
    if operator in ("cross-attention-vision", "cross-attention-both"):
        tokens = tokens.plus(attention(vision_tokens, text_tokens, width))
    return tokens, vectors


def _map_work(genotype: Genotype, point: FusionPoint, shapes: Shapes) -> tuple[Work, Work]:
    """Of the convolution over a feature map, and of its pooling; none without one."""
    seen = vision_feature(genotype, point)
    if seen is None:
        return Work(), Work(operators=2)
    shape = shapes[str(genotype.vision_encoder)]
    height, width = shape.sides[point.vision_tap - 1]
    cells = height * width
    values = cells * shape.widths[point.vision_tap - 1]
    if seen.form != "grid":
        return Work(), Work(elements=values, operators=2)
    convolved = Work(elements=2 * cells * CONV_MAX_WIDTH, operators=3)
    return Work(convolution=9 * values * CONV_MAX_WIDTH), convolved


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
