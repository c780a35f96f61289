"""Labelled samples as a training reads them: batches, fetched in the background where it pays."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from evaluators.features.preprocessing import Values
from evaluators.features.store import Rows
from search_space.encoders.features import Feature

LIKE_LENGTH_BATCHES = 16
"""Batches of texts of like length are cut from this many batches' worth of shuffled samples."""
LEAST_PICTURES = 4
"""In a batch of samples that share pictures."""
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
    batch costs hangs on none of them. `groups` (N,) are numbers from 0 on: samples of one share a
    picture, which costs less in one batch; None where none do.
    """

    labels: Tensor
    lengths: Tensor | None
    groups: Tensor | None

    def batch(self, indices: Tensor) -> Batch:
        """The samples at `indices` (B,). A background thread may ask."""
        ...


class CachedFeatures:
    """Samples as features of frozen trunks, for a `Fusion`.

    Of features on disk a batch is in memory; on a card all are, where they are few enough.
    """

    def __init__(
        self, features: Mapping[Feature, Rows], mask: Tensor | None, labels: Tensor, device: str
    ) -> None:
        self.labels = labels
        self.groups: Tensor | None = None
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

    Pictures wait as bytes and are normalised where the network runs: a quarter of the copying. A
    trunk reads one that several samples of a batch share once.
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
        shared = [v.places for v in values if len(torch.unique(v.places)) < len(labels)]
        self.groups: Tensor | None = shared[0] if shared else None

    def batch(self, indices: Tensor) -> Batch:
        """The samples at `indices` (B,), on the host."""
        inputs: list[Tensor] = []
        if self._text is not None:
            ids, mask = self._text[0][indices], _trimmed(self._text[1][indices])
            inputs = [to_device(part, self._device) for part in (ids[:, : mask.shape[1]], mask)]
        rows: list[Tensor | None] = [None] * len(inputs)
        for values in self._values:
            places, own = torch.unique(values.places[indices], return_inverse=True)
            shared = 1 < len(places) < len(indices)  # BatchNorm cannot take one alone
            kept = values.kept(places if shared else values.places[indices])
            inputs.append(values.normalised(to_device(kept, self._device)))
            rows.append(to_device(own, self._device) if shared else None)
        labels = to_device(self.labels[indices], self._device)
        if all(own is None for own in rows):
            return Batch(labels, lambda module: module(*inputs))
        return Batch(labels, lambda module: module(*inputs, rows=rows))


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

    Samples that share a picture stay together, but where a batch would hold too few pictures. A
    last batch of one sample is left out: BatchNorm cannot take its statistics.
    """
    groups = examples.groups
    if groups is None or size < LEAST_PICTURES * int(groups.bincount().max()):
        order = torch.randperm(len(examples.labels), generator=generator)
    else:
        place = torch.randperm(int(groups.max()) + 1, generator=generator)
        order = place[groups].argsort(stable=True)
    lengths = _longest(examples)
    if lengths is not None:
        parts: Sequence[Tensor] = order.split(LIKE_LENGTH_BATCHES * size)  # type: ignore[no-untyped-call]
        order = torch.cat([part[lengths[part].argsort(stable=True)] for part in parts])
    cut: Sequence[Tensor] = order.split(size)  # type: ignore[no-untyped-call]
    batches = [batch for batch in cut if len(batch) > 1]
    return [batches[k] for k in torch.randperm(len(batches), generator=generator).tolist()]


def by_length(examples: Examples) -> Tensor:
    """Indices (N,) of all samples, short texts first: batches of them hold little padding.

    Samples that share a picture stay together.
    """
    groups, lengths = examples.groups, _longest(examples)
    order = torch.arange(len(examples.labels)) if groups is None else groups.argsort(stable=True)
    return order if lengths is None else order[lengths[order].argsort(stable=True)]


def _longest(examples: Examples) -> Tensor | None:
    """(N,) tokens of each text, or of the longest that shares its picture; None as `lengths`."""
    lengths, groups = examples.lengths, examples.groups
    if lengths is None or groups is None:
        return lengths
    longest = lengths.new_zeros(int(groups.max()) + 1).scatter_reduce(0, groups, lengths, "amax")
    return longest[groups]
