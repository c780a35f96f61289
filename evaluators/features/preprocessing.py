"""From samples to what the trunks read: token ids under a mask, pixels and sounds."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from evaluators.data import DataSet, Sample, read_sound
from evaluators.features.corruptions import read_picture
from evaluators.features.prefetch import made_ahead
from evaluators.features.tokenizers import LearnedTokenizer, PretrainedTokenizer, Tokenizer
from search_space.design.encoder import SOUND_HZ, EncoderError, EncoderShape, EncoderSpec
from search_space.encoders.loading import describe_vocabulary
from search_space.encoders.pixels import normalisation
from search_space.encoders.sounds import SoundInput, sound_input

MOST_DECODERS = 8
"""Threads that decode pictures, as many as torch computes with, at most."""
DECODED_AHEAD = 64


class Preprocessing:
    """How one data set is turned into inputs for any encoder; each tokenizer is made once."""

    def __init__(self, data: DataSet, shapes: Mapping[str, EncoderShape]) -> None:
        self.data = data
        self.shapes = shapes
        self._tokenizers: dict[str, Tokenizer] = {}
        self._lengths: dict[str, tuple[int, ...]] = {}

    def tokenizer(self, spec: EncoderSpec) -> Tokenizer:
        """The encoder's own tokenizer; for random weights without one, learned from train.

        Raises EncoderError for one that is missing, or does not read the training texts.
        """
        if spec.name not in self._tokenizers:
            has_own = (
                spec.weights == "pretrained" or (Path(spec.source) / "tokenizer.json").is_file()
            )
            texts = (sample.text for sample in self.data.split("train"))
            if has_own:
                own = PretrainedTokenizer(spec)
                own.check(texts)
                self._tokenizers[spec.name] = own
            else:
                size = describe_vocabulary(spec)
                self._tokenizers[spec.name] = LearnedTokenizer(texts, size)
        return self._tokenizers[spec.name]

    def text(
        self, spec: EncoderSpec, samples: Sequence[Sample], length: int
    ) -> tuple[Tensor, Tensor]:
        """Ids and mask of the samples, (N, L') int64 each, padded to the longest they need.

        Raises EncoderError where the tokenizer gives an id that the encoder does not know.
        """
        ids, mask = self.tokenizer(spec).encode([sample.text for sample in samples], length)
        known = describe_vocabulary(spec)
        if ids.numel() and int(ids.max()) >= known:
            raise EncoderError(
                f"text encoder {spec.source}: its tokenizer gives token id {int(ids.max())}, its "
                f"config.json knows {known} (vocab_size); give a folder whose tokenizer and "
                "weights belong together"
            )
        return ids, mask

    def text_lengths(self, spec: EncoderSpec) -> tuple[int, ...]:
        """Tokens of the texts of all samples, as far as the encoder reads; labels are not read."""
        if spec.name not in self._lengths:
            _, mask = self.text(spec, self.data.samples, self.shapes[spec.name].max_tokens)
            self._lengths[spec.name] = tuple(mask.sum(1).tolist())
        return self._lengths[spec.name]

    def values(self, spec: EncoderSpec, samples: Sequence[Sample]) -> "Values":
        """The samples' pictures at the encoder's size, or their sounds as it reads them."""
        if spec.modality == "audio":
            return Sounds(samples, sound_input(spec))
        return Pixels(samples, self.shapes[spec.name].image_size, *normalisation(spec))

    def nothing(self, spec: EncoderSpec) -> Tensor:
        """A picture (3, S, S) of its set's mean colour, or silence, as the encoder reads it."""
        if spec.modality == "audio":
            return torch.from_numpy(sound_input(spec).of(np.zeros(SOUND_HZ, np.float32)))
        return torch.zeros(self.shapes[spec.name].input_size)

    def fingerprint(self, spec: EncoderSpec) -> str:
        """Changes whenever the inputs made for this encoder could."""
        settings: list[Any]
        if spec.modality == "text":
            settings = [self.tokenizer(spec).fingerprint]
        elif spec.modality == "audio":
            settings = ["sound", sound_input(spec).settings]
        else:
            settings = ["bilinear", self.shapes[spec.name].image_size, *normalisation(spec)]
        text = json.dumps([self.data.contents, settings])
        return hashlib.sha256(text.encode()).hexdigest()


class Values(Protocol):
    """Pictures or sounds of some samples; those that several samples share are kept once."""

    places: Tensor
    """(N,): where each sample's is among those that are kept."""

    def kept(self, places: Tensor) -> Tensor:
        """Those at `places` (B,), on the host, as they are kept."""
        ...

    def normalised(self, kept: Tensor) -> Tensor:
        """What is kept of some as the encoder reads it, float32; computed where it is."""
        ...

    def stream(self, size: int) -> Iterable[Tensor]:
        """All samples as the encoder reads them, in order, `size` at a time, none kept."""
        ...


class Sounds:
    """Sounds of some samples, read and brought to the encoder's form each time they are asked for.

    Kept, the waveforms of CMU-MOSI alone would take over a gigabyte.
    """

    def __init__(self, samples: Sequence[Sample], as_read: SoundInput) -> None:
        self._samples, self._as_read = samples, as_read
        self.places = torch.arange(len(samples))

    def kept(self, places: Tensor) -> Tensor:
        """(B, ...) float32, as the encoder reads them."""
        return torch.stack([self._made(self._samples[k]) for k in places.tolist()])

    def normalised(self, kept: Tensor) -> Tensor:
        """The same: nothing is left to do."""
        return kept

    def stream(self, size: int) -> Iterable[Tensor]:
        """All samples in order, `size` at a time; the next ones are made in the background."""
        made = made_ahead(self._made, self._samples, DECODED_AHEAD, 1)
        for start in range(0, len(self._samples), size):
            yield torch.stack(list(islice(made, min(size, len(self._samples) - start))))

    def _made(self, sample: Sample) -> Tensor:
        return torch.from_numpy(self._as_read.of(read_sound(sample)))


class Pixels:
    """Pictures of some samples: decoded by background threads, kept as bytes, normalised last."""

    def __init__(
        self, samples: Sequence[Sample], size: int, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        self._samples = samples
        first: dict[object, Sample] = {}
        shown = [(sample.image, sample.damages) for sample in samples]
        for picture, sample in zip(shown, samples, strict=True):
            first.setdefault(picture, sample)
        at = {picture: k for k, picture in enumerate(first)}
        self.places = torch.tensor([at[picture] for picture in shown], dtype=torch.int64)
        self._different = list(first.values())
        self._size = size
        self._scale = {"cpu": _scale(mean, std)}

    @cached_property
    def _all(self) -> Tensor:
        whole = torch.empty((len(self._different), 3, self._size, self._size), dtype=torch.uint8)
        for k, picture in enumerate(self._decoded(self._different)):
            whole[k] = picture
        return whole

    def kept(self, places: Tensor) -> Tensor:
        """Pixels (B, 3, S, S) uint8 of some pictures; all are kept in memory."""
        return self._all[places]

    def normalised(self, kept: Tensor) -> Tensor:
        """Pixels (B, 3, S, S) uint8 as the encoder reads them, float32, channels last.

        Computed where they are.
        """
        device = str(kept.device)
        if device not in self._scale:  # a copy to a card would be waited for every time
            self._scale[device] = tuple(part.to(device) for part in self._scale["cpu"])
        mean, std = self._scale[device]
        return ((kept.float() / 255 - mean) / std).contiguous(memory_format=torch.channels_last)

    def stream(self, size: int) -> Iterable[Tensor]:
        """Normalised pixels of all samples in order, `size` at a time, none kept."""
        decoded = self._decoded(self._samples)
        for start in range(0, len(self._samples), size):
            count = min(size, len(self._samples) - start)
            yield self.normalised(torch.stack([next(decoded) for _ in range(count)]))

    def _decoded(self, samples: Sequence[Sample]) -> Iterator[Tensor]:
        """Pictures (3, S, S) uint8 in order, some of them decoded before they are asked for."""
        workers = min(MOST_DECODERS, torch.get_num_threads())
        return made_ahead(self._decode, samples, DECODED_AHEAD, workers)

    def _decode(self, sample: Sample) -> Tensor:
        return torch.from_numpy(read_picture(sample, self._size))


def _scale(mean: Sequence[float], std: Sequence[float]) -> tuple[Tensor, ...]:
    return tuple(torch.tensor(part).view(1, 3, 1, 1) for part in (mean, std))
