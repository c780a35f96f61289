"""A device over SSH, against a real OpenSSH server: who is believed, who is let in, what runs."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import paramiko
import pytest
import sshd
from sshd import Sshd, start_sshd

from device_agent.bundle import zipapp, zipapp_name
from evaluators.devices.client import DeviceError, DeviceLost, DeviceTimeout
from evaluators.devices.registry import Device, DevicesError, parse_device
from evaluators.devices.ssh import connect as ssh_connect
from evaluators.devices.ssh.connect import connect, fetch_host_key
from evaluators.devices.ssh.host_key import HostKeyChanged, HostKeyUnknown
from evaluators.devices.ssh.install import InstallFailed, authorized_keys_line, install
from evaluators.devices.ssh.link import agent_command, open_ssh_device
from evaluators.devices.ssh.login import LogInFailed, public_text, shown
from evaluators.devices.ssh.remote import STORE, OnlyTheAgent, run_program

pytestmark = pytest.mark.skipif(bool(sshd.missing()), reason=sshd.missing())


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Sshd]:
    with start_sshd(tmp_path / "server") as running:
        yield running


def trusted(server: Sshd) -> Device:
    return Device(
        "orin", server.host, server.port, server.user, str(server.key_file), server.host_key
    )


@pytest.fixture
def device(server: Sshd) -> Device:
    """A device whose host key is trusted."""
    return trusted(server)


@pytest.fixture
def installed(device: Device) -> Device:
    """A device with its agent."""
    return install(device, sys.executable).device


def agents(server: Sshd) -> list[str]:
    folder = server.home / ".fusion-nas" / "agent"
    return sorted(file.name for file in folder.iterdir())


def running_agents(server: Sshd) -> list[int]:
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = file.read_bytes()
        except OSError:
            continue
        if str(server.home / ".fusion-nas").encode() in command and b"serve" in command:
            found.append(int(file.parent.name))
    return found


def make_key(file: Path, kind: str = "ed25519", passphrase: str = "") -> Path:
    command = ["ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-f", str(file)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return file


def one_line(error: BaseException, *words: str) -> None:
    said = str(error)
    assert "\n" not in said and said.startswith("orin"), said
    for word in words:
        assert word in said, said


def test_an_unknown_host_key_is_refused_before_anything_is_sent(
    server: Sshd, device: Device
) -> None:
    with pytest.raises(HostKeyUnknown) as raised:
        connect(replace(device, host_key=None))
    one_line(raised.value, "not known here", "fusion-nas device trust orin")
    assert "publickey" not in server.log


def test_a_changed_host_key_is_an_error_of_its_own(server: Sshd, device: Device) -> None:
    connect(device).close()
    before = len(server.log)
    server.change_host_key()
    with pytest.raises(HostKeyChanged) as raised:
        connect(device)
    one_line(raised.value, "CHANGED", "--replace")
    assert "publickey" not in server.log[before:]


def test_the_fingerprint_is_the_one_that_ssh_keygen_prints(server: Sshd, device: Device) -> None:
    printed = subprocess.run(
        ["ssh-keygen", "-lf", "-"], input=server.host_key, capture_output=True, text=True
    ).stdout.split()
    key = fetch_host_key(replace(device, host_key=None))
    assert public_text(key) == server.host_key
    assert shown(key).split() == [printed[0], printed[1], printed[-1]]
    assert "publickey" not in server.log


@pytest.mark.parametrize("kind", ["rsa", "ecdsa"])
def test_a_server_of_several_keys_shows_the_one_that_was_trusted(tmp_path: Path, kind: str) -> None:
    other = make_key(tmp_path / "other", kind)
    public = " ".join(other.with_suffix(".pub").read_text().split()[:2])
    with start_sshd(tmp_path / "server", f"HostKey {other}") as server:
        connect(trusted(server)).close()
        connect(replace(trusted(server), host_key=public)).close()


Wrong = Callable[[Device, Path], Device]
WRONG: dict[str, tuple[Wrong, type[DeviceError], tuple[str, ...]]] = {
    "user": (
        lambda device, folder: replace(device, user="nosuchuser"),
        LogInFailed,
        ("nosuchuser@127.0.0.1", "client_key", "authorized_keys"),
    ),
    "key": (
        lambda device, folder: replace(device, key_file=str(make_key(folder / "other"))),
        LogInFailed,
        ("none of the keys", "other", "authorized_keys"),
    ),
    "no such key": (
        lambda device, folder: replace(device, key_file=str(folder / "none")),
        LogInFailed,
        ("none", "cannot be read", "--key FILE"),
    ),
    "public key": (
        lambda device, folder: replace(device, key_file=f"{make_key(folder / 'a')}.pub"),
        LogInFailed,
        ("a.pub", "without .pub"),
    ),
    "encrypted key": (
        lambda device, folder: replace(
            device, key_file=str(make_key(folder / "locked", passphrase="geheim"))
        ),
        LogInFailed,
        ("needs a passphrase", "ssh-add"),
    ),
    "closed port": (
        lambda device, folder: replace(device, port=1),
        DeviceLost,
        ("port 1", "refused"),
    ),
    "host": (
        lambda device, folder: replace(device, host="nosuch.invalid"),
        DeviceLost,
        ("nosuch.invalid", "no host of that name"),
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_told_in_one_line(device: Device, tmp_path: Path, what: str) -> None:
    change, kind, words = WRONG[what]
    with pytest.raises(kind) as raised:
        connect(change(device, tmp_path))
    one_line(raised.value, *words)


def test_no_key_at_all_is_told_in_one_line(
    device: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    with pytest.raises(LogInFailed) as raised:
        connect(replace(device, key_file=None))
    one_line(raised.value, "no key to log in with", "ssh-keygen -t ed25519")


def test_the_usual_key_files_are_tried_where_none_is_named(
    server: Sshd, device: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".ssh").mkdir()
    make_key(tmp_path / ".ssh" / "id_rsa", "rsa")
    (tmp_path / ".ssh" / "id_ed25519").write_bytes(server.key_file.read_bytes())
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    link = connect(replace(device, key_file=None))
    link.close()
    assert link.public_key == " ".join(server.key_file.with_suffix(".pub").read_text().split()[:2])


@pytest.fixture
def babbling_agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A socket that stands for ssh-agent and answers nonsense."""
    bell = tmp_path / "babble"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(bell))
    listener.listen()

    def babble() -> None:
        with suppress(OSError):
            while True:
                link, _ = listener.accept()
                with link:
                    link.sendall(b"\0\0\0\1\x05")

    threading.Thread(target=babble, daemon=True).start()
    monkeypatch.setenv("SSH_AUTH_SOCK", str(bell))
    yield
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


