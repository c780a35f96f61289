"""A fusion operator as a plugin: each modality is scaled by gates that the other one makes."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from fusion_nas.operators import (
    Array,
    FusionOperator,
    On,
    Paddings,
    Signature,
    Weights,
    Work,
    numpy_layers,
    work,
)

if TYPE_CHECKING:
    from torch import nn


class CrossGated(FusionOperator):
    """sigmoid(W I + b) * T + sigmoid(V T + c) * I.

    The outputs have the width N of the inputs, so `output_width` is that of the base class.
    """

    signature = Signature(equal_widths=True, most=2)

    def work(self, lengths: Sequence[int], width: int) -> Iterable[tuple[On, Work]]:
        """Count the two linear maps; three more operators follow them."""
        yield "vectors", work.gemm(2 * width, width, operators=7)

    def reference(
        self, weights: Weights, padding: Paddings, inputs: Sequence[Array]
    ) -> tuple[Array, ...]:
        """Compute in NumPy what the module gives: (B, N) twice to (B, N)."""
        text, vision = inputs
        of_text, of_vision = (
            1 / (1 + np.exp(-numpy_layers.linear(numpy_layers.part(weights, name), values)))
            for name, values in (("of_text", vision), ("of_vision", text))
        )
        return (of_text * text + of_vision * vision,)

    def module(self, width: int, modalities: int) -> "nn.Module":
        """Return a module of two Linears. torch is imported here, not above."""
        import torch
        from torch import nn

        class Gates(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.of_text = nn.Linear(width, width)
                self.of_vision = nn.Linear(width, width)

            def forward(self, text: torch.Tensor, vision: torch.Tensor) -> torch.Tensor:
                gated_text = torch.sigmoid(self.of_text(vision)) * text
                return gated_text + torch.sigmoid(self.of_vision(text)) * vision

        return Gates()
