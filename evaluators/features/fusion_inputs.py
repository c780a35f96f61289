"""What a design's fusion reads of each sample, under the design's own trained trunks."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from evaluators.features.examples import Examples
from search_space.encoders.features import Feature
from search_space.modality import Modality
from search_space.network.network import FusionNetwork, SharedRows

BATCH = 64


@dataclass(frozen=True)
class FusionInputs:
    """Of some samples: features, first extent B, and the text's mask (B, L), None without text."""

    features: Mapping[Feature, Tensor]
    mask: Tensor | None

    def of(self, modality: Modality) -> dict[Feature, Tensor]:
        """The features of one modality."""
        return {f: tensor for f, tensor in self.features.items() if f.modality == modality}

    def at(self, places: Tensor) -> "FusionInputs":
        """Of the samples at these places; texts are not cut."""
        mask = None if self.mask is None else self.mask[places]
        return FusionInputs({f: tensor[places] for f, tensor in self.features.items()}, mask)

    def repeated(self, count: int) -> "FusionInputs":
        """One sample as so many."""
        features = {f: t.expand(count, *t.shape[1:]) for f, t in self.features.items()}
        return FusionInputs(features, None if self.mask is None else self.mask.expand(count, -1))


def batches_of(
    network: FusionNetwork | None, examples: Examples, order: Tensor | None = None
) -> Iterator[FusionInputs]:
    """What the network's fusion reads of the samples at `order`, a batch at a time, on the host.

    Without `order`, of all samples in theirs. Of cached features it is those, and no network is
    needed; of raw inputs the network's trunks are run, where they are.
    """
    if order is None:
        order = torch.arange(len(examples.labels))
    noted: list[FusionInputs] = []
    with torch.inference_mode():
        for at in order.split(BATCH):  # type: ignore[no-untyped-call]
            examples.batch(at).logits(_Reads(network, noted))
            yield noted.pop()


def inputs_of(network: FusionNetwork | None, examples: Examples) -> FusionInputs:
    """The same of all samples at once, texts padded to the longest."""
    parts = list(batches_of(network, examples))
    masks = [part.mask for part in parts if part.mask is not None]
    longest = max((mask.shape[1] for mask in masks), default=0)

    def whole(feature: Feature) -> Tensor:
        tensors = [part.features[feature] for part in parts]
        return torch.cat([_padded(t, longest) for t in tensors] if feature.over_text else tensors)

    features = {feature: whole(feature) for feature in parts[0].features}
    return FusionInputs(
        features, torch.cat([_padded(mask, longest) for mask in masks]) if masks else None
    )


def read_by(
    network: FusionNetwork, *inputs: Tensor, rows: SharedRows | None = None
) -> FusionInputs:
    """What the fusion reads of the network's inputs, given as `forward` has them; on the host."""
    return _on_host(*network.read(*inputs, rows=rows))


class _Reads(nn.Module):
    """Stands in a fusion's, or in a whole network's, place and notes what the fusion would read."""

    def __init__(self, network: FusionNetwork | None, noted: list[FusionInputs]) -> None:
        super().__init__()
        self._network, self._noted = network, noted

    def forward(
        self, *inputs: Tensor | Mapping[Feature, Tensor] | None, rows: SharedRows | None = None
    ) -> Tensor:
        first, *rest = inputs
        if isinstance(first, Mapping):
            (mask,) = rest
            assert mask is None or isinstance(mask, Tensor)
            self._noted.append(_on_host(first, mask))
        else:
            assert self._network is not None
            self._noted.append(read_by(self._network, *inputs, rows=rows))  # type: ignore[arg-type]
        return torch.empty(0)  # instead of logits, which nobody asks for


def _on_host(features: Mapping[Feature, Tensor], mask: Tensor | None) -> FusionInputs:
    kept = {feature: tensor.cpu() for feature, tensor in features.items()}
    return FusionInputs(kept, None if mask is None else mask.cpu())


def _padded(tensor: Tensor, length: int) -> Tensor:
    """(B, L, ...) with zeros up to `length` in the second extent."""
    return F.pad(tensor, [0, 0] * (tensor.dim() - 2) + [0, length - tensor.shape[1]])
