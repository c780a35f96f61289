"""How a training uses the machine it runs on: batches fetched ahead, memory, compiled layers."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from evaluators.features.examples import Examples
from evaluators.training.config import Arithmetic, TrainingConfig

CARD_BYTES = 8e9
"""Every training fits a card of this size, and is cut alike on larger ones."""
RESERVED_BYTES = 1.2e9
"""Of it: the runtime's own, convolution workspaces, and validation in fp32."""
STATE_BYTES = 16
"""Of a weight in training: itself, its gradient and the optimiser's two moments, in fp32."""
UNSEEN_FACTOR = 1.5
"""Memory beyond the tensors that are kept for the backward pass: dropout's masks, gradients on
their way, fragments."""
MEASURED_SAMPLES = 2
LEAST_PART = 2
"""Samples that BatchNorm needs."""
WIDTH = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Execution:
    """What a machine does to be fast; results depend on it by rounding, and by the cut of batches.

    device: "cpu" or "cuda". batches_ahead: fetched in the background. memory_bytes: what a
    training may take; batches are cut into parts that fit, whose gradients are added up
    (BatchNorm then sees the parts). compiler: torch.compile's backend for trunks' repeated
    layers, for trainings of at least `compile_from_steps` steps; None compiles nothing.
    """

    device: str = "cpu"
    batches_ahead: int = 0
    memory_bytes: float | None = None
    compiler: str | None = None
    compile_from_steps: int = 1000


PLAIN = Execution()
"""A CPU, on which nothing is fetched ahead, cut or compiled."""


def execution_on(device: str, compiled: bool = False) -> Execution:
    """What is done on this device: a CPU does without all of it; a card compiles if asked to."""
    if device != "cuda":
        return replace(PLAIN, device=device)
    return Execution(device, 4, CARD_BYTES, "inductor" if compiled else None)


def place(module: nn.Module, device: str) -> None:
    """Brings a module there; on a card with convolutions in the order that pixels come in."""
    module.to(device)
    if device == "cuda":
        module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def part_size(
    module: nn.Module,
    examples: Examples,
    config: TrainingConfig,
    arithmetic: Arithmetic,
    execution: Execution,
) -> int:
    """Samples that are trained at once: the configuration's batch, or a part of it that fits.

    Hangs on shapes, on the longest texts and on `memory_bytes` alone, so it is the same on every
    card. Never under two samples.
    """
    if execution.memory_bytes is None:
        return config.batch_size
    states = STATE_BYTES * sum(p.numel() for p in module.parameters())
    room = execution.memory_bytes - RESERVED_BYTES - states
    needed = UNSEEN_FACTOR * activation_bytes(module, examples, arithmetic)
    return min(config.batch_size, max(LEAST_PART, int(room / max(1.0, needed))))


def activation_bytes(module: nn.Module, examples: Examples, arithmetic: Arithmetic) -> float:
    """Bytes that one more sample keeps for the backward pass, at the longest text there is.

    Measured as the difference of two forward passes, so that what all samples share drops out.
    """
    longest = torch.arange(len(examples.labels))
    if examples.lengths is not None:
        longest = examples.lengths.argsort(descending=True, stable=True)
    few, more = longest[:MEASURED_SAMPLES], longest[: 2 * MEASURED_SAMPLES]
    if len(more) == len(few):
        return 0.0
    kept = [_cached_bytes(module, examples, part, arithmetic) for part in (few, more)]
    return max(0.0, (kept[1] - kept[0]) / (len(more) - len(few)))


def _cached_bytes(
    module: nn.Module, examples: Examples, indices: Tensor, arithmetic: Arithmetic
) -> int:
    """Bytes of the storages that a forward pass keeps; in evaluation mode, which changes none."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    module.eval()
    batch = examples.batch(indices)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        with autocast(batch.labels.device.type, arithmetic):
            logits = batch.logits(module)
        del logits
    return sum(kept.values())


def autocast(kind: str, arithmetic: Arithmetic) -> torch.autocast:
    """Matrix products of this arithmetic on a kind of device; nothing for fp32."""
    return torch.autocast(kind, WIDTH[arithmetic], enabled=arithmetic != "fp32")


@contextmanager
def compiled_layers(module: nn.Module, execution: Execution, steps: int) -> Iterator[int]:
    """Compiles the layers that trunks repeat, for the time of a training; tells how many.

    Layers of one shape share one compilation, whatever their number. Convolutional trunks stay as
    they are: each of their layers has a shape of its own.
    """
    wanted = execution.compiler is not None and steps >= execution.compile_from_steps
    layers = [layer for layers in repeated_layers(module) for layer in layers] if wanted else []
    for layer in layers:
        layer.compile(backend=execution.compiler, dynamic=True)
    try:
        yield len(layers)
    finally:
        for layer in layers:
            layer._compiled_call_impl = None


def repeated_layers(module: nn.Module) -> list[list[nn.Module]]:
    """Lists of at least two layers whose weights have the same names and shapes."""
    found: list[list[nn.Module]] = []
    for child in module.children():
        layers = list(child.children()) if isinstance(child, (nn.ModuleList, nn.Sequential)) else []
        shapes = [[(n, p.shape) for n, p in layer.named_parameters()] for layer in layers]
        if len(layers) > 1 and shapes[0] and all(one == shapes[0] for one in shapes):
            found.append(layers)
        else:
            found += repeated_layers(child)
    return found
