"""What ~/.ssh/config says of a host: its address, port, keys, and the hosts on the way to it."""

import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paramiko

from evaluators.devices.link import DeviceLost
from evaluators.devices.registry import SSH_PORT, Device

CONFIG = Path("~/.ssh/config")
NONE = "none"
"""What a configuration says to use neither ProxyJump nor ProxyCommand."""


@dataclass(frozen=True)
class Route:
    """How a host is reached.

    Attributes:
        host: its address or name.
        port: where its SSH server listens.
        command: whose standard input and output lead to that port; empty for a direct connection.
        key_files: the private keys that are meant for it, beside the usual ones.
    """

    host: str
    port: int
    command: str = ""
    key_files: tuple[Path, ...] = ()


def route_to(device: Device) -> Route:
    """Return how a device is reached; raises DeviceLost for a configuration that cannot be used.

    The port of the device's URL wins over that of the configuration where it is not SSH's own.
    """
    found = _lookup(device)
    host = str(found.get("hostname", device.host))
    port = device.port
    try:
        if port == SSH_PORT:
            port = int(found.get("port", SSH_PORT))
    except ValueError:
        raise DeviceLost(f"{device.name}: Port in {CONFIG} is {found['port']!r}") from None
    keys = tuple(Path(file).expanduser() for file in found.get("identityfile", ()))
    command = str(found.get("proxycommand", ""))
    jump = str(found.get("proxyjump", ""))
    if jump and jump.lower() != NONE:
        command = _through(device, jump, host, port)
    if command.lower() == NONE:
        command = ""
    return Route(host, port, command, keys)


def _lookup(device: Device) -> dict[str, Any]:
    file = CONFIG.expanduser()
    if not file.exists():
        return {}
    try:
        return dict(paramiko.SSHConfig.from_path(str(file)).lookup(device.host))
    except (paramiko.SSHException, OSError, ValueError) as error:
        hint = "correct it, or give an address in the device's URL"
        raise DeviceLost(f"{device.name}: {file} cannot be read ({error}): {hint}") from error


def _through(device: Device, jump: str, host: str, port: int) -> str:
    """The command of OpenSSH that forwards to a port through the hosts of a ProxyJump."""
    if shutil.which("ssh") is None:
        raise DeviceLost(
            f"{device.name}: ProxyJump {jump} in {CONFIG} needs the command ssh: install it"
        )
    *before, last = jump.split(",")
    address = f"[{host}]" if ":" in host else host
    command = [
        "ssh",
        "-F",
        str(CONFIG.expanduser()),
        "-o",
        "BatchMode=yes",
        "-W",
        f"{address}:{port}",
    ]
    command += ["-J", ",".join(before)] if before else []
    name, _, number = last.strip().rpartition(":")
    if name and number.isdigit() and not name.endswith(":"):
        command += ["-p", number, name]
    else:
        command += [last.strip()]
    return shlex.join(command)
