"""One fusion point as a network: from what it reads of both trunks to one vector."""

from typing import cast

import torch
from torch import Tensor, nn

from search_space.encoders import MODALITIES, Modality
from search_space.features import Feature, text_feature, vision_feature
from search_space.genotype import FusionPoint, Genotype
from search_space.operators import OPERATOR_MODULES
from search_space.poolings import ConvMax, TokenPooling
from search_space.rules import ATTENTION_HEADS, Shapes, branch_widths, fused_width, own_widths
from search_space.signatures import SIGNATURES, fuses_tokens, pools, reads_tokens
from search_space.trunks import Features


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

    Order of operations: pooling (where nothing below meets the tokens) and projection of each side,
    attention over tokens (if asked here) and pooling of what the operator takes as a vector,
    operator, pooling of the tokens that it gives, projection of a concatenation, attention over the
    vector (if asked here), ReLU where the branch is projected or one of several.
    """

    def __init__(self, genotype: Genotype, point: FusionPoint, shapes: Shapes) -> None:
        super().__init__()
        self.text = text_feature(genotype, point, shapes)
        self.vision = vision_feature(genotype, point)
        self.over_tokens = genotype.attends_over_tokens(point)
        self.signature = SIGNATURES[point.operator]
        self.fused_as_tokens = [m for m in MODALITIES if fuses_tokens(genotype, point, m)]
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
        self.pool_text = self._pooling("text", genotype, point, shapes)
        self.pool_vision = self._pooling("vision", genotype, point, shapes)
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

    def _pooling(
        self, modality: Modality, genotype: Genotype, point: FusionPoint, shapes: Shapes
    ) -> TokenPooling | None:
        """What pools this modality's tokens here; None where there are none to pool."""
        if not (reads_tokens(genotype, point, modality) and pools(point, modality)):
            return None
        side = MODALITIES.index(modality)
        widths = branch_widths if modality in self.fused_as_tokens else own_widths
        pooling = (genotype.text_pooling, genotype.vision_pooling)[side]
        return TokenPooling(pooling, widths(genotype, point, shapes)[side])

    def forward(self, features: Features, mask: Tensor | None) -> Tensor:
        """The features that this point reads, and the text's mask (B, L), to (B, fused width)."""
        text = self._reached(self.text, self.project_text, features, mask)
        vision = self._reached(self.vision, self.project_vision, features, mask)
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

    def _reached(
        self,
        feature: Feature | None,
        project: nn.Linear | None,
        features: Features,
        mask: Tensor | None,
    ) -> Tensor | None:
        """A modality as it reaches the attention or the operator: tokens or a vector."""
        if feature is None:
            return None
        states = features[feature]
        if self.conv_max is not None and feature.form == "grid":
            states = self.conv_max(states)
        elif feature.form == "tokens" and feature.modality not in self.fused_as_tokens:
            states = self._pooled(feature.modality, states, mask)
        return states if project is None else project(states)

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
