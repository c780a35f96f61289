"""Fusion operators: two modalities in, one vector out, or tokens that are pooled next.

To add one: its name in `genotype.Operator`, what it takes and gives in `signatures.SIGNATURES`, its
output width in `rules.fused_width`, its module here, its row in OPERATOR_MODULES, its work in
`evaluators.fusion_work`, and a case in the operators' contract test.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from search_space.genotype import Operator
from search_space.rules import ATTENTION_HEADS


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


class CrossAttention(nn.Module):
    """Text tokens query image tokens, with a residual: (B, L, N) and (B, P, N) to (B, L, N).

    LayerNorm(T + MultiheadAttention(query T, key I, value I)), four heads.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, ATTENTION_HEADS, batch_first=True)
        self.norm = nn.LayerNorm(width)

    def forward(self, text: Tensor, vision: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        """(B, L, N) and (B, P, N) to (B, L, N)."""
        attended, _ = self.attention(text, vision, vision, need_weights=False)
        return (self.norm(text + attended),)


def _parameterless(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[[int], nn.Module]:
    return lambda _width: Parameterless(function)


OPERATOR_MODULES: dict[Operator, Callable[[int], nn.Module]] = {
    "concatenation": _parameterless(concatenation),
    "product": _parameterless(product),
    "tensor": _parameterless(tensor),
    "gated": Gated,
    "cross-attention": CrossAttention,
}
"""Each operator's module, made from the width of the text as it reaches the operator."""
