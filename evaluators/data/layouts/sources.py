"""Where the labels of a data folder lie, and in which layout; a pickle is told and never read."""

from __future__ import annotations

import os
from pathlib import Path

from evaluators.data.errors import DataError
from evaluators.data.layouts.entries import Labels
from evaluators.data.layouts.labels import read_labels
from evaluators.data.layouts.meld import FILES, label_files, read_meld
from search_space.lfs import advice, is_pointer

LABELS = "label.csv"
LABEL_LINES = "label.jsonl"
"""Read where there is no label.csv."""
DECLARATIONS = "data.json"
"""States how multi-label data are written; of no meaning for other data."""
PICKLES = (".pkl", ".pickle", ".pk", ".p")
_PICKLE_STARTS = tuple(bytes([0x80, protocol]) for protocol in range(2, 6))
_NEVER = "a pickle is never loaded, since reading one can run any code"


def find_labels(path: Path) -> tuple[Path, Labels]:
    """The absolute data folder and its checked labels; `path` is the folder or a label file.

    Raises DataError for a place without labels, for a pickle, and with every problem of the
    label files.
    """
    path = Path(os.path.abspath(path))
    if path.is_file():
        if path.name in FILES.values():
            return path.parent, _meld(path.parent)
        return path.parent, _label_csv(path)
    if not path.is_dir():
        raise DataError(f"{path}: there is no such folder; give the folder that holds {LABELS}")
    if (path / LABELS).is_file():
        return path, _label_csv(path / LABELS)
    if label_files(path):
        return path, _meld(path)
    if (path / LABEL_LINES).is_file():
        return path, _label_csv(path / LABEL_LINES)
    pickles = sorted(file.name for file in path.iterdir() if file.suffix.lower() in PICKLES)
    held = f" ({pickles[0]} is not read: {_NEVER})" if pickles else ""
    raise DataError(
        f"{path}: there is no {LABELS} in it, and none of "
        f"{', '.join((LABEL_LINES, *FILES.values()))}{held}; "
        "give the folder that holds them"
    )


def _label_csv(file: Path) -> Labels:
    if is_pointer(file):
        raise DataError(f"{file}: {advice(file)}")
    data = _content(file)
    if file.suffix.lower() in PICKLES or data.startswith(_PICKLE_STARTS):
        raise DataError(
            f"{file}: {_NEVER}; give the folder that holds {LABELS} and the clips or images"
        )
    clips = (file.parent / "Raw").is_dir() or (file.parent / "Frames").is_dir()

    def declared() -> bytes | None:
        stated = file.parent / DECLARATIONS
        return _content(stated) if stated.is_file() else None

    return read_labels(data, file.name, clips=clips, declared=declared)


def _meld(root: Path) -> Labels:
    return read_meld({split: _content(file) for split, file in label_files(root).items()})


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error}); change its permissions") from error
