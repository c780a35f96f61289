"""The network that a genotype spells: trunks, fusion, head."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import cast

import torch
from torch import Tensor, nn

from search_space.encoders import EncoderSpec, Modality
from search_space.features import Feature, features_of, text_feature, vision_feature
from search_space.genotype import FusionPoint, Genotype
from search_space.loading import load_trunk
from search_space.operators import OPERATOR_MODULES
from search_space.poolings import ConvMax, TokenPooling
from search_space.rules import (
    ATTENTION_HEADS,
    Shapes,
    branch_widths,
    fused_width,
    own_widths,
    violations,
)
from search_space.signatures import SIGNATURES, pools, reads_tokens
from search_space.trunks import Features

HEAD_WIDTHS = (512, 256)
HEAD_DROPOUT = 0.3


class AttentionBlock(nn.Module):
    """The attention block of arXiv 2511.21889: four heads, Linear, LayerNorm.

    Over one fused vector it has no residual, as published, and its softmax over a single key is
    1: it cannot attend. Over tokens a residual is added, without which a stack does not train.
    """

    def __init__(self, width: int, residual: bool) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, ATTENTION_HEADS, batch_first=True)
        self.linear = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)
        self.residual = residual

    def forward(self, states: Tensor, padding: Tensor | None = None) -> Tensor:
        """(B, S, C) to (B, S, C); `padding` (B, S) is True where a token is not to be read."""
        attended, _ = self.attention(
            states, states, states, key_padding_mask=padding, need_weights=False
        )
        mixed = self.linear(attended)
        normed: Tensor = self.norm(states + mixed if self.residual else mixed)
        return normed


class Branch(nn.Module):
    """One fusion point: features of both trunks to one vector.

    Order of operations: pooling of what the trunk did not pool and no attention reads, projection
    of each side, attention over tokens (if asked here), pooling of what the operator takes as a
    vector, operator, pooling of the tokens that it gives, projection of a concatenation, attention
    over the vector (if asked here), ReLU where the branch is projected or one of several.
    """

    def __init__(self, genotype: Genotype, point: FusionPoint, shapes: Shapes) -> None:
        super().__init__()
        self.text = text_feature(genotype, point, shapes)
        self.vision = vision_feature(genotype, point)
        self.over_tokens = genotype.attends_over_tokens(point)
        self.signature = SIGNATURES[point.operator]
        text, vision = branch_widths(genotype, point, shapes)
        self.conv_max = None
        if self.vision is not None and self.vision.form == "grid":
            self.conv_max = ConvMax(
                shapes[str(genotype.vision_encoder)].widths[point.vision_tap - 1]
            )
        self.project_text, self.project_vision = self._projections(genotype, point, shapes)
        last = point == genotype.points[-1]
        blocks = genotype.attention_blocks if last else 0
        fused = fused_width(genotype, point, shapes)
        self.blocks = nn.ModuleList(
            AttentionBlock(text if self.over_tokens else fused, residual=self.over_tokens)
            for _ in range(blocks)
        )
        # What `search_space.rewrites` puts in the place of blocks over one vector.
        self.folded: nn.Module | None = None
        self.operator = OPERATOR_MODULES[point.operator](text) if text and vision else None
        concatenates = point.operator == "concatenation" and not self.over_tokens
        self.project_fused = (
            nn.Linear(text + vision, point.width) if concatenates and point.width else None
        )
        self.pool_text = _token_pooling(genotype, point, "text")
        self.pool_vision = _token_pooling(genotype, point, "vision")
        self.relu = len(genotype.points) > 1 or point.width > 0

    def _projections(
        self, genotype: Genotype, point: FusionPoint, shapes: Shapes
    ) -> list[nn.Linear | None]:
        """Linear maps of (text, vision) to the operator's width; None where nothing changes."""
        asked = point.width > 0 and (point.operator != "concatenation" or self.over_tokens)
        both = genotype.text_encoder is not None and genotype.vision_encoder is not None
        return [
            nn.Linear(own, reached) if both and (asked or own != reached) else None
            for own, reached in zip(
                own_widths(genotype, point, shapes),
                branch_widths(genotype, point, shapes),
                strict=True,
            )
        ]

    def forward(self, features: Features, mask: Tensor | None) -> Tensor:
        """The features that this point reads, and the text's mask (B, L), to (B, fused width)."""
        text = None if self.text is None else features[self.text]
        vision = None if self.vision is None else features[self.vision]
        if vision is not None and self.conv_max is not None:
            vision = self.conv_max(vision)
        if text is not None and self.project_text is not None:
            text = self.project_text(text)
        if vision is not None and self.project_vision is not None:
            vision = self.project_vision(vision)
        if text is None or vision is None:
            fused = cast(Tensor, text if vision is None else vision)
        else:
            fused = self._fuse(text, vision, cast(Tensor, mask))
        if self.project_fused is not None:
            fused = self.project_fused(fused)
        if not self.over_tokens and len(self.blocks):
            sequence = fused.unsqueeze(1)
            for block in self.blocks:
                sequence = block(sequence)
            fused = sequence.squeeze(1)
        if self.folded is not None:
            fused = self.folded(fused)
        return torch.relu(fused) if self.relu else fused

    def _fuse(self, text: Tensor, vision: Tensor, mask: Tensor) -> Tensor:
        if self.over_tokens:
            text, vision = self._attend(text, vision, mask)
            if self.signature.text == "vector":
                text = self._pooled("text", text, mask)
            if self.signature.vision == "vector":
                vision = self._pooled("vision", vision, mask)
        operator = cast(nn.Module, self.operator)
        if not self.signature.gives:
            return cast(Tensor, operator(text, vision))
        given = zip(self.signature.gives, operator(text, vision, mask), strict=True)
        pooled = [self._pooled(modality, tokens, mask) for modality, tokens in given]
        return pooled[0] if len(pooled) == 1 else torch.cat(pooled, dim=1)

    def _pooled(self, modality: Modality, tokens: Tensor, mask: Tensor | None) -> Tensor:
        """Tokens (B, S, C) of one modality to (B, C); the mask is the text's."""
        if modality == "text":
            return cast(Tensor, cast(nn.Module, self.pool_text)(tokens, mask))
        return cast(Tensor, cast(nn.Module, self.pool_vision)(tokens, None))

    def _attend(self, text: Tensor, vision: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        length = text.shape[1]
        states = torch.cat([text, vision], dim=1)
        seen = torch.ones(vision.shape[0], vision.shape[1], dtype=mask.dtype, device=mask.device)
        padding = torch.cat([mask, seen], dim=1) == 0
        for block in self.blocks:
            states = block(states, padding)
        return states[:, :length], states[:, length:]


def _token_pooling(
    genotype: Genotype, point: FusionPoint, modality: Modality
) -> TokenPooling | None:
    """What pools the tokens of this modality here; None where no tokens are pooled."""
    if not (reads_tokens(genotype, point, modality) and pools(point, modality)):
        return None
    text = modality == "text"
    return TokenPooling(genotype.text_pooling if text else genotype.vision_pooling)


class Fusion(nn.Module):
    """Everything after the trunks: branches, their concatenation, and the head.

    The head is the same for every design: Linear 512, ReLU, dropout .3, Linear 256, ReLU,
    dropout .3, Linear to the classes (arXiv 2511.21889).
    """

    def __init__(self, genotype: Genotype, shapes: Shapes, classes: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(Branch(genotype, p, shapes) for p in genotype.points)
        width = sum(fused_width(genotype, point, shapes) for point in genotype.points)
        self.head = _head(width, classes)

    def forward(self, features: Features, mask: Tensor | None) -> Tensor:
        """Features of the trunks and the text's mask (B, L) to logits (B, classes)."""
        branches = [branch(features, mask) for branch in self.branches]
        fused = branches[0] if len(branches) == 1 else torch.cat(branches, dim=1)
        logits: Tensor = self.head(fused)
        return logits


def _head(width: int, classes: int) -> nn.Sequential:
    first, second = HEAD_WIDTHS
    return nn.Sequential(
        nn.Linear(width, first),
        nn.ReLU(),
        nn.Dropout(HEAD_DROPOUT),
        nn.Linear(first, second),
        nn.ReLU(),
        nn.Dropout(HEAD_DROPOUT),
        nn.Linear(second, classes),
    )


class FusionNetwork(nn.Module):
    """A whole design, from token ids and pixels to logits."""

    def __init__(
        self,
        genotype: Genotype,
        shapes: Shapes,
        fusion: Fusion,
        text: nn.Module | None,
        vision: nn.Module | None,
    ) -> None:
        super().__init__()
        wanted = features_of(genotype, shapes)
        self.text_features = tuple(f for f in wanted if f.modality == "text")
        self.vision_features = tuple(f for f in wanted if f.modality == "vision")
        self.text, self.vision, self.fusion = text, vision, fusion

    def forward(self, *inputs: Tensor) -> Tensor:
        """Logits (B, classes) from the inputs that `input_names` lists, in that order."""
        features: dict[Feature, Tensor] = {}
        mask = None
        remaining: Sequence[Tensor] = inputs
        if self.text is not None:
            ids, mask, *remaining = inputs
            features |= self.text(ids, mask, self.text_features)
        if self.vision is not None:
            features |= self.vision(remaining[0], self.vision_features)
        logits: Tensor = self.fusion(features, mask)
        return logits


def input_names(genotype: Genotype) -> tuple[str, ...]:
    """The network's inputs in order: input_ids and attention_mask (B, L), pixel_values."""
    text = ("input_ids", "attention_mask") if genotype.text_encoder else ()
    return (*text, *(("pixel_values",) if genotype.vision_encoder else ()))


def build(
    genotype: Genotype,
    encoders: Mapping[str, EncoderSpec],
    shapes: Shapes,
    classes: int,
    seed: int = 0,
) -> FusionNetwork:
    """The network of a design, in evaluation mode, its new weights drawn from `seed`.

    Raises ValueError with every violation in words, EncoderError where an encoder cannot be had.
    """
    found = violations(genotype, shapes)
    if found:
        raise ValueError("; ".join(found))
    text = vision = None
    if genotype.text_encoder:
        text = load_trunk(encoders[genotype.text_encoder], genotype.deepest_text_tap, seed)
    if genotype.vision_encoder:
        vision = load_trunk(encoders[genotype.vision_encoder], genotype.deepest_vision_tap, seed)
    return FusionNetwork(
        genotype, shapes, new_fusion(genotype, shapes, classes, seed), text, vision
    ).eval()


def new_fusion(genotype: Genotype, shapes: Shapes, classes: int, seed: int) -> Fusion:
    """Fusion and head with weights drawn from `seed`; the global random state is left as it was."""
    with _drawn_from(seed):
        return Fusion(genotype, shapes, classes)


def new_branch(genotype: Genotype, point: FusionPoint, shapes: Shapes, seed: int) -> Branch:
    """One branch alone, as `new_fusion`: its weights depend on nothing but its own shapes."""
    with _drawn_from(seed):
        return Branch(genotype, point, shapes)


def new_head(width: int, classes: int, seed: int) -> nn.Sequential:
    """The head alone, as `new_fusion`: (B, width) to (B, classes)."""
    with _drawn_from(seed):
        return _head(width, classes)


@contextmanager
def _drawn_from(seed: int) -> Iterator[None]:
    state = torch.random.get_rng_state()
    torch.manual_seed(seed)
    try:
        yield
    finally:
        torch.random.set_rng_state(state)
