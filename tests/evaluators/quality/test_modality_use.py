"""What a design uses of each modality, on networks whose shares are known by construction."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from quick_evaluators import (
    BY_STAGE,
    QUICK,
    demo,
    design,
    image_folder,
    quality,
    without_weights_on,
)
from sklearn.calibration import calibration_curve

from evaluators.data import DataSet
from evaluators.quality.evaluator import QualityEvaluator
from evaluators.quality.modality_use import ModalityUseEvaluator, calibration_error


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    return image_folder(tmp_path_factory.mktemp("data") / "set")


@pytest.fixture(scope="module")
def trained(data: DataSet, tmp_path_factory: pytest.TempPathFactory) -> QualityEvaluator:
    return quality(data, tmp_path_factory.mktemp("home"), QUICK)


@pytest.mark.parametrize(("ignored", "used"), [("text", "vision"), ("vision", "text")])
def test_a_modality_without_weights_has_no_share(
    trained: QualityEvaluator, monkeypatch: pytest.MonkeyPatch, ignored: str, used: str
) -> None:
    monkeypatch.setattr(trained.trainer, "trained", without_weights_on(trained, ignored))
    found = ModalityUseEvaluator(trained.trainer).evaluate(design())
    share, dropped = found[f"shapley_{ignored}"], found[f"drop_shuffled_{ignored}"]
    assert (share.value, share.low, share.high) == (0, 0, 0)
    assert (dropped.value, dropped.low, dropped.high) == (0, 0, 0)
    full = found["accuracy_shuffled_all"].value + found[f"shapley_{used}"].value
    assert found[f"accuracy_without_{ignored}"].value == pytest.approx(full)
    assert found[f"accuracy_shuffled_{used}"].value == found["accuracy_shuffled_all"].value


@pytest.mark.parametrize("operator", ["concatenation", "tensor", "cross-attention"])
def test_shares_add_up_to_the_accuracy_over_that_of_other_samples(
    trained: QualityEvaluator, operator: str
) -> None:
    asked = design(operator)
    found = ModalityUseEvaluator(trained.trainer).evaluate(asked)
    full = trained.test(asked)["accuracy"].value
    shares = found["shapley_text"].value + found["shapley_vision"].value
    assert shares == pytest.approx(full - found["accuracy_shuffled_all"].value)
    for modality in ("text", "vision"):
        lost = found[f"drop_shuffled_{modality}"].value
        assert lost == pytest.approx(full - found[f"accuracy_shuffled_{modality}"].value)
        share = found[f"shapley_{modality}"]
        assert share.low is not None and share.high is not None
        assert share.low <= share.value <= share.high
    assert 0 <= found["ece"].value <= 1


def test_a_network_that_was_trained_whole_is_looked_at_as_it_is(
    data: DataSet, tmp_path: Path
) -> None:
    trial_runner = quality(data, tmp_path, BY_STAGE)
    asked = design("cross-attention")
    assert trial_runner.trainer.plan.fidelity(asked) == "whole network"
    found = ModalityUseEvaluator(trial_runner.trainer).evaluate(asked)
    shares = found["shapley_text"].value + found["shapley_vision"].value
    full = trial_runner.test(asked)["accuracy"].value
    assert shares == pytest.approx(full - found["accuracy_shuffled_all"].value)


def test_the_same_design_uses_the_same_whenever_it_is_asked(trained: QualityEvaluator) -> None:
    evaluator = ModalityUseEvaluator(trained.trainer)
    assert evaluator.evaluate(design()) == evaluator.evaluate(design())
    assert evaluator.key(design()) != evaluator.key(design("product"))
    assert evaluator.key(design()) != ModalityUseEvaluator(trained.trainer, "valid").key(design())


def test_a_design_of_one_modality_is_refused(trained: QualityEvaluator) -> None:
    alone = trained.trainer.plan.unimodal(demo().encoder("small-bert"))
    with pytest.raises(ValueError, match="has one modality"):
        ModalityUseEvaluator(trained.trainer).evaluate(alone)


@given(st.integers(0, 1000), st.integers(2, 4), st.integers(1, 20))
def test_the_calibration_error_is_that_of_scikit_learns_curve(
    seed: int, classes: int, bins: int
) -> None:
    rng = np.random.default_rng(seed)
    logits, labels = rng.normal(0, 2, (60, classes)), rng.integers(0, classes, 60)
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    sure, right = probabilities.max(1), probabilities.argmax(1) == labels
    shares, means = calibration_curve(right, sure, n_bins=bins)
    counts, _ = np.histogram(sure, np.linspace(0, 1, bins + 1))
    expected = (np.abs(shares - means) * counts[counts > 0]).sum() / 60
    assert calibration_error(logits, labels, bins) == pytest.approx(expected)


def test_one_that_is_sure_and_right_is_calibrated_and_one_that_is_sure_and_wrong_is_not() -> None:
    logits = np.array([[50.0, 0.0], [0.0, 50.0]])
    assert calibration_error(logits, np.array([0, 1])) == pytest.approx(0)
    assert calibration_error(logits, np.array([1, 0])) == pytest.approx(1)
