"""What a fusion design is: a frozen value that says which network to build and nothing else.

Training regime, data and device are not part of a design; they belong to the evaluations of it.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal, get_args

Operator = Literal[
    "concatenation",
    "product",
    "tensor",
    "gated",
    "cross-attention",
    "sum",
    "low-rank-tensor",
    "bilinear",
    "cross-attention-vision",
    "cross-attention-both",
    "single-sequence",
    "prefix",
    "bottleneck",
]
AttentionOver = Literal["pooled", "tokens"]
TextPooling = Literal["cls", "mean", "pooler", "attention"]
VisionPooling = Literal["cls", "mean", "max", "conv-max", "attention"]
Precision = Literal["fp32", "fp16", "int8", "int8-dynamic"]

OPERATORS: tuple[Operator, ...] = get_args(Operator)
ATTENTION_OVER: tuple[AttentionOver, ...] = get_args(AttentionOver)
TEXT_POOLINGS: tuple[TextPooling, ...] = get_args(TextPooling)
VISION_POOLINGS: tuple[VisionPooling, ...] = get_args(VisionPooling)
PRECISIONS: tuple[Precision, ...] = get_args(Precision)

MAX_FUSION_POINTS = 3
MAX_ATTENTION_BLOCKS = 8
MIN_TEXT_TOKENS, MAX_TEXT_TOKENS = 16, 512


@dataclass(frozen=True, order=True)
class FusionPoint:
    """Where and how the two trunks meet.

    `text_tap` and `vision_tap` count layers from 1; 0 means that the modality is absent, which
    only unimodal designs have. `width` is the number of features that the operator works in
    (concatenation: that its result is projected to); 0 leaves the trunks' own widths.
    """

    text_tap: int
    vision_tap: int
    operator: Operator = "concatenation"
    width: int = 0


@dataclass(frozen=True)
class Genotype:
    """One design: two encoders, the points at which they are fused, and what follows.

    Points stand in ascending order; attention blocks run on the last one. Without a vision
    encoder (or a text encoder) the design is unimodal and its one point taps one trunk.
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

    def as_json(self) -> dict[str, Any]:
        """The design as plain JSON values; `from_json` is its inverse."""
        return {**asdict(self), "points": [asdict(point) for point in self.points]}

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
    def deepest_text_tap(self) -> int:
        """Layers of the text trunk that are run; 0 without a text encoder."""
        return max(point.text_tap for point in self.points)

    @property
    def deepest_vision_tap(self) -> int:
        """Layers of the vision trunk that are run; 0 without a vision encoder."""
        return max(point.vision_tap for point in self.points)

    def attends_over_tokens(self, point: FusionPoint) -> bool:
        """Whether attention blocks run over both token sequences at this point."""
        return (
            self.attention_blocks > 0
            and self.attention_over == "tokens"
            and point == self.points[-1]
        )

    def describe(self) -> str:
        """One line for people, for example `bert[12] + mobilenet[16] concatenation, 64 tokens`."""
        points = ", ".join(
            f"{point.text_tap}x{point.vision_tap} {point.operator}"
            + (f"->{point.width}" if point.width else "")
            for point in self.points
        )
        parts = [" + ".join(e for e in (self.text_encoder, self.vision_encoder) if e), points]
        if self.attention_blocks:
            parts.append(f"{self.attention_blocks} attention over {self.attention_over}")
        if self.text_encoder:
            parts.append(f"{self.text_tokens} tokens ({self.text_pooling})")
        if self.vision_encoder:
            parts.append(f"vision {self.vision_pooling}")
        return "; ".join([*parts, self.precision])
