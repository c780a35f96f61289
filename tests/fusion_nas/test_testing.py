"""`fusion_nas.testing.check_operator` accepts what works and names each kind of fault."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fusion_nas.operators import Array, FusionOperator, Modality, Paddings, Signature, Weights
from fusion_nas.testing import operators as testing
from search_space.operators.definitions import LowRankTensor

PAIR = Signature(equal_widths=True, most=2)


class Added(nn.Module):
    """The sum of both, computed by a function."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Tensor) -> Any:
        return self.function(*inputs)


class Summing(FusionOperator):
    """T + I; tests replace what it does."""

    signature = PAIR
    makes: Callable[[], nn.Module] = staticmethod(lambda: Added(lambda t, i: t + i))

    def reference(
        self, weights: Weights, padding: Paddings, inputs: Sequence[Array]
    ) -> tuple[Array, ...]:
        return (inputs[0] + inputs[1],)

    def module(self, width: int, modalities: int) -> nn.Module:
        return type(self).makes()


def summing(function: Callable[..., Any] | None = None, **attributes: Any) -> FusionOperator:
    """An operator that adds, but for what is given."""
    if function is not None:
        attributes["makes"] = staticmethod(lambda: Added(function))
    return type("Summing", (Summing,), attributes)()


def exported_otherwise(text: Tensor, vision: Tensor) -> Tensor:
    return text - vision if torch.onnx.is_in_onnx_export() else text + vision


def writing(text: Tensor, vision: Tensor) -> Tensor:
    text += 1
    return text + vision


class Dropping(Added):
    def forward(self, *inputs: Tensor) -> Any:
        return nn.functional.dropout(super().forward(*inputs), training=self.training)


def random_weights() -> nn.Module:
    module = nn.Bilinear(8, 8, 8)
    module.weight.data = torch.from_numpy(np.random.default_rng().normal(size=(8, 8, 8)))
    return module


def wide(self: FusionOperator, widths: Mapping[Modality, int]) -> int:
    return 2 * widths["text"]


FAULTS = {
    "reference": (summing(lambda t, i: t - i), "module and NumPy reference differ without padding"),
    "dropout": (
        summing(makes=staticmethod(lambda: Dropping(lambda t, i: t + i))),
        r"differ without padding, in training mode \(no dropout",
    ),
    "raises": (
        summing(makes=staticmethod(lambda: nn.Linear(8, 8))),
        "checking widths raised TypeError: ",
    ),
    "widths": (summing(output_width=wide), "output_width says 16 features, its module gives 8"),
    "tokens": (
        summing(lambda t, i: (t + i).unsqueeze(1)),
        r"its signature gives one vector \(B, N\), its module \[\(3, 1, 8\)\]",
    ),
    "unequal_widths": (
        summing(signature=Signature(most=2)),
        r"its module fails on widths \[8, 7\] .*: set equal_widths=True in its signature",
    ),
    "work": (
        summing(lambda t, i: t @ torch.ones(8, 8) + i),
        "work declares 0 multiply-accumulates, its module does 64",
    ),
    "onnx": (summing(exported_otherwise), "ONNX and torch differ without padding: by "),
    "samples_alone": (
        summing(lambda t, i: t + i - t.mean(0)),
        "a sample alone and in a batch differ: by ",
    ),
    "gradients": (summing(lambda t, i: t.detach() + i), "no gradient reaches text"),
    "finite_slopes": (
        summing(lambda t, i: t.abs().sqrt() + i),
        "the gradient of text is not finite where text is zero",
    ),
    "inputs_unchanged": (summing(writing), "its module writes to its input text"),
    "seed": (
        summing(makes=staticmethod(random_weights)),
        "weight is drawn otherwise for the same torch.manual_seed",
    ),
    "first_layer": (summing(starts_linear=True), "starts_linear without `factors`"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_in_words(fault: str) -> None:
    operator, words = FAULTS[fault]
    (case,) = testing.operator_cases(operator)
    checks = {check.__name__.removeprefix("check_"): check for check in testing.OPERATOR_CHECKS}
    with pytest.raises(AssertionError, match=words):
        if fault in checks:
            checks[fault](case)
        else:
            testing.check_operator(operator)


def test_every_check_is_seen_to_fail() -> None:
    names = {check.__name__.removeprefix("check_") for check in testing.OPERATOR_CHECKS}
    assert names <= FAULTS.keys()


def test_an_operator_that_works_passes() -> None:
    testing.check_operator(summing())


def test_a_fault_is_said_with_class_and_modalities() -> None:
    with pytest.raises(AssertionError, match=r"^Summing of text and vision: module and NumPy"):
        testing.check_operator(summing(lambda t, i: t - i))


def test_linear_maps_that_are_not_the_start_are_refused() -> None:
    class Later(nn.Module):
        def __init__(self, module: nn.Module) -> None:
            super().__init__()
            self.factors, self.module = module.factors, module

        def forward(self, *inputs: Tensor) -> Any:
            return self.module(*(each.relu() for each in inputs))

    operator = LowRankTensor()
    later = type("Later", (LowRankTensor,), {})()
    later.module = lambda width, count: Later(operator.module(width, count))  # type: ignore[method-assign]
    testing.check_first_layer(testing.OperatorCase(operator, ("text", "vision")))
    with pytest.raises(AssertionError, match="`factors` is not the start"):
        testing.check_first_layer(testing.OperatorCase(later, ("text", "vision")))


@pytest.mark.parametrize(
    ("signature", "modalities"),
    [
        (Signature(), [("text", "vision"), ("text", "vision", "audio")]),
        (Signature(most=2, needs=("audio",)), [("text", "audio")]),
        (Signature(needs=("text", "vision", "audio")), [("text", "vision", "audio")]),
    ],
)
def test_an_operator_is_checked_with_what_it_fuses(
    signature: Signature, modalities: list[tuple[Modality, ...]]
) -> None:
    cases = testing.operator_cases(summing(signature=signature))
    assert [case.modalities for case in cases] == modalities


def test_an_operator_of_one_modality_is_refused() -> None:
    with pytest.raises(AssertionError, match="a fusion operator fuses two or three"):
        testing.check_operator(summing(signature=Signature(most=1)))
