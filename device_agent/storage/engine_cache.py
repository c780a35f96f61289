"""Compiled engines, kept in the agent's home: what was compiled once is not compiled again.

Two files an engine, named by the SHA-256 of its key: `NAME.engine` and, written last, `NAME.json`
with the whole key, the engine's own SHA-256 and what building it took. Without the second the first
does not count, so that an agent that was killed in between leaves nothing that could be believed.
Engines never leave the device.
"""

import hashlib
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from device_agent.storage.store import NOTE, remove

Key = Mapping[str, "str | int | float | bool | None"]
KEEP_BYTES = 16 * 2**30


@dataclass(frozen=True)
class Engine:
    """A compiled network.

    Attributes:
        content: what the runtime serialised.
        build_s: how long it took to compile, when it was compiled.
    """

    content: bytes
    build_s: float


class EngineCache:
    """Engines of one folder, made with mode 0700 where missing.

    Args:
        folder: in the agent's home.
        keep_bytes: when a new engine would bring them over this, the longest unused go first.
    """

    def __init__(self, folder: Path, keep_bytes: int = KEEP_BYTES) -> None:
        """Make the folder, and sweep out what a killed agent left half written."""
        self._folder = folder
        self._keep_bytes = keep_bytes
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for left in folder.glob(".*.part"):
            remove(left)

    def get(self, key: Key) -> Engine | None:
        """Return the engine of exactly this key; what is torn or was changed is removed."""
        content, notes = self._paths(key)
        try:
            found = json.loads(notes.read_bytes())
            engine = Engine(content.read_bytes(), float(found["build_s"]))
            whole = found["key"] == dict(key)
            if whole and found["sha256"] == hashlib.sha256(engine.content).hexdigest():
                os.utime(content)
                return engine
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            pass
        print(f"{NOTE}engine {content.name[:16]} is compiled again", file=sys.stderr)
        self.forget(key)
        return None

    def put(self, key: Key, engine: Engine) -> None:
        """Keep an engine; raises OSError where the disk does not take it, and keeps nothing."""
        content, notes = self._paths(key)
        self._make_room(len(engine.content))
        about: dict[str, Any] = {
            "key": dict(key),
            "sha256": hashlib.sha256(engine.content).hexdigest(),
            "build_s": engine.build_s,
        }
        remove(notes)
        write_whole(content, engine.content)
        write_whole(notes, json.dumps(about, indent=1, allow_nan=False).encode())

    def forget(self, key: Key) -> None:
        """Remove an engine; one that is not here is passed over."""
        for path in reversed(self._paths(key)):
            remove(path)

    def _paths(self, key: Key) -> tuple[Path, Path]:
        text = json.dumps(dict(key), sort_keys=True, allow_nan=False)
        name = hashlib.sha256(text.encode()).hexdigest()
        return self._folder / f"{name}.engine", self._folder / f"{name}.json"

    def _make_room(self, needed: int) -> None:
        found = [(path, path.stat()) for path in self._folder.glob("*.engine")]
        used = sum(stat.st_size for _, stat in found)
        for path, stat in sorted(found, key=lambda one: one[1].st_mtime_ns):
            if used + needed <= self._keep_bytes:
                return
            remove(path.with_suffix(".json"))
            remove(path)
            used -= stat.st_size


def write_whole(final: Path, content: bytes) -> None:
    """Write a file that has its name only when all of it is on the disk; raises OSError."""
    part = final.with_name(f".{final.name}.part")
    try:
        with open(part, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, final)
        folder = os.open(final.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    finally:
        part.unlink(missing_ok=True)
