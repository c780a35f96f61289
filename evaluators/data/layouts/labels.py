"""`label.csv` to checked entries, for both layouts: clips with a score, and image+text folders."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
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
    "folder": ("id", "label", "mode"),
}
"""Columns that a layout needs."""
TEXT = "text"
"""Column that a folder of images or sounds may do without; clips always have it."""
IMAGE = "image"
"""Column that a folder of images may have: the picture's name, where several texts share one."""
CLIP_CLASSES = ("negative", "non-negative")
LOWEST, HIGHEST = -3.0, 3.0

_NUMBER = re.compile(r"\s*[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?\s*")

_IMAGES = re.compile(r"\A\s*(?:\.[/\\])?images[/\\]")

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
            return Labels(layout, classes, entries, TEXT in table.columns)
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
        f"{', '.join(COLUMNS['folder'])} (images or sounds), and {TEXT} where there are texts"
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
    plain = file_name if layout == "clips" else _in_images
    names = tuple(checked(plain, column, "") for column in key_columns)
    split: Split = checked(_split, "mode", SPLITS[0])
    if layout == "clips":
        score = checked(_score, "label", 0.0)
        return Entry(
            name, row.number, names, names[0], row.cells["text"], int(score >= 0), score, split
        )
    label = checked(lambda text: _class(text, classes), "label", 0)
    image = checked(plain, IMAGE, "") if IMAGE in row.cells else ""
    group, text = image or names[0], row.cells.get(TEXT, "")
    return Entry(name, row.number, names, group, text, label, None, split, image)


def _in_images(text: str) -> str:
    """An id that may be written as a path into the folder of images. Raises ValueError."""
    return file_name(_IMAGES.sub("", text))


def _split(text: str) -> Split:
    for split in SPLITS:
        if text.strip() == split:
            return split
    raise ValueError(f"{short(text)} is unknown; use train, valid or test")


def _score(text: str) -> float:
    value = float(text) if _NUMBER.fullmatch(text) else None
    if value is None or not LOWEST <= value <= HIGHEST:
        raise ValueError(f"{short(text)} is not a number in -3..3; correct it or remove the row")
    return value


def _class(text: str, classes: tuple[str, ...]) -> int:
    if text.strip() not in classes:
        raise ValueError(f"{short(text)} is empty; name a class or remove the row")
    return classes.index(text.strip())


def _alike_classes(table: Table) -> list[str]:
    """Labels that a reader takes for one class: by case, number, Unicode form or hidden marks."""
    first: dict[str, dict[str, int]] = {}
    for row in table.rows:
        label = row.cells["label"].strip()
        first.setdefault(_to_the_eye(label), {}).setdefault(label, row.number)
    return [
        f"{table.name}: labels {_listed(alike)} {_how_alike(list(alike))}; spell them alike, or "
        "give other names"
        for alike in first.values()
        if len(alike) > 1
    ]


def _to_the_eye(label: str) -> str:
    """A label without what a reader does not see: case, Unicode form, hidden marks, zeros."""
    if _NUMBER.fullmatch(label):
        return repr(float(label) + 0.0)
    shown = "".join(c for c in label if unicodedata.category(c) not in ("Cf", "Cc"))
    return " ".join(unicodedata.normalize("NFKC", shown).casefold().split())


def _listed(alike: Mapping[str, int]) -> str:
    """Labels with their first rows, escaped where they would otherwise be printed alike."""
    by_case = len({label.casefold() for label in alike}) == 1
    quoted = short if by_case else (lambda label: ascii(label)[:60])
    return ", ".join(f"{quoted(label)} (row {number})" for label, number in alike.items())


def _how_alike(labels: Sequence[str]) -> str:
    if len({label.casefold() for label in labels}) == 1:
        return "differ in upper and lower case alone"
    if all(map(_NUMBER.fullmatch, labels)):
        return "are one number"
    return "look alike and differ in hidden characters or Unicode form"


def _empty_splits(entries: Sequence[Entry], name: str) -> list[str]:
    if not entries:
        return [f"{name}: there are no usable rows under the header"]
    return [
        f"{name}: no row has mode {split}; all of train, valid and test are needed"
        for split in SPLITS
        if not any(entry.split == split for entry in entries)
    ]
