"""What an encoder computes up to a tap: counted once, on tensors that hold nothing."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from search_space.design.encoder import EncoderShape, EncoderSpec
from search_space.encoders.features import Feature
from search_space.encoders.loading import load_trunk
from search_space.operators.work import Work


class TrunkWork:
    """The work of encoders, from their architecture alone; what was counted is kept."""

    def __init__(self, encoders: Iterable[EncoderSpec], shapes: Mapping[str, EncoderShape]) -> None:
        self._encoders = {spec.name: replace(spec, weights="random") for spec in encoders}
        self.shapes = {name: shapes[name] for name in self._encoders}
        self._counted: dict[tuple[str, int, int], Work] = {}

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The encoders, in the order given."""
        return tuple(self._encoders)

    def base(self, encoder: str) -> str:
        """The encoder's name without the size of its pictures and what it merges."""
        return self._encoders[encoder].base

    def prefix(self, encoder: str, tap: int, tokens: int = 0) -> Work:
        """Work up to a tap; of text for a length in tokens. Tap 0 is none."""
        if not tap:
            return Work()
        key = encoder, tap, tokens
        if key not in self._counted:
            self._counted[key] = self._count(encoder, tap, tokens)
        return self._counted[key]

    def _count(self, encoder: str, tap: int, tokens: int) -> Work:
        spec, shape = self._encoders[encoder], self.shapes[encoder]
        with torch.device("meta"):
            trunk = load_trunk(spec, tap)
            inputs = (
                (torch.ones(1, tokens, dtype=torch.int64),) * 2
                if spec.modality == "text"
                else (torch.zeros(1, *shape.input_size),)
            )
        form: Any = "cls" if spec.modality == "text" else "grid"
        if spec.merging:  # whose maps are made of merged tokens for fusions of tokens alone
            form = "mean"
        # Fused attention would hide its products. Its plain form is counted.
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), _Tally() as tally:
            trunk(*inputs, (Feature(spec.modality, tap, form),))
        return Work(**tally.found)


class _Tally(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts what runs while it is entered."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: dict[str, float] = dict.fromkeys(vars(Work()), 0.0)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        aten = torch.ops.aten
        if func is aten._local_scalar_dense.default:
            return True  # asked of a text's mask alone: all tokens are real
        out = func(*args, **(kwargs or {}))
        values = [out] if isinstance(out, torch.Tensor) else []
        if func.is_view or not any(value.is_floating_point() for value in values):
            return out
        self.found["operators"] += 1
        self.found["elements"] += sum(value.numel() for value in values)
        packet = func._overloadpacket
        if packet in flop_registry:
            macs = flop_registry[packet](*args, **(kwargs or {}), out_val=out) / 2
            if packet is aten.convolution:
                self.found["depthwise" if args[8] > 1 else "convolution"] += macs
                self.found["weights"] += args[1].numel()
            elif packet in (aten.mm, aten.addmm):
                self.found["linear"] += macs
                self.found["weights"] += args[-1].numel()
            else:
                self.found["attention"] += macs
        return out
