"""Live workers of a study and dead ones."""

import hashlib
import os
import socket
import time
import uuid
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from search_space.locks import NamedLock
from studies.infra.leases import LEASE_S, leased

RELEASED = "released:"
"""What stands before the name of a worker that left its trial to others."""
SWEPT_AFTER_S = 24 * 3600.0
"""A lock that a killed worker left is removed then: until then it tells that the worker is dead."""


class Workers:
    """Tells live workers from dead ones.

    A trial whose lease ran out (`studies.infra.leases`) has a dead worker, whatever its host. A
    worker of this host is known to be dead at once where its lock, a file in the home, is there and
    free. `turn` is held by the worker that asks for a trial or takes one over, `asking` lies there
    meanwhile.
    """

    def __init__(self, folder: Path, take_over: bool = False) -> None:
        """`take_over` counts workers as dead that never showed a sign of life, of any host."""
        self._folder, self._take_over = folder, take_over
        folder.mkdir(parents=True, exist_ok=True)
        home = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:8]
        self._host_name = socket.gethostname()
        self.host = f"{self._host_name}-{home}"
        self.name = f"{self.host}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self.turn = NamedLock(folder / "turn.lock")
        self.asking = folder / "asking"
        self._sweep()
        self._lock = FileLock(self._file(self.name))
        self._lock.acquire()

    def is_dead(self, name: str, age_s: float | None = None) -> bool:
        """Whether the worker of a trial has ended.

        `age_s` is how long ago the trial showed a sign of life; None for never, as with workers of
        version 0.1.0.
        """
        if name == self.name:
            return False
        if name.startswith(RELEASED) or (age_s is not None and age_s > LEASE_S):
            return True
        host, file = name.partition(":")[0], self._file(name)
        if host.rpartition("-")[0] == self._host_name and file.is_file():
            return _is_free(file)
        if age_s is not None:
            return False  # its lock may have been removed, or is in another home
        return self._take_over or (host == self.host and not file.exists())

    def is_asking(self, study_name: str) -> bool:
        """Whether a worker of this home asks for a trial of this study, or died when it did."""
        return self.asking.is_file() and self.asking.read_bytes() == study_name.encode()

    leased = staticmethod(leased)
    """Shows signs of life for a trial as long as a block runs."""

    def pause(self, seconds: float) -> None:
        """Waits before the trials of others are looked at again."""
        time.sleep(seconds)

    def close(self) -> None:
        """Ends this worker."""
        self._lock.release()
        self._file(self.name).unlink(missing_ok=True)

    def _file(self, name: str) -> Path:
        return self._folder / f"{name.replace(':', '-').replace('/', '-')}.lock"

    def _sweep(self) -> None:
        """Remove the locks that workers left which were killed long ago."""
        for file in self._folder.glob("*-*-*-*.lock"):
            with suppress(FileNotFoundError):
                if time.time() - file.stat().st_mtime > SWEPT_AFTER_S and _is_free(file):
                    file.unlink(missing_ok=True)


def _is_free(file: Path) -> bool:
    lock = FileLock(file)
    try:
        with lock.acquire(timeout=0):
            return True
    except Timeout:
        return False
