"""What a fusion reads from a trunk: named tensors at named taps.

A trunk gives features, a fusion takes them; whoever stands between the two may keep them. So a
design on frozen trunks can be trained from stored features, by the same code that runs whole.
"""

from dataclasses import dataclass
from typing import Literal

from search_space.design.encoder import EncoderShape
from search_space.design.genotype import FusionPoint, Genotype
from search_space.design.reading import reads_tokens
from search_space.design.rules import Shapes, pooled_side
from search_space.modality import Modality

Form = Literal["cls", "mean", "max", "pooler", "tokens", "grid"]


@dataclass(frozen=True, order=True)
class Feature:
    """One tensor of one tap.

    Forms, with B the batch, C the tap's width:
    cls (B, C) the class token; mean, max (B, C) over tokens or cells, padding left out;
    pooler (B, C) the text encoder's own pooler; grid (B, C, H, W) the whole feature map;
    tokens (B, L, C): for text all L tokens, for vision the class token where there is one and
    the map average-pooled to at most 7x7 cells, for audio at most 49 time steps.
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


def feature_at(
    genotype: Genotype, point: FusionPoint, modality: Modality, shapes: Shapes
) -> Feature:
    """What this point reads from the trunk of a modality that the design has."""
    tap, pooling = point.tap(modality), genotype.pooling(modality)
    if reads_tokens(genotype, point, modality):
        return Feature(modality, tap, "tokens")
    assert pooling != "attention", "whose tokens are read"
    if pooling == "conv-max":
        return Feature(modality, tap, "grid")
    if pooling == "pooler" and tap != shapes[genotype.encoders[modality]].depth:
        pooling = "cls"  # the pooler belongs to the last layer
    return Feature(modality, tap, pooling)


def read_at(genotype: Genotype, point: FusionPoint, shapes: Shapes) -> list[Feature]:
    """What this point reads, a feature a modality, in the order of the design's encoders."""
    return [feature_at(genotype, point, modality, shapes) for modality in genotype.encoders]


def features_of(genotype: Genotype, shapes: Shapes) -> tuple[Feature, ...]:
    """Everything that the design reads from its trunks, each feature once."""
    read = {f for point in genotype.points for f in read_at(genotype, point, shapes)}
    return tuple(sorted(read))


def map_tokens(shape: EncoderShape, tap: int) -> int:
    """How many tokens the form "tokens" of this tap has; of a picture's or a sound's encoder."""
    rows, columns = shape.token_grid(tap)
    return rows * columns + shape.has_class_token


def fused_tokens(genotype: Genotype, point: FusionPoint, modality: Modality, shapes: Shapes) -> int:
    """How many tokens of a modality reach the operator, or attention before it, at this point.

    Where the point pools the modality first, as many as it pools.
    """
    if modality == "text":
        return genotype.text_tokens
    shape = shapes[genotype.encoders[modality]]
    side = pooled_side(genotype, point, shapes) if modality == "vision" else 0
    if side:
        return side * side + shape.has_class_token
    return map_tokens(shape, point.tap(modality))
