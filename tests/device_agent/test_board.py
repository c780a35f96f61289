"""The board is read from its own files; what it does not tell is None, never invented."""

import time
from dataclasses import replace
from pathlib import Path

import pytest

from device_agent.board.description import DeviceInfo, DeviceState, RuntimeInfo
from device_agent.board.power import (
    Energy,
    EnergyError,
    find_meter,
    measure_energy,
    unreadable_rails,
)
from device_agent.board.state import Board, BoardState, read_board, read_state, throttled
from device_agent.jobs.child import own_command

L4T = "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, DATE: x\n"
NVPMODEL = "< POWER_MODEL ID=0 NAME=15W >\nCPU MAX\n< POWER_MODEL ID=1 NAME=25W >\n"
DRIVER = "NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  540.4.0  Release Build (x)\n"
CPU = "sys/devices/system/cpu"
HWMON = "sys/class/hwmon"
COOLING = "sys/class/thermal/cooling_device"
# Rails, counters and cooling devices as Jetson Linux R36 has them on an Orin Nano.
ORIN = {
    "proc/device-tree/model": "NVIDIA Jetson Orin Nano Developer Kit\0",
    "proc/cpuinfo": "processor\t: 0\nBogoMIPS\t: 62.50\n",
    "proc/meminfo": "MemTotal:        7802220 kB\nMemAvailable:    5242880 kB\n",
    "proc/loadavg": "0.42 0.10 0.05 1/200 4242\n",
    "proc/sys/kernel/osrelease": "5.15.148-tegra\n",
    "sys/devices/system/cpu/online": "0-3,5\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "schedutil\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "1510400\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_max_freq": "1728000\n",
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
    "sys/class/thermal/thermal_zone0/temp": "48500\n",
    "sys/class/thermal/thermal_zone1/type": "broken\n",
    "sys/class/thermal/thermal_zone2/temp": "39250\n",
    "sys/class/thermal/thermal_zone10/type": "last\n",
    "sys/class/thermal/thermal_zone10/temp": "-1000\n",
    "var/lib/nvpmodel/status": "pmode:0001\n",
    "etc/nvpmodel.conf": NVPMODEL,
    "etc/nv_tegra_release": L4T,
    "proc/driver/nvidia/version": DRIVER,
    "proc/sys/kernel/random/boot_id": "0f1e2d3c-0000-4000-8000-000000000001\n",
    f"{CPU}/cpufreq/policy0/scaling_cur_freq": "1510400\n",
    f"{CPU}/cpufreq/policy0/scaling_max_freq": "1728000\n",
    f"{CPU}/cpufreq/policy4/scaling_cur_freq": "729600\n",
    f"{CPU}/cpufreq/policy4/scaling_max_freq": "1728000\n",
    "sys/class/devfreq/17000000.gpu/cur_freq": "612000000\n",
    "sys/class/devfreq/17000000.gpu/max_freq": "918000000\n",
    "sys/class/devfreq/15340000.vic/cur_freq": "1000\n",
    "sys/kernel/debug/bpmp/debug/clk/emc/rate": "2133000000\n",
    f"{HWMON}/hwmon0/name": "tegra_tach\n",
    f"{HWMON}/hwmon0/rpm": "2140\n",
    f"{HWMON}/hwmon1/name": "ina3221\n",
    f"{HWMON}/hwmon1/in1_label": "VDD_IN\n",
    f"{HWMON}/hwmon1/in1_input": "5000\n",
    f"{HWMON}/hwmon1/curr1_input": "1200\n",
    f"{HWMON}/hwmon1/in2_label": "VDD_CPU_GPU_CV\n",
    f"{HWMON}/hwmon1/in2_input": "4984\n",
    f"{HWMON}/hwmon1/curr2_input": "400\n",
    f"{HWMON}/hwmon1/in3_label": "VDD_SOC\n",
    f"{HWMON}/hwmon1/in3_input": "4984\n",
    f"{HWMON}/hwmon1/in7_label": "sum of shunt voltages\n",
    f"{HWMON}/hwmon1/in7_input": "9\n",
    f"{HWMON}/hwmon1/curr4_input": "9\n",
    f"{HWMON}/hwmon3/name": "soctherm_oc\n",
    f"{HWMON}/hwmon3/oc1_event_cnt": "0\n",
    f"{HWMON}/hwmon3/oc3_event_cnt": "37\n",
    f"{COOLING}0/type": "cpufreq-cpu0\n",
    f"{COOLING}0/cur_state": "0\n",
    f"{COOLING}1/type": "pwm-fan\n",
    f"{COOLING}1/cur_state": "3\n",
    f"{COOLING}2/type": "gpu-throttle-alert\n",
    f"{COOLING}2/cur_state": "0\n",
}


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


