"""Which designs can be built, and which of a network's several spellings is the canonical one."""

import math
from collections.abc import Mapping
from dataclasses import replace

from search_space.design.adapting import adapts, rank_violations
from search_space.design.encoder import EncoderShape
from search_space.design.genotype import (
    ALL_IMAGE_TOKENS,
    ATTENTION_OVER,
    AUDIO_POOLINGS,
    IMAGE_TOKENS,
    MAX_ATTENTION_BLOCKS,
    MAX_FUSION_POINTS,
    MAX_TEXT_TOKENS,
    MIN_TEXT_TOKENS,
    NO_ADAPTERS,
    PRECISIONS,
    TEXT_POOLINGS,
    VISION_POOLINGS,
    AudioPooling,
    FusionPoint,
    Genotype,
    TextPooling,
    VisionPooling,
)
from search_space.design.reading import fuses_tokens, pools
from search_space.modality import MODALITIES, Modality
from search_space.operators.operator import Operator
from search_space.operators.registry import (
    fusion_operators,
    is_operator,
    operator_of,
    why_unknown,
)
from search_space.operators.work import ATTENTION_HEADS

MAX_FUSED_WIDTH = 16_384
"""More features than this would make the head alone larger than either trunk."""
MAX_ATTENTION_WIDTH = 2_560
"""The widest vector that the encoders of arXiv 2511.21889 give by concatenation (768 + 1792)."""
CONV_MAX_WIDTH = 64
"""Features of the "conv-max" pooling (a 3x3 convolution, then the maximum): arXiv 2511.21889."""

_AN: dict[Modality, str] = {"text": "a text", "vision": "a vision", "audio": "an audio"}

Shapes = Mapping[str, EncoderShape]
Widths = dict[Modality, int]
"""Features by modality, of those that a design has, in the order of MODALITIES."""


def max_width(operator: Operator, modalities: int) -> int:
    """The greatest width that it works in and whose fusion MAX_FUSED_WIDTH holds."""
    each, width = operator_of(operator), 1
    widest = each.signature.widest or MAX_FUSED_WIDTH

    def fits(width: int) -> bool:
        fused = each.output_width(dict.fromkeys(MODALITIES[:modalities], width))
        return width <= widest and fused <= MAX_FUSED_WIDTH

    while fits(width + 1):
        width += 1
    return width


def own_widths(genotype: Genotype, point: FusionPoint, shapes: Shapes) -> Widths:
    """Features as they leave trunk and pooling."""
    found = {m: shapes[name].widths[point.tap(m) - 1] for m, name in genotype.encoders.items()}
    as_map = genotype.vision_pooling == "conv-max" and not fuses_tokens(genotype, point, "vision")
    if "vision" in found and as_map:
        found["vision"] = CONV_MAX_WIDTH
    return found


def branch_widths(genotype: Genotype, point: FusionPoint, shapes: Shapes) -> Widths:
    """Features as they reach the operator."""
    own = own_widths(genotype, point, shapes)
    if not genotype.is_fused:
        return own
    if shares_width(genotype, point):
        return dict.fromkeys(own, point.width or next(iter(own.values())))
    if point.width and not operator_of(point.operator).signature.projects_result:
        return dict.fromkeys(own, point.width)
    return own


def shares_width(genotype: Genotype, point: FusionPoint) -> bool:
    """Whether attention brings the modalities together here, so that all have one width."""
    return any(fuses_tokens(genotype, point, modality) for modality in genotype.encoders)


def fused_width(genotype: Genotype, point: FusionPoint, shapes: Shapes) -> int:
    """Features that the operator at this point gives, attention blocks not counted."""
    if projects_result(genotype, point):
        return point.width
    widths = branch_widths(genotype, point, shapes)
    return operator_of(point.operator).output_width(widths)


def projects_inputs(genotype: Genotype, point: FusionPoint) -> bool:
    """Whether the point's width is asked of what reaches the operator or attention before it."""
    return point.width > 0 and not projects_result(genotype, point)


def projects_result(genotype: Genotype, point: FusionPoint) -> bool:
    """Whether the point's width is asked of what the operator gives."""
    after = operator_of(point.operator).signature.projects_result
    return after and point.width > 0 and not genotype.attends_over_tokens(point)


