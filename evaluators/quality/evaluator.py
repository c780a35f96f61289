"""How right a design is: trained by one protocol, judged on validation, on test only at the end."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from evaluators.data import DataSet, Sample, Split
from evaluators.data.answers import all_alike, answers_of, is_right, targets_of
from evaluators.evaluation import Evaluation
from evaluators.quality.exporter import NetworkExporter
from evaluators.quality.trainer import DesignTrainer, Progress
from evaluators.statistics.accuracy import measures_of
from evaluators.statistics.paired import Correct, correct_rows
from evaluators.training.check import TrainingCheck, answer
from evaluators.training.config import TrainingProtocol
from evaluators.training.loop import predict
from search_space.design.genotype import Genotype, Precision

MOST_LOST = 10.0
"""Percent points that a reduced precision may cost before it is reported as the cause."""


class QualityEvaluator:
    """Judges designs as `trainer` trains them.

    `evaluate` sees train and validation alone; `test` is for the end of a study.
    """

    def __init__(self, trainer: DesignTrainer) -> None:
        self.trainer, self.exporter = trainer, NetworkExporter(trainer)

    @property
    def data(self) -> DataSet:
        """What designs are trained and judged on."""
        return self.trainer.data

    @property
    def protocol(self) -> TrainingProtocol:
        """What designs are trained by."""
        return self.trainer.plan.protocol

    def other(
        self,
        data: DataSet | None = None,
        protocol: TrainingProtocol | None = None,
        progress: Progress | None = None,
        whole: bool | None = None,
    ) -> "QualityEvaluator":
        """An evaluator like this one, on other data, by another protocol or on another rung."""
        return QualityEvaluator(self.trainer.other(data, protocol, progress, whole))

    def prepare(self) -> None:
        """Fine-tunes every trunk alone, where the protocol asks for it and it is not kept yet."""
        self.trainer.prepare()

    def key(self, genotype: Genotype) -> str:
        """Design, data, protocol, seed, and the weights that the trunks start from."""
        return self.trainer.keys.quality(genotype)

    def evaluate(self, genotype: Genotype) -> Evaluation:
        """Trains the design and judges it on the validation split.

        A design in reduced precision is judged by running its ONNX in that precision; how far its
        logits are from torch's is in the details. Raises NotFiniteError where training diverges,
        OSError where its weights cannot be kept.
        """
        correct, details = self._trained_and_judged(genotype, "valid")
        measures = measures_of(correct, self.data.split("valid"))
        return Evaluation(self.key(genotype), "quality", measures, details)

    def out_of_fold(self, genotype: Genotype) -> tuple[Correct, dict[str, Any]]:
        """`evaluate` on the part of a fold that neither trained nor stopped the design.

        Right answers (1, N) in the order of that part, and the details. The weights are not
        kept: designs are exported as the standard split trains them. Raises ValueError for data
        that are no fold: their test split is for the end.
        """
        if not self.data.cut_from:
            raise ValueError(f"{self.data.name} is no fold: its test split is for `test` alone")
        try:
            return self._trained_and_judged(genotype, "test")
        finally:
            self.trainer.forget_weights(genotype)

    def _trained_and_judged(
        self, genotype: Genotype, split: Split
    ) -> tuple[Correct, dict[str, Any]]:
        """Right answers (1, N) of the design, newly trained, and how its training went."""
        trained, plan = self.trainer.train(genotype), self.trainer.plan
        examples = trained.valid if split == "valid" else self.trainer.examples(genotype, split)
        samples, known = self.data.split(split), trained.logits if split == "valid" else None
        found = predict(trained.module, examples) if known is None else known
        logits = found.cpu().numpy()
        told: dict[str, Any] = {}
        if trained.merged_distance is not None:
            told["merged_distance_max"] = trained.merged_distance
        constant, reason = trained.check.constant, trained.check.reason
        if genotype.precision != "fp32":
            exported = self.exporter.logits(genotype, samples)
            difference = np.abs(exported - logits)
            told["torch_distance_max"] = float(difference.max())
            told["torch_distance_mean"] = float(difference.mean())
            if not reason:
                constant, reason = lost_in(
                    genotype.precision, logits, exported, samples, trained.check
                )
            logits = exported
        correct, done = _correct(logits, samples), trained.fit
        return correct, {
            "fidelity": plan.fidelity(genotype),
            "split": split,
            "epochs": done.epochs,
            "best_epoch": done.best_epoch,
            "seconds": round(done.seconds, 3),
            "waited_s": round(done.waited_s, 3),
            "attempts": trained.attempts,
            "probe_percent": trained.check.probe,
            "constant": constant,
            "did_not_train": reason,
            "right": correct_rows(correct),
            **told,
        }

    def test_key(self, genotype: Genotype) -> str:
        """The content key of the design's test evaluation."""
        return self.trainer.keys.test(genotype)

    def test(self, genotype: Genotype) -> Evaluation:
        """Judges a trained design on the test split; for the end of a study only."""
        samples = self.data.split("test")
        correct = _correct(self.logits(genotype, "test"), samples)
        details = {"split": "test", "seed": self.protocol.seed, "right": correct_rows(correct)}
        return Evaluation(self.test_key(genotype), "test", measures_of(correct, samples), details)

    def logits(self, genotype: Genotype, split: Split) -> np.ndarray:
        """Logits (N, classes) of the trained design on a split, in its precision."""
        if genotype.precision != "fp32":
            return self.exporter.logits(genotype, self.data.split(split))
        part = self.trainer.trained_part(genotype).to(self.trainer.compute_device)
        found: np.ndarray = predict(part, self.trainer.examples(genotype, split)).cpu().numpy()
        return found


def lost_in(
    precision: Precision,
    in_fp32: np.ndarray,
    reduced: np.ndarray,
    samples: Sequence[Sample],
    check: TrainingCheck,
) -> tuple[bool, str]:
    """Whether a reduced precision takes so much accuracy that it says little of the design.

    Args:
        precision: of the exported network.
        in_fp32: (N, classes) logits of the trained network.
        reduced: (N, classes) those of the exported one.
        samples: the N samples.
        check: what the trained network answers on validation, in fp32.

    Returns:
        Whether the exported network gives one answer to samples that differ in theirs, and the
        reason in words; empty where it loses at most MOST_LOST points and is not below the linear
        probe that trainings are checked against.
    """
    before, after = (100 * float(_correct(each, samples).mean()) for each in (in_fp32, reduced))
    targets = targets_of(samples, reduced.shape[-1])
    sets = targets.ndim == 2
    constant = not all_alike(targets) and all_alike(answers_of(reduced, sets))
    judged = replace(check, accuracy=check.accuracy - (before - after), constant=constant)
    if not judged.failed and before - after <= MOST_LOST:
        return False, ""
    what = f"the same {answer(sets)} for every sample, " if constant else ""
    beside = f"; {judged.probe_in_words}" if judged.below_probe else ""
    return constant, f"lost in {precision}: {what}{after:.1f} %, {before:.1f} % in fp32{beside}"


def _correct(logits: np.ndarray, samples: Sequence[Sample]) -> Correct:
    """(1, N): 1.0 where the logits (N, classes) answer the sample's class or classes."""
    correct: Correct = is_right(logits, targets_of(samples, logits.shape[-1]))[None].astype(float)
    return correct
