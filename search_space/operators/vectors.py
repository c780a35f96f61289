"""Fusion operators: two modalities or three in, one vector out, or tokens that are pooled next.

To add one: its name in `genotype.Operator`, what it takes and gives in `signatures.SIGNATURES`, its
output width in `rules.fused_width`, its module here (or in `token_operators`, if it reads tokens),
its row in OPERATOR_MODULES, its work in `evaluators.latency.fusion_work`, and a case in the
operators' contract test.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from search_space.design.genotype import Operator
from search_space.operators.tokens import (
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


def concatenation(*vectors: Tensor) -> Tensor:
    """(T, I) or (T, I, A): (B, N), (B, M) and so on to (B, N + M + ...)."""
    return torch.cat(vectors, dim=1)


def product(text: Tensor, vision: Tensor) -> Tensor:
    """F_j = T_j I_j and F_{N+j} = T_j I_{N-j} (indices from 0: I_{N-1-j}): (B, N) twice to (B, 2N).

    Source: "Encoding Domain Insights into Multi-modal Fusion", product fusion.
    """
    return torch.cat([text * vision, text * vision.flip(1)], dim=1)


def tensor(first: Tensor, *others: Tensor) -> Tensor:
    """The outer product: (B, N), (B, M) and so on to (B, N M ...), the first's index slowest.

    Source: the same, after Tensor Fusion Networks (Zadeh et al., 2017), without the constant 1.
    """
    for other in others:
        first = (first.unsqueeze(2) * other.unsqueeze(1)).flatten(1)
    return first


def summation(first: Tensor, *others: Tensor) -> Tensor:
    """T + I, or T + I + A: (B, N) each to (B, N)."""
    for other in others:
        first = first + other
    return first


class Parameterless(nn.Module):
    """An operator that learns nothing."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *vectors: Tensor) -> Tensor:
        """(B, N), (B, M) and so on to the operator's width."""
        return self.function(*vectors)

    def extra_repr(self) -> str:
        """What it computes."""
        return self.function.__name__


class Gated(nn.Module):
    """g T + (1 - g) I with g = sigmoid(W (T, I) + b): (B, N) twice to (B, N).

    Of three, the sum of g_M M with the gates g the softmax over modalities of W (T, I, A) + b.
    """

    def __init__(self, width: int, modalities: int) -> None:
        super().__init__()
        gates = modalities if modalities > 2 else 1
        self.gate = nn.Linear(modalities * width, gates * width)

    def forward(self, *vectors: Tensor) -> Tensor:
        """(B, N) each to (B, N)."""
        said = self.gate(torch.cat(vectors, dim=1))
        if len(vectors) == 2:
            text, vision = vectors
            gate = torch.sigmoid(said)
            return gate * text + (1 - gate) * vision
        stacked = torch.stack(vectors, dim=1)
        fused: Tensor = (said.view(stacked.shape).softmax(1) * stacked).sum(1)
        return fused


class LowRankTensor(nn.Module):
    """The sum over four r of (U_r (T, 1)) * (V_r (I, 1)), plus a bias: (B, N) twice to (B, N).

    The outer product of (T, 1) and (I, 1) under a weight tensor of rank four; of three, times
    (W_r (A, 1)). Source: Low-rank Multimodal Fusion (Liu et al., 2018).
    """

    def __init__(self, width: int, modalities: int) -> None:
        super().__init__()
        # The bias of each is the weight of its 1.
        self.factors = nn.ModuleList(nn.Linear(width, LOW_RANK * width) for _ in range(modalities))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, *vectors: Tensor) -> Tensor:
        """(B, N) each to (B, N)."""
        first, *others = (f(v) for f, v in zip(self.factors, vectors, strict=True))
        products: Tensor = first
        for other in others:
            products = products * other
        return products.view(len(products), LOW_RANK, -1).sum(1) + self.bias


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


def _parameterless(function: Callable[..., Tensor]) -> Callable[[int, int], nn.Module]:
    return lambda _width, _modalities: Parameterless(function)


def _of_two(made: Callable[[int], nn.Module]) -> Callable[[int, int], nn.Module]:
    return lambda width, _modalities: made(width)


OPERATOR_MODULES: dict[Operator, Callable[[int, int], nn.Module]] = {
    "concatenation": _parameterless(concatenation),
    "product": _parameterless(product),
    "tensor": _parameterless(tensor),
    "gated": Gated,
    "cross-attention": _of_two(CrossAttention),
    "sum": _parameterless(summation),
    "low-rank-tensor": LowRankTensor,
    "bilinear": _of_two(Bilinear),
    "cross-attention-vision": _of_two(lambda width: CrossAttention(width, "vision")),
    "cross-attention-both": _of_two(CrossAttentionBoth),
    "single-sequence": SingleSequence,
    "prefix": _of_two(Prefix),
    "bottleneck": Bottleneck,
}
"""Each operator's module, made from the width that it works in and how many modalities it fuses."""
