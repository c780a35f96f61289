"""What holds for each fusion operator, and must for the next one: of two modalities, of three."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from evaluators.costs import count_macs
from evaluators.onnx.export import export
from search_space.design.encoder import EncoderShape
from search_space.design.genotype import FusionPoint, Genotype
from search_space.design.rules import fused_width, violations
from search_space.modality import MODALITIES, Modality
from search_space.operators.definitions import FUSION_OPERATORS, OPERATORS, Operator
from search_space.operators.numpy_layers import Array

BATCH, WIDTH = 3, 8
LENGTHS: dict[Modality, int] = {"text": 5, "vision": 4, "audio": 6}
PADDING = torch.arange(LENGTHS["text"]).unsqueeze(0) >= torch.tensor([[3], [5], [1]])
"""Of texts of three, five and one real tokens."""
FUSED: tuple[tuple[Operator, int], ...] = tuple(
    (name, count)
    for name, operator in FUSION_OPERATORS.items()
    for count in (2, 3)
    if count <= operator.signature.most
)
"""Every operator with every number of modalities that it fuses."""


def array(values: Tensor) -> Array:
    """Return the same numbers for NumPy."""
    return values.detach().double().numpy()


def module_of(name: Operator, count: int) -> nn.Module:
    """Return a module whose weights are all drawn: biases start at zero, norms at the identity."""
    torch.manual_seed(0)
    module = FUSION_OPERATORS[name].module(WIDTH, count).eval()
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    return module


def inputs_of(name: Operator, count: int, batch: int = BATCH) -> list[Tensor]:
    """Return vectors or tokens, as the operator's signature has them."""
    made = []
    for k, modality in enumerate(MODALITIES[:count]):
        tokens = modality in FUSION_OPERATORS[name].signature.tokens
        size = (batch, LENGTHS[modality], WIDTH) if tokens else (batch, WIDTH)
        made.append(torch.randn(*size, generator=torch.Generator().manual_seed(k)))
    return made


class Called(nn.Module):
    """An operator's module as its contract has it: padding first, if it gives tokens."""

    def __init__(self, name: Operator, module: nn.Module, padding: Tensor | None) -> None:
        super().__init__()
        self.module, self.padding = module, padding
        self.gives_tokens = bool(FUSION_OPERATORS[name].signature.gives)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        if not self.gives_tokens:
            return (self.module(*inputs),)
        given: tuple[Tensor, ...] = self.module(
            [self.padding, *(None for _ in inputs[1:])], *inputs
        )
        return given


def called(
    name: Operator, inputs: Sequence[Tensor], padding: Tensor | None = None
) -> tuple[Tensor, ...]:
    """Return what the operator gives, by new weights."""
    found: tuple[Tensor, ...] = Called(name, module_of(name, len(inputs)), padding)(*inputs)
    return found


def pooled(given: Sequence[Tensor]) -> Tensor:
    """Return a vector as it is, tokens as their means side by side: (B, width)."""
    return torch.cat([one if one.ndim == 2 else one.mean(1) for one in given], 1)


