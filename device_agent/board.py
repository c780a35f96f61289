"""What the device is, and the state it is in: read from `/proc` and `/sys`, never invented."""

import platform
import re
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from device_agent.checks import (
    as_tuple,
    check_int,
    check_known,
    check_real,
    check_text,
    check_type,
    take,
)

CPUS = "sys/devices/system/cpu"
FREQUENCY = f"{CPUS}/cpu0/cpufreq"


@dataclass(frozen=True)
class Board:
    """What stays the same while a device is up; None is what it does not tell.

    Attributes:
        model: name of the board, else of its processor.
        machine: instruction set, such as `aarch64`.
        cores: processors that are switched on.
        memory_mb: all memory that the system can use.
        gpus: models of the NVIDIA cards the driver tells of.
        power_mode: of a Jetson (`nvpmodel`), which fixes cores and clocks.
        kernel: release of the kernel.
    """

    model: str | None = None
    machine: str | None = None
    cores: int | None = None
    memory_mb: int | None = None
    gpus: tuple[str, ...] = ()
    power_mode: str | None = None
    kernel: str | None = None

    def __post_init__(self) -> None:
        for name in ("model", "machine", "power_mode", "kernel"):
            check_known(check_text, f"Board.{name}", getattr(self, name), 4096)
        check_known(check_int, "Board.cores", self.cores, 1, 2**20)
        check_known(check_int, "Board.memory_mb", self.memory_mb, 0, 2**40)
        check_type("Board.gpus", self.gpus, tuple)
        for gpu in self.gpus:
            check_text("Board.gpus: one card", gpu, 4096)

    @classmethod
    def from_json(cls, value: object) -> "Board":
        """Build from a JSON object; raises `ProtocolError` naming field and value."""
        found = take("Board", value, [field.name for field in fields(cls)])
        found["gpus"] = as_tuple("Board.gpus", found["gpus"])
        return cls(**found)


@dataclass(frozen=True)
class BoardState:
    """What changes from one measurement to the next; None is what the board does not tell.

    Attributes:
        governor: of the first processor's frequency.
        cpu_mhz: its current frequency.
        cpu_max_mhz: the most its settings allow.
        temperatures_c: pairs of thermal zone and degrees Celsius, in the order of the zones.
        load_1m: load average of the last minute.
        available_memory_mb: memory that can be had without swapping.
    """

    governor: str | None = None
    cpu_mhz: float | None = None
    cpu_max_mhz: float | None = None
    temperatures_c: tuple[tuple[str, float], ...] = ()
    load_1m: float | None = None
    available_memory_mb: int | None = None

    def __post_init__(self) -> None:
        check_known(check_text, "BoardState.governor", self.governor, 4096)
        for name in ("cpu_mhz", "cpu_max_mhz", "load_1m"):
            check_known(check_real, f"BoardState.{name}", getattr(self, name), 0.0, 1e12)
        check_known(check_int, "BoardState.available_memory_mb", self.available_memory_mb, 0, 2**40)
        check_type("BoardState.temperatures_c", self.temperatures_c, tuple)
        for pair in self.temperatures_c:
            check_type("BoardState.temperatures_c: one pair", pair, tuple)
            check_int("BoardState.temperatures_c: length of one pair", len(pair), 2, 2)
            check_text("BoardState.temperatures_c: one zone", pair[0], 4096)
            check_real("BoardState.temperatures_c: one temperature", pair[1], -1e6, 1e6)

    def as_json(self) -> dict[str, object]:
        """Return the JSON object that `from_json` reads."""
        return {**asdict(self), "temperatures_c": [list(pair) for pair in self.temperatures_c]}

    @classmethod
    def from_json(cls, value: object) -> "BoardState":
        """Build from a JSON object; raises `ProtocolError` naming field and value."""
        found = take("BoardState", value, [field.name for field in fields(cls)])
        pairs = as_tuple("BoardState.temperatures_c", found["temperatures_c"])
        found["temperatures_c"] = tuple(as_tuple("BoardState: temperature", one) for one in pairs)
        return cls(**found)


