"""A memory of files already read."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from pathlib import Path

from evaluators.cached_files import is_whole, write_cached

_SETTLED_NS = 2_000_000_000
_INDEX_VERSION = 1


class FileIndex:
    """Content keys of the files under one folder, so that a second load need not read them again.

    A file counts as unchanged while its size and its time of change (ns) are the same; files
    changed less than two seconds ago are not remembered, as a second write might leave both alike.
    Only what was found good is remembered, so broken files are looked at anew each time. A
    damaged index is as good as none, and one that cannot be written costs the next load some time.
    """

    def __init__(self, cache: Path, root: Path) -> None:
        self._root = root.resolve()
        name = hashlib.sha256(str(self._root).encode("utf-8", "surrogateescape")).hexdigest()
        self._path = cache / "index" / f"{name[:16]}.json"
        self._known = _read_index(self._path)
        self._changed = False

    def key(self, path: Path) -> str | None:
        """The content key of a file remembered as good and unchanged since; else None."""
        known = self._known.get(self._name(path))
        if known is None or known[:2] != _state(path):
            return None
        return known[2]

    def remember(self, path: Path, key: str) -> None:
        """Keep that `path` is good and has this content key."""
        size, changed_ns = _state(path)
        if size >= 0 and time.time_ns() - changed_ns > _SETTLED_NS:
            self._known[self._name(path)] = (size, changed_ns, key)
            self._changed = True

    def save(self) -> None:
        """Write the index if anything new was remembered."""
        if self._changed:
            content = {"version": _INDEX_VERSION, "files": self._known}
            with contextlib.suppress(OSError):
                write_cached(self._path, json.dumps(content).encode())
            self._changed = False

    def _name(self, path: Path) -> str:
        return os.path.relpath(path, self._root)


def _state(path: Path) -> tuple[int, int]:
    """(size in bytes, time of change in ns); (-1, 0) for a file that is gone or out of reach."""
    try:
        found = path.stat()
    except OSError:
        return -1, 0
    return found.st_size, found.st_mtime_ns


def _read_index(path: Path) -> dict[str, tuple[int, int, str]]:
    try:
        if not is_whole(path):
            return {}
        content = json.loads(path.read_bytes())
        if content["version"] != _INDEX_VERSION:
            return {}
        return {
            str(name): (int(size), int(changed_ns), str(key))
            for name, (size, changed_ns, key) in content["files"].items()
        }
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}
