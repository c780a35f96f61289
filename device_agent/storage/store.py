"""The agent's home on the device: artifacts and results, named by SHA-256, never half there.

`artifacts/` holds the files sent, `results/` what came of the jobs. A file gets its final name only
when all of it is on the disk and right; what an interrupted agent left behind is swept out. What is
read back is checked: an artifact against its name, a result against the checksum in it. What is
damaged is removed, with a line that begins with `NOTE`.
"""

import errno
import hashlib
import json
import os
import shutil
import stat
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from device_agent.checks import check_sha256

MAX_RESULTS = 1000
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
MEBI = 2**20
NOTE = "device_agent: damaged: "
"""How a line on standard error begins that the host shows to its user."""
CHECKSUM = "sha256"
"""Field of a stored result; earlier versions stored none."""


class StoreError(Exception):
    """The home could not take or give something.

    Attributes:
        code: `disk-full`, `disk-error`, `wrong-length`, `wrong-sha256` or `too-large`.
    """

    def __init__(self, code: str, message: str) -> None:
        """Keep the code beside the words."""
        super().__init__(message)
        self.code = code


class Store:
    """The home of one agent.

    Args:
        home: its folder, made with mode 0700 where missing.
        keep_mb: when an upload would bring the artifacts over this, or not fit on the disk, the
            longest unused go first.

    Attributes:
        kept: the folder of what runtimes need not make again, such as engines.
    """

    def __init__(self, home: Path, keep_mb: int) -> None:
        """Make the folders."""
        self._artifacts = home / "artifacts"
        self._results = home / "results"
        self._incoming = home / "incoming"
        self.kept = home / "kept"
        self._keep_bytes = keep_mb * MEBI
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        for folder in (self._artifacts, self._results, self._incoming, self.kept):
            folder.mkdir(mode=0o700, exist_ok=True)

    def sweep(self) -> None:
        """Remove what a killed agent left half done; only who has the device may."""
        for left in self._incoming.iterdir():
            remove(left)

    def artifact(self, sha256: str) -> Path | None:
        """Return the path of an artifact that is here and whole, and note its use; else None."""
        check_sha256("sha256", sha256)
        path = self._artifacts / sha256
        if not os.path.lexists(path):
            return None
        try:
            whole = _is_file(path) and _sha256_of(path) == sha256
        except OSError:  # a bad block
            whole = False
        if not whole:
            remove_damaged(path, f"artifact {sha256[:16]} is not what was sent, and is sent again")
            return None
        os.utime(path)
        return path

    def receive(self, sha256: str, length: int, chunks: Iterable[bytes]) -> None:
        """Take an artifact; all chunks are read whatever happens, so the stream stays whole.

        Raises:
            StoreError: it is not here then, nor any part of it.
        """
        check_sha256("sha256", sha256)
        rest = iter(chunks)
        try:
            if length > self._keep_bytes:
                most = f"{length} bytes, this agent takes {self._keep_bytes}"
                raise StoreError("too-large", f"artifact {sha256[:16]}: {most}")
            self._make_room(length)
            with self._written(self._artifacts / sha256) as file:
                self._copy(sha256, length, rest, file)
        finally:
            for _ in rest:
                pass

    def save_result(self, job_id: str, kept: Mapping[str, object]) -> None:
        """Keep what came of a job, the oldest giving way where there are 1000 of them.

        Raises:
            StoreError: the disk does not take it.
        """
        check_sha256("job_id", job_id)
        with disk_errors(f"looking through {self._results}", self._results):
            others = sorted(self._results.iterdir(), key=lambda path: path.stat().st_mtime_ns)
            for oldest in others[: max(0, len(others) + 1 - MAX_RESULTS)]:
                remove(oldest)
        with self._written(self._results / job_id) as file:
            file.write(json.dumps({**kept, CHECKSUM: _checksum(kept)}, allow_nan=False).encode())

    def load_result(self, job_id: str) -> dict[str, Any] | None:
        """Return what came of a job; None when nothing was kept or it is damaged."""
        check_sha256("job_id", job_id)
        path = self._results / job_id
        if not os.path.lexists(path):
            return None
        with suppress(ValueError, RecursionError, OSError):
            kept = json.loads(path.read_bytes()) if _is_file(path) else None
            if isinstance(kept, dict):
                known = kept.pop(CHECKSUM, None)
                if known is None or known == _checksum(kept):
                    return kept
        self.discard_result(job_id)
        return None

    def discard_result(self, job_id: str) -> None:
        """Remove a result that cannot be used, and say so."""
        said = f"the result of job {job_id[:16]} is not what was stored, and is measured again"
        remove_damaged(self._results / job_id, said)

    def forget(self, sha256s: Iterable[str], job_ids: Iterable[str]) -> None:
        """Remove artifacts and results; those that are not here are passed over."""
        for folder, names in ((self._artifacts, sha256s), (self._results, job_ids)):
            for name in names:
                check_sha256("a name to forget", name)
                remove(folder / name)

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """Give the running job an empty folder, gone afterwards; raises `StoreError`."""
        folder = self._incoming / "job"
        shutil.rmtree(folder, ignore_errors=True)
        with disk_errors(f"making {folder}", self._incoming):
            folder.mkdir(mode=0o700)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def free_mb(self) -> int:
        """Return the room on the home's disk."""
        return shutil.disk_usage(self._artifacts).free // MEBI

    def _copy(self, sha256: str, length: int, chunks: Iterator[bytes], file: BinaryIO) -> None:
        digest, size = hashlib.sha256(), 0
        for chunk in chunks:
            digest.update(chunk)
            size += len(chunk)
            file.write(chunk)
        if size != length:
            said = f"{size} bytes came, {length} were announced"
            raise StoreError("wrong-length", f"artifact {sha256[:16]}: {said}: send it again")
        if digest.hexdigest() != sha256:
            came = f"what came has SHA-256 {digest.hexdigest()[:16]}"
            raise StoreError("wrong-sha256", f"artifact {sha256[:16]}: {came}: send it again")

    def _make_room(self, needed: int) -> None:
        found = [(path, path.lstat()) for path in self._artifacts.iterdir()]
        used = sum(file.st_size for _, file in found)
        free = shutil.disk_usage(self._artifacts).free
        for path, file in sorted(found, key=lambda one: one[1].st_mtime_ns):
            if used + needed <= self._keep_bytes and needed <= free:
                return
            remove(path)
            used -= file.st_size
            free += file.st_size

    @contextmanager
    def _written(self, final: Path) -> Iterator[BinaryIO]:
        """Give a file that gets its final name when the block ends well, else vanishes."""
        part = self._incoming / f"{final.name}.part"
        try:
            with disk_errors(f"writing {final.name[:16]} to {final.parent}", final.parent):
                with open(part, "wb") as file:
                    yield file
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(part, final)
                _sync_folder(final.parent)
        finally:
            part.unlink(missing_ok=True)


