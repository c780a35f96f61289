"""A device's agent over SSH, on one channel of a connection that is its own."""

import shlex
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import PurePosixPath
from typing import Any

from device_agent.bundle import zipapp, zipapp_name
from device_agent.wire import frames as wire
from evaluators.devices.client import CALL_DEADLINE_S, DeviceClient
from evaluators.devices.link import CLOSE_S, STDERR_BYTES
from evaluators.devices.registry import Device
from evaluators.devices.ssh.connect import Link, connect, start

PACKET_BYTES = 2**15
DEVICE_HOME = ".fusion-nas"
"""Below the home of the user on the device."""


def agent_command(device: Device) -> list[str]:
    """How the device's agent is started; a key restricted to the agent ignores this."""
    agent = device.agent or f"{DEVICE_HOME}/agent/{zipapp_name(zipapp())}"
    home = str(PurePosixPath(agent).parents[1])
    return [device.python or "python3", "-I", agent, "serve", "--home", home]


def open_ssh_device(
    device: Device,
    waiting: Callable[[str], None] | None = None,
    call_deadline_s: float = CALL_DEADLINE_S,
) -> DeviceClient:
    """Start the device's agent over SSH and return a client for it; raises as `connect` does.

    While others hold the device, `waiting` is told who does.
    """
    transport = SshTransport(connect(device), agent_command(device))
    return DeviceClient(transport, call_deadline_s, name=device.name, waiting=waiting)


class SshTransport:
    """An agent at the other end of one SSH channel; it owns the link, and closes it."""

    def __init__(self, link: Link, command: Sequence[str]) -> None:
        """Start the command; raises `DeviceLost` and closes the link when that fails."""
        self._link = link
        self._closing = False
        self._tail = bytearray()
        try:
            self._channel = start(link, shlex.join(command))
        except BaseException:
            link.close()
            raise
        self.reader: wire.Reader = _Incoming(self._channel, link)
        self.writer: wire.Writer = _Outgoing(self._channel, link)
        self._drain = threading.Thread(target=self._keep_tail, daemon=True)
        self._drain.start()

    def stderr_tail(self) -> str:
        """Return the last 16 KiB that the agent and its jobs printed, and how it ended."""
        self._channel.status_event.wait(CLOSE_S if self._channel.eof_received else 0.0)
        said = bytes(self._tail).decode("utf-8", "replace").strip()
        status = self._channel.exit_status
        if status == 127 or (status not in (-1, 0) and "can't open file" in said):
            said += f"\nRun `fusion-nas device install {self._link.name}`: "
            said += "no such Python there" if status == 127 else "this agent is not there"
        return said.strip()

    def close(self) -> None:
        """End the agent by ending its standard input, then the link, in two seconds at most."""
        polite = threading.Thread(target=self._end, daemon=True)
        polite.start()
        polite.join(CLOSE_S)  # it is held up where the link is dead
        self._link.close()
        self._drain.join(CLOSE_S)

    def _end(self) -> None:
        with suppress(Exception):
            self._channel.shutdown_write()
            self._channel.status_event.wait(CLOSE_S)
            self._channel.close()

    def _keep_tail(self) -> None:
        with suppress(Exception):
            while chunk := self._channel.recv_stderr(4096):
                self._tail += chunk
                del self._tail[:-STDERR_BYTES]


class _Incoming:
    """What the agent writes; a link that broke is an OSError, not an end."""

    def __init__(self, channel: Any, link: Link) -> None:
        self._channel, self._link = channel, link

    def read(self, size: int, /) -> bytes:
        found: bytes = self._channel.recv(size)
        if not found and not self._channel.eof_received and not self._link.ended.is_set():
            raise OSError(f"the SSH link to {self._link.name} broke")
        return found


class _Outgoing:
    """What the agent reads."""

    def __init__(self, channel: Any, link: Link) -> None:
        self._channel, self._link = channel, link

    def write(self, data: bytes | memoryview, /) -> int:
        try:
            taken: int = self._channel.send(bytes(data[:PACKET_BYTES]))
        except EOFError:  # so paramiko says it when the socket breaks under a write
            taken = 0
        if not taken:
            raise OSError(f"the SSH link to {self._link.name} broke")
        return taken

    def flush(self) -> None:
        """Nothing is held back."""
