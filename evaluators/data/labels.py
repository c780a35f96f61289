"""`label.csv` to checked entries, for both layouts: clips with a score, and image+text folders."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from evaluators.data.errors import DataError, short
from evaluators.data.samples import SPLITS, Split
from evaluators.data.table import Row, Table, parse

Layout = Literal["clips", "folder"]

COLUMNS: dict[Layout, tuple[str, ...]] = {
    "clips": ("video_id", "clip_id", "text", "label", "mode"),
    "folder": ("id", "text", "label", "mode"),
}
CLIP_CLASSES = ("negative", "non-negative")
LOWEST, HIGHEST = -3.0, 3.0

_NUMBER = re.compile(r"\s*[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?\s*")
_DRIVE = re.compile(r"[A-Za-z]:")
_LONGEST_NAME_BYTES = 200

_Value = TypeVar("_Value")


@dataclass(frozen=True)
class Entry:
    """One checked row, its picture not yet looked for."""

    row: int
    names: tuple[str, ...]
    """(video, clip) or (id,): each a plain file name."""
    text: str
    label: int
    score: float | None
    split: Split

    @property
    def id(self) -> str:
        return "/".join(self.names)


@dataclass(frozen=True)
class Labels:
    """All of a `label.csv`: its layout, its classes, its entries in the order of the file."""

    layout: Layout
    classes: tuple[str, ...]
    entries: tuple[Entry, ...]


def read_labels(data: bytes, name: str = "label.csv", clips: bool | None = None) -> Labels:
    """Parse and check the bytes of a `label.csv`.

    `clips` tells the layout where the columns leave it open; a `video_id` or `clip_id` column
    always means clips. Raises DataError with every problem of the file; nothing else.
    """
    table = parse(data, name)
    if not table.columns:
        raise _error(table, table.problems)
    layout = _layout(table, clips)
    problems = [*table.problems, *_missing_columns(table, layout)]
    if all(column in table.columns for column in COLUMNS[layout]):
        classes = CLIP_CLASSES if layout == "clips" else _folder_classes(table)
        entries = tuple(_entry(row, layout, classes, name, problems) for row in table.rows)
        problems += _duplicates(entries, name) + _empty_splits(entries, name)
        problems += _alike_classes(table) if layout == "folder" else []
        if not problems:
            problems += _untrainable_classes(entries, classes, name)
        if not problems:
            return Labels(layout, classes, entries)
    raise _error(table, problems)


def _layout(table: Table, clips: bool | None) -> Layout:
    if {"video_id", "clip_id"} & set(table.columns):
        return "clips"
    return "clips" if clips and "id" not in table.columns else "folder"


def _error(table: Table, problems: Sequence[str]) -> DataError:
    count = f"{len(problems)} problem" + ("" if len(problems) == 1 else "s")
    return DataError(f"{table.name}: {count}", problems)


def _missing_columns(table: Table, layout: Layout) -> list[str]:
    absent = [column for column in COLUMNS[layout] if column not in table.columns]
    if not absent:
        return []
    present = ", ".join(short(column) for column in table.columns)
    return [
        f"{table.name} row 1: no column {', '.join(absent)}; present are {present}; "
        f"needed are {', '.join(COLUMNS['clips'])} (clips) or "
        f"{', '.join(COLUMNS['folder'])} (images with text)"
    ]


def _folder_classes(table: Table) -> tuple[str, ...]:
    return tuple(sorted({row.cells["label"].strip() for row in table.rows} - {""}))


def _entry(
    row: Row, layout: Layout, classes: tuple[str, ...], name: str, problems: list[str]
) -> Entry:
    """The entry of one row; what is wrong in it goes to `problems` and gets a stand-in value."""

    def checked(check: Callable[[str], _Value], column: str, stand_in: _Value) -> _Value:
        try:
            return check(row.cells[column])
        except ValueError as error:
            problems.append(f"{name} row {row.number}: {column} {error}")
            return stand_in

    key_columns = ("video_id", "clip_id") if layout == "clips" else ("id",)
    names = tuple(checked(_file_name, column, "") for column in key_columns)
    split: Split = checked(_split, "mode", SPLITS[0])
    if layout == "clips":
        score = checked(_score, "label", 0.0)
        return Entry(row.number, names, row.cells["text"], int(score >= 0), score, split)
    label = checked(lambda text: _class(text, classes), "label", 0)
    return Entry(row.number, names, row.cells["text"], label, None, split)


def _file_name(text: str) -> str:
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


def _split(text: str) -> Split:
    for split in SPLITS:
        if text.strip() == split:
            return split
    raise ValueError(f"{short(text)} is unknown; use train, valid or test")


def _score(text: str) -> float:
    value = float(text) if _NUMBER.fullmatch(text) else None
    if value is None or not LOWEST <= value <= HIGHEST:
        raise ValueError(f"{short(text)} is not a number in -3..3; mend it or remove the row")
    return value


def _class(text: str, classes: tuple[str, ...]) -> int:
    if text.strip() not in classes:
        raise ValueError(f"{short(text)} is empty; name a class or remove the row")
    return classes.index(text.strip())


def _alike_classes(table: Table) -> list[str]:
    """Labels that differ in upper and lower case alone: hardly two classes, and read as one."""
    first: dict[str, dict[str, int]] = {}
    for row in table.rows:
        label = row.cells["label"].strip()
        first.setdefault(label.casefold(), {}).setdefault(label, row.number)
    return [
        f"{table.name}: labels "
        + ", ".join(f"{short(label)} (row {number})" for label, number in alike.items())
        + " differ in upper and lower case alone; spell them alike, or give other names"
        for alike in first.values()
        if len(alike) > 1
    ]


def _duplicates(entries: Sequence[Entry], name: str) -> list[str]:
    first: dict[tuple[str, ...], int] = {}
    problems: list[str] = []
    for entry in entries:
        known = first.setdefault(entry.names, entry.row)
        if known != entry.row and all(entry.names):
            problems.append(
                f"{name} row {entry.row}: id {short(entry.id)} is already in row {known}; "
                "remove or rename one"
            )
    return problems


def _empty_splits(entries: Sequence[Entry], name: str) -> list[str]:
    if not entries:
        return [f"{name}: there are no usable rows under the header"]
    return [
        f"{name}: no row has mode {split}; all of train, valid and test are needed"
        for split in SPLITS
        if not any(entry.split == split for entry in entries)
    ]


def _untrainable_classes(
    entries: Sequence[Entry], classes: tuple[str, ...], name: str
) -> list[str]:
    """Classes that no training row has; only worth telling once every label is sound."""
    if len(classes) == 1:
        return [f"{name}: all rows have label {short(classes[0])}; at least two are needed"]
    trained = {entry.label for entry in entries if entry.split == "train"}
    return [
        f"{name}: class {short(label)} occurs in no train row, so it cannot be learnt; "
        "mend the label or add such a row"
        for index, label in enumerate(classes)
        if index not in trained
    ]
