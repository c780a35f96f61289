"""Labelled samples as a training reads them: batches, fetched in the background where it pays."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from evaluators.feature_store import Rows
from evaluators.preprocessing import Values
from search_space.features import Feature

LIKE_LENGTH_BATCHES = 16
"""Batches of texts of like length are cut from this many batches' worth of shuffled samples."""
KEPT_ON_CARD_BYTES = 1e9
"""Features up to this size stay on the card for the whole training."""


@dataclass(frozen=True)
class Batch:
    """Some samples, ready on the compute device.

    labels: (B,), int64. logits: (B, classes) of a module that reads these samples.
    """

    labels: Tensor
    logits: Callable[[nn.Module], Tensor]


class Examples(Protocol):
    """Labelled samples of one split.

    `labels` (N,) stay on the host. `lengths` (N,) are the texts' in tokens, None where what a
    batch costs hangs on none of them.
    """

    labels: Tensor
    lengths: Tensor | None

    def batch(self, indices: Tensor) -> Batch:
        """The samples at `indices` (B,). A background thread may ask."""
        ...


class KeptFeatures:
    """Samples as features of frozen trunks, for a `Fusion`.

    Of features on disk a batch is in memory; on a card all are, where they are few enough.
    """

    def __init__(
        self, features: Mapping[Feature, Rows], mask: Tensor | None, labels: Tensor, device: str
    ) -> None:
        self.labels = labels
        over_tokens = any(feature.over_text for feature in features)
        self.lengths = mask.sum(1) if mask is not None and over_tokens else None
        self._mask, self._device = mask, device
        self._on_card = device == "cuda" and (
            sum(kept.bytes for kept in features.values()) <= KEPT_ON_CARD_BYTES
        )
        self._features = {
            feature: Rows((kept.whole().to(device),)) if self._on_card else kept
            for feature, kept in features.items()
        }

    def batch(self, indices: Tensor) -> Batch:
        """The samples at `indices` (B,), on the host."""
        at = to_device(indices, self._device) if self._on_card else indices
        mask, longest = None, None
        if self._mask is not None:
            mask = _trimmed(self._mask[indices])
            longest = mask.shape[1]
            mask = to_device(mask, self._device)
        features = {
            feature: to_device(
                kept.take(at, longest if feature.over_text else None), self._device
            ).float()
            for feature, kept in self._features.items()
        }
        return Batch(
            to_device(self.labels[indices], self._device), lambda module: module(features, mask)
        )


class RawInputs:
    """Samples as token ids, mask, pixels and sounds, for a `FusionNetwork`.

    Pictures wait as bytes and are normalised where the network runs: a quarter of the copying.
    """

    def __init__(
        self,
        text: tuple[Tensor, Tensor] | None,
        values: Sequence[Values],
        labels: Tensor,
        device: str,
    ) -> None:
        self.labels = labels
        self.lengths = text[1].sum(1) if text else None
        self._text, self._values, self._device = text, values, device

    def batch(self, indices: Tensor) -> Batch:
        """The samples at `indices` (B,), on the host."""
        inputs: list[Tensor] = []
        if self._text is not None:
            ids, mask = self._text[0][indices], _trimmed(self._text[1][indices])
            inputs = [to_device(part, self._device) for part in (ids[:, : mask.shape[1]], mask)]
        for values in self._values:
            inputs.append(values.normalised(to_device(values.kept(indices), self._device)))
        return Batch(to_device(self.labels[indices], self._device), lambda module: module(*inputs))


def to_device(tensor: Tensor, device: str) -> Tensor:
    """The tensor there; to a card through pinned memory, so that nobody waits for the copy."""
    if device != "cuda" or tensor.is_cuda:
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def _trimmed(mask: Tensor) -> Tensor:
    """A mask (B, L) cut to the longest text of the batch: padding changes no logit."""
    return mask[:, : max(1, int(mask.sum(1).max()))]


def shuffled_batches(examples: Examples, size: int, generator: torch.Generator) -> Iterable[Tensor]:
    """Indices of all samples in random batches, texts of like length together: less padding.

    A last batch of one sample is left out: BatchNorm cannot take its statistics.
    """
    order = torch.randperm(len(examples.labels), generator=generator)
    if examples.lengths is not None:
        lengths = examples.lengths
        parts: Sequence[Tensor] = order.split(LIKE_LENGTH_BATCHES * size)  # type: ignore[no-untyped-call]
        order = torch.cat([part[lengths[part].argsort(stable=True)] for part in parts])
    batches: list[Tensor] = [b for b in order.split(size) if len(b) > 1]  # type: ignore[no-untyped-call]
    return [batches[k] for k in torch.randperm(len(batches), generator=generator).tolist()]


def by_length(examples: Examples) -> Tensor:
    """Indices (N,) of all samples, short texts first: batches of them hold little padding."""
    if examples.lengths is None:
        return torch.arange(len(examples.labels))
    return examples.lengths.argsort(stable=True)
