"""Data sets of plugins: found by entry points of the group `fusion_nas.datasets`.

The rows of a plugin are written as a data folder of images, sounds and texts, with links to its
files, and then read as any other: by the same checks, with a fingerprint of the same contents.
"""

import csv
import hashlib
import json
import os
import re
import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from evaluators.data.errors import DataError
from evaluators.data.samples import SPLITS, Split
from search_space.locks import NamedLock
from search_space.modality import MODALITIES, Modality
from search_space.plugins import NotUsable, Plugin, Plugins, load_plugins

GROUP = "fusion_nas.datasets"
CHECK = "fusion_nas.testing.check_data_set says what a plugin must do"
LABELS, SETS = "label.csv", "label.jsonl"
"""Files of rows with one class each, and with any number of classes."""
UNFINISHED = ".writing-"
FOLDERS = {"image": "images", "sound": "sounds"}


@dataclass(frozen=True)
class Row:
    """One sample of a data set.

    Attributes:
        id: unique in the data set; also a file's name.
        label: its class; of multi-label data a tuple of its classes, which may be empty.
        split: `train`, `valid` or `test`.
        text: empty where the data set has no texts.
        image: a picture: jpg, png, webp or bmp. Rows may share one.
        sound: a recording: wav, flac, mp3, ogg or m4a.
    """

    id: str
    label: str | tuple[str, ...]
    split: Split
    text: str = ""
    image: Path | None = None
    sound: Path | None = None


class PluginDataSet(ABC):
    """A data set of another package; `docs/how-to/plugins.md` shows how.

    Attributes:
        modalities: what every row has.
    """

    modalities: ClassVar[tuple[Modality, ...]]

    @abstractmethod
    def rows(self, folder: Path) -> Iterable[Row]:
        """Return all samples, the same each time.

        Args:
            folder: a cache folder of this data set and this version of its package, which one
                process at a time uses. Write here what has to be drawn, unpacked or fetched, unless
                it is there; write each file under a temporary name and rename it, so that an
                interrupted run leaves no incomplete file.
        """


def is_data_set(name: str) -> bool:
    """Whether a plugin that can be used has a data set of this name."""
    return name in _plugins().usable


def plugin_data_set(name: str) -> PluginDataSet:
    """Return the data set of this name. Raises KeyError for a name that no plugin has."""
    return _plugins().usable[name]


def why_unusable(name: str) -> str:
    """Return why the plugin of this name cannot be used; empty if none of this name failed."""
    return _plugins().failure(name)


def data_set_plugins() -> tuple[Plugin, ...]:
    """Return every plugin found, with the reason where one cannot be used."""
    return _plugins().found


def data_set_names() -> tuple[str, ...]:
    """Return the names of the data sets of plugins."""
    return tuple(_plugins().usable)


def plugin_folder(name: str, kept: Path) -> Path:
    """Return a data folder with the rows of a plugin, written first if need be.

    Args:
        name: of a data set of a plugin.
        kept: where folders and what plugins write are kept.

    Raises:
        DataError: the plugin gives no rows, or rows that cannot be used.
    """
    origin = _plugins().origins([name])[name]
    place = kept / "plugins" / origin.replace(" ", "-")
    return folder_of(
        plugin_data_set(name), name, place, f"data set {name!r} of the plugin {origin}"
    )


def folder_of(data_set: PluginDataSet, name: str, place: Path, here: str) -> Path:
    """Return a data folder, of this name, with the rows of a data set; kept under `place`.

    Raises DataError, whose text begins with `here`, and OSError if nothing can be written.
    """
    files = place / "files" / name
    files.mkdir(parents=True, exist_ok=True)
    with NamedLock(place / f"{name}.lock"):  # other processes wait, and find the files written
        rows = _rows(data_set, files, here)
        said = json.dumps([asdict(row) for row in rows], default=str, sort_keys=True)
        folder = place / hashlib.sha256(said.encode()).hexdigest()[:16] / name
        if not any((folder / name).is_file() for name in (LABELS, SETS)):
            _write(rows, data_set.modalities, folder)
    return folder


def _rows(data_set: PluginDataSet, files: Path, here: str) -> list[Row]:
    """Return all rows, checked. Raises DataError, whose text begins with `here`."""
    try:
        rows = list(data_set.rows(files))
    except DataError:
        raise
    except Exception as error:
        said = " ".join(f"{type(error).__name__}: {error}".split())
        raise DataError(f"{here}: its rows cannot be read ({said}); {CHECK}") from error
    problems = [problem for row in rows for problem in _problems(row, data_set.modalities)]
    problems = problems or _repeated_ids(rows) or _mixed(rows)
    if problems or not rows:
        raise DataError(f"{here}: {problems[0] if problems else 'it has no rows'}; {CHECK}")
    return rows


