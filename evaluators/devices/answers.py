"""What an agent's answers hold; each of these raises `ProtocolError` where one is not valid."""

from dataclasses import dataclass
from typing import Any

from device_agent.board.description import DeviceState
from device_agent.checks import (
    as_tuple,
    check_choice,
    check_int,
    check_known,
    check_real,
    check_text,
    take,
)
from device_agent.storage.lease import MAX_CLIENT
from device_agent.wire import frames as wire
from device_agent.wire.request import DeviceInfo, MeasureResult


def waiting_of(answer: dict[str, Any]) -> tuple[str, int]:
    """Say in words who has the device, with the place in the queue; and that place."""
    found = take("waiting", answer, ("kind", "holder", "place"))
    check_text("waiting: holder", found["holder"], MAX_CLIENT)
    check_int("waiting: place", found["place"], 1, 2**31)
    place: int = found["place"]
    return f"held by {found['holder']}; this client is number {place} in the queue", place


@dataclass(frozen=True)
class QueueAnswer:
    """Who has a device, for how many seconds, and who waits for it, the next one first."""

    holder: str | None
    busy_s: float | None
    waiting: tuple[str, ...]


def queue_of(answer: dict[str, Any]) -> QueueAnswer:
    """Who has the device, and who waits for it."""
    found = take("queue", answer, ("kind", "holder", "busy_s", "waiting"))
    check_known(check_text, "queue: holder", found["holder"], MAX_CLIENT)
    check_known(check_real, "queue: busy_s", found["busy_s"], 0.0, 1e12)
    waiting = as_tuple("queue: waiting", found["waiting"])
    for client in waiting:
        check_text("queue: a client", client, MAX_CLIENT)
    return QueueAnswer(found["holder"], found["busy_s"], waiting)


def info_of(answer: dict[str, Any]) -> DeviceInfo:
    """What the agent says of its device."""
    found = take("hello", answer, ("kind", "version", "info"))
    check_int("hello: version", found["version"], *wire.VERSIONS)
    return DeviceInfo.from_json(found["info"])


def state_of(answer: dict[str, Any]) -> DeviceState:
    """The state that the device is in."""
    return DeviceState.from_json(take("state", answer, ("kind", "state"))["state"])


def missing_of(answer: dict[str, Any]) -> tuple[str, ...]:
    """The artifacts that the device lacks."""
    return as_tuple("missing: sha256s", take("missing", answer, ("kind", "sha256s"))["sha256s"])


def result_of(answer: dict[str, Any], job_id: str) -> MeasureResult | None:
    """What came of a job; None when nothing did."""
    found = take("result", answer, ("kind", "job_id", "result", "fetched"))
    check_choice("result: job_id", found["job_id"], (job_id,))
    return None if found["result"] is None else MeasureResult.from_json(found["result"])
