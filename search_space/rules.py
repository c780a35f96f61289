"""Which designs can be built, and which of a network's several spellings is the canonical one."""

from collections.abc import Mapping
from dataclasses import replace

from search_space.encoders import MODALITIES, EncoderShape
from search_space.genotype import (
    ATTENTION_OVER,
    MAX_ATTENTION_BLOCKS,
    MAX_FUSION_POINTS,
    MAX_TEXT_TOKENS,
    MIN_TEXT_TOKENS,
    OPERATORS,
    PRECISIONS,
    TEXT_POOLINGS,
    VISION_POOLINGS,
    FusionPoint,
    Genotype,
    TextPooling,
    VisionPooling,
)
from search_space.signatures import SIGNATURES, fuses_tokens, pools

ATTENTION_HEADS = 4
MAX_FUSED_WIDTH = 16_384
"""More features than this would make the head alone larger than either trunk."""
MAX_ATTENTION_WIDTH = 2_560
"""The widest vector that the encoders of arXiv 2511.21889 give by concatenation (768 + 1792)."""
MAX_TENSOR_WIDTH = 128
"""The widest square outer product that MAX_FUSED_WIDTH holds."""
CONV_MAX_WIDTH = 64
"""Features of the "conv-max" pooling (a 3x3 convolution, then the maximum): arXiv 2511.21889."""

Shapes = Mapping[str, EncoderShape]


def own_widths(genotype: Genotype, point: FusionPoint, shapes: Shapes) -> tuple[int, int]:
    """Features of (text, vision) as they leave trunk and pooling; 0 for an absent modality."""
    text = vision = 0
    if genotype.text_encoder:
        text = shapes[genotype.text_encoder].widths[point.text_tap - 1]
    if genotype.vision_encoder:
        vision = shapes[genotype.vision_encoder].widths[point.vision_tap - 1]
        if genotype.vision_pooling == "conv-max" and not fuses_tokens(genotype, point, "vision"):
            vision = CONV_MAX_WIDTH
    return text, vision


def branch_widths(genotype: Genotype, point: FusionPoint, shapes: Shapes) -> tuple[int, int]:
    """Features of (text, vision) as they reach the operator; 0 for an absent modality."""
    text, vision = own_widths(genotype, point, shapes)
    if not (text and vision):
        return text, vision
    if shares_width(genotype, point):
        return (point.width or text,) * 2
    if point.width and point.operator != "concatenation":
        return point.width, point.width
    return text, vision


def shares_width(genotype: Genotype, point: FusionPoint) -> bool:
    """Whether attention brings the modalities together here, so that both have one width."""
    return any(fuses_tokens(genotype, point, modality) for modality in MODALITIES)


def fused_width(genotype: Genotype, point: FusionPoint, shapes: Shapes) -> int:
    """Features that the operator at this point gives, attention blocks not counted."""
    text, vision = branch_widths(genotype, point, shapes)
    if point.operator == "concatenation":
        if point.width and not genotype.attends_over_tokens(point):
            return point.width
        return text + vision
    if point.operator == "product":
        return 2 * text
    if point.operator == "tensor":
        return text * vision
    return text * max(1, len(SIGNATURES[point.operator].gives))


def canonical(genotype: Genotype, shapes: Shapes) -> Genotype:
    """The one spelling of this network: points in order and once each, dead choices at rest.

    Idempotent. Encoders, taps and operators must exist (`violations` says so).
    """
    points = tuple(sorted(set(genotype.points)))
    genotype = replace(genotype, points=points)
    if genotype.attention_blocks == 0:
        genotype = replace(genotype, attention_over="pooled")
    return replace(
        genotype,
        text_pooling=_text_pooling(genotype, shapes),
        vision_pooling=_vision_pooling(genotype, shapes),
    )


def _text_pooling(genotype: Genotype, shapes: Shapes) -> TextPooling:
    pooled = [point for point in genotype.points if pools(point, "text")]
    if genotype.text_encoder is None or not pooled:
        return "cls"
    if genotype.text_pooling != "pooler":
        return genotype.text_pooling
    shape = shapes[genotype.text_encoder]
    reads_pooler = shape.has_pooler and any(
        point.text_tap == shape.depth and not fuses_tokens(genotype, point, "text")
        for point in pooled
    )
    return "pooler" if reads_pooler else "cls"


def _vision_pooling(genotype: Genotype, shapes: Shapes) -> VisionPooling:
    pooled = [point for point in genotype.points if pools(point, "vision")]
    if genotype.vision_encoder is None or not pooled:
        return "mean"
    pooling = genotype.vision_pooling
    if pooling == "cls" and not shapes[genotype.vision_encoder].has_class_token:
        return "mean"
    if pooling == "conv-max" and all(fuses_tokens(genotype, p, "vision") for p in pooled):
        return "max"
    return pooling


def violations(genotype: Genotype, shapes: Shapes) -> tuple[str, ...]:
    """Everything that keeps this design from being built, each in words; empty when it can be."""
    found = _choice_violations(genotype)
    found += _encoder_violations(genotype, shapes)
    if found:  # widths mean nothing before encoders and taps are right
        return tuple(found)
    for point in genotype.points:
        found += _point_violations(genotype, point, shapes)
    return tuple(found)