def _repeated_ids(rows: Sequence[Row]) -> list[str]:
    """Return, in words, which rows have the id of an earlier row."""
    first: dict[str, int] = {}
    return [
        f"rows {first[row.id]} and {number} have the same id {row.id!r}"
        for number, row in enumerate(rows, 1)
        if first.setdefault(row.id, number) != number
    ]


def _mixed(rows: Sequence[Row]) -> list[str]:
    """Return, in words, that some rows have a class and others a tuple of classes."""
    several = [isinstance(row.label, tuple) for row in rows]
    if all(several) or not any(several):
        return []
    one, more = rows[several.index(False)], rows[several.index(True)]
    return [
        f"the label of row {one.id!r} is a text, that of {more.id!r} a tuple: give all rows one "
        "class each, or all a tuple of classes"
    ]


def _write(rows: Sequence[Row], modalities: Sequence[Modality], folder: Path) -> None:
    """Write a data folder, all of it or nothing; the caller holds the lock."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    for left in folder.parent.glob(f"{UNFINISHED}*"):  # by a process that was killed
        shutil.rmtree(left, ignore_errors=True)
    made = Path(tempfile.mkdtemp(dir=folder.parent, prefix=UNFINISHED))
    try:
        for name in FOLDERS.values():
            (made / name).mkdir()
        pictures = {path: f"p{k:06}" for k, path in enumerate(dict.fromkeys(r.image for r in rows))}
        for path, name in pictures.items():
            if path is not None:
                _link(path, made / FOLDERS["image"] / name)
        for row in rows:
            if row.sound is not None:
                _link(row.sound, made / FOLDERS["sound"] / row.id)
        several = any(isinstance(row.label, tuple) for row in rows)
        columns = ["id", "labels" if several else "label", "mode"]
        columns += ["text"] if "text" in modalities else []
        columns += ["image"] if "vision" in modalities else []
        cells = [
            {
                **asdict(row),
                "labels": row.label,
                "mode": row.split,
                "image": pictures[row.image],
            }
            for row in rows
        ]
        _write_cells(cells, columns, made / (SETS if several else LABELS))
        os.replace(made, folder)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _write_cells(cells: Iterable[dict[str, Any]], columns: Sequence[str], path: Path) -> None:
    with open(path, "w", encoding="utf-8", newline="") as file:
        if path.name == SETS:  # a list of classes, whatever marks their names hold
            for row in cells:
                file.write(json.dumps({column: row[column] for column in columns}) + "\n")
            return
        table = csv.DictWriter(file, columns, extrasaction="ignore")
        table.writeheader()
        table.writerows(cells)


def _link(path: Path, name: Path) -> None:
    name.with_name(name.name + path.suffix.lower()).symlink_to(path.resolve())


def _problems(row: object, modalities: Sequence[Modality]) -> list[str]:
    """Return what is wrong with a row, in words."""
    if not isinstance(row, Row):
        return [f"it gives a {type(row).__name__}, not a fusion_nas.datasets.Row"]
    here, found = f"row {row.id!r}", []
    texts = {"id": [row.id], "label": _classes(row), "text": [row.text]}
    for name, values in texts.items():
        if not all(isinstance(value, str) for value in values):
            tuples = " or a tuple of texts" if name == "label" else ""
            found.append(f"{here}: {name} = {getattr(row, name)!r} is not a text{tuples}")
    if isinstance(row.id, str) and not re.fullmatch(r"[^/\\\0\n]+", row.id):
        found.append(f"{here}: its id cannot be a file's name")
    if row.split not in SPLITS:
        found.append(f"{here}: split {row.split!r} is none of {', '.join(SPLITS)}")
    for modality, name in (("vision", "image"), ("audio", "sound")):
        path = getattr(row, name)
        if path is not None and not isinstance(path, Path):
            found.append(f"{here}: {name} is a {type(path).__name__}, not a pathlib.Path")
        elif path is not None and not path.is_file():
            found.append(f"{here}: {name} {path} is not there")
        elif path is None and modality in modalities:
            found.append(f"{here}: it has no {name}, and the data set declares {modality}")
    return found


def _classes(row: Row) -> Sequence[object]:
    return row.label if isinstance(row.label, tuple) else [row.label]


@cache
def _plugins() -> Plugins[PluginDataSet]:
    return load_plugins(GROUP, _data_set, ())


def _data_set(found: object) -> PluginDataSet:
    """Return the data set of a class. Raises NotUsable."""
    if not (isinstance(found, type) and issubclass(found, PluginDataSet)):
        raise NotUsable(f"{found!r} is not a subclass of fusion_nas.datasets.PluginDataSet")
    modalities = getattr(found, "modalities", ())
    known = isinstance(modalities, tuple) and set(modalities) <= set(MODALITIES)
    if not modalities or not known or len(set(modalities)) < len(modalities):
        raise NotUsable(f"{found.__name__}.modalities are not some of {', '.join(MODALITIES)}")
    return found()
