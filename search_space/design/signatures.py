"""What fusion operators take of each modality and give back, and what a fusion point so reads."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from search_space.design.encoder import MODALITIES, Modality
from search_space.design.genotype import FusionPoint, Genotype, Operator


@dataclass(frozen=True)
class Signature:
    """What an operator takes and gives, with B the batch, N its width.

    tokens: modalities that it takes as tokens (B, S, N); the others it takes pooled, (B, N).
    gives: of which modalities it gives tokens, each to be pooled and all concatenated; of none
    where it gives one vector by itself.
    equal_widths: whether the vectors that it takes must be equally wide.
    needs: modalities without which it has no meaning. most: how many it can fuse.
    """

    tokens: tuple[Modality, ...] = ()
    gives: tuple[Modality, ...] = ()
    equal_widths: bool = False
    needs: tuple[Modality, ...] = ()
    most: int = len(MODALITIES)

    def fuses(self, modalities: Collection[Modality]) -> bool:
        """Whether it can fuse all of these at once."""
        return set(self.needs) <= set(modalities) and len(modalities) <= self.most


_BOTH: tuple[Modality, ...] = ("text", "vision")

SIGNATURES: Mapping[Operator, Signature] = {
    "concatenation": Signature(),
    "product": Signature(equal_widths=True, most=2),
    "tensor": Signature(),
    "gated": Signature(equal_widths=True),
    "cross-attention": Signature(_BOTH, ("text",), needs=_BOTH, most=2),
    "sum": Signature(equal_widths=True),
    "low-rank-tensor": Signature(equal_widths=True),
    "bilinear": Signature(equal_widths=True, most=2),
    "cross-attention-vision": Signature(_BOTH, ("vision",), needs=_BOTH, most=2),
    "cross-attention-both": Signature(_BOTH, _BOTH, needs=_BOTH, most=2),
    "single-sequence": Signature(MODALITIES, ("text",), needs=("text",)),
    "prefix": Signature(("text",), ("text",), needs=_BOTH, most=2),
    "bottleneck": Signature(MODALITIES, MODALITIES),
}


def fuses_tokens(genotype: Genotype, point: FusionPoint, modality: Modality) -> bool:
    """Whether this modality meets others as tokens here: in the operator or in blocks before."""
    taken = modality in SIGNATURES[point.operator].tokens
    return taken or genotype.attends_over_tokens(point)


def pools(point: FusionPoint, modality: Modality) -> bool:
    """Whether this modality is pooled here, be it before the operator or after."""
    signature = SIGNATURES[point.operator]
    return modality not in signature.tokens or modality in signature.gives


def reads_tokens(genotype: Genotype, point: FusionPoint, modality: Modality) -> bool:
    """Whether this point reads the tokens of this modality's tap, not what the trunk pools.

    To fuse them, or to pool them by attention, which the fusion learns.
    """
    return genotype.pooling(modality) == "attention" or fuses_tokens(genotype, point, modality)


def given(genotype: Genotype, point: FusionPoint) -> tuple[Modality, ...]:
    """Of which of the design's modalities the operator gives tokens here, in its order."""
    return tuple(m for m in SIGNATURES[point.operator].gives if m in genotype.encoders)
