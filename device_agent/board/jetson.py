"""What only a Jetson tells: its release of L4T, its power mode, its clock of memory.

Layout as in NVIDIA's Jetson Linux Developer Guide for R35 and R36 (platform power and
performance); what a release puts elsewhere is None.
"""

import re
from pathlib import Path

from device_agent.board import sysfs

RELEASE = re.compile(r"#\s*R(\d+)\s*\(release\),\s*REVISION:\s*([\d.]+)")
JETPACK_OF = {"32": "4", "35": "5", "36": "6", "38": "7"}
"""JetPack's major version by that of L4T."""
EMC = ("sys/kernel/debug/bpmp/debug/clk/emc/rate", "sys/kernel/debug/clk/emc/clk_rate")


def l4t(root: Path) -> str | None:
    """Return the release of L4T, such as `R36.4.3`."""
    found = RELEASE.match(sysfs.text(root / "etc/nv_tegra_release") or "")
    return f"R{found.group(1)}.{found.group(2)}" if found else None


def jetpack(root: Path) -> str | None:
    """Return the major version of JetPack that brought this L4T."""
    release = l4t(root)
    return JETPACK_OF.get(release[1:].split(".")[0]) if release else None


def power_mode(root: Path) -> str | None:
    """Return `nvpmodel`'s mode, named where the board's table is there: `pmode:0001 25W`."""
    mode = sysfs.text(root / "var/lib/nvpmodel/status")
    number = re.fullmatch(r"pmode:0*(\d+)", mode or "")
    if number is None:
        return mode
    table = sysfs.text(root / "etc/nvpmodel.conf") or ""
    named = re.search(rf"<\s*POWER_MODEL\s+ID=0*{number.group(1)}\s+NAME=(\S+)\s*>", table)
    return f"{mode} {named.group(1)}" if named else mode


def emc_mhz(root: Path) -> float | None:
    """Return the clock of memory; None where debugfs is closed, as it is to all but root."""
    rates = (sysfs.number(root / name, 1e-6) for name in EMC)
    return next((rate for rate in rates if rate), None)