def test_a_jetson_says_what_it_is(tmp_path: Path) -> None:
    board = read_board(tree(tmp_path, ORIN))
    assert board == Board(
        model="NVIDIA Jetson Orin Nano Developer Kit",
        machine=board.machine,
        cores=5,
        memory_mb=7619,
        power_mode="pmode:0001 25W",
        kernel="5.15.148-tegra",
        l4t="R36.4.3",
        jetpack="6",
        driver="540.4.0",
        boot_id="0f1e2d3c-0000-4000-8000-000000000001",
        fastest_mode="1 25W",
    )


def test_a_jetson_says_what_state_it_is_in(tmp_path: Path) -> None:
    assert read_state(tree(tmp_path, ORIN)) == BoardState(
        governor="schedutil",
        cpu_mhz=1510.4,
        cpu_max_mhz=1728.0,
        temperatures_c=(("cpu-thermal", 48.5), ("thermal_zone2", 39.25), ("last", -1.0)),
        load_1m=0.42,
        available_memory_mb=5120,
        clocks_mhz=(("policy0", 1510.4), ("policy4", 729.6), ("17000000.gpu", 612), ("emc", 2133)),
        clock_limits_mhz=(("policy0", 1728.0), ("policy4", 1728.0), ("17000000.gpu", 918.0)),
        fan_rpm=2140.0,
        throttle_events=(("oc1_event_cnt", 0.0), ("oc3_event_cnt", 37.0)),
        throttled_by=(),
        rails_w=(("VDD_IN", 6.0), ("VDD_CPU_GPU_CV", 1.9936)),
    )


@pytest.mark.parametrize(
    ("release", "l4t", "jetpack"),
    [
        (L4T.replace("R36", "R35"), "R35.4.3", "5"),
        (L4T.replace("R36", "R38"), "R38.4.3", "7"),
        (L4T.replace("R36", "R39"), "R39.4.3", "7"),
        (L4T.replace("R36", "R99"), "R99.4.3", None),
        ("Debian 12\n", None, None),
    ],
)
def test_a_release_that_is_not_known_is_not_guessed(
    tmp_path: Path, release: str, l4t: str | None, jetpack: str | None
) -> None:
    board = read_board(tree(tmp_path, {"etc/nv_tegra_release": release}))
    assert (board.l4t, board.jetpack) == (l4t, jetpack)


def test_what_takes_speed_away_is_told_and_a_fan_is_not(tmp_path: Path) -> None:
    before = read_state(tree(tmp_path, ORIN))
    assert throttled(before, before) == ()
    hot = {f"{COOLING}2/cur_state": "1\n", f"{HWMON}/hwmon3/oc3_event_cnt": "40\n"}
    after = read_state(tree(tmp_path, hot))
    assert after.throttled_by == ("gpu-throttle-alert",)
    assert throttled(before, after) == (
        "gpu-throttle-alert held clocks down",
        "oc3_event_cnt rose by 3",
    )


def test_hot_cores_of_a_desktop_are_counted(tmp_path: Path) -> None:
    files = {f"{CPU}/cpu{k}/thermal_throttle/core_throttle_count": f"{k}\n" for k in (1, 2)}
    cool = read_state(tree(tmp_path, files))
    assert cool.throttle_events == (("core_throttle_count", 3.0),)
    hot = read_state(tree(tmp_path, {f"{CPU}/cpu2/thermal_throttle/core_throttle_count": "9"}))
    assert throttled(cool, hot) == ("core_throttle_count rose by 7",)


# -- boards that say things elsewhere

