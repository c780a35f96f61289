"""What a fusion reads from a trunk: named tensors at named taps.

A trunk gives features, a fusion takes them; whoever stands between the two may keep them. So a
design on frozen trunks can be trained from stored features, by the same code that runs whole.
"""

from dataclasses import dataclass
from typing import Literal

from search_space.encoders import MAX_VISION_TOKENS_SIDE, EncoderShape, Modality
from search_space.genotype import FusionPoint, Genotype
from search_space.rules import Shapes
from search_space.signatures import reads_tokens

Form = Literal["cls", "mean", "max", "pooler", "tokens", "grid"]


@dataclass(frozen=True, order=True)
class Feature:
    """One tensor of one tap.

    Forms, with B the batch, C the tap's width:
    cls (B, C) the class token; mean, max (B, C) over tokens or cells, padding left out;
    pooler (B, C) the text encoder's own pooler; grid (B, C, H, W) the whole feature map;
    tokens (B, L, C): for text all L tokens, for vision the class token where there is one and
    the map average-pooled to at most 7x7 cells.
    """

    modality: Modality
    tap: int
    form: Form

    @property
    def over_text(self) -> bool:
        """Whether it has a vector for each token of the text, padding included."""
        return self.modality == "text" and self.form == "tokens"

    @property
    def name(self) -> str:
        """A name for files and graphs, for example `vision-7-grid`."""
        return f"{self.modality}-{self.tap}-{self.form}"


def text_feature(genotype: Genotype, point: FusionPoint, shapes: Shapes) -> Feature | None:
    """What this point reads from the text trunk; None for a design without text."""
    if genotype.text_encoder is None:
        return None
    if reads_tokens(genotype, point, "text"):
        return Feature("text", point.text_tap, "tokens")
    pooling = genotype.text_pooling
    assert pooling != "attention", "whose tokens are read"
    if pooling == "pooler" and point.text_tap != shapes[genotype.text_encoder].depth:
        pooling = "cls"  # the pooler belongs to the last layer
    return Feature("text", point.text_tap, pooling)


def vision_feature(genotype: Genotype, point: FusionPoint) -> Feature | None:
    """What this point reads from the vision trunk; None for a design without images."""
    if genotype.vision_encoder is None:
        return None
    if reads_tokens(genotype, point, "vision"):
        return Feature("vision", point.vision_tap, "tokens")
    pooling = genotype.vision_pooling
    assert pooling != "attention", "whose tokens are read"
    return Feature("vision", point.vision_tap, "grid" if pooling == "conv-max" else pooling)


def features_of(genotype: Genotype, shapes: Shapes) -> tuple[Feature, ...]:
    """Everything that the design reads from its trunks, each feature once."""
    read = {
        feature
        for point in genotype.points
        for feature in (text_feature(genotype, point, shapes), vision_feature(genotype, point))
        if feature is not None
    }
    return tuple(sorted(read))


def vision_tokens(shape: EncoderShape, tap: int) -> int:
    """How many tokens the form "tokens" of this vision tap has."""
    height, width = shape.sides[tap - 1]
    kernel = token_kernel(height, width)
    return -(-height // kernel) * -(-width // kernel) + shape.has_class_token


def token_kernel(height: int, width: int) -> int:
    """Cells that are averaged into one token, along each side."""
    return -(-max(height, width) // MAX_VISION_TOKENS_SIDE)
