"""How much of the processors something else than this process takes, as the kernel counts it."""

import os
import time
from pathlib import Path

from device_agent.board import sysfs

BUSY = (0, 1, 2, 5, 6, 7)
"""Columns of `/proc/stat` that are no rest: user, nice, system, both interrupts, stolen time."""


def others_s(root: Path = Path("/")) -> float | None:
    """Return seconds of processor time taken since the start by all but this process.

    All processors together, time that a hypervisor gave to others included; None where the system
    does not tell. The kernel counts in ticks of about 10 ms: only differences over many are good.
    """
    line = (sysfs.text(root / "proc/stat") or "").partition("\n")[0].split()
    if len(line) <= max(BUSY) + 1 or line[0] != "cpu":
        return None
    counts = [sysfs.as_number(line[1 + column]) for column in BUSY]
    if None in counts:
        return None
    ticks = sum(count for count in counts if count is not None)
    return ticks / os.sysconf("SC_CLK_TCK") - time.process_time()
