"""How right a trained design stays when its pictures or texts are spoilt."""

import numpy as np

from evaluators.data import Split
from evaluators.data.answers import is_right, targets_of
from evaluators.evaluation import Evaluation, content_key
from evaluators.features.corruptions import CORRUPTIONS, MOST_SEVERE, corrupted
from evaluators.quality.trainer import DesignTrainer
from evaluators.statistics.accuracy import measures_of
from evaluators.statistics.paired import Correct, correct_rows
from evaluators.training.loop import predict
from search_space.design.genotype import Genotype

STRESS_VERSION = 1
"""Part of every key: raise it when a design comes to be stressed in another way."""


class StressEvaluator:
    """Judges a design, as it was trained on inputs as they are, on spoilt ones.

    The whole network reads the spoilt inputs: no kept feature is used, so it takes a forward pass
    over the split. A design in a reduced precision is judged in fp32, as it was trained.
    """

    def __init__(
        self, trainer: DesignTrainer, name: str, severity: int, split: Split = "valid"
    ) -> None:
        """Severity 0 spoils nothing. Raises ValueError for an unknown corruption or severity."""
        self._trainer, self._split = trainer, split
        self._name, self._severity = name, severity
        self._data = corrupted(trainer.data, name, severity, split=split)

    def key(self, genotype: Genotype) -> str:
        """Of the trained design, the corruption and the split."""
        spoilt = [self._name, self._severity] if self._severity else None
        conditions = {"quality": self._trainer.keys.quality(genotype), "spoilt": spoilt}
        return content_key("stress", {**conditions, "split": self._split, "recipe": STRESS_VERSION})

    def evaluate(self, genotype: Genotype) -> Evaluation:
        """Accuracy in percent on the spoilt split; details hold which samples were right."""
        trainer, samples = self._trainer, self._data.split(self._split)
        network = trainer.trained(genotype).to(trainer.compute_device)
        logits = predict(network, trainer.inputs.raw_of(genotype, samples)).cpu().numpy()
        targets = targets_of(samples, logits.shape[-1])
        correct: Correct = is_right(logits, targets)[None].astype(np.float64)
        details = {"split": self._split, "right": correct_rows(correct)}
        return Evaluation(self.key(genotype), "stress", measures_of(correct, samples), details)


def reads(genotype: Genotype, name: str) -> bool:
    """Whether the design reads what this corruption spoils."""
    return CORRUPTIONS[name].modality in genotype.encoders  # type: ignore[index]


SEVERITIES = tuple(range(1, MOST_SEVERE + 1))
