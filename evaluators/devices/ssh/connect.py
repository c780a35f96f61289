"""A connection to a device over SSH: a host key that was trusted, a log-in by key.

What keeps it from being made is a `DeviceError`: `DeviceLost` and `DeviceTimeout` where a later
try may do, `HostKeyUnknown`, `HostKeyChanged` and `LogInFailed` where a person has to act.
"""

import logging
import os
import select
import socket
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import paramiko

from evaluators.devices.link import DeviceLost, DeviceTimeout
from evaluators.devices.registry import Device
from evaluators.devices.ssh.config import CONFIG, route_to
from evaluators.devices.ssh.host_key import check_host_key, prefer_trusted
from evaluators.devices.ssh.login import LogInFailed, candidates, public_text
from evaluators.devices.text import plain

CONNECT_S = 15.0
GREETING_S = 15.0
HANDSHAKE_S = 30.0
LOG_IN_S = 30.0
CHANNEL_S = 30.0
SAID_S = 0.5
PING_EVERY_S = 10.0
PING_ANSWER_S = 15.0
"""A link whose server does not answer for PING_EVERY_S + PING_ANSWER_S is given up."""


@dataclass(frozen=True)
class Link:
    """A connection that is logged in; `public_key` is the one that the device let in."""

    transport: Any
    public_key: str
    name: str
    ended: threading.Event = field(default_factory=threading.Event)

    def close(self) -> None:
        """Break the connection. Never raises; may be called twice."""
        self.ended.set()
        with suppress(Exception):
            self.transport.close()


def fetch_host_key(device: Device) -> Any:
    """The key that the server shows, without logging in.

    Raises DeviceLost or DeviceTimeout where none is available.
    """
    transport = _greet(device)
    try:
        return transport.get_remote_server_key()
    finally:
        transport.close()


def connect(device: Device) -> Link:
    """Connect and log in.

    Raises:
        DeviceLost, DeviceTimeout: the device cannot be reached, or broke off.
        HostKeyUnknown, HostKeyChanged: it is not known to be the device that was meant.
        LogInFailed: no available key is accepted.
    """
    transport = _greet(device)
    try:
        check_host_key(device, transport.get_remote_server_key())
        link = Link(transport, _log_in(device, transport), device.name)
    except BaseException:
        transport.close()
        raise
    threading.Thread(target=_watch, args=(link,), daemon=True).start()
    return link


def start(link: Link, command: str) -> Any:
    """A channel on which the command runs; raises DeviceLost where the server does not let it."""
    try:
        channel = link.transport.open_session(timeout=CHANNEL_S)
        channel.exec_command(command)
    except (paramiko.SSHException, EOFError, OSError) as error:
        raise DeviceLost(
            f"{link.name}: the SSH server starts no command ({error}): look at its log"
        ) from error
    return channel


def _greet(device: Device) -> Any:
    """An encrypted connection to a server of which nothing is known yet but its key."""
    route = route_to(device)
    where = f"{device.name} ({route.host} port {route.port})"
    logger = logging.getLogger("paramiko")
    if not logger.handlers:  # else its errors are printed beside ours
        logger.addHandler(logging.NullHandler())
    try:
        link: Any = (
            paramiko.ProxyCommand(route.command)
            if route.command
            else socket.create_connection((route.host, route.port), CONNECT_S)
        )
    except socket.gaierror as error:
        raise DeviceLost(f"{where}: no host of that name ({error.strerror}): is it on?") from error
    except UnicodeError as error:
        raise DeviceLost(f"{where}: that can be no host's name: give another") from error
    except ConnectionRefusedError as error:
        raise DeviceLost(f"{where}: refused: does an SSH server listen there?") from error
    except TimeoutError as error:
        raise DeviceTimeout(f"{where}: no answer in {CONNECT_S:g} s: is it on?") from error
    except OSError as error:
        way = f" by `{route.command}`, as {CONFIG} says" if route.command else ""
        raise DeviceLost(f"{where}: cannot be reached{way} ({error.strerror or error})") from error
    transport = None
    try:
        transport = paramiko.Transport(link)
        transport.banner_timeout, transport.handshake_timeout = GREETING_S, HANDSHAKE_S
        transport.auth_timeout, transport.channel_timeout = LOG_IN_S, CHANNEL_S
        prefer_trusted(transport, device)
        transport.start_client(timeout=GREETING_S + HANDSHAKE_S)
        if not transport.initial_kex_done:
            raise DeviceTimeout(f"{where}: it began to speak SSH and then fell silent")
    except (paramiko.SSHException, EOFError, OSError) as error:
        said = _said_on_the_way(link)
        _drop(transport, link)
        if said:
            raise DeviceLost(
                f"{where}: not reached through `{route.command}`, as {CONFIG} says ({said}): "
                "try that command in a shell"
            ) from error
        if isinstance(error, paramiko.IncompatiblePeer):
            raise DeviceLost(f"{where}: no SSH algorithms in common: {error}") from error
        raise DeviceLost(f"{where}: no SSH server answers there ({_words(error)})") from error
    except BaseException:
        _drop(transport, link)
        raise
    return transport


