"""Designs are trained and judged on sets of classes, by the evaluators of single classes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from quick_evaluators import QUICK, demo, design, quality
from several import write_several
from sklearn.metrics import average_precision_score, f1_score
from torch import nn

from evaluators.data import DataSet, load
from evaluators.data.answers import answers_of, targets_of
from evaluators.data.folds import fold
from evaluators.evaluation import Measure
from evaluators.features.examples import Batch
from evaluators.quality.class_scores import ClassScoresEvaluator
from evaluators.quality.cross_validation import CrossValidatedEvaluator
from evaluators.quality.evaluator import QualityEvaluator, lost_in
from evaluators.quality.modality_use import ModalityUseEvaluator, calibration_error
from evaluators.quality.probe import ProbeEvaluator
from evaluators.quality.robustness import Noise, RobustnessEvaluator
from evaluators.quality.stress import StressEvaluator
from evaluators.statistics.paired import correct_of
from evaluators.statistics.set_scores import Ranking, set_measures
from evaluators.training.check import TrainingCheck, check_training
from evaluators.training.loop import score
from evaluators.training.targets import is_right, mean_loss

RNG = np.random.default_rng(0)
TARGETS = (RNG.random((120, 4)) < 0.3).astype(np.int64)
LOGITS = (1.5 * TARGETS - 1 + RNG.normal(0, 1, TARGETS.shape)).round(1)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    folder = write_several(tmp_path_factory.mktemp("data") / "set")
    return load(folder, cache=folder.parent / "cache")


@pytest.fixture(scope="module")
def trained(data: DataSet, tmp_path_factory: pytest.TempPathFactory) -> QualityEvaluator:
    made = quality(data, tmp_path_factory.mktemp("home"), QUICK)
    made.evaluate(design())
    return made


class Answers:
    """Validation samples of multi-label data, and a module that answers them with these logits."""

    lengths: torch.Tensor | None = None
    groups: torch.Tensor | None = None

    def __init__(self, logits: np.ndarray, targets: np.ndarray) -> None:
        self.logits = torch.tensor(logits, dtype=torch.float32)
        self.labels = torch.tensor(targets, dtype=torch.float32)

    def batch(self, indices: torch.Tensor) -> Batch:
        return Batch(self.labels[indices], lambda _: self.logits[indices])

    def check(self) -> TrainingCheck:
        return check_training(nn.Identity(), self, None)


def figures(logits: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    return {each.name: each.value for each in set_measures(logits, targets)}


def test_scores_of_sets_are_those_of_scikit_learn() -> None:
    found, predicted = figures(LOGITS, TARGETS), answers_of(LOGITS, multi_label=True)
    for average in ("micro", "macro"):
        expected = 100 * f1_score(TARGETS, predicted, average=average)
        assert found[f"{average}_f1"] == pytest.approx(expected)
    expected = 100 * average_precision_score(TARGETS, LOGITS)
    assert found["mean_average_precision"] == pytest.approx(expected)
    rows = RNG.integers(0, 120, 120)
    drawn = Ranking(LOGITS, TARGETS).mean_average_precision(np.bincount(rows, minlength=120))
    assert drawn == pytest.approx(100 * average_precision_score(TARGETS[rows], LOGITS[rows]))


def test_scores_of_sets_have_intervals_around_them() -> None:
    found = {each.name: each for each in set_measures(LOGITS, TARGETS)}
    assert set(found) == {"macro_f1", "micro_f1", "mean_average_precision"}
    for each in found.values():
        assert each.low is not None and each.high is not None
        assert 0 < each.low < each.value < each.high < 100


def test_classes_that_nobody_has_are_left_out_of_means() -> None:
    targets = np.array([[1, 0, 0], [1, 0, 1]])
    assert set(figures(2.0 * targets - 1, targets).values()) == {100}
    assert set(figures(-np.ones((3, 2)), np.zeros((3, 2), np.int64)).values()) == {0}


def test_the_loss_is_the_binary_cross_entropy_of_each_class() -> None:
    logits, labels = torch.tensor(LOGITS), torch.tensor(TARGETS, dtype=torch.float64)
    chances = 1 / (1 + np.exp(-LOGITS))
    expected = -np.where(TARGETS == 1, np.log(chances), np.log(1 - chances)).mean()
    assert float(mean_loss(logits, labels)) == pytest.approx(expected)
    reached, loss = score(nn.Identity(), Answers(LOGITS, TARGETS))
    assert loss == pytest.approx(-expected, rel=1e-5)
    assert reached == pytest.approx(float(is_right(logits, labels).double().mean()))


def test_one_set_for_every_sample_is_told_as_a_training_that_failed() -> None:
    check = Answers(
        np.full((4, 2), [3.0, -3.0]), np.array([[1, 0], [1, 1], [0, 0], [1, 0]])
    ).check()
    assert check.constant and check.reason == (
        "did not train: the same set of classes for every sample, 50.0 % on validation"
    )
    assert not Answers(LOGITS, TARGETS).check().constant


def test_logits_that_shift_together_are_an_answer_of_sets() -> None:
    shifted = np.array([[2.0, 2.0], [-2.0, -2.0]])
    assert not Answers(shifted, np.array([[1, 1], [0, 0]])).check().failed


def test_calibration_is_that_of_every_class() -> None:
    sure = np.log(0.8 / 0.2)
    logits, labels = np.full((5, 2), sure), np.ones((5, 2), np.int64)
    assert calibration_error(logits, labels) == pytest.approx(0.2)
    labels[0, :] = 0
    assert calibration_error(logits, labels) == pytest.approx(0)


def test_a_design_learns_which_classes_a_sample_has(trained: QualityEvaluator) -> None:
    found = trained.evaluate(design())
    logits = trained.logits(design(), "valid")
    targets = targets_of(trained.data.split("valid"), 3)
    right = ((logits > 0) == (targets == 1)).all(1)
    assert found["accuracy"].value == pytest.approx(100 * right.mean())
    assert [m.name for m in found.measures] == ["accuracy"]
    assert correct_of(found)[0].tolist() == right.astype(float).tolist()


def test_every_evaluator_judges_the_same_network(trained: QualityEvaluator) -> None:
    asked, split = design(), "valid"
    clean = trained.evaluate(asked)["accuracy"].value
    noisy = RobustnessEvaluator(trained.trainer, Noise()).evaluate(asked)
    assert all(
        curve[0] == pytest.approx(clean, abs=1e-3) for curve in noisy.details["curves"].values()
    )
    assert StressEvaluator(trained.trainer, "blur", 0).evaluate(asked)["accuracy"].value == clean
    use = ModalityUseEvaluator(trained.trainer, split).evaluate(asked)
    added = sum(use[f"shapley_{modality}"].value for modality in ("text", "vision"))
    assert added == pytest.approx(clean - use["accuracy_shuffled_all"].value, abs=1e-6)
    logits, targets = trained.logits(asked, split), targets_of(trained.data.split(split), 3)
    scores = ClassScoresEvaluator(trained.trainer).evaluate(asked)
    assert scores.measures == tuple(set_measures(logits, targets))
    probed: Measure = ProbeEvaluator(trained.trainer).evaluate(asked)["probe_r2"]
    assert 0 < probed.value <= 100


def test_the_test_split_is_judged_alike(trained: QualityEvaluator) -> None:
    found = trained.test(design())
    assert found["accuracy"].low is not None and found.details["split"] == "test"


def test_cross_validation_pools_sets_out_of_fold(data: DataSet, tmp_path: Path) -> None:
    judged = CrossValidatedEvaluator(quality(data, tmp_path, QUICK), 3)
    text = quality(data, tmp_path, QUICK).trainer.plan.unimodal(demo().encoder("small-bert"))
    found = judged.evaluate(text)
    assert correct_of(found).shape == (1, 72) and fold(data, 0, 3).multi_label


def test_a_reduced_precision_that_gives_one_set_is_called_so(data: DataSet) -> None:
    samples = data.split("valid")
    check = TrainingCheck(100.0, None, len(samples), constant=False, multi_label=True)
    good = np.where(targets_of(samples, 3) == 1, 1.0, -1.0)
    assert lost_in("int8", good, good, samples, check) == (False, "")
    constant, reason = lost_in("int8", good, -np.ones_like(good), samples, check)
    assert constant and reason == (
        "lost in int8: the same set of classes for every sample, 12.5 %, 100.0 % in fp32"
    )
