"""The file of a journal: lines that were cut off are removed, damaged ones are named."""

import json
import os
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock

from studies.infra.locations import StorageError

BLOCK = 64 * 1024


class JournalFile(JournalFileBackend):
    """Optuna's file of a journal, with lines that were cut off by a crash removed.

    Optuna passes over a cut last line, but appends to it: the next reader then finds a line that is
    none. The writer of a cut line never saw it stored, so nothing is lost with it.
    """

    def __init__(self, path: Path) -> None:
        """Open a journal, which is made where there is none. Raises OSError."""
        self.path = path
        self.lock = JournalFileSymlinkLock(str(path))
        path.parent.mkdir(parents=True, exist_ok=True)
        super().__init__(str(path), self.lock)

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        """Give the lines as Optuna does. Raises StorageError for one that is not as written."""
        try:
            yield from super().read_logs(log_number_from)
        except ValueError as error:
            raise damaged(self.path) from error

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append lines, after the removal of one that was cut off."""
        self._remove_cut_line()
        super().append_logs(logs)

    def _remove_cut_line(self) -> None:
        if _whole_bytes(self.path) == self.path.stat().st_size:
            return
        with held(self.lock):  # another worker may be in the middle of a line
            whole, size = _whole_bytes(self.path), self.path.stat().st_size
            if whole < size:
                os.truncate(self.path, whole)
                print(
                    f"{self.path}: its last line was cut off after {size - whole:,} bytes, by a "
                    "crash or a full disk: removed",
                    file=sys.stderr,
                )


@contextmanager
def held(lock: JournalFileSymlinkLock) -> Iterator[None]:
    """Hold a lock of a journal; one whose holder died is broken after 30 s, as Optuna does."""
    lock.acquire()
    try:
        yield
    finally:
        lock.release()


def damaged(path: Path) -> StorageError:
    """The error of a journal that Optuna cannot read, which names the first line that is wrong."""
    number = 0
    with open(path, "rb") as file:
        for line in file:
            number += 1
            try:
                if "op_code" not in json.loads(line):
                    break
            except (ValueError, TypeError):
                break
    return StorageError(
        f"storage journal:{path}: line {number:,} is not as it was written",
        "restore the file from a backup, or keep what was written before that line: "
        f"head -n {number - 1} {path} > NEW, and --storage journal:NEW",
    )


def _whole_bytes(path: Path) -> int:
    """The size of a file up to the end of its last whole line."""
    with open(path, "rb") as file:
        end = file.seek(0, os.SEEK_END)
        while end > 0:
            start = max(0, end - BLOCK)
            file.seek(start)
            at = file.read(end - start).rfind(b"\n")
            if at >= 0:
                return start + at + 1
            end = start
    return 0
