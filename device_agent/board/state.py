"""What the device is, and the state it is in: read from `/proc` and `/sys`, never invented."""

import platform
import re
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from device_agent.board import jetson, power, sysfs
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
DRIVER = re.compile(r"^NVRM version:.*?\s(\d+\.\d+(?:\.\d+)?)\s", re.MULTILINE)
HOLDS_CLOCKS = re.compile(r"cpufreq|devfreq|throttle|^Processor$")
"""Types of cooling devices that cool by taking speed away; a fan does not."""
PAIRS = ("temperatures_c", "clocks_mhz", "clock_limits_mhz", "throttle_events", "rails_w")

Named = tuple[tuple[str, float], ...]
"""Pairs of a name and its value, in the order the board tells them."""


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
        l4t: release of a Jetson's system, such as `R36.4.3`.
        jetpack: major version of JetPack that brought it.
        driver: version of NVIDIA's driver.
        boot_id: another one after every start of the system.
        fastest_mode: number and name of the power mode without limits, such as `2 MAXN_SUPER`.
    """

    model: str | None = None
    machine: str | None = None
    cores: int | None = None
    memory_mb: int | None = None
    gpus: tuple[str, ...] = ()
    power_mode: str | None = None
    kernel: str | None = None
    l4t: str | None = None
    jetpack: str | None = None
    driver: str | None = None
    boot_id: str | None = None
    fastest_mode: str | None = None

    def __post_init__(self) -> None:
        texts = ("model", "machine", "power_mode", "kernel", "l4t", "jetpack", "driver", "boot_id")
        for name in (*texts, "fastest_mode"):
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
    """What changes from one measurement to the next; None or () is what the board does not tell.

    Attributes:
        governor: of the first processor's frequency.
        cpu_mhz: its current frequency.
        cpu_max_mhz: the most its settings allow.
        temperatures_c: thermal zones and degrees Celsius, in the order of the zones.
        load_1m: load average of the last minute.
        available_memory_mb: memory available without swapping.
        clocks_mhz: clocks now: every cluster of processors (`policy0`), every GPU, memory (`emc`).
        clock_limits_mhz: the most that settings and cooling allow each of them; of memory only
            where the board tells it.
        fan_rpm: of the first fan that tells.
        throttle_events: how often each cause took speed away since the board started.
        throttled_by: cooling devices that take speed away now.
        rails_w: rails and what they deliver now.
    """

    governor: str | None = None
    cpu_mhz: float | None = None
    cpu_max_mhz: float | None = None
    temperatures_c: Named = ()
    load_1m: float | None = None
    available_memory_mb: int | None = None
    clocks_mhz: Named = ()
    clock_limits_mhz: Named = ()
    fan_rpm: float | None = None
    throttle_events: Named = ()
    throttled_by: tuple[str, ...] = ()
    rails_w: Named = ()

    def __post_init__(self) -> None:
        check_known(check_text, "BoardState.governor", self.governor, 4096)
        for name in ("cpu_mhz", "cpu_max_mhz", "load_1m", "fan_rpm"):
            check_known(check_real, f"BoardState.{name}", getattr(self, name), 0.0, 1e12)
        check_known(check_int, "BoardState.available_memory_mb", self.available_memory_mb, 0, 2**40)
        check_type("BoardState.throttled_by", self.throttled_by, tuple)
        for device in self.throttled_by:
            check_text("BoardState.throttled_by: one device", device, 4096)
        for name in PAIRS:
            check_type(f"BoardState.{name}", getattr(self, name), tuple)
            for pair in getattr(self, name):
                check_type(f"BoardState.{name}: one pair", pair, tuple)
                check_int(f"BoardState.{name}: length of one pair", len(pair), 2, 2)
                check_text(f"BoardState.{name}: one name", pair[0], 4096)
                check_real(f"BoardState.{name}: one value", pair[1], -1e18, 1e18)

    def as_json(self) -> dict[str, object]:
        """Return the JSON object that `from_json` reads."""
        pairs = {name: [list(pair) for pair in getattr(self, name)] for name in PAIRS}
        return {**asdict(self), "throttled_by": list(self.throttled_by), **pairs}

    @classmethod
    def from_json(cls, value: object) -> "BoardState":
        """Build from a JSON object; raises `ProtocolError` naming field and value."""
        found = take("BoardState", value, [field.name for field in fields(cls)])
        found["throttled_by"] = as_tuple("BoardState.throttled_by", found["throttled_by"])
        for name in PAIRS:
            pairs = as_tuple(f"BoardState.{name}", found[name])
            found[name] = tuple(as_tuple(f"BoardState.{name}: one pair", one) for one in pairs)
        return cls(**found)


def throttled(before: BoardState, after: BoardState) -> tuple[str, ...]:
    """Return in words what took speed away from the board between two states, or at one of them."""
    devices = dict.fromkeys((*before.throttled_by, *after.throttled_by))
    found = [f"{device} held clocks down" for device in devices]
    counted = dict(before.throttle_events)
    for cause, count in after.throttle_events:
        if (more := count - counted.get(cause, count)) > 0:
            found.append(f"{cause} rose by {more:.0f}")
    return tuple(found)


def read_board(root: Path = Path("/")) -> Board:
    """Read what the device is; `root` is where its `/proc`, `/sys`, `/var` and `/etc` stand."""
    cpuinfo = sysfs.text(root / "proc/cpuinfo") or ""
    named = re.search(r"^(?:model name|Model)\s*:\s*(\S.*)$", cpuinfo, re.MULTILINE)
    model = sysfs.text(root / "proc/device-tree/model")
    cards = sorted(root.glob("proc/driver/nvidia/gpus/*/information"))
    gpus = [re.search(r"^Model:\s*(\S.*)$", sysfs.text(card) or "", re.MULTILINE) for card in cards]
    driver = DRIVER.search(sysfs.text(root / "proc/driver/nvidia/version") or "")
    return Board(
        model=model or (named.group(1).strip() if named else None),
        machine=platform.machine() or None,
        cores=_count(sysfs.text(root / CPUS / "online")),
        memory_mb=_meminfo_mb(root, "MemTotal"),
        gpus=tuple(gpu.group(1).strip() for gpu in gpus if gpu),
        power_mode=jetson.power_mode(root),
        kernel=sysfs.text(root / "proc/sys/kernel/osrelease"),
        l4t=jetson.l4t(root),
        jetpack=jetson.jetpack(root),
        driver=driver.group(1) if driver else None,
        boot_id=sysfs.text(root / "proc/sys/kernel/random/boot_id"),
        fastest_mode=jetson.fastest_mode(root),
    )


def read_state(root: Path = Path("/")) -> BoardState:
    """Read the state the device is in now; `root` as in `read_board`."""
    load = (sysfs.text(root / "proc/loadavg") or "").split()
    clusters = sysfs.in_order(root.glob(f"{CPUS}/cpufreq/policy*"))
    devfreq = sorted(root.glob("sys/class/devfreq/*"))
    gpus = [one for one in devfreq if jetson.is_compute_clock(one.name)]
    now = [(one.name, sysfs.number(one / "scaling_cur_freq", 1e-3)) for one in clusters]
    now += [(one.name, sysfs.number(one / "cur_freq", 1e-6)) for one in gpus]
    most = [(one.name, sysfs.number(one / "scaling_max_freq", 1e-3)) for one in clusters]
    most += [(one.name, sysfs.number(one / "max_freq", 1e-6)) for one in gpus]
    zones = sysfs.in_order(root.glob("sys/class/thermal/thermal_zone*"))
    degrees = [(sysfs.text(one / "type") or one.name, _celsius(one)) for one in zones]
    return BoardState(
        governor=sysfs.text(root / FREQUENCY / "scaling_governor"),
        cpu_mhz=sysfs.number(root / FREQUENCY / "scaling_cur_freq", 1e-3),
        cpu_max_mhz=sysfs.number(root / FREQUENCY / "scaling_max_freq", 1e-3),
        temperatures_c=_known(degrees),
        load_1m=sysfs.as_number(load[0] if load else None),
        available_memory_mb=_meminfo_mb(root, "MemAvailable"),
        clocks_mhz=_known([*now, ("emc", jetson.emc_mhz(root))]),
        clock_limits_mhz=_known([*most, ("emc", jetson.emc_limit_mhz(root))]),
        fan_rpm=_fan_rpm(root),
        throttle_events=_throttle_events(root),
        throttled_by=_throttled_by(root),
        rails_w=power.rails_w(root),
    )


def peak_memory_mb(root: Path = Path("/")) -> float | None:
    """Return the highest resident memory of this process so far; None where it is not told."""
    status = sysfs.text(root / "proc/self/status") or ""
    found = re.search(r"^VmHWM:\s*(\d+) kB", status, re.MULTILINE)
    return int(found.group(1)) / 1024 if found else None


def _known(pairs: "list[tuple[str, float | None]]") -> Named:
    return tuple((name, value) for name, value in pairs if value is not None)


def _celsius(zone: Path) -> float | None:
    return sysfs.number(zone / "temp", 1e-3)


def _fan_rpm(root: Path) -> float | None:
    """Read the first tachometer: `fan1_input` as all have it, `rpm` as a Jetson's own driver."""
    monitors = sysfs.in_order(root.glob("sys/class/hwmon/hwmon*"))
    told = (sysfs.number(one / name) for one in monitors for name in ("fan1_input", "rpm"))
    return next((rpm for rpm in told if rpm is not None and rpm >= 0), None)