@contextmanager
def disk_errors(doing: str, folder: Path) -> Iterator[None]:
    """Raise as `StoreError`, in words, what the disk of a folder does not do in this block."""
    try:
        yield
    except OSError as error:
        why = f"{doing}: {error}"
        if error.errno in FULL:
            free_mb = shutil.disk_usage(folder).free // MEBI
            hint = f"{free_mb} MB are free: make room there or forget artifacts"
            raise StoreError("disk-full", f"{why}; {hint}") from error
        raise StoreError("disk-error", f"{why}; look at the disk") from error


def _sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(MEBI):
            digest.update(chunk)
    return digest.hexdigest()


def _checksum(kept: Mapping[str, object]) -> str:
    """Of a result's JSON in one form, whatever the order in which its fields were written."""
    text = json.dumps(kept, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def remove_damaged(path: Path, said: str) -> None:
    """Remove what cannot be used, a folder too, and say so; raises `StoreError`."""
    print(f"{NOTE}{said}", file=sys.stderr, flush=True)
    with disk_errors(f"removing {path}", path.parent):
        remove(path)


def remove(path: Path) -> None:
    """Remove a file, or a folder in its place; nothing where there is neither. Raises OSError."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _is_file(path: Path) -> bool:
    """Whether a file lies there, not a link: the agent makes none, and follows none."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except FileNotFoundError:
        return False


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
