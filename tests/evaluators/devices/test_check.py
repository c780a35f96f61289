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
from device_agent.wire.request import TimingProtocol
from evaluators.devices.check import Finding, check_agent
from evaluators.devices.client import DeviceClient, open_local_device
from evaluators.devices.recipes import RuntimeMissing, check_runtime, requirement
from evaluators.onnx.builder import OnnxBuilder
from evaluators.onnx.versions import IR_VERSION, OPSET
from search_space.space.paper import seeded_designs

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
ORT = RuntimeInfo("onnxruntime", "1.23.0", (CUDA, CPU), OPSET, IR_VERSION)
JETSON = Board(
    model="NVIDIA Jetson Orin Nano Developer Kit",
    machine="aarch64",
    cores=6,
    memory_mb=7620,
    power_mode="pmode:0002 MAXN_SUPER",
    l4t="R36.4.3",
    jetpack="6",
    fastest_mode="2 MAXN_SUPER",
)
QUIET = BoardState(
    governor="performance",
    load_1m=0.1,
    available_memory_mb=6000,
    clocks_mhz=(("policy0", 1510.0), ("gpu", 624.0)),
    clock_limits_mhz=(("policy0", 1510.0), ("gpu", 624.0)),
    rails_w=(("VDD_IN", 6.0),),
)
GOOD = DeviceInfo(JETSON, (ORT,), "3.10.12", 2**32, hashlib.sha256(zipapp()).hexdigest())


class Said:
    """A client of an agent that says this."""

    name = "orin"

    def __init__(self, info: DeviceInfo, *states: DeviceState) -> None:
        self._info, self._states = info, list(states)

    def hello(self) -> DeviceInfo:
        return self._info

    def state(self) -> DeviceState:
        return self._states.pop(0)


def found(
    info: DeviceInfo = GOOD,
    board: BoardState = QUIET,
    later: BoardState | None = None,
    others_s: float | None = 0.5,
    **state: Any,
) -> dict[str, Finding]:
    """What is found of a device that is watched for ten seconds."""
    told = {"unix_s": time.time(), "home_free_mb": 50_000, "board": board, "others_s": 100.0}
    first = DeviceState(**{**told, **state})
    after = None if others_s is None else 100.0 + others_s
    second = replace(first, unix_s=first.unix_s + 10.0, board=later or board, others_s=after)
    client = cast(DeviceClient, Said(info, first, second))
    waited: list[float] = []
    findings = check_agent(client, "INSTALL", sleep=waited.append)
    assert waited == [10.0]
    return {finding.what: finding for finding in findings}


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
    assert none.value == "tensorrt cannot be loaded"
    assert none.way_out.startswith("sudo apt install nvidia-jetpack; python3 -m venv --system-site")
    assert none.way_out.endswith("device install orin --python fusion-nas-venv/bin/python")


def test_a_runtime_that_few_need_is_passed_over_where_another_is_there() -> None:
    missing = RuntimeInfo("openvino", problem="openvino cannot be loaded: install it")
    assert "openvino" not in found(replace(GOOD, runtimes=(ORT, missing)))
    assert found(replace(GOOD, runtimes=(missing,)))["openvino"].level == "problem"


@pytest.mark.parametrize(
    ("jetpack", "python", "provider", "way_out"),
    [
        ("6", "3.10.12", CPU, "fusion-nas device install orin --with-runtime"),
        ("6", "3.10.12", CUDA, "install onnxruntime-gpu (from NVIDIA's Jetson AI Lab index, jp6/"),
        ("5", "3.10.12", CUDA, "flash JetPack 6 or newer (that of JetPack 5 is for a Python older"),
        ("5", "3.10.12", CPU, "fusion-nas device install orin --with-runtime"),
        ("7", "3.12.3", CUDA, "onnxruntime-gpu (from NVIDIA's Jetson AI Lab index, sbsa/cu130)"),
        (None, "3.10.12", CUDA, "install onnxruntime-gpu (built for this JetPack)"),
    ],
)
def test_the_way_to_a_runtime_is_told_for_the_jetpack(
    jetpack: str | None, python: str, provider: str, way_out: str
) -> None:
    board = replace(JETSON, jetpack=jetpack)
    has = tuple(one for one in (CUDA, CPU) if one != provider)
    info = replace(GOOD, board=board, python=python, runtimes=(replace(ORT, providers=has),))
    with pytest.raises(RuntimeMissing) as raised:
        check_runtime(info, "onnxruntime", provider, "orin")
    assert f"orin: onnxruntime 1.23.0 has no {provider} there" in str(raised.value)
    assert way_out in str(raised.value)
    check_runtime(GOOD, "onnxruntime", provider, "orin")


def test_a_python_gets_the_last_onnxruntime_that_there_is_for_it() -> None:
    assert (requirement("3.10.12"), requirement("3.12.3")) == ("onnxruntime<1.24", "onnxruntime")


