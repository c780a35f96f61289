"""Checks of fusion operators, those of plugins and those of `search_space.operators`."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from evaluators.costs import count_macs
from evaluators.onnx.export import export
from fusion_nas.testing.comparing import same
from search_space.modality import MODALITIES, Modality
from search_space.operators.numpy_layers import Array
from search_space.operators.operator import FusionOperator

BATCH, WIDTH = 3, 8
LENGTHS: dict[Modality, int] = {"text": 5, "vision": 4, "audio": 6}
PADDING = torch.arange(LENGTHS["text"]).unsqueeze(0) >= torch.tensor([[3], [5], [1]])
"""Of texts of three, five and one real tokens."""
PADDINGS = {"without padding": None, "with padding": PADDING}


@dataclass(frozen=True)
class OperatorCase:
    """An operator, the modalities that it is checked with, and the width that it works in."""

    operator: FusionOperator
    modalities: tuple[Modality, ...]

    @property
    def width(self) -> int:
        """A small width that the operator allows."""
        return min(WIDTH, self.operator.signature.widest or WIDTH)

    def module(self) -> nn.Module:
        """Return a module whose weights are all drawn: biases start at 0, norms at the identity."""
        torch.manual_seed(0)
        module = self.operator.module(self.width, len(self.modalities)).eval()
        for parameter in module.parameters():
            nn.init.normal_(parameter)
        return module

    def inputs(self, batch: int = BATCH, narrower: int = 0) -> list[Tensor]:
        """Return vectors (B, N) or tokens (B, S, N), as the signature has them.

        Each modality after the first is `narrower` than the one before by so many features.
        """
        made = []
        for k, modality in enumerate(self.modalities):
            width = self.width - k * narrower
            tokens = modality in self.operator.signature.tokens
            size = (batch, LENGTHS[modality], width) if tokens else (batch, width)
            made.append(torch.randn(*size, generator=torch.Generator().manual_seed(k)))
        return made

    def calling(self, module: nn.Module, padding: Tensor | None = None) -> "Calling":
        """Return the module as it is called in a design."""
        place = self.modalities.index("text") if "text" in self.modalities else None
        paddings = [padding if k == place else None for k in range(len(self.modalities))]
        return Calling(module, paddings, bool(self.operator.signature.gives))

    def results(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return what a new module gives."""
        return cast(tuple[Tensor, ...], self.calling(self.module())(*inputs))

    def expected(
        self, module: nn.Module, inputs: Sequence[Tensor], padding: Tensor | None = None
    ) -> tuple[Array, ...]:
        """Return what the NumPy reference gives for the module's weights."""
        weights = {name: _array(values) for name, values in module.state_dict().items()}
        unread = None if padding is None else padding.numpy()
        paddings = [unread if m == "text" else None for m in self.modalities]
        return self.operator.reference(weights, paddings, [_array(each) for each in inputs])


