"""The search space: decisions that a sampler makes, and the design that they spell."""

import itertools
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

from search_space.design.encoder import EncoderShape, EncoderSpec
from search_space.design.genotype import (
    ALL_IMAGE_TOKENS,
    NO_ADAPTERS,
    AttentionOver,
    AudioPooling,
    FusionPoint,
    Genotype,
    Precision,
    TextPooling,
    VisionPooling,
)
from search_space.design.rules import (
    branch_widths,
    canonical,
    fewest_image_tokens,
    max_width,
    violations,
)
from search_space.modality import MODALITIES, Modality
from search_space.operators.operator import Operator
from search_space.operators.registry import operator_of

Choice = str | int
MAX_SAMPLE_ATTEMPTS = 10_000
NO_ENCODER = "none"
"""The choice of a design that does without an optional modality."""
_AT_REST: dict[str, Choice | None] = {
    "text_encoder": None,
    "vision_encoder": None,
    "audio_encoder": None,
    "text_tokens": 0,
    "image_size": 0,
    "image_tokens": ALL_IMAGE_TOKENS,
    "image_merging": 0,
    "lora_rank": NO_ADAPTERS,
    "attention_over": "pooled",
    "text_pooling": "cls",
    "vision_pooling": "mean",
    "audio_pooling": "mean",
}
"""What a design says where its space does not ask."""


@dataclass(frozen=True)
class Decision:
    """One question that is asked for every design: a name and the answers it allows.

    "integer" answers are a range without gaps and in order; "categorical" ones are listed.
    """

    name: str
    kind: Literal["categorical", "integer"]
    choices: tuple[Choice, ...]


