"""Checks of encoders of plugins."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from evaluators.onnx.export import export
from fusion_nas.testing.comparing import same
from search_space.design.encoder import SOUND_HZ
from search_space.encoders.plugins import PluginEncoder
from search_space.encoders.sounds import BANDS, HOP

BATCH, MOST_TOKENS, SECONDS = 3, 9, 2
CHANNELS = {"text": 2, "vision": 1, "audio": 1}
"""Axis of the features of a tap."""


@dataclass(frozen=True)
class EncoderCase:
    """An encoder, and the folder that its weights are read from, if any."""

    encoder: PluginEncoder
    folder: Path | None = None

    @property
    def depth(self) -> int:
        """The number of taps."""
        return len(self.encoder.widths)

    def model(self, depth: int = 0, seed: int = 0) -> nn.Module:
        """Return the first layers, or all; first weights are drawn from `seed`."""
        torch.manual_seed(seed)
        model = self.encoder.build(depth or self.depth, self.folder)
        assert isinstance(model, nn.Module), f"build gives a {type(model).__name__}, not a module"
        return model.eval()

    def inputs(self, batch: int = BATCH) -> tuple[Tensor, ...]:
        """Return token ids and mask, pictures or sounds."""
        drawn, encoder = torch.Generator().manual_seed(0), self.encoder
        if encoder.modality == "text":
            length = min(MOST_TOKENS, encoder.max_tokens)
            ids = torch.randint(0, encoder.vocabulary, (batch, length), generator=drawn)
            mask = torch.ones_like(ids)
            mask[-1, max(1, length // 2) :] = 0
            return ids, mask
        if encoder.modality == "vision":
            size: tuple[int, ...] = (3, encoder.image_size, encoder.image_size)
        elif encoder.sound == "waveform":
            size = (SECONDS * SOUND_HZ,)
        else:
            size = (1, BANDS, SECONDS * SOUND_HZ // HOP)
        return (torch.randn(batch, *size, generator=drawn),)

    def taps(self, model: nn.Module, inputs: tuple[Tensor, ...]) -> list[Tensor]:
        """Return the states or feature maps of the taps, class tokens left out."""
        given = model(*inputs)
        assert isinstance(given, list | tuple), f"it gives a {type(given).__name__}, not a list"
        if self.encoder.modality == "text":
            found = [*given]
        else:
            pairs = all(isinstance(each, tuple) and len(each) == 2 for each in given)
            assert pairs, "it does not give pairs of a feature map and a class token or None"
            found = [grid for grid, _ in given]
        assert all(isinstance(each, Tensor) for each in found), "its taps are not tensors"
        return found


class Taps(nn.Module):
    """All taps as a tuple, as a graph gives them."""

    def __init__(self, case: EncoderCase) -> None:
        super().__init__()
        self.case, self.model = case, case.model()

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Inputs to the states or feature maps of the taps."""
        return tuple(self.case.taps(self.model, inputs))


def check_encoder(encoder: PluginEncoder, folder: Path | None = None) -> None:
    """Check that an encoder does what designs, training, export and timing rely on.

    Shapes and widths of the taps are as declared; taps are the outputs of the layers, and the same
    for every depth that is built; first weights follow the seed; ONNX Runtime gives what torch
    gives; samples do not depend on each other, nor texts on the ids in their padding; gradients are
    finite and reach all weights. It takes seconds.

    Args:
        encoder: an instance of the class that the entry point names.
        folder: weights to check it with; first weights where left out.

    Raises:
        AssertionError: the first thing that is wrong, in words.
    """
    case, name = EncoderCase(encoder, folder), type(encoder).__name__
    for check in ENCODER_CHECKS:
        try:
            check(case)
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}") from error
        except Exception as error:
            task = check.__name__.removeprefix("check_").replace("_", " ")
            said = f"{type(error).__name__}: {error}"
            raise AssertionError(f"{name}: checking {task} raised {said}") from error


def check_shapes(case: EncoderCase) -> None:
    """Each tap has the declared width, and the extents of its kind."""
    inputs = case.inputs()
    taps = case.taps(case.model(), inputs)
    assert len(taps) == case.depth, f"widths declares {case.depth} taps, it gives {len(taps)}"
    kind = case.encoder.modality
    wanted = 3 if kind == "text" else 4
    for tap, (values, width) in enumerate(zip(taps, case.encoder.widths, strict=True), 1):
        shape = tuple(values.shape)
        fits = values.ndim == wanted and shape[0] == BATCH
        if kind == "text":
            fits = fits and shape[1] == inputs[0].shape[1]
        form = "(B, L, C)" if kind == "text" else "(B, C, H, W)"
        assert fits, f"tap {tap} is {shape}, not {form}"
        found = shape[CHANNELS[kind]]
        assert found == width, f"widths declares {width} features at tap {tap}, it gives {found}"
        assert bool(values.isfinite().all()), f"tap {tap} is not finite"


def check_class_tokens(case: EncoderCase) -> None:
    """Each tap has a class token as wide as the tap, or none has one."""
    if case.encoder.modality == "text":
        return
    tokens = [token for _, token in case.model()(*case.inputs())]
    if all(token is None for token in tokens):
        return
    for tap, (token, width) in enumerate(zip(tokens, case.encoder.widths, strict=True), 1):
        shape = None if token is None else tuple(token.shape)
        assert shape == (BATCH, width), f"class token {tap} is {shape}, not {(BATCH, width)}"


