"""What a design computes at its fusion points, from shapes alone."""

from collections.abc import Iterator

from search_space.design.genotype import FusionPoint, Genotype
from search_space.design.reading import fuses_tokens, pools
from search_space.design.rules import (
    CONV_MAX_WIDTH,
    Shapes,
    branch_widths,
    fused_width,
    own_widths,
    pooled_side,
    projects_inputs,
    projects_result,
)
from search_space.encoders.features import fused_tokens, map_tokens, read_at
from search_space.modality import Modality
from search_space.network.rewrites import Rewrites, folded_blocks
from search_space.operators.registry import operator_of
from search_space.operators.work import On, Work, attention, gemm, linear


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
                yield "tokens", linear(count, width, width)
        yield from operator_of(point.operator).work(tuple(lengths.values()), width)
    if point == genotype.points[-1] and genotype.attention_over == "pooled":
        folded = folded_blocks(genotype, rewrites)
        products = folded + 5 * (genotype.attention_blocks - folded)
        yield "vectors", gemm(products * fused, fused, 2 * products)


def _lengths(genotype: Genotype, point: FusionPoint, shapes: Shapes) -> dict[Modality, int]:
    """Tokens of each modality as they are fused."""
    return {m: fused_tokens(genotype, point, m, shapes) for m in genotype.encoders}


def _projections(
    genotype: Genotype, point: FusionPoint, shapes: Shapes
) -> Iterator[tuple[On, Work]]:
    """Of each modality to the operator's width, or of what the operator gives."""
    own, reached = own_widths(genotype, point, shapes), branch_widths(genotype, point, shapes)
    asked = projects_inputs(genotype, point)
    lengths = _lengths(genotype, point, shapes)
    for modality, count in lengths.items():
        before, after = own[modality], reached[modality]
        if not genotype.is_fused or (not asked and before == after):
            continue
        if fuses_tokens(genotype, point, modality):
            yield "tokens", linear(count, before, after)
        else:
            yield "vectors", gemm(before, after)
    if projects_result(genotype, point):
        operator = operator_of(point.operator)
        yield "vectors", gemm(operator.output_width(reached), point.width)


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
    if side := pooled_side(genotype, point, shapes):
        shape = shapes[str(genotype.vision_encoder)]
        width, count = own["vision"], side * side + shape.has_class_token
        products = count * map_tokens(shape, point.vision_tap) * width
        # A product with a constant, but none that quantisation takes for weights.
        yield "tokens", Work(attention=products, elements=count * width, operators=1)
    for modality, count in _lengths(genotype, point, shapes).items():
        if genotype.pooling(modality) == "attention" and pools(point, modality):
            width = (reached if fuses_tokens(genotype, point, modality) else own)[modality]
            yield "tokens", weighted_sum(count, width)


def weighted_sum(count: int, width: int) -> Work:
    """The pooling of tokens by a learned query."""
    return Work(
        linear=count * width,
        attention=count * width,
        weights=width,
        elements=3 * count + width,
        operators=7,
    )