@pytest.mark.usefixtures("babbling_agent")
def test_a_plain_key_file_needs_no_ssh_agent(device: Device) -> None:
    connect(device).close()


@pytest.mark.usefixtures("babbling_agent")
def test_an_ssh_agent_that_answers_nonsense_is_told_in_one_line(device: Device) -> None:
    with pytest.raises(LogInFailed) as raised:
        connect(replace(device, key_file=None))
    one_line(raised.value, "ssh-agent", "SSH_AUTH_SOCK", "--key FILE")


def test_a_key_with_a_passphrase_is_used_by_way_of_ssh_agent(
    server: Sshd, device: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked = make_key(tmp_path / "locked", passphrase="geheim")
    server.authorized_keys.write_text(locked.with_suffix(".pub").read_text())
    ask = tmp_path / "ask"
    ask.write_text("#!/bin/sh\necho geheim\n")
    ask.chmod(0o700)
    bell = tmp_path / "agent"
    holder = subprocess.Popen(["ssh-agent", "-D", "-a", str(bell)], stdout=subprocess.DEVNULL)
    try:
        assert within(10, bell.exists)
        monkeypatch.setenv("SSH_AUTH_SOCK", str(bell))
        asking = {**os.environ, "SSH_ASKPASS": str(ask), "SSH_ASKPASS_REQUIRE": "force"}
        subprocess.run(["ssh-add", str(locked)], env=asking, check=True, capture_output=True)
        connect(replace(device, key_file=str(locked))).close()
        connect(replace(device, key_file=None)).close()
    finally:
        holder.terminate()
        holder.wait()


@pytest.mark.parametrize("said", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"", b"SSH-2.0-x\r\nnoise"])
def test_a_port_of_something_else_is_told_in_one_line(device: Device, said: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:

        def answer() -> None:
            link, _ = other.accept()
            with link:
                link.sendall(said)

        threading.Thread(target=answer, daemon=True).start()
        with pytest.raises(DeviceLost) as raised:
            connect(replace(device, port=other.getsockname()[1]))
    one_line(raised.value, "no SSH server answers there")


def test_a_port_that_says_nothing_is_given_up(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssh_connect, "GREETING_S", 0.5)
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        pytest.raises((DeviceLost, DeviceTimeout)) as raised,
    ):
        connect(replace(device, port=silent.getsockname()[1]))
    one_line(raised.value)


