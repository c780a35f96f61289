"""Paired embeddings of a data set, made by two encoders as they were loaded."""

from torch import Tensor, nn

from evaluators.data import SPLITS, Split
from evaluators.features.design_inputs import DesignInputs
from evaluators.superfuse.embeddings import Embeddings, SplitPairs, check_rows
from evaluators.training.loop import predict
from search_space.design.encoder import EncoderShape, EncoderSpec
from search_space.design.genotype import FusionPoint, Genotype
from search_space.encoders.features import Feature
from search_space.modality import Modality

MAX_TOKENS = 512


def encode(
    inputs: DesignInputs,
    encoders: tuple[EncoderSpec, EncoderSpec],
    shapes: tuple[EncoderShape, EncoderShape],
    least: int,
) -> Embeddings:
    """A data set as a text and a vision encoder read them: their last layers' means.

    Padding is left out of a text's mean. The features are kept on disk, so they are made once.
    Raises DataError for fewer than `least` training rows, and what making features raises.
    """
    text, vision = encoders
    genotype = Genotype(
        text.name,
        vision.name,
        min(MAX_TOKENS, shapes[0].max_tokens),
        (FusionPoint(shapes[0].depth, shapes[1].depth),),
        text_pooling="mean",
        vision_pooling="mean",
    )
    real: dict[Split, SplitPairs] = {}
    for split in SPLITS:
        kept = inputs.kept(genotype, split)
        first, second = (predict(_Mean(each.modality), kept).cpu() for each in encoders)
        real[split] = SplitPairs(first, second, kept.labels)
    check_rows(inputs.data.name, real, least)
    name = f"{inputs.data.name}, by {text.name} and {vision.name}"
    return Embeddings(name, inputs.data.classes, real)


class _Mean(nn.Module):
    """The mean of one modality's last layer, in the place of a fusion: (B, D)."""

    def __init__(self, modality: Modality) -> None:
        super().__init__()
        self._modality = modality

    def forward(self, features: dict[Feature, Tensor], mask: Tensor | None) -> Tensor:
        (found,) = (
            kept for feature, kept in features.items() if feature.modality == self._modality
        )
        return found