class Calling(nn.Module):
    """An operator's module with its padding first, if it gives tokens; gives a tuple."""

    def __init__(
        self, module: nn.Module, paddings: Sequence[Tensor | None], gives_tokens: bool
    ) -> None:
        super().__init__()
        self.module, self.paddings, self.gives_tokens = module, [*paddings], gives_tokens

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Inputs (B, N) or (B, S, N) to one vector or the tokens of each modality given."""
        if not self.gives_tokens:
            return (self.module(*inputs),)
        return cast(tuple[Tensor, ...], self.module(self.paddings, *inputs))


def check_operator(operator: FusionOperator) -> None:
    """Check that a fusion operator does what designs, training, export and timing rely on.

    With two modalities and with three, as far as its signature allows: the module gives what the
    NumPy reference gives; shapes and widths are as declared; the declared work is the counted
    multiply-accumulates; ONNX Runtime gives what torch gives; gradients are finite and reach all
    inputs and weights. It takes seconds.

    Args:
        operator: an instance of the class that the entry point names.

    Raises:
        AssertionError: the first thing that is wrong, in words.
    """
    for case in operator_cases(operator):
        for check in OPERATOR_CHECKS:
            where = f"{type(operator).__name__} of {' and '.join(case.modalities)}"
            try:
                check(case)
            except AssertionError as error:
                raise AssertionError(f"{where}: {error}") from error
            except Exception as error:
                task = check.__name__.removeprefix("check_").replace("_", " ")
                said = f"{type(error).__name__}: {error}"
                raise AssertionError(f"{where}: checking {task} raised {said}") from error


def operator_cases(operator: FusionOperator) -> list[OperatorCase]:
    """Return the operator with each number of modalities that it fuses.

    Raises AssertionError for one that cannot fuse two modalities or three.
    """
    needs, most = operator.signature.needs, operator.signature.most
    found = []
    for count in range(max(2, len(needs)), min(most, len(MODALITIES)) + 1):
        others = [m for m in MODALITIES if m not in needs][: count - len(needs)]
        fused = tuple(m for m in MODALITIES if m in needs or m in others)
        found.append(OperatorCase(operator, fused))
    assert found, (
        f"{type(operator).__name__}: it needs {len(needs)} modalities and fuses {most} at most; "
        "a fusion operator fuses two or three"
    )
    return found


def check_reference(case: OperatorCase) -> None:
    """The module gives what its NumPy reference gives, in training and in evaluation."""
    for said, padding in PADDINGS.items():
        for training in (True, False):
            module, inputs = case.module().train(training), case.inputs()
            expected = case.expected(module, inputs, padding)
            found = case.calling(module, padding)(*inputs)
            mode = "in training mode (no dropout, no batch statistics)" if training else "in eval()"
            same(found, expected, f"module and NumPy reference differ {said}, {mode}")


def check_widths(case: OperatorCase) -> None:
    """Shapes are those that the signature and `output_width` declare."""
    found, signature = case.results(case.inputs()), case.operator.signature
    given = [m for m in signature.gives if m in case.modalities]
    shapes = [tuple(each.shape) for each in found]
    if given:
        wanted = [(BATCH, LENGTHS[m], case.width) for m in given]
        assert shapes == wanted, f"its signature gives tokens {wanted}, its module {shapes}"
    else:
        assert len(shapes) == 1 and len(shapes[0]) == 2, (
            f"its signature gives one vector (B, N), its module {shapes}"
        )
    declared = case.operator.output_width(dict.fromkeys(case.modalities, case.width))
    width = _pooled(found).shape[1]
    assert width == declared, f"output_width says {declared} features, its module gives {width}"


def check_unequal_widths(case: OperatorCase) -> None:
    """An operator that does not ask for equal widths works with others."""
    signature = case.operator.signature
    if signature.equal_widths or signature.tokens:
        return
    module, inputs = case.module(), case.inputs(narrower=1)
    widths = {m: each.shape[-1] for m, each in zip(case.modalities, inputs, strict=True)}
    try:
        found = case.calling(module)(*inputs)
    except Exception as error:
        raise AssertionError(
            f"its module fails on widths {[*widths.values()]} ({type(error).__name__}: {error}): "
            "set equal_widths=True in its signature"
        ) from error
    same(found, case.expected(module, inputs), "module and NumPy reference differ, unequal widths")
    declared, width = case.operator.output_width(widths), found[0].shape[1]
    assert width == declared, (
        f"output_width says {declared} features of widths {[*widths.values()]}, its module gives "
        f"{width}"
    )


def check_work(case: OperatorCase) -> None:
    """The declared work is the multiply-accumulates that torch counts."""
    lengths = [LENGTHS[modality] for modality in case.modalities]
    declared = sum(
        work.linear + work.attention + work.convolution + (work.weights if on == "vectors" else 0)
        for on, work in case.operator.work(lengths, case.width)
    )
    module, inputs = case.calling(case.module()), case.inputs(batch=1)
    counted = count_macs(lambda: module(*inputs))
    assert counted == declared, (
        f"work declares {declared:g} multiply-accumulates, its module does {counted}"
    )


def check_onnx(case: OperatorCase) -> None:
    """ONNX Runtime gives what torch gives."""
    import onnxruntime

    taken = case.modalities
    for said, padding in PADDINGS.items():
        module, inputs = case.calling(case.module(), padding), case.inputs()
        expected = module(*inputs)
        given = [f"given {k}" for k in range(len(expected))]
        with tempfile.TemporaryDirectory(prefix="fusion-nas-") as folder:
            file = Path(folder) / "operator.onnx"
            export(module, tuple(inputs), file, taken, given, {})
            session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        fed = {m: values.numpy() for m, values in zip(taken, inputs, strict=True)}
        found = [torch.from_numpy(each) for each in session.run(given, fed)]
        same(found, [_array(each) for each in expected], f"ONNX and torch differ {said}")


def check_samples_alone(case: OperatorCase) -> None:
    """What it gives of a sample does not depend on the others of the batch."""
    inputs = case.inputs()
    alone = [_pooled(case.results([part[k : k + 1] for part in inputs])) for k in range(BATCH)]
    together = _pooled(case.results(inputs))
    same([together], [_array(torch.cat(alone))], "a sample alone and in a batch differ")


def check_gradients(case: OperatorCase) -> None:
    """Gradients reach every sample of all inputs, and all weights."""
    module, inputs = case.module(), case.inputs()
    for values in inputs:
        values.requires_grad_()
    _pooled(case.calling(module)(*inputs)).pow(3).sum().backward()  # type: ignore[no-untyped-call]
    named: dict[str, Tensor] = dict(zip(case.modalities, inputs, strict=True))
    for name, values in [*named.items(), *module.named_parameters()]:
        reached = values.grad is not None and bool((values.grad != 0).any())
        assert reached, f"no gradient reaches {name}"
    for name, values in named.items():
        each = cast(Tensor, values.grad).flatten(1)
        assert bool((each != 0).any(1).all()), f"no gradient reaches {name} of some samples"


def check_finite_slopes(case: OperatorCase) -> None:
    """Results and gradients are finite where a modality is all zeros."""
    for place, modality in enumerate(case.modalities):
        module, inputs = case.module(), case.inputs()
        inputs[place].zero_().requires_grad_()
        found = _pooled(case.calling(module)(*inputs))
        assert bool(found.isfinite().all()), f"its result is not finite where {modality} is zero"
        found.sum().backward()  # type: ignore[no-untyped-call]
        for name, values in [(modality, inputs[place]), *module.named_parameters()]:
            finite = values.grad is not None and bool(values.grad.isfinite().all())
            assert finite, f"the gradient of {name} is not finite where {modality} is zero"


def check_inputs_unchanged(case: OperatorCase) -> None:
    """It does not write to its inputs."""
    inputs = case.inputs()
    before = [values.clone() for values in inputs]
    case.results(inputs)
    for modality, values, was in zip(case.modalities, inputs, before, strict=True):
        assert torch.equal(values, was), f"its module writes to its input {modality}"


def check_seed(case: OperatorCase) -> None:
    """Its first weights are the same for the same seed."""
    drawn = []
    for _ in range(2):
        torch.manual_seed(3)
        drawn.append(case.operator.module(case.width, len(case.modalities)).state_dict())
    first, again = drawn
    assert [*first] == [*again], "two modules have other weights"
    for name in first:
        assert torch.equal(first[name], again[name]), (
            f"{name} is drawn otherwise for the same torch.manual_seed"
        )


def check_first_layer(case: OperatorCase) -> None:
    """Where it declares to begin with linear maps, a scaling of features folds into them."""
    if not case.operator.starts_linear:
        return
    module, inputs = case.module(), case.inputs()
    factors = getattr(module, "factors", None)
    linears = [*factors] if isinstance(factors, nn.ModuleList) else []
    fits = len(linears) == len(inputs) and all(
        isinstance(each, nn.Linear) and each.bias is not None for each in linears
    )
    assert fits, (
        "starts_linear without `factors`, an nn.ModuleList of one nn.Linear with bias for each "
        "modality"
    )
    scaled = case.calling(module)(*(3 * values + 2 for values in inputs))
    with torch.no_grad():
        for linear in cast(list[nn.Linear], linears):
            linear.bias.add_(2 * linear.weight.sum(1))
            linear.weight.mul_(3)
    found = case.calling(module)(*inputs)
    same(found, [_array(each) for each in scaled], "starts_linear, and `factors` is not the start")


OPERATOR_CHECKS: tuple[Callable[[OperatorCase], None], ...] = (
    check_widths,
    check_reference,
    check_unequal_widths,
    check_work,
    check_onnx,
    check_samples_alone,
    check_gradients,
    check_finite_slopes,
    check_inputs_unchanged,
    check_seed,
    check_first_layer,
)
"""What `check_operator` runs; each raises AssertionError."""


def _array(values: Tensor) -> Array:
    return cast(Array, values.detach().double().numpy())


def _pooled(given: Sequence[Tensor]) -> Tensor:
    """Return a vector as it is, tokens as their means, side by side: (B, width)."""
    return torch.cat([one if one.ndim == 2 else one.mean(1) for one in given], 1)
