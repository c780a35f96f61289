"""Putting the agent on a device: one file, checked there, and the key that may run it alone."""

import hashlib
import shlex
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from device_agent.board.description import DeviceInfo
from device_agent.bundle import zipapp, zipapp_name
from device_agent.checks import ProtocolError, as_tuple, check_int, check_text
from evaluators.devices.client import DeviceClient, DeviceError
from evaluators.devices.recipes import VENV, requirement
from evaluators.devices.registry import Device
from evaluators.devices.ssh.connect import Link, connect
from evaluators.devices.ssh.link import DEVICE_HOME, SshTransport, agent_command
from evaluators.devices.ssh.login import candidates, public_text
from evaluators.devices.ssh.remote import (
    MAKE_VENV,
    PROBE,
    STORE,
    SWEEP,
    OnlyTheAgent,
    ProgramFailed,
    run_program,
)
from evaluators.devices.text import plain

OLDEST_PYTHON = (3, 10)
PYTHONS = ("python3", "python3.14", "python3.13", "python3.12", "python3.11", "python3.10")


MAX_PATH = 4096
INSTALL_S = 900.0
"""For a virtual environment and a runtime of some 20 MB on a slow card and a slow link."""


class InstallFailed(DeviceError):
    """The agent could not be put on the device; the text says why and what to do."""


@dataclass(frozen=True)
class Installed:
    """What was installed.

    Attributes:
        device: the device, with the paths of its agent and Python.
        info: what the agent says there.
        authorized_keys_line: lets the key run this agent and nothing else.
        removed: names of the files of older agents that are gone.
    """

    device: Device
    info: DeviceInfo
    authorized_keys_line: str
    removed: tuple[str, ...]


def install(
    device: Device,
    python: str | None = None,
    key_file: str | None = None,
    waiting: Callable[[str], None] | None = None,
    with_runtime: bool = False,
) -> Installed:
    """Put the agent of this version on a device, hear it speak, and remove older ones.

    Args:
        device: where to.
        python: the Python to run it with; else the first of the usual names that is new enough. It
            may be a wrapper, such as a script that starts a container, and is kept as it is given;
            a path is relative to the user's home there.
        key_file: log in with this key for once, as with a device's own key that may only run the
            agent.
        waiting: told who holds the device, while somebody does.
        with_runtime: make a virtual environment there, install onnxruntime for the CPU into it from
            the device's package index, and run the agent with it.

    Raises:
        InstallFailed: no Python is new enough, the file cannot be written there, or the runtime
            cannot be installed.
        DeviceError: as `connect` does, or from the new agent.
    """
    device_now = device if key_file is None else replace(device, key_file=key_file)
    content = zipapp()
    link = connect(device_now)
    try:
        version, path, home = _find_python(link, python)
        if with_runtime:
            path = _install_runtime(link, path, home, version)
        folder = str(PurePosixPath(home) / DEVICE_HOME / "agent")
        _store(link, path, folder, content)
        agent = str(PurePosixPath(folder) / zipapp_name(content))
        installed = replace(device, agent=agent, python=path)
        command = agent_command(installed)
        with _client(device_now, command, waiting) as client:
            info = client.hello()  # from here on nobody else works there
            swept = run_program(link, path, SWEEP, [folder, zipapp_name(content)])
            removed = _texts(f"{link.name}: the files removed", swept)
        allowed = link.public_key if key_file is None else _own_public_key(device)
        return Installed(installed, info, authorized_keys_line(allowed, command), removed)
    except OnlyTheAgent as error:
        raise InstallFailed(
            f"{error}: install with another one, `fusion-nas device install {device.name} "
            "--key FILE`"
        ) from error
    finally:
        link.close()


def _client(
    device: Device, command: list[str], waiting: Callable[[str], None] | None
) -> DeviceClient:
    transport = SshTransport(connect(device), command)
    return DeviceClient(transport, name=device.name, waiting=waiting)


