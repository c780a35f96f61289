"""A design whose accuracy is lost in a reduced precision is called so."""

import numpy as np
import pytest

from evaluators.data import Sample
from evaluators.quality.evaluator import lost_in

LABELS = [0, 1, 0, 1, 0, 1, 0, 1, 0, 1]
SAMPLES = [Sample(str(k), str(k), "", label, None, "valid", None) for k, label in enumerate(LABELS)]


def answering(answers: list[int]) -> np.ndarray:
    return np.eye(2)[answers]


def test_a_small_loss_is_not_mentioned() -> None:
    assert lost_in("int8", answering(LABELS), answering([1, *LABELS[1:]]), SAMPLES) == (False, "")


def test_a_large_loss_is_called_the_precisions() -> None:
    wrong = [1 - label for label in LABELS[:4]] + LABELS[4:]
    found = lost_in("int8-dynamic", answering(LABELS), answering(wrong), SAMPLES)
    assert found == (False, "lost in int8-dynamic: 60.0 %, 100.0 % in fp32")


@pytest.mark.parametrize("before", [LABELS, [0, 0, 0, 1, 0, 0, 0, 0, 0, 0]])
def test_one_class_for_every_sample_is_constant_whatever_it_was_before(before: list[int]) -> None:
    constant, reason = lost_in("int8", answering(before), answering([0] * 10), SAMPLES)
    assert constant and reason.startswith("lost in int8: the same class for every sample, 50.0 %, ")
