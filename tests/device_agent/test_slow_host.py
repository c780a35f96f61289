"""A host that dribbles or keeps asking loses the device: a message and a lease have an end."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from device_agent.agent import Agent
from device_agent.board.description import DeviceInfo
from device_agent.board.state import Board
from device_agent.session import HostSession
from device_agent.storage.lease import Queue
from device_agent.storage.store import Store
from device_agent.wire import frames as wire
from device_agent.wire.frames import TornFrame
from device_agent.wire.streams import HostGone, HostReader, HostWriter


class Pipe:
    """A pipe, and a thread that feeds or drains it a byte at a time until the test ends."""

    def __init__(self, feeds: bool) -> None:
        self.read, self.write = os.pipe()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._feed if feeds else self._drain)
        self._thread.start()

    def _feed(self) -> None:
        while not self._over.wait(0.02):
            os.write(self.write, b"0")

    def _drain(self) -> None:
        while not self._over.wait(0.02):
            os.read(self.read, 4096)

    def close(self) -> None:
        self._over.set()
        self._thread.join()
        os.close(self.read)
        os.close(self.write)


@pytest.fixture
def fed() -> Iterator[Pipe]:
    pipe = Pipe(feeds=True)
    yield pipe
    pipe.close()


@pytest.fixture
def drained() -> Iterator[Pipe]:
    pipe = Pipe(feeds=False)
    yield pipe
    pipe.close()


def test_a_message_that_comes_byte_by_byte_ends_at_its_deadline(fed: Pipe) -> None:
    reader = HostReader(fed.read, stall_s=5.0)
    reader.begin(0.2)
    with pytest.raises(TornFrame, match=r"over 0\.2 s for one message"):
        wire.read_exactly(reader, 2**20)
    assert reader.ready(1.0), "the host still sends"


def test_an_answer_that_is_taken_too_slowly_ends_at_its_deadline(drained: Pipe) -> None:
    writer = HostWriter(drained.write, stall_s=5.0)
    writer.begin(0.2)
    with pytest.raises(HostGone, match=r"over 0\.2 s to take one message"):
        wire.send_bytes(writer, bytes(2**22))


def test_a_silent_host_is_still_given_up_sooner(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    reader = HostReader(reading, stall_s=0.05)
    reader.begin(60.0)
    with pytest.raises(TornFrame, match=r"sent nothing for 0\.05 s"):
        reader.read(1)
    os.close(reading)
    os.close(writing)


def converse(home: Path, ask: bytes, asks: int, others_wait: bool) -> list[str]:
    """The kinds and codes of what a host hears that asks again and again, its lease at an end."""
    store, queue = Store(home, 100), Queue(home)
    (reading, writing), (hearing, saying) = os.pipe(), os.pipe()
    hello = wire.encode({"kind": "hello", "versions": list(wire.VERSIONS), "client": "slow"})
    os.write(writing, hello + ask * asks + wire.encode({"kind": "bye"}))
    session = HostSession(
        store, queue, HostReader(reading), HostWriter(saying), 2**20, idle_s=60.0, lease_s=-1.0
    )
    queue.others_wait = lambda: others_wait  # type: ignore[method-assign]
    session.serve()
    os.close(saying)
    heard = []
    with os.fdopen(hearing, "rb") as stream:
        while (frame := wire.receive(stream)) is not None:
            heard.append(str(frame.control.get("code", frame.kind)))
    os.close(reading)
    os.close(writing)
    return heard


def test_a_host_that_asks_without_a_job_gives_way_when_its_lease_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = DeviceInfo(Board(), (), "3.10.12", max_upload_bytes=2**20)
    monkeypatch.setattr(Agent, "info", lambda agent: said)  # which starts no process to look
    state = wire.encode({"kind": "have", "sha256s": []})
    assert converse(tmp_path, state, 3, others_wait=True) == ["gave-way"]
    alone = converse(tmp_path, state, 3, others_wait=False)
    assert alone == ["hello", "missing", "missing", "missing", "bye"]
