"""What the commands about devices do, once the command line has been read."""

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import typer
from rich.console import Console
from rich.text import Text

from evaluators.devices.registry import LOCAL, DevicesError, parse_device
from search_space.errors import DEVICE
from studies.config.home import devices, home
from studies.config.usage import UsageError
from studies.report.progress import open_console
from studies.results.text import clean, counted

LOCAL_WATCH_S = 2.0
MARKS = {"ok": ("ok", "green"), "warning": ("warning", "yellow"), "problem": ("PROBLEM", "red")}


def add_device(name: str, url: str, key: str | None, tags: Iterable[str] = ()) -> None:
    """Remember a device. Raises DevicesError, or UsageError for a key that is not there."""
    if key is not None:
        path = Path(key).expanduser()
        if not path.is_file():
            raise UsageError(f"--key {key}: there is no such file; give a private key")
        key = str(path.resolve())
    device = parse_device(name, url, key, tags)
    devices().add(device)
    _say(f"{name} is {device.url}. Next: fusion-nas device trust {name}")


def list_devices() -> None:
    """Print each device with how far it has come."""
    for device in devices().all():
        trusted = "trusted" if device.host_key else "not trusted yet"
        installed = "agent installed" if device.agent else "no agent installed"
        key = f"key {device.key_file}" if device.key_file else "key of ssh-agent or ~/.ssh"
        tags = f", tags {', '.join(device.tags)}" if device.tags else ""
        _say(f"{device.name}: {device.url}, {key}, {trusted}, {installed}{tags}")
    _say(f"{LOCAL}: this machine")


def remove_device(name: str) -> None:
    """Forget a device. Raises DevicesError where there is none of that name."""
    devices().remove(name)
    _say(f"{name} is forgotten; its agent and your key stay on it")


def tag_device(name: str, tags: Iterable[str]) -> None:
    """Set a device's tags. Raises DevicesError."""
    device = devices().tag(name, tags)
    _say(f"{name} has {', '.join(device.tags) or 'no tag'}")


def show_queues(names: Sequence[str], as_json: bool) -> None:
    """Print the queue of each board; ends with the exit code of devices where one gives none.

    Raises DevicesError for a name that there is not, or where no board is known.
    """
    from evaluators.devices.queue import queues

    known = devices()
    listed = [known.named(name) for name in names] if names else [known.all()]
    boards = {board.name: board for each in listed for board in each}
    if not boards:
        raise DevicesError(
            "no board is known here: add one with `fusion-nas device add NAME ssh://USER@HOST`"
        )
    found = queues(list(boards.values()))
    if as_json:
        print(json.dumps({"boards": [each.as_json() for each in found]}, indent=2))
    else:
        console = open_console()
        widest = max(len(each.name) for each in found)
        for each in found:
            for head, text in each.lines():
                _wrapped(console, f"{head:<{widest}}  ", text)
    if any(each.reason for each in found):
        raise typer.Exit(DEVICE)


def trust_device(name: str, yes: bool, replace: bool) -> None:
    """Show the server's host key and record it once a person, or `yes`, says so.

    Raises DevicesError, DeviceError, HostKeyChanged where another key was trusted before and
    `replace` does not allow for it, UsageError where nobody can be asked.
    """
    from evaluators.devices.ssh.connect import fetch_host_key
    from evaluators.devices.ssh.host_key import HostKeyChanged
    from evaluators.devices.ssh.login import public_text, shown

    device = devices().get(name)
    key = fetch_host_key(device)
    _say(f"{name} at {device.host} port {device.port} shows the host key")
    _say(f"  {shown(key)}")
    _say("On the device, `ssh-keygen -lf` of its file in /etc/ssh must print the same:")
    _say(f"  {key.get_name()}: ssh_host_{_kind_of(key.get_name())}_key.pub")
    if device.host_key == public_text(key):
        _say("It is the one that is trusted already.")
        return
    if device.host_key is not None and not replace:
        raise HostKeyChanged(
            f"{name}: another host key was trusted before: find out why it changed, then "
            f"`fusion-nas device trust {name} --replace`"
        )
    if not yes:
        if not sys.stdin.isatty():
            raise UsageError(
                f"device trust {name}: this is not a terminal, so nothing can be "
                "confirmed; give --yes"
            )
        if not _agreed("Is it the same, and to be trusted from now on? [y/N] "):
            _say("Nothing was recorded.")
            raise typer.Exit(DEVICE)
    devices().change(name, host_key=public_text(key))
    _say(f"It is trusted from now on. Next: fusion-nas device install {name}")