def within(seconds: float, holds: Callable[[], bool]) -> bool:
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def test_the_agent_answers_and_is_gone_when_the_client_closes(
    server: Sshd, installed: Device
) -> None:
    with open_ssh_device(installed) as client:
        assert client.name == "orin"
        assert client.hello().python == ".".join(map(str, sys.version_info[:3]))
        assert client.state().home_free_mb > 0
        assert running_agents(server)
    assert within(5, lambda: not running_agents(server))
    assert within(5, lambda: not server.links())


def test_a_link_that_is_cut_is_an_error_and_no_end(server: Sshd, installed: Device) -> None:
    with open_ssh_device(installed) as client:
        client.hello()
        server.cut()
        with pytest.raises(DeviceLost, match="link to orin broke"):
            client.state()
    with open_ssh_device(installed) as client:
        client.state()


def test_a_server_that_falls_silent_ends_a_read_that_is_held(
    server: Sshd, installed: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssh_connect, "PING_EVERY_S", 0.2)
    monkeypatch.setattr(ssh_connect, "PING_ANSWER_S", 5.0)
    with open_ssh_device(installed) as client:
        client.hello()
        time.sleep(1.5)  # with answers the link stays
        client.state()
        stopped = server.links()
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        try:
            with pytest.raises(DeviceLost, match="link to orin broke"):
                client.state()
        finally:
            for pid in stopped:
                os.kill(pid, signal.SIGCONT)


NOISE = r"""
printf 'welcome \033[31mto the board\033[0m\n%.0s' $(seq 1000)
printf 'and more\n%.0s' $(seq 500) >&2
"""


@pytest.mark.skipif(
    not os.environ.get("SHELL", "/bin/bash").endswith("bash"),
    reason="the noise is made by a start-up file of bash, which is not this user's shell",
)
def test_a_noisy_shell_disturbs_neither_install_nor_agent(tmp_path: Path) -> None:
    banner = tmp_path / "banner"
    banner.write_text("Authorised users only.\n" * 40)
    with start_sshd(tmp_path / "server", f"Banner {banner}", "PrintMotd yes") as server:
        (server.home / ".bashrc").write_text(NOISE)
        link = connect(trusted(server))
        with link.transport.open_session() as channel:
            channel.exec_command("true")
            assert b"welcome" in channel.recv(100), "the noise is there"
        link.close()
        done = install(trusted(server), sys.executable)
        with open_ssh_device(done.device) as client:
            assert client.hello() == done.info


def test_install_puts_exactly_one_agent_there(server: Sshd, device: Device) -> None:
    folder = server.home / ".fusion-nas" / "agent"
    folder.mkdir(parents=True)
    old = "fusion-nas-agent-0123456789abcdef.pyz"
    (folder / old).write_text("an older agent")
    (folder / f"{zipapp_name(zipapp())}.part-1").write_text("half of one")
    done = install(device, sys.executable)
    assert agents(server) == [zipapp_name(zipapp())]
    assert (folder / zipapp_name(zipapp())).read_bytes() == zipapp()
    assert done.removed == (old, f"{zipapp_name(zipapp())}.part-1")
    assert done.device.agent == str(folder / zipapp_name(zipapp()))
    (folder / zipapp_name(zipapp())).write_text("damaged")
    again = install(done.device)
    assert (folder / zipapp_name(zipapp())).read_bytes() == zipapp()
    assert again.removed == ()


def test_an_upload_that_came_wrong_never_gets_its_name(server: Sshd, device: Device) -> None:
    folder = server.home / ".fusion-nas" / "agent"
    link = connect(device)
    try:
        given = [str(folder), "fusion-nas-agent-x.pyz", "0" * 64, 5]
        said = run_program(link, sys.executable, STORE, given, b"hello")
    finally:
        link.close()
    assert "another SHA-256" in said
    assert list(folder.iterdir()) == []


