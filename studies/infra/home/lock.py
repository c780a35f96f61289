"""Who uses a home: each process holds a lock together with the others, or alone to remove files."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from search_space.locks import holder_of
from studies.infra.home.leftovers import sweep
from studies.infra.locations import StorageError

LOCK = "in-use.lock"
_held: dict[Path, int] = {}  # at most one: that of the home in use


def claim(home: Path) -> None:
    """Hold the home's lock from now on, together with other processes.

    If there are none, leftovers of killed runs are removed first. Nothing happens where the home
    does not exist yet, is not writable, or lies on a file system without locks.
    """
    if home in _held or not home.is_dir():
        return
    release()
    with suppress(OSError):
        file = os.open(home / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        _held[home] = file
        if _try_alone(file):
            sweep(home)
        fcntl.flock(file, fcntl.LOCK_SH)


def release() -> None:
    """Give up the lock of the home in use."""
    while _held:
        os.close(_held.popitem()[1])


@contextmanager
def alone(home: Path) -> Iterator[None]:
    """Use a home alone. Raises StorageError, naming the process, where another one uses it."""
    claim(home)
    if home not in _held:
        if (home / LOCK).is_dir():
            raise StorageError(f"{home / LOCK} is a directory in place of a lock file; remove it")
        raise StorageError(f"{home}: cannot be locked; make it writable")
    file = _held[home]
    fcntl.flock(file, fcntl.LOCK_UN)
    try:
        if not _try_alone(file):
            raise StorageError(
                f"{home} is in use ({holder_of(home / LOCK)})", "wait for that command or end it"
            )
        yield
    finally:
        fcntl.flock(file, fcntl.LOCK_SH)


def _try_alone(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
