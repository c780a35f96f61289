"""Bipartite soft matching of tokens, and the merging of those that are matched.

Definition: Bolya et al., "Token Merging: Your ViT But Faster", ICLR 2023, arXiv 2210.09461,
sections 3.1 and 3.2 and appendix D, with the order of tokens of the authors' implementation
(github.com/facebookresearch/ToMe, `tome/merge.py`). All extents are constants of the graph, so
that it can be exported with static shapes: TopK, Gather and products with one-hot matrices.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

PROTECTED = -3.0
"""Added to a cosine similarity: less than any other, so that a token is merged last."""


@dataclass(frozen=True)
class Matching:
    """Which of N tokens are merged into which, for each of B inputs.

    Set A holds the tokens at positions 0, 2, 4, ..., set B the others.

    Attributes:
        kept: (B, K) positions of the tokens of A that stay as they are.
        merged: (B, r) positions of those that are merged.
        onto: (B, M, r) 1.0 where a token of B receives a merged one.
    """

    kept: Tensor
    merged: Tensor
    onto: Tensor


def most_merged(tokens: int, has_class_token: bool) -> int:
    """Return how many of so many tokens can be merged at once: half of those but the class token.

    As the authors have it, `(t - protected) // 2`.
    """
    return (tokens - has_class_token) // 2


def match(keys: Tensor, r: int, has_class_token: bool) -> Matching:
    """Match tokens by their keys.

    Every token of A is joined to the token of B of the greatest cosine similarity; the r most
    similar of these pairs are to be merged. The class token, at position 0, is not merged, and no
    other is merged into it, for it is in A.

    Args:
        keys: (B, N, D), averaged over attention heads.
        r: pairs to merge, from 1 to `most_merged`.
        has_class_token: whether position 0 holds one; then the tokens that are kept stay in
            their order, else they stand from the most similar down, as the authors have it.
    """
    keys = F.normalize(keys, dim=-1)
    scores = keys[:, ::2] @ keys[:, 1::2].transpose(1, 2)
    best, partner = scores.max(-1)
    count, targets = int(scores.shape[1]), int(scores.shape[2])
    if has_class_token:
        protected = torch.zeros(count, device=keys.device, dtype=keys.dtype)
        protected[0] = PROTECTED
        best = best + protected
    order = best.topk(count).indices
    merged, kept = order[:, :r], order[:, r:]
    if has_class_token:
        kept = kept.topk(count - r, largest=False).values
    column = torch.arange(targets, device=keys.device)[None, :, None]
    onto = (partner.gather(1, merged)[:, None, :] == column).to(keys.dtype)
    return Matching(2 * kept, 2 * merged, onto)


def merge_means(tokens: Tensor, sizes: Tensor | None, matching: Matching) -> tuple[Tensor, Tensor]:
    """Merge tokens into their mean, weighted by how many patches each stands for.

    Kept tokens of A come first, then those of B with what is merged into them.

    Args:
        tokens: (B, N, C).
        sizes: (B, N, 1) patches that each token stands for; None where that is one.
        matching: what is merged into what.

    Returns:
        Tokens (B, N - r, C) and sizes (B, N - r, 1).
    """
    if sizes is None:
        sizes = torch.ones_like(tokens[:, :, :1])
    of_merged, of_targets = _rows(sizes, matching.merged), sizes[:, 1::2]
    total = of_targets + matching.onto @ of_merged
    shares = matching.onto * of_merged.transpose(1, 2) / total
    means = tokens[:, 1::2] * (of_targets / total) + shares @ _rows(tokens, matching.merged)
    return (
        torch.cat([_rows(tokens, matching.kept), means], 1),
        torch.cat([_rows(sizes, matching.kept), total], 1),
    )


def merge_sums(values: Tensor, matching: Matching) -> Tensor:
    """Merge values (B, N, P) of tokens into their sums (B, N - r, P), in the same order."""
    sums = values[:, 1::2] + matching.onto @ _rows(values, matching.merged)
    return torch.cat([_rows(values, matching.kept), sums], 1)


def _rows(values: Tensor, positions: Tensor) -> Tensor:
    """Rows (B, K, C) of values (B, N, C) at positions (B, K)."""
    batch, count, width = (int(extent) for extent in values.shape)
    if batch > 1:
        first = torch.arange(0, batch * count, count, device=positions.device)
        positions = positions + first[:, None]
    chosen = values.reshape(batch * count, width).index_select(0, positions.reshape(-1))
    return chosen.reshape(batch, -1, width)