def _said_on_the_way(link: Any) -> str:
    """The last line that the command of a ProxyJump or ProxyCommand wrote to its standard error."""
    process = getattr(link, "process", None)
    if process is None or not select.select([process.stderr], [], [], SAID_S)[0]:
        return ""
    lines = os.read(process.stderr.fileno(), 1 << 16).decode(errors="replace").split("\n")
    return next((" ".join(line.split()) for line in reversed(lines) if line.strip()), "")


def _drop(transport: Any, link: Any) -> None:
    if transport is not None:
        transport.close()
    link.close()


def _log_in(device: Device, transport: Any) -> str:
    """Log in with the first key that the server takes and return its public part."""
    who = f"{device.user}@{device.host}"
    try:
        with candidates(device.key_file, route_to(device).key_files) as keys:
            for candidate in keys:
                if _is_let_in(device, transport, candidate.key):
                    return public_text(candidate.key)
                if not transport.is_active():
                    break
            tried = ", ".join(candidate.source for candidate in keys)
    except LogInFailed as error:
        raise LogInFailed(f"{device.name}: {error}") from error
    broke = "" if transport.is_active() else "; it broke off after too many of them"
    raise LogInFailed(
        f"{device.name}: {who} lets none of the keys in ({tried}){broke}: put the public key into "
        "~/.ssh/authorized_keys there, or name the right key or user with `fusion-nas device add`"
    )


def _is_let_in(device: Device, transport: Any, key: Any) -> bool:
    try:
        more = transport.auth_publickey(device.user, key)
    except paramiko.BadAuthenticationType as error:
        raise LogInFailed(
            f"the server takes no keys for {device.user}, only {', '.join(error.allowed_types)}: "
            "allow PubkeyAuthentication there"
        ) from error
    except paramiko.AuthenticationException as error:
        if "timeout" in str(error).lower():
            raise DeviceTimeout(
                f"{device.name}: no answer to the log-in in {LOG_IN_S:g} s"
            ) from error
        return False
    except (paramiko.SSHException, EOFError, OSError) as error:
        raise DeviceLost(f"{device.name}: it broke off at the log-in ({_words(error)})") from error
    if more:
        raise LogInFailed(
            f"the server asks for more than a key ({', '.join(more)}): let a key alone do for "
            f"{device.user}"
        )
    return True


def _words(error: BaseException) -> str:
    return plain(" ".join(str(error).split())) or type(error).__name__


def _watch(link: Link) -> None:
    """Ask the server for a sign of life now and then; break the link where none comes."""
    while not link.ended.wait(PING_EVERY_S) and link.transport.is_active():
        silence = threading.Timer(PING_ANSWER_S, link.transport.close)
        silence.daemon = True
        silence.start()
        with suppress(Exception):
            link.transport.global_request("keepalive@openssh.com", wait=True)
        silence.cancel()
