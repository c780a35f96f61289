"""A reading stands for the board that the host was told of, or it is none."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from faulty import network, request

from device_agent import agent as agents
from device_agent.agent import Agent
from device_agent.board.state import read_board
from device_agent.storage.store import Store
from device_agent.wire.frames import Frame
from device_agent.wire.streams import HostReader

pytest.importorskip("onnxruntime")


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    """An agent in this process, whose host says nothing of itself."""
    reading, writing = os.pipe()
    device = os.open(tmp_path, os.O_RDONLY)
    store = Store(tmp_path / "home", 100)
    yield Agent(store, HostReader(reading), device, 2**20)
    for descriptor in (reading, writing, device):
        os.close(descriptor)


def measured(agent: Agent, artifact: Path) -> dict[str, Any]:
    asked = request(artifact)
    store = agent._store
    store.receive(asked.artifact_sha256, artifact.stat().st_size, [artifact.read_bytes()])
    control = {"kind": "measure", "job_id": "ab" * 32, "request": asked.as_json()}
    result: Any = agent.answer(Frame(control))["result"]
    return dict(result)


def test_a_mode_that_changed_while_the_link_was_open_is_an_error_in_words(
    agent: Agent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = network(tmp_path / "n.onnx")
    said = agent.info().board
    with monkeypatch.context() as patch:
        patch.setattr(agents, "read_board", lambda: replace(said, power_mode="15W"))
        result = measured(agent, artifact)
    assert result["status"] == "error" and "power_mode None and '15W'" in result["reason"]
    assert read_board().power_mode is None, "this machine has no power modes"
    assert measured(agent, artifact)["status"] == "ok", "set back, it is measured again"
