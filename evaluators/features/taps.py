"""Features of frozen trunks over a data set, computed once and kept on disk.

Pooled forms of all taps are made in one pass; whole sequences and feature maps only for the taps
that a design asks for. Sequences are kept in half precision where that does no harm, all else in
full: a fusion that was trained for a hundred epochs on maps in half precision gave logits 2e-3 off.
Where features lie, and that what is damaged is made again, is `feature_store`'s part.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from evaluators.data import Sample
from evaluators.features.preprocessing import Preprocessing
from evaluators.features.store import SHARD_BYTES, FeatureStore, FeatureWriter, Rows
from evaluators.features.trunk_weights import TrunkWeights
from evaluators.shared_store import SharedStore
from search_space.design.encoder import EncoderShape, EncoderSpec
from search_space.encoders.features import Feature, Form

BATCH = 32
MAPS_ON_CPU = 8
"""Pictures, or sounds, in one batch on a CPU: their feature maps stay in its cache (MobileNetV2: 12
ms a picture, 20 ms in batches of 32)."""
TEXTS_SORTED = 256
"""Consecutive texts that are batched by length: few, as rows are written in order. Of tweets the
trunk then reads 6 % more tokens than if all were sorted."""
PADDED = 1.25
"""How much longer than its shortest text a batch may become, once it is worth its while."""
COPIED_ROWS = 256
SMALL_MAP_BYTES = 128 * 1024
Progress = Callable[[str, int, int], None]


class TapFeatures:
    """Features of frozen trunks by tap and form, over any samples of one data set."""

    def __init__(
        self,
        preprocessing: Preprocessing,
        trunks: TrunkWeights,
        folder: Path,
        progress: Progress | None = None,
        compute_device: str = "cpu",
        shard_bytes: int = SHARD_BYTES,
        shared: SharedStore | None = None,
    ) -> None:
        self._preprocessing = preprocessing
        self._trunks = trunks
        self._folder = folder
        self._progress = progress
        self._device = compute_device
        self._shard_bytes, self._shared = shard_bytes, shared
        self._text_lengths: dict[str, set[int]] = {}
        """Lengths that texts were read at so far, by encoder."""

    def get(
        self,
        spec: EncoderSpec,
        shape: EncoderShape,
        wanted: Sequence[Feature],
        samples: Sequence[Sample],
        length: int,
    ) -> dict[Feature, Rows]:
        """The wanted features of the samples, first extent N, mapped from disk.

        What is not kept, or not as it was written, is made first; one worker makes it while the
        others wait. `length` is the longest text in tokens, and nothing to other modalities. Raises
        OSError where they cannot be written.
        """
        stores = {
            self._store(spec, group, samples, length): group
            for group in _groups(spec, shape, wanted)
        }
        lacking = {store: group for store, group in stores.items() if store.missing()}
        if lacking:
            with ExitStack() as locks:
                for store in sorted(lacking, key=lambda store: store.folder):
                    locks.enter_context(store.lock())
                # Another worker may have made them meanwhile, another host before.
                lacking = {store: group for store, group in lacking.items() if store.missing()}
                if self._shared is not None:
                    for store in lacking:
                        store.fetch(self._shared)
                    lacking = {store: group for store, group in lacking.items() if store.missing()}
                if lacking:
                    self._make(lacking, spec, shape, samples, length)
                    if self._shared is not None:
                        for store in lacking:
                            store.send(self._shared)
        if spec.modality == "text":
            self._text_lengths.setdefault(spec.name, set()).add(length)
        found: dict[Feature, Rows] = {}
        for store, group in stores.items():
            asked = {feature.name: feature for feature in group if feature in wanted}
            found |= {asked[name]: rows for name, rows in store.read(asked).items()}
        return found

    def _store(
        self, spec: EncoderSpec, group: Sequence[Feature], samples: Sequence[Sample], length: int
    ) -> FeatureStore:
        ids = json.dumps([sample.id for sample in samples])
        conditions = {
            "trunk": self._trunks.identity(spec),
            "preprocessing": self._preprocessing.fingerprint(spec),
            "features": [feature.name for feature in group],
            "samples": hashlib.sha256(ids.encode()).hexdigest(),
            "tokens": length if spec.modality == "text" else 0,
        }
        if any(feature.form == "tokens" for feature in group):
            # Version 0.1.0 rounded first tokens that hardly differ.
            conditions["rounding"] = "first tokens apart"
        key = hashlib.sha256(json.dumps(conditions).encode()).hexdigest()
        return FeatureStore(self._folder / key, conditions, len(samples))

    def _make(
        self,
        stores: Mapping[FeatureStore, Sequence[Feature]],
        spec: EncoderSpec,
        shape: EncoderShape,
        samples: Sequence[Sample],
        length: int,
    ) -> None:
        """Fills all of these in one pass over the samples that any of them lacks.

        Texts that neither this length nor another one cuts are copied from there, if it is cached.
        """
        features = tuple(feature for group in stores.values() for feature in group)
        missing = torch.zeros(len(samples), dtype=torch.bool)
        for store in stores:
            for run in store.missing():
                missing[run.start : run.stop] = True
        rows = missing.nonzero().flatten()
        halvable = [feature.name for feature in features if feature.form == "tokens"]
        writers = {
            FeatureWriter(store, halvable, self._shard_bytes): group
            for store, group in stores.items()
        }
        if spec.modality == "text":
            rows = self._copy_uncut(writers, spec, shape, samples, length, rows)
            if not len(rows):
                return
        trunk = self._trunks.trunk(spec, max(feature.tap for feature in features))
        trunk = trunk.to(self._device)
        done = 0
        with torch.inference_mode():
            for at, inputs in self._inputs(spec, samples, length, rows):
                made = trunk(*(part.to(self._device) for part in inputs), features)
                kept = {feature: tensor.cpu() for feature, tensor in made.items()}
                for feature in kept:
                    if feature.over_text:
                        kept[feature] = _padded(kept[feature], inputs[1], length)
                for writer, group in writers.items():
                    writer.put(at, {feature.name: kept[feature] for feature in group})
                done += len(at)
                if self._progress:
                    self._progress(f"features of {spec.name}", done, len(rows))

    def _copy_uncut(
        self,
        writers: Mapping[FeatureWriter, Sequence[Feature]],
        spec: EncoderSpec,
        shape: EncoderShape,
        samples: Sequence[Sample],
        length: int,
        rows: Tensor,
    ) -> Tensor:
        """Copy the texts among `rows` that another length holds whole; return the other rows.

        What a trunk makes of a text depends on its tokens, not on the padding after them.
        """
        for other in sorted(self._text_lengths.get(spec.name, set()) - {length}, reverse=True):
            kept = {
                writer: self._store(spec, group, samples, other)
                for writer, group in writers.items()
            }
            if any(store.missing() for store in kept.values()):
                continue
            tokens = self._preprocessing.text(spec, samples, shape.max_tokens)[1].sum(1)
            uncut = tokens[rows] <= min(length, other)
            for at in rows[uncut].split(COPIED_ROWS):  # type: ignore[no-untyped-call]
                for writer, group in writers.items():
                    found = kept[writer].read([feature.name for feature in group])
                    writer.put(
                        at, {f.name: _at_length(f, found[f.name], at, length) for f in group}
                    )
            return rows[~uncut]
        return rows

    def _inputs(
        self, spec: EncoderSpec, samples: Sequence[Sample], length: int, rows: Tensor
    ) -> Iterable[tuple[Tensor, tuple[Tensor, ...]]]:
        """The samples at `rows` in batches, with their places."""
        if spec.modality != "text":
            size = MAPS_ON_CPU if self._device == "cpu" else BATCH
            wanted = [samples[k] for k in rows.tolist()]
            values = self._preprocessing.values(spec, wanted).stream(size)
            for at, batch in zip(_cut(rows, size), values, strict=True):
                yield at, (batch,)
            return
        ids, mask = self._preprocessing.text(spec, samples, length)
        lengths = mask.sum(1).clamp(min=1)
        for window in _cut(rows, TEXTS_SORTED):
            for at in _alike(window, lengths):
                longest = int(lengths[at].max())
                yield at, (ids[at, :longest], mask[at, :longest])


def _cut(rows: Tensor, size: int) -> Sequence[Tensor]:
    return [rows[first : first + size] for first in range(0, len(rows), size)]


def _alike(rows: Tensor, lengths: Tensor) -> Iterable[Tensor]:
    """Texts at `rows` (N,) in batches of like length, which hold little padding."""
    batch: list[int] = []
    for row in rows[lengths[rows].argsort(stable=True)].tolist():
        too_long = len(batch) >= BATCH / 4 and lengths[row] > PADDED * lengths[batch[0]]
        if len(batch) == BATCH or too_long:
            yield torch.tensor(batch)
            batch = []
        batch.append(row)
    yield torch.tensor(batch)


def _padded(tokens: Tensor, mask: Tensor, length: int) -> Tensor:
    """(B, L, C) under a mask (B, L) to (B, length, C), zero beyond each text."""
    own = tokens.masked_fill(mask.unsqueeze(2) == 0, 0.0)
    return functional.pad(own, (0, 0, 0, length - tokens.shape[1]))


def _at_length(feature: Feature, kept: Rows, at: Tensor, length: int) -> Tensor:
    """The rows `at` of a feature of texts, tokens cut or padded to a length; float32."""
    taken = kept.take(at, None).float()
    if not feature.over_text:
        return taken
    return functional.pad(taken[:, :length], (0, 0, 0, max(0, length - taken.shape[1])))


def _groups(
    spec: EncoderSpec, shape: EncoderShape, wanted: Sequence[Feature]
) -> list[tuple[Feature, ...]]:
    """Features that are made in one pass: all pooled ones, all small maps, each other one alone.

    Pictures and sounds are expensive: their tokens (at most 49) ride along with the pooled forms.
    """
    forms: list[Form] = ["cls", "mean"] if spec.modality == "text" else ["mean", "max", "tokens"]
    if shape.has_class_token:
        forms.append("cls")
    taps = range(1, shape.depth + 1)
    together = {Feature(spec.modality, tap, form) for tap in taps for form in forms}
    if shape.has_pooler:
        together.add(Feature("text", shape.depth, "pooler"))
    small = {Feature(spec.modality, tap, "grid") for tap in taps if _map_bytes(shape, tap)}
    groups = [tuple(sorted(group)) for group in (together, small) if group & set(wanted)]
    return [*groups, *((f,) for f in wanted if f not in together and f not in small)]


def _map_bytes(shape: EncoderShape, tap: int) -> int:
    """Bytes of a tap's feature map; 0 for text, and where it is not small."""
    if shape.modality != "vision":  # of a sound no fusion reads a map
        return 0
    height, width = shape.sides[tap - 1]
    size = 4 * height * width * shape.widths[tap - 1]
    return size if size <= SMALL_MAP_BYTES else 0
