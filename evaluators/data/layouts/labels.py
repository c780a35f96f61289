"""`label.csv` to checked entries, for both layouts: clips with a score, and image+text folders."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TypeVar

from evaluators.data.errors import DataError, short
from evaluators.data.layouts.entries import (
    Entry,
    Labels,
    Layout,
    duplicates,
    file_name,
    untrainable_classes,
)
from evaluators.data.layouts.table import Record, Table, parse
from evaluators.data.samples import SPLITS, Split

COLUMNS: dict[Layout, tuple[str, ...]] = {
    "clips": ("video_id", "clip_id", "text", "label", "mode"),
    "folder": ("id", "text", "label", "mode"),
}
IMAGE = "image"
"""Column that a folder of images may have: the picture's name, where several texts share one."""
CLIP_CLASSES = ("negative", "non-negative")
LOWEST, HIGHEST = -3.0, 3.0

_NUMBER = re.compile(r"\s*[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?\s*")

_Value = TypeVar("_Value")


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
        problems += duplicates(entries) + _empty_splits(entries, name)
        problems += _alike_classes(table) if layout == "folder" else []
        if not problems:
            problems += untrainable_classes(entries, classes, name)
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
    row: Record, layout: Layout, classes: tuple[str, ...], name: str, problems: list[str]
) -> Entry:
    """The entry of one row; what is wrong in it goes to `problems` and gets a stand-in value."""

    def checked(check: Callable[[str], _Value], column: str, stand_in: _Value) -> _Value:
        try:
            return check(row.cells[column])
        except ValueError as error:
            problems.append(f"{name} row {row.number}: {column} {error}")
            return stand_in

    key_columns = ("video_id", "clip_id") if layout == "clips" else ("id",)
    names = tuple(checked(file_name, column, "") for column in key_columns)
    split: Split = checked(_split, "mode", SPLITS[0])
    if layout == "clips":
        score = checked(_score, "label", 0.0)
        return Entry(
            name, row.number, names, names[0], row.cells["text"], int(score >= 0), score, split
        )
    label = checked(lambda text: _class(text, classes), "label", 0)
    image = checked(file_name, IMAGE, "") if IMAGE in row.cells else ""
    group = image or names[0]
    return Entry(name, row.number, names, group, row.cells["text"], label, None, split, image)


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


def _empty_splits(entries: Sequence[Entry], name: str) -> list[str]:
    if not entries:
        return [f"{name}: there are no usable rows under the header"]
    return [
        f"{name}: no row has mode {split}; all of train, valid and test are needed"
        for split in SPLITS
        if not any(entry.split == split for entry in entries)
    ]
