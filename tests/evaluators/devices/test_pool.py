"""Several alike devices as one; here each is an agent on this machine with a home of its own."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from device_requests import network, request
from faulty import within

from device_agent.wire.request import MeasureResult, Status, job_id_of
from evaluators.devices.client import DeviceClient, DeviceError, DeviceLost, open_local_device
from evaluators.devices.link import LocalTransport
from evaluators.devices.pool import DeviceAway, DevicePool, DevicesDiffer, WrongAgent

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


class Boards:
    """Two boards, and what happens to them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.away: set[str] = set()
        self.opened: list[str] = []
        self.waited_for: list[str] = []
        self.pids: dict[str, int] = {}
        self.clients: dict[str, DeviceClient] = {}

    def open(self, name: str) -> DeviceClient:
        self.opened.append(name)
        if name in self.away:
            raise DeviceLost(f"{name} is off")
        client = open_local_device(self.folder / name)
        transport = client._transport
        assert isinstance(transport, LocalTransport)
        self.pids[name], self.clients[name] = transport.pid, client
        client.name = name
        return client

    def pool(self, *names: str, idle_s: float = 60.0, patience_s: float = 0.0) -> DevicePool:
        openers: dict[str, Callable[[], DeviceClient]] = {n: partial(self.open, n) for n in names}
        locks = self.folder / "locks"
        return DevicePool(openers, locks, self.waited_for.append, idle_s, patience_s)


@pytest.fixture
def boards(tmp_path: Path) -> Iterator[Boards]:
    found = Boards(tmp_path / "boards")
    yield found
    for client in found.clients.values():
        client.close()


def is_free(boards: Boards, name: str) -> bool:
    other = boards.pool(name)
    other.close()
    return True


def test_a_design_is_timed_on_the_first_board(boards: Boards, tmp_path: Path) -> None:
    pool = boards.pool("a", "b")
    artifact = network(tmp_path / "abs.onnx")
    assert pool.measure(artifact, request(artifact)).status is Status.OK
    assert pool.name == "a"
    assert boards.opened == ["b", "a"], "each is looked at once, and one stays open"
    pool.close()


def test_two_workers_use_two_boards(boards: Boards, tmp_path: Path) -> None:
    artifact = network(tmp_path / "abs.onnx")
    one = boards.pool("a", "b", idle_s=0.0)
    assert within(10, lambda: one._client is None)
    other = boards.pool("a", "b", idle_s=0.0)
    assert within(10, lambda: other._client is None)
    one._idle_s = other._idle_s = 60.0
    for pool in (one, other):
        pool.measure(artifact, request(artifact))
    assert {one.name, other.name} == {"a", "b"}
    one.close()
    other.close()


def test_a_board_that_is_idle_is_let_go_for_others(boards: Boards, tmp_path: Path) -> None:
    artifact = network(tmp_path / "abs.onnx")
    one = boards.pool("a", idle_s=0.1)
    one.measure(artifact, request(artifact))
    other = boards.pool("a")  # waits until it is free
    other.measure(artifact, request(artifact))
    other.close()
    assert one.measure(artifact, request(artifact)).status is Status.OK
    one.close()


def test_who_waits_for_a_board_is_told_and_has_it_before_the_next_design(
    boards: Boards, tmp_path: Path
) -> None:
    artifact = network(tmp_path / "abs.onnx")
    one, turns, ended = boards.pool("a"), list[str](), threading.Event()

    def measures_on() -> None:
        while not ended.is_set():
            one.measure(artifact, request(artifact))
            turns.append("one")

    busy = threading.Thread(target=measures_on)
    busy.start()
    try:
        assert within(20, lambda: turns)
        other = boards.pool("a")
        began = len(turns)
        for _ in range(3):
            other.measure(artifact, request(artifact))
            turns.append("other")
        other.close()
    finally:
        ended.set()
        busy.join(30)
        one.close()
    assert turns[began:].index("other") <= 1, turns
    assert turns.count("other") == 3
    assert "waiting for a: another run here has it" in boards.waited_for


