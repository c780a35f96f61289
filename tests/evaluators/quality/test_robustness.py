"""Accuracy over noise, on networks whose answer to it is known by construction."""

import statistics
from pathlib import Path

import numpy as np
import pytest
import torch
from quick_evaluators import (
    BY_STAGE,
    QUICK,
    demo,
    design,
    image_folder,
    quality,
    without_weights_on,
)
from torch import Tensor

from evaluators.data import DataSet
from evaluators.features.fusion_inputs import FusionInputs, batches_of, inputs_of
from evaluators.quality.evaluator import QualityEvaluator
from evaluators.quality.robustness import (
    POINTS,
    Noise,
    RobustnessEvaluator,
    _Channels,
    _correct,
    _spread,
)
from search_space.design.genotype import ATTENTION_OVER
from search_space.design.rules import violations
from search_space.encoders.features import Feature
from search_space.operators.definitions import OPERATORS

ONE_CHANNEL = Feature("text", 1, "cls")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    return image_folder(tmp_path_factory.mktemp("data") / "set")


@pytest.fixture(scope="module")
def trained(data: DataSet, tmp_path_factory: pytest.TempPathFactory) -> QualityEvaluator:
    return quality(data, tmp_path_factory.mktemp("home"), QUICK)


def test_without_noise_a_design_is_as_right_as_its_evaluation_says(
    trained: QualityEvaluator,
) -> None:
    asked = design()
    clean = trained.evaluate(asked)["accuracy"].value
    found = RobustnessEvaluator(trained.trainer, Noise()).evaluate(asked)
    curves = found.details["curves"]
    assert set(curves) == {"text", "vision", "both"}
    assert all(curve[0] == pytest.approx(clean, abs=1e-3) for curve in curves.values())
    factors = found.details["factors"]
    assert len(factors) == POINTS and factors[0] == 0 and factors[-1] == pytest.approx(0.95)
    for name, curve in curves.items():
        area = np.trapezoid(curve, factors) / 0.95
        assert found[f"robustness_{name}"].value == pytest.approx(area, abs=0.01)
    each = [found[f"robustness_{name}"].value for name in curves]
    assert found["robustness"].value == pytest.approx(np.mean(each))


@pytest.mark.parametrize("ignored", ["text", "vision"])
def test_noise_on_a_modality_without_weights_costs_nothing(
    trained: QualityEvaluator, monkeypatch: pytest.MonkeyPatch, ignored: str
) -> None:
    blind = without_weights_on(trained, ignored)
    monkeypatch.setattr(
        trained.trainer, "trained_fusion", lambda asked: (blind(asked).fusion, None)
    )
    curves = RobustnessEvaluator(trained.trainer, Noise(50.0)).evaluate(design()).details["curves"]
    assert len(set(curves[ignored])) == 1
    used = "vision" if ignored == "text" else "text"
    assert curves[used] == curves["both"]


class Sign(torch.nn.Module):
    """Names the class by the sign of the text's one channel."""

    def forward(self, features: dict[Feature, Tensor], _mask: Tensor | None) -> Tensor:
        value = features[ONE_CHANNEL]
        return torch.cat([-value, value], dim=1)


def test_accuracy_falls_with_the_noise_as_a_normal_distribution_has_it() -> None:
    """Right answers stand at 1, wrong at -1: noise of deviation s turns a share of them round."""
    labels = torch.arange(4000) % 2
    seen = FusionInputs({ONE_CHANNEL: (2.0 * labels - 1).unsqueeze(1)}, None)
    spread = {ONE_CHANNEL: _Channels(torch.zeros(1), torch.ones(1))}
    factors = torch.tensor([0.0, 0.5, 1.0, 4.0])
    right = _correct(Sign(), seen, labels, spread, ("text",), factors)  # type: ignore[arg-type]
    expected = [1.0, *(statistics.NormalDist().cdf(1 / s) for s in (0.5, 1.0, 4.0))]
    assert right.mean(1) == pytest.approx(expected, abs=0.03)


def test_noise_is_spread_as_the_training_split_is_padding_left_out(
    trained: QualityEvaluator,
) -> None:
    asked = design("cross-attention")
    examples = trained.trainer.examples(asked, "train")
    whole = inputs_of(None, examples)
    assert whole.mask is not None
    for feature, channels in _spread(batches_of(None, examples)).items():
        rows = whole.features[feature]
        rows = rows[whole.mask.bool()] if feature.over_text else rows.flatten(0, -2)
        assert torch.allclose(channels.mean, rows.mean(0), atol=1e-4)
        assert torch.allclose(channels.deviation, rows.std(0, correction=0), atol=1e-4)


@pytest.mark.parametrize("over", ATTENTION_OVER)
@pytest.mark.parametrize("operator", OPERATORS)
def test_every_operator_can_be_asked(trained: QualityEvaluator, operator: str, over: str) -> None:
    asked = design(operator, attention_blocks=1, attention_over=over, vision_pooling="conv-max")
    if violations(asked, demo().shapes):
        asked = design(operator, attention_blocks=1, attention_over=over)
    if violations(asked, demo().shapes):
        pytest.skip(f"{operator} does not attend over {over}")
    found = RobustnessEvaluator(trained.trainer, Noise()).evaluate(asked)
    assert 0 <= found["robustness"].value <= 100


def test_a_design_of_one_modality_has_that_curve_alone(trained: QualityEvaluator) -> None:
    for name in ("small-bert", "small-xcit"):
        alone = trained.trainer.plan.unimodal(demo().encoder(name))
        found = RobustnessEvaluator(trained.trainer, Noise()).evaluate(alone)
        (only,) = found.details["curves"]
        assert found["robustness"].value == found[f"robustness_{only}"].value


def test_a_network_that_was_trained_whole_is_asked_as_it_is(data: DataSet, tmp_path: Path) -> None:
    trial_runner = quality(data, tmp_path, BY_STAGE)
    found = RobustnessEvaluator(trial_runner.trainer, Noise()).evaluate(design())
    clean = trial_runner.evaluate(design())["accuracy"].value
    assert found.details["curves"]["both"][0] == pytest.approx(clean, abs=1e-3)


def test_the_same_noise_comes_again_and_other_noise_has_another_key(
    trained: QualityEvaluator,
) -> None:
    one, other = (
        RobustnessEvaluator(trained.trainer, Noise()),
        RobustnessEvaluator(trained.trainer, Noise(0.5)),
    )
    assert one.evaluate(design()) == one.evaluate(design())
    assert one.key(design()) != other.key(design())


@pytest.mark.parametrize("factor", [0.0, -1.0, float("nan"), float("inf")])
def test_noise_that_is_no_positive_number_is_refused(factor: float) -> None:
    with pytest.raises(ValueError, match="give a number above 0"):
        Noise(factor)
