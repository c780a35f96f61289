"""Poolings that a fusion does itself: a feature map or a token sequence to one vector.

The others (class token, mean and maximum of a tap, the text encoder's pooler) are a trunk's.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from search_space.genotype import TextPooling, VisionPooling
from search_space.rules import CONV_MAX_WIDTH
from search_space.trunks import pool_text

TokenForm = Literal["cls", "mean", "max"]
_FORMS: dict[TextPooling | VisionPooling, TokenForm] = {
    "cls": "cls",
    "mean": "mean",
    "max": "max",
    "pooler": "cls",
    "conv-max": "max",
}


def padding_of(mask: Tensor) -> Tensor:
    """True where a token of a text is padding, from its mask (B, L).

    The first token is read in any case: attention over nothing is no number.
    """
    return torch.cat([torch.zeros_like(mask[:, :1]) > 0, mask[:, 1:] == 0], dim=1)


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

    The first token (cls, pooler), or the tokens' mean or maximum (max, conv-max).
    """

    def __init__(self, pooling: TextPooling | VisionPooling) -> None:
        super().__init__()
        self.form = _FORMS[pooling]

    def forward(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        """(B, S, C) to (B, C); a mask (B, S) is 1 where a token is real, None where all are."""
        if self.form == "cls":
            return tokens[:, 0]
        if self.form == "max":
            return tokens.amax(1)
        return tokens.mean(1) if mask is None else pool_text(tokens, mask, "mean")

    def extra_repr(self) -> str:
        """Its form."""
        return self.form