NANO_SUPER = """# Modes of Jetson Orin Nano Super
< PARAM TYPE=FILE NAME=CPU_ONLINE >
CORE_0 /sys/devices/system/cpu/cpu0/online
< POWER_MODEL ID=0 NAME=15W >
CPU_ONLINE CORE_0 1
< POWER_MODEL ID=1 NAME=25W >
< POWER_MODEL ID=2 NAME=MAXN_SUPER >
< POWER_MODEL ID=3 NAME=7W >
< PM_CONFIG DEFAULT=1 >
"""
NX_SUPER = "".join(
    f"< POWER_MODEL ID={number} NAME={name} >\n"
    for number, name in enumerate(("MAXN_SUPER", "10W", "15W", "25W", "40W"))
)
AGX_ORIN = NX_SUPER.replace("MAXN_SUPER", "MAXN").replace("10W", "MODE_15W")
XAVIER_NX = "".join(
    f"< POWER_MODEL ID={number} NAME=MODE_{name} >\n"
    for number, name in enumerate(("15W_2CORE", "15W_6CORE", "20W_2CORE", "20W_6CORE"))
)


@pytest.mark.parametrize(
    ("table", "status", "mode", "fastest"),
    [
        (NANO_SUPER, "pmode:0000", "pmode:0000 15W", "2 MAXN_SUPER"),
        (NANO_SUPER, "pmode:0002 fmode:quiet", "pmode:0002 MAXN_SUPER", "2 MAXN_SUPER"),
        (NX_SUPER, "pmode:0000", "pmode:0000 MAXN_SUPER", "0 MAXN_SUPER"),
        (AGX_ORIN, "pmode:0003", "pmode:0003 25W", "0 MAXN"),
        (XAVIER_NX, "pmode:0002", "pmode:0002 MODE_20W_2CORE", "3 MODE_20W_6CORE"),
        ("< POWER_MODEL NAME=MAXN ID=3 >\n", "pmode:0003", "pmode:0003 MAXN", "3 MAXN"),
        ("# < POWER_MODEL ID=0 NAME=MAXN >\n", "pmode:0000", "pmode:0000", None),
        ("< POWER_MODEL ID=0 NAME=own >\n", "pmode:0000", "pmode:0000 own", None),
        ("", "pmode:0001 fmode:cool", "pmode:0001", None),
    ],
)
def test_the_fastest_mode_is_known_by_its_name(
    tmp_path: Path, table: str, status: str, mode: str, fastest: str | None
) -> None:
    board = read_board(
        tree(tmp_path, {"var/lib/nvpmodel/status": status, "etc/nvpmodel.conf": table})
    )
    assert (board.power_mode, board.fastest_mode) == (mode, fastest)


THOR = {
    "proc/device-tree/model": "NVIDIA Jetson AGX Thor Developer Kit\0",
    "etc/nv_tegra_release": L4T.replace("R36", "R38"),
    "sys/class/devfreq/gpu-gpc-0/cur_freq": "1575000000\n",
    "sys/class/devfreq/gpu-gpc-0/max_freq": "1575000000\n",
    "sys/class/devfreq/gpu-nvd-0/cur_freq": "1692000000\n",
    "sys/class/devfreq/gpu-nvd-0/max_freq": "1692000000\n",
    "sys/class/devfreq/bwmgr/cur_freq": "3200000000\n",
    "sys/class/devfreq/bwmgr/max_freq": "4266000000\n",
    f"{HWMON}/hwmon2/name": "ina238\n",
    f"{HWMON}/hwmon2/label": "VIN\n",
    f"{HWMON}/hwmon2/in0_input": "0\n",
    f"{HWMON}/hwmon2/in1_input": "19968\n",
    f"{HWMON}/hwmon2/curr1_input": "1152\n",
    f"{HWMON}/hwmon2/power1_input": "23003000\n",
    f"{HWMON}/hwmon3/name": "ina3221\n",
    f"{HWMON}/hwmon3/in1_label": "VDD_GPU\n",
    f"{HWMON}/hwmon3/in1_input": "12000\n",
    f"{HWMON}/hwmon3/curr1_input": "400\n",
    f"{HWMON}/hwmon3/in2_label": "VDD_CPU_SOC_MSS\n",
    f"{HWMON}/hwmon3/in2_input": "12000\n",
    f"{HWMON}/hwmon3/curr2_input": "500\n",
    f"{HWMON}/hwmon3/in3_label": "VIN_SYS_5V0\n",
    f"{HWMON}/hwmon3/in3_input": "5000\n",
    f"{HWMON}/hwmon3/curr3_input": "-8\n",
}


