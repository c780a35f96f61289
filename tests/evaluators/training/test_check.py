"""A training that failed is noticed, and said with what a linear probe reaches."""

import pytest
import torch
from torch import Tensor, nn

from evaluators.features.examples import Batch
from evaluators.training.check import TrainingCheck, check_training
from evaluators.training.config import ALONE_PRETRAINED, FUSION_PRETRAINED, TrainingConfig


class Answers:
    """Validation samples, and a module that answers them with these logits."""

    def __init__(self, logits: Tensor, labels: list[int]) -> None:
        self.logits, self.labels = logits, torch.tensor(labels)
        self.lengths: Tensor | None = None
        self.groups: Tensor | None = None

    def batch(self, indices: Tensor) -> Batch:
        return Batch(self.labels[indices], lambda _: self.logits[indices])

    def check(self, probe: float | None = None) -> TrainingCheck:
        return check_training(nn.Identity(), self, probe)


RIGHT = torch.tensor([[2.0, 0.0], [0.0, 2.0], [3.0, 1.0], [0.0, 1.0]])


def test_a_design_that_tells_the_classes_apart_passes() -> None:
    check = Answers(RIGHT, [0, 1, 0, 1]).check(probe=100.0)
    assert (check.accuracy, check.failed, check.reason) == (100.0, False, "")


def test_one_class_for_every_sample_fails() -> None:
    check = Answers(RIGHT + torch.tensor([9.0, 0.0]), [0, 1, 0, 0]).check(probe=80.0)
    assert check.constant
    assert check.reason == (
        "did not train: the same class for every sample, 75.0 % on validation; "
        "a linear probe of its features 80.0 %"
    )


def test_logits_that_hardly_vary_fail_though_the_answers_do() -> None:
    assert Answers(1e-5 * RIGHT, [0, 1, 0, 1]).check().constant


def test_logits_that_shift_together_do_not_vary() -> None:
    shifted = torch.arange(4.0)[:, None] + torch.tensor([0.0, 1.0])
    assert Answers(shifted, [0, 1, 0, 1]).check().constant


def test_validation_of_one_class_is_no_failure() -> None:
    assert not Answers(RIGHT + torch.tensor([9.0, 0.0]), [0, 0, 0, 0]).check().failed


@pytest.mark.parametrize(("probe", "failed"), [(77.0, False), (77.1, True), (None, False)])
def test_two_points_below_the_probe_are_within_the_margin(
    probe: float | None, failed: bool
) -> None:
    check = TrainingCheck(75.0, probe, samples=200, constant=False)
    assert check.failed is failed


def test_one_sample_below_the_probe_is_within_the_margin() -> None:
    assert not TrainingCheck(75.0, 75.0 + 100 / 12, samples=12, constant=False).failed
    assert TrainingCheck(75.0, 75.0 + 200 / 12, samples=12, constant=False).failed


@pytest.mark.parametrize("config", [ALONE_PRETRAINED, FUSION_PRETRAINED])
def test_a_second_attempt_is_slower_and_longer(config: TrainingConfig) -> None:
    second = config.second_attempt()
    assert second.epochs == 2 * config.epochs
    assert second.learning_rate < config.learning_rate
    assert second.trunk_learning_rate <= config.trunk_learning_rate
