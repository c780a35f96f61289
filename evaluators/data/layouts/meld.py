"""MELD as it is published: three `*_sent_emo.csv` files and a folder of clips for each split.

Dialogue numbers start anew in each split, so a dialogue never crosses splits. Two things about the
published files are mended in reading. Their texts hold characters of Windows code page 1252, as
single bytes in some copies and as the control characters U+0080 to U+009F in others; both are read
as the apostrophes and dashes that they were. And the clips lie in folders named otherwise than the
splits, in the test split some of them only under a name with a prefix.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from evaluators.data.errors import DataError, short
from evaluators.data.layouts.entries import Entry, Labels, duplicates, untrainable_classes
from evaluators.data.layouts.table import Record, parse
from evaluators.data.samples import SPLITS, Split

FILES: Mapping[Split, str] = {
    "train": "train_sent_emo.csv",
    "valid": "dev_sent_emo.csv",
    "test": "test_sent_emo.csv",
}
CLASSES = ("negative", "neutral", "positive")
COLUMNS = ("Utterance", "Sentiment", "Dialogue_ID", "Utterance_ID")
CLIP_FOLDERS: Mapping[Split, str] = {
    "train": "train_splits",
    "valid": "dev_splits_complete",
    "test": "output_repeated_splits_test",
}
TEST_PREFIX = "final_videos_test"
_ARCHIVES: Mapping[Split, str] = {"train": "train", "valid": "dev", "test": "test"}
"""What MELD's archives unpack to, where each was unpacked in a folder of its own."""
_LONGEST_NUMBER = 9


def label_files(root: Path) -> dict[Split, Path]:
    """The label files of a folder in MELD's layout; empty for any other folder.

    Each lies in the folder itself, or where its archive unpacks to. Those that are missing are
    left out.
    """
    places = [
        (split, place)
        for split, name in FILES.items()
        for place in (root / _ARCHIVES[split] / name, root / name)
    ]
    return {split: place for split, place in places if place.is_file()}


def clip_paths(root: Path, split: Split, utterance: str) -> tuple[Path, ...]:
    """Where the clip of an utterance may lie, the published place first.

    The prefixed clips of the test split are taken only where the plain name is missing.
    """
    names = [utterance, TEST_PREFIX + utterance] if split == "test" else [utterance]
    folders = [root / CLIP_FOLDERS[split], root / _ARCHIVES[split] / CLIP_FOLDERS[split]]
    return tuple(folder / f"{name}.mp4" for name in names for folder in folders)


def read_meld(files: Mapping[Split, bytes]) -> Labels:
    """Parse and check the bytes of the three files, classes as published: three sentiments.

    Raises DataError with every problem of all files; nothing else.
    """
    problems = [
        f"{FILES[split]}: there is no such file; {', '.join(FILES.values())} are all needed"
        for split in SPLITS
        if split not in files
    ]
    entries: list[Entry] = []
    for split in SPLITS:
        if split in files:
            entries += _entries(files[split], split, problems)
    problems += duplicates(entries)
    if not problems:
        problems += untrainable_classes(entries, CLASSES, FILES["train"])
    if problems:
        count = f"{len(problems)} problem" + ("" if len(problems) == 1 else "s")
        raise DataError(f"MELD's label files: {count}", problems)
    return Labels("meld", CLASSES, tuple(entries))


def _entries(data: bytes, split: Split, problems: list[str]) -> list[Entry]:
    name = FILES[split]
    table = parse(_as_utf8(data), name)
    problems += table.problems
    absent = [column for column in COLUMNS if column not in table.columns]
    if absent and table.columns:
        present = ", ".join(short(column) for column in table.columns)
        problems.append(f"{name} row 1: no column {', '.join(absent)}; present are {present}")
    if absent:
        return []
    if not table.rows:
        problems.append(f"{name}: there are no usable rows under the header")
    return [_entry(row, split, problems) for row in table.rows]


def _entry(row: Record, split: Split, problems: list[str]) -> Entry:
    """The entry of one row; what is wrong in it goes to `problems` and gets a stand-in value."""

    def checked(check: Callable[[str], int], column: str) -> int:
        try:
            return check(row.cells[column])
        except ValueError as error:
            problems.append(f"{FILES[split]} row {row.number}: {column} {error}")
            return -row.number

    dialogue, utterance = (checked(_number, column) for column in ("Dialogue_ID", "Utterance_ID"))
    return Entry(
        file=FILES[split],
        row=row.number,
        names=(split, f"dia{dialogue}_utt{utterance}"),
        group=f"{split}/dia{dialogue}",
        text=row.cells["Utterance"],
        label=checked(_sentiment, "Sentiment"),
        score=None,
        split=split,
    )


def _number(text: str) -> int:
    digits = text.strip()
    if not (digits.isascii() and digits.isdigit() and len(digits) <= _LONGEST_NUMBER):
        raise ValueError(f"{short(text)} is not a whole number; correct it or remove the row")
    return int(digits)


def _sentiment(text: str) -> int:
    if text.strip() not in CLASSES:
        raise ValueError(f"{short(text)} is none of {', '.join(CLASSES)}; correct it")
    return CLASSES.index(text.strip())


def _as_utf8(data: bytes) -> bytes:
    """The same text in UTF-8, code page 1252 read as such; unchanged where it is neither."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        try:
            return data.decode("cp1252").encode()
        except UnicodeDecodeError:
            return data  # the table names the bytes that are not UTF-8
    return text.translate(_CONTROLS).encode()


def _controls() -> dict[int, str]:
    """U+0080 to U+009F to what code page 1252 has at these numbers, where it has something."""
    found = {}
    for code in range(0x80, 0xA0):
        character = bytes([code]).decode("cp1252", errors="ignore")
        if character:
            found[code] = character
    return found


_CONTROLS = _controls()