def keeps_scaling(
    genotype: Genotype, point: FusionPoint, modality: Modality, shapes: Shapes
) -> bool:
    """Whether standardising what this point reads of a modality is a part of the built network.

    It is where no linear layer follows the feature that could take up its factor and offset:
    before a residual connection over tokens, an elementwise operator or a ReLU.
    """
    as_tokens = fuses_tokens(genotype, point, modality)
    if modality == "vision" and genotype.vision_pooling == "conv-max" and not as_tokens:
        return False
    if genotype.is_fused:
        own = own_widths(genotype, point, shapes)[modality]
        width = branch_widths(genotype, point, shapes)[modality]
        if projects_inputs(genotype, point) or own != width:
            return False
        if as_tokens or point.operator != "concatenation":
            return as_tokens or not operator_of(point.operator).starts_linear
    last = point == genotype.points[-1]
    followed = point.width > 0 or (last and genotype.attention_blocks > 0)
    return not followed and len(genotype.points) > 1


def reads_first_token(genotype: Genotype, point: FusionPoint, modality: Modality) -> bool:
    """Whether the tokens that this point fuses of a modality are read at the first of them."""
    as_tokens = fuses_tokens(genotype, point, modality) and pools(point, modality)
    return as_tokens and genotype.pooling(modality) in ("cls", "pooler")


def pooled_side(genotype: Genotype, point: FusionPoint, shapes: Shapes) -> int:
    """Cells a side of the grid that this point pools a picture's tokens to; 0 where it does not.

    It does where it takes the picture as tokens, and where these are others than it is to have.
    """
    name, side = genotype.vision_encoder, math.isqrt(max(0, genotype.image_tokens))
    if not side or name is None or not fuses_tokens(genotype, point, "vision"):
        return 0
    return 0 if shapes[name].token_grid(point.vision_tap) == (side, side) else side


def fewest_image_tokens(genotype: Genotype, shapes: Shapes) -> int:
    """The largest square grid, in tokens, that every point which takes the picture as tokens has.

    0 where none does.
    """
    name = genotype.vision_encoder
    sides = [
        min(shapes[name].token_grid(point.vision_tap))
        for point in genotype.points
        if name and fuses_tokens(genotype, point, "vision")
    ]
    return min(sides, default=0) ** 2


def canonical(genotype: Genotype, shapes: Shapes) -> Genotype:
    """The one spelling of this network: points in order and once each, dead choices at rest.

    Idempotent. Encoders, taps and operators must exist (`violations` says so).
    """
    points = genotype.points
    if not genotype.is_fused:
        points = tuple(replace(point, operator="concatenation") for point in points)
    points = tuple(sorted(set(points)))
    genotype = replace(genotype, points=points)
    if genotype.attention_blocks == 0 or not genotype.is_fused:
        genotype = replace(genotype, attention_over="pooled")
    if not any(pooled_side(genotype, point, shapes) for point in points):
        genotype = replace(genotype, image_tokens=ALL_IMAGE_TOKENS)
    if not adapts(genotype, shapes):
        genotype = replace(genotype, lora_rank=NO_ADAPTERS)
    return replace(
        genotype,
        text_pooling=_text_pooling(genotype, shapes),
        vision_pooling=_vision_pooling(genotype, shapes),
        audio_pooling=_audio_pooling(genotype),
    )


def _text_pooling(genotype: Genotype, shapes: Shapes) -> TextPooling:
    pooled = [point for point in genotype.points if pools(point, "text")]
    if genotype.text_encoder is None or not pooled:
        return "cls"
    shape = shapes[genotype.text_encoder]
    without_pooler: TextPooling = "mean" if shape.is_causal else "cls"
    if genotype.text_pooling == "cls":
        return without_pooler
    if genotype.text_pooling != "pooler":
        return genotype.text_pooling
    reads_pooler = shape.has_pooler and any(
        point.text_tap == shape.depth and not fuses_tokens(genotype, point, "text")
        for point in pooled
    )
    return "pooler" if reads_pooler else without_pooler


