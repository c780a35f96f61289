"""What a trained design uses of each modality, and whether it is as sure as it is right."""

from collections.abc import Iterable, Mapping
from itertools import combinations
from math import comb

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evaluators.data import Split
from evaluators.data.answers import is_right, probabilities_of, targets_of
from evaluators.evaluation import Evaluation, Measure, content_key
from evaluators.features.examples import Batch
from evaluators.features.fusion_inputs import FusionInputs, inputs_of
from evaluators.quality.trainer import DesignTrainer
from evaluators.statistics.paired import bootstrapped
from evaluators.training.loop import predict
from search_space.design.genotype import Genotype
from search_space.modality import Modality

SHUFFLES = 5
"""How often every sample is dealt another one of the split; figures are means over these."""
BINS = 15
"""Of the expected calibration error, equally wide (Guo et al. 2017)."""
MODALITY_USE_VERSION = 2
"""Part of every key: raise it when use comes to be found in another way."""
Floats = NDArray[np.float64]
_Part = frozenset[Modality]
"""Some of the modalities, or none, or all."""


class ModalityUseEvaluator:
    """Takes each modality from a trained design, and sees what is left of its right answers.

    Taken away in two ways. Masked: in its place stands a text without words, a picture that is all
    of its set's mean colour, or silence; so a design runs where an input is missing, but the
    network was never trained on those. Shuffled: it is that of another sample of the same split, so
    that every input is a likely one; what a design uses is asked in this way.
    """

    def __init__(self, trainer: DesignTrainer, split: Split = "test") -> None:
        self._trainer, self._split = trainer, split

    def key(self, genotype: Genotype) -> str:
        """Of the design, all that its training depends on, and the split."""
        conditions = {"test": self._trainer.keys.test(genotype), "split": self._split}
        return content_key("modality use", {**conditions, "recipe": MODALITY_USE_VERSION})

    def evaluate(self, genotype: Genotype) -> Evaluation:
        """What the design uses, with 95 % intervals over the samples; of fp32, as trained.

        "accuracy_without_M", "accuracy_shuffled_M": percent right with modality M masked or
        shuffled. "drop_shuffled_M": percent points lost by shuffling M. "shapley_M": M's Shapley
        value in percent points: what it adds on the average over all orders in which modalities
        could come, absent ones being those of one other sample (Lundberg and Lee 2017, with the
        split as background); all add up to the accuracy less "accuracy_shuffled_all". "ece":
        expected calibration error, 0 to 1, over BINS bins of the greatest probability. Raises
        ValueError for a design of one modality.
        """
        if not genotype.is_fused:
            raise ValueError(f"{genotype.describe()}: has one modality, so it uses that")
        masked, shuffled = self._logits(genotype)
        data = self._trainer.data
        labels = targets_of(data.split(self._split), len(data.classes))

        def correct(logits: Floats) -> Floats:
            found: Floats = is_right(logits, labels).astype(float)
            return found

        everything = frozenset(genotype.encoders)
        left = {absent: correct(each).mean(0) for absent, each in shuffled.items()}
        measures = [_percent("accuracy_shuffled_all", left[everything])]
        for modality in genotype.encoders:
            alone = frozenset([modality])
            measures += [
                _percent(f"accuracy_without_{modality}", correct(masked[modality])),
                _percent(f"accuracy_shuffled_{modality}", left[alone]),
                _points(f"drop_shuffled_{modality}", left[frozenset()] - left[alone]),
                _points(f"shapley_{modality}", _shapley(modality, everything, left)),
            ]
        (whole,) = shuffled[frozenset()]
        measures.append(Measure("ece", calibration_error(whole, labels), "", "lower"))
        return Evaluation(
            self.key(genotype), "modality use", tuple(measures), {"split": self._split}
        )

    def _logits(self, genotype: Genotype) -> tuple[dict[Modality, Floats], dict[_Part, Floats]]:
        """Logits (N, classes) with each modality masked, and (SHUFFLES, N, classes) with each part
        of the modalities shuffled; with none shuffled (1, N, classes), the design as it is.
        """
        trainer = self._trainer
        network = trainer.trained(genotype).to(trainer.compute_device)
        examples = trainer.examples(genotype, self._split)
        seen = inputs_of(network, examples)
        nothing = trainer.inputs.nothing_read(genotype, network)
        fusion = network.fusion.cpu()  # small, and so is what it reads

        def reading(source: _Source, absent: Iterable[Modality]) -> Floats:
            mixed = _Mixed(seen, examples.labels, dict.fromkeys(absent, source))
            found: Floats = predict(fusion, mixed).double().numpy()
            return found

        orders = [torch.Generator().manual_seed(k) for k in range(SHUFFLES)]
        own = torch.arange(len(examples.labels))
        others = [torch.randperm(len(own), generator=order) for order in orders]
        shuffled = {
            absent: np.stack([reading(dealt, absent) for dealt in (others if absent else [own])])
            for absent in _parts(genotype.encoders)
        }
        return {m: reading(nothing, [m]) for m in genotype.encoders}, shuffled


