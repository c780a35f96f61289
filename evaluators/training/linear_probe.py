"""Linear probe: ridge regression from the taps of a design to classes, in closed form."""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from torch import Tensor, nn

from evaluators.evaluation import NotFiniteError
from evaluators.features.examples import Examples
from evaluators.training.loop import predict
from evaluators.training.targets import is_multi_label
from search_space.encoders.features import Feature

Floats = NDArray[np.float32]


def probe_scores(train: Examples, asked: Examples, classes: int, strength: float) -> Floats:
    """Return scores (M, classes) of a ridge regression from mean taps to classes, 1 or 0 each.

    Args:
        train: Cached features that the regression is fitted on.
        asked: Cached features that it is asked about, M samples.
        classes: How many classes there are.
        strength: Of the penalty, see `ridge`.

    Raises:
        NotFiniteError: A feature has NaN or infinite values.
    """
    seen, wanted = (predict(_Means(), examples).cpu().numpy() for examples in (train, asked))
    if not (np.isfinite(seen).all() and np.isfinite(wanted).all()):
        raise NotFiniteError("features are not finite, so not probed")
    return ridge(seen, as_rows(train.labels, classes), wanted, strength)


def as_rows(labels: Tensor, classes: int) -> Floats:
    """Return 1 for the classes of each sample, else 0: (N, classes)."""
    if is_multi_label(labels):
        return np.asarray(labels.numpy(), np.float32)
    found: Floats = np.eye(classes, dtype=np.float32)[labels.numpy()]
    return found


class _Means(nn.Module):
    """What the regression reads of a batch, in the place of a fusion: (B, D), all taps' means."""

    def forward(self, features: Mapping[Feature, Tensor], mask: Tensor | None) -> Tensor:
        return torch.cat([_mean(f, features[f], mask) for f in sorted(features)], dim=1)


def _mean(feature: Feature, tensor: Tensor, mask: Tensor | None) -> Tensor:
    """(B, C) of a feature: over its tokens, padding left out, or over its cells."""
    if feature.form == "grid":
        return tensor.mean((2, 3))
    if feature.form != "tokens":
        return tensor
    if feature.modality != "text" or mask is None:
        return tensor.mean(1)
    seen = mask.unsqueeze(2).to(tensor.dtype)
    return (tensor * seen).sum(1) / seen.sum(1).clamp(min=1)


def ridge(seen: Floats, wanted: Floats, asked: Floats, strength: float) -> Floats:
    """Scores (M, K) for `asked` (M, D) from pairs of `seen` (N, D) and `wanted` (N, K).

    Features are brought to mean 0 and deviation 1 over `seen`; of the two forms of the linear
    system the smaller one is solved. Features that do not vary count for nothing.
    """
    mean, deviation = seen.mean(0), seen.std(0)
    scale = np.where(deviation > 1e-6, deviation, np.inf)
    seen, asked = (seen - mean) / scale, (asked - mean) / scale
    middle = wanted.mean(0)
    added = strength * len(seen)
    if seen.shape[1] <= len(seen):
        scatter = seen.T @ seen
        scatter[np.diag_indices_from(scatter)] += added
        found = asked @ cho_solve(cho_factor(scatter), seen.T @ (wanted - middle))
    else:
        products = seen @ seen.T
        products[np.diag_indices_from(products)] += added
        found = (asked @ seen.T) @ cho_solve(cho_factor(products), wanted - middle)
    return np.asarray(found + middle)
