"""How much of its accuracy a trained design keeps when what its fusion reads becomes noisy."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evaluators.data import Split
from evaluators.evaluation import Evaluation, Measure, content_key
from evaluators.features.fusion_inputs import FusionInputs, batches_of, inputs_of
from evaluators.quality.trainer import DesignTrainer
from evaluators.training.targets import is_right
from search_space.design.genotype import Genotype
from search_space.encoders.features import Feature
from search_space.modality import Modality
from search_space.network.network import Fusion

POINTS = 20
"""Noise factors of a curve, 0 among them."""
AT_ONCE_BYTES = 2**24
"""What a fusion reads at once, of all factors: more leaves the caches (tokens of MobileNetV2 take
2.5 times as long at 160 MB)."""
SEED = 0
ROBUSTNESS_VERSION = 2
"""Part of every key: raise it when robustness comes to be found in another way."""
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Noise:
    """Gaussian noise on what a fusion reads, as Product Fusion's authors put it on embeddings.

    To every feature comes factor x n with n ~ N(mean, deviation) of that channel over the training
    split. greatest: the greatest factor, above 0; a curve has POINTS equally far apart from 0 on
    (theirs: 0 to 0.95). Raises ValueError for a factor that is no positive number.
    """

    greatest: float = 0.95

    def __post_init__(self) -> None:
        if not 0 < self.greatest < np.inf:
            raise ValueError(f"noise factor {self.greatest}: give a number above 0, as 0.95")

    @property
    def factors(self) -> Tensor:
        """(POINTS,), from 0 to the greatest."""
        return torch.linspace(0, self.greatest, POINTS)


class RobustnessEvaluator:
    """Accuracy over noise on each modality and on all, of a design as it was trained.

    Noise is drawn once for each sample and scaled by every factor, so a curve is as smooth as the
    design; all factors are read in one pass. Nothing is trained, but where the design's weights
    are not kept.
    """

    def __init__(self, trainer: DesignTrainer, noise: Noise, split: Split = "valid") -> None:
        self._trainer, self._noise, self._split = trainer, noise, split

    def key(self, genotype: Genotype) -> str:
        """Of the trained design, the noise and the split."""
        conditions = {
            "quality": self._trainer.keys.quality(genotype),
            "noise": [self._noise.greatest, POINTS, SEED],
            "split": self._split,
            "recipe": ROBUSTNESS_VERSION,
        }
        return content_key("robustness", conditions)

    def evaluate(self, genotype: Genotype) -> Evaluation:
        """Areas under the curves of accuracy over the noise factor, in percent.

        "robustness_text", "robustness_vision", "robustness_audio" and "robustness_both" (of three
        "robustness_all"), as far as the design has these: the mean accuracy over the curve by the
        trapezoidal rule. "robustness": the mean of these. Details hold the curves, in percent by
        factor. A design in reduced precision is looked at in fp32, as it was trained.
        """
        trainer = self._trainer
        fusion, network = trainer.trained_fusion(genotype)
        spread = _spread(batches_of(network, trainer.examples(genotype, "train")))
        examples = trainer.examples(genotype, self._split)
        seen, fusion = inputs_of(network, examples), fusion.cpu().eval()
        factors = self._noise.factors
        curves: dict[str, Floats] = {}
        for name, noisy in _targets(genotype).items():
            correct = _correct(fusion, seen, examples.labels, spread, noisy, factors)
            curves[name] = 100 * correct.mean(1)
        areas = {
            name: float(np.trapezoid(curve, factors.numpy()) / self._noise.greatest)
            for name, curve in curves.items()
        }
        measures = [
            Measure(f"robustness_{name}", area, "%", "higher") for name, area in areas.items()
        ]
        overall = float(np.mean(list(areas.values())))
        measures.append(Measure("robustness", overall, "%", "higher"))
        details: dict[str, Any] = {
            "split": self._split,
            "factors": [round(float(factor), 4) for factor in factors],
            "curves": {name: curve.round(3).tolist() for name, curve in curves.items()},
        }
        return Evaluation(self.key(genotype), "robustness", tuple(measures), details)


def _targets(genotype: Genotype) -> dict[str, tuple[Modality, ...]]:
    """Where noise is put, by the curve's name."""
    found: dict[str, tuple[Modality, ...]] = {m: (m,) for m in genotype.encoders}
    if len(found) > 1:
        found["both" if len(found) == 2 else "all"] = tuple(genotype.encoders)
    return found


