"""A host that stands only in ~/.ssh/config is reached as OpenSSH would reach it."""

import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import sshd
from sshd import Sshd, start_sshd

from evaluators.devices.client import DeviceLost
from evaluators.devices.registry import Device
from evaluators.devices.ssh import config
from evaluators.devices.ssh.config import Route, route_to
from evaluators.devices.ssh.connect import connect
from evaluators.devices.ssh.install import install
from evaluators.devices.ssh.link import open_ssh_device

ORIN = Device("orin", "orin", 22, "jetson")


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(config, "CONFIG", tmp_path / "config")
    return tmp_path / "config"


def test_a_host_that_no_configuration_names_is_reached_as_it_is_called(file: Path) -> None:
    assert route_to(ORIN) == Route("orin", 22)
    file.write_text("Host nano\n  HostName 10.0.0.9\n")
    assert route_to(ORIN) == Route("orin", 22)


def test_address_port_and_keys_are_read_and_a_port_of_the_url_wins(file: Path) -> None:
    file.write_text("Host orin\n  HostName 10.0.0.7\n  Port 2222\n  IdentityFile /keys/orin\n")
    assert route_to(ORIN) == Route("10.0.0.7", 2222, "", (Path("/keys/orin"),))
    assert route_to(replace(ORIN, port=2022)).port == 2022


@pytest.mark.parametrize(
    ("jump", "ends"),
    [
        ("gate", "-W 10.0.0.7:22 gate"),
        ("me@gate:2200", "-W 10.0.0.7:22 -p 2200 me@gate"),
        ("first,second", "-W 10.0.0.7:22 -J first second"),
    ],
)
def test_a_jump_is_made_by_openssh(file: Path, jump: str, ends: str) -> None:
    file.write_text(f"Host orin\n  HostName 10.0.0.7\n  ProxyJump {jump}\n")
    assert route_to(ORIN).command.endswith(ends)


def test_a_proxy_of_none_is_no_proxy(file: Path) -> None:
    file.write_text("Host orin\n  ProxyJump none\n  ProxyCommand none\n")
    assert route_to(ORIN).command == ""


@pytest.mark.parametrize("text", ["Host orin\n  Port x\n", 'Host "orin\n'])
def test_a_configuration_that_cannot_be_used_is_named(file: Path, text: str) -> None:
    file.write_text(text)
    with pytest.raises(DeviceLost, match="orin: "):
        route_to(ORIN)


def test_a_folder_in_place_of_a_configuration_is_named(file: Path) -> None:
    file.mkdir()
    with pytest.raises(DeviceLost, match=r"config cannot be read .*Is a directory"):
        route_to(ORIN)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("  ProxyJump gate\nHost gate\n  HostName gate.invalid\n", "gate.invalid"),
        ("  ProxyJump me@127.0.0.1:1,gate\nHost gate\n  HostName gate.invalid\n", "."),
        ("  ProxyCommand sh -c 'echo the gate is shut >&2; exit 1'\n", r"\(the gate is shut\)"),
    ],
)
def test_a_way_that_leads_nowhere_is_named_with_what_its_command_said(
    file: Path, text: str, said: str
) -> None:
    if shutil.which("ssh") is None:
        pytest.skip("needs the command ssh")
    file.write_text(f"Host orin\n  HostName 127.0.0.1\n{text}")
    file.chmod(0o600)
    with pytest.raises(DeviceLost, match=f"not reached through .*{said}.*try that command"):
        connect(ORIN)


def test_a_proxy_command_that_is_not_there_is_named(file: Path) -> None:
    file.write_text("Host orin\n  ProxyCommand nothing-of-this-name %h\n")
    with pytest.raises(DeviceLost, match="cannot be reached by `nothing-of-this-name orin`"):
        connect(ORIN)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Sshd]:
    if sshd.missing():
        pytest.skip(sshd.missing())
    with start_sshd(tmp_path / "server") as running:
        yield running


def test_an_agent_is_installed_and_asked_through_a_jump(server: Sshd, file: Path) -> None:
    file.write_text(
        f"Host gate\n  HostName {server.host}\n  Port {server.port}\n  User {server.user}\n"
        f"  IdentityFile {server.key_file}\n  StrictHostKeyChecking no\n"
        "  UserKnownHostsFile /dev/null\n"
        f"Host orin\n  HostName {server.host}\n  Port {server.port}\n  ProxyJump gate\n"
        f"  IdentityFile {server.key_file}\n"
    )
    file.chmod(0o600)
    device = Device("orin", "orin", 22, server.user, None, server.host_key)
    link = connect(device)
    link.close()
    with open_ssh_device(install(device, sys.executable).device) as client:
        assert client.hello().python
