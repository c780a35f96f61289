"""A design from the last frozen taps of its trunks on, with adapters in the layers after them."""

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from search_space.design.adapting import adapted_layers
from search_space.design.genotype import Genotype
from search_space.design.rules import Shapes
from search_space.encoders.features import Feature, features_of
from search_space.encoders.trunks import AdaptableTrunk, Features
from search_space.modality import Modality
from search_space.network.adapters import adapt, merge
from search_space.network.network import Fusion


class Adapters:
    """The adapters of a design's trunks, put into their last layers in place until `merge`.

    Everything else of the trunks is frozen. `weights` are the adapters' own, by modality.
    """

    def __init__(
        self, genotype: Genotype, shapes: Shapes, trunks: Mapping[str, nn.Module], seed: int
    ) -> None:
        """`trunks` of the design, uncut, by modality; `seed` draws the first weights."""
        generator = torch.Generator().manual_seed(seed)
        self._layers: list[nn.Module] = []
        self.weights = nn.ModuleDict()
        for modality in genotype.encoders:
            if layers := adapted_layers(genotype, modality, shapes):
                trunks[modality].requires_grad_(False)
                own = cast(AdaptableTrunk, trunks[modality]).last_layers(layers.start)
                self.weights[modality] = adapt(own, genotype.lora_rank, generator)
                self._layers += own

    def merge(self) -> None:
        """Write the adapted weights in the place of the frozen ones; no adapter is left."""
        merge(self._layers)


class AdaptedNetwork(nn.Module):
    """Adapted layers and fusion of a design, for features of the frozen layers before them.

    Trunks stay in evaluation mode, also in training: no dropout, and statistics of BatchNorm as
    they are, so that what is kept of the layers before them stays right.
    """

    def __init__(
        self,
        genotype: Genotype,
        shapes: Shapes,
        fusion: Fusion,
        trunks: Mapping[str, nn.Module],
    ) -> None:
        """`trunks` by modality carry `Adapters`; those of adapted layers are cut in place."""
        super().__init__()
        self.fusion = fusion
        self.trunks = nn.ModuleDict()
        self._made: dict[Modality, tuple[Feature, ...]] = {}
        self._states: dict[Modality, tuple[Feature, ...]] = {}
        wanted, kept = features_of(genotype, shapes), []
        for modality, name in genotype.encoders.items():
            own = [f for f in wanted if f.modality == modality]
            layers = adapted_layers(genotype, modality, shapes)
            if layers:
                tap = layers.start - 1
                self._made[modality] = tuple(f for f in own if f.tap > tap)
                self._states[modality] = _states(modality, tap, shapes[name].has_class_token)
                self.trunks[modality] = trunks[modality]
                cast(AdaptableTrunk, trunks[modality]).go_on_from(tap)
            kept += [f for f in own if not layers or f.tap < layers.start]
        states = [feature for each in self._states.values() for feature in each]
        self.wanted = tuple(sorted({*kept, *states}))
        """Features of frozen layers that it reads."""

    def train(self, mode: bool = True) -> "AdaptedNetwork":
        """Fusion in training mode, trunks in evaluation mode."""
        super().train(mode)
        self.trunks.eval()
        return self

    def forward(self, features: Features, mask: Tensor | None) -> Tensor:
        """The `wanted` features and the text's mask (B, L) to logits (B, classes)."""
        logits: Tensor = self.fusion(self.read(features, mask), mask)
        return logits

    def read(self, features: Features, mask: Tensor | None) -> dict[Feature, Tensor]:
        """What the fusion reads, of the `wanted` features."""
        found = dict(features)
        for modality, trunk in self.trunks.items():
            own = cast(Modality, modality)
            given = [_handed_on([features[f] for f in self._states[own]])]
            given += [mask] if own == "text" and mask is not None else []
            found |= trunk(*given, self._made[own])
        return found


def _states(modality: Modality, tap: int, has_class_token: bool) -> tuple[Feature, ...]:
    """The features of a tap that its next layer reads."""
    if modality == "text":
        return (Feature(modality, tap, "tokens"),)
    grid = Feature(modality, tap, "grid")
    return (Feature(modality, tap, "cls"), grid) if has_class_token else (grid,)


def _handed_on(states: list[Tensor]) -> Tensor:
    """Tokens or a map as they are; a class token (B, C) and a map (B, C, H, W) as tokens."""
    if len(states) == 1:
        return states[0]
    class_token, grid = states
    return torch.cat([class_token.unsqueeze(1), grid.flatten(2).transpose(1, 2)], 1)