def test_a_device_without_a_python_that_is_new_enough_is_told(
    device: Device, tmp_path: Path
) -> None:
    old = tmp_path / "python3.8"
    old.write_text(
        f"#!/bin/sh\nexec {sys.executable} \"$@\" | sed 's/\\[\\[[^]]*\\]/[[3, 8, 10]/'\n"
    )
    old.chmod(0o700)
    with pytest.raises(InstallFailed) as raised:
        install(device, str(old))
    one_line(raised.value, "no Python 3.10 or newer", "3.8.10", "--python PATH")
    with pytest.raises(InstallFailed) as raised:
        install(device, "/nowhere/python3")
    one_line(raised.value, "/nowhere/python3 is not there")


def test_a_wrapper_is_kept_as_it_is_given(device: Device, server: Sshd) -> None:
    wrapper = server.home / "in-container"
    wrapper.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    wrapper.chmod(0o700)
    assert install(device, str(wrapper)).device.python == str(wrapper)


def test_a_wrapper_that_prints_is_told(device: Device, server: Sshd) -> None:
    wrapper = server.home / "noisy"
    wrapper.write_text(f'#!/bin/sh\necho starting the container\nexec {sys.executable} "$@"\n')
    wrapper.chmod(0o700)
    done = install(device, str(wrapper))
    assert done.device.python == str(wrapper), "what it prints before the agent is passed over"


def test_a_runtime_that_cannot_be_installed_there_is_told_with_the_way_out(
    device: Device, server: Sshd
) -> None:
    wrapper = server.home / "offline"
    wrapper.write_text(
        f'#!/bin/sh\nexport PIP_NO_INDEX=1 PIP_CONFIG_FILE=/dev/null\nexec {sys.executable} "$@"\n'
    )
    wrapper.chmod(0o700)
    with pytest.raises(InstallFailed) as raised:
        install(device, str(wrapper), with_runtime=True)
    one_line(raised.value, "onnxruntime was not installed there", "No matching distribution")
    one_line(raised.value, "copy the wheels there")
    assert (server.home / "fusion-nas-venv/bin/python").exists()


STRANGE = {
    "an object": '{"a": 1}',
    "a text for the version": '[["3.11", 2, 3], "/usr/bin/python3", "/home/u"]',
    "a short version": '[[3], "/usr/bin/python3", "/home/u"]',
    "a relative Python": '[[3, 11, 2], "python3", "/home/u"]',
    "no Python": '[[3, 11, 2], null, "/home/u"]',
    "a relative home": '[[3, 11, 2], "/usr/bin/python3", "~"]',
    "depth": "[" * 3000 + "]" * 3000,
    "no JSON": "[[3, 11, 2]",
    "bytes": "\\xff",
    "control characters": '[[3, 11, 2], "/usr/bin/\\\\u001b[31m", "/home/u"]',
}


@pytest.mark.parametrize("what", STRANGE)
def test_a_device_that_answers_nonsense_is_told_in_one_line(
    device: Device, tmp_path: Path, what: str
) -> None:
    odd = tmp_path / "python3"
    said = STRANGE[what]
    odd.write_text(
        f"#!{sys.executable}\n"
        "import re, sys\n"
        "mark = re.findall(rb'[0-9a-f]{32}', sys.stdin.buffer.read())[-1]\n"
        f"said = '''{said}'''.encode('latin-1')\n"
        "sys.stdout.buffer.write(mark + said + mark)\n"
    )
    odd.chmod(0o700)
    with pytest.raises(InstallFailed) as raised:
        install(device, str(odd))
    one_line(raised.value, "--python PATH")
    assert str(raised.value).isprintable() and len(str(raised.value)) < 1000


@pytest.mark.parametrize("host", ["a..b", "a" * 64 + ".local", ".a"])
def test_a_host_that_can_be_no_name_is_told_in_one_line(device: Device, host: str) -> None:
    with pytest.raises((DeviceLost, DevicesError)) as raised:
        connect(replace(parse_device("orin", f"ssh://u@{host}"), host_key=device.host_key))
    assert "\n" not in str(raised.value) and "orin" in str(raised.value)


def test_an_agent_that_cannot_be_stored_is_told(server: Sshd, device: Device) -> None:
    (server.home / ".fusion-nas").write_text("a file where a folder has to be")
    with pytest.raises(InstallFailed) as raised:
        install(device, sys.executable)
    one_line(raised.value, "cannot be stored there")


