"""Exact rewrites of a network before it is exported: the same outputs for less work.

What is done elsewhere and not again here, each held by a test on the exported graph:

- BatchNorm: `torch.onnx.export` folds it into the convolution before it, in evaluation mode.
- Unused outputs: the exporter keeps what the logits depend on and nothing else.
- Unused layers: trunks end at their deepest tap (`search_space.encoders.trunks`).
"""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import cast

import torch
from torch import nn

from search_space.design.genotype import Genotype
from search_space.design.rules import Shapes
from search_space.modality import Modality
from search_space.network.branch import AttentionBlock, Branch
from search_space.network.network import Fusion, FusionNetwork

REWRITES_VERSION = 1
"""Goes up whenever a rewritten network would become another graph."""


@dataclass(frozen=True)
class Rewrites:
    """Which exact rewrites are applied.

    fold_attention: each attention block over one key becomes one Linear and LayerNorm.
    cut_padding: texts are padded to the longest that the data hold, not to the design's length.
    own_length: nothing is padded: the graph takes texts of any length, each at its own. Not where a
    fusion reads the tokens themselves, and not for runtimes that want fixed shapes, as TensorRT.
    """

    fold_attention: bool = False
    cut_padding: bool = False
    own_length: bool = False


NONE = Rewrites()
ALL = Rewrites(fold_attention=True, cut_padding=True)
OWN_LENGTH = Rewrites(fold_attention=True, cut_padding=True, own_length=True)
BY_NAME = {"all": ALL, "none": NONE, "own-length": OWN_LENGTH}
"""What `--rewrites` takes."""


def folded_blocks(genotype: Genotype, rewrites: Rewrites) -> int:
    """How many of a design's attention blocks are folded: all of those over one fused vector.

    Softmax over one key is 1 whatever the query: such a block cannot attend. Blocks over tokens
    are left alone.
    """
    over_one_key = genotype.attention_over == "pooled"
    return genotype.attention_blocks if rewrites.fold_attention and over_one_key else 0


def rewrite(
    network: FusionNetwork, genotype: Genotype, shapes: Shapes, rewrites: Rewrites
) -> FusionNetwork:
    """The network with its blocks folded where that is asked for; the one given stays as it is.

    Trunks are shared between the two. Padding is no part of a network: who feeds it cuts that.
    """
    if not folded_blocks(genotype, rewrites):
        return network
    fusion: Fusion = deepcopy(network.fusion)
    for branch in fusion.branches:
        assert isinstance(branch, Branch)
        fold_branch(branch)
    trunks = cast(Mapping[Modality, nn.Module], network.trunks)
    return FusionNetwork(genotype, shapes, fusion, trunks).eval()


def fold_branch(branch: Branch) -> None:
    """Folds a branch's attention blocks over one key, in place; those over tokens stay."""
    if len(branch.blocks) and not branch.over_tokens:
        branch.folded = fold(list(branch.blocks))  # type: ignore[arg-type]
        branch.blocks = nn.ModuleList()


@torch.no_grad()
def fold(blocks: list[AttentionBlock]) -> nn.Sequential:
    """Attention blocks over one key as a chain over the vector itself: (B, C) to (B, C).

    A block is norm(L(O(V x))) with V, O and L the value, output and last projection: affine in x
    before its norm, so that three products become one. Multiplied out in double precision.
    """
    chain: list[nn.Module] = []
    for block in blocks:
        attention, last = block.attention, block.linear
        width = last.in_features
        value, value_bias = attention.in_proj_weight[-width:], attention.in_proj_bias[-width:]
        out = attention.out_proj
        mixing = last.weight.double() @ out.weight.double()
        bias = mixing @ value_bias.double() + last.weight.double() @ out.bias.double()
        linear = nn.Linear(width, width)
        linear.weight.copy_(mixing @ value.double())
        linear.bias.copy_(bias + last.bias.double())
        chain += [linear, block.norm]
    return nn.Sequential(*chain)