@pytest.mark.parametrize(("name", "count"), FUSED)
class TestEveryOperator:
    @pytest.mark.parametrize("padding", [None, PADDING], ids=["all real", "padded"])
    @pytest.mark.parametrize("training", [True, False])
    def test_its_module_gives_what_its_numpy_reference_gives(
        self, name: Operator, count: int, training: bool, padding: Tensor | None
    ) -> None:
        module, inputs = module_of(name, count).train(training), inputs_of(name, count)
        weights = {k: array(values) for k, values in module.state_dict().items()}
        unread = [None if padding is None else padding.numpy(), *[None] * (count - 1)]
        arrays = [array(values) for values in inputs]
        expected = FUSION_OPERATORS[name].reference(weights, unread, arrays)
        found = Called(name, module, padding)(*inputs)
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(array(one), other, rtol=1e-3, atol=1e-4)

    def test_it_gives_as_many_features_as_the_rules_say(self, name: Operator, count: int) -> None:
        shapes = {
            "text": EncoderShape("text", "text", (WIDTH,), max_tokens=64),
            "vision": EncoderShape("vision", "vision", (WIDTH,), ((2, 2),)),
            "audio": EncoderShape("audio", "audio", (WIDTH,), ((1, 6),)),
        }
        point = FusionPoint(1, 1, name, audio_tap=count - 2)
        sound = "audio" if count == 3 else None
        design = Genotype("text", "vision", 16, (point,), audio_encoder=sound)
        assert violations(design, shapes) == ()
        widths = dict.fromkeys(MODALITIES[:count], WIDTH)
        width = FUSION_OPERATORS[name].output_width(widths)
        assert pooled(called(name, inputs_of(name, count))).shape == (BATCH, width)
        assert fused_width(design, point, shapes) == width

    def test_it_gives_the_tokens_that_its_signature_says(self, name: Operator, count: int) -> None:
        given = called(name, inputs_of(name, count))
        if gives := [m for m in FUSION_OPERATORS[name].signature.gives if m in MODALITIES[:count]]:
            assert [one.shape for one in given] == [(BATCH, LENGTHS[m], WIDTH) for m in gives]
        else:
            assert [one.ndim for one in given] == [2]

    def test_its_work_is_the_multiply_accumulates_of_its_module(
        self, name: Operator, count: int
    ) -> None:
        lengths = [LENGTHS[modality] for modality in MODALITIES[:count]]
        said = sum(
            work.linear
            + work.attention
            + work.convolution
            + (work.weights if on == "vectors" else 0)
            for on, work in FUSION_OPERATORS[name].work(lengths, WIDTH)
        )
        module, inputs = Called(name, module_of(name, count), None), inputs_of(name, count, batch=1)
        assert count_macs(lambda: module(*inputs)) == said

    @pytest.mark.parametrize("padding", [None, PADDING], ids=["all real", "padded"])
    def test_onnx_runtime_gives_the_same(
        self, name: Operator, count: int, padding: Tensor | None, tmp_path: Path
    ) -> None:
        module, inputs = Called(name, module_of(name, count), padding), inputs_of(name, count)
        expected, file = module(*inputs), tmp_path / "operator.onnx"
        taken, given = MODALITIES[:count], [f"given {k}" for k in range(len(expected))]
        export(module, tuple(inputs), file, taken, given, {})
        session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        fed = {m: values.numpy() for m, values in zip(taken, inputs, strict=True)}
        for one, other in zip(session.run(given, fed), expected, strict=True):
            np.testing.assert_allclose(one, array(other), rtol=1e-3, atol=1e-4)

    def test_it_treats_every_sample_alone(self, name: Operator, count: int) -> None:
        inputs = inputs_of(name, count)
        alone = [pooled(called(name, [part[k : k + 1] for part in inputs])) for k in range(BATCH)]
        together = pooled(called(name, inputs))
        torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-5)

    def test_it_sends_gradients_to_all_inputs_and_all_weights(
        self, name: Operator, count: int
    ) -> None:
        module, inputs = module_of(name, count), inputs_of(name, count)
        for values in inputs:
            values.requires_grad_()
        pooled(Called(name, module, None)(*inputs)).pow(3).sum().backward()
        for values in (*inputs, *module.parameters()):
            assert values.grad is not None
            assert values.grad.abs().sum() > 0
        assert all((values.grad != 0).flatten(1).any(1).all() for values in inputs)  # type: ignore[union-attr]

    def test_it_has_finite_slopes_where_a_modality_says_nothing(
        self, name: Operator, count: int
    ) -> None:
        module, inputs = module_of(name, count), inputs_of(name, count)
        inputs[0].zero_().requires_grad_()
        given = pooled(Called(name, module, None)(*inputs))
        given.sum().backward()
        assert given.isfinite().all()
        for values in (inputs[0], *module.parameters()):
            assert values.grad is not None and values.grad.isfinite().all()

    def test_it_leaves_its_inputs_as_they_were(self, name: Operator, count: int) -> None:
        inputs = inputs_of(name, count)
        before = [values.clone() for values in inputs]
        called(name, inputs)
        assert all(map(torch.equal, inputs, before))

    def test_its_weights_are_repeated_by_their_seed(self, name: Operator, count: int) -> None:
        torch.manual_seed(3)
        first = FUSION_OPERATORS[name].module(WIDTH, count).state_dict()
        torch.manual_seed(3)
        again = FUSION_OPERATORS[name].module(WIDTH, count).state_dict()
        assert list(first) == list(again)
        assert all(torch.equal(first[key], again[key]) for key in first)


def test_what_operators_are_is_known_without_torch() -> None:
    program = (
        "import sys\n"
        "from search_space.operators.definitions import FUSION_OPERATORS\n"
        "for operator in FUSION_OPERATORS.values():\n"
        "    operator.output_width({'text': 8, 'vision': 8})\n"
        "    list(operator.work((5, 4), 8))\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("False", "")


def test_the_table_has_every_name_once_and_in_order() -> None:
    assert tuple(FUSION_OPERATORS) == OPERATORS


@pytest.mark.parametrize(
    ("name", "inputs", "expected"),
    [
        ("concatenation", [[1, 2], [3, 4, 5]], [1, 2, 3, 4, 5]),
        ("concatenation", [[1, 2], [3], [4]], [1, 2, 3, 4]),
        ("product", [[1, 2, 3], [5, 7, 11]], [5, 14, 33, 11, 14, 15]),
        ("tensor", [[1, 2], [3, 4, 5]], [3, 4, 5, 6, 8, 10]),
        ("tensor", [[1, 2], [3, 4], [5, 7]], [15, 21, 20, 28, 30, 42, 40, 56]),
        ("sum", [[1, 2], [3, 4]], [4, 6]),
        ("sum", [[1, 2], [3, 4], [5, 6]], [9, 12]),
    ],
)
def test_operators_that_learn_nothing_by_example(
    name: Operator, inputs: list[list[float]], expected: list[float]
) -> None:
    operator = FUSION_OPERATORS[name]
    (reference,) = operator.reference({}, [None] * len(inputs), [np.array([i]) for i in inputs])
    module = operator.module(len(inputs[0]), len(inputs))
    assert reference.tolist() == [expected]
    assert module(*(torch.tensor([i]) for i in inputs)).tolist() == [expected]
