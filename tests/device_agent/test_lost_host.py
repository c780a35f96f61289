"""An agent that hangs, dies or babbles never holds its host up, and what it printed is shown."""

import sys
from pathlib import Path

import pytest

from device_agent.board.description import DeviceInfo
from device_agent.board.state import Board
from device_agent.wire import frames as wire
from device_agent.wire.request import MeasureRequest
from evaluators.devices.client import DeviceClient, DeviceLost, DeviceTimeout, LocalTransport


def script(code: str) -> LocalTransport:
    speak = f"import sys, time; say = sys.stdout.buffer; say.write({wire.MAGIC!r}); say.flush()"
    return LocalTransport([sys.executable, "-c", f"{speak}\n{code}"])


def test_an_agent_that_says_nothing_is_given_up_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evaluators.devices.client.HELLO_DEADLINE_S", 1.5)
    transport = script("print('pondering', file=sys.stderr, flush=True); time.sleep(600)")
    told = pytest.raises(DeviceTimeout, match=r"(?s)no answer in 1.5 s.*pondering")
    with DeviceClient(transport) as device, told:
        device.hello()
    assert not Path(f"/proc/{transport.pid}").exists()


def test_an_agent_that_does_not_listen_does_not_hold_the_host_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = DeviceInfo(Board(), (), "3.10.12", max_upload_bytes=2**32)
    answer = {"kind": "hello", "version": wire.VERSIONS[1], "info": info.as_json()}
    head, missing = wire.encode(answer), wire.encode({"kind": "missing", "sha256s": ["x"]})
    large = tmp_path / "large.onnx"
    large.write_bytes(bytes(2_000_000))
    monkeypatch.setattr("evaluators.devices.client.SLOWEST_UPLOAD_BYTES_S", 1e9)
    transport = script(f"say.write({head + missing!r}); say.flush(); time.sleep(600)")
    with DeviceClient(transport, call_deadline_s=0.5) as device, pytest.raises(DeviceTimeout):
        device.measure(large, MeasureRequest("0" * 64, ()))


@pytest.mark.parametrize(
    ("code", "named"),
    [
        ("sys.exit('no room on this board')", r"(?s)ended without an answer|Broken pipe"),
        ("say.write(b'garbage, not a frame')", r"at most 1048576 are taken"),
        (f"say.write({wire.encode({'kind': 'stored'})!r})", r"the kind of the answer to hello"),
        (f"say.write({wire.encode({'kind': 'hello'})!r})", r"fields missing"),
    ],
)
def test_an_agent_that_ends_or_babbles_is_lost(code: str, named: str) -> None:
    with DeviceClient(script(code)) as device, pytest.raises(DeviceLost, match=named) as lost:
        device.hello()
    assert ("no room on this board" in str(lost.value)) == ("no room" in code)


def test_a_queue_that_does_not_move_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evaluators.devices.client.QUEUE_S", 0.3)
    said: list[str] = []
    waiting = wire.encode({"kind": "waiting", "holder": "another", "place": 2})
    code = f"while True: say.write({waiting!r}); say.flush(); time.sleep(0.05)"
    told = pytest.raises(DeviceTimeout, match=r"queue did not move for 0\.3 s, held by another")
    with DeviceClient(script(code), waiting=said.append) as device, told:
        device.hello()
    assert len(said) > 3