def test_a_jetson_without_cuda_in_its_onnxruntime_is_told() -> None:
    cuda = found(replace(GOOD, runtimes=(replace(ORT, providers=(CPU,)),)))["CUDA"]
    assert cuda.level == "warning" and "onnxruntime-gpu" in cuda.way_out


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
    ("mode", "fastest", "level", "way_out"),
    [
        ("pmode:0000 15W", "2 MAXN_SUPER", "warning", "sudo nvpmodel -m 2 is MAXN_SUPER"),
        ("pmode:0001 25W", "2 MAXN_SUPER", "warning", "sudo nvpmodel -m 2 is MAXN_SUPER"),
        ("pmode:0002 MAXN_SUPER", "2 MAXN_SUPER", "ok", ""),
        ("pmode:0000 MAXN", "0 MAXN", "ok", ""),
        ("pmode:0003 50W", "0 MAXN", "warning", "sudo nvpmodel -m 0 is MAXN"),
        ("pmode:0000", None, "warning", "/etc/nvpmodel.conf"),
        ("pmode:0000 MAXN", None, "ok", ""),
    ],
)
def test_a_power_mode_below_the_fastest_is_told_with_the_fastest_by_name(
    mode: str, fastest: str | None, level: str, way_out: str
) -> None:
    board = replace(JETSON, power_mode=mode, fastest_mode=fastest)
    finding = found(replace(GOOD, board=board))["power mode"]
    assert finding.level == level and mode in finding.value
    assert finding.way_out.startswith(way_out) and bool(finding.way_out) == bool(way_out)


def test_a_jetson_without_nvpmodel_is_told() -> None:
    mode = found(replace(GOOD, board=replace(JETSON, power_mode=None)))["power mode"]
    assert (mode.level, mode.value) == ("warning", "not reported")


def test_a_check_says_which_board_answered() -> None:
    board = replace(JETSON, cores=6, l4t="R36.4.3")
    value = found(replace(GOOD, board=board))["board"].value
    assert value == f"{JETSON.model}, 6 processors on, L4T R36.4.3 (JetPack 6)"
    desktop = Board(model="AMD EPYC 7B13", gpus=("NVIDIA L4",), cores=2)
    value = found(replace(GOOD, board=desktop))["board"].value
    assert value == "AMD EPYC 7B13, NVIDIA L4, 2 processors on"


def test_the_hottest_zone_is_told() -> None:
    hot = replace(QUIET, temperatures_c=(("cpu-thermal", 48.5), ("tj-thermal", 51.25)))
    assert found(board=hot)["temperature"].value == "51.2 C at tj-thermal, the hottest zone"
    assert "temperature" not in found(board=replace(QUIET, temperatures_c=()))


@pytest.mark.parametrize(
    ("rails", "silent", "level", "value"),
    [
        ((("VDD_IN", 6.048), ("VDD_SOC", 1.5)), (), "ok", "VDD_IN 6.05 W; VDD_SOC 1.50 W"),
        (
            (("VDD_SOC", 1.5),),
            ("VDD_IN",),
            "warning",
            "VDD_SOC 1.50 W; VDD_IN cannot be read; energy cannot be measured",
        ),
        (
            (("VDD_GPU_SOC", 3.0),),
            ("VDD_CPU_CV",),
            "warning",
            "VDD_GPU_SOC 3.00 W; VDD_CPU_CV cannot be read; energy is measured without it",
        ),
        ((), (), "warning", "energy cannot be measured"),
    ],
)
def test_rails_are_told_and_what_energy_can_be_measured_by_them(
    rails: tuple[tuple[str, float], ...], silent: tuple[str, ...], level: str, value: str
) -> None:
    power = found(board=replace(QUIET, rails_w=rails), unreadable_rails=silent)["power"]
    assert (power.level, power.value) == (level, value)
    assert bool(power.way_out) == (level == "warning")


def test_over_current_events_are_counted_while_the_board_is_watched() -> None:
    events = (("oc1_event_cnt", 0.0), ("oc3_event_cnt", 30.0))
    before = replace(QUIET, throttle_events=events)
    after = replace(before, throttle_events=(("oc1_event_cnt", 0.0), ("oc3_event_cnt", 42.0)))
    finding = found(board=before, later=after)["over-current"]
    assert finding.level == "warning"
    assert finding.value == "oc3 42 since the start of the board, 12 in 10 s"
    assert "stronger supply" in finding.way_out and "lower power mode" in finding.way_out
    none = replace(QUIET, throttle_events=events[:1])
    assert found(board=none)["over-current"].level == "ok"
    assert "over-current" not in found()


@pytest.mark.parametrize(
    ("others_s", "level", "value"),
    [
        (0.9, "ok", "0.09 processors busy over 10 s, 0.1 are allowed"),
        (1.2, "warning", "0.12 processors busy over 10 s, 0.1 are allowed"),
        (None, "warning", "not reported"),
    ],
)
def test_other_programs_are_judged_by_the_rule_that_refuses_readings(
    others_s: float | None, level: str, value: str
) -> None:
    finding = found(others_s=others_s)["other programs"]
    assert (finding.level, finding.value) == (level, value)
    assert "0.1 are" not in value or TimingProtocol().others_cores == 0.1


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
    findings = {finding.what: finding for finding in check_agent(local, "INSTALL", watch_s=0.1)}
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
