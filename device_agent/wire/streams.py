"""Standard input and output as the host's streams, on which nothing waits without an end."""

import math
import os
import select
import time
from typing import BinaryIO

from device_agent.wire.frames import TornFrame

STALL_S = 60.0
MESSAGE_S = 60.0
"""So long one message may take as a whole, on either way."""
SLOWEST_BYTES_S = 125_000.0
"""A file that comes more slowly is given up; the host gives up at twice this speed."""
ATOMIC_BYTES = 4096
"""A pipe that has room at all takes as much as this at once."""


class HostGone(Exception):
    """The host ended the link, or spoke out of turn; nothing of what it asked is left running."""


class HostReader:
    """What the host sends.

    Args:
        descriptor: of the stream.
        stall_s: how long the host may fall silent in the midst of something.
    """

    def __init__(self, descriptor: int, stall_s: float = STALL_S) -> None:
        """Keep the arguments."""
        self._descriptor, self._stall_s = descriptor, stall_s
        self._limit_s = self._end_s = math.inf

    def begin(self, limit_s: float) -> None:
        """Begin a message, or a file, that has to be here after so long as a whole."""
        self._limit_s, self._end_s = limit_s, time.monotonic() + limit_s

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._descriptor

    def ready(self, wait_s: float) -> bool:
        """Return whether the host said something or ended the stream, within `wait_s`."""
        return _ready(self._descriptor, select.POLLIN, wait_s)

    def read(self, size: int, /) -> bytes:
        """Return 1 to `size` bytes, none at the end; raises `TornFrame` when it is too slow."""
        left_s = self._end_s - time.monotonic()
        if left_s <= 0 or not self.ready(min(self._stall_s, left_s)):
            if left_s < self._stall_s:
                raise TornFrame(f"the host took over {self._limit_s:g} s for one message")
            raise TornFrame(f"the host sent nothing for {self._stall_s:g} s in mid-message")
        return os.read(self._descriptor, size)


class HostWriter:
    """What the host is sent.

    Args:
        descriptor: of the stream, a pipe or socket.
        stall_s: how long the host may take nothing.
    """

    def __init__(self, descriptor: int, stall_s: float = STALL_S) -> None:
        """Keep the arguments."""
        self._descriptor, self._stall_s = descriptor, stall_s
        self._limit_s = self._end_s = math.inf

    def begin(self, limit_s: float) -> None:
        """Begin a message that the host has to take within so long as a whole."""
        self._limit_s, self._end_s = limit_s, time.monotonic() + limit_s

    def write(self, data: bytes | memoryview, /) -> int:
        """Send some of the bytes; raises `HostGone` when it takes none of them, or too slowly."""
        left_s = self._end_s - time.monotonic()
        if left_s <= 0 or not _ready(self._descriptor, select.POLLOUT, min(self._stall_s, left_s)):
            if left_s < self._stall_s:
                raise HostGone(f"the host took over {self._limit_s:g} s to take one message")
            raise HostGone(f"the host took nothing for {self._stall_s:g} s")
        return os.write(self._descriptor, data[:ATOMIC_BYTES])

    def flush(self) -> None:
        """Nothing is held back."""


def take_streams() -> tuple[BinaryIO, BinaryIO]:
    """Take standard input and output away from everyone else and return them, unbuffered.

    Whatever prints to standard output then prints to standard error.
    """
    reader = os.fdopen(os.dup(0), "rb", buffering=0)
    writer = os.fdopen(os.dup(1), "wb", buffering=0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return reader, writer


def _ready(descriptor: int, event: int, wait_s: float) -> bool:
    poll = select.poll()
    poll.register(descriptor, event)
    return bool(poll.poll(wait_s * 1000))
