"""Bytes of a JSON Lines file to rows of text and lists, with every fault of its form reported.

Rows are numbered as lines, from 1.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

from evaluators.data.errors import short
from evaluators.data.layouts.table import Record, Table

_MOST_PROBLEMS = 20


def parse_lines(data: bytes, name: str, lists: Collection[str]) -> Table:
    """Read one JSON object a line: fields are texts or numbers, those of `lists` lists of these.

    Blank lines are skipped. Never raises for bad content.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return Table(name, (), (), (f"{name}: not UTF-8 ({error.reason}); save it as UTF-8",))
    rows: list[Record] = []
    problems: list[str] = []
    columns: dict[str, int] = {}
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            fields = json.loads(line)
        except ValueError as error:
            problems.append(f"{name} row {number}: not JSON ({error}); write one object a line")
            continue
        if not isinstance(fields, dict):
            problems.append(f"{name} row {number}: {short(line)} is no object; write one a line")
            continue
        for column in fields:
            columns.setdefault(column, number)
        rows.append(_record(number, fields, name, lists, problems))
    for row in rows if not problems else ():
        lacking = [each for each in columns if each not in row.cells and each not in row.lists]
        if lacking:
            problems.append(
                f"{name} row {row.number}: no field {short(lacking[0])}, which row "
                f"{columns[lacking[0]]} has; give all rows the same fields"
            )
    if not rows and not problems:
        problems.append(f"{name}: the file is empty")
    if len(problems) > _MOST_PROBLEMS:
        more = len(problems) - _MOST_PROBLEMS
        problems = [*problems[:_MOST_PROBLEMS], f"{name}: and {more} more rows like these"]
    usable = () if problems else tuple(rows)
    return Table(name, tuple(columns), usable, tuple(problems))


def _record(
    number: int, fields: Mapping[str, Any], name: str, lists: Collection[str], problems: list[str]
) -> Record:
    """One row; values of other types go to `problems`."""
    cells: dict[str, str] = {}
    listed: dict[str, tuple[str, ...]] = {}
    for column, value in fields.items():
        values = value if isinstance(value, list) else [value]
        bad = not all(map(_is_plain, values))
        if bad or isinstance(value, list) is not (column in lists):
            wanted = "a list of texts" if column in lists else "a text or a number"
            said = short(json.dumps(value, ensure_ascii=False))
            problems.append(f"{name} row {number}: {column} is {said}; give {wanted}")
        elif column in lists:
            listed[column] = tuple(map(str, values))
        else:
            cells[column] = str(value)
    return Record(number, cells, listed)


def _is_plain(value: object) -> bool:
    return isinstance(value, str | int | float) and not isinstance(value, bool)