def test_a_thor_says_what_its_input_draws_and_which_clocks_compute(tmp_path: Path) -> None:
    root = tree(tmp_path, THOR)
    state = read_state(root)
    assert state.rails_w == (
        ("VIN", 23.003),
        ("VDD_GPU", 4.8),
        ("VDD_CPU_SOC_MSS", 6.0),
        ("VIN_SYS_5V0", -0.04),
    )
    assert state.clocks_mhz == (("gpu-gpc-0", 1575.0), ("emc", 3200.0))
    assert state.clock_limits_mhz == (("gpu-gpc-0", 1575.0), ("emc", 4266.0))
    meter = find_meter(root, sampler_of(root))
    assert meter is not None and meter.source == "INA238 VIN"


def test_current_that_flows_back_has_a_sign(tmp_path: Path) -> None:
    root = tree(tmp_path, {**THOR, f"{HWMON}/hwmon2/curr1_input": "-1152\n"})
    assert read_state(root).rails_w[0] == ("VIN", -23.003)
    meter = find_meter(root, sampler_of(root))
    assert meter is not None
    with pytest.raises(EnergyError, match="INA238 VIN reports a negative power"):
        measure_energy(lambda: time.sleep(0.02), meter, 0.2)


def test_a_gpu_of_jetpack_5_is_a_compute_clock(tmp_path: Path) -> None:
    files = {"sys/class/devfreq/17000000.ga10b/cur_freq": "1300500000\n"}
    assert read_state(tree(tmp_path, files)).clocks_mhz == (("17000000.ga10b", 1300.5),)


# -- energy


def sampler_of(root: Path) -> list[str]:
    return own_command("rails", str(root))


def test_an_inference_costs_the_power_of_the_board_s_input_times_its_time(tmp_path: Path) -> None:
    root = tree(tmp_path, ORIN)
    meter = find_meter(root, sampler_of(root))
    assert meter is not None and meter.source == "INA3221 VDD_IN"
    current = root / HWMON / "hwmon1/curr1_input"

    def run() -> None:
        (root / "next").write_text("2400\n")
        (root / "next").replace(current)
        time.sleep(0.02)

    found = measure_energy(run, meter, 2.0)
    assert found.idle_w == pytest.approx(6.0, abs=0.5)
    assert 11.5 < found.busy_w <= 12.001 and found.runs >= 5
    assert found.mj_per_inference >= 0.9 * 20 * found.busy_w, "20 ms at least, every one"
    above = found.mj_per_inference * (found.busy_w - found.idle_w) / found.busy_w
    assert found.mj_above_idle == pytest.approx(above)
    assert (len(found.block_w), found.interval_s) == (5, 0.025)
    assert found.busy_s >= 2.0 and found.settle_s == pytest.approx(0.6) and found.samples > 10
    assert Energy.from_json(found.as_json()) == found


def test_without_a_rail_for_the_whole_board_all_its_rails_are_added(tmp_path: Path) -> None:
    root = tree(tmp_path, {**ORIN, f"{HWMON}/hwmon1/in1_label": "VDD_GPU_SOC\n"})
    meter = find_meter(root, sampler_of(root))
    assert meter is not None and meter.source == "INA3221 VDD_GPU_SOC + VDD_CPU_GPU_CV"
    (reading,) = meter.readings([lambda: time.sleep(0.05)])
    assert reading.mean_w == pytest.approx(7.9936) and reading.samples >= 2


def test_parts_of_a_board_do_not_stand_for_an_input_that_cannot_be_read(tmp_path: Path) -> None:
    root = tree(tmp_path, ORIN)
    (root / HWMON / "hwmon1/curr1_input").unlink()
    assert unreadable_rails(root) == ("VDD_IN", "VDD_SOC")
    meter = find_meter(root, sampler_of(root))
    assert meter is not None and meter.source == "INA3221 VDD_IN"
    with pytest.raises(EnergyError, match="INA3221 VDD_IN could not be read"):
        meter.readings([lambda: time.sleep(0.05)])


def test_rails_that_fall_silent_are_an_error_and_not_a_number(tmp_path: Path) -> None:
    root = tree(tmp_path, ORIN)
    meter = find_meter(root, sampler_of(root))
    assert meter is not None
    current = root / HWMON / "hwmon1/curr1_input"
    with pytest.raises(EnergyError, match="INA3221 VDD_IN could not be read any more"):
        meter.readings([current.unlink, lambda: time.sleep(0.2)])


