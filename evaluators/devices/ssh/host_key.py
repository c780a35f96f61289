"""The check of a device's host key against the one that was trusted."""

from typing import Any

from evaluators.devices.link import DeviceError
from evaluators.devices.registry import Device
from evaluators.devices.ssh.login import parse_public, public_text, shown
from search_space.errors import HOST_KEY


class HostKeyUnknown(DeviceError):
    """The device's host key was never trusted; nothing was sent to it."""


class HostKeyChanged(DeviceError):
    """The device shows another host key than the one trusted; nothing was sent to it."""

    exit_code = HOST_KEY


def prefer_trusted(transport: Any, device: Device) -> None:
    """Ask the server for the kind of key that was trusted, since it may have several."""
    if device.host_key is None:
        return
    kind = device.host_key.partition(" ")[0]
    options = transport.get_security_options()
    names = {"ssh-rsa": ("rsa-sha2-512", "rsa-sha2-256")}.get(kind, (kind,))
    known = [name for name in options.key_types if name in names]
    options.key_types = [*known, *(n for n in options.key_types if n not in known)]


def check_host_key(device: Device, key: Any) -> None:
    """Raise HostKeyUnknown or HostKeyChanged unless this is the key that was trusted."""
    if device.host_key is None:
        raise HostKeyUnknown(
            f"{device.name}: its host key {shown(key)} is not known here: "
            f"`fusion-nas device trust {device.name}` shows it and records it"
        )
    if public_text(key) == device.host_key:
        return
    try:
        trusted = shown(parse_public(device.host_key))
    except ValueError:
        trusted = "one that cannot be read"
    raise HostKeyChanged(
        f"{device.name}: its host key CHANGED: it shows {shown(key)}, trusted was {trusted}. "
        "Another machine may answer in its place; once you know why, "
        f"`fusion-nas device trust {device.name} --replace`"
    )
