"""Rung 1: what a design's taps tell of the classes, in closed form, before anything is trained."""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from torch import Tensor, nn

from evaluators.evaluation import Evaluation, Measure, NotFiniteError, content_key
from evaluators.quality.trainer import DesignTrainer
from evaluators.training.loop import predict
from search_space.design.genotype import Genotype
from search_space.encoders.features import Feature

RIDGE = 3.0
"""Added to the diagonal of the features' correlations. Of 0.1 to 300 the one whose ranks agree best
with training, over 140 pairs of taps of the table `fusion-1152` (Kendall's tau 0.76)."""
PROBE_VERSION = 2
"""Part of every probe's key: raise it when a design comes to be probed in another way."""
Floats = NDArray[np.float32]


class ProbeEvaluator:
    """Ridge regression from a design's taps to its classes, judged on validation.

    The features are those of the design's taps on frozen trunks, averaged over tokens and cells;
    fusion and head are left out, so designs that differ in nothing else are probed alike. One
    linear system in place of some hundred steps: it ranks designs for a fraction of what training
    costs, and is no figure of a trained design. The test split is never seen.
    """

    def __init__(self, trainer: DesignTrainer) -> None:
        self._trainer = trainer

    def key(self, genotype: Genotype) -> str:
        """Of what is read of the taps, and of the data: designs over the same taps share it."""
        return content_key(
            "probe", {"features": self._trainer.keys.features(genotype), "recipe": PROBE_VERSION}
        )

    def evaluate(self, genotype: Genotype) -> Evaluation:
        """How much of the classes' spread over validation the regression explains, as "probe_r2".

        In percent: 100 where it is right and sure everywhere, 0 for always naming the shares of
        the classes in training, below 0 for worse. It tells neighbouring designs apart better than
        the share of right answers, of which there are few. Raises NotFiniteError for features that
        are not finite numbers, OSError where they cannot be kept.
        """
        trainer = self._trainer
        trainer.prepare()
        train, valid = (trainer.inputs.kept(genotype, split) for split in ("train", "valid"))
        seen, asked = (predict(_Means(), examples).cpu().numpy() for examples in (train, valid))
        if not (np.isfinite(seen).all() and np.isfinite(asked).all()):
            raise NotFiniteError(f"features of {genotype.describe()}: not finite, so not probed")
        classes = np.eye(len(trainer.data.classes), dtype=np.float32)
        wanted, right = (classes[each.labels.numpy()] for each in (train, valid))
        off = ((ridge(seen, wanted, asked, RIDGE) - right) ** 2).sum()
        explained = 100 * (1 - float(off / ((wanted.mean(0) - right) ** 2).sum()))
        return Evaluation(
            self.key(genotype), "probe", (Measure("probe_r2", explained, "%", "higher"),)
        )


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
