"""Selection by cross-validation: every sample of train and valid is judged once, by a network that
never saw its group. The test split is not part of any fold."""

from collections.abc import Sequence

import numpy as np

from evaluators.data.folds import fold, pool
from evaluators.evaluation import Evaluation, content_key
from evaluators.quality.evaluator import QualityEvaluator
from evaluators.quality.trainer import Progress
from evaluators.statistics.accuracy import measures_of
from evaluators.statistics.paired import Correct, correct_rows
from search_space.design.genotype import Genotype

FOLDS = 5


class CrossValidatedEvaluator:
    """Judges designs by their predictions out of fold, pooled over all of train and valid.

    Each fold has trunks, tokenizers, weights and keys of its own, made from its training part
    alone; only features of trunks that no fold has tuned are shared, for they depend on no split.
    A design costs as many trainings as there are folds. The networks of the folds are not kept:
    what is tested and exported at the end is trained by the standard split.
    """

    def __init__(
        self, standard: QualityEvaluator, folds: int = FOLDS, progress: Progress | None = None
    ) -> None:
        """Cuts the data of `standard`. Raises DataError where they cannot be cut."""
        self.samples = pool(standard.data)
        """What a design is judged on, in the order of the right answers."""
        self._folds = [
            standard.other(fold(standard.data, k, folds), progress=_in_fold(progress, k, folds))
            for k in range(folds)
        ]

    def prepare(self) -> None:
        """Fine-tunes every trunk alone in every fold, where the protocol asks for it."""
        for evaluator in self._folds:
            evaluator.prepare()

    def key(self, genotype: Genotype) -> str:
        """The keys of the design in all folds."""
        keys = [evaluator.key(genotype) for evaluator in self._folds]
        return content_key("quality", {"folds": keys})

    def evaluate(self, genotype: Genotype) -> Evaluation:
        """Trains the design in every fold and pools what it says of the part left out.

        The accuracy is over all samples of train and valid, each judged once. Raises what
        `QualityEvaluator.evaluate` raises.
        """
        found = [evaluator.out_of_fold(genotype) for evaluator in self._folds]
        correct = self._pooled([correct for correct, _ in found])
        told = [details for _, details in found]
        details = {
            "fidelity": told[0]["fidelity"],
            "split": f"{len(told)}-fold cross-validation over train and valid",
            "epochs": [part["epochs"] for part in told],
            "best_epoch": [part["best_epoch"] for part in told],
            "seconds": round(sum(part["seconds"] for part in told), 3),
            "percent": [100 * float(part.mean()) for part, _ in found],
            "right": correct_rows(correct),
            "attempts": max(part["attempts"] for part in told),
            "constant": all(part["constant"] for part in told),
            "did_not_train": _failures([part["did_not_train"] for part in told]),
        }
        if "torch_distance_max" in told[0]:  # of a reduced precision
            details["torch_distance_max"] = max(part["torch_distance_max"] for part in told)
        return Evaluation(
            self.key(genotype), "quality", measures_of(correct, self.samples), details
        )

    def _pooled(self, parts: Sequence[Correct]) -> Correct:
        """Right answers (1, N) in the order of `samples`, from those of each fold's part."""
        by_id: dict[str, float] = {}
        for evaluator, correct in zip(self._folds, parts, strict=True):
            judged = evaluator.data.split("test")
            by_id |= {s.id: float(hit) for s, hit in zip(judged, correct[0], strict=True)}
        return np.array([[by_id[sample.id] for sample in self.samples]])


def _failures(reasons: Sequence[str]) -> str:
    """In how many folds training failed, and how in the first of them; empty for none."""
    failed = [reason for reason in reasons if reason]
    return f"in {len(failed)} of {len(reasons)} folds {failed[0]}" if failed else ""


def _in_fold(progress: Progress | None, k: int, folds: int) -> Progress | None:
    if progress is None:
        return None

    def told(what: str, done: int, total: int) -> None:
        progress(f"fold {k + 1} of {folds}: {what}", done, total)

    return told
