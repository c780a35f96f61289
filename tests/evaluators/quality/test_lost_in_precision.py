"""A design whose accuracy is lost in a reduced precision is called so."""

import numpy as np
import pytest

from evaluators.data import Sample
from evaluators.quality.evaluator import lost_in
from evaluators.training.check import TrainingCheck

LABELS = [0, 1, 0, 1, 0, 1, 0, 1, 0, 1]
SAMPLES = [Sample(str(k), str(k), "", label, None, "valid", None) for k, label in enumerate(LABELS)]


NO_PROBE = TrainingCheck(100.0, None, len(SAMPLES), constant=False)


def answering(answers: list[int]) -> np.ndarray:
    return np.eye(2)[answers]


def test_a_small_loss_is_not_mentioned() -> None:
    assert lost_in("int8", answering(LABELS), answering([1, *LABELS[1:]]), SAMPLES, NO_PROBE) == (
        False,
        "",
    )


def test_a_large_loss_is_called_the_precisions() -> None:
    wrong = [1 - label for label in LABELS[:4]] + LABELS[4:]
    found = lost_in("int8-dynamic", answering(LABELS), answering(wrong), SAMPLES, NO_PROBE)
    assert found == (False, "lost in int8-dynamic: 60.0 %, 100.0 % in fp32")


@pytest.mark.parametrize("before", [LABELS, [0, 0, 0, 1, 0, 0, 0, 0, 0, 0]])
def test_one_class_for_every_sample_is_constant_whatever_it_was_before(before: list[int]) -> None:
    constant, reason = lost_in("int8", answering(before), answering([0] * 10), SAMPLES, NO_PROBE)
    assert constant and reason.startswith("lost in int8: the same class for every sample, 50.0 %, ")


def test_a_precision_in_which_a_design_falls_below_its_probe_is_named_with_the_probe() -> None:
    samples, labels = SAMPLES * 10, LABELS * 10
    wrong = [1 - label for label in labels[:8]] + labels[8:]  # 92 %
    at_93, at_94 = (TrainingCheck(100.0, probe, 100, constant=False) for probe in (93.9, 94.1))
    assert lost_in("int8", answering(labels), answering(wrong), samples, at_93) == (False, "")
    assert lost_in("int8", answering(labels), answering(wrong), samples, at_94) == (
        False,
        "lost in int8: 92.0 %, 100.0 % in fp32; a linear probe of its features 94.1 %",
    )


def test_in_a_fold_the_loss_is_taken_from_the_accuracy_on_validation() -> None:
    samples, labels = SAMPLES * 10, LABELS * 10
    wrong = [1 - label for label in labels[:8]] + labels[8:]
    check = TrainingCheck(70.0, 63.9, 100, constant=False)  # 70 - 8 is within two points of it
    assert lost_in("int8", answering(labels), answering(wrong), samples, check) == (False, "")
    check = TrainingCheck(70.0, 64.1, 100, constant=False)
    assert lost_in("int8", answering(labels), answering(wrong), samples, check)[1]