def _parts(modalities: Iterable[Modality]) -> list[_Part]:
    """All parts of the modalities, none and all among them."""
    whole = tuple(modalities)
    sizes = range(len(whole) + 1)
    return [frozenset(part) for size in sizes for part in combinations(whole, size)]


def _shapley(modality: Modality, everything: _Part, left: Mapping[_Part, Floats]) -> Floats:
    """(N,): what the modality adds to each answer's being right, over all orders of coming.

    left: (N,) by what is absent.
    """
    others = everything - {modality}
    added = [
        (left[absent] - left[absent | {modality}])
        / (len(everything) * comb(len(others), len(absent)))
        for absent in _parts(others)
    ]
    total: Floats = np.sum(added, axis=0)
    return total


_Source = Tensor | FusionInputs
"""Whose modality stands in the place of a sample's own: places of others (N,), or one for all."""


class _Mixed:
    """Samples of which modalities may be those of others, for a fusion."""

    def __init__(
        self, seen: FusionInputs, labels: Tensor, other: Mapping[Modality, _Source]
    ) -> None:
        self.lengths: Tensor | None = None
        self.groups: Tensor | None = None
        self.labels, self._seen, self._other = labels, seen, other

    def batch(self, indices: Tensor) -> Batch:
        """The samples at `indices` (B,)."""
        modalities = {feature.modality for feature in self._seen.features}
        read = {modality: self._read(modality, indices) for modality in modalities}
        features = {f: t for modality, part in read.items() for f, t in part.of(modality).items()}
        mask = read["text"].mask if "text" in read else None
        return Batch(self.labels[indices], lambda module: module(features, mask))

    def _read(self, modality: Modality, indices: Tensor) -> FusionInputs:
        source = self._other.get(modality)
        if source is None:
            return self._seen.at(indices)
        if isinstance(source, FusionInputs):
            return source.repeated(len(indices))
        return self._seen.at(source[indices])


def calibration_error(logits: Floats, labels: NDArray[np.int64], bins: int = BINS) -> float:
    """Expected calibration error of logits (N, classes), 0 to 1 (Guo et al. 2017).

    Samples are put in `bins` equally wide ones by their greatest probability; in each the share of
    right answers is compared with the mean of that probability, weighted by how many are in it.
    Of multi-label data, with labels (N, classes) of 1 and 0, each class of each sample is a case of
    its own: with the probability of the answer, that the class is there or that it is not.
    """
    if labels.ndim == 2:
        there = probabilities_of(logits, True).ravel()
        sure = np.maximum(there, 1 - there)
        labels = labels.reshape(-1, 1)
        correct = is_right(logits.reshape(-1, 1), labels)
    else:
        probabilities = np.exp(logits - logits.max(1, keepdims=True))
        probabilities /= probabilities.sum(1, keepdims=True)
        sure, correct = probabilities.max(1), probabilities.argmax(1) == labels
    place = np.clip(np.ceil(sure * bins).astype(int) - 1, 0, bins - 1)
    off = [abs(float((correct[place == k] - sure[place == k]).sum())) for k in range(bins)]
    return sum(off) / len(labels)


def _percent(name: str, correct: Floats) -> Measure:
    return Measure(name, 100 * float(correct.mean()), "%", "higher")


def _points(name: str, differences: Floats) -> Measure:
    low, high = bootstrapped(differences)
    value = float(differences.mean())
    bounds = (100 * min(low, value), 100 * max(high, value))
    return Measure(name, 100 * value, "percent points", "neither", *bounds)
