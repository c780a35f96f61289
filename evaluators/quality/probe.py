"""Rung 1: what a design's taps tell of the classes, in closed form, before anything is trained."""

from evaluators.evaluation import Evaluation, Measure, NotFiniteError, content_key
from evaluators.quality.trainer import DesignTrainer
from evaluators.training.linear_probe import as_rows, probe_scores
from search_space.design.genotype import Genotype

RIDGE = 3.0
"""Added to the diagonal of the features' correlations. Of 0.1 to 300 the one whose ranks agree best
with training, over 140 pairs of taps of the table `fusion-1152` (Kendall's tau 0.76)."""
PROBE_VERSION = 2
"""Part of every probe's key: raise it when a design comes to be probed in another way."""


class ProbeEvaluator:
    """Ridge regression from a design's taps to its classes, judged on validation.

    The features are those of the design's taps on frozen trunks, averaged over tokens and cells;
    fusion and head are left out, so designs that differ in nothing else are probed alike. One
    linear system instead of some hundred steps: it ranks designs for a fraction of what training
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
        classes = len(trainer.data.classes)
        try:
            scores = probe_scores(train, valid, classes, RIDGE)
        except NotFiniteError as error:
            raise NotFiniteError(f"{genotype.describe()}: {error}") from error
        wanted, right = (as_rows(each.labels, classes) for each in (train, valid))
        off = ((scores - right) ** 2).sum()
        explained = 100 * (1 - float(off / ((wanted.mean(0) - right) ** 2).sum()))
        return Evaluation(
            self.key(genotype), "probe", (Measure("probe_r2", explained, "%", "higher"),)
        )
