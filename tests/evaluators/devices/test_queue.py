"""The queue of each board: who holds it, who waits, and boards that cannot be asked."""

import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from device_agent.bundle import zipapp
from evaluators.devices.client import DeviceClient, DeviceError, LocalTransport, open_local_device
from evaluators.devices.queue import queues
from evaluators.devices.registry import Device, Devices, DevicesError, parse_device
from evaluators.devices.ssh.link import open_ssh_device

HANDLED = '            if frame.kind == "queue":\n'


def agent(home: Path, file: Path, client: str) -> DeviceClient:
    command = [sys.executable, "-I", str(file), "serve", "--home", str(home)]
    return DeviceClient(LocalTransport(command, None), name="old", client=client)


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Callable[[str], DeviceClient]]:
    clients: list[DeviceClient] = []

    def open_as(client: str) -> DeviceClient:
        made = open_local_device(tmp_path / "home")
        made._client = client
        clients.append(made)
        return made

    yield open_as
    for client in clients:
        client._end("the test is over")  # some wait in threads of their own


def waits(client: DeviceClient) -> threading.Thread:
    def hello() -> None:
        with suppress(DeviceError):  # it is closed while it waits
            client.hello()

    thread = threading.Thread(target=hello, daemon=True)
    thread.start()
    return thread


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_queue_names_holder_and_clients_in_their_order(
    opened: Callable[[str], DeviceClient],
) -> None:
    free = opened("who asks").queue()
    assert (free.holder, free.busy_s, free.waiting) == (None, None, ())
    first, second, third = (opened(name) for name in ("ann at a", "bob at b", "cid at c"))
    first.hello()
    for client, count in ((second, 1), (third, 2)):
        waits(client)
        until(lambda count=count: len(opened("looks").queue().waiting) == count)
    found = opened("looks again").queue()
    assert found.holder == "ann at a" and found.waiting == ("bob at b", "cid at c")
    assert found.busy_s is not None and found.busy_s >= 0
    first.close()
    until(lambda: opened("looks on").queue().holder == "bob at b")


def test_boards_that_cannot_be_asked_are_named_beside_the_others(
    opened: Callable[[str], DeviceClient], tmp_path: Path
) -> None:
    old = tmp_path / "old.pyz"
    (tmp_path / "new.pyz").write_bytes(zipapp())
    with zipfile.ZipFile(tmp_path / "new.pyz") as new, zipfile.ZipFile(old, "w") as written:
        for name in new.namelist():
            text = new.read(name)
            if name == "device_agent/session.py":
                assert HANDLED.encode() in text
                text = text.replace(HANDLED.encode(), HANDLED.replace("queue", "-").encode())
            written.writestr(name, text)

    def open_board(device: Device) -> DeviceClient:
        if device.name == "gone":
            return open_ssh_device(device)
        if device.name == "old":
            return agent(tmp_path / "old", old, "me")
        return opened("me")

    opened("ann at a").hello()
    (tmp_path / "old").mkdir()
    boards = [
        parse_device("orin", "ssh://me@localhost", tags=("board",)),
        parse_device("gone", "ssh://me@127.0.0.1:1"),
        parse_device("old", "ssh://me@localhost"),
    ]
    busy, gone, out_of_date = queues(boards, open_board)
    assert busy.state == "busy" and busy.holder == "ann at a" and busy.tags == ("board",)
    assert gone.state == "unreachable" and "does an SSH server listen there?" in gone.reason
    assert out_of_date.state == "unknown" and "an old agent" in out_of_date.reason
    ((name, text),) = busy.lines()
    assert name == "orin" and text.startswith("busy for ") and text.endswith("held by ann at a")
    assert busy.as_json()["waiting"] == [] and gone.as_json()["holder"] is None


def test_tags_name_the_boards_that_share_them(tmp_path: Path) -> None:
    known = Devices(tmp_path / "devices.json")
    for name in ("orin-1", "orin-2"):
        known.add(parse_device(name, "ssh://me@host", tags=("orin",)))
    known.add(parse_device("nano", "ssh://me@host"))
    assert [device.name for device in known.named("orin")] == ["orin-1", "orin-2"]
    assert [device.name for device in known.named("nano")] == ["nano"]
    assert known.tag("orin-2", ["spare", "spare"]).tags == ("spare",)
    assert [device.name for device in known.named("orin")] == ["orin-1"]
    with pytest.raises(DevicesError, match="tags are orin, spare"):
        known.named("xavier")
    with pytest.raises(DevicesError, match="tag 'nano' is the name of a device"):
        known.tag("orin-1", ["nano"])
    with pytest.raises(DevicesError, match="tag 'orin' is the name of a device"):
        known.add(parse_device("orin", "ssh://me@host"))


def test_devices_without_tags_are_written_as_earlier_versions_read_them(tmp_path: Path) -> None:
    known = Devices(tmp_path / "devices.json")
    known.add(parse_device("orin", "ssh://me@host"))
    assert "tags" not in (tmp_path / "devices.json").read_text("utf-8")
    known.tag("orin", ["board"])
    assert Devices(tmp_path / "devices.json").get("orin").tags == ("board",)
    known.tag("orin", [])
    assert "tags" not in (tmp_path / "devices.json").read_text("utf-8")
