"""The hand-made designs of arXiv 2511.21889, with the figures that were published for them.

Binary sentiment on CMU-MOSI, one middle frame a clip, latency in ONNX Runtime on a Jetson Orin
AGX. The published accuracies come from different subsets of the test clips (late: a 20 % slice,
unimodal: the other 80 %, the rest: all 686), so they are not one front.
"""

from dataclasses import dataclass, replace
from typing import Literal

from search_space.design.encoder import EncoderShape
from search_space.design.genotype import FusionPoint, Genotype
from search_space.design.rules import canonical
from search_space.modality import MODALITIES
from search_space.space.space import SearchSpace

SOURCE = "arXiv 2511.21889"
BERT, MOBILENET, VIT = "bert-base-uncased", "mobilenet_v2_1.4_224", "vit-base-patch16-224"
DEPTHS = {BERT: 12, MOBILENET: 16, VIT: 12}
TEXT_WIDTH = 768
TEST_CLIPS, LATE_CLIPS, LATE_RIGHT = 686, 138, 115
"""All test clips of CMU-MOSI; those that the late designs' accuracy is from; of these, right with
MobileNetV2 (84.25 % is a mean of batch accuracies over them)."""

Stage = Literal["late", "intermediate", "early", "text-only", "vision-only"]


@dataclass(frozen=True)
class PaperDesign:
    """One published design. Figures that the source does not give are None.

    accuracy_percent: of test clips (see the module's caution); latency_ms: ONNX Runtime.
    """

    name: str
    stage: Stage
    genotype: Genotype
    accuracy_percent: float | None = None
    latency_ms: float | None = None


def _fused(vision: str, *points: FusionPoint, **rest: object) -> Genotype:
    return replace(Genotype(BERT, vision, 512, points), **rest)  # type: ignore[arg-type]


_INTERMEDIATE = (
    FusionPoint(4, 4, "concatenation", 512),
    FusionPoint(7, 7, "concatenation", 512),
    FusionPoint(8, 8, "concatenation", 0),
)
_EARLY = FusionPoint(6, 6)

DESIGNS: tuple[PaperDesign, ...] = (
    PaperDesign(
        "late-mobilenetv2",
        "late",
        _fused(MOBILENET, FusionPoint(12, 16), text_pooling="pooler", vision_pooling="mean"),
        accuracy_percent=84.25,
        latency_ms=21.6,
    ),
    PaperDesign(
        "late-vit",
        "late",
        _fused(VIT, FusionPoint(12, 12), text_pooling="pooler", vision_pooling="cls"),
        accuracy_percent=83.62,
    ),
    PaperDesign(
        "intermediate-mobilenetv2",
        "intermediate",
        _fused(MOBILENET, *_INTERMEDIATE, attention_blocks=1, vision_pooling="conv-max"),
        accuracy_percent=72.40,
        latency_ms=13.5,
    ),
    PaperDesign(
        "intermediate-vit",
        "intermediate",
        _fused(VIT, *_INTERMEDIATE, attention_blocks=1, vision_pooling="cls"),
    ),
    PaperDesign(
        "early-mobilenetv2",
        "early",
        _fused(MOBILENET, _EARLY, attention_blocks=4, vision_pooling="max"),
        accuracy_percent=67.89,
        latency_ms=11.4,
    ),
    PaperDesign(
        "early-vit",
        "early",
        _fused(VIT, _EARLY, attention_blocks=4, vision_pooling="cls"),
        latency_ms=10.951,
    ),
    PaperDesign(
        "text-only",
        "text-only",
        Genotype(BERT, None, 512, (FusionPoint(12, 0),), text_pooling="pooler"),
        accuracy_percent=80.20,
    ),
    PaperDesign(
        "vision-only-mobilenetv2",
        "vision-only",
        Genotype(None, MOBILENET, 0, (FusionPoint(0, 16),), vision_pooling="mean"),
        accuracy_percent=43.22,
    ),
    PaperDesign(
        "vision-only-vit",
        "vision-only",
        Genotype(None, VIT, 0, (FusionPoint(0, 12),), vision_pooling="cls"),
        accuracy_percent=50.17,
    ),
)
"""Six fused designs, then the three unimodal ones."""


@dataclass(frozen=True)
class SeededDesign:
    """A published design as it stands in a search space.

    `adapted` says in words what was brought into proportion; empty for the paper's own
    encoders at the paper's own length.
    """

    name: str
    design: PaperDesign
    genotype: Genotype
    adapted: str = ""


def seeded_designs(space: SearchSpace) -> tuple[SeededDesign, ...]:
    """The published designs on the encoders of a space, in the order of DESIGNS.

    On other encoders than the paper's, MobileNetV2's designs go to the first encoder without a
    class token and ViT's to the first with one; taps, widths and tokens are brought into
    proportion. A design whose kind of encoder the space lacks is left out; where the space has no
    text or no vision encoder at all, its first audio encoder takes that place in fused designs.
    """
    found = (_seeded(design, space) or _with_sound(design, space) for design in DESIGNS)
    return tuple(seeded for seeded in found if seeded is not None)


