"""`fusion-nas device` as users run it, against a real OpenSSH server."""

import os
import pty
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import sshd
from desk import Desk, one_line
from sshd import start_sshd
from tiny import new_place

from evaluators.devices.registry import Devices
from evaluators.devices.ssh.link import open_ssh_device
from search_space import errors as codes

pytestmark = pytest.mark.skipif(bool(sshd.missing()), reason=sshd.missing())


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with start_sshd(tmp_path / "server") as server:
        yield Desk(new_place(tmp_path / "place", COLUMNS="80"), server)


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys\nfrom studies.cli.app import main\n"
        "sys.argv = ['fusion-nas', 'device', '--help']\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert end.code == 0\n"
        "heavy = {'torch', 'optuna', 'paramiko', 'numpy', 'cryptography'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for command in ("add", "list", "remove", "trust", "install", "check"):
        assert command in done.stdout


def test_a_board_is_added_listed_and_removed(desk: Desk) -> None:
    added = desk.device("add", "orin", desk.url)
    assert added.returncode == 0
    assert added.stdout.endswith("Next: fusion-nas device trust orin\n")
    listed = desk.device("list").stdout
    assert f"orin: {desk.url}" in listed and "not trusted yet" in listed and "local" in listed
    one_line(desk.device("add", "orin", desk.url), codes.USAGE, "'orin' is there already")
    assert desk.device("remove", "orin").returncode == 0
    assert "orin" not in desk.device("list").stdout
    one_line(desk.device("remove", "orin"), codes.USAGE, "no device 'orin'", "none yet")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("add", "orin", "orin.local"), ("orin: orin.local", "ssh://USER@HOST")),
        (("add", "orin", "ssh://a:b@orin.local"), ("password", "only keys")),
        (("add", "local", "ssh://a@b"), ("'local'", "this machine")),
        (("add", "a/b", "ssh://a@b"), ("'a/b'", "letters, digits")),
        (("add", "orin", "ssh://a@b", "--key", "nowhere"), ("--key nowhere", "no such file")),
        (("add", "orin"), ("'url'", "--help")),
        (("check", "nano"), ("no device 'nano'", "device add")),
        (("trust", "nano"), ("no device 'nano'", "device add")),
        (("install", "nano"), ("no device 'nano'", "device add")),
    ],
)
def test_what_cannot_be_meant_is_one_line(
    desk: Desk, arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    one_line(desk.device(*arguments), codes.USAGE, *words)


def test_a_damaged_file_of_devices_is_one_line(desk: Desk) -> None:
    desk.add()
    (desk.place.home / "devices.json").write_text("{")
    one_line(desk.device("list"), codes.USAGE, "devices.json", "not JSON", "correct it")


def test_trust_shows_the_fingerprint_and_asks(desk: Desk) -> None:
    desk.device("add", "orin", desk.url, "--key", str(desk.server.key_file))
    refused = desk.device("trust", "orin")
    assert refused.returncode == codes.USAGE
    assert refused.stderr.splitlines()[-1].endswith("give --yes")
    assert '"host_key": null' in (desk.place.home / "devices.json").read_text()
    trusted = desk.device("trust", "orin", "--yes")
    assert trusted.returncode == 0
    printed = subprocess.run(
        ["ssh-keygen", "-lf", "-"], input=desk.server.host_key, capture_output=True, text=True
    ).stdout.split()
    for done in (refused, trusted):
        assert f"{printed[0]} {printed[1]} {printed[-1]}" in done.stdout
    again = desk.device("trust", "orin")
    assert again.returncode == 0 and "trusted already" in again.stdout


@pytest.mark.parametrize(
    ("answer", "code", "recorded"),
    [(b"y\n", 0, True), (b"\n", codes.DEVICE, False), (b"\x04", codes.DEVICE, False)],
    ids=["yes", "nothing", "end of input"],
)
def test_trust_is_asked_of_a_person_at_a_terminal(
    desk: Desk, answer: bytes, code: int, recorded: bool
) -> None:
    desk.device("add", "orin", desk.url, "--key", str(desk.server.key_file))
    ours, theirs = pty.openpty()
    try:
        asking = subprocess.Popen(
            desk.place.command("device", "trust", "orin"),
            cwd=desk.place.folder,
            env=desk.place.environment(),
            stdin=theirs,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        os.write(ours, answer)
        said, _ = asking.communicate(timeout=60)
    finally:
        os.close(ours)
        os.close(theirs)
    assert asking.returncode == code and b"Traceback" not in said
    assert b"to be trusted from now on? [y/N]" in said
    kept = (desk.place.home / "devices.json").read_text()
    assert (desk.server.host_key in kept) == recorded


def test_a_changed_host_key_has_its_own_exit_code_everywhere(desk: Desk) -> None:
    desk.add()
    desk.install()
    desk.server.change_host_key()
    for command in ("check", "install"):
        one_line(desk.device(command, "orin"), codes.HOST_KEY, "CHANGED", "trust orin --replace")
    run = desk.place.finish(desk.place.run("--trials", "1", "--device", "orin"))
    assert run.returncode == codes.HOST_KEY and "CHANGED" in run.stderr.splitlines()[-1]
    refused = desk.device("trust", "orin", "--yes")
    assert refused.returncode == codes.HOST_KEY
    assert "another host key was trusted before" in refused.stderr
    assert desk.device("trust", "orin", "--yes", "--replace").returncode == 0
    assert desk.device("check", "orin").returncode == 0


def test_install_prints_the_line_that_restricts_the_key(desk: Desk) -> None:
    desk.add()
    done = desk.install()
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("restrict,")]
    assert line.endswith(" ".join(desk.server.key_file.with_suffix(".pub").read_text().split()[:2]))
    (agent,) = desk.agents()
    assert str(agent) in line
    desk.server.authorized_keys.write_text(line + "\n")
    assert desk.device("check", "orin").returncode == 0
    one_line(desk.device("install", "orin"), codes.DEVICE, "may only run the agent", "--key FILE")


def test_check_says_what_is_wrong_and_how_to_mend_it(desk: Desk) -> None:
    desk.device("add", "orin", desk.url, "--key", str(desk.server.key_file))
    unknown = desk.device("check", "orin")
    assert unknown.returncode == codes.DEVICE
    assert "PROBLEM  host key" in unknown.stdout and "device trust orin" in unknown.stdout
    desk.device("trust", "orin", "--yes")
    missing = desk.device("check", "orin")
    assert missing.returncode == codes.DEVICE
    assert "PROBLEM  agent" in missing.stdout
    assert "-> fusion-nas device install orin" in missing.stdout
    desk.install()
    good = desk.device("check", "orin")
    assert good.returncode == 0, good.stdout
    for line in ("ok       agent", "ok       Python", "ok       onnxruntime", "ok       clock"):
        assert line in good.stdout
    assert max(map(len, good.stdout.splitlines())) <= 80
    desk.server.authorized_keys.write_text("")
    out = desk.device("check", "orin")
    assert out.returncode == codes.DEVICE
    assert "PROBLEM  log-in" in out.stdout and "authorized_keys" in out.stdout
    desk.server.stop()
    away = desk.device("check", "orin")
    assert away.returncode == codes.DEVICE and "PROBLEM  reachable" in away.stdout


def test_check_tells_an_agent_of_another_version(desk: Desk, tmp_path: Path) -> None:
    desk.add()
    desk.install()
    (agent,) = desk.agents()
    # The same agent with one more line: another file, which speaks as this one does.
    apart = tmp_path / "apart"
    shutil.unpack_archive(agent, apart, "zip")
    with open(apart / "device_agent" / "__init__.py", "a") as file:
        file.write("\n# of another version\n")
    shutil.make_archive(str(tmp_path / "other"), "zip", apart)
    agent.write_bytes((tmp_path / "other.zip").read_bytes())
    checked = desk.device("check", "orin")
    assert checked.returncode == codes.DEVICE
    assert "another version" in checked.stdout
    assert "-> fusion-nas device install orin" in checked.stdout
    run = desk.place.finish(desk.place.run("--trials", "1", "--device", "orin"))
    assert run.returncode == codes.DEVICE
    assert "another version" in run.stderr and "device install orin" in run.stderr
    desk.install()
    assert desk.device("check", "orin").returncode == 0


def test_check_waits_for_a_board_that_is_held_and_says_by_whom(desk: Desk) -> None:
    desk.add()
    desk.install()
    orin = Devices(desk.place.home / "devices.json").get("orin")
    checking = desk.place.command("device", "check", "orin")
    with open_ssh_device(orin) as holder:
        holder.hello()
        running = desk.place.start(checking)
        assert running.stdout is not None
        assert running.stdout.readline().startswith("waiting: held by ")
    said, errors = running.communicate(timeout=60)
    assert running.returncode == 0, errors
    assert "orin: ready" in said and "waiting" not in said


def test_check_of_this_machine(desk: Desk) -> None:
    done = desk.device("check", "local")
    assert done.returncode == 0, done.stdout
    assert "ok       onnxruntime" in done.stdout


def test_networks_are_compiled_by_the_check_of_this_machine_alone(desk: Desk) -> None:
    desk.device("add", "orin", desk.url)
    done = desk.place.finish(desk.place.command("device", "check", "orin", "--compile-tensorrt"))
    one_line(done, codes.USAGE, "--compile-tensorrt", "local")


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("nano",), ("no device 'nano'", "known are local", "orin")),
        (("orin", "orin"), ("give each device once",)),
        (("orin", "local"), ("'local' cannot share",)),
    ],
)
def test_devices_that_cannot_be_meant(
    desk: Desk, names: tuple[str, ...], words: tuple[str, ...]
) -> None:
    desk.device("add", "orin", desk.url)
    flags = [flag for name in names for flag in ("--device", name)]
    done = desk.place.finish(desk.place.run("--trials", "1", *flags))
    one_line(done, codes.USAGE, *words)
