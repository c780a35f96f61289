"""The devices that a user has named: where each is, with which key, and how its agent starts.

They are kept in one JSON file under the home. No password is ever in it.
"""

import json
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

from search_space.errors import USAGE, FusionNasError
from search_space.locks import NamedLock
from search_space.redaction import redacted_url

SSH_PORT = 22
LOCAL = "local"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._\\-]{0,63}")
"""`DOMAIN\\user` is how Windows and Active Directory name users."""
_HOST = re.compile(r"[A-Za-z0-9:][A-Za-z0-9.:%_-]{0,254}")
_VERSION = 1


class DevicesError(FusionNasError):
    """A device, its name or URL, or the file of all devices cannot be used; the text says why."""

    exit_code = USAGE


@dataclass(frozen=True)
class Device:
    """One device that is reached over SSH.

    Attributes:
        name: what the user calls it: letters, digits, - and _.
        host: its address or name.
        port: where its SSH server listens.
        user: whom to log in as.
        key_file: the private key to log in with; None stands for ssh-agent and the usual files.
        host_key: type and base64 of the server's key, as trusted; None before that.
        agent: absolute path of the agent's file on the device; None before it is installed.
        python: absolute path of the Python that runs it; None before it is installed.
        tags: names that it shares with the boards that are like it.
    """

    name: str
    host: str
    port: int
    user: str
    key_file: str | None = None
    host_key: str | None = None
    agent: str | None = None
    python: str | None = None
    tags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_name(self.name)
        if not isinstance(self.host, str) or not _HOST.fullmatch(self.host):
            raise DevicesError(f"device {self.name}: {self.host!r} is no host name or address")
        if not isinstance(self.user, str) or not _USER.fullmatch(self.user):
            raise DevicesError(f"device {self.name}: {self.user!r} is no user name")
        if type(self.port) is not int or not 1 <= self.port <= 65535:
            raise DevicesError(f"device {self.name}: port {self.port!r}: give 1 to 65535")
        for name in ("key_file", "host_key", "agent", "python"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, str) or not value):
                raise DevicesError(f"device {self.name}: {name} is {value!r}: give text or null")
        if self.host_key is not None and len(self.host_key.split(" ")) != 2:
            raise DevicesError(f"device {self.name}: host_key holds no type and base64")
        for name in ("agent", "python"):
            path = getattr(self, name)
            if path is not None and not PurePosixPath(path).is_absolute():
                raise DevicesError(f"device {self.name}: {name} {path!r} is no absolute path")
        if not isinstance(self.tags, list | tuple):
            raise DevicesError(f"device {self.name}: tags is {self.tags!r}: give a list of names")
        for tag in self.tags:
            check_name(tag, f"device {self.name}: tag")
        object.__setattr__(self, "tags", tuple(sorted(set(self.tags))))

    @property
    def url(self) -> str:
        """The URL it was added with; the port is left out where it is SSH's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"ssh://{self.user}@{host}" + ("" if self.port == SSH_PORT else f":{self.port}")


def check_name(name: object, what: str = "device name") -> None:
    """Raise DevicesError unless this can be the name of a device over SSH, or a tag."""
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise DevicesError(
            f"{what} {name!r}: give letters, digits, - and _, at most 64, beginning with "
            "a letter or digit"
        )
    if name == LOCAL:
        raise DevicesError(f"{what} {LOCAL!r}: it stands for this machine; give another")


def parse_device(
    name: str, url: str, key_file: str | None = None, tags: Iterable[str] = ()
) -> Device:
    """The device that a URL `ssh://user@host[:port]` names.

    Raises DevicesError where name or URL cannot be meant, or hold a password.
    """
    shape = "give ssh://USER@HOST or ssh://USER@HOST:PORT"
    check_name(name)
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:  # its text may hold a part of a password
        raise DevicesError(f"device {name}: {redacted_url(url)}: {shape}") from None
    if parts.password is not None:
        raise DevicesError(f"device {name}: the URL holds a password; only keys are used: {shape}")
    if parts.scheme != "ssh" or not parts.hostname or not parts.username or _tail(parts):
        raise DevicesError(f"device {name}: {redacted_url(url)}: {shape}")
    host = parts.hostname.replace("%25", "%")  # of an IPv6 zone, as RFC 6874 writes it
    user = unquote(parts.username)
    port = SSH_PORT if port is None else port
    return Device(name, host, port, user, key_file, tags=tuple(tags))


class Devices:
    """The file of all devices; every change is whole or not there, and mode 0600."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def all(self) -> tuple[Device, ...]:
        """Every device in order of name; raises DevicesError where the file is damaged."""
        return tuple(device for _, device in sorted(self._read().items()))

    def get(self, name: str) -> Device:
        """The device of this name; raises DevicesError naming those that there are."""
        found = self._read()
        if name not in found:
            raise self._unknown(name, found)
        return found[name]

    def named(self, name: str) -> tuple[Device, ...]:
        """The device of this name, or all devices with this tag, in order of name.

        Raises DevicesError naming the devices and tags that there are.
        """
        found = self._read()
        if name in found:
            return (found[name],)
        tagged = tuple(device for _, device in sorted(found.items()) if name in device.tags)
        if not tagged:
            raise self._unknown(name, found)
        return tagged

    def add(self, device: Device) -> None:
        """Keep a new device; raises DevicesError where the name or a tag is taken."""
        with self._changed() as found:
            if device.name in found:
                raise DevicesError(
                    f"device {device.name!r} is there already, as {found[device.name].url}: "
                    f"`fusion-nas device remove {device.name}` first, or give another name"
                )
            found[device.name] = device
            _check_tags(found)

    def tag(self, name: str, tags: Iterable[str]) -> Device:
        """Give a device these tags instead of those that it has, and return it.

        Raises DevicesError for a tag that is the name of a device.
        """
        self.get(name)
        with self._changed() as found:
            if name not in found:
                raise DevicesError(f"device {name!r} was removed meanwhile: add it again")
            found[name] = changed = replace(found[name], tags=tuple(tags))
            _check_tags(found)
        return changed

    def change(self, name: str, **fields: str | None) -> Device:
        """Set fields of a device and return it as it is then."""
        self.get(name)
        with self._changed() as found:
            if name not in found:
                raise DevicesError(f"device {name!r} was removed meanwhile: add it again")
            found[name] = changed = replace(found[name], **fields)  # type: ignore[arg-type]
        return changed

    def remove(self, name: str) -> None:
        """Forget a device; nothing is done on it."""
        self.get(name)
        with self._changed() as found:
            found.pop(name, None)

    def _unknown(self, name: str, found: Mapping[str, Device]) -> DevicesError:
        known = ", ".join(sorted(found)) or "none yet"
        tags = sorted({tag for device in found.values() for tag in device.tags})
        tagged = f", tags are {', '.join(tags)}" if tags else ""
        return DevicesError(
            f"no device {name!r}: known are {LOCAL} and, over SSH, {known}{tagged}; add one with "
            "`fusion-nas device add NAME ssh://USER@HOST`"
        )

    @contextmanager
    def _changed(self) -> Iterator[dict[str, Device]]:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with NamedLock(f"{self._file}.lock"):
            found = self._read()
            yield found
            self._write(found)

    def _read(self) -> dict[str, Device]:
        try:
            text = self._file.read_text(encoding="utf-8")
        except FileNotFoundError:
            return {}
        except UnicodeDecodeError as error:
            raise self._damaged(f"not UTF-8 ({error.reason})") from None
        try:
            whole = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise self._damaged(f"not JSON ({error})") from None
        if not isinstance(whole, dict) or whole.get("version") != _VERSION:
            raise self._damaged(f"no object of version {_VERSION}")
        entries = whole.get("devices")
        if not isinstance(entries, dict):
            raise self._damaged("no object of devices in it")
        return {name: self._device(name, entry) for name, entry in entries.items()}

    def _device(self, name: str, entry: object) -> Device:
        names = {field.name for field in fields(Device)} - {"name", "tags"}
        if not isinstance(entry, dict) or set(entry) - {"tags"} != names:
            raise self._damaged(f"device {name!r} does not hold exactly {', '.join(sorted(names))}")
        try:
            return Device(name, **entry)
        except DevicesError as error:
            raise self._damaged(str(error)) from None

    def _damaged(self, why: str) -> DevicesError:
        return DevicesError(
            f"{self._file}: {why}: correct it, or remove it and add the devices again"
        )

    def _write(self, found: Mapping[str, Device]) -> None:
        entries: dict[str, dict[str, Any]] = {}
        for name, device in sorted(found.items()):
            # Without tags a device is written as versions that know of none read it.
            left_out = ("name",) if device.tags else ("name", "tags")
            entries[name] = {k: v for k, v in asdict(device).items() if k not in left_out}
        text = json.dumps({"version": _VERSION, "devices": entries}, indent=2) + "\n"
        handle, part = tempfile.mkstemp(dir=self._file.parent, prefix=".devices-")  # mode 0600
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, self._file)
        except BaseException:
            os.unlink(part)
            raise


def _check_tags(found: Mapping[str, Device]) -> None:
    """Raise DevicesError for a tag that is the name of a device: the name would hide the tag."""
    for device in found.values():
        for tag in device.tags:
            if tag in found:
                raise DevicesError(
                    f"device {device.name}: tag {tag!r} is the name of a device: give another"
                )


def _tail(parts: SplitResult) -> bool:
    return parts.path not in ("", "/") or bool(parts.query or parts.fragment)
