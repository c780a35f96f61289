"""Bytes of a CSV file to rows of text, with every fault of the file's form reported at once.

Rows are numbered as a spreadsheet shows them: the header is row 1, and a field that contains line
breaks still belongs to one row.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from evaluators.data.errors import short

_MOST_BAD_BYTES = 20
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True)
class Record:
    """One record: its row number and its cells by column name."""

    number: int
    cells: Mapping[str, str]
    lists: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Cells that hold a list of texts, of formats that have lists; those are not in `cells`."""


@dataclass(frozen=True)
class Table:
    """Column names and rows as read, with the problems found on the way.

    Rows whose number of fields differs from the header's are reported and left out of `rows`.
    """

    name: str
    columns: tuple[str, ...]
    rows: tuple[Record, ...]
    problems: tuple[str, ...]


def parse(data: bytes, name: str) -> Table:
    """Read comma-separated UTF-8 (a byte order mark is fine). Never raises for bad content."""
    if not data.strip():
        return Table(name, (), (), (f"{name}: the file is empty",))
    if data.startswith(_UTF16_MARKS):
        return Table(name, (), (), (f"{name}: this is UTF-16; save the file as UTF-8",))
    text, problems = _decode(data, name)
    records, broken = _records(text, name)
    problems += broken
    if not records:
        return Table(name, (), (), tuple(problems) or (f"{name}: the file has no header row",))
    columns = tuple(cell.strip() for cell in records[0][1])
    problems += [
        f"{name} row 1: column {short(column)} occurs {columns.count(column)} times; keep one"
        for column in sorted(set(columns))
        if columns.count(column) > 1
    ]
    rows, uneven = _rows(records[1:], columns, name)
    return Table(name, columns, rows, tuple(problems + uneven))


def _decode(data: bytes, name: str) -> tuple[str, list[str]]:
    """The text, bad bytes replaced so that reading can go on, and a problem for each bad byte."""
    problems: list[str] = []
    position = 0
    while len(problems) < _MOST_BAD_BYTES:
        try:
            data[position:].decode("utf-8")
            break
        except UnicodeDecodeError as error:
            start = position + error.start
            line = data.count(b"\n", 0, start) + 1
            problems.append(
                f"{name} line {line}, byte {start}: 0x{data[start]:02x} is not UTF-8; "
                "save the file as UTF-8"
            )
            position += error.end
    return data.decode("utf-8-sig", errors="replace"), problems


def _records(text: str, name: str) -> tuple[list[tuple[int, Sequence[str]]], list[str]]:
    """Numbered records without blank ones; a quoting fault ends the reading and is reported."""
    records: list[tuple[int, Sequence[str]]] = []
    number = 0
    try:
        for number, cells in enumerate(csv.reader(io.StringIO(text, newline=""), strict=True), 1):
            if cells:
                records.append((number, cells))
    except csv.Error as error:
        return records, [
            f"{name} row {number + 1}: {error}; correct the quotes there (rows after it are not "
            "read)"
        ]
    return records, []


def _rows(
    records: Sequence[tuple[int, Sequence[str]]], columns: tuple[str, ...], name: str
) -> tuple[tuple[Record, ...], list[str]]:
    rows: list[Record] = []
    problems: list[str] = []
    for number, cells in records:
        if len(cells) == len(columns):
            rows.append(Record(number, dict(zip(columns, cells, strict=True))))
        else:
            problems.append(
                f"{name} row {number}: {len(cells)} fields where the header has {len(columns)}; "
                "quote texts that contain a comma"
            )
    return tuple(rows), problems
