"""Optuna's journal as the storage of studies: one file on a file system that hosts share.

    PATH            the journal, as Optuna writes it
    PATH.lock       held while a line is appended
    PATH.turn.lock  held while a worker takes over a trial, or takes a turn
    PATH.leases/    a file for each trial that runs, touched as a sign of life

Times are those of the file system, so that the clocks of the hosts do not matter.
"""

import os
from pathlib import Path
from uuid import uuid4

from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileSymlinkLock

from studies.infra.journal.file import JournalFile, damaged


class Journal(JournalStorage):
    """A storage on a journal, with what workers of several hosts need beside it."""

    def __init__(self, path: Path) -> None:
        """Open it and read all of it. Raises StorageError and OSError."""
        self.path = path
        self.turn = JournalFileSymlinkLock(f"{path}.turn")
        self._leases = Path(f"{path}.leases")
        try:
            super().__init__(JournalFile(path))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise damaged(path) from error

    def beat(self, trial_id: int) -> None:
        """Show a sign of life for a trial."""
        self._leases.mkdir(exist_ok=True)
        file = self._leases / str(trial_id)
        file.touch()
        os.utime(file)

    def age_s(self, trial_id: int) -> float | None:
        """How long ago a trial showed a sign of life; None for never."""
        try:
            last = (self._leases / str(trial_id)).stat().st_mtime
        except FileNotFoundError:
            return None
        return max(0.0, self._now() - last)

    def _now(self) -> float:
        """The time of the file system."""
        probe = self._leases / f"now-{uuid4().hex}"
        probe.touch()
        try:
            return probe.stat().st_mtime
        finally:
            probe.unlink()
