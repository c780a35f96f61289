"""`label.csv` to checked entries, for both layouts: clips with a score, and image+text folders."""

from __future__ import annotations

import json
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
    untrainable_sets,
)
from evaluators.data.layouts.json_lines import parse_lines
from evaluators.data.layouts.table import Record, Table, parse
from evaluators.data.samples import SEVERAL, SPLITS, Split

COLUMNS: dict[Layout, tuple[str, ...]] = {
    "clips": ("video_id", "clip_id", "text", "label", "mode"),
    "folder": ("id", "label", "mode"),
}
"""Columns that a layout needs."""
TEXT = "text"
"""Column that a folder of images or sounds may do without; clips always have it."""
LABEL, LABELS = "label", "labels"
"""One class a row, or in multi-label data, where there is no column of that, any number."""
SEPARATOR = ";"
"""Between classes of a cell of LABELS, unless `data.json` states another."""
DECLARED = "label_separator"
"""Key of `data.json` that states the separator."""
OTHER_SEPARATORS = "|,/\t"
"""What others write between classes: told where no cell has the separator that is read."""
JSON_LINES = ".jsonl"
IMAGE = "image"
"""Column that a folder of images may have: the picture's name, where several texts share one."""
CLIP_CLASSES = ("negative", "non-negative")
LOWEST, HIGHEST = -3.0, 3.0

_NUMBER = re.compile(r"\s*[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?\s*")

_IMAGES = re.compile(r"\A\s*(?:\.[/\\])?images[/\\]")

_Value = TypeVar("_Value")


def read_labels(
    data: bytes,
    name: str = "label.csv",
    clips: bool | None = None,
    declared: Callable[[], bytes | None] = lambda: None,
) -> Labels:
    """Parse and check the bytes of a `label.csv` or `label.jsonl`.

    `clips` tells the layout where the columns leave it open; a `video_id` or `clip_id` column
    always means clips. `declared` reads `data.json`, which is asked of multi-label data alone.
    Raises DataError with every problem of the file; nothing else.
    """
    lines = name.lower().endswith(JSON_LINES)
    table = parse_lines(data, name, (LABELS,)) if lines else parse(data, name)
    if not table.columns:
        raise _error(table, table.problems)
    layout = _layout(table, clips)
    several = layout == "folder" and LABELS in table.columns and LABEL not in table.columns
    problems = [*table.problems, *([] if several else _missing_columns(table, layout))]
    needed = [LABELS if several and each == LABEL else each for each in COLUMNS[layout]]
    if several and (absent := [each for each in needed if each not in table.columns]):
        problems.append(
            f"{name} row 1: no column {', '.join(absent)}; needed are {', '.join(needed)}, and "
            f"{TEXT} where there are texts"
        )
    if all(column in table.columns for column in needed):
        named: dict[int, tuple[str, ...]] = {}
        if several:
            stated = None if lines else _separator(declared())
            named = {row.number: _named(row, stated or SEPARATOR) for row in table.rows}
            problems += [] if lines or stated else _other_separators(table)
        elif layout == "folder":
            named = {row.number: (row.cells[LABEL].strip(),) for row in table.rows}
        classes = CLIP_CLASSES if layout == "clips" else _folder_classes(named)
        entries = tuple(
            _entry(row, layout, classes, named[row.number] if several else None, name, problems)
            for row in table.rows
        )
        problems += duplicates(entries) + _empty_splits(entries, name)
        problems += _alike_classes(named, name)
        if not problems:
            untrainable = untrainable_sets if several else untrainable_classes
            problems += untrainable(entries, classes, name)
        if not problems:
            return Labels(layout, classes, entries, TEXT in table.columns)
    raise _error(table, problems)


def _separator(declared: bytes | None) -> str | None:
    """What `data.json` says to stand between the classes of a cell, if it does.

    Raises DataError for what cannot be meant.
    """
    if declared is None:
        return None
    try:
        separator = json.loads(declared.decode("utf-8-sig")).get(DECLARED)
    except (ValueError, AttributeError) as error:
        raise DataError(
            f"data.json: not a JSON object ({error}); correct it, or remove it to separate classes "
            f"by {SEPARATOR!r}"
        ) from error
    if separator is None:
        return None
    if not isinstance(separator, str) or not separator or separator.isalnum():
        raise DataError(
            f"data.json: {DECLARED} is {short(json.dumps(separator))}; give a mark such as "
            f'"{SEPARATOR}" or "|"'
        )
    return separator


def _named(row: Record, separator: str) -> tuple[str, ...]:
    """The names of a row's classes as they are written, none for an empty cell."""
    if LABELS in row.lists:
        return tuple(each.strip() for each in row.lists[LABELS])
    cell = row.cells[LABELS]
    return tuple(each.strip() for each in cell.split(separator)) if cell.strip() else ()


def _other_separators(table: Table) -> list[str]:
    """A problem where no row has the separator, and one has a mark that often is one."""
    if any(SEPARATOR in row.cells[LABELS] for row in table.rows):
        return []
    for row in table.rows:
        cell = row.cells[LABELS].strip()
        for mark in OTHER_SEPARATORS:
            if mark in cell:
                return [
                    f"{table.name}: classes are separated by {SEPARATOR!r}, which no row has, and "
                    f"row {row.number} has {mark!r} in {short(cell)}; state what separates them in "
                    f'data.json, such as {{"{DECLARED}": {json.dumps(mark)}}}, or '
                    f'{{"{DECLARED}": "{SEPARATOR}"}} where this is the name of one class'
                ]
    return []


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


def _folder_classes(named: Mapping[int, Sequence[str]]) -> tuple[str, ...]:
    return tuple(sorted({each for names in named.values() for each in names} - {""}))


def _entry(
    row: Record,
    layout: Layout,
    classes: tuple[str, ...],
    named: tuple[str, ...] | None,
    name: str,
    problems: list[str],
) -> Entry:
    """The entry of one row; what is wrong in it goes to `problems` and gets a stand-in value.

    `named`: the classes of a row of multi-label data, else None.
    """

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
    label, labels = SEVERAL, None
    if named is None:
        label = checked(lambda text: _class(text, classes), LABEL, 0)
    else:
        labels = _indices(row, named, classes, name, problems)
    image = checked(plain, IMAGE, "") if IMAGE in row.cells else ""
    group, text = image or names[0], row.cells.get(TEXT, "")
    return Entry(name, row.number, names, group, text, label, None, split, image, labels)


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


def _indices(
    row: Record,
    named: Sequence[str],
    classes: tuple[str, ...],
    name: str,
    problems: list[str],
) -> tuple[int, ...]:
    """Indices of a row's classes, ascending; an empty or repeated one goes to `problems`."""
    repeated = sorted({each for each in named if each and named.count(each) > 1})
    if repeated:
        problems.append(
            f"{name} row {row.number}: labels has {short(repeated[0])} "
            f"{named.count(repeated[0])} times; name a class once"
        )
    if "" in named:
        problems.append(
            f"{name} row {row.number}: labels has a class without a name; remove the separator, "
            "or leave the cell empty for no class"
        )
    return tuple(sorted({classes.index(each) for each in named if each}))


def _alike_classes(named: Mapping[int, Sequence[str]], name: str) -> list[str]:
    """Labels that a reader takes for one class: by case, number, Unicode form or hidden marks."""
    first: dict[str, dict[str, int]] = {}
    for number, labels in named.items():
        for label in labels:
            first.setdefault(_to_the_eye(label), {}).setdefault(label, number)
    return [
        f"{name}: labels {_listed(alike)} {_how_alike(list(alike))}; spell them alike, or "
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
