"""What a fusion point reads of each modality, and of which it gives tokens."""

from search_space.design.genotype import FusionPoint, Genotype
from search_space.modality import Modality
from search_space.operators.registry import operator_of, origins


def fuses_tokens(genotype: Genotype, point: FusionPoint, modality: Modality) -> bool:
    """Whether this modality meets others as tokens here: in the operator or in blocks before."""
    taken = modality in operator_of(point.operator).signature.tokens
    return taken or genotype.attends_over_tokens(point)


def pools(point: FusionPoint, modality: Modality) -> bool:
    """Whether this modality is pooled here, be it before the operator or after."""
    signature = operator_of(point.operator).signature
    return modality not in signature.tokens or modality in signature.gives


def reads_tokens(genotype: Genotype, point: FusionPoint, modality: Modality) -> bool:
    """Whether this point reads the tokens of this modality's tap, not what the trunk pools.

    To fuse them, or to pool them by attention, which the fusion learns.
    """
    return genotype.pooling(modality) == "attention" or fuses_tokens(genotype, point, modality)


def plugin_key(genotype: Genotype) -> dict[str, dict[str, str]]:
    """Return what a content key holds of the plugins whose operators a design has.

    Package and version by operator; empty for a design of built-in operators.
    """
    found = origins(point.operator for point in genotype.points)
    return {"plugins": found} if found else {}


def given(genotype: Genotype, point: FusionPoint) -> tuple[Modality, ...]:
    """Of which of the design's modalities the operator gives tokens here, in its order."""
    return tuple(m for m in operator_of(point.operator).signature.gives if m in genotype.encoders)
