"""Which layers of a design's trunks carry low-rank adapters, and what ranks they take."""

from collections.abc import Mapping

from search_space.design.encoder import EncoderShape
from search_space.design.genotype import NO_ADAPTERS, Genotype
from search_space.modality import Modality

ADAPTED: tuple[Modality, ...] = ("text", "vision")
"""Modalities whose trunks take adapters, where their encoder does."""
ONE_LAYER_OF = 3
"""One of so many layers that a design runs is adapted, rounded up: the last ones."""

Shapes = Mapping[str, EncoderShape]


def adapted_layers(genotype: Genotype, modality: Modality, shapes: Shapes) -> range:
    """Layers of a trunk that carry adapters, counted from 1 as taps are; empty where none does.

    They are the last third of those that the design runs, but never the first layer: what the
    layers before them give is a tap, which is computed once over a data set and kept.
    """
    name = genotype.encoders.get(modality)
    if genotype.lora_rank == NO_ADAPTERS or modality not in ADAPTED or name is None:
        return range(0)
    if not shapes[name].adapts:
        return range(0)
    return _last_layers(genotype.deepest_tap(modality))


def _last_layers(deepest: int) -> range:
    count = min(-(-deepest // ONE_LAYER_OF), deepest - 1)
    return range(deepest - count + 1, deepest + 1)


def adapts(genotype: Genotype, shapes: Shapes) -> bool:
    """Whether any layer of the design's trunks carries adapters."""
    return any(adapted_layers(genotype, modality, shapes) for modality in genotype.encoders)


def greatest_rank(shape: EncoderShape, layers: range) -> int:
    """The width of the narrowest feature among these layers and what they read."""
    return min(shape.widths[layers.start - 2 : layers.stop - 1])


def greatest_rank_of(shape: EncoderShape) -> int:
    """The same of an encoder that is tapped at its end; 0 for one that takes no adapters."""
    layers = _last_layers(shape.depth)
    return greatest_rank(shape, layers) if shape.adapts and layers else 0


def rank_violations(genotype: Genotype, shapes: Shapes) -> list[str]:
    """Why the design's trunks cannot carry adapters of its rank, in words; empty if they can."""
    rank, found = genotype.lora_rank, []
    if rank < 0:
        return [f"LoRA rank {rank}: give 0 (no adapters) or more"]
    if rank and not adapts(genotype, shapes):
        return [
            f"LoRA rank {rank}: no layer that the design runs takes adapters (of text and vision "
            "encoders of transformers every layer but the first does): must be 0"
        ]
    for modality, name in genotype.encoders.items():
        if layers := adapted_layers(genotype, modality, shapes):
            most = greatest_rank(shapes[name], layers)
            if rank > most:
                found.append(
                    f"LoRA rank {rank}: the last layers of {name} are {most} features wide at the "
                    f"narrowest: choose a rank up to {most}"
                )
    return found