@dataclass(frozen=True)
class SearchSpace:
    """All designs over some encoders, as a fixed-length vector of choices.

    Every decision is asked every time; those that a design has no use for (the taps of a third
    fusion point in a design with two) collapse in `decode`. Taps are asked on the scale of the
    deepest encoder and scaled in proportion for a shallower one. Over encoders of one modality
    alone, what is about the others or about fusing them is not asked. Of an `optional` modality it
    is a choice, too, to do without. With `image_sizes` every vision encoder is there once for each
    of them, and its size is a decision of its own. With `image_tokens` so is how many tokens of a
    picture meet the others; more than a fusion point has are read as those that it has. With
    `image_merging` every ViT is there once for each number of token pairs that its layers merge;
    more than its first layer can merge are read as the most that is offered to it, and an encoder
    that merges none stays as it is. With
    `lora_ranks` so is the rank of the adapters that text and vision trunks are trained with.
    """

    name: str
    encoders: tuple[EncoderSpec, ...]
    shapes: dict[str, EncoderShape]
    text_tokens: tuple[int, ...]
    fusion_points: tuple[int, int]
    operators: tuple[Operator, ...]
    widths: tuple[int, ...]
    attention_blocks: tuple[int, int]
    attention_over: tuple[AttentionOver, ...]
    text_poolings: tuple[TextPooling, ...]
    vision_poolings: tuple[VisionPooling, ...]
    precisions: tuple[Precision, ...]
    audio_poolings: tuple[AudioPooling, ...] = ("mean",)
    optional: tuple[Modality, ...] = ()
    image_sizes: tuple[int, ...] = ()
    image_tokens: tuple[int, ...] = ()
    image_merging: tuple[int, ...] = ()
    lora_ranks: tuple[int, ...] = ()

    def encoders_of(self, modality: Modality) -> tuple[str, ...]:
        """Names of the encoders of a modality, in the order given."""
        return tuple(e.name for e in self.encoders if e.modality == modality)

    @cached_property
    def text_encoders(self) -> tuple[str, ...]:
        """Names of the text encoders, in the order given."""
        return self.encoders_of("text")

    @cached_property
    def vision_encoders(self) -> tuple[str, ...]:
        """Names of the vision encoders, in the order given."""
        return self.encoders_of("vision")

    @cached_property
    def audio_encoders(self) -> tuple[str, ...]:
        """Names of the audio encoders, in the order given."""
        return self.encoders_of("audio")

    @cached_property
    def modalities(self) -> tuple[Modality, ...]:
        """Those that designs of this space read; all do, but for optional ones."""
        return tuple(m for m in MODALITIES if self.encoders_of(m))

    @cached_property
    def needed(self) -> tuple[Modality, ...]:
        """Those that every design of this space reads."""
        return tuple(m for m in self.modalities if m not in self.optional)

    def holds(self, genotype: Genotype) -> bool:
        """Whether a design has the modalities of this space; any other is a reference to it."""
        found = set(genotype.encoders)
        return bool(found) and set(self.needed) <= found <= set(self.modalities)

    def encoder(self, name: str) -> EncoderSpec:
        """The encoder of this name. Raises KeyError."""
        return {e.name: e for e in self.encoders}[name]

    @cached_property
    def decisions(self) -> tuple[Decision, ...]:
        """The questions, in the order of the vector."""
        asked = [
            *(Decision(f"{m}_encoder", "categorical", self._offered(m)) for m in MODALITIES),
            Decision("text_tokens", "categorical", self.text_tokens),
            Decision("image_size", "categorical", self.image_sizes),
            Decision("image_tokens", "categorical", self.image_tokens),
            Decision("image_merging", "categorical", self.image_merging),
            _integers("fusion_points", *self.fusion_points),
        ]
        for k in range(1, self.fusion_points[1] + 1):
            asked += [
                *(_integers(f"{m}_tap_{k}", 1, self._scale(m)) for m in MODALITIES),
                Decision(f"operator_{k}", "categorical", self.operators),
                Decision(f"width_{k}", "categorical", self.widths),
            ]
        asked += [
            _integers("attention_blocks", *self.attention_blocks),
            Decision("attention_over", "categorical", self.attention_over),
            Decision("text_pooling", "categorical", self.text_poolings),
            Decision("vision_pooling", "categorical", self.vision_poolings),
            Decision("audio_pooling", "categorical", self.audio_poolings),
            Decision("precision", "categorical", self.precisions),
            Decision("lora_rank", "categorical", self.lora_ranks),
        ]
        return tuple(decision for decision in asked if self._is_asked(decision.name))

    def _offered(self, modality: Modality) -> tuple[str, ...]:
        named = tuple(dict.fromkeys(e.base for e in self.encoders if e.modality == modality))
        return (*named, NO_ENCODER) if modality in self.optional else named

    def _is_asked(self, name: str) -> bool:
        if name == "image_size":
            return bool(self.image_sizes) and "vision" in self.modalities
        if name == "image_tokens":
            fused = "vision" in self.modalities and len(self.modalities) > 1
            return bool(self.image_tokens) and fused
        if name == "image_merging":
            return bool(self.image_merging) and "vision" in self.modalities
        if name == "lora_rank":
            return bool(self.lora_ranks)
        for modality in MODALITIES:
            if name.startswith(f"{modality}_"):
                return modality in self.modalities
        return len(self.modalities) > 1 or not name.startswith(("operator_", "attention_over"))

    @cached_property
    def size(self) -> int:
        """How many vectors there are; designs are fewer, since dead choices collapse."""
        return math.prod(len(decision.choices) for decision in self.decisions)

    @cached_property
    def _variants(self) -> dict[tuple[str, int], dict[int, str]]:
        """Vision encoders by what their names have in common and the size of their pictures.

        Each is a name for every number of token pairs that a layer merges.
        """
        found: dict[tuple[str, int], dict[int, str]] = {}
        for spec in self.encoders:
            if spec.modality == "vision":
                size = self.shapes[spec.name].image_size if self.image_sizes else 0
                found.setdefault((spec.base, size), {})[spec.merging] = spec.name
        return found

    def _variant(self, base: str, size: int, merging: int) -> str:
        """The vision encoder of this kind that merges so many pairs, or the next fewer."""
        there = self._variants[base, size]
        fewer = [pairs for pairs in there if pairs <= merging]
        return there[max(fewer) if fewer else min(there)]

    def _base(self, name: str | None) -> str:
        return NO_ENCODER if name is None else self.encoder(name).base

    def _merging(self, genotype: Genotype) -> int:
        return self.encoder(str(genotype.vision_encoder)).merging

    def _size(self, genotype: Genotype) -> int:
        return self.shapes[str(genotype.vision_encoder)].image_size

    def _scale(self, modality: Modality) -> int:
        """Taps of this modality's deepest encoder."""
        return max((self.shapes[n].depth for n in self.encoders_of(modality)), default=0)

    def decode(self, vector: Sequence[Choice]) -> Genotype:
        """The canonical design that a vector of choices spells.

        Raises ValueError for a vector of the wrong length or with a choice that is not offered.
        The design may still violate a rule of the trunks: see `violations`.
        """
        if len(vector) != len(self.decisions):
            raise ValueError(
                f"a vector of {len(vector)} choices: {self.name} asks {len(self.decisions)}"
            )
        said: dict[str, Any] = dict(_AT_REST)
        for decision, choice in zip(self.decisions, vector, strict=True):
            if choice not in decision.choices:
                raise ValueError(
                    f"{decision.name} = {choice!r}: space {self.name} offers "
                    f"{', '.join(map(str, decision.choices))}"
                )
            # The decision's own value: an equal 32.0 or numpy integer would change the key.
            said[decision.name] = decision.choices[decision.choices.index(choice)]
        for modality in self.optional:
            if said[f"{modality}_encoder"] == NO_ENCODER:
                said[f"{modality}_encoder"] = None
        if said["vision_encoder"] is not None and (self.image_sizes or self.image_merging):
            said["vision_encoder"] = self._variant(
                said["vision_encoder"], said["image_size"], said["image_merging"]
            )
        text = said["text_encoder"]
        points = tuple(
            FusionPoint(
                operator=said.get(f"operator_{k}", "concatenation"),
                width=said[f"width_{k}"],
                **{
                    f"{m}_tap": self._tap(said.get(f"{m}_tap_{k}", 0), said[f"{m}_encoder"], m)
                    for m in MODALITIES
                },
            )
            for k in range(1, said["fusion_points"] + 1)
        )
        design = Genotype(
            text_encoder=text,
            vision_encoder=said["vision_encoder"],
            audio_encoder=said["audio_encoder"],
            text_tokens=min(said["text_tokens"], self.shapes[text].max_tokens) if text else 0,
            points=points,
            attention_blocks=said["attention_blocks"],
            attention_over=said["attention_over"],
            text_pooling=said["text_pooling"],
            vision_pooling=said["vision_pooling"],
            audio_pooling=said["audio_pooling"],
            precision=said["precision"],
            lora_rank=said["lora_rank"],
        )
        if said["image_tokens"]:
            fewest = fewest_image_tokens(canonical(design, self.shapes), self.shapes)
            design = replace(design, image_tokens=min(said["image_tokens"], fewest))
        return self._with_usable_widths(canonical(design, self.shapes))

    def encode(self, genotype: Genotype) -> tuple[Choice, ...]:
        """The vector of a design of this space; `decode` gives the same design back.

        Raises ValueError naming the first property that the space does not offer.
        """
        if not self.holds(genotype):
            which = "a unimodal" if len(genotype.encoders) < len(self.modalities) == 2 else "this"
            raise ValueError(f"{which} design is a reference, not a point of space {self.name}")
        # Designs with fewer points than the space asks for have some that coincide.
        least = self.fusion_points[0]
        points = genotype.points + genotype.points[-1:] * (least - len(genotype.points))
        said: dict[str, Choice] = {
            **{f"{m}_encoder": self._base(genotype.encoders.get(m)) for m in self.modalities},
            **({"text_tokens": self._tokens_choice(genotype)} if genotype.text_encoder else {}),
            **({"image_size": self._size(genotype)} if genotype.vision_encoder else {}),
            "image_tokens": genotype.image_tokens,
            **({"image_merging": self._merging(genotype)} if genotype.vision_encoder else {}),
            "fusion_points": len(points),
            "attention_blocks": genotype.attention_blocks,
            "attention_over": genotype.attention_over,
            "text_pooling": genotype.text_pooling,
            "vision_pooling": genotype.vision_pooling,
            "audio_pooling": genotype.audio_pooling,
            "precision": genotype.precision,
            "lora_rank": genotype.lora_rank,
        }
        for k, point in enumerate(points, start=1):
            for modality, name in genotype.encoders.items():
                tap = self._tap_choice(point.tap(modality), name, modality)
                said[f"{modality}_tap_{k}"] = tap
            said[f"operator_{k}"] = point.operator
            said[f"width_{k}"] = point.width
        for spelling in self._spellings(said):
            if self.decode(spelling) == genotype:
                return spelling
        self.decode([said.get(d.name, d.choices[0]) for d in self.decisions])
        raise ValueError(f"{genotype.describe()} is not a canonical design of space {self.name}")

    def _spellings(self, said: dict[str, Choice]) -> Iterator[tuple[Choice, ...]]:
        """Vectors that say this; where a dead choice's resting value is not offered, any other."""
        offered: list[tuple[Choice, ...]] = []
        for decision in self.decisions:
            choice = said.get(decision.name, decision.choices[0])
            rests = decision.name in (
                "attention_over",
                "image_tokens",
                "image_merging",
                "lora_rank",
            )
            rests = rests or decision.name.endswith("_pooling")
            rests = rests or (decision.name.startswith("operator_") and choice == "concatenation")
            if choice in decision.choices:
                offered.append((choice,))
            elif rests:
                offered.append(decision.choices)
            else:
                return
        yield from itertools.product(*offered)

    def violations(self, genotype: Genotype) -> tuple[str, ...]:
        """Why this design cannot be built on these encoders, in words; empty when it can."""
        return violations(genotype, self.shapes)

    def sample(self, rng: random.Random) -> Genotype:
        """A design that can be built, choices drawn uniformly. Raises ValueError if none is."""
        for _ in range(MAX_SAMPLE_ATTEMPTS):
            design = self.decode([rng.choice(decision.choices) for decision in self.decisions])
            if not self.violations(design):
                return design
        raise ValueError(f"space {self.name}: no buildable design in {MAX_SAMPLE_ATTEMPTS} draws")

    def _tap(self, choice: int, encoder: str | None, modality: Modality) -> int:
        if encoder is None:
            return 0
        return math.ceil(choice * self.shapes[encoder].depth / self._scale(modality))

    def _tap_choice(self, tap: int, encoder: str, modality: Modality) -> int:
        return (tap - 1) * self._scale(modality) // self.shapes[encoder].depth + 1

    def _tokens_choice(self, genotype: Genotype) -> int:
        longest = self.shapes[str(genotype.text_encoder)].max_tokens
        same = [t for t in self.text_tokens if min(t, longest) == genotype.text_tokens]
        return same[0] if same else genotype.text_tokens

    def _with_usable_widths(self, design: Genotype) -> Genotype:
        """Widths that an operator could never use are read as the nearest one that it can."""
        positive = sorted(width for width in self.widths if width > 0)
        points = []
        for point in design.points:
            width, signature = point.width, operator_of(point.operator).signature
            if signature.needs_width:
                most = max_width(point.operator, max(2, len(design.encoders)))
                usable = [w for w in positive if w <= most]
                if usable and not 0 < width <= most:
                    width = usable[-1]
            elif signature.equal_widths and width == 0 and positive:
                reached = branch_widths(design, point, self.shapes).values()
                width = positive[0] if len(set(reached)) > 1 else 0
            points.append(replace(point, width=width))
        return canonical(replace(design, points=tuple(points)), self.shapes)


def _integers(name: str, low: int, high: int) -> Decision:
    return Decision(name, "integer", tuple(range(low, high + 1)))
