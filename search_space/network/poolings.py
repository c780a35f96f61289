"""Poolings that a fusion does itself: a feature map or a token sequence to one vector.

The others (class token, mean and maximum of a tap, the text encoder's pooler) are a trunk's.
"""

import math
from typing import Literal

import torch
from torch import Tensor, nn

from search_space.design.genotype import Pooling
from search_space.design.rules import CONV_MAX_WIDTH
from search_space.encoders.trunks import pool_text

TokenForm = Literal["cls", "mean", "max", "attention"]
_FORMS: dict[Pooling, TokenForm] = {
    "cls": "cls",
    "mean": "mean",
    "max": "max",
    "pooler": "cls",
    "conv-max": "max",
    "attention": "attention",
}


def padding_of(mask: Tensor) -> Tensor:
    """True where a token of a text is padding, from its mask (B, L).

    The first token is read in any case: attention over nothing is no number.
    """
    return torch.cat([torch.ones_like(mask[:, :1]), mask[:, 1:]], dim=1) == 0


class ConvMax(nn.Module):
    """A feature map (B, C, H, W) to (B, 64): 3x3 convolution, BatchNorm, ReLU, maximum."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(width, CONV_MAX_WIDTH, 3, padding=1)
        self.norm = nn.BatchNorm2d(CONV_MAX_WIDTH)

    def forward(self, grid: Tensor) -> Tensor:
        """(B, C, H, W) to (B, 64)."""
        return torch.relu(self.norm(self.convolution(grid))).amax((2, 3))


class TokenPooling(nn.Module):
    """Tokens to one vector, as a design's pooling has it where it meets tokens.

    cls, pooler: the first token. mean, and max or conv-max: of the tokens. attention: their sum
    weighted by the softmax of their products with one learned query, after the word attention of
    hierarchical attention networks (Yang et al., 2016) without its layer before the product.
    """

    def __init__(self, pooling: Pooling, width: int) -> None:
        super().__init__()
        self.form = _FORMS[pooling]
        self.query = nn.Linear(width, 1, bias=False) if self.form == "attention" else None

    def forward(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        """(B, S, C) to (B, C); a mask (B, S) is 1 where a token is real, None where all are."""
        if self.query is not None:
            scores = self.query(tokens).squeeze(2)
            if mask is not None:
                scores = scores.masked_fill(padding_of(mask), -math.inf)
            weights: Tensor = scores.softmax(1).unsqueeze(1)
            return (weights @ tokens).squeeze(1)
        if self.form == "cls":
            return tokens[:, 0]
        if self.form == "max":
            return tokens.amax(1)
        return tokens.mean(1) if mask is None else pool_text(tokens, mask, "mean")

    def extra_repr(self) -> str:
        """Its form."""
        return self.form
