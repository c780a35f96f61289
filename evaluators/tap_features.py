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
from safetensors.torch import save_file
from torch import Tensor

from evaluators.data import Sample
from evaluators.preprocessing import Preprocessing
from evaluators.trunk_weights import TrunkWeights
from search_space.encoders import EncoderShape, EncoderSpec
from search_space.features import Feature, Form

BATCH = 32
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
        """The wanted features of the samples, first extent N, memory-mapped; made if not kept.

        `length` is the longest text in tokens; vision ignores it.
        """
        files = {
            self._folder / f"{self._key(spec, group, samples, length)}.safetensors": group
            for group in _groups(spec, shape, wanted)
        }
        with ExitStack() as locks:
            for file in sorted(files):
                file.parent.mkdir(parents=True, exist_ok=True)
                locks.enter_context(FileLock(f"{file}.lock"))
            missing = {file: group for file, group in files.items() if _read(file, group) is None}
            if missing:
                self._make(missing, spec, samples, length)
        found: dict[Feature, Tensor] = {}
        for file, group in files.items():
            kept = _read(file, group)
            if kept is None:
                raise OSError(f"{file}: features were written and cannot be read back")
            found |= {feature: kept[feature] for feature in wanted if feature in kept}
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
        parts: dict[Feature, list[Tensor]] = {feature: [] for feature in features}
        done = 0
        with torch.inference_mode():
            for inputs in self._inputs(spec, samples, length):
                made = trunk(*(part.to(self._device) for part in inputs), features)
                for feature, tensor in made.items():
                    dtype = torch.float32 if feature.form in POOLED else torch.float16
                    parts[feature].append(tensor.to("cpu", dtype))
                done += len(inputs[0])
                if self._progress:
                    self._progress(f"features of {spec.name}", done, len(samples))
        for file, group in files.items():
            temporary = file.with_suffix(".partial")
            save_file({f.name: torch.cat(parts[f]).contiguous() for f in group}, temporary)
            temporary.replace(file)

    def _inputs(
        self, spec: EncoderSpec, samples: Sequence[Sample], length: int
    ) -> Iterable[tuple[Tensor, ...]]:
        if spec.modality == "vision":
            for pixels in self._preprocessing.pixels(spec, samples).stream(BATCH):
                yield (pixels,)
            return
        ids, mask = self._preprocessing.text(spec, samples, length)
        for start in range(0, len(ids), BATCH):
            yield ids[start : start + BATCH], mask[start : start + BATCH]


def _groups(
    spec: EncoderSpec, shape: EncoderShape, wanted: Sequence[Feature]
) -> list[tuple[Feature, ...]]:
    """Features that are made in one pass: all pooled ones, and each other one alone.

    Vision tokens are small (at most 7x7) and pictures are dear, so they ride along.
    """
    forms: list[Form] = ["cls", "mean"] if spec.modality == "text" else ["mean", "max", "tokens"]
    if spec.modality == "vision" and shape.has_class_token:
        forms.append("cls")
    taps = range(1, shape.depth + 1)
    together = {Feature(spec.modality, tap, form) for tap in taps for form in forms}
    if shape.has_pooler:
        together.add(Feature("text", shape.depth, "pooler"))
    groups = [tuple(sorted(together))] if any(f in together for f in wanted) else []
    return [*groups, *((feature,) for feature in wanted if feature not in together)]


def _read(file: Path, group: Sequence[Feature]) -> dict[Feature, Tensor] | None:
    """Kept features, or None where there are none or the file is damaged."""
    try:
        with safe_open(str(file), "pt") as kept:
            return {feature: kept.get_tensor(feature.name) for feature in group}
    except (OSError, SafetensorError):
        return None
