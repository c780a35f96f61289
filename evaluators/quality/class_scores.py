"""How well a trained design does by class and score, and objectives of plugins."""

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
from scipy.special import softmax

from evaluators.data import Split
from evaluators.data.answers import answers_of, targets_of
from evaluators.data.score_classes import class_values, targets
from evaluators.evaluation import Evaluation, Measure, content_key
from evaluators.objectives import PredictionObjective, measures_of
from evaluators.quality.exporter import NetworkExporter
from evaluators.quality.trainer import DesignTrainer
from evaluators.statistics.set_scores import set_measures
from evaluators.training.loop import predict
from search_space.design.genotype import Genotype

CLASS_SCORES_VERSION = 2
"""Part of every key: raise it when scores come to be computed in another way."""
RESAMPLES, SEED = 2000, 0
Labels = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


class ClassScoresEvaluator:
    """Scores by class of a trained design, in its precision, on one split."""

    def __init__(
        self,
        trainer: DesignTrainer,
        split: Split = "valid",
        objectives: Mapping[str, PredictionObjective] | None = None,
        origins: Mapping[str, str] | None = None,
    ) -> None:
        """`objectives` of plugins by name, and package and version of each."""
        self._trainer, self._split = trainer, split
        self._objectives, self._origins = objectives or {}, dict(origins or {})

    def key(self, genotype: Genotype) -> str:
        """Of the design, all that its training depends on, the split, and versions of plugins."""
        conditions: dict[str, object] = {
            "trained": self._trainer.keys.quality(genotype),
            "split": self._split,
        }
        if self._origins:
            conditions["objectives"] = self._origins
        return content_key("class scores", {**conditions, "recipe": CLASS_SCORES_VERSION})

    def evaluate(self, genotype: Genotype) -> Evaluation:
        """Macro-F1 in percent, as "macro_f1", with a 95 % bootstrap interval over samples.

        Of multi-label data the figures of `set_measures`. Where classes are numbers also "mae" and
        "correlation" of the expected score: the mean of these numbers under the predicted
        probabilities. Beside them the figure of each objective of a plugin. Raises ObjectiveError
        for one that is not a finite number.
        """
        trainer = self._trainer
        samples = trainer.data.split(self._split)
        if genotype.precision == "fp32":
            part = trainer.trained_part(genotype).to(trainer.compute_device)
            logits = predict(part, trainer.examples(genotype, self._split)).cpu().numpy()
        else:
            logits = NetworkExporter(trainer).logits(genotype, samples)
        labels, count = targets_of(samples, len(trainer.data.classes)), len(trainer.data.classes)
        if trainer.data.multi_label:
            of_sets = tuple(set_measures(logits, labels))
            return Evaluation(self.key(genotype), "class scores", of_sets, {"split": self._split})
        predicted = answers_of(logits, multi_label=False)
        low, high = interval(
            lambda rows: macro_f1(labels[rows], predicted[rows], count), len(labels)
        )
        value = macro_f1(labels, predicted, count)
        measures = [Measure("macro_f1", value, "%", "higher", low, high)]
        numbers, scores = class_values(trainer.data.classes), targets(trainer.data, self._split)
        if numbers is not None and scores is not None:
            measures += score_measures(softmax(logits.astype(np.float64), axis=1) @ numbers, scores)
        measures += measures_of(self._objectives, logits, labels)
        return Evaluation(
            self.key(genotype), "class scores", tuple(measures), {"split": self._split}
        )


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


def score_measures(predicted: Floats, scores: Floats) -> list[Measure]:
    """Mean absolute error and Pearson correlation, each with a 95 % bootstrap interval.

    Args:
        predicted, scores: (N,), in units of the score.
    """
    mae = float(np.abs(predicted - scores).mean())
    low, high = interval(lambda rows: np.abs(predicted - scores)[rows].mean(), len(scores))
    pearson = correlation(predicted, scores)
    least, most = interval(lambda rows: correlation(predicted[rows], scores[rows]), len(scores))
    return [
        Measure("mae", mae, "", "lower", low, high),
        Measure("correlation", pearson, "", "higher", least, most),
    ]


def correlation(one: Floats, other: Floats) -> float:
    """Pearson's correlation; 0 where one of the two does not vary, which has none."""
    a, b = one - one.mean(), other - other.mean()
    size = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / size if size > 0 else 0.0


def interval(figure: Callable[[Labels], float], count: int) -> tuple[float, float]:
    """2.5th and 97.5th percentile over bootstrap samples of a figure of some rows of `count`."""
    rng = np.random.default_rng(SEED)
    scores = []
    for _ in range(RESAMPLES):  # one at a time: all of them would be 2000 x N indices
        scores.append(figure(rng.integers(0, count, count)))
    low, high = np.quantile(scores, [0.025, 0.975])
    return float(low), float(high)
