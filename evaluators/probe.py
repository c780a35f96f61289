"""Rung 1: what a design's taps tell of the classes, in closed form, before anything is trained."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from torch import Tensor, nn

from evaluators.evaluation import Evaluation, content_key
from evaluators.figures import measures_of
from evaluators.quality import QualityEvaluator
from evaluators.training import predict
from search_space.features import Feature
from search_space.genotype import Genotype
from search_space.network import Fusion

RIDGE = 0.3
"""Added to the diagonal of the features' scatter, in samples of unit variance, a sample."""
RECIPE = 1
"""Part of every probe's key: raise it when a design comes to be probed in another way."""
Floats = NDArray[np.float32]


class ProbeEvaluator:
    """Ridge regression from a design's features to its classes, judged on validation.

    The features are those of the design's taps on frozen trunks, averaged over tokens and cells,
    and what its fusion makes of them with the weights that training starts from; the head is left
    out. One linear system in place of some hundred steps: it ranks designs for a fraction of what
    training costs, and is no figure of a trained design. The test split is never seen.
    """

    def __init__(self, quality: QualityEvaluator) -> None:
        self._quality = quality

    def key(self, genotype: Genotype) -> str:
        """Of the design and all that its training depends on."""
        return content_key("probe", {"quality": self._quality.key(genotype), "recipe": RECIPE})

    def evaluate(self, genotype: Genotype) -> Evaluation:
        """Percent of validation that the regression gets right, as "probe_accuracy"."""
        quality = self._quality
        quality.prepare()
        module = _Inputs(quality.new_fusion(genotype))
        train, valid = (quality.kept_features(genotype, split) for split in ("train", "valid"))
        seen, asked = (predict(module, examples).cpu().numpy() for examples in (train, valid))
        classes = np.eye(len(quality.data.classes), dtype=np.float32)[train.labels.numpy()]
        scores = ridge(seen, classes, asked, RIDGE)
        right = (scores.argmax(1) == valid.labels.numpy())[None].astype(np.float64)
        accuracy = replace(
            measures_of(right, quality.data.split("valid"))[0], name="probe_accuracy"
        )
        return Evaluation(self.key(genotype), "probe", (replace(accuracy, name="probe_accuracy"),))


class _Inputs(nn.Module):
    """What the regression reads of a batch, in the place of a fusion."""

    def __init__(self, fusion: Fusion) -> None:
        super().__init__()
        self.branches = fusion.branches

    def forward(self, features: Mapping[Feature, Tensor], mask: Tensor | None) -> Tensor:
        """(B, D): the means of all taps, then what the untrained branches make of them."""
        means = [_mean(feature, features[feature], mask) for feature in sorted(features)]
        return torch.cat([*means, *(branch(features, mask) for branch in self.branches)], dim=1)


def _mean(feature: Feature, tensor: Tensor, mask: Tensor | None) -> Tensor:
    """(B, C) of a feature: over its tokens, padding left out, or over its cells."""
    if feature.form == "grid":
        return tensor.mean((2, 3))
    if feature.form != "tokens":
        return tensor
    if feature.modality == "vision" or mask is None:
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
