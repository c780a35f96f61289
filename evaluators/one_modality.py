"""A fused design on one modality: in place of the other's trunk stand constants."""

from dataclasses import dataclass
from typing import cast

from torch import Tensor, nn

from evaluators.fusion_inputs import FusionInputs
from search_space.encoders import Modality
from search_space.features import Feature
from search_space.network import FusionNetwork


class OneModality(nn.Module):
    """The network with one modality absent for good, for batches of 1.

    It gives what the whole network gives where the absent modality says nothing, and does none of
    its work: `nothing` is what the fusion reads of a text without words and of a blank picture.
    """

    def __init__(self, network: FusionNetwork, absent: Modality, nothing: FusionInputs) -> None:
        super().__init__()
        self.fusion, self.absent = network.fusion, absent
        self.trunk = cast(nn.Module, network.vision if absent == "text" else network.text)
        self._read = network.vision_features if absent == "text" else network.text_features
        self._constant = tuple(nothing.of(absent))
        for feature, tensor in nothing.of(absent).items():
            self.register_buffer(feature.name, tensor.clone(), persistent=False)
        self._mask: Tensor | None
        self.register_buffer("_mask", nothing.mask, persistent=False)

    def forward(self, *inputs: Tensor) -> Tensor:
        """Logits (1, classes) from the inputs of the present modality."""
        features: dict[Feature, Tensor] = dict(self.trunk(*inputs, self._read))
        features |= {feature: getattr(self, feature.name) for feature in self._constant}
        mask = self._mask if self.absent == "text" else inputs[1]
        logits: Tensor = self.fusion(features, mask)
        return logits


@dataclass(frozen=True)
class Without:
    """Which modality a graph runs without, and what stands in its place."""

    absent: Modality
    nothing: FusionInputs

    def applied(self, network: FusionNetwork) -> OneModality:
        """The network without the modality, in evaluation mode."""
        return OneModality(network, self.absent, self.nothing).eval()

    def left_of(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """Those of a fused network's inputs that are left."""
        of_vision = self.absent == "text"
        return tuple(name for name in names if (name == "pixel_values") == of_vision)

    def left_of_row(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The same of ids, mask and pixels themselves."""
        return inputs[2:] if self.absent == "text" else inputs[:2]
