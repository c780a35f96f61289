"""One fusion point as a network: from what it reads of the trunks to one vector."""

from typing import cast

import torch
from torch import Tensor, nn

from search_space.design.genotype import FusionPoint, Genotype
from search_space.design.reading import fuses_tokens, given, pools, reads_tokens
from search_space.design.rules import (
    Shapes,
    branch_widths,
    fused_width,
    keeps_scaling,
    own_widths,
    pooled_side,
    projects_inputs,
    projects_result,
    reads_first_token,
)
from search_space.encoders.features import read_at
from search_space.encoders.trunks import Features
from search_space.modality import Modality
from search_space.network.poolings import ConvMax, GridPooling, TokenPooling, padding_of
from search_space.operators.operator import Operator
from search_space.operators.registry import PluginError, operator_of, origins
from search_space.operators.tokens import joint_padding
from search_space.operators.work import ATTENTION_HEADS


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


class FeatureScaling(nn.Module):
    """A fixed factor and offset for each channel of a feature; the identity when it is made."""

    factor: Tensor
    offset: Tensor

    def __init__(self, width: int, over_map: bool = False) -> None:
        super().__init__()
        self.register_buffer("factor", torch.ones(width))
        self.register_buffer("offset", torch.zeros(width))
        self._over_map = over_map

    def forward(self, states: Tensor) -> Tensor:
        """(B, C) or (B, S, C), or a map (B, C, H, W), to the same size."""
        if self._over_map:
            return states * self.factor[:, None, None] + self.offset[:, None, None]
        return states * self.factor + self.offset


class FirstTokenScaling(FeatureScaling):
    """A fixed factor and offset for each channel of the first token alone."""

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, S, C) to the same size."""
        return torch.cat([super().forward(tokens[:, :1]), tokens[:, 1:]], dim=1)


def _module_of(name: Operator, width: int, modalities: int) -> nn.Module:
    """Return an operator's new module. Raises PluginError where that of a plugin cannot be made."""
    if not (origin := origins([name])):
        return operator_of(name).module(width, modalities)
    where = f"operator {name!r} of the plugin {origin[name]}: its module for {modalities} "
    where += f"modalities of {width} features"
    check = "fusion_nas.testing.check_operator says what a plugin must do"
    try:
        made = operator_of(name).module(width, modalities)
    except Exception as error:  # whatever code of others raises
        said = f"{where} cannot be made ({type(error).__name__}: {error})"
        raise PluginError(said, check) from error
    if not isinstance(made, nn.Module):
        raise PluginError(f"{where} is {type(made).__name__}, not a torch.nn.Module", check)
    return made


