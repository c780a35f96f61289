"""How well a trained design does by class: macro-F1."""

import numpy as np
import numpy.typing as npt

from evaluators.data import Split
from evaluators.evaluation import Evaluation, Measure, content_key
from evaluators.quality.exporter import NetworkExporter
from evaluators.quality.trainer import DesignTrainer
from evaluators.training.loop import predict
from search_space.design.genotype import Genotype

CLASS_SCORES_VERSION = 1
"""Part of every key: raise it when scores come to be computed in another way."""
RESAMPLES, SEED = 2000, 0
Labels = npt.NDArray[np.int64]


class ClassScoresEvaluator:
    """Scores by class of a trained design, in its precision, on one split."""

    def __init__(self, trainer: DesignTrainer, split: Split = "valid") -> None:
        self._trainer, self._split = trainer, split

    def key(self, genotype: Genotype) -> str:
        """Of the design, all that its training depends on, and the split."""
        conditions = {"trained": self._trainer.keys.quality(genotype), "split": self._split}
        return content_key("class scores", {**conditions, "recipe": CLASS_SCORES_VERSION})

    def evaluate(self, genotype: Genotype) -> Evaluation:
        """Macro-F1 in percent, as "macro_f1", with a 95 % bootstrap interval over samples."""
        trainer = self._trainer
        samples = trainer.data.split(self._split)
        if genotype.precision == "fp32":
            part = trainer.trained_part(genotype).to(trainer.compute_device)
            logits = predict(part, trainer.examples(genotype, self._split)).cpu().numpy()
        else:
            logits = NetworkExporter(trainer).logits(genotype, samples)
        labels = np.array([sample.label for sample in samples], dtype=np.int64)
        predicted, count = logits.argmax(1).astype(np.int64), len(trainer.data.classes)
        low, high = interval(labels, predicted, count)
        value = macro_f1(labels, predicted, count)
        measure = Measure("macro_f1", value, "%", "higher", low, high)
        return Evaluation(self.key(genotype), "class scores", (measure,), {"split": self._split})


def macro_f1(labels: Labels, predicted: Labels, classes: int) -> float:
    """Mean over classes of the F1 score, in percent.

    A class that is neither there nor predicted is left out; one that is predicted for none of its
    samples counts as 0.

    Args:
        labels, predicted: classes, (N,).
        classes: how many there are.
    """
    pairs = np.bincount(labels * classes + predicted, minlength=classes * classes)
    table = pairs.reshape(classes, classes)
    either = table.sum(0) + table.sum(1)
    there = either > 0
    return 100 * float((2 * table.diagonal()[there] / either[there]).mean())


def interval(labels: Labels, predicted: Labels, classes: int) -> tuple[float, float]:
    """2.5th and 97.5th percentile of macro-F1 over bootstrap samples."""
    rng, count = np.random.default_rng(SEED), len(labels)
    drawn = rng.integers(0, count, (RESAMPLES, count))
    scores = [macro_f1(labels[rows], predicted[rows], classes) for rows in drawn]
    low, high = np.quantile(scores, [0.025, 0.975])
    return float(low), float(high)
