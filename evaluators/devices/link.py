"""The link of a host to an agent: its Protocol, its errors, and the link to a child process."""

import os
import subprocess
import threading
from collections.abc import Mapping, Sequence
from typing import IO, Protocol

from device_agent.wire import frames as wire
from search_space.errors import DEVICE, FusionNasError

STDERR_BYTES = 16 * 1024
CLOSE_S = 2.0


class DeviceError(FusionNasError):
    """A device's agent could not be asked."""

    exit_code = DEVICE


class DeviceLost(DeviceError):
    """The agent or the link to it ended; open the device again."""


class DeviceTimeout(DeviceError):
    """The agent did not answer in time and was given up; open the device again."""


class DeviceRefused(DeviceError):
    """The agent answers, and says no.

    Its `code` is `disk-full`, `disk-error`, `wrong-length`, `wrong-sha256`, `too-large`, `version`
    or `bad-message`.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{message} ({code})")
        self.args = (code, message)  # what pickle hands to this constructor
        self.code = code


class Transport(Protocol):
    """A pair of byte streams from and to a running agent, which goes when `writer` ends."""

    reader: wire.Reader
    writer: wire.Writer

    def stderr_tail(self) -> str:
        """Return the last that the agent and its jobs printed."""

    def close(self) -> None:
        """End the agent; a read or write that another thread is held in ends too. Never raises."""


class LocalTransport:
    """An agent that runs as a child process of this one."""

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str] | None = None
    ) -> None:
        """Start the process by its command; raises `DeviceLost` when that fails.

        Args:
            command: the agent's.
            environment: variables that are set beside those of this process.
        """
        pipe = subprocess.PIPE
        try:
            self._process = subprocess.Popen(
                command,
                stdin=pipe,
                stdout=pipe,
                stderr=pipe,
                bufsize=0,
                start_new_session=True,
                env={**os.environ, **(environment or {})},
            )
        except OSError as error:
            raise DeviceLost(f"the agent did not start with {command[0]}: {error}") from error
        stdin, stdout, stderr = self._process.stdin, self._process.stdout, self._process.stderr
        assert stdin and stdout and stderr
        self.writer: wire.Writer = stdin
        self.reader: wire.Reader = stdout
        self._pipes = (stdin, stdout)
        self.pid = self._process.pid
        self._tail = bytearray()
        self._drain = threading.Thread(target=self._keep_tail, args=(stderr,), daemon=True)
        self._drain.start()

    def stderr_tail(self) -> str:
        """Return the last 16 KiB that the agent and its jobs printed."""
        return bytes(self._tail).decode("utf-8", "replace").strip()

    def close(self) -> None:
        """End the agent and its job, in two seconds or by force, and give the pipes back."""
        self._process.terminate()
        try:
            self._process.wait(CLOSE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._drain.join(CLOSE_S)
        for pipe in self._pipes:
            pipe.close()

    def _keep_tail(self, stream: IO[bytes]) -> None:
        with stream:
            while chunk := stream.read(4096):
                self._tail += chunk
                del self._tail[:-STDERR_BYTES]
