"""Checked rows of a label file, and the checks that all layouts share."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from evaluators.data.errors import short
from evaluators.data.samples import Split

Layout = Literal["clips", "folder", "meld"]

_DRIVE = re.compile(r"[A-Za-z]:")
_LONGEST_NAME_BYTES = 200


@dataclass(frozen=True)
class Entry:
    """One checked row, its picture not yet looked for."""

    file: str
    """Name of the label file that it stands in."""
    row: int
    names: tuple[str, ...]
    """(video, clip), (id,), or in MELD (split, utterance): each a plain file name."""
    group: str
    """What folds must not cut through: the video, the dialogue, the image, or the id itself."""
    text: str
    label: int
    score: float | None
    split: Split
    image: str = ""
    """Name of the picture in a folder of images, where it is not the id."""
    labels: tuple[int, ...] | None = None
    """Of multi-label data: all of its classes, ascending; `label` is then SEVERAL."""

    @property
    def id(self) -> str:
        return "/".join(self.names)

    @property
    def where(self) -> str:
        """File and row, for a message."""
        return f"{self.file} row {self.row}"


@dataclass(frozen=True)
class Labels:
    """All rows of a data set: its layout, its classes, its entries in the order of the files."""

    layout: Layout
    classes: tuple[str, ...]
    entries: tuple[Entry, ...]
    has_texts: bool = True
    """False for a folder whose label file has no column of texts; every text is then empty."""


def file_name(text: str) -> str:
    """An id that is safe as the name of one file; raises ValueError."""
    if not text.strip():
        raise ValueError(f"{short(text)} is empty; give the row an id")
    parts = re.split(r"[/\\]", text)
    if len(parts) > 1 or text in (".", "..") or _DRIVE.match(text):
        raise ValueError(f"{short(text)} leads out of its folder; use a plain file name")
    if any(ord(character) < 32 or ord(character) == 127 for character in text):
        raise ValueError(f"{short(text)} contains control characters; remove them")
    if len(text.encode()) > _LONGEST_NAME_BYTES:
        raise ValueError(f"{short(text)} is longer than {_LONGEST_NAME_BYTES} bytes; shorten it")
    return text


def duplicates(entries: Sequence[Entry]) -> list[str]:
    """A problem for each row whose id an earlier row has."""
    first: dict[tuple[str, ...], Entry] = {}
    problems: list[str] = []
    for entry in entries:
        # Names in two Unicode forms, or with spaces about them, are those of one file.
        key = tuple(unicodedata.normalize("NFC", name.strip()) for name in entry.names)
        known = first.setdefault(key, entry)
        if known is not entry and all(entry.names):
            same = "" if known.names == entry.names else f" (there it is {ascii(known.id)[:60]})"
            problems.append(
                f"{entry.where}: id {short(entry.id)} is already in row {known.row}{same}; "
                "remove or rename one"
            )
    return problems


def untrainable_classes(entries: Sequence[Entry], classes: tuple[str, ...], name: str) -> list[str]:
    """Classes that no training row has; only worth telling once every label is sound."""
    if len(classes) == 1:
        return [f"{name}: all rows have label {short(classes[0])}; at least two are needed"]
    trained = {entry.label for entry in entries if entry.split == "train"}
    return [
        f"{name}: class {short(label)} occurs in no train row, so it cannot be learnt; "
        "correct the label or add such a row"
        for index, label in enumerate(classes)
        if index not in trained
    ]


def untrainable_sets(entries: Sequence[Entry], classes: tuple[str, ...], name: str) -> list[str]:
    """Classes of multi-label data that cannot be learnt; only worth telling once labels are sound.

    That is one that no training row has or that all of them have, or one class alone.
    """
    if not classes:
        return [f"{name}: no row has a class in column labels; at least two classes are needed"]
    if len(classes) == 1:
        return [
            f"{name}: column labels names {short(classes[0])} alone; name two classes in a column "
            "label, one of them for the rows without it"
        ]
    train = [entry.labels or () for entry in entries if entry.split == "train"]
    problems = []
    for index, label in enumerate(classes):
        count = sum(index in each for each in train)
        if not count:
            how, out = "occurs in no train row", "correct the label or add such a row"
        elif count == len(train):
            how, out = "occurs in every train row", "remove the class or add a row without it"
        else:
            continue
        problems.append(f"{name}: class {short(label)} {how}, so it cannot be learnt; {out}")
    return problems
