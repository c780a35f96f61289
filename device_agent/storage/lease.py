"""Whose turn it is: one client at a time has the device, and the first who came is the next.

Everyone who waits keeps a file of their own in `queue/` locked, which holds their name, and is due
when no locked file there is older. Who is due takes `lock`, and that alone decides who has the
device; it holds their name. The kernel gives up both kinds of lock with the last process that holds
them, however it ends, so no dead client is waited for.
"""

import fcntl
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from device_agent.storage.store import StoreError, remove_damaged

MAX_CLIENT = 200
UNNAMED = "another client"

Waits = Callable[[str, int], None]
"""Told who has the device and one's place in the queue, from 1; returns after a moment."""


class Queue:
    """The queue for the device whose agents share this home.

    Args:
        home: its folder, which is there.
    """

    def __init__(self, home: Path) -> None:
        """Make the folder of those who wait, and remove a folder in place of the lock's file."""
        self._lock = home / "lock"
        self._waiting = home / "queue"
        if self._lock.is_dir():
            with suppress(StoreError):  # another agent was first, or opening it tells why
                remove_damaged(self._lock, "the lock of the device's queue is made again")
        self._waiting.mkdir(mode=0o700, exist_ok=True)

    @contextmanager
    def turn(self, client: str, waits: Waits) -> Iterator[int]:
        """Wait for the turn of this client, and hold the device until the block ends.

        Gives the descriptor of the lock: a process that inherits it holds the device too.

        Args:
            client: who it is, for those who wait.
            waits: called again and again until it is their turn; what it raises ends the waiting.
        """
        held = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            with self._ticket(client) as mine:
                while (ahead := self._ahead_of(mine)) or not _taken(held):
                    waits(self._holder(), ahead + 1)
            with suppress(OSError):  # A full disk must not keep anyone from making room.
                os.ftruncate(held, 0)
                os.pwrite(held, _spelled(client), 0)
            yield held
        finally:
            os.close(held)

    def others_wait(self) -> bool:
        """Whether anyone waits."""
        return bool(self._alive())

    def holder(self) -> tuple[str, float] | None:
        """Return who has the device and for how many seconds; None where nobody has."""
        try:
            with open(self._lock, "rb") as lock:
                if _taken(lock.fileno(), fcntl.LOCK_SH):
                    return None
                since_s = os.fstat(lock.fileno()).st_mtime
        except FileNotFoundError:
            return None
        return self._holder(), max(0.0, time.time() - since_s)

    def waiting(self) -> list[str]:
        """Return the names of those who wait, the next one first."""
        found = []
        for ticket in self._alive():
            with suppress(OSError):  # gone by now
                found.append(_read_name(self._waiting / ticket))
        return found

    @contextmanager
    def _ticket(self, client: str) -> Iterator[str]:
        """Give the name of a locked file that sorts after all that were there before."""
        while True:
            numbers = [int(path.name.partition("-")[0]) for path in self._waiting.glob("*-*")]
            name = f"{1 + max(numbers, default=0):010d}-{secrets.token_hex(8)}"
            with open(self._waiting / name, "xb") as ticket:
                fcntl.flock(ticket, fcntl.LOCK_EX)
                if not (self._waiting / name).exists():
                    continue  # Someone found it before it was locked, and took it for dead.
                try:
                    with suppress(OSError):  # A full disk must not keep anyone from waiting.
                        os.write(ticket.fileno(), _spelled(client))
                    yield name
                finally:
                    (self._waiting / name).unlink(missing_ok=True)
                return

    def _ahead_of(self, mine: str) -> int:
        return sum(1 for name in self._alive() if name < mine)

    def _alive(self) -> list[str]:
        """Return the names of those who wait, and remove what the dead left."""
        found = []
        for path in self._waiting.glob("*-*"):
            try:
                with open(path, "rb") as ticket:
                    if _taken(ticket.fileno(), fcntl.LOCK_SH):
                        path.unlink(missing_ok=True)
                    else:
                        found.append(path.name)
            except FileNotFoundError:
                continue
        return sorted(found)

    def _holder(self) -> str:
        with suppress(OSError):
            return _read_name(self._lock)
        return UNNAMED


def _spelled(client: str) -> bytes:
    return client.encode()[: 4 * MAX_CLIENT]


def _read_name(file: Path) -> str:
    said = file.read_bytes().decode("utf-8", "replace").strip()
    return said[:MAX_CLIENT] or UNNAMED


def _taken(descriptor: int, kind: int = fcntl.LOCK_EX) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
