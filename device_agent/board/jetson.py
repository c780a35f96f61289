"""What only a Jetson tells: its release of L4T, its power modes, its clock of memory.

Layout as in NVIDIA's Jetson Linux Developer Guide for R35 to R39 (platform power and
performance); what a release puts elsewhere is None.
"""

import re
from pathlib import Path

from device_agent.board import sysfs

RELEASE = re.compile(r"#\s*R(\d+)\s*\(release\),\s*REVISION:\s*([\d.]+)")
JETPACK_OF = {"32": "4", "35": "5", "36": "6", "38": "7", "39": "7"}
"""JetPack's major version by that of L4T."""
EMC_DEBUG = ("sys/kernel/debug/bpmp/debug/clk/emc/rate", "sys/kernel/debug/clk/emc/clk_rate")
BWMGR = "sys/class/devfreq/bwmgr"
"""Of R38 and later: the clock of memory that every user may read."""
POWER_MODEL = re.compile(r"^\s*<\s*POWER_MODEL\s+([^>]*)>", re.MULTILINE)
COMPUTE_GPU = re.compile(r"gpu|ga10b|gv11b|gp10b")
"""Names of devfreq devices of the GPU: `17000000.gpu`, of R35 `17000000.ga10b`, of Thor
`gpu-gpc-0`."""
NO_COMPUTE = re.compile(r"nvd")
"""Of Thor, `gpu-nvd-0` clocks the video decoders alone."""


def l4t(root: Path) -> str | None:
    """Return the release of L4T, such as `R36.4.3`."""
    found = RELEASE.match(sysfs.text(root / "etc/nv_tegra_release") or "")
    return f"R{found.group(1)}.{found.group(2)}" if found else None


def jetpack(root: Path) -> str | None:
    """Return the major version of JetPack that brought this L4T."""
    release = l4t(root)
    return JETPACK_OF.get(release[1:].split(".")[0]) if release else None


def power_mode(root: Path) -> str | None:
    """Return `nvpmodel`'s mode, named where the board's table is there: `pmode:0001 25W`.

    The fan mode that may follow it is left out: it sets no clock.
    """
    status = sysfs.text(root / "var/lib/nvpmodel/status")
    mode = re.match(r"(pmode:0*(\d+))(\s|$)", status or "")
    if mode is None:
        return status
    name = power_modes(root).get(int(mode.group(2)))
    return f"{mode.group(1)} {name}" if name else mode.group(1)


def power_modes(root: Path) -> dict[int, str]:
    """Return the names of the board's power modes by their number, from `/etc/nvpmodel.conf`."""
    found = {}
    for entry in POWER_MODEL.findall(sysfs.text(root / "etc/nvpmodel.conf") or ""):
        number = re.search(r"\bID=(\d+)", entry)
        name = re.search(r"\bNAME=(\S+)", entry)
        if number and name:
            found[int(number.group(1))] = name.group(1)
    return found


def fastest_mode(root: Path) -> str | None:
    """Return the mode without limits, such as `2 MAXN_SUPER`; None where no table names modes.

    It is known by its name, for its number differs from board to board: on Orin Nano Super mode 0
    is the slowest. Without a MAXN it is the one of the most watts (`MODE_20W_6CORE`), and of these
    the one of the most cores.
    """

    def rank(number: int, name: str) -> tuple[bool, bool, int, int, int]:
        watts, cores = re.search(r"(\d+)W", name), re.search(r"(\d+)CORE", name)
        return (
            "MAXN" in name,
            "SUPER" in name,
            int(watts.group(1)) if watts else 0,
            int(cores.group(1)) if cores else 0,
            -number,
        )

    modes = power_modes(root)
    if not modes:
        return None
    fastest = max(modes, key=lambda number: rank(number, modes[number]))
    known = "MAXN" in modes[fastest] or re.search(r"\d+W", modes[fastest])
    return f"{fastest} {modes[fastest]}" if known else None


def is_compute_clock(name: str) -> bool:
    """Whether a devfreq device of this name clocks what a network runs on."""
    return bool(COMPUTE_GPU.search(name)) and not NO_COMPUTE.search(name)


def emc_mhz(root: Path) -> float | None:
    """Return the clock of memory; before R38 it is in debugfs, which only root may read."""
    rates = (sysfs.number(root / name, 1e-6) for name in (*EMC_DEBUG, f"{BWMGR}/cur_freq"))
    return next((rate for rate in rates if rate), None)


def emc_limit_mhz(root: Path) -> float | None:
    """Return the most that settings allow the clock of memory; None where that is not told."""
    return sysfs.number(root / BWMGR / "max_freq", 1e-6)
