"""Live workers of a study and dead ones."""

import hashlib
import os
import socket
import uuid
from pathlib import Path

from filelock import FileLock, Timeout


class Workers:
    """Tells live workers from dead ones by locks that die with their process.

    Only workers of one host and one home can be told apart; all others count as alive. `turn` is
    held by the worker that asks for a trial or takes one over, `asking` lies there meanwhile.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        home = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:8]
        self.host = f"{socket.gethostname()}-{home}"
        self.name = f"{self.host}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self.turn = FileLock(folder / "turn.lock")
        self.asking = folder / "asking"
        self._lock = FileLock(self._file(self.name))
        self._lock.acquire()

    def _file(self, name: str) -> Path:
        return self._folder / f"{name.replace(':', '-')}.lock"

    def is_dead(self, name: str) -> bool:
        """Whether a worker of this host and home has ended."""
        if name == self.name or name.partition(":")[0] != self.host:
            return False
        lock = FileLock(self._file(name))
        try:
            with lock.acquire(timeout=0):
                return True
        except Timeout:
            return False

    def close(self) -> None:
        """Ends this worker."""
        self._lock.release()
        self._file(self.name).unlink(missing_ok=True)