def _vision_pooling(genotype: Genotype, shapes: Shapes) -> VisionPooling:
    pooled = [point for point in genotype.points if pools(point, "vision")]
    if genotype.vision_encoder is None or not pooled:
        return "mean"
    pooling = genotype.vision_pooling
    if pooling == "cls" and not shapes[genotype.vision_encoder].has_class_token:
        return "mean"
    if not all(fuses_tokens(genotype, p, "vision") for p in pooled):
        return pooling
    if genotype.image_tokens == 1 and not shapes[genotype.vision_encoder].has_class_token:
        return "mean"  # of a single token every pooling is that token
    return "max" if pooling == "conv-max" else pooling


def _audio_pooling(genotype: Genotype) -> AudioPooling:
    pooled = any(pools(point, "audio") for point in genotype.points)
    return genotype.audio_pooling if genotype.audio_encoder and pooled else "mean"


def violations(genotype: Genotype, shapes: Shapes) -> tuple[str, ...]:
    """Everything that keeps this design from being built, each in words; empty when it can be."""
    found = _choice_violations(genotype)
    found += _encoder_violations(genotype, shapes)
    if found:  # widths mean nothing before encoders and taps are right
        return tuple(found)
    for point in genotype.points:
        found += _point_violations(genotype, point, shapes)
    return (*found, *rank_violations(genotype, shapes))


def _choice_violations(genotype: Genotype) -> list[str]:
    found = []
    if not 1 <= len(genotype.points) <= MAX_FUSION_POINTS:
        found.append(f"{len(genotype.points)} fusion points: a design has 1 to {MAX_FUSION_POINTS}")
    if not 0 <= genotype.attention_blocks <= MAX_ATTENTION_BLOCKS:
        found.append(
            f"{genotype.attention_blocks} attention blocks: "
            f"a design has 0 to {MAX_ATTENTION_BLOCKS}"
        )
    named: list[tuple[str, str | int, tuple[str | int, ...]]] = [
        ("attention over", genotype.attention_over, ATTENTION_OVER),
        ("text pooling", genotype.text_pooling, TEXT_POOLINGS),
        ("vision pooling", genotype.vision_pooling, VISION_POOLINGS),
        ("audio pooling", genotype.audio_pooling, AUDIO_POOLINGS),
        ("precision", genotype.precision, PRECISIONS),
        ("image tokens", genotype.image_tokens, IMAGE_TOKENS),
    ]
    found += [
        f"{what} {value!r}: choose one of {', '.join(map(str, known))}"
        for what, value, known in named
        if value not in known
    ]
    found += [
        f"operator {why_unknown(name)}"
        for name in dict.fromkeys(point.operator for point in genotype.points)
        if not is_operator(name)
    ]
    found += [
        f"width {p.width}: 0 (the trunks' own) or more" for p in genotype.points if p.width < 0
    ]
    return found


