"""What `device check` finds, from what a device says of itself, and what it says to do."""

import hashlib
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from tiny import SPACE, tiny_space

from device_agent.board.description import DeviceInfo, DeviceState, RuntimeInfo
from device_agent.board.state import Board, BoardState
from device_agent.bundle import zipapp
from evaluators.devices.check import Finding, check_agent
from evaluators.devices.client import DeviceClient, open_local_device
from evaluators.onnx.builder import OnnxBuilder
from evaluators.onnx.versions import IR_VERSION, OPSET
from search_space.space.paper import seeded_designs

ORT = RuntimeInfo("onnxruntime", "1.23.0", ("CPUExecutionProvider",), OPSET, IR_VERSION)
JETSON = Board(
    model="NVIDIA Jetson Orin Nano Developer Kit",
    machine="aarch64",
    cores=6,
    memory_mb=7620,
    power_mode="pmode:0000 MAXN",
    l4t="R36.4.3",
)
QUIET = BoardState(
    governor="performance",
    load_1m=0.1,
    available_memory_mb=6000,
    clocks_mhz=(("policy0", 1510.0), ("gpu", 624.0)),
    clock_limits_mhz=(("policy0", 1510.0), ("gpu", 624.0)),
)
GOOD = DeviceInfo(JETSON, (ORT,), "3.10.12", 2**32, hashlib.sha256(zipapp()).hexdigest())


class Said:
    """A client of an agent that says this."""

    def __init__(self, info: DeviceInfo, state: DeviceState) -> None:
        self._info, self._state = info, state

    def hello(self) -> DeviceInfo:
        return self._info

    def state(self) -> DeviceState:
        return self._state


def found(info: DeviceInfo = GOOD, board: BoardState = QUIET, **state: Any) -> dict[str, Finding]:
    now = DeviceState(**{"unix_s": time.time(), "home_free_mb": 50_000, "board": board, **state})
    client = cast(DeviceClient, Said(info, now))
    return {finding.what: finding for finding in check_agent(client, "INSTALL")}


def test_a_board_in_order_has_no_finding_but_ok() -> None:
    findings = found().values()
    assert {finding.level for finding in findings} == {"ok"}
    assert all(finding.way_out == "" for finding in findings)


@pytest.mark.parametrize("sha256", ["0" * 64, None])
def test_an_agent_of_another_version_is_a_problem(sha256: str | None) -> None:
    agent = found(replace(GOOD, agent_sha256=sha256))["agent"]
    assert (agent.level, agent.way_out) == ("problem", "INSTALL")


def test_a_runtime_that_is_missing_is_a_problem_only_where_none_is_there() -> None:
    missing = RuntimeInfo("tensorrt", problem="tensorrt cannot be loaded: install it")
    some = found(replace(GOOD, runtimes=(ORT, missing)))["tensorrt"]
    none = found(replace(GOOD, runtimes=(missing,)))["tensorrt"]
    assert (some.level, none.level) == ("warning", "problem")
    assert (none.value, none.way_out) == ("tensorrt cannot be loaded", "install it")


@pytest.mark.parametrize("old", [{"onnx_opset_max": OPSET - 1}, {"onnx_ir_max": IR_VERSION - 1}])
def test_a_runtime_that_is_too_old_for_our_onnx_is_a_problem(old: dict[str, int]) -> None:
    runtime = found(replace(GOOD, runtimes=(replace(ORT, **old),)))["onnxruntime"]
    assert runtime.level == "problem" and "is needed" in runtime.value
    assert "newer onnxruntime" in runtime.way_out


@pytest.mark.parametrize(
    ("board", "what", "level", "way_out"),
    [
        (replace(QUIET, governor="schedutil"), "governor", "warning", "sudo jetson_clocks"),
        (replace(QUIET, clocks_mhz=(("gpu", 306.0),)), "clocks", "warning", "sudo jetson_clocks"),
        (replace(QUIET, throttled_by=("cpufreq-cpu0",)), "throttling", "warning", "cool the board"),
        (replace(QUIET, load_1m=3.0), "load", "warning", "end what else runs"),
        (replace(QUIET, available_memory_mb=1000), "memory", "warning", "end other programs"),
        (replace(QUIET, available_memory_mb=100), "memory", "problem", "end other programs"),
        (replace(QUIET, available_memory_mb=None), "memory", "warning", "free -m"),
    ],
)
def test_what_harms_readings_is_told_with_the_way_out(
    board: BoardState, what: str, level: str, way_out: str
) -> None:
    finding = found(board=board)[what]
    assert finding.level == level and way_out in finding.way_out


@pytest.mark.parametrize(
    ("mode", "level"),
    [("pmode:0000", "ok"), ("pmode:0002 MAXN_SUPER", "ok"), ("pmode:0001 15W", "warning")],
)
def test_a_power_mode_below_the_highest_is_told(mode: str, level: str) -> None:
    finding = found(replace(GOOD, board=replace(JETSON, power_mode=mode)))["power mode"]
    assert finding.level == level and mode in finding.value
    assert ("nvpmodel" in finding.way_out) == (level == "warning")


@pytest.mark.parametrize(("free_mb", "level"), [(100, "problem"), (1000, "warning")])
def test_a_disk_that_is_nearly_full_is_told(free_mb: int, level: str) -> None:
    disk = found(home_free_mb=free_mb)["disk"]
    assert disk.level == level and "make room" in disk.way_out


@pytest.mark.parametrize(("off_s", "side"), [(-3600, "behind"), (3600, "ahead of")])
def test_a_clock_that_is_off_is_told_and_harms_nothing(off_s: float, side: str) -> None:
    clock = found(unix_s=time.time() + off_s)["clock"]
    assert clock.level == "warning" and side in clock.value
    assert "readings do not depend on it" in clock.value and "timedatectl" in clock.way_out


@pytest.fixture
def local(tmp_path: Path) -> Iterator[DeviceClient]:
    with open_local_device(tmp_path / "home") as client:
        yield client


def test_a_real_agent_is_of_this_version(local: DeviceClient) -> None:
    findings = {finding.what: finding for finding in check_agent(local, "INSTALL")}
    assert findings["agent"].level == "ok" and findings["clock"].level == "ok"


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_no_file_that_is_built_needs_more_than_is_checked_for(
    tmp_path: Path, precision: str
) -> None:
    onnx = pytest.importorskip("onnx")
    space = tiny_space(tmp_path, SPACE.replace('["fp32"]', '["fp32", "fp16", "int8"]'))
    fused = [s.genotype for s in seeded_designs(space) if s.genotype.text_encoder]
    genotype = next(genotype for genotype in fused if genotype.vision_encoder)
    encoders = {spec.name: spec for spec in space.encoders}
    builder = OnnxBuilder(encoders, space.shapes, 2, tmp_path / "built")
    model = onnx.load(builder.build(replace(genotype, precision=precision)).path)
    assert model.ir_version <= IR_VERSION
    assert {o.version for o in model.opset_import if o.domain in ("", "ai.onnx")} == {OPSET}