def test_a_sampler_that_does_not_start_is_an_error_and_not_a_number(tmp_path: Path) -> None:
    root = tree(tmp_path, ORIN)
    for sampler in (["no-such-program"], ["false"]):
        meter = find_meter(root, sampler)
        assert meter is not None
        with pytest.raises(EnergyError, match="cannot be sampled"):
            meter.readings([lambda: None])


def test_a_desktop_s_energy_is_the_difference_of_its_counters(tmp_path: Path) -> None:
    package = tmp_path / "sys/class/powercap/intel-rapl:0"
    files = {"name": "package-0\n", "energy_uj": "999000\n", "max_energy_range_uj": "1000000\n"}
    tree(package, files)
    meter = find_meter(tmp_path, [])
    assert meter is not None and meter.source == "RAPL package-0"
    assert meter.busy_s(10.0) == 1.0 and meter.interval_s is None

    def work() -> None:
        time.sleep(0.05)
        tree(package, {"energy_uj": "4000"})

    start_s = time.monotonic()
    (reading,) = meter.readings([work])
    assert 0.005 / (time.monotonic() - start_s) <= reading.mean_w <= 0.005 / 0.05


def test_a_board_without_rails_or_counters_has_no_meter(tmp_path: Path) -> None:
    assert find_meter(tmp_path, []) is None


def test_a_desktop_is_known_by_its_processor_and_cards(tmp_path: Path) -> None:
    files = {
        "proc/cpuinfo": "processor : 0\nmodel name\t: AMD EPYC 7B13\nprocessor : 1\n",
        "proc/driver/nvidia/gpus/0000:01:00.0/information": "Model: \t NVIDIA L4\nIRQ: 1\n",
    }
    board = read_board(tree(tmp_path, files))
    assert (board.model, board.gpus) == ("AMD EPYC 7B13", ("NVIDIA L4",))


def test_a_board_that_tells_nothing_gives_none(tmp_path: Path) -> None:
    assert read_state(tmp_path) == BoardState()
    assert replace(read_board(tmp_path), machine=None) == Board()


def test_files_of_nonsense_are_not_believed(tmp_path: Path) -> None:
    nonsense = {name: "\x01 unknown <unset> \n" for name in ORIN if "type" not in name}
    root = tree(tmp_path, nonsense)
    assert (read_board(root).cores, read_board(root).memory_mb) == (None, None)
    state = read_state(root)
    assert (state.cpu_mhz, state.load_1m, state.temperatures_c) == (None, None, ())


def test_values_of_this_very_board_survive_the_trip() -> None:
    state = read_state()
    assert BoardState.from_json(state.as_json()) == state
    info = DeviceInfo(read_board(), (RuntimeInfo("onnxruntime", "1.23"),), "3.10.12", 2**32)
    assert DeviceInfo.from_json(info.as_json()) == info


def test_the_fingerprint_changes_with_what_latency_depends_on_and_with_nothing_else() -> None:
    board = Board("Orin", "aarch64", 6, 7619, (), "pmode:0000", "5.15")
    info = DeviceInfo(board, (RuntimeInfo("onnxruntime", "1.23"),), "3.10.12", 2**32)
    same = (
        replace(info, python="3.10.18"),
        replace(info, max_upload_bytes=2**20),
        replace(info, board=replace(board, kernel="5.16", memory_mb=7622)),
        replace(info, board=replace(board, boot_id="another start")),
        replace(info, board=replace(board, fastest_mode="2 MAXN_SUPER")),
        replace(info, runtimes=(*info.runtimes, RuntimeInfo("openvino", problem="not there"))),
    )
    other = (
        replace(info, python="3.12.1"),
        replace(info, runtimes=(RuntimeInfo("onnxruntime", "1.24"),)),
        replace(info, board=replace(board, power_mode="pmode:0002")),
        replace(info, board=replace(board, cores=4)),
        replace(info, board=replace(board, model="Nano")),
        replace(info, board=replace(board, memory_mb=3800)),
        replace(info, board=replace(board, driver="550.54.15")),
    )
    assert {one.fingerprint for one in same} == {info.fingerprint}
    assert len({one.fingerprint for one in (info, *other)}) == 1 + len(other)


def test_the_state_that_an_agent_of_0_1_0_tells_is_understood() -> None:
    state = DeviceState(1.0, 2, BoardState(), 3.0, ("VDD_IN",))
    told = state.as_json()
    assert DeviceState.from_json(told) == state
    del told["unreadable_rails"]
    assert DeviceState.from_json(told) == replace(state, unreadable_rails=())
