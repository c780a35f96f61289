"""From an entry to a file that belongs to it: one that is there, or one kept of its clip."""

from __future__ import annotations

import os
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from evaluators.cached_files import UNVERIFIED, fault_of, sha256_of, write_cached
from evaluators.data.errors import DataError
from evaluators.data.files import FileIndex
from evaluators.data.layouts.entries import Entry, Layout
from evaluators.data.layouts.meld import CLIP_FOLDERS, clip_paths

CLIP_SUFFIX = ".mp4"
_STATED = (
    ".jpg",
    ".jpeg",
    ".png",
    ".webp",
    ".bmp",
    ".wav",
    ".flac",
    ".mp3",
    ".ogg",
    ".m4a",
    ".mp4",
)
"""Suffixes that a label file may state behind an id."""


@dataclass(frozen=True)
class Found:
    """A usable file and the key of the content it comes from (SHA-256, hex)."""

    path: Path
    key: str


class Finder(ABC):
    """Finds and checks the files of one kind in one data folder.

    A file of its own is preferred to the clip. What is made of clips is kept under
    `cache/<kind>s/<rule>/<SHA-256 of the clip's whole content>`, so the same clip is decoded once,
    wherever it lies and however often a run was broken off. A kept file that is not as it was
    written is made again, and named in `mended`; those of earlier versions, which have no
    checksum, are made again too, and counted in `unverified`.
    """

    kind: ClassVar[str]
    rule: ClassVar[str]
    """How files are made of clips; another rule never meets what was kept by this one."""
    suffix: ClassVar[str]
    """Of kept files."""

    def __init__(self, root: Path, layout: Layout, cache: Path, index: FileIndex) -> None:
        self._root = root
        self._layout = layout
        self._folder = cache / f"{self.kind}s" / self.rule
        self._index = index
        self._listings: dict[Path, dict[str, str]] = {}
        self.mended: list[str] = []
        self.unverified = 0

    def find(self, entry: Entry) -> Found:
        """Raises DataError if the entry has no such file, or a broken one.

        Raises OSError if the cache cannot be written, which is no fault of the entry.
        """
        try:
            own, clip = self._own(entry), self._clip(entry)
        except OSError as error:
            raise DataError(f"cannot be looked for ({error})") from error
        if own is not None:
            return self._of_own(entry, own)
        if clip is not None:
            return self._of_clip(entry, clip)
        raise DataError(f"no {self.wanted(entry)}")

    def wanted(self, entry: Entry) -> str:
        """Where the file of an entry is looked for, in words."""
        suffixes = ", ".join(self._suffixes())
        own = f"{self._name(entry)} with any of {suffixes}"
        clips = self._clips(entry)
        return f"{own} and no {clips[0].relative_to(self._root).as_posix()}" if clips else own

    @staticmethod
    @abstractmethod
    def home(layout: Layout) -> str:
        """The folder of files that are no clips, in the data folder."""

    @abstractmethod
    def _suffixes(self) -> tuple[str, ...]:
        """Of files that are no clips, in the order that they are looked for."""

    @abstractmethod
    def _of_own(self, entry: Entry, path: Path) -> Found:
        """What is used of a file of the entry's own. Raises DataError for a broken one."""

    @abstractmethod
    def _made(self, source: Path) -> bytes:
        """The content that is kept of a clip or another source. Raises DataError."""

    def _name(self, entry: Entry) -> str:
        """The path, in the data folder, of an entry's file without suffix."""
        return f"{self.home(self._layout)}/{entry.id}"

    def _own(self, entry: Entry) -> Path | None:
        for suffix in self._suffixes():
            for written in (suffix, suffix.upper()):
                path = self._root / (self._name(entry) + written)
                if path.is_file():
                    return path
        return self._spelled_otherwise(self._root / self._name(entry), self._suffixes())

    def _clip(self, entry: Entry) -> Path | None:
        for clip in self._clips(entry):
            if clip.is_file():
                return clip
            other = self._spelled_otherwise(clip.with_suffix(""), (CLIP_SUFFIX,))
            if other is not None:
                return other
        return None

    def _spelled_otherwise(self, path: Path, suffixes: Sequence[str]) -> Path | None:
        """A file that `path` means with any of the suffixes, which no exact name has led to.

        Names may differ in Unicode form, in spaces about them and in the case of the suffix, and
        the label file may state a suffix.
        """
        folder = self._listed(path.parent)
        if folder is None:
            return None
        names = self._listing(folder)
        stem, stated = unicodedata.normalize("NFC", path.name).strip(), ""
        for suffix in (*suffixes, *_STATED):
            if stem.lower().endswith(suffix):
                stem, stated = stem[: -len(suffix)].strip(), suffix
                break
        for suffix in dict.fromkeys((stated, *suffixes)):
            name = names.get(stem + suffix) if suffix in suffixes else None
            if name is not None and (folder / name).is_file():
                return folder / name
        return None

    def _listed(self, folder: Path) -> Path | None:
        """A folder below the root as the disk spells it; None where there is none."""
        if folder.is_dir():
            return folder
        if folder == self._root or self._root not in folder.parents:
            return None
        parent = self._listed(folder.parent)
        name = None if parent is None else self._listing(parent).get(_plain(folder.name))
        return None if parent is None or name is None else parent / name

    def _listing(self, folder: Path) -> dict[str, str]:
        """The names in a folder by their plain spelling; read once."""
        if folder not in self._listings:
            found = sorted(os.listdir(folder), reverse=True)  # of two alike the first one counts
            self._listings[folder] = {_plain(name): name for name in found}
        return self._listings[folder]

    def _clips(self, entry: Entry) -> tuple[Path, ...]:
        """Where the clip of an entry may lie; nowhere in a folder of images."""
        if self._layout == "folder":
            return ()
        first, name = entry.names
        if self._layout == "meld":
            return clip_paths(self._root, entry.split, name)
        return (self._root / "Raw" / first / (name + CLIP_SUFFIX),)

    def _as_it_is(self, path: Path, check: Callable[[Path], None]) -> Found:
        """A file used in place, which is checked once and then remembered as good."""
        key = self._index.key(path)
        if key is None:
            key = _key(path)
            check(path)
            self._index.remember(path, key)
        return Found(path, key)

    def _of_clip(self, entry: Entry, clip: Path) -> Found:
        return self._kept(entry, clip, "clip")

    def _kept(self, entry: Entry, source: Path, word: str) -> Found:
        """What is made of a source, once, and kept; `word` says what the source is."""
        key = self._index.key(source) or _key(source)
        path = self._folder / f"{key}{self.suffix}"
        fault = fault_of(path)
        if fault is not None:
            write_cached(path, self._made(source))
            if fault == UNVERIFIED:
                self.unverified += 1
            elif fault:
                self.mended.append(
                    f"{entry.where}: {entry.id}: the stored {self.kind} {path} was not whole and "
                    f"has been made again from its {word}"
                )
        self._index.remember(source, key)
        return Found(path, f"{self.rule}:{key}")


def _plain(name: str) -> str:
    """A name in one Unicode form, without spaces about its stem, its suffix in lower case."""
    stem, dot, suffix = unicodedata.normalize("NFC", name).strip().rpartition(".")
    return stem.strip() + dot + suffix.lower() if dot else suffix


def clip_folders(layout: Layout) -> tuple[str, ...]:
    """The folders that hold clips in a layout; none in a folder of images."""
    if layout == "folder":
        return ()
    return ("Raw",) if layout == "clips" else tuple(CLIP_FOLDERS.values())


def _key(path: Path) -> str:
    try:
        return sha256_of(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error}); change its permissions") from error
