"""Files that killed runs leave in a home: temporary ones that nobody will rename any more.

Only names that the toolkit gives, in folders that it makes, are taken for leftovers: a home may be
any folder of a user's.
"""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_KEY, _RANDOM = "[0-9a-f]{64}", "[a-z0-9_]{8}"
LEFTOVERS = tuple(
    re.compile(pattern)
    for pattern in (
        rf"\.(devices|agent)-{_RANDOM}",
        r"(weights|trunks|features|data|parts|device|store)/(.*/)?"
        rf"(\.tmp-({_RANDOM}|[0-9a-f]{{32}})|\.agent-{_RANDOM})",
        rf"(weights|trunks)/{_KEY}\.\d+\.partial",
        rf"features/{_KEY}/\d{{5}}\.\d+\.partial",
        rf"parts/making-{_RANDOM}",
        rf"artifacts/building-{_RANDOM}",
        rf"artifacts/{_KEY}-[0-9a-f]{{8}}\.onnx",
        rf"data/[a-z]+/\.tmp-.+-{_RANDOM}",
    )
)
"""Paths below the home, folders included."""
FOLDERS = ("artifacts", "data", "device", "features", "parts", "store", "trunks", "weights")
"""Those of a home in which temporary files are made."""


def is_leftover(name: str) -> bool:
    """Whether a path below the home, written with `/`, is a temporary file or folder."""
    return any(pattern.fullmatch(name) for pattern in LEFTOVERS)


def leftovers(home: Path) -> Iterator[Path]:
    """Temporary files and folders of a home, those inside such a folder left out."""
    for name in _entries(home):
        if is_leftover(name):
            yield home / name
    for top in FOLDERS:
        for folder, inner, files in os.walk(home / top):
            below = Path(folder).relative_to(home).as_posix()
            found = [name for name in (*inner, *files) if is_leftover(f"{below}/{name}")]
            yield from (Path(folder, name) for name in found)
            inner[:] = [name for name in inner if name not in found]


def sweep(home: Path) -> None:
    """Remove the leftovers of a home that no other process uses; what cannot be removed stays."""
    for path in list(leftovers(home)):
        remove(path)


def remove(path: Path) -> None:
    """Remove a file or a folder; one that is gone already, or cannot be removed, is passed over."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def _entries(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []
