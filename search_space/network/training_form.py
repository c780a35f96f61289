"""The form in which a fusion is trained, and its way back to the network that is deployed.

Both compute the same functions. Two things make training depend less on the design:

- Features are standardised (`search_space.network.scaling`).
- Attention blocks over one vector cannot attend, so each is a product of three matrices before its
  LayerNorm. A stack of such products seldom trains. In training each is one matrix, which starts as
  the identity; afterwards it is written back as three.
"""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from search_space.network.branch import AttentionBlock, Branch
from search_space.network.network import Fusion
from search_space.network.scaling import Scales, fold_scaling, set_scaling


class TrainingForm:
    """A fusion brought into its training form, in place, until `deploy` brings it back."""

    def __init__(self, fusion: Fusion, scales: Scales) -> None:
        """`scales` as `set_scaling` takes them."""
        self._fusion = fusion
        self._blocks: list[tuple[Branch, nn.ModuleList]] = []
        set_scaling(fusion, scales)
        for branch in map(_as_branch, fusion.branches):
            if len(branch.blocks) and not branch.over_tokens:
                self._blocks.append((branch, branch.blocks))
                branch.folded = _identities(_all_blocks(branch.blocks))
                branch.blocks = nn.ModuleList()

    def deploy(self) -> None:
        """Bring the fusion back to the network of its design; it computes the same function."""
        for branch, blocks in self._blocks:
            chain = list(cast(nn.Sequential, branch.folded))
            pairs = zip(_all_blocks(blocks), chain[::2], strict=True)
            for k, (block, linear) in enumerate(pairs):
                _write_back(block, cast(nn.Linear, linear), seed=k)
            blocks.to(cast(nn.Linear, chain[0]).weight.device)
            branch.blocks, branch.folded = blocks, None
        self._blocks = []
        fold_scaling(self._fusion)


def _identities(blocks: Sequence[AttentionBlock]) -> nn.Sequential:
    """A linear layer and the block's own LayerNorm for each block: (B, C) to (B, C)."""
    chain: list[nn.Module] = []
    for block in blocks:
        width = block.linear.in_features
        linear = nn.Linear(width, width)
        nn.init.eye_(linear.weight)
        nn.init.zeros_(linear.bias)
        chain += [linear, block.norm]
    return nn.Sequential(*chain)


@torch.no_grad()
def _write_back(block: AttentionBlock, linear: nn.Linear, seed: int) -> None:
    """Make the block's value, output and last projection multiply to a linear layer.

    Value and output are random orthogonal matrices, which lose no precision; those of each block
    have a seed of their own, since equal weights would be stored once.
    """
    width = linear.in_features
    generator = torch.Generator().manual_seed(seed)
    value, output = (_orthogonal(width, generator) for _ in range(2))
    attention = block.attention
    attention.in_proj_weight[-width:] = value
    attention.out_proj.weight.copy_(output)
    block.linear.weight.copy_(linear.weight.cpu().double() @ (output @ value).T)
    block.linear.bias.copy_(linear.bias)
    nn.init.zeros_(attention.in_proj_bias)
    nn.init.zeros_(attention.out_proj.bias)


def _orthogonal(width: int, generator: torch.Generator) -> Tensor:
    drawn = torch.randn(width, width, dtype=torch.float64, generator=generator)
    orthogonal: Tensor = torch.linalg.qr(drawn)[0]
    return orthogonal


def _as_branch(module: nn.Module) -> Branch:
    return cast(Branch, module)


def _all_blocks(blocks: nn.ModuleList) -> list[AttentionBlock]:
    return [cast(AttentionBlock, block) for block in blocks]