def _seeded(design: PaperDesign, space: SearchSpace) -> SeededDesign | None:
    genotype = design.genotype
    text = vision = None
    if genotype.text_encoder:
        if not space.text_encoders:
            return None
        text = BERT if BERT in space.text_encoders else space.text_encoders[0]
    if genotype.vision_encoder:
        vision = _vision_encoder(genotype.vision_encoder, space)
        if vision is None:
            return None
    carried = Genotype(
        text,
        vision,
        _tokens(text, space) if text else 0,
        tuple(_point(point, genotype, text, vision, space) for point in genotype.points),
        genotype.attention_blocks,
        genotype.attention_over,
        genotype.text_pooling,
        genotype.vision_pooling,
    )
    carried = canonical(carried, space.shapes)  # no pooler, or taps that fell together
    if carried == genotype:
        return SeededDesign(design.name, design, carried)
    taps = ", ".join(carried.taps(p) for p in carried.points)
    was = ", ".join(genotype.taps(p) for p in genotype.points)
    words = f"{design.name} of {SOURCE} scaled in proportion: taps {was} became {taps}"
    if carried.text_tokens != genotype.text_tokens:
        words += f", {genotype.text_tokens} tokens became {carried.text_tokens}"
    own = (text, vision) == (genotype.text_encoder, genotype.vision_encoder)
    name = design.name if own else "-".join([design.stage, *([vision] if vision else [])])
    return SeededDesign(name, design, carried, words)


def _with_sound(design: PaperDesign, space: SearchSpace) -> SeededDesign | None:
    """A fused design with an audio encoder instead of a modality that the space lacks.

    Of designs that differ in the vision encoder alone, MobileNetV2's is taken where the audio
    encoder is in that place.
    """
    was, lacking = design.genotype, [m for m in MODALITIES[:2] if not space.encoders_of(m)]
    if not was.is_fused or len(lacking) != 1 or not space.audio_encoders:
        return None
    (missing,), audio = lacking, space.audio_encoders[0]
    published = str(was.encoders[missing])
    text = None if missing == "text" else space.text_encoders[0]
    vision = None if missing == "vision" else _vision_encoder(str(was.vision_encoder), space)
    if published == VIT or (text is None and vision is None):
        return None
    points = tuple(
        replace(
            _point(point, was, text, vision, space, width_of=text or audio),
            audio_tap=_tap(point.tap(missing), published, audio, space),
        )
        for point in was.points
    )
    highest = missing == "vision" and was.vision_pooling in ("max", "conv-max")
    carried = Genotype(
        text,
        vision,
        _tokens(text, space) if text else 0,
        points,
        was.attention_blocks,
        was.attention_over,
        was.text_pooling if text else "cls",
        was.vision_pooling if vision else "mean",
        audio_encoder=audio,
        audio_pooling="max" if highest else "mean",
    )
    carried = canonical(carried, space.shapes)
    taps = ", ".join(carried.taps(p) for p in carried.points)
    words = (
        f"{design.name} of {SOURCE} with {audio} instead of {published}: taps "
        f"{', '.join(was.taps(p) for p in was.points)} became {taps}"
    )
    return SeededDesign(f"{design.stage}-{vision or audio}", design, carried, words)


def _vision_encoder(published: str, space: SearchSpace) -> str | None:
    if published in space.vision_encoders:
        return published
    wants_class_token = published == VIT
    for name in space.vision_encoders:
        if name not in DEPTHS and space.shapes[name].has_class_token == wants_class_token:
            return name
    return None


def _tokens(text: str, space: SearchSpace) -> int:
    """The space's longest text: the paper pads to the longest that BERT takes."""
    return min(max(space.text_tokens), space.shapes[text].max_tokens)


def _point(
    point: FusionPoint,
    published: Genotype,
    text: str | None,
    vision: str | None,
    space: SearchSpace,
    width_of: str | None = None,
) -> FusionPoint:
    """A point in proportion; `width_of` names the encoder that the width goes by, text else."""
    text_tap = _tap(point.text_tap, published.text_encoder, text, space)
    vision_tap = _tap(point.vision_tap, published.vision_encoder, vision, space)
    width = point.width
    if width and (known := width_of or text):
        proportional = width * _width_of(space.shapes[known]) / TEXT_WIDTH
        positive = [w for w in space.widths if w > 0] or [width]
        width = min(positive, key=lambda w: (abs(w - proportional), w))
    return FusionPoint(text_tap, vision_tap, point.operator, width)


def _tap(tap: int, published: str | None, encoder: str | None, space: SearchSpace) -> int:
    if published is None or encoder is None:
        return 0
    return max(1, tap * space.shapes[encoder].depth // DEPTHS[published])


def _width_of(shape: EncoderShape) -> int:
    return shape.widths[-1]