def test_a_board_that_is_kept_for_a_next_design_is_let_go_for_who_waits(
    boards: Boards, tmp_path: Path
) -> None:
    artifact = network(tmp_path / "abs.onnx")
    one = boards.pool("a", idle_s=1e6)
    one.measure(artifact, request(artifact))
    assert one._client is not None
    other = boards.pool("a")
    assert one._client is None
    other.close()


def test_a_board_that_a_design_was_sent_to_is_waited_for_before_another_gets_it(
    boards: Boards, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evaluators.devices.pool.TRY_EVERY_S", 0.1)
    artifact = network(tmp_path / "abs.onnx")
    pool, job = boards.pool("a", "b"), job_id_of(request(artifact))
    client = boards.clients["a"]
    done: list[MeasureResult] = []

    def lost_before_it_is_heard(*given: Any, **named: Any) -> MeasureResult:
        done.append(DeviceClient.measure(client, *given, **named))
        boards.away.add("a")
        raise DeviceLost("the link broke before the result came")

    monkeypatch.setattr(client, "measure", lost_before_it_is_heard)
    with pytest.raises(DeviceLost):
        pool.measure(artifact, request(artifact), job_id=job)
    tried = len(boards.opened)

    def back(text: str) -> None:
        if len(boards.opened) > tried + 3:
            boards.away.clear()

    pool._waiting = back
    assert pool.measure(artifact, request(artifact), job_id=job) == done[0]
    assert pool.name == "a"
    pool.close()


def test_a_board_that_stays_away_with_a_design_is_left_for_another(
    boards: Boards, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evaluators.devices.pool.TRY_EVERY_S", 0.1)
    monkeypatch.setattr("evaluators.devices.pool.SAME_BOARD_S", 0.3)
    artifact = network(tmp_path / "abs.onnx")
    pool, job = boards.pool("a", "b"), job_id_of(request(artifact))
    os.kill(boards.pids["a"], signal.SIGKILL)
    boards.away.add("a")
    with pytest.raises(DeviceLost):
        pool.measure(artifact, request(artifact), job_id=job)
    assert pool.measure(artifact, request(artifact), job_id=job).status is Status.OK
    assert pool.name == "b"
    assert "its design goes to another board" in boards.waited_for[-1]
    pool.close()


def test_a_board_that_is_lost_is_left_for_the_other(boards: Boards, tmp_path: Path) -> None:
    artifact = network(tmp_path / "abs.onnx")
    pool = boards.pool("a", "b")
    os.kill(boards.pids["a"], signal.SIGKILL)
    boards.away.add("a")
    with pytest.raises(DeviceLost):
        pool.measure(artifact, request(artifact))
    assert pool.measure(artifact, request(artifact)).status is Status.OK
    assert pool.name == "b"
    pool.close()


def test_a_result_of_a_lost_link_is_fetched_from_the_board_that_has_it(
    boards: Boards, tmp_path: Path
) -> None:
    artifact = network(tmp_path / "abs.onnx")
    pool, job = boards.pool("a", "b"), job_id_of(request(artifact))
    first = pool.measure(artifact, request(artifact), job_id=job)
    pool.close()
    assert pool.measure(artifact, request(artifact), job_id=job) == first
    assert pool.name == "a"
    pool.forget([], [job])
    assert pool.measure(artifact, request(artifact), job_id=job) != first
    pool.close()


def test_what_is_to_be_forgotten_is_so_when_the_board_is_open_again(
    boards: Boards, tmp_path: Path
) -> None:
    artifact = network(tmp_path / "abs.onnx")
    pool = boards.pool("a")
    pool.measure(artifact, request(artifact))
    held = boards.folder / "a" / "artifacts"
    assert len(list(held.iterdir())) == 1
    pool.close()
    boards.away.add("a")
    pool.forget([request(artifact).artifact_sha256])
    assert len(list(held.iterdir())) == 1
    boards.away.clear()
    pool.forget()
    assert list(held.iterdir()) == []
    pool.close()


def test_a_cut_between_opening_and_forgetting_leaves_the_board_free(
    boards: Boards, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evaluators.devices.pool.TRY_EVERY_S", 0.1)
    artifact = network(tmp_path / "abs.onnx")
    pool = boards.pool("a", patience_s=60.0)
    pool.close()
    boards.away.add("a")
    pool.forget([request(artifact).artifact_sha256])
    boards.away.clear()
    cut: list[DeviceClient] = []

    def cut_once() -> DeviceClient:
        client = boards.open("a")
        if not cut:
            client.hello()
            os.kill(boards.pids["a"], signal.SIGKILL)
            cut.append(client)
        return client

    pool._openers = {"a": cut_once}
    assert pool.measure(artifact, request(artifact)).status is Status.OK
    assert cut[0]._ended
    pool.close()
    assert not pool._locks["a"].is_locked
    assert is_free(boards, "a")


def test_the_only_board_is_waited_for(
    boards: Boards, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evaluators.devices.pool.TRY_EVERY_S", 0.1)
    artifact = network(tmp_path / "abs.onnx")
    pool = boards.pool("a", patience_s=60.0)
    pool.close()
    boards.away.add("a")
    tried = len(boards.opened)

    def back(text: str) -> None:
        boards.waited_for.append(text)
        if len(boards.opened) > tried + 3:
            boards.away.clear()

    pool._waiting = back
    assert pool.measure(artifact, request(artifact)).status is Status.OK
    assert "a is off" in boards.waited_for[0]
    pool.close()


def test_a_board_that_stays_away_is_an_error(boards: Boards, tmp_path: Path) -> None:
    artifact = network(tmp_path / "abs.onnx")
    boards.away.add("b")
    with pytest.raises(DeviceLost, match="b is off"):
        boards.pool("a", "b")
    boards.away.clear()
    pool = boards.pool("a", "b")
    pool.close()
    boards.away |= {"a", "b"}
    with pytest.raises(DeviceLost, match="is off"):
        pool.measure(artifact, request(artifact))


def test_a_board_that_does_not_come_back_in_time_needs_a_person(
    boards: Boards, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evaluators.devices.pool.TRY_EVERY_S", 0.1)
    artifact = network(tmp_path / "abs.onnx")
    pool = boards.pool("a", patience_s=0.3)
    pool.close()
    boards.away.add("a")
    with pytest.raises(DeviceAway, match=r"no device came back in 0.3 s.*a is off"):
        pool.measure(artifact, request(artifact))


def changed(boards: Boards, **fields: object) -> Callable[[], DeviceClient]:
    """A board that says something else of itself."""

    def open_changed() -> DeviceClient:
        client = boards.open("b")
        client._info = replace(client.hello(), **fields)  # type: ignore[arg-type]
        return client

    return open_changed


def test_unlike_boards_are_refused_and_the_difference_is_named(boards: Boards) -> None:
    version = ".".join(map(str, sys.version_info[:2]))
    openers = {"a": partial(boards.open, "a"), "b": changed(boards, python="3.9.1")}
    with pytest.raises(DevicesDiffer) as raised:
        DevicePool(openers, boards.folder / "locks", boards.waited_for.append)
    assert f"python '3.9' and '{version}'" in str(raised.value)
    assert is_free(boards, "a")


def test_a_board_that_is_changed_in_the_middle_is_refused(boards: Boards, tmp_path: Path) -> None:
    artifact = network(tmp_path / "abs.onnx")
    pool = boards.pool("a")
    board = replace(pool.hello().board, power_mode="pmode:0002 15W")
    pool.close()
    pool._openers = {"a": changed(boards, board=board)}
    with pytest.raises(DevicesDiffer, match=r"power_mode None and 'pmode:0002 15W'"):
        pool.measure(artifact, request(artifact))


def test_an_agent_of_another_version_is_refused(boards: Boards) -> None:
    openers = {"b": changed(boards, agent_sha256="0" * 64)}
    with pytest.raises(WrongAgent, match="fusion-nas device install b") as raised:
        DevicePool(openers, boards.folder / "locks", boards.waited_for.append)
    assert isinstance(raised.value, DeviceError)
    assert is_free(boards, "b")
