"""What a fusion design is: a frozen value that says which network to build and nothing else.

Training configuration, data and device are not part of a design; they belong to the evaluations of
it.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, Literal, get_args

from search_space.modality import MODALITIES, Modality
from search_space.operators.operator import Operator

AttentionOver = Literal["pooled", "tokens"]
TextPooling = Literal["cls", "mean", "pooler", "attention"]
VisionPooling = Literal["cls", "mean", "max", "conv-max", "attention"]
AudioPooling = Literal["mean", "max", "attention"]
Pooling = TextPooling | VisionPooling | AudioPooling
Precision = Literal["fp32", "fp16", "int8", "int8-dynamic"]

ATTENTION_OVER: tuple[AttentionOver, ...] = get_args(AttentionOver)
TEXT_POOLINGS: tuple[TextPooling, ...] = get_args(TextPooling)
VISION_POOLINGS: tuple[VisionPooling, ...] = get_args(VisionPooling)
AUDIO_POOLINGS: tuple[AudioPooling, ...] = get_args(AudioPooling)
PRECISIONS: tuple[Precision, ...] = get_args(Precision)

MAX_FUSION_POINTS = 3
MAX_ATTENTION_BLOCKS = 8
MIN_TEXT_TOKENS, MAX_TEXT_TOKENS = 16, 512
ALL_IMAGE_TOKENS = 0
IMAGE_TOKENS = (ALL_IMAGE_TOKENS, 1, 4, 9, 16, 25, 36, 49)
"""Tokens that a picture is pooled to, a square grid, before it meets others as tokens; 0 leaves
all that its encoder gives."""
NO_ADAPTERS = 0
"""The rank of a design whose trunks carry no adapters."""


@dataclass(frozen=True, order=True)
class FusionPoint:
    """Where and how the trunks meet.

    `text_tap`, `vision_tap` and `audio_tap` count layers from 1; 0 means that the design is without
    this modality. `width` is the number of features that the operator works in (concatenation: that
    its result is projected to); 0 leaves the trunks' own widths.
    """

    text_tap: int
    vision_tap: int
    operator: Operator = "concatenation"
    width: int = 0
    audio_tap: int = 0

    def tap(self, modality: Modality) -> int:
        """The layer of this modality's trunk; 0 where the design is without it."""
        return {"text": self.text_tap, "vision": self.vision_tap, "audio": self.audio_tap}[modality]

    def as_json(self) -> dict[str, Any]:
        """The point as plain JSON values, without the tap of a sound that is not read."""
        return {k: v for k, v in asdict(self).items() if k != "audio_tap" or v}


@dataclass(frozen=True)
class Genotype:
    """One design: up to an encoder a modality, the points at which they are fused, what follows.

    Points stand in ascending order and each taps every trunk; attention blocks run on the last one.
    With one encoder alone the design is unimodal and its points fuse nothing. `image_tokens`, one
    of IMAGE_TOKENS, counts the tokens of a picture that meet other modalities as tokens. A class
    token comes on top: it is not pooled. `lora_rank` is the rank of the adapters with which the
    last layers of text and vision trunks are trained (`search_space.network.adapters`); 0 for
    none. They are merged into the weights, so the graph is that of the design without them.
    """

    text_encoder: str | None
    vision_encoder: str | None
    text_tokens: int
    points: tuple[FusionPoint, ...]
    attention_blocks: int = 0
    attention_over: AttentionOver = "pooled"
    text_pooling: TextPooling = "cls"
    vision_pooling: VisionPooling = "mean"
    precision: Precision = "fp32"
    audio_encoder: str | None = None
    audio_pooling: AudioPooling = "mean"
    image_tokens: int = ALL_IMAGE_TOKENS
    lora_rank: int = NO_ADAPTERS

    def as_json(self) -> dict[str, Any]:
        """The design as plain JSON values; `from_json` is its inverse.

        Without an audio encoder it says nothing of audio, with all image tokens nothing of these,
        and without adapters nothing of a rank, as designs did before there were any of them.
        """
        said = {**asdict(self), "points": [point.as_json() for point in self.points]}
        if self.audio_encoder is None:
            del said["audio_encoder"], said["audio_pooling"]
        if self.image_tokens == ALL_IMAGE_TOKENS:
            del said["image_tokens"]
        if self.lora_rank == NO_ADAPTERS:
            del said["lora_rank"]
        return said

    @staticmethod
    def from_json(fields: Mapping[str, Any]) -> "Genotype":
        """The design that `as_json` wrote. Raises TypeError for missing or unknown fields."""
        if "points" not in fields:
            raise TypeError("a genotype without 'points'")
        points = tuple(FusionPoint(**point) for point in fields["points"])
        return Genotype(**{**fields, "points": points})

    @cached_property
    def key(self) -> str:
        """SHA-256 (hex) of the canonical JSON form: equal designs have equal keys."""
        canonical = json.dumps(self.as_json(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    @property
    def without_adapters(self) -> "Genotype":
        """The design whose graph is this one's: adapters are merged before export."""
        return replace(self, lora_rank=NO_ADAPTERS) if self.lora_rank else self

    @cached_property
    def encoders(self) -> dict[Modality, str]:
        """The names of the encoders that there are, by modality, in the order of MODALITIES."""
        names = (self.text_encoder, self.vision_encoder, self.audio_encoder)
        return {m: name for m, name in zip(MODALITIES, names, strict=True) if name is not None}

    def pooling(self, modality: Modality) -> Pooling:
        """How this modality's features become one vector."""
        poolings = (self.text_pooling, self.vision_pooling, self.audio_pooling)
        return poolings[MODALITIES.index(modality)]

    def deepest_tap(self, modality: Modality) -> int:
        """Layers of this modality's trunk that are run; 0 for a design without it."""
        return max(point.tap(modality) for point in self.points)

    @property
    def is_fused(self) -> bool:
        """Whether the design reads several modalities."""
        return len(self.encoders) > 1

    def attends_over_tokens(self, point: FusionPoint) -> bool:
        """Whether attention blocks run over all token sequences at this point."""
        return (
            self.attention_blocks > 0
            and self.attention_over == "tokens"
            and point == self.points[-1]
        )

    def taps(self, point: FusionPoint) -> str:
        """The point's taps, for example `12x16`: of text, of vision, and of sound if it is read."""
        told = MODALITIES if self.audio_encoder else MODALITIES[:2]
        return "x".join(str(point.tap(modality)) for modality in told)

    def describe(self) -> str:
        """One line for people, for example `bert[12] + mobilenet[16] concatenation, 64 tokens`."""
        points = ", ".join(
            f"{self.taps(point)} {point.operator}" + (f"->{point.width}" if point.width else "")
            for point in self.points
        )
        parts = [" + ".join(self.encoders.values()), points]
        if self.attention_blocks:
            parts.append(f"{self.attention_blocks} attention over {self.attention_over}")
        if self.text_encoder:
            parts.append(f"{self.text_tokens} tokens ({self.text_pooling})")
        if self.vision_encoder:
            if self.image_tokens:
                parts.append(f"{self.image_tokens} image token{'s' * (self.image_tokens > 1)}")
            parts.append(f"vision {self.vision_pooling}")
        if self.audio_encoder:
            parts.append(f"audio {self.audio_pooling}")
        if self.lora_rank:
            parts.append(f"LoRA rank {self.lora_rank}")
        return "; ".join([*parts, self.precision])
