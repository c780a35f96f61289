"""Jetsons as their own files describe them: the truth that a check of a virtual board has to tell.

Names, numbers and layouts are those of Jetson Linux R35 to R39; values that differ from unit to
unit (temperatures, currents, idle clocks) are plausible ones.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

UNREADABLE = "unreadable"
"""Content of a file that can be opened and not read, such as a sensor without power."""
CPU = "sys/devices/system/cpu"
HWMON = "sys/class/hwmon/hwmon"
THERMAL = "sys/class/thermal"
DEVFREQ = "sys/class/devfreq"


@dataclass(frozen=True)
class Mode:
    """A power mode of `nvpmodel`.

    Attributes:
        name: as in `/etc/nvpmodel.conf`.
        cores: processors that it leaves on.
        cpu_khz: the most that it allows them.
        gpu_hz: the most that it allows the GPU.
    """

    name: str
    cores: int
    cpu_khz: int
    gpu_hz: int


@dataclass(frozen=True)
class Rail:
    """One rail of a power monitor; its current is negative where it flows back."""

    label: str
    mv: int
    ma: int

    @property
    def watts(self) -> float:
        """The power that it delivers."""
        return self.mv * self.ma / 1e6


@dataclass(frozen=True)
class Jetson:
    """One model of board with its system.

    Attributes:
        kind: a short name of it.
        model: as in `/proc/device-tree/model`.
        release: major version of L4T.
        revision: the rest of that version.
        jetpack: major version of JetPack.
        kernel: its release.
        driver: version of NVIDIA's driver.
        memory_kb: as in `/proc/meminfo`.
        clusters: first processor of each cluster that has a clock of its own.
        gpu: name of the GPU's devfreq device.
        modes: power modes by their number; none where there is no nvpmodel.
        mode: number of the one that is set.
        fastest: number of the one without limits.
        monitors: power monitors, each its chip and up to three rails (`NC`: not connected).
        zones: thermal zones and thousandths of a degree; None where a zone cannot be read.
        counters: over-current counters of its supply monitor.
        cooling: cooling devices, the fan first.
        fan_mode: what follows the power mode in nvpmodel's status.
        idle_khz: clock of an idle processor.
        idle_gpu_hz: clock of the idle GPU.
        video: devfreq device that clocks no networks, and its clock.
        memory_hz: clock of memory and its limit, where every user may read them.
        rpm: of the fan.
    """

    kind: str
    model: str
    release: str
    revision: str
    jetpack: str
    kernel: str
    driver: str
    memory_kb: int
    clusters: tuple[int, ...]
    gpu: str
    modes: tuple[Mode, ...]
    mode: int
    fastest: int
    monitors: tuple[tuple[str, tuple[Rail, ...]], ...]
    zones: tuple[tuple[str, int | None], ...]
    counters: tuple[str, ...] = ("oc1", "oc2", "oc3")
    cooling: tuple[str, ...] = (
        "pwm-fan",
        "cpu-throttle-alert",
        "gpu-throttle-alert",
        "hot-surface-alert",
    )
    fan_mode: str = ""
    idle_khz: int = 729600
    idle_gpu_hz: int = 306_000_000
    video: tuple[str, int] | None = None
    memory_hz: tuple[int, int] | None = None
    rpm: int = 1790
    available_kb: int = field(default=5_242_880)

    @property
    def l4t(self) -> str:
        """The release as people write it."""
        return f"R{self.release}.{self.revision}"

    @property
    def rails(self) -> tuple[Rail, ...]:
        """Every rail that is connected."""
        return tuple(rail for _, rails in self.monitors for rail in rails if rail.label != "NC")


SUPER_CARRIER = "Engineering Reference Developer Kit Super"

ORIN_NANO = Jetson(
    kind="nano",
    model=f"NVIDIA Jetson Orin Nano {SUPER_CARRIER}",
    release="36",
    revision="4.3",
    jetpack="6",
    kernel="5.15.148-tegra",
    driver="540.4.0",
    memory_kb=7_802_220,
    clusters=(0, 4),
    gpu="17000000.gpu",
    modes=(
        Mode("15W", 6, 1_510_400, 612_000_000),
        Mode("25W", 6, 1_344_000, 918_000_000),
        Mode("MAXN_SUPER", 6, 1_728_000, 1_020_000_000),
    ),
    mode=0,
    fastest=2,
    monitors=(
        (
            "ina3221",
            (
                Rail("VDD_IN", 5040, 1200),
                Rail("VDD_CPU_GPU_CV", 5040, 208),
                Rail("VDD_SOC", 5040, 304),
            ),
        ),
    ),
    zones=(
        ("cpu-thermal", 48_531),
        ("gpu-thermal", 47_968),
        ("cv0-thermal", None),
        ("soc0-thermal", 47_406),
        ("tj-thermal", 48_531),
    ),
)

ORIN_NX = Jetson(
    kind="nx",
    model=f"NVIDIA Jetson Orin NX {SUPER_CARRIER}",
    release="36",
    revision="4.3",
    jetpack="6",
    kernel="5.15.148-tegra",
    driver="540.4.0",
    memory_kb=16_073_216,
    clusters=(0, 4),
    gpu="17000000.gpu",
    modes=(
        Mode("MAXN_SUPER", 8, 1_984_000, 1_173_000_000),
        Mode("10W", 4, 1_190_400, 612_000_000),
        Mode("15W", 4, 1_420_800, 612_000_000),
        Mode("25W", 8, 1_497_600, 408_000_000),
        Mode("40W", 8, 1_497_600, 1_173_000_000),
    ),
    mode=3,
    fastest=0,
    monitors=(
        (
            "ina3221",
            (
                Rail("VDD_IN", 19_096, 392),
                Rail("VDD_CPU_GPU_CV", 19_096, 64),
                Rail("VDD_SOC", 19_096, 112),
            ),
        ),
    ),
    zones=(("cpu-thermal", 52_000), ("gpu-thermal", 50_875), ("tj-thermal", 52_000)),
    available_kb=13_107_200,
)

AGX_ORIN = Jetson(
    kind="agx-orin",
    model="Jetson AGX Orin Developer Kit",
    release="35",
    revision="4.1",
    jetpack="5",
    kernel="5.10.120-tegra",
    driver="35.4.1",
    memory_kb=64_349_020,
    clusters=(0, 4, 8),
    gpu="17000000.ga10b",
    modes=(
        Mode("MAXN", 12, 2_201_600, 1_300_500_000),
        Mode("MODE_15W", 4, 1_113_600, 420_750_000),
        Mode("MODE_30W", 8, 1_728_000, 624_750_000),
        Mode("MODE_50W", 12, 1_497_600, 828_750_000),
    ),
    mode=2,
    fastest=0,
    monitors=(
        (
            "ina3221",
            (
                Rail("VDD_GPU_SOC", 19_856, 160),
                Rail("VDD_CPU_CV", 19_856, 40),
                Rail("VIN_SYS_5V0", 5024, 752),
            ),
        ),
        ("ina3221", (Rail("NC", 0, 0), Rail("VDDQ_VDD2_1V8AO", 5024, 96), Rail("NC", 0, 0))),
    ),
    zones=(
        ("CPU-therm", 44_093),
        ("GPU-therm", 41_562),
        ("Tboard_tegra", 35_750),
        ("Tdiode_tegra", 36_000),
        ("tj-therm", 44_093),
    ),
    fan_mode="fmode:quiet",
    available_kb=60_000_000,
)

AGX_THOR = Jetson(
    kind="thor",
    model="NVIDIA Jetson AGX Thor Developer Kit",
    release="39",
    revision="2.0",
    jetpack="7",
    kernel="6.8.12-1021-tegra",
    driver="595.58.03",
    memory_kb=128_786_432,
    clusters=(0, 2, 4, 6, 8, 10, 12),
    gpu="gpu-gpc-0",
    modes=(
        Mode("MAXN", 14, 2_601_000, 1_575_000_000),
        Mode("120W", 14, 2_601_000, 1_386_000_000),
        Mode("90W", 12, 1_998_000, 1_098_000_000),
        Mode("70W", 12, 1_701_000, 1_098_000_000),
    ),
    mode=1,
    fastest=0,
    monitors=(
        (
            "ina3221",
            (
                Rail("VDD_GPU", 12_032, 0),
                Rail("VDD_CPU_SOC_MSS", 12_032, 544),
                Rail("VIN_SYS_5V0", 5024, -8),
            ),
        ),
        ("ina238", (Rail("VIN", 19_968, 1152),)),
    ),
    zones=(("cpu-thermal", 53_687), ("gpu-thermal", None), ("tj-thermal", 55_125)),
    counters=(),
    idle_khz=972_000,
    idle_gpu_hz=315_000_000,
    video=("gpu-nvd-0", 1_692_000_000),
    memory_hz=(3_200_000_000, 4_266_000_000),
    available_kb=120_000_000,
)

JETSONS = (ORIN_NANO, ORIN_NX, AGX_ORIN, AGX_THOR)


def files(board: Jetson, mode: int, pinned: bool) -> dict[str, str]:
    """Return the files of a board that has just started, by their path without the first slash.

    Args:
        board: whose.
        mode: number of its power mode.
        pinned: whether `jetson_clocks` was run.
    """
    return {
        **_system(board, mode),
        **dict(_clocks(board, mode, pinned)),
        **dict(_monitors(board)),
        **dict(_thermal(board)),
    }


def _system(board: Jetson, mode: int) -> dict[str, str]:
    memory = f"MemTotal: {board.memory_kb} kB\nMemFree: {board.available_kb} kB\n"
    release = f"# R{board.release} (release), REVISION: {board.revision}, GCID: 38968081, "
    cpus = "processor\t: {}\nBogoMIPS\t: 62.50\nCPU implementer\t: 0x41\nCPU part\t: 0xd42\n"
    found = {
        "proc/device-tree/model": f"{board.model}\0",
        "proc/driver/nvidia/version": (
            "NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  "
            f"{board.driver}  Release Build  (buildbrain@mobile)\n"
        ),
        "proc/meminfo": f"{memory}MemAvailable: {board.available_kb} kB\n",
        "proc/loadavg": "0.10 0.08 0.05 1/420 4242\n",
        # Nothing but what is measured takes time: the processors are the host's, its load is not.
        "proc/stat": "cpu  5000 0 3000 900000 100 0 50 0 0 0\n",
        "proc/cpuinfo": "\n".join(cpus.format(core) for core in range(most_cores(board))),
        "etc/nv_tegra_release": f"{release}BOARD: generic, EABI: aarch64, DATE: x\n",
    }
    if board.modes:
        head = "< PARAM TYPE=FILE NAME=CPU_ONLINE >\nCORE_1 /sys/devices/system/cpu/cpu1/online\n"
        modes = [f"< POWER_MODEL ID={k} NAME={m.name} >\n" for k, m in enumerate(board.modes)]
        default = f"< PM_CONFIG DEFAULT={board.mode} >\n"
        found["etc/nvpmodel.conf"] = head + "".join(modes) + default
        found["var/lib/nvpmodel/status"] = f"pmode:{mode:04} {board.fan_mode}".strip() + "\n"
    return found


def most_cores(board: Jetson) -> int:
    """Return how many processors the board has."""
    return max((mode.cores for mode in board.modes), default=6)


def limits(board: Jetson, mode: int) -> Mode:
    """Return what a power mode allows; without nvpmodel everything."""
    return board.modes[mode] if board.modes else Mode("", 6, 1_728_000, 1_020_000_000)


def clusters_on(board: Jetson, mode: int) -> tuple[int, ...]:
    """Return the clusters that a power mode leaves on, by their first processor."""
    return tuple(first for first in board.clusters if first < limits(board, mode).cores)


def _clocks(board: Jetson, mode: int, pinned: bool) -> Iterator[tuple[str, str]]:
    allowed = limits(board, mode)
    last = most_cores(board) - 1
    yield f"{CPU}/possible", f"0-{last}\n"
    yield f"{CPU}/present", f"0-{last}\n"
    yield f"{CPU}/kernel_max", "15\n"
    yield f"{CPU}/online", f"0-{allowed.cores - 1}\n"
    governor = "performance" if pinned else "schedutil"
    for first in clusters_on(board, mode):
        now = allowed.cpu_khz if pinned else board.idle_khz
        for name, said in (
            ("scaling_cur_freq", now),
            ("scaling_max_freq", allowed.cpu_khz),
            ("scaling_governor", governor),
        ):
            yield f"{CPU}/cpufreq/policy{first}/{name}", f"{said}\n"
            if first == 0:
                yield f"{CPU}/cpu0/cpufreq/{name}", f"{said}\n"
    gpu = allowed.gpu_hz if pinned else board.idle_gpu_hz
    yield f"{DEVFREQ}/{board.gpu}/cur_freq", f"{gpu}\n"
    yield f"{DEVFREQ}/{board.gpu}/max_freq", f"{allowed.gpu_hz}\n"
    yield f"{DEVFREQ}/15340000.vic/cur_freq", "435200000\n"
    if board.video:
        name, hz = board.video
        yield f"{DEVFREQ}/{name}/cur_freq", f"{hz // 2}\n"
        yield f"{DEVFREQ}/{name}/max_freq", f"{hz}\n"
    if board.memory_hz:
        now, most = board.memory_hz
        yield f"{DEVFREQ}/bwmgr/cur_freq", f"{most if pinned else now}\n"
        yield f"{DEVFREQ}/bwmgr/max_freq", f"{most}\n"


def _monitors(board: Jetson) -> Iterator[tuple[str, str]]:
    yield f"{HWMON}0/name", "pwmfan\n"
    yield f"{HWMON}1/name", "pwm_tach\n"
    yield f"{HWMON}1/rpm", f"{board.rpm}\n"
    for number, (chip, rails) in enumerate(board.monitors, 2):
        yield f"{HWMON}{number}/name", f"{chip}\n"
        for channel, rail in enumerate(rails, 1):
            single = chip != "ina3221"
            label = "label" if single else f"in{channel}_label"
            yield f"{HWMON}{number}/{label}", f"{rail.label}\n"
            yield f"{HWMON}{number}/in{channel}_input", f"{rail.mv}\n"
            yield f"{HWMON}{number}/curr{channel}_input", f"{rail.ma}\n"
            if single:
                yield f"{HWMON}{number}/in0_input", "0\n"
                yield f"{HWMON}{number}/power1_input", f"{rail.mv * abs(rail.ma)}\n"
        if chip == "ina3221":
            yield f"{HWMON}{number}/in7_label", "sum of shunt voltages\n"
            yield f"{HWMON}{number}/in7_input", "9\n"
    last = 2 + len(board.monitors)
    if board.counters:
        yield f"{HWMON}{last}/name", "soctherm_oc\n"
    for counter in board.counters:
        yield f"{HWMON}{last}/{counter}_event_cnt", "0\n"
        yield f"{HWMON}{last}/{counter}_throt_en", "1\n"


def _thermal(board: Jetson) -> Iterator[tuple[str, str]]:
    for number, (zone, millidegrees) in enumerate(board.zones):
        yield f"{THERMAL}/thermal_zone{number}/type", f"{zone}\n"
        said = UNREADABLE if millidegrees is None else f"{millidegrees}\n"
        yield f"{THERMAL}/thermal_zone{number}/temp", said
    for number, kind in enumerate(board.cooling):
        yield f"{THERMAL}/cooling_device{number}/type", f"{kind}\n"
        yield f"{THERMAL}/cooling_device{number}/cur_state", f"{int(kind == 'pwm-fan')}\n"
