"""Features of frozen trunks over a data set, computed once and kept on disk.

Pooled forms of all taps are made in one pass; whole sequences and feature maps only for the taps
that a design asks for. They are kept in half precision, pooled forms in full.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import torch
from filelock import FileLock
from safetensors import SafetensorError, safe_open
from torch import Tensor

from evaluators.data import Sample
from evaluators.preprocessing import Preprocessing
from evaluators.trunk_weights import TrunkWeights, write_tensors
from search_space.encoders import EncoderShape, EncoderSpec
from search_space.features import Feature, Form

BATCH = 32
PICTURES_ON_CPU = 8
"""Pictures in one batch on a CPU: their feature maps stay in its cache (MobileNetV2: 12 ms a
picture, 20 ms in batches of 32)."""
SMALL_MAP_BYTES = 64 * 1024
POOLED = ("cls", "mean", "max", "pooler")
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
    ) -> None:
        self._preprocessing = preprocessing
        self._trunks = trunks
        self._folder = folder
        self._progress = progress
        self._device = compute_device

    def get(
        self,
        spec: EncoderSpec,
        shape: EncoderShape,
        wanted: Sequence[Feature],
        samples: Sequence[Sample],
        length: int,
    ) -> dict[Feature, Tensor]:
        """The wanted features of the samples, first extent N; made where they are not kept.

        `length` is the longest text in tokens; vision ignores it. Raises OSError where they
        cannot be written.
        """
        files = {
            self._folder / f"{self._key(spec, group, samples, length)}.safetensors": group
            for group in _groups(spec, shape, wanted)
        }
        missing = {
            file: group for file, group in files.items() if _read(file, group, wanted) is None
        }
        if missing:  # files appear whole, so only their makers need to wait for each other
            with ExitStack() as locks:
                self._folder.mkdir(parents=True, exist_ok=True)
                for file in sorted(missing):
                    locks.enter_context(FileLock(f"{file}.lock"))
                missing = {f: g for f, g in missing.items() if _read(f, g, wanted) is None}
                if missing:
                    self._make(missing, spec, samples, length)
        found: dict[Feature, Tensor] = {}
        for file, group in files.items():
            kept = _read(file, group, wanted)
            if kept is None:
                raise OSError(f"{file}: features were written and cannot be read back")
            found |= kept
        return found

    def _key(
        self, spec: EncoderSpec, group: Sequence[Feature], samples: Sequence[Sample], length: int
    ) -> str:
        conditions = [
            self._trunks.identity(spec),
            self._preprocessing.fingerprint(spec),
            [feature.name for feature in group],
            [sample.id for sample in samples],
            length if spec.modality == "text" else 0,
        ]
        return hashlib.sha256(json.dumps(conditions).encode()).hexdigest()

    def _make(
        self,
        files: Mapping[Path, Sequence[Feature]],
        spec: EncoderSpec,
        samples: Sequence[Sample],
        length: int,
    ) -> None:
        """Fills all of these files in one pass over the samples."""
        features = tuple(feature for group in files.values() for feature in group)
        trunk = self._trunks.trunk(spec, max(feature.tap for feature in features))
        trunk = trunk.to(self._device)
        whole: dict[Feature, Tensor] = {}
        done = 0
        with torch.inference_mode():
            for at, inputs in self._inputs(spec, samples, length):
                made = trunk(*(part.to(self._device) for part in inputs), features)
                for feature, tensor in made.items():
                    _put(whole, feature, tensor.cpu(), at, len(samples), length)
                done += len(at)
                if self._progress:
                    self._progress(f"features of {spec.name}", done, len(samples))
        for file, group in files.items():
            write_tensors({feature.name: whole[feature] for feature in group}, file)

    def _inputs(
        self, spec: EncoderSpec, samples: Sequence[Sample], length: int
    ) -> Iterable[tuple[Tensor, tuple[Tensor, ...]]]:
        """Batches with the samples' places: texts of like length together, cut to the longest."""
        if spec.modality == "vision":
            places = torch.arange(len(samples))
            size = PICTURES_ON_CPU if self._device == "cpu" else BATCH
            pixels = self._preprocessing.pixels(spec, samples).stream(size)
            for start, batch in zip(range(0, len(samples), size), pixels, strict=True):
                yield places[start : start + size], (batch,)
            return
        ids, mask = self._preprocessing.text(spec, samples, length)
        order = mask.sum(1).argsort(stable=True)
        for start in range(0, len(ids), BATCH):
            at = order[start : start + BATCH]
            longest = max(1, int(mask[at].sum(1).max()))
            yield at, (ids[at, :longest], mask[at, :longest])


def _put(
    whole: dict[Feature, Tensor],
    feature: Feature,
    part: Tensor,
    at: Tensor,
    count: int,
    length: int,
) -> None:
    """Puts a batch's feature at its samples' places; text tokens beyond the batch's are zero."""
    over_text = feature.modality == "text" and feature.form == "tokens"
    if feature not in whole:
        shape = (count, length, part.shape[2]) if over_text else (count, *part.shape[1:])
        dtype = torch.float32 if feature.form in POOLED else torch.float16
        whole[feature] = torch.zeros(shape, dtype=dtype)
    if over_text:
        whole[feature][at, : part.shape[1]] = part.to(whole[feature].dtype)
    else:
        whole[feature][at] = part.to(whole[feature].dtype)


def _groups(
    spec: EncoderSpec, shape: EncoderShape, wanted: Sequence[Feature]
) -> list[tuple[Feature, ...]]:
    """Features that are made in one pass: all pooled ones, all small maps, each other one alone.

    Pictures are dear: vision tokens (at most 7x7) ride along with the pooled forms.
    """
    forms: list[Form] = ["cls", "mean"] if spec.modality == "text" else ["mean", "max", "tokens"]
    if spec.modality == "vision" and shape.has_class_token:
        forms.append("cls")
    taps = range(1, shape.depth + 1)
    together = {Feature(spec.modality, tap, form) for tap in taps for form in forms}
    if shape.has_pooler:
        together.add(Feature("text", shape.depth, "pooler"))
    small = {Feature(spec.modality, tap, "grid") for tap in taps if _map_bytes(shape, tap)}
    groups = [tuple(sorted(group)) for group in (together, small) if group & set(wanted)]
    return [*groups, *((f,) for f in wanted if f not in together and f not in small)]


def _map_bytes(shape: EncoderShape, tap: int) -> int:
    """Bytes of a tap's feature map in half precision; 0 for text, and where it is not small."""
    if not shape.sides:
        return 0
    height, width = shape.sides[tap - 1]
    size = 2 * height * width * shape.widths[tap - 1]
    return size if size <= SMALL_MAP_BYTES else 0


def _read(
    file: Path, group: Sequence[Feature], wanted: Sequence[Feature]
) -> dict[Feature, Tensor] | None:
    """The wanted ones of a file's features, or None where there is no file or it is damaged."""
    try:
        with safe_open(str(file), "pt") as kept:
            return {f: kept.get_tensor(f.name) for f in group if f in wanted}
    except (OSError, SafetensorError):
        return None
