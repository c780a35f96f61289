"""A fused design without one of its modalities: constants replace that trunk."""

from dataclasses import dataclass

from torch import Tensor, nn

from evaluators.features.fusion_inputs import FusionInputs
from search_space.design.genotype import Genotype
from search_space.encoders.features import Feature
from search_space.modality import Modality
from search_space.network.network import INPUTS, FusionNetwork, by_modality


class WithoutOne(nn.Module):
    """The network with one modality absent for good, for batches of 1.

    It gives what the whole network gives where the absent modality says nothing, and does none of
    its work: `nothing` is what the fusion reads of a text without words, of a blank picture or of
    silence.
    """

    def __init__(self, network: FusionNetwork, absent: Modality, nothing: FusionInputs) -> None:
        super().__init__()
        self.fusion = network.fusion
        self._read = {m: wanted for m, wanted in network.wanted.items() if m != absent}
        self.trunks = nn.ModuleDict({m: network.trunks[m] for m in self._read})
        self._constant = tuple(nothing.of(absent))
        for feature, tensor in nothing.of(absent).items():
            self.register_buffer(feature.name, tensor.clone(), persistent=False)
        self._mask: Tensor | None
        self.register_buffer("_mask", nothing.mask, persistent=False)

    def forward(self, *inputs: Tensor) -> Tensor:
        """Logits (1, classes) from the inputs of the modalities that are left."""
        given = by_modality(self._read, inputs)
        features: dict[Feature, Tensor] = {}
        for modality, wanted in self._read.items():
            features |= self.trunks[modality](*given[modality], wanted)
        features |= {feature: getattr(self, feature.name) for feature in self._constant}
        mask = given["text"][1] if "text" in given else self._mask
        logits: Tensor = self.fusion(features, mask)
        return logits


@dataclass(frozen=True)
class Without:
    """Which modality a graph runs without, and what stands in its place."""

    absent: Modality
    nothing: FusionInputs

    def applied(self, network: FusionNetwork) -> WithoutOne:
        """The network without the modality, in evaluation mode."""
        return WithoutOne(network, self.absent, self.nothing).eval()

    def left_of(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """Those of a fused network's inputs that are left."""
        return tuple(name for name in names if name not in INPUTS[self.absent])

    def left_of_row(self, genotype: Genotype, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The same of the inputs themselves."""
        given = by_modality(genotype.encoders, inputs)
        return tuple(part for m, parts in given.items() if m != self.absent for part in parts)
