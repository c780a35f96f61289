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


class GridPooling(nn.Module):
    """A picture's tokens, row by row, averaged to a square grid: adaptive average pooling.

    Of R rows, the new row i averages those from floor(i R / g) to ceil((i + 1) R / g) - 1, for a
    grid of g rows, and so do columns (as `torch.nn.AdaptiveAvgPool2d`): windows are of one size
    where g divides R, and overlap where it does not. A class token before the grid stays as it is.
    Windows of several sizes are no average pooling of ONNX, so the pooling is a product with a
    constant matrix: one MatMul of fixed shapes, which every runtime has.
    """

    weights: Tensor

    def __init__(self, grid: tuple[int, int], side: int, has_class_token: bool) -> None:
        """Pool a grid of rows and columns to one of `side` rows and columns."""
        super().__init__()
        down, along = (_windows(extent, side) for extent in grid)
        shares = [[a * b for a in row for b in column] for row in down for column in along]
        if has_class_token:
            shares = [[0.0, *share] for share in shares]
            shares.insert(0, [1.0] + [0.0] * (grid[0] * grid[1]))
        # The design says what they are, so they are no part of its stored weights.
        self.register_buffer("weights", torch.tensor(shares), persistent=False)
        self._said = f"{grid[0]}x{grid[1]} to {side}x{side}"

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, S, C) to (B, S', C), S' the cells of the new grid, and the class token if any."""
        return self.weights @ tokens

    def extra_repr(self) -> str:
        """Its grids."""
        return self._said


def _windows(extent: int, count: int) -> list[list[float]]:
    """Share of each of `extent` cells in each of `count` windows."""
    found = []
    for k in range(count):
        first, end = k * extent // count, -(-(k + 1) * extent // count)
        found.append([(first <= cell < end) / (end - first) for cell in range(extent)])
    return found


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
