"""Power and energy: rails of INA3221 monitors through hwmon, or the counters of Intel's RAPL.

A Jetson has one to three INA3221 of three channels each; the kernel's documentation of `ina3221`
names their files: `inN_label`, `inN_input` in mV, `currN_input` in mA, N from 1 to 3 (what stands
above 3 is the voltage over the shunts, no rail).
"""

import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Protocol

from device_agent.board import sysfs
from device_agent.checks import check_real, check_text, take

WHOLE_BOARD = ("VDD_IN", "VIN", "POM_5V_IN", "5V_IN")
"""Rails that feed all others: where a board has one, the others are parts of it."""
SAMPLE_S = 0.01
IDLE_S = 0.5


class EnergyError(Exception):
    """The rails or counters stopped telling during a pass."""


@dataclass(frozen=True)
class Energy:
    """What one inference costs in energy, seen in a pass of its own.

    Attributes:
        mj_per_inference: millijoules that `source` delivered from start to end of the pass, by
            the runs of it. What an idle board draws is in it: `idle_w` tells how much that is.
        busy_w: mean power during the pass.
        idle_w: mean power just before it, with the network loaded and nothing running.
        runs: inferences of the pass.
        source: the rails or counters that were read.
    """

    mj_per_inference: float
    busy_w: float
    idle_w: float
    runs: int
    source: str

    def __post_init__(self) -> None:
        for name in ("mj_per_inference", "busy_w", "idle_w"):
            check_real(f"Energy.{name}", getattr(self, name), 0.0, 1e12)
        check_real("Energy.runs", self.runs, 1, 2**53)
        check_text("Energy.source", self.source, 4096)

    def as_json(self) -> dict[str, object]:
        """Return the JSON object that `from_json` reads."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: object) -> "Energy":
        """Build from a JSON object; raises `ProtocolError` naming field and value."""
        return cls(**take("Energy", value, [field.name for field in fields(cls)]))


class Meter(Protocol):
    """Tells how much power is drawn while something is done."""

    @property
    def source(self) -> str:
        """What is read."""

    def mean_w(self, work: Callable[[], object]) -> float:
        """Do the work and return the mean power meanwhile, in W.

        Raises:
            EnergyError: nothing could be read.
            Exception: whatever `work` raises.
        """


def measure_energy(
    run_once: Callable[[], object],
    meter: Meter,
    least_s: float,
    sleep: Callable[[float], object] = time.sleep,
) -> Energy:
    """Look at the idle board, then run the network again and again for at least `least_s`.

    Raises:
        EnergyError: nothing could be read.
        Exception: whatever `run_once` raises.
    """
    runs, took_s = 0, 0.0

    def repeat() -> None:
        nonlocal runs, took_s
        start_s = time.monotonic()
        while runs == 0 or took_s < least_s:
            run_once()
            runs += 1
            took_s = time.monotonic() - start_s

    idle_w = meter.mean_w(lambda: sleep(IDLE_S))
    busy_w = meter.mean_w(repeat)
    return Energy(1e3 * busy_w * took_s / runs, busy_w, idle_w, runs, meter.source)


def find_meter(root: Path) -> Meter | None:
    """Return what the board's energy can be read by; None where it tells nothing."""
    labels = tuple(label for label, _ in rails_w(root))
    if labels:
        return RailMeter(root, next(([one] for one in WHOLE_BOARD if one in labels), labels))
    counters = [
        counter
        for counter in sysfs.in_order(root.glob("sys/class/powercap/intel-rapl:?"))
        if sysfs.number(counter / "energy_uj") is not None
    ]
    return CounterMeter(counters) if counters else None


def rails_w(root: Path) -> tuple[tuple[str, float], ...]:
    """Return the power of every rail that an INA3221 sees now, in W."""
    found = []
    for monitor in sysfs.in_order(root.glob("sys/class/hwmon/hwmon*")):
        if sysfs.text(monitor / "name") != "ina3221":
            continue
        for channel in (1, 2, 3):
            label = sysfs.text(monitor / f"in{channel}_label")
            volt = sysfs.number(monitor / f"in{channel}_input", 1e-3)
            ampere = sysfs.number(monitor / f"curr{channel}_input", 1e-3)
            if label and label != "NC" and volt is not None and ampere is not None:
                found.append((label, round(abs(volt * ampere), 6)))
    return tuple(found)


class RailMeter:
    """Keeps to `Meter`: reads the power of rails every few milliseconds."""

    def __init__(self, root: Path, labels: "list[str] | tuple[str, ...]") -> None:
        """Keep where to read and which rails to add."""
        self._root = root
        self._labels = frozenset(labels)
        self.source = "INA3221 " + " + ".join(labels)

    def mean_w(self, work: Callable[[], object]) -> float:
        """Read in a thread while the work is done here."""
        samples = [self._sample()]
        done = threading.Event()

        def watch() -> None:
            while not done.wait(SAMPLE_S):
                samples.append(self._sample())

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            work()
        finally:
            done.set()
            watcher.join()
        samples.append(self._sample())
        told = [(at_s, watt) for at_s, watt in samples if watt is not None]
        # A driver that is busy now and then costs a sample, a rail that has gone costs them all.
        if len(told) < 2 or len(told) < len(samples) / 2:
            raise EnergyError(f"{self.source} could not be read any more: look at hwmon")
        joules = sum(
            (next_s - at_s) * (watt + next_watt) / 2
            for (at_s, watt), (next_s, next_watt) in pairwise(told)
        )
        return joules / (told[-1][0] - told[0][0])

    def _sample(self) -> tuple[float, float | None]:
        rails = [watt for label, watt in rails_w(self._root) if label in self._labels]
        return time.monotonic(), sum(rails) if len(rails) >= len(self._labels) else None


class CounterMeter:
    """Keeps to `Meter`: takes the difference of counters of energy, one a processor package."""

    def __init__(self, counters: list[Path]) -> None:
        """Keep the counters' folders."""
        self._counters = counters
        names = (sysfs.text(counter / "name") or counter.name for counter in counters)
        self.source = "RAPL " + " + ".join(names)

    def mean_w(self, work: Callable[[], object]) -> float:
        """Read before and after the work."""
        start_s = time.monotonic()
        before = [sysfs.number(counter / "energy_uj") for counter in self._counters]
        work()
        took_s = time.monotonic() - start_s
        joules = 0.0
        for counter, start_uj in zip(self._counters, before, strict=True):
            end_uj = sysfs.number(counter / "energy_uj")
            if start_uj is None or end_uj is None:
                raise EnergyError(f"{counter} could not be read any more: look at its rights")
            if end_uj < start_uj:  # The counter went round.
                end_uj += sysfs.number(counter / "max_energy_range_uj") or 0.0
            joules += max(end_uj - start_uj, 0.0) / 1e6
        return joules / took_s
