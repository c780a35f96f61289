"""What a data set is: samples with text, picture, sound and a class, in three fixed splits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal, get_args

from evaluators.data.errors import DataError
from search_space.modality import Modality

Split = Literal["train", "valid", "test"]
Kind = Literal["mosi", "meld", "folder", "faces", "shapes"]
BOTH: tuple[Modality, ...] = ("text", "vision")
"""What is read where nothing else is asked for."""
DRAWN: tuple[Kind, ...] = ("faces", "shapes")
"""Kinds that are drawn from a seed, and say nothing about real data."""
FaultKind = Literal["two splits", "fold", "stranger", "count", "picture", "sound"]
SPLITS: tuple[Split, ...] = get_args(Split)
SEVERAL = -1
"""In the place of a label where a sample has any number of classes: no class has this index."""


@dataclass(frozen=True)
class Damage:
    """What is done to a picture when it is read; names are in `evaluators.features.corruptions`."""

    name: str
    severity: int
    seed: int


@dataclass(frozen=True)
class Sample:
    """One row of a data set; its picture and sound, where read, were usable when it was loaded."""

    id: str
    """Unique in the data set: `VIDEO/CLIP`, `SPLIT/UTTERANCE`, or the id of a folder of images."""
    group: str
    """What folds must not cut through: the video, the dialogue, the image, or the id itself."""
    text: str
    label: int
    """Index into the classes of the data set; SEVERAL where `labels` are given."""
    score: float | None
    """Sentiment in -3..3, only in MOSI's layout."""
    split: Split
    image: Path | None
    """Absolute path of the picture (of clips: of the frame); None where none was read."""
    damages: tuple[Damage, ...] = ()
    """By which the picture is spoilt, in this order; empty but for data spoilt on purpose."""
    sound: Path | None = None
    """Absolute path of a WAV file (one channel, 16 kHz, 16 bits); None where none was read."""
    labels: tuple[int, ...] | None = None
    """Of multi-label data: indices of all its classes, ascending, empty for none; else None."""

    @property
    def picture(self) -> Path:
        """`image`, for whoever cannot do without. Raises DataError where only texts were read."""
        if self.image is None:
            raise DataError(
                f"{self.id}: the data were read without pictures; leave out --text-only"
            )
        return self.image

    @property
    def recording(self) -> Path:
        """`sound`, for whoever cannot do without. Raises DataError where no sound was read."""
        if self.sound is None:
            raise DataError(
                f"{self.id}: the data were read without sound; load them with the modality audio"
            )
        return self.sound


@dataclass(frozen=True)
class Dropped:
    """A row that was left out, and why."""

    id: str
    why: str


@dataclass(frozen=True)
class Fault:
    """Something that keeps a study from starting unless it is told to."""

    kind: FaultKind
    text: str
    """What is wrong, with file and row, or with the split."""


@dataclass(frozen=True)
class DataSet:
    """Samples in the order of their file. Plain values throughout, so it can be pickled."""

    name: str
    kind: Kind
    classes: tuple[str, ...]
    samples: tuple[Sample, ...]
    note: str
    """One sentence that every table and page about this data prints."""
    fingerprint: str
    """SHA-256 (hex) over ids, groups, texts, labels, scores, splits, contents of pictures and of
    sounds that were read, the modalities where they are not text and vision, and how many faults
    of which kind there are."""
    modalities: tuple[Modality, ...] = BOTH
    """What was read: without "vision" no sample has an image, without "audio" none a sound."""
    published: str = ""
    """Name of the published data set that this is a copy of, where that is known."""
    faults: tuple[Fault, ...] = ()
    """What is wrong and was accepted; empty for data that passed the check."""
    dropped: tuple[Dropped, ...] = ()
    mended: tuple[str, ...] = field(default=(), compare=False)
    """Kept frames and sounds that were damaged and have been made again, in words."""
    ceilings: Mapping[str, float] | None = field(default=None, hash=False)
    """Bayes-optimal accuracy from "text", "vision" and "both", where sound was read also from
    "audio" and "all"; known for the drawn sets only."""
    cut_from: str = ""
    """Of a fold: the fingerprint of the data that it was cut from, whose contents it shares."""

    @property
    def multi_label(self) -> bool:
        """Whether a sample has any number of classes, not exactly one."""
        return any(sample.labels is not None for sample in self.samples[:1])

    @property
    def contents(self) -> str:
        """The fingerprint of the data that ids are looked up in: alike for all folds of a set."""
        return self.cut_from or self.fingerprint

    def split(self, name: Split) -> tuple[Sample, ...]:
        """The samples of one split, in the order of the file."""
        if name not in SPLITS:
            raise ValueError(f"split {name!r} is unknown; use one of {', '.join(SPLITS)}")
        return tuple(sample for sample in self.samples if sample.split == name)

    def counts(self, split: Split) -> tuple[int, ...]:
        """Samples of each class in one split, in the order of `classes`."""
        return class_counts(self.split(split), len(self.classes))

    def majority(self, split: Split) -> tuple[int, float]:
        """The most frequent class of one split (the first of equals) and its share, 0..1.

        Raises ValueError for a split without samples and for multi-label data, see
        `most_frequent_share`.
        """
        if self.multi_label:
            raise ValueError(f"{self.name} is multi-label: no single class answers a sample")
        counts = self.counts(split)
        if not sum(counts):
            raise ValueError(f"split {split!r} has no samples, so no majority class")
        index = counts.index(max(counts))
        return index, counts[index] / sum(counts)

    @cached_property
    def uninformative(self) -> tuple[Modality, ...]:
        """Modalities in which all training samples are alike, so nothing can be learnt from them.

        Of pictures and sounds those count as alike that are one file.
        """
        train = self.split("train")
        read: dict[Modality, set[str | Path | None]] = {
            "text": {sample.text for sample in train},
            "vision": {sample.image for sample in train},
            "audio": {sample.sound for sample in train},
        }
        return tuple(modality for modality in self.modalities if len(read[modality]) == 1)

    @property
    def shares_pictures(self) -> bool:
        """Whether several samples of a split have one picture."""
        shown = [(sample.split, sample.image) for sample in self.samples if sample.image]
        return len(set(shown)) < len(shown)

    def groups(self, split: Split) -> tuple[str, ...]:
        """The distinct groups of one split, sorted."""
        return tuple(sorted({sample.group for sample in self.split(split)}))


def class_counts(samples: Sequence[Sample], classes: int) -> tuple[int, ...]:
    """How many samples have each of so many classes."""
    found = Counter(
        index
        for sample in samples
        for index in ((sample.label,) if sample.labels is None else sample.labels)
    )
    return tuple(found[index] for index in range(classes))


def most_frequent_share(samples: Sequence[Sample]) -> float:
    """Share, 0..1, of the samples with the most frequent class or, of several, set of classes.

    Raises ValueError for no samples.
    """
    if not samples:
        raise ValueError("no samples, so no most frequent class")
    found = Counter((s.label,) if s.labels is None else s.labels for s in samples)
    return max(found.values()) / len(samples)
