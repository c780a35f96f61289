"""What fusion operators take of text and image and give back, and what a fusion point so reads."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from search_space.encoders import Modality
from search_space.genotype import FusionPoint, Genotype, Operator

Taken = Literal["vector", "tokens"]


@dataclass(frozen=True)
class Signature:
    """What an operator takes and gives, with B the batch, N its width.

    text, vision: pooled, as a "vector" (B, N), or as "tokens" (B, S, N).
    gives: of which modalities it gives tokens, each to be pooled and all concatenated; of none
    where it gives one vector by itself.
    equal_widths: whether the vectors that it takes must be equally wide.
    """

    text: Taken = "vector"
    vision: Taken = "vector"
    gives: tuple[Modality, ...] = ()
    equal_widths: bool = False

    def takes(self, modality: Modality) -> Taken:
        """How it takes this modality."""
        return self.text if modality == "text" else self.vision


SIGNATURES: Mapping[Operator, Signature] = {
    "concatenation": Signature(),
    "product": Signature(equal_widths=True),
    "tensor": Signature(),
    "gated": Signature(equal_widths=True),
    "cross-attention": Signature("tokens", "tokens", gives=("text",)),
    "sum": Signature(equal_widths=True),
    "low-rank-tensor": Signature(equal_widths=True),
    "bilinear": Signature(equal_widths=True),
    "cross-attention-vision": Signature("tokens", "tokens", gives=("vision",)),
    "cross-attention-both": Signature("tokens", "tokens", gives=("text", "vision")),
    "single-sequence": Signature("tokens", "tokens", gives=("text",)),
    "prefix": Signature("tokens", "vector", gives=("text",)),
    "bottleneck": Signature("tokens", "tokens", gives=("text", "vision")),
}


def fuses_tokens(genotype: Genotype, point: FusionPoint, modality: Modality) -> bool:
    """Whether this modality meets the other as tokens here: in the operator or in blocks before."""
    takes = SIGNATURES[point.operator].takes(modality)
    return takes == "tokens" or genotype.attends_over_tokens(point)


def pools(point: FusionPoint, modality: Modality) -> bool:
    """Whether this modality is pooled here, be it before the operator or after."""
    signature = SIGNATURES[point.operator]
    return signature.takes(modality) == "vector" or modality in signature.gives


def reads_tokens(genotype: Genotype, point: FusionPoint, modality: Modality) -> bool:
    """Whether this point reads the tokens of this modality's tap, not what the trunk pools.

    To fuse them, or to pool them by attention, which the fusion learns.
    """
    pooling = genotype.text_pooling if modality == "text" else genotype.vision_pooling
    return pooling == "attention" or fuses_tokens(genotype, point, modality)