def _throttle_events(root: Path) -> Named:
    """Count over-current events of a Jetson and hot cores or packages of an x86."""
    found = [
        (one.name, sysfs.number(one))
        for one in sorted(root.glob("sys/class/hwmon/hwmon*/oc*_event_cnt"))
    ]
    for name in ("core_throttle_count", "package_throttle_count"):
        told = [sysfs.number(one) for one in root.glob(f"{CPUS}/cpu[0-9]*/thermal_throttle/{name}")]
        counts = [count for count in told if count is not None]
        found.append((name, sum(counts) if counts else None))
    return _known(found)


def _throttled_by(root: Path) -> tuple[str, ...]:
    devices = sysfs.in_order(root.glob("sys/class/thermal/cooling_device*"))
    told = [(sysfs.text(one / "type") or "", sysfs.number(one / "cur_state")) for one in devices]
    return tuple(name for name, state in told if HOLDS_CLOCKS.search(name) and (state or 0) > 0)


def _meminfo_mb(root: Path, name: str) -> int | None:
    meminfo = sysfs.text(root / "proc/meminfo") or ""
    found = re.search(rf"^{name}:\s*(\d+) kB", meminfo, re.MULTILINE)
    return int(found.group(1)) // 1024 if found else None


def _count(ranges: str | None) -> int | None:
    """Count the processors in a list such as `0-3,6`."""
    if ranges is None or not re.fullmatch(r"\d+(-\d+)?(,\d+(-\d+)?)*", ranges):
        return None
    pairs = [[int(end) for end in part.split("-")] for part in ranges.split(",")]
    return sum(pair[-1] - pair[0] + 1 for pair in pairs)