def test_a_device_without_the_agent_says_how_to_install_it(device: Device) -> None:
    with (
        pytest.raises(DeviceLost, match="fusion-nas device install orin"),
        open_ssh_device(replace(device, python=sys.executable, agent="/nowhere/a/b.pyz")) as client,
    ):
        client.hello()
    with (
        pytest.raises(DeviceLost, match=r"fusion-nas device install orin[\s\S]*no such Python"),
        open_ssh_device(replace(device, python="/nowhere/python3")) as client,
    ):
        client.hello()


@pytest.fixture
def restricted(server: Sshd, device: Device) -> Device:
    """A device whose key may only run the agent."""
    done = install(device, sys.executable)
    assert done.authorized_keys_line.startswith('restrict,command="')
    server.authorized_keys.write_text(done.authorized_keys_line + "\n")
    return done.device


def test_the_line_holds_for_paths_that_have_to_be_quoted(
    server: Sshd, device: Device, tmp_path: Path
) -> None:
    folder = tmp_path / 'it\'s "a" Python'
    folder.mkdir()
    python = folder / "python3"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o700)
    given = replace(install(device, sys.executable).device, python=str(python))
    public = " ".join(server.key_file.with_suffix(".pub").read_text().split()[:2])
    server.authorized_keys.write_text(authorized_keys_line(public, agent_command(given)) + "\n")
    with open_ssh_device(given) as client:
        client.state()


def test_a_restricted_key_runs_the_agent(restricted: Device) -> None:
    with open_ssh_device(restricted) as client:
        client.state()
    elsewhere = replace(restricted, agent=None, python=None)
    with open_ssh_device(elsewhere) as client:
        client.state()


def test_a_restricted_key_runs_no_command_of_ours(
    server: Sshd, restricted: Device, tmp_path: Path
) -> None:
    link = connect(restricted)
    try:
        with pytest.raises(OnlyTheAgent):
            run_program(link, sys.executable, f"open({str(tmp_path / 'pwned')!r}, 'w')", [])
    finally:
        link.close()
    ssh = ["ssh", "-F", "none", "-i", str(server.key_file), "-p", str(server.port)]
    ssh += ["-o", "StrictHostKeyChecking=no", "-o", f"UserKnownHostsFile={tmp_path / 'known'}"]
    ssh += [f"{server.user}@{server.host}", f"touch {tmp_path / 'pwned'}"]
    done = subprocess.run(ssh, stdin=subprocess.DEVNULL, capture_output=True, timeout=60)
    assert b"fusion-nas agent" in done.stdout
    assert not (tmp_path / "pwned").exists()


def test_a_restricted_key_gets_no_sftp_no_forwarding_and_no_terminal(restricted: Device) -> None:
    link = connect(restricted)
    try:
        with pytest.raises((paramiko.SSHException, paramiko.SFTPError, EOFError)):
            paramiko.SFTPClient.from_transport(link.transport).listdir("/")
        ways = (("127.0.0.1", restricted.port), ("127.0.0.1", 0))
        with pytest.raises(paramiko.ChannelException, match="rohibited"):
            link.transport.open_channel("direct-tcpip", *ways)
        with pytest.raises(paramiko.SSHException):
            link.transport.request_port_forward("127.0.0.1", 0)
        with link.transport.open_session() as channel, pytest.raises(paramiko.SSHException):
            channel.get_pty()
    finally:
        link.close()


def test_without_the_restriction_all_of_these_are_had(device: Device) -> None:
    link = connect(device)
    try:
        assert paramiko.SFTPClient.from_transport(link.transport).listdir("/")
        ways = (("127.0.0.1", device.port), ("127.0.0.1", 0))
        link.transport.open_channel("direct-tcpip", *ways).close()
        assert link.transport.request_port_forward("127.0.0.1", 0)
    finally:
        link.close()


def test_install_with_a_restricted_key_says_that_it_may_only_run_the_agent(
    server: Sshd, restricted: Device, tmp_path: Path
) -> None:
    with pytest.raises(InstallFailed) as raised:
        install(restricted)
    one_line(raised.value, "may only run the agent", "--key FILE")
    other = make_key(tmp_path / "admin")
    with open(server.authorized_keys, "a") as file:
        file.write(other.with_suffix(".pub").read_text())
    done = install(restricted, sys.executable, str(other))
    own = server.key_file.with_suffix(".pub").read_text().split()[1]
    assert own in done.authorized_keys_line, "the line is for the device's own key"
