"""What a fusion point reads of each modality, and of which it gives tokens."""

from search_space.design.genotype import FusionPoint, Genotype
from search_space.modality import Modality
from search_space.operators.definitions import FUSION_OPERATORS


def fuses_tokens(genotype: Genotype, point: FusionPoint, modality: Modality) -> bool:
    """Whether this modality meets others as tokens here: in the operator or in blocks before."""
    taken = modality in FUSION_OPERATORS[point.operator].signature.tokens
    return taken or genotype.attends_over_tokens(point)


def pools(point: FusionPoint, modality: Modality) -> bool:
    """Whether this modality is pooled here, be it before the operator or after."""
    signature = FUSION_OPERATORS[point.operator].signature
    return modality not in signature.tokens or modality in signature.gives


def reads_tokens(genotype: Genotype, point: FusionPoint, modality: Modality) -> bool:
    """Whether this point reads the tokens of this modality's tap, not what the trunk pools.

    To fuse them, or to pool them by attention, which the fusion learns.
    """
    return genotype.pooling(modality) == "attention" or fuses_tokens(genotype, point, modality)


def given(genotype: Genotype, point: FusionPoint) -> tuple[Modality, ...]:
    """Of which of the design's modalities the operator gives tokens here, in its order."""
    return tuple(
        m for m in FUSION_OPERATORS[point.operator].signature.gives if m in genotype.encoders
    )