def _choice_violations(genotype: Genotype) -> list[str]:
    found = []
    if not 1 <= len(genotype.points) <= MAX_FUSION_POINTS:
        found.append(f"{len(genotype.points)} fusion points: a design has 1 to {MAX_FUSION_POINTS}")
    if not 0 <= genotype.attention_blocks <= MAX_ATTENTION_BLOCKS:
        found.append(
            f"{genotype.attention_blocks} attention blocks: "
            f"a design has 0 to {MAX_ATTENTION_BLOCKS}"
        )
    named: list[tuple[str, str, tuple[str, ...]]] = [
        ("attention over", genotype.attention_over, ATTENTION_OVER),
        ("text pooling", genotype.text_pooling, TEXT_POOLINGS),
        ("vision pooling", genotype.vision_pooling, VISION_POOLINGS),
        ("precision", genotype.precision, PRECISIONS),
        *(("operator", point.operator, OPERATORS) for point in genotype.points),
    ]
    found += [
        f"{what} {value!r}: choose one of {', '.join(known)}"
        for what, value, known in named
        if value not in known
    ]
    found += [
        f"width {p.width}: 0 (the trunks' own) or more" for p in genotype.points if p.width < 0
    ]
    return found


def _encoder_violations(genotype: Genotype, shapes: Shapes) -> list[str]:
    found = []
    if genotype.text_encoder is None and genotype.vision_encoder is None:
        found.append("no encoder: a design needs a text encoder, a vision encoder or both")
    sides = (
        ("text", genotype.text_encoder, [p.text_tap for p in genotype.points]),
        ("vision", genotype.vision_encoder, [p.vision_tap for p in genotype.points]),
    )
    for modality, name, taps in sides:
        if name is None:
            found += [
                f"{modality} tap {tap} without a {modality} encoder: must be 0"
                for tap in taps
                if tap
            ]
            continue
        shape = shapes.get(name)
        if shape is None or shape.modality != modality:
            known = [n for n, s in shapes.items() if s.modality == modality]
            found.append(
                f"{modality} encoder {name!r} is unknown here: choose one of {', '.join(known)}"
            )
            continue
        found += [
            f"{modality} tap {tap} of {name}: it has taps 1 to {shape.depth}"
            for tap in taps
            if not 1 <= tap <= shape.depth
        ]
        if modality == "text":
            longest = min(shape.max_tokens, MAX_TEXT_TOKENS)
            if not MIN_TEXT_TOKENS <= genotype.text_tokens <= longest:
                found.append(
                    f"{genotype.text_tokens} text tokens: "
                    f"{name} takes {MIN_TEXT_TOKENS} to {longest}"
                )
    unimodal = genotype.text_encoder is None or genotype.vision_encoder is None
    if unimodal and (
        genotype.attention_over == "tokens"
        or any(point.operator != "concatenation" for point in genotype.points)
    ):
        found.append(
            "a unimodal design has nothing to fuse: use the operator concatenation and attention "
            "over the pooled vector"
        )
    if genotype.text_encoder is None and genotype.text_tokens:
        found.append(f"{genotype.text_tokens} text tokens without a text encoder: must be 0")
    return found


def _pooling_violations(genotype: Genotype, point: FusionPoint, shapes: Shapes) -> list[str]:
    """Poolings that this point reads and the encoders lack; `canonical` leaves none."""
    found = []
    name = genotype.text_encoder
    if name and genotype.text_pooling == "pooler" and not fuses_tokens(genotype, point, "text"):
        shape = shapes[name]
        if point.text_tap == shape.depth and not shape.has_pooler:
            found.append(f"text pooling 'pooler': {name} has no pooler")
    name = genotype.vision_encoder
    reads_cls = genotype.vision_pooling == "cls" and pools(point, "vision")
    if name and reads_cls and not shapes[name].has_class_token:
        found.append(f"vision pooling 'cls': {name} has no class token")
    return found


def _point_violations(genotype: Genotype, point: FusionPoint, shapes: Shapes) -> list[str]:
    text, vision = branch_widths(genotype, point, shapes)
    here = f"{point.operator} at taps {point.text_tap}x{point.vision_tap}"
    found = _pooling_violations(genotype, point, shapes)
    if SIGNATURES[point.operator].equal_widths and text != vision:
        found.append(
            f"{here} needs equal widths, the trunks give {text} and {vision}: "
            "give the point a width to project both to"
        )
    if shares_width(genotype, point) and text % ATTENTION_HEADS:
        found.append(f"{here}: {_unshared(text)}")
    fused = fused_width(genotype, point, shapes)
    if fused > MAX_FUSED_WIDTH:
        found.append(
            f"{here} gives {fused:,} features, at most {MAX_FUSED_WIDTH:,} are built: "
            f"choose a width (tensor: up to {MAX_TENSOR_WIDTH})"
        )
    over_vector = genotype.attention_blocks > 0 and genotype.attention_over == "pooled"
    if over_vector and point == genotype.points[-1]:
        if fused > MAX_ATTENTION_WIDTH:
            found.append(
                f"attention over a vector of {fused:,} features at taps "
                f"{point.text_tap}x{point.vision_tap}: at most {MAX_ATTENTION_WIDTH:,}"
            )
        elif fused % ATTENTION_HEADS:
            found.append(f"{here}: {_unshared(fused)}")
    return found


def _unshared(width: int) -> str:
    return (
        f"{ATTENTION_HEADS} attention heads cannot share {width} features: "
        f"choose a width that {ATTENTION_HEADS} divides"
    )
