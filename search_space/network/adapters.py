"""Low-rank adapters of a trunk's last layers: LoRA, arXiv 2106.09685 (Hu et al., 2021).

A linear map of frozen weights W (out, in) gives W x + alpha / r * B A x with A (r, in) and
B (out, r), of which A and B alone are trained. As in the authors' code, A is drawn from Kaiming's
uniform distribution and B is zero, so training starts from the trunk as it was. alpha is ALPHA,
whatever the rank, so that one learning rate serves all ranks.

Adapted are all linear maps of a layer: its `nn.Linear` modules (of attention and of the
feed-forward part; the authors adapt query and value, arXiv 2305.14314 found all of them needed to
reach whole training) and its convolutions of 1x1 cells without groups, which are linear maps of
channels. `merge` adds alpha / r * B A to the weights and takes the adapters away: the network is
then one of the same modules and shapes as before.

`torch.nn.utils.parametrize` computes the same by another way, W + alpha / r * B A before x, of
which the backward pass makes the whole gradient of W.
"""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ALPHA = 16.0
ADAPTERS_VERSION = 1
"""Increased whenever the adapters of a rank, or their first weights, change."""
_NAME = "adapter"


class LowRank(nn.Module):
    """The low-rank update of one linear map, which it is a child of until it is merged."""

    def __init__(
        self, adapted: nn.Linear | nn.Conv2d, rank: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        outputs, inputs = adapted.weight.shape[:2]
        bound = 1 / math.sqrt(inputs)  # Kaiming's, with the a = sqrt(5) of the authors' code
        drawn = torch.empty(rank, inputs).uniform_(-bound, bound, generator=generator)
        self.a = nn.Parameter(drawn)
        self.b = nn.Parameter(torch.zeros(outputs, rank))
        self.scale = ALPHA / rank
        self._hook = adapted.register_forward_hook(self._add)

    def _add(self, adapted: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        if isinstance(adapted, nn.Conv2d):
            a, b = self.a[:, :, None, None], self.b[:, :, None, None]
            low = F.conv2d(inputs[0], a, stride=adapted.stride)
            return output + self.scale * F.conv2d(low, b)
        return output + self.scale * F.linear(F.linear(inputs[0], self.a), self.b)

    @torch.no_grad()
    def merge(self, adapted: nn.Linear | nn.Conv2d) -> None:
        """Add the update to the weight of the map, and remove the adapter."""
        adapted.weight += self.scale * (self.b @ self.a).view_as(adapted.weight)
        self._hook.remove()
        delattr(adapted, _NAME)


def adapt(layers: Iterable[nn.Module], rank: int, generator: torch.Generator) -> nn.ModuleList:
    """Freeze the layers and give each of their linear maps an adapter, in place.

    Args:
        layers: the last ones of a trunk.
        rank: of every adapter.
        generator: draws their first weights.

    Returns:
        The adapters, in the order of the maps.
    """
    adapters = nn.ModuleList()
    for layer in layers:
        layer.requires_grad_(False)
        for module in _linear_maps(layer):
            adapter = LowRank(module, rank, generator)
            module.add_module(_NAME, adapter)
            adapters.append(adapter)
    return adapters


def merge(layers: Iterable[nn.Module]) -> None:
    """Merge the adapters of the layers into their weights, and remove them."""
    for layer in layers:
        for module in _linear_maps(layer):
            adapter = getattr(module, _NAME, None)
            if isinstance(adapter, LowRank):
                adapter.merge(module)


def _linear_maps(layer: nn.Module) -> list[nn.Linear | nn.Conv2d]:
    return [
        module
        for module in layer.modules()
        if isinstance(module, nn.Linear)
        or (isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1) and module.groups == 1)
    ]