def _encoder_violations(genotype: Genotype, shapes: Shapes) -> list[str]:
    found = []
    if not genotype.encoders:
        found.append("no encoder: a design needs a text, vision or audio encoder, or several")
    for modality in MODALITIES:
        name, taps = genotype.encoders.get(modality), [p.tap(modality) for p in genotype.points]
        if name is None:
            found += [
                f"{modality} tap {tap} without {_AN[modality]} encoder: must be 0"
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
    if not genotype.is_fused and (
        genotype.attention_over == "tokens"
        or any(point.operator != "concatenation" for point in genotype.points)
    ):
        found.append(
            "a unimodal design has nothing to fuse: use the operator concatenation and attention "
            "over the pooled vector"
        )
    if genotype.is_fused:
        found += _operator_violations(genotype)
    if genotype.text_encoder is None and genotype.text_tokens:
        found.append(f"{genotype.text_tokens} text tokens without a text encoder: must be 0")
    if genotype.vision_encoder is None and genotype.image_tokens:
        found.append(f"{genotype.image_tokens} image tokens without a vision encoder: must be 0")
    return found


def _operator_violations(genotype: Genotype) -> list[str]:
    """Operators that cannot fuse what the design reads."""
    present, found = set(genotype.encoders), []
    for operator in dict.fromkeys(point.operator for point in genotype.points):
        if not is_operator(operator):  # of which `_choice_violations` tells
            continue
        signature = operator_of(operator).signature
        if not present.issuperset(signature.needs):
            found.append(f"{operator} is of {' and '.join(signature.needs)}: choose another")
        elif len(present) > signature.most:
            able = (
                name
                for name, each in fusion_operators().items()
                if each.signature.most >= len(present)
            )
            found.append(
                f"{operator} fuses {signature.most} modalities, not {len(present)}: "
                f"choose one of {', '.join(able)}"
            )
    return found


def _pooling_violations(genotype: Genotype, point: FusionPoint, shapes: Shapes) -> list[str]:
    """Poolings that this point reads and the encoders lack; `canonical` leaves none."""
    found = []
    name = genotype.text_encoder
    if name and genotype.text_pooling == "pooler" and not fuses_tokens(genotype, point, "text"):
        shape = shapes[name]
        if point.text_tap == shape.depth and not shape.has_pooler:
            found.append(f"text pooling 'pooler': {name} has no pooler")
    first = genotype.text_pooling == "cls" and pools(point, "text")
    if name and first and shapes[name].is_causal:
        found.append(f"text pooling 'cls': the first token of {name} reads no other (it is causal)")
    name = genotype.vision_encoder
    reads_cls = genotype.vision_pooling == "cls" and pools(point, "vision")
    if name and reads_cls and not shapes[name].has_class_token:
        found.append(f"vision pooling 'cls': {name} has no class token")
    return found


def _image_token_violations(genotype: Genotype, point: FusionPoint, shapes: Shapes) -> list[str]:
    """More image tokens than this point's tap has."""
    side = pooled_side(genotype, point, shapes)
    if not side:
        return []
    name = str(genotype.vision_encoder)
    rows, columns = shapes[name].token_grid(point.vision_tap)
    most = min(rows, columns) ** 2
    if side * side <= most:
        return []
    fewer = ", ".join(str(count) for count in IMAGE_TOKENS if count <= most)
    return [
        f"{genotype.image_tokens} image tokens: vision tap {point.vision_tap} of {name} has "
        f"{rows * columns} ({rows} x {columns}): choose one of {fewer} (0 for all)"
    ]


def _point_violations(genotype: Genotype, point: FusionPoint, shapes: Shapes) -> list[str]:
    widths = list(branch_widths(genotype, point, shapes).values())
    taps = genotype.taps(point)
    here = f"{point.operator} at taps {taps}"
    found = _pooling_violations(genotype, point, shapes)
    found += _image_token_violations(genotype, point, shapes)
    if operator_of(point.operator).signature.equal_widths and len(set(widths)) > 1:
        found.append(
            f"{here} needs equal widths, the trunks give {' and '.join(map(str, widths))}: "
            f"give the point a width to project {'both' if len(widths) == 2 else 'all'} to"
        )
    widest = operator_of(point.operator).signature.widest
    if widest and max(widths) > widest:
        found.append(
            f"{here} works in {widest} features at most, not in {max(widths)}: "
            f"choose a width up to {widest}"
        )
    if shares_width(genotype, point) and widths[0] % ATTENTION_HEADS:
        found.append(f"{here}: {_unshared(widths[0])}")
    fused = fused_width(genotype, point, shapes)
    if fused > MAX_FUSED_WIDTH:
        most = (
            f"{name}: up to {max_width(name, len(widths))}"
            for name, each in fusion_operators().items()
            if each.signature.needs_width
        )
        found.append(
            f"{here} gives {fused:,} features, at most {MAX_FUSED_WIDTH:,} are built: "
            f"choose a width ({', '.join(most)})"
        )
    over_vector = genotype.attention_blocks > 0 and genotype.attention_over == "pooled"
    if over_vector and point == genotype.points[-1]:
        if fused > MAX_ATTENTION_WIDTH:
            found.append(
                f"attention over a vector of {fused:,} features at taps {taps}: "
                f"at most {MAX_ATTENTION_WIDTH:,}"
            )
        elif fused % ATTENTION_HEADS:
            found.append(f"{here}: {_unshared(fused)}")
    return found


def _unshared(width: int) -> str:
    return (
        f"{ATTENTION_HEADS} attention heads cannot share {width} features: "
        f"choose a width that {ATTENTION_HEADS} divides"
    )
