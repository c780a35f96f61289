"""How one protocol trains each design: its stage, its fidelity and its configurations."""

from collections.abc import Mapping
from dataclasses import dataclass

from evaluators.training.config import (
    ADAPTERS,
    ALONE,
    TUNED,
    Stage,
    TrainingConfig,
    TrainingProtocol,
)
from search_space.design.encoder import EncoderShape, EncoderSpec
from search_space.design.genotype import NO_ADAPTERS, FusionPoint, Genotype
from search_space.modality import Modality

ON_FROZEN = "fusion on frozen trunks"
ADAPTED = "fusion and adapters of rank {} on frozen trunks"
WHOLE = "whole network"


@dataclass(frozen=True)
class TrainingPlan:
    """A training protocol applied to designs over some encoders.

    `whole` is the most expensive rung: every design is trained whole after its fusion, whatever
    the protocol says. Encoders of `uninformative` modalities are not fine-tuned alone: there is
    nothing to learn.
    """

    protocol: TrainingProtocol
    encoders: Mapping[str, EncoderSpec]
    shapes: Mapping[str, EncoderShape]
    whole: bool = False
    uninformative: tuple[Modality, ...] = ()

    def specs(self, genotype: Genotype) -> list[EncoderSpec]:
        """The encoders that the design reads with."""
        return [self.encoders[name] for name in genotype.encoders.values()]

    def is_tuned(self, spec: EncoderSpec) -> bool:
        """Whether the encoder's trunk is fine-tuned alone before the first design is trained."""
        tuned = spec.modality in TUNED[self.protocol.trunks]
        return tuned and spec.modality not in self.uninformative

    def unimodal(self, spec: EncoderSpec) -> Genotype:
        """The unimodal design over a whole encoder, at the longest text that the data need.

        Pretrained text is pooled to its mean, which suits encoders trained for one use or another;
        as published it is the pooler's, which random weights take too.
        """
        shape = self.shapes[spec.name]
        if spec.modality == "vision":
            pooling = "cls" if shape.has_class_token else "mean"
            point = FusionPoint(0, shape.depth)
            return Genotype(None, spec.name, 0, (point,), vision_pooling=pooling)  # type: ignore[arg-type]
        if spec.modality == "audio":
            point = FusionPoint(0, 0, audio_tap=shape.depth)
            return Genotype(None, None, 0, (point,), audio_encoder=spec.name)
        point = FusionPoint(shape.depth, 0)
        pooling = "pooler" if shape.has_pooler else "mean" if shape.is_causal else "cls"
        if spec.weights == "pretrained" and self.protocol.by_stage is None:
            pooling = "mean"
        return Genotype(spec.name, None, min(512, shape.max_tokens), (point,), text_pooling=pooling)  # type: ignore[arg-type]

    def fidelity(self, genotype: Genotype) -> str:
        """How this design is trained: on frozen trunks, fusion alone or with adapters, or whole."""
        if self.adapts(genotype):
            return ADAPTED.format(genotype.lora_rank)
        return WHOLE if self.trains_whole(genotype) else ON_FROZEN

    def adapts(self, genotype: Genotype) -> bool:
        """Whether the design is trained with adapters; a rung higher it is trained whole."""
        return genotype.lora_rank != NO_ADAPTERS and not self.trains_whole(genotype)

    def changes_trunks(self, genotype: Genotype) -> bool:
        """Whether the trained design has trunks of its own, whose features are not kept."""
        return self.trains_whole(genotype) or self.adapts(genotype)

    def trains_whole(self, genotype: Genotype) -> bool:
        """Whether the design is trained whole, by the protocol or by the rung."""
        return self.whole or self.ends_whole(genotype)

    def ends_whole(self, genotype: Genotype) -> bool:
        """Whether the protocol itself trains this design whole."""
        at_the_end = self._stands_at_the_end(genotype)
        return self.protocol.trains_whole(self.stage(genotype), at_the_end)

    def stage(self, genotype: Genotype) -> Stage:
        """Where the design fuses."""
        if not genotype.is_fused:
            return ALONE[next(iter(genotype.encoders))]
        if self._stands_at_the_end(genotype):
            return "late"
        return "early" if len(genotype.points) == 1 else "intermediate"

    def _stands_at_the_end(self, genotype: Genotype) -> bool:
        """Late fusion: every tap is an encoder's own output, so the trunks stay frozen."""
        return all(
            point.tap(modality) == self.shapes[name].depth
            for point in genotype.points
            for modality, name in genotype.encoders.items()
        )

    def alone_config(self, spec: EncoderSpec) -> TrainingConfig:
        """How the encoder's trunk is fine-tuned alone."""
        return self.protocol.alone_config(spec.modality, spec.weights == "pretrained")

    def fusion_config(self, genotype: Genotype) -> TrainingConfig:
        """How the design's fusion and head are trained on features of frozen trunks."""
        return self.protocol.fusion_config(self._is_pretrained(genotype))

    def whole_config(self, genotype: Genotype) -> TrainingConfig:
        """How the design is trained whole."""
        return self.protocol.whole_config(self.stage(genotype), self._is_pretrained(genotype))

    def adapters_config(self) -> TrainingConfig:
        """How adapters are trained, together with fusion and head."""
        return ADAPTERS

    def _is_pretrained(self, genotype: Genotype) -> bool:
        return any(spec.weights == "pretrained" for spec in self.specs(genotype))
