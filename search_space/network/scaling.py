"""Standardised features: a fixed affine map per channel before the layers that are trained.

Features of frozen trunks differ in scale by orders of magnitude (the first token of MiniLM's third
layer deviates by a thousandth of its size), and a fusion trained on them as they are often
never leaves the majority class. During training every feature is brought to the mean and deviation
that its `FeatureScaling` was made for. Afterwards `fold_scaling` multiplies the map into the linear
layer that follows, so that the deployed graph has no trace of it. Where none follows, as before a
residual connection or an elementwise product, the map is part of the network.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from search_space.encoders.features import Feature
from search_space.modality import Modality
from search_space.network.branch import Branch, FeatureScaling, FirstTokenScaling
from search_space.network.network import Fusion
from search_space.network.poolings import TokenPooling


class Affine(NamedTuple):
    """Factor and offset of each channel, (C,) both."""

    factor: Tensor
    offset: Tensor


@dataclass(frozen=True)
class Scales:
    """How features are scaled.

    Attributes:
        features: By feature.
        first_tokens: For the first token alone, by feature of tokens.
    """

    features: Mapping[Feature, Affine]
    first_tokens: Mapping[Feature, Affine]


def set_scaling(fusion: Fusion, scales: Scales) -> None:
    """Scale every feature that the fusion reads, in place; to be called before training.

    Feature maps get no offset: the convolution that reads them pads with zeros.
    """
    for branch in _branches(fusion):
        for modality, feature in branch.features.items():
            factor, offset = scales.features[feature]
            if modality in branch.first_tokens:
                # The scaling of all tokens follows: what is set here is what it lacks.
                own = scales.first_tokens[feature]
                first = cast(FirstTokenScaling, branch.first_tokens[modality])
                first.factor.copy_(own.factor / factor)
                first.offset.copy_((own.offset - offset) / factor)
            if feature.form == "grid":
                offset = torch.zeros_like(offset)
            scaling = FeatureScaling(len(factor), over_map=feature.form == "grid")
            scaling.factor.copy_(factor)
            scaling.offset.copy_(offset)
            branch.scalings[modality] = scaling


@torch.no_grad()
def fold_scaling(fusion: Fusion) -> None:
    """Fold every scaling that a linear layer follows into that layer, in place.

    The fusion computes the same function, up to rounding. Multiplied out in double precision.
    """
    for branch in _branches(fusion):
        for modality in list(branch.scalings):
            if modality in branch.keeps_scaling:
                continue
            scaling = cast(FeatureScaling, branch.scalings[modality])
            _fold(fusion, branch, cast(Modality, modality), scaling)
            del branch.scalings[modality]


def _fold(fusion: Fusion, branch: Branch, modality: Modality, scaling: FeatureScaling) -> None:
    factor, offset = scaling.factor, scaling.offset
    if branch.features[modality].form == "grid":
        assert branch.conv_max is not None
        weight = branch.conv_max.convolution.weight
        weight.copy_(weight.double() * factor.double()[:, None, None])
        return
    if modality in branch.poolings and modality not in branch.fused_as_tokens:
        # Attention pooling: a softmax is the same for scores that differ by a constant.
        query = cast(TokenPooling, branch.poolings[modality]).query
        if query is not None:
            query.weight.copy_(query.weight.double() * factor.double())
    if modality in branch.projections:
        linear = cast(nn.Linear, branch.projections[modality])
        _into(linear.weight, linear.bias, 0, factor, offset)
        return
    if branch.starts_linear:
        factors = cast(nn.ModuleList, cast(nn.Module, branch.operator).factors)
        linear = cast(nn.Linear, factors[list(branch.features).index(modality)])
        _into(linear.weight, linear.bias, 0, factor, offset)
        return
    first = 0  # where the modality's channels begin in the concatenation
    for other in branch.features:
        if other == modality:
            break
        first += branch.widths[other]
    if branch.project_fused is not None:
        _into(branch.project_fused.weight, branch.project_fused.bias, first, factor, offset)
    elif len(branch.blocks):
        attention = cast(nn.MultiheadAttention, branch.blocks[0].attention)
        _into(attention.in_proj_weight, attention.in_proj_bias, first, factor, offset)
    else:
        linear = cast(nn.Linear, fusion.head[0])
        _into(linear.weight, linear.bias, first, factor, offset)


def _into(weight: Tensor, bias: Tensor, first: int, factor: Tensor, offset: Tensor) -> None:
    """Fold x * factor + offset of the channels from `first` on into (M, N) and (M,)."""
    columns = weight[:, first : first + len(factor)]
    own = columns.double()
    bias.copy_(bias.double() + own @ offset.double())
    columns.copy_(own * factor.double())


def _branches(fusion: Fusion) -> list[Branch]:
    return [cast(Branch, branch) for branch in fusion.branches]
