"""Features are standardised from training samples, whatever scale, outliers or gaps they have."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from evaluators.evaluation import NotFiniteError
from evaluators.features.examples import Batch
from evaluators.features.scales import CENTRE, feature_scales
from search_space.encoders.features import Feature

CLS, TOKENS = Feature("text", 3, "cls"), Feature("text", 3, "tokens")
GRID = Feature("vision", 2, "grid")


class Given:
    """Examples whose features are these tensors."""

    def __init__(self, features: dict[Feature, Tensor], mask: Tensor | None = None) -> None:
        self.features, self.mask = features, mask
        self.labels = torch.zeros(len(next(iter(features.values()))), dtype=torch.int64)
        self.lengths: Tensor | None = None
        self.groups: Tensor | None = None

    def batch(self, indices: Tensor) -> Batch:
        features = {feature: tensor[indices] for feature, tensor in self.features.items()}
        mask = None if self.mask is None else self.mask[indices]

        def logits(module: nn.Module) -> Tensor:
            return module(features, mask)  # type: ignore[no-any-return]

        return Batch(self.labels[indices], logits)


def scaled(values: Tensor) -> Tensor:
    """(N, C) values as `feature_scales` standardises them."""
    factor, offset = feature_scales(Given({CLS: values})).features[CLS]
    return values * factor + offset


@settings(max_examples=30, deadline=None)
@given(
    count=st.integers(20, 700),
    mean=st.floats(-100, 100),
    deviation=st.floats(1e-2, 1e3),
    seed=st.integers(0, 99),
)
def test_every_channel_has_mean_and_deviation_near_one(
    count: int, mean: float, deviation: float, seed: int
) -> None:
    deviation = max(deviation, 0.02 * abs(mean))
    values = mean + deviation * torch.randn(count, 8, generator=torch.Generator().manual_seed(seed))
    made = scaled(values)
    assert (made.mean(0) - CENTRE).abs().max() < 0.35
    assert 0.7 < made.std(0).min() <= made.std(0).max() < 1.4


def test_channels_that_do_not_vary_stay_finite_and_small() -> None:
    values = torch.randn(64, 4)
    values[:, 1], values[:, 2] = 0.0, 7.0
    made = scaled(values)
    assert torch.isfinite(made).all()
    # 7 times a factor of about 140, rounded in float32: half a unit is 3e-5 to 6e-5 a step.
    assert torch.allclose(made[:, 1:3], torch.full((64, 2), CENTRE), atol=1e-3)
    # A constant channel that moves a little on other samples is not blown up.
    factor, offset = feature_scales(Given({CLS: values})).features[CLS]
    assert ((values + 1e-6) * factor + offset - made).abs().max() < 1e-3


def test_a_feature_without_any_variation_is_left_finite() -> None:
    assert torch.equal(scaled(torch.zeros(9, 3)), torch.full((9, 3), CENTRE))


def test_one_outlier_does_not_flatten_the_other_samples() -> None:
    values = torch.randn(200, 4)
    values[17] = 1e6
    others = torch.arange(200) != 17
    assert scaled(values)[others].std(0).min() > 0.7


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_values_that_are_no_numbers_are_named(wrong: float) -> None:
    values = torch.randn(30, 4)
    values[3, 2] = wrong
    with pytest.raises(NotFiniteError, match="text-3-cls has NaN or infinite values"):
        feature_scales(Given({CLS: values}))


@pytest.mark.parametrize("count", [2, 3])
def test_so_few_samples_are_enough(count: int) -> None:
    assert torch.isfinite(scaled(torch.randn(count, 4))).all()


def test_padding_counts_for_nothing() -> None:
    tokens, mask = 5 + torch.randn(40, 6, 3), torch.ones(40, 6, dtype=torch.int64)
    mask[:, 4:] = 0
    padded = torch.where(mask[:, :, None] == 1, tokens, torch.tensor(-900.0))
    own = feature_scales(Given({TOKENS: tokens[:, :4]}, mask[:, :4])).features[TOKENS]
    for found, expected in zip(
        feature_scales(Given({TOKENS: padded}, mask)).features[TOKENS], own, strict=True
    ):
        assert torch.allclose(found, expected)


def test_the_first_token_has_a_scale_of_its_own() -> None:
    tokens = torch.randn(40, 6, 3)
    tokens[:, 0] = 9 + 0.02 * tokens[:, 0]
    factor, offset = feature_scales(Given({TOKENS: tokens}, None)).first_tokens[TOKENS]
    first = tokens[:, 0] * factor + offset
    assert torch.allclose(first.mean(0), torch.tensor(CENTRE), atol=0.05)
    assert torch.allclose(first.std(0), torch.tensor(1.0), atol=0.1)


def test_a_map_is_scaled_by_channel() -> None:
    grid = torch.randn(30, 5, 4, 4) * torch.tensor([1.0, 2, 3, 4, 5])[:, None, None]
    factor, _ = feature_scales(Given({GRID: grid})).features[GRID]
    assert torch.allclose(factor * torch.tensor([1.0, 2, 3, 4, 5]), torch.ones(5), atol=0.2)