def install_agent(name: str, python: str | None, key: str | None, with_runtime: bool) -> None:
    """Put the agent on a device. Raises DevicesError or DeviceError."""
    from evaluators.devices.ssh.install import install

    if key is not None and not Path(key).expanduser().is_file():
        raise UsageError(f"--key {key}: there is no such file; give a private key")
    if with_runtime:
        _say("making a virtual environment there and installing onnxruntime: this takes minutes")
    done = install(devices().get(name), python, key, _Waiting().say, with_runtime)
    devices().change(name, agent=done.device.agent, python=done.device.python)
    _say(f"{name}: {done.device.agent}")
    _say(f"  run by {done.device.python} ({done.info.python})")
    for removed in done.removed:
        _say(f"  removed {removed}")
    _say("In ~/.ssh/authorized_keys there, this line instead of the key's own lets it run the")
    _say("agent and nothing else:")
    print(clean(done.authorized_keys_line))
    _say(f"Next: fusion-nas device check {name}")


def check_device(name: str) -> None:
    """Print every finding; ends with the exit code of devices where one is a problem.

    Raises DevicesError, HostKeyChanged.
    """
    from evaluators.devices.check import Finding, check_agent, check_ssh
    from evaluators.devices.client import DeviceError, open_local_device

    if name == LOCAL:
        install = "pip install --force-reinstall fusion-nas"
        try:
            with open_local_device(home(make=True) / "device" / "check") as client:
                findings = check_agent(client, install, watch_s=LOCAL_WATCH_S)
        except DeviceError as error:
            findings = [Finding("problem", "agent", str(error), install)]
    else:
        findings = check_ssh(devices().get(name), _Waiting().say)
    console = open_console()
    widest = max(len(finding.what) for finding in findings)
    for finding in findings:
        mark, style = MARKS[finding.level]
        head = f"{mark:<8} {finding.what:<{widest}}  "
        _wrapped(console, head, finding.value, style)
        if finding.way_out:
            _wrapped(console, " " * len(head) + "-> ", finding.way_out)
    problems = sum(finding.level == "problem" for finding in findings)
    warnings = counted(sum(finding.level == "warning" for finding in findings), "warning")
    if problems:
        _say(f"{name}: {counted(problems, 'problem')} to fix before a study can run, {warnings}")
        raise typer.Exit(DEVICE)
    _say(f"{name}: ready, {warnings}")


def _agreed(question: str) -> bool:
    try:
        return input(question).strip().lower() in ("y", "yes")
    except EOFError:
        return False


class _Waiting:
    """Says what is waited for, each thing once in a row."""

    def __init__(self) -> None:
        self._said = ""

    def say(self, text: str) -> None:
        """Print the text unless it was the last one too."""
        if text != self._said:
            self._said = text
            _say(f"waiting: {text}")


def _wrapped(console: Console, head: str, text: str, style: str = "") -> None:
    """Print text that hangs behind its head; what cannot be wrapped stays whole."""
    room = max(20, console.width - len(head))
    lines = Text(clean(text)).wrap(console, room)
    for k, line in enumerate(lines):
        start = Text(head if k == 0 else " " * len(head), style)
        whole = start + Text(line.plain.rstrip())
        console.print(whole, highlight=False, no_wrap=True, overflow="ignore", crop=False)


def _say(text: str) -> None:
    """One line, wrapped by the terminal alone so that it can be copied."""
    print(clean(text), flush=True)


def _kind_of(name: str) -> str:
    return name.removeprefix("ssh-").partition("-")[0]