def check_hidden_states(case: EncoderCase) -> None:
    """Taps are the outputs of the layers; a norm may follow the last one."""
    model = case.model()
    layers = getattr(model, "layers", None)
    fits = isinstance(layers, nn.ModuleList) and len(layers) == case.depth
    assert fits, f"it has no `layers`, an nn.ModuleList of {case.depth}, one a tap"
    states: list[Tensor] = []

    def keep(_layer: nn.Module, _inputs: Any, output: Any) -> None:
        states.append(output if isinstance(output, Tensor) else output[0])

    hooks = [layer.register_forward_hook(keep) for layer in cast(nn.ModuleList, layers)]
    taps = case.taps(model, case.inputs())
    for hook in hooks:
        hook.remove()
    assert len(states) == case.depth, f"{case.depth} layers are run {len(states)} times"
    for tap, (values, state) in enumerate(zip(taps[:-1], states[:-1], strict=True), 1):
        same([_as_map(state, values)], [_array(values)], f"tap {tap} is not what layer {tap} gives")


def check_depths(case: EncoderCase) -> None:
    """An encoder that is built to a tap gives the same there as one that is built whole."""
    whole, inputs = case.model(), case.inputs()
    taps, weights = case.taps(whole, inputs), whole.state_dict()
    for depth in range(1, case.depth):
        model = case.model(depth)
        found = case.taps(model, inputs)
        assert len(found) == depth, f"built to tap {depth}, it gives {len(found)} taps"
        what = f"built to tap {depth}, it gives other values than whole"
        same(found, [_array(each) for each in taps[:depth]], what)
        extra = [name for name in model.state_dict() if name not in weights]
        assert not extra, f"built to tap {depth}, it has a weight that the whole lacks: {extra[0]}"


def check_seed(case: EncoderCase) -> None:
    """Its weights are the same for the same seed; first weights are others for another seed."""
    one, other = (case.model().state_dict() for _ in range(2))
    assert [*one] == [*other], "two modules have other weights"
    for name in one:
        assert torch.equal(one[name], other[name]), (
            f"{name} is drawn otherwise for the same torch.manual_seed"
        )
    if case.folder is None:
        first, others = (dict(case.model(seed=seed).named_parameters()) for seed in (0, 1))
        differ = not first or any(not torch.equal(first[name], others[name]) for name in first)
        assert differ, "its first weights are the same for another torch.manual_seed"


def check_samples_alone(case: EncoderCase) -> None:
    """The output for a sample does not depend on the others of the batch."""
    model, inputs = case.model(), case.inputs()
    together = case.taps(model, inputs)
    alone = [case.taps(model, tuple(part[k : k + 1] for part in inputs)) for k in range(BATCH)]
    for tap, values in enumerate(together):
        found = torch.cat([each[tap] for each in alone])
        same([found], [_array(values)], f"a sample alone and in a batch differ at tap {tap + 1}")


def check_padding(case: EncoderCase) -> None:
    """Real tokens of a text do not depend on the ids in its padding."""
    if case.encoder.modality != "text":
        return
    model, (ids, mask) = case.model(), case.inputs()
    other = torch.where(mask == 1, ids, (ids + 1).remainder(case.encoder.vocabulary))
    real = mask.bool()
    first, again = (case.taps(model, (each, mask)) for each in (ids, other))
    for tap, (one, two) in enumerate(zip(first, again, strict=True), 1):
        what = f"real tokens depend on the ids in the padding at tap {tap}"
        same([one[real]], [_array(two[real])], what)


def check_onnx(case: EncoderCase) -> None:
    """ONNX Runtime gives what torch gives, at every tap."""
    import onnxruntime

    module, inputs = Taps(case).eval(), case.inputs(1)
    names = [f"input {k}" for k in range(len(inputs))]
    given = [f"tap {k}" for k in range(1, case.depth + 1)]
    with tempfile.TemporaryDirectory(prefix="fusion-nas-") as folder:
        file = Path(folder) / "encoder.onnx"
        export(module, inputs, file, names, given, {})
        session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    found = session.run(given, {n: v.numpy() for n, v in zip(names, inputs, strict=True)})
    expected = [_array(each) for each in module(*inputs)]
    same([torch.from_numpy(np.asarray(each)) for each in found], expected, "ONNX and torch differ")


def check_gradients(case: EncoderCase) -> None:
    """Gradients are finite and reach all weights."""
    model = case.model().train()
    sum(each.pow(3).mean() for each in case.taps(model, case.inputs())).backward()  # type: ignore[union-attr]
    for name, weight in model.named_parameters():
        reached = weight.grad is not None and bool((weight.grad != 0).any())
        assert reached, f"no gradient reaches {name}"
        finite = weight.grad is not None and bool(weight.grad.isfinite().all())
        assert finite, f"the gradient of {name} is not finite"


ENCODER_CHECKS: tuple[Callable[[EncoderCase], None], ...] = (
    check_shapes,
    check_class_tokens,
    check_seed,
    check_hidden_states,
    check_depths,
    check_samples_alone,
    check_padding,
    check_onnx,
    check_gradients,
)
"""What `check_encoder` runs; each raises AssertionError."""


def _array(values: Tensor) -> Any:
    return values.detach().double().numpy()


def _as_map(state: Tensor, tap: Tensor) -> Tensor:
    """Tokens (B, N, C) of a layer as the feature map of its tap, tokens before the map left out."""
    if state.ndim != 3 or tap.ndim != 4:
        return state
    height, width = tap.shape[2:]
    cells = state[:, -height * width :]
    return cells.transpose(1, 2).reshape(state.shape[0], -1, height, width)
