"""Right answers as tensors: classes (N,), or of multi-label data which classes (N, C)."""

from torch import Tensor
from torch.nn import functional as F


def is_multi_label(labels: Tensor) -> bool:
    """Whether labels are (N, C), a float of 1 or 0 for every class of a sample."""
    return labels.dim() == 2


def mean_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean cross-entropy of logits (N, C); of multi-label data that of each class.

    The latter is the binary cross-entropy of independent classes, all of one weight.
    """
    if is_multi_label(labels):
        return F.binary_cross_entropy_with_logits(logits, labels)
    return F.cross_entropy(logits, labels)


def answers_of(logits: Tensor, multi_label: bool) -> Tensor:
    """Return what logits (..., C) answer: classes (...), or a truth for each class (..., C)."""
    return logits > 0 if multi_label else logits.argmax(-1)


def is_right(logits: Tensor, labels: Tensor) -> Tensor:
    """Return whether logits (..., N, C) answer the labels: (..., N).

    Of multi-label data an answer is right where it is right for every class.
    """
    several = is_multi_label(labels)
    same = answers_of(logits, several) == (labels.bool() if several else labels)
    return same.all(-1) if several else same
