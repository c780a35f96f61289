"""What a data set is: samples with text, one picture and a class, in three fixed splits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

Split = Literal["train", "valid", "test"]
Kind = Literal["mosi", "folder", "rendered"]
Missing = Literal["few", "drop", "error"]
SPLITS: tuple[Split, ...] = get_args(Split)


@dataclass(frozen=True)
class Sample:
    """One row of a data set, with a picture that was there and readable when it was loaded."""

    id: str
    """Unique in the data set: `VIDEO/CLIP`, or the id of an image+text folder."""
    group: str
    """What folds must not cut through: the video, or the id itself."""
    text: str
    label: int
    """Index into the classes of the data set."""
    score: float | None
    """Sentiment in -3..3, only in MOSI's layout."""
    split: Split
    image: Path
    """Absolute path of the picture (in MOSI's layout: of the frame)."""


@dataclass(frozen=True)
class Dropped:
    """A row that was left out, and why."""

    id: str
    why: str


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
    """SHA-256 (hex) over ids, groups, texts, labels, scores, splits and picture contents."""
    dropped: tuple[Dropped, ...] = ()
    ceilings: Mapping[str, float] | None = field(default=None, hash=False)
    """Bayes-optimal accuracy from "text", "vision" and "both"; known for the rendered set only."""

    def split(self, name: Split) -> tuple[Sample, ...]:
        """The samples of one split, in the order of the file."""
        if name not in SPLITS:
            raise ValueError(f"split {name!r} is unknown; use one of {', '.join(SPLITS)}")
        return tuple(sample for sample in self.samples if sample.split == name)

    def counts(self, split: Split) -> tuple[int, ...]:
        """Samples of each class in one split, in the order of `classes`."""
        labels = [sample.label for sample in self.split(split)]
        return tuple(labels.count(index) for index in range(len(self.classes)))

    def majority(self, split: Split) -> tuple[int, float]:
        """The most frequent class of one split (the first of equals) and its share, 0..1.

        Raises ValueError for a split without samples.
        """
        counts = self.counts(split)
        if not sum(counts):
            raise ValueError(f"split {split!r} has no samples, so no majority class")
        index = counts.index(max(counts))
        return index, counts[index] / sum(counts)

    def groups(self, split: Split) -> tuple[str, ...]:
        """The distinct groups of one split, sorted."""
        return tuple(sorted({sample.group for sample in self.split(split)}))

    @property
    def empty_texts(self) -> int:
        """How many samples have a text of nothing but white space. They are kept."""
        return sum(not sample.text.strip() for sample in self.samples)
