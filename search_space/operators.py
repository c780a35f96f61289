"""Fusion operators: two modalities in, one vector out, or tokens that are pooled next.

To add one: its name in `genotype.Operator`, what it takes and gives in `signatures.SIGNATURES`, its
output width in `rules.fused_width`, its module here (or in `token_operators`, if it reads tokens),
its row in OPERATOR_MODULES, its work in `evaluators.fusion_work`, and a case in the operators'
contract test.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from search_space.genotype import Operator
from search_space.token_operators import (
    Bottleneck,
    CrossAttention,
    CrossAttentionBoth,
    Prefix,
    SingleSequence,
)

LOW_RANK = 4
BILINEAR_FACTORS = 5
"""Products that are summed to one feature: k of MFB, as its authors have it."""
SAFE = 1e-4
"""Keeps a root's slope finite at 0 and a division from 0; a normal number in half precision too."""


def concatenation(text: Tensor, vision: Tensor) -> Tensor:
    """(T, I): (B, N) and (B, M) to (B, N + M)."""
    return torch.cat([text, vision], dim=1)


def product(text: Tensor, vision: Tensor) -> Tensor:
    """F_j = T_j I_j and F_{N+j} = T_j I_{N-j} (indices from 0: I_{N-1-j}): (B, N) twice to (B, 2N).

    Source: "Encoding Domain Insights into Multi-modal Fusion", product fusion.
    """
    return torch.cat([text * vision, text * vision.flip(1)], dim=1)


def tensor(text: Tensor, vision: Tensor) -> Tensor:
    """The outer product: (B, N) and (B, M) to (B, N M), text index slowest.

    Source: the same, after Tensor Fusion Networks (Zadeh et al., 2017), without the constant 1.
    """
    return (text.unsqueeze(2) * vision.unsqueeze(1)).flatten(1)


def summation(text: Tensor, vision: Tensor) -> Tensor:
    """T + I: (B, N) twice to (B, N)."""
    return text + vision


class Parameterless(nn.Module):
    """An operator that learns nothing."""

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, text: Tensor, vision: Tensor) -> Tensor:
        """(B, N) and (B, M) to the operator's width."""
        return self.function(text, vision)

    def extra_repr(self) -> str:
        """What it computes."""
        return self.function.__name__


class Gated(nn.Module):
    """g T + (1 - g) I with g = sigmoid(W (T, I) + b): (B, N) twice to (B, N)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gate = nn.Linear(2 * width, width)

    def forward(self, text: Tensor, vision: Tensor) -> Tensor:
        """(B, N) twice to (B, N)."""
        gate = torch.sigmoid(self.gate(torch.cat([text, vision], dim=1)))
        return gate * text + (1 - gate) * vision


class LowRankTensor(nn.Module):
    """The sum over four r of (U_r (T, 1)) * (V_r (I, 1)), plus a bias: (B, N) twice to (B, N).

    The outer product of (T, 1) and (I, 1) under a weight tensor of rank four. Source: Low-rank
    Multimodal Fusion (Liu et al., 2018).
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.text = nn.Linear(width, LOW_RANK * width)  # its bias is the weight of the 1
        self.vision = nn.Linear(width, LOW_RANK * width)
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, text: Tensor, vision: Tensor) -> Tensor:
        """(B, N) twice to (B, N)."""
        products: Tensor = self.text(text) * self.vision(vision)
        return products.view(len(text), LOW_RANK, -1).sum(1) + self.bias


class Bilinear(nn.Module):
    """z = the sum of every five of U T * V I, then its signed root, then that over its l2 norm.

    (B, N) twice to (B, N). The root is z / sqrt(|z| + 1e-4), whose slope is finite at 0. Source:
    multi-modal factorized bilinear pooling, MFB (Yu et al., 2017), without its dropout.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.text = nn.Linear(width, BILINEAR_FACTORS * width, bias=False)
        self.vision = nn.Linear(width, BILINEAR_FACTORS * width, bias=False)

    def forward(self, text: Tensor, vision: Tensor) -> Tensor:
        """(B, N) twice to (B, N), of length 1."""
        products = self.text(text) * self.vision(vision)
        summed = products.view(len(text), -1, BILINEAR_FACTORS).sum(2)
        rooted = summed / torch.sqrt(summed.abs() + SAFE)
        normed: Tensor = functional.normalize(rooted, dim=1, eps=SAFE)
        return normed


def _parameterless(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[[int], nn.Module]:
    return lambda _width: Parameterless(function)


OPERATOR_MODULES: dict[Operator, Callable[[int], nn.Module]] = {
    "concatenation": _parameterless(concatenation),
    "product": _parameterless(product),
    "tensor": _parameterless(tensor),
    "gated": Gated,
    "cross-attention": CrossAttention,
    "sum": _parameterless(summation),
    "low-rank-tensor": LowRankTensor,
    "bilinear": Bilinear,
    "cross-attention-vision": lambda width: CrossAttention(width, "vision"),
    "cross-attention-both": CrossAttentionBoth,
    "single-sequence": SingleSequence,
    "prefix": Prefix,
    "bottleneck": Bottleneck,
}
"""Each operator's module, made from the width of the text as it reaches the operator."""