def read_board(root: Path = Path("/")) -> Board:
    """Read what the device is; `root` is where its `/proc`, `/sys`, `/var` and `/etc` stand."""
    cpuinfo = _text(root / "proc/cpuinfo") or ""
    named = re.search(r"^(?:model name|Model)\s*:\s*(\S.*)$", cpuinfo, re.MULTILINE)
    model = _text(root / "proc/device-tree/model") or (named.group(1).strip() if named else None)
    cards = sorted(root.glob("proc/driver/nvidia/gpus/*/information"))
    gpus = [re.search(r"^Model:\s*(\S.*)$", _text(card) or "", re.MULTILINE) for card in cards]
    return Board(
        model=model,
        machine=platform.machine() or None,
        cores=_count(_text(root / CPUS / "online")),
        memory_mb=_meminfo_mb(root, "MemTotal"),
        gpus=tuple(gpu.group(1).strip() for gpu in gpus if gpu),
        power_mode=_text(root / "var/lib/nvpmodel/status"),
        kernel=_text(root / "proc/sys/kernel/osrelease"),
    )


def read_state(root: Path = Path("/")) -> BoardState:
    """Read the state the device is in now; `root` as in `read_board`."""
    zones = sorted(root.glob("sys/class/thermal/thermal_zone*"), key=lambda one: _digits(one.name))
    degrees = [(_text(zone / "type") or zone.name, _number(zone / "temp", 1e-3)) for zone in zones]
    load = (_text(root / "proc/loadavg") or "").split()
    return BoardState(
        governor=_text(root / FREQUENCY / "scaling_governor"),
        cpu_mhz=_number(root / FREQUENCY / "scaling_cur_freq", 1e-3),
        cpu_max_mhz=_number(root / FREQUENCY / "scaling_max_freq", 1e-3),
        temperatures_c=tuple((zone, at_c) for zone, at_c in degrees if at_c is not None),
        load_1m=_as_number(load[0] if load else None),
        available_memory_mb=_meminfo_mb(root, "MemAvailable"),
    )


def peak_memory_mb(root: Path = Path("/")) -> float | None:
    """Return the highest resident memory of this process so far; None where it is not told."""
    found = re.search(r"^VmHWM:\s*(\d+) kB", _text(root / "proc/self/status") or "", re.MULTILINE)
    return int(found.group(1)) / 1024 if found else None


def _text(path: Path) -> str | None:
    try:
        with open(path, "rb") as file:
            raw = file.read(2**20)
    except (OSError, ValueError):
        return None
    return raw.decode("utf-8", "replace").strip("\0 \t\r\n") or None


def _as_number(text: str | None) -> float | None:
    try:
        number = float(text) if text is not None else None
    except ValueError:
        return None
    return number if number is not None and abs(number) < 1e12 else None


def _number(path: Path, scale: float) -> float | None:
    number = _as_number(_text(path))
    return None if number is None else round(number * scale, 6)


def _meminfo_mb(root: Path, name: str) -> int | None:
    meminfo = _text(root / "proc/meminfo") or ""
    found = re.search(rf"^{name}:\s*(\d+) kB", meminfo, re.MULTILINE)
    return int(found.group(1)) // 1024 if found else None


def _count(ranges: str | None) -> int | None:
    """Count the processors in a list such as `0-3,6`."""
    if ranges is None or not re.fullmatch(r"\d+(-\d+)?(,\d+(-\d+)?)*", ranges):
        return None
    pairs = [[int(end) for end in part.split("-")] for part in ranges.split(",")]
    return sum(pair[-1] - pair[0] + 1 for pair in pairs)


def _digits(name: str) -> int:
    return int("".join(re.findall(r"\d", name)) or 0)
