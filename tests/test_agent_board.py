"""The board is read from its own files; what it does not tell is None, never invented."""

from dataclasses import replace
from pathlib import Path

from device_agent.board import Board, BoardState, read_board, read_state
from device_agent.device import DeviceInfo, RuntimeInfo

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
        power_mode="pmode:0001",
        kernel="5.15.148-tegra",
    )


def test_a_jetson_says_what_state_it_is_in(tmp_path: Path) -> None:
    assert read_state(tree(tmp_path, ORIN)) == BoardState(
        governor="schedutil",
        cpu_mhz=1510.4,
        cpu_max_mhz=1728.0,
        temperatures_c=(("cpu-thermal", 48.5), ("thermal_zone2", 39.25), ("last", -1.0)),
        load_1m=0.42,
        available_memory_mb=5120,
    )


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
    )
    other = (
        replace(info, python="3.12.1"),
        replace(info, runtimes=(RuntimeInfo("onnxruntime", "1.24"),)),
        replace(info, board=replace(board, power_mode="pmode:0002")),
        replace(info, board=replace(board, cores=4)),
        replace(info, board=replace(board, model="Nano")),
        replace(info, board=replace(board, memory_mb=3800)),
    )
    assert {one.fingerprint for one in same} == {info.fingerprint}
    assert len({one.fingerprint for one in (info, *other)}) == 1 + len(other)
