"""Cached files: written whole, with a checksum beside them that is verified when they are read.

The SHA-256 of `NAME` is in `NAME.sha256`, and those of a folder that is made at once in its
`checksums.sha256`, as `sha256sum -c` reads them. A checksum is written before its file: a crash
between the two leaves a file that is made again, never one that passes unverified.

Whatever is not as it was written is reported in a line and made again by its owner.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import os
import tempfile
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from uuid import uuid4

SUFFIX = ".sha256"
SUMS = f"checksums{SUFFIX}"
UNVERIFIED = "has no checksum, as an earlier version wrote it"
ALTERED = "is not as it was written (its checksum differs)"

_log = logging.getLogger("fusion_nas.cache")


def report(path: Path, fault: str, remedy: str = "made again") -> None:
    """Log in a line that a cached file cannot be used, and what is done about it."""
    _log.warning("%s %s: %s", path, fault, remedy)


def sha256_of(path: Path) -> str:
    """SHA-256 (hex) of the whole content; raises OSError."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_once(path: Path) -> str:
    """`sha256_of`, computed once a process while the file stays unchanged; raises OSError."""
    found = path.stat()
    changed = found.st_mtime_ns, found.st_ctime_ns
    return _sha256_once(path, found.st_ino, found.st_size, changed)


@lru_cache(maxsize=100_000)
def _sha256_once(path: Path, inode: int, size: int, changed_ns: tuple[int, int]) -> str:
    return sha256_of(path)


def write_whole(path: Path, data: bytes) -> None:
    """Write by a temporary neighbour, fsync and rename: no reader ever sees a part of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".tmp-")
    try:
        with naming(path), os.fdopen(handle, "wb") as file:
            file.write(data)
        move_whole(Path(temporary), path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def move_whole(temporary: Path, path: Path) -> None:
    """Bring a finished temporary file to stable storage, then rename it to `path`.

    Raises OSError, also where a device, a pipe or a socket is there: it is not replaced.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise OSError(errno.EEXIST, "is no regular file", str(path))
    with naming(path):
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Have an OSError name this path: a full disk names none, a rename a temporary file."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def set_folder_aside(path: Path) -> None:
    """Rename a folder that lies where a file belongs; it is not removed, as it may be anybody's."""
    if path.is_dir() and not path.is_symlink():
        aside = path.with_name(f"{path.name}.aside-{uuid4().hex[:8]}")
        path.rename(aside)
        report(path, "is a folder where a file belongs", f"renamed to {aside.name}")


def write_cached(path: Path, data: bytes) -> None:
    """Write a file whole, with its checksum beside it. Raises OSError."""
    _write_checksum(path, hashlib.sha256(data).hexdigest())
    set_folder_aside(path)
    write_whole(path, data)


def move_cached(temporary: Path, path: Path) -> None:
    """Move a finished temporary file to its place, with its checksum beside it. Raises OSError."""
    _write_checksum(path, sha256_of(temporary))
    set_folder_aside(path)
    move_whole(temporary, path)


def _write_checksum(path: Path, digest: str) -> None:
    # Not brought to stable storage: one that a power failure loses has its file made again.
    beside = checksum_file(path)
    part = beside.with_name(f".tmp-{uuid4().hex}")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with naming(beside):
            part.write_text(f"{digest}  {path.name}\n", encoding="utf-8")
        set_folder_aside(beside)
        os.replace(part, beside)
    finally:
        part.unlink(missing_ok=True)


def verify_copy(path: Path, digest: str) -> None:
    """Bring a copy to stable storage and write its checksum. Raises OSError for another content."""
    with open(path, "rb+") as file:
        os.fsync(file.fileno())
    if sha256_of(path) != digest:
        raise OSError(errno.EIO, ALTERED, str(path))
    _write_checksum(path, digest)


def checksum_file(path: Path) -> Path:
    """Where the checksum of a file is."""
    return path.with_name(path.name + SUFFIX)


def fault_of(path: Path) -> str | None:
    """Return why a cached file cannot be used, in words; None where it is as it was written.

    Empty where there is none yet.
    """
    try:
        if not path.exists():
            return ""
        if not path.is_file():
            return "is no file"
        text = checksum_file(path).read_text(encoding="utf-8", errors="replace")
        return None if text.split(" ", 1)[0] == sha256_once(path) else ALTERED
    except FileNotFoundError:
        return UNVERIFIED
    except OSError as error:
        return f"cannot be read ({error.strerror or error})"


def is_whole(path: Path, quiet: bool = False) -> bool:
    """Whether a cached file is there and as it was written; reports one that is not, but `quiet`.

    A file without a checksum counts as damaged, since nothing verifies it.
    """
    fault = fault_of(path)
    if fault and not quiet:
        report(path, fault)
    return fault is None


def remove_cached(path: Path) -> None:
    """Remove a file and its checksum, where they are there."""
    path.unlink(missing_ok=True)
    checksum_file(path).unlink(missing_ok=True)


def write_sums(folder: Path) -> None:
    """Write the checksums of all files below a folder that has just been made."""
    lines = [f"{sha256_of(file)}  {name}\n" for name, file in _files(folder).items()]
    write_cached(folder / SUMS, "".join(lines).encode())


def folder_faults(folder: Path) -> list[str] | None:
    """Names of the files below a folder that are not as they were written; None without checksums.

    Files that were added since are not verified.
    """
    sums = folder / SUMS
    fault = fault_of(sums)
    if fault == "":
        return None
    if fault is not None:
        return [SUMS]
    faults = []
    for line in sums.read_text(encoding="utf-8").splitlines():
        digest, _, name = line.partition("  ")
        try:
            if sha256_of(folder / name) != digest:
                faults.append(name)
        except OSError:
            faults.append(name)
    return faults


def _files(folder: Path) -> dict[str, Path]:
    found = sorted(file for file in folder.rglob("*") if file.is_file())
    names = {file.relative_to(folder).as_posix(): file for file in found}
    return {name: file for name, file in names.items() if not name.startswith(SUMS)}