class Branch(nn.Module):
    """One fusion point: features of the trunks to one vector.

    Order of operations: pooling of a picture's tokens to fewer (where the design asks for fewer),
    scaling of the first token (where the tokens' result is read there), scaling (where
    `keeps_scaling` says so), pooling (where nothing below meets
    the tokens) and projection of each side, attention over tokens (if asked here) and pooling of
    what the operator takes as a vector, operator, pooling of the tokens that it gives, projection
    of a concatenation, attention over the vector (if asked here), ReLU where the branch is
    projected or one of several.
    """

    def __init__(self, genotype: Genotype, point: FusionPoint, shapes: Shapes) -> None:
        super().__init__()
        self.features = {f.modality: f for f in read_at(genotype, point, shapes)}
        """What is read, by modality, in the order in which the operator takes it."""
        self.over_tokens = genotype.attends_over_tokens(point)
        operator = operator_of(point.operator)
        self.signature = operator.signature
        self.given = given(genotype, point)
        self.fused_as_tokens = [m for m in self.features if fuses_tokens(genotype, point, m)]
        own = own_widths(genotype, point, shapes)
        self.widths = widths = branch_widths(genotype, point, shapes)
        first, fused = next(iter(widths.values())), fused_width(genotype, point, shapes)
        self.keeps_scaling = [m for m in self.features if keeps_scaling(genotype, point, m, shapes)]
        self.scalings = nn.ModuleDict({m: FeatureScaling(own[m]) for m in self.keeps_scaling})
        self.conv_max = None
        if genotype.vision_encoder and self.features["vision"].form == "grid":
            self.conv_max = ConvMax(shapes[genotype.vision_encoder].widths[point.vision_tap - 1])
        self.grid_pooling = None
        if side := pooled_side(genotype, point, shapes):
            shape = shapes[str(genotype.vision_encoder)]
            grid = shape.token_grid(point.vision_tap)
            self.grid_pooling = GridPooling(grid, side, shape.has_class_token)
        # Linear maps to the operator's width, where anything changes.
        asked = projects_inputs(genotype, point)
        self.projections = nn.ModuleDict(
            {
                m: nn.Linear(own[m], widths[m])
                for m in self.features
                if genotype.is_fused and (asked or own[m] != widths[m])
            }
        )
        last = point == genotype.points[-1]
        blocks = genotype.attention_blocks if last else 0
        self.blocks = nn.ModuleList(
            AttentionBlock(first if self.over_tokens else fused, residual=self.over_tokens)
            for _ in range(blocks)
        )
        # What `search_space.network.rewrites` puts in the place of blocks over one vector.
        self.folded: nn.Module | None = None
        self.starts_linear = operator.starts_linear
        self.operator = (
            _module_of(point.operator, first, len(widths)) if genotype.is_fused else None
        )
        self.project_fused = (
            nn.Linear(operator.output_width(widths), point.width)
            if projects_result(genotype, point)
            else None
        )
        self.poolings = nn.ModuleDict(
            {
                m: TokenPooling(
                    genotype.pooling(m), (widths if m in self.fused_as_tokens else own)[m]
                )
                for m in self.features
                if reads_tokens(genotype, point, m) and pools(point, m)
            }
        )
        # In layers 1 to 5 of MiniLM the first token varies between texts by 0.1 to 3 % of what
        # all tokens do, so the scaling of all leaves it all but constant.
        self.first_tokens = nn.ModuleDict(
            {
                m: FirstTokenScaling(own[m])
                for m in self.features
                if reads_first_token(genotype, point, m)
            }
        )
        self.relu = len(genotype.points) > 1 or point.width > 0

    def forward(self, features: Features, mask: Tensor | None) -> Tensor:
        """The features that this point reads, and the text's mask (B, L), to (B, fused width)."""
        reached = {m: self._reached(m, features, mask) for m in self.features}
        fused = next(iter(reached.values())) if self.operator is None else self._fuse(reached, mask)
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

    def _reached(self, modality: Modality, features: Features, mask: Tensor | None) -> Tensor:
        """A modality as it reaches the attention or the operator: tokens or a vector."""
        feature = self.features[modality]
        states = features[feature]
        # Before the affine maps below, which commute with an average.
        if self.grid_pooling is not None and modality == "vision":
            states = self.grid_pooling(states)
        if modality in self.first_tokens:
            states = self.first_tokens[modality](states)
        if modality in self.scalings:
            states = self.scalings[modality](states)
        if self.conv_max is not None and feature.form == "grid":
            states = self.conv_max(states)
        elif feature.form == "tokens" and modality not in self.fused_as_tokens:
            states = self._pooled(modality, states, mask)
        if modality in self.projections:
            states = self.projections[modality](states)
        return states

    def _fuse(self, reached: dict[Modality, Tensor], mask: Tensor | None) -> Tensor:
        if self.over_tokens:
            reached = self._attend(reached, mask)
            reached = {
                m: tokens if m in self.signature.tokens else self._pooled(m, tokens, mask)
                for m, tokens in reached.items()
            }
        operator = cast(nn.Module, self.operator)
        if not self.signature.gives:
            return cast(Tensor, operator(*reached.values()))
        text = None if mask is None else padding_of(mask)
        paddings = [text if modality == "text" else None for modality in reached]
        made = operator(paddings, *reached.values())
        pooled = [self._pooled(m, t, mask) for m, t in zip(self.given, made, strict=True)]
        return pooled[0] if len(pooled) == 1 else torch.cat(pooled, dim=1)

    def _pooled(self, modality: Modality, tokens: Tensor, mask: Tensor | None) -> Tensor:
        """Tokens (B, S, C) of one modality to (B, C); the mask is the text's."""
        pooling = self.poolings[modality]
        return cast(Tensor, pooling(tokens, mask if modality == "text" else None))

    def _attend(
        self, reached: dict[Modality, Tensor], mask: Tensor | None
    ) -> dict[Modality, Tensor]:
        states = torch.cat(list(reached.values()), dim=1)
        text = None if mask is None else mask == 0
        paddings = [text if modality == "text" else None for modality in reached]
        unread = joint_padding(paddings, list(reached.values()))
        for block in self.blocks:
            states = block(states, unread)
        lengths = [tokens.shape[1] for tokens in reached.values()]
        ends = torch.split(states, lengths, dim=1)
        return dict(zip(reached, ends, strict=True))
