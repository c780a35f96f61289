"""File locks whose holder is named when it keeps others waiting."""

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from filelock import AcquireReturnProxy, FileLock, Timeout

SAID_AFTER_S = 5.0
_LOCKS = Path("/proc/locks")
_STOPPED = ("T", "t")


class NamedLock(FileLock):
    """A file lock; after five seconds of waiting for it, it says once on stderr who holds it.

    The kernel gives the lock of a dead process up, so what is waited for is alive or stopped. A
    folder that lies where the lock's file belongs is renamed, with a line.
    """

    def acquire(
        self, timeout: float | None = None, *arguments: Any, **options: Any
    ) -> AcquireReturnProxy[Any]:
        """Acquire the lock, as `FileLock.acquire` does."""
        if Path(self.lock_file).is_dir():
            _set_folder_aside(Path(self.lock_file))
        wait_s = self.timeout if timeout is None else timeout
        if 0 <= wait_s <= SAID_AFTER_S or options.get("blocking") is False:
            return super().acquire(timeout, *arguments, **options)
        try:
            return super().acquire(SAID_AFTER_S, *arguments, **options)
        except Timeout:
            print(f"waiting for {self.lock_file}: {holder_of(self.lock_file)}", file=sys.stderr)
        left_s = wait_s if wait_s < 0 else wait_s - SAID_AFTER_S
        return super().acquire(left_s, *arguments, **options)


def _set_folder_aside(folder: Path) -> None:
    aside = folder.with_name(f"{folder.name}.aside-{uuid4().hex[:8]}")
    with suppress(FileNotFoundError):  # another process was first
        folder.rename(aside)
        said = f"{folder} is a folder where a file belongs: renamed to {aside.name}"
        print(said, file=sys.stderr)


def holder_of(file: str | Path) -> str:
    """Say in words which process holds the lock of a file."""
    try:
        status = os.stat(file)
        rows = [line.split() for line in _LOCKS.read_text().splitlines()]
    except OSError:
        return "who holds it is not known here"
    for row in rows:
        # 1: FLOCK ADVISORY WRITE 4711 fe:00:1234 0 EOF; one that waits has "->" after the number.
        if "->" in row or len(row) < 6 or row[1] != "FLOCK":
            continue
        if row[5].rpartition(":")[2] == str(status.st_ino) and int(row[4]) > 0:
            return _words(int(row[4]))
    return "held by a process of another machine or container"


def _words(pid: int) -> str:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return f"held by process {pid}"
    if state in _STOPPED:
        return (
            f"held by process {pid}, which is stopped; `kill -CONT {pid}` lets it go on, "
            f"`kill -KILL {pid}` ends it"
        )
    return f"held by process {pid}"