def authorized_keys_line(public_key: str, command: list[str]) -> str:
    """The line of `authorized_keys` that lets a key run one command and nothing else."""
    quoted = shlex.join(command).replace('"', '\\"')
    return f'restrict,command="{quoted}" {public_key}'


def _own_public_key(device: Device) -> str:
    with candidates(device.key_file) as keys:
        return public_text(keys[0].key)


def _install_runtime(link: Link, python: str, home: str, version: tuple[int, ...]) -> str:
    """Make the virtual environment, install the CPU runtime, and return the path of its Python."""
    folder = str(PurePosixPath(home) / VENV)
    wanted = requirement(".".join(map(str, version)))
    said = run_program(link, python, MAKE_VENV, [folder, wanted], deadline_s=INSTALL_S)
    if said != "":
        (problem,) = _texts(f"{link.name}: what installing {wanted} came to", [said])
        raise InstallFailed(
            f"{link.name}: {wanted} was not installed there: {problem}",
            "where the board has no package index, copy the wheels there and install them with "
            f"{folder}/bin/pip, then `fusion-nas device install {link.name} --python "
            f"{folder}/bin/python`",
        )
    return f"{folder}/bin/python"


def _find_python(link: Link, asked: str | None) -> tuple[tuple[int, ...], str, str]:
    """Version and path of a Python that is new enough, and the user's home there."""
    tried = []
    for name in (asked,) if asked else PYTHONS:
        try:
            version, path, home = _probed(run_program(link, name, PROBE, []))
        except ProgramFailed as error:
            tried.append(str(error))
            continue
        except ProtocolError as error:
            tried.append(plain(f"{name} answered nonsense: {error}"))
            continue
        if version >= OLDEST_PYTHON:
            # A wrapper is what was asked for, not the Python that it starts.
            kept = str(PurePosixPath(home) / asked) if asked and "/" in asked else asked
            return version, kept or path, home
        tried.append(f"{name} is {'.'.join(map(str, version))}")
    wanted = ".".join(map(str, OLDEST_PYTHON))
    raise InstallFailed(
        f"{link.name}: no Python {wanted} or newer: {'; '.join(tried)}: install one there, or name "
        f"it with `fusion-nas device install {link.name} --python PATH`"
    )


def _probed(answer: object) -> tuple[tuple[int, ...], str, str]:
    """Version and path of a Python, and the user's home, as `PROBE` gives them.

    Raises ProtocolError where a device says something else.
    """
    if not isinstance(answer, list) or len(answer) != 3:
        raise ProtocolError("its answer is no version, path and home")
    version, path, home = answer
    numbers = as_tuple("its version", version)
    check_int("the parts of its version", len(numbers), 3, 3)
    for number in numbers:
        check_int("a part of its version", number, 0, 10**6)
    for what, value in (("its path", path), ("the home of its user", home)):
        check_text(what, value, MAX_PATH)
        if not value.startswith("/") or not value.isprintable():
            raise ProtocolError(f"{what} is {value[:80]!r}: no absolute path")
    return numbers, path, home


def _texts(what: str, answer: object) -> tuple[str, ...]:
    """Names or a sentence from a device, as plain text; raises ProgramFailed for all else."""
    try:
        found = as_tuple(what, answer)
        for text in found:
            check_text(what, text, MAX_PATH)
    except ProtocolError as error:
        raise ProgramFailed(plain(str(error))) from error
    return tuple(plain(text) for text in found)


def _store(link: Link, python: str, folder: str, content: bytes) -> None:
    sha256 = hashlib.sha256(content).hexdigest()
    given = [folder, zipapp_name(content), sha256, len(content)]
    said = run_program(link, python, STORE, given, content)
    if said != "":
        (problem,) = _texts(f"{link.name}: what storing the agent came to", [said])
        raise InstallFailed(f"{link.name}: the agent cannot be stored there: {problem}")