@dataclass(frozen=True)
class _Channels:
    """Of one feature over a split, a channel each: mean and standard deviation."""

    mean: Tensor
    deviation: Tensor


def _spread(batches: Iterable[FusionInputs]) -> dict[Feature, _Channels]:
    """Mean and deviation of each channel of each feature; padding is left out.

    Summed by batch in single precision, about the first batch's mean, so that nothing is lost in
    channels whose mean is far from 0; over batches in double.
    """
    about: dict[Feature, Tensor] = {}
    sums: dict[Feature, list[Tensor]] = {}
    for batch in batches:
        for feature, tensor in batch.features.items():
            rows = _rows(feature, tensor, batch.mask).float()
            rows = rows - about.setdefault(feature, rows.mean(0))
            count = torch.tensor(float(len(rows)), dtype=torch.float64)
            parts = [count, rows.sum(0).double(), rows.square().sum(0).double()]
            known = sums.get(feature)
            sums[feature] = (
                parts if known is None else [a + b for a, b in zip(known, parts, strict=True)]
            )
    found = {}
    for feature, (count, total, squares) in sums.items():
        mean = total / count
        deviation = (squares / count - mean.square()).clamp(min=0).sqrt()
        found[feature] = _Channels((about[feature] + mean).float(), deviation.float())
    return found


def _rows(feature: Feature, tensor: Tensor, mask: Tensor | None) -> Tensor:
    """(rows, C): every vector of a feature, of cells and tokens too, but for padding."""
    if feature.form == "grid":
        return tensor.movedim(1, -1).flatten(0, -2)
    if feature.over_text and mask is not None:
        return tensor[:, : mask.shape[1]][mask.bool()]
    return tensor.flatten(0, -2)


def _correct(
    fusion: Fusion,
    seen: FusionInputs,
    labels: Tensor,
    spread: dict[Feature, _Channels],
    noisy: tuple[Modality, ...],
    factors: Tensor,
) -> Floats:
    """Which samples are right under each factor: (factors, N)."""
    generator = torch.Generator().manual_seed(SEED)
    parts = []
    each = len(factors) * sum(4 * tensor[0].numel() for tensor in seen.features.values())
    size = max(1, AT_ONCE_BYTES // each)
    with torch.inference_mode():
        for at in torch.arange(len(labels)).split(size):  # type: ignore[no-untyped-call]
            own = seen.at(at)
            features = {}
            for feature, tensor in own.features.items():
                stacked = tensor.expand(len(factors), *tensor.shape)
                if feature.modality in noisy:
                    noise = _drawn(feature, tensor, spread[feature], generator)
                    scale = factors.view(-1, *[1] * tensor.dim())
                    stacked = torch.addcmul(tensor, scale, noise)
                features[feature] = stacked.flatten(0, 1)
            mask = own.mask
            if mask is not None:
                mask = mask.expand(len(factors), *mask.shape).flatten(0, 1)
            logits = fusion(features, mask).view(len(factors), len(at), -1)
            parts.append(is_right(logits, labels[at]))
    return torch.cat(parts, dim=1).double().numpy()


def _drawn(
    feature: Feature, tensor: Tensor, channels: _Channels, generator: torch.Generator
) -> Tensor:
    """Noise for every vector of a feature, as its channels are spread."""
    drawn = torch.randn(tensor.shape, generator=generator)
    shape = (-1, 1, 1) if feature.form == "grid" else (-1,)
    return channels.mean.view(shape) + channels.deviation.view(shape) * drawn
