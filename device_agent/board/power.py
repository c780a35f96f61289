"""Power and energy: rails of INA monitors through hwmon, or the counters of Intel's RAPL.

A Jetson has one to three INA3221 of three channels each; the kernel's documentation of `ina3221`
names their files: `inN_label`, `inN_input` in mV, `currN_input` in mA, N from 1 to 3 (what stands
above 3 is the voltage over the shunts, no rail). On an AGX Thor the input of all the board, `VIN`,
is at an INA238: `curr1_input` in mA, `power1_input` in uW, its name in `label` or `in1_label`.
"""

import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Protocol

from device_agent.board import sysfs
from device_agent.checks import as_tuple, check_int, check_known, check_real, check_text, take

WHOLE_BOARD = ("VDD_IN", "VIN", "POM_5V_IN", "5V_IN")
"""Rails that feed all others: where a board has one, the others are parts of it."""
SINGLE_RAIL = ("ina238", "ina237", "ina228")
SAMPLE_S = 0.025
BLOCKS = 5
IDLE_SHARE = 0.3
"""Of the busy time: how long the board settles before the idle reading, and how long that is."""
COUNTER_S = 1.0
"""A counter of energy loses nothing between two readings: longer passes tell nothing more."""
SAMPLER_S = 10.0


class EnergyError(Exception):
    """The rails or counters stopped telling during a pass."""


@dataclass(frozen=True)
class Energy:
    """What one inference costs in energy, seen in a pass of its own.

    Attributes:
        mj_per_inference: millijoules that `source` delivered from start to end of the pass, by
            the runs of it. What an idle board draws is in it: see `mj_above_idle`.
        busy_w: mean power during the pass.
        idle_w: mean power just before it, with the network loaded and nothing running.
        runs: inferences of the pass.
        source: the rails or counters that were read.
        block_w: mean power of each block of the pass; they show whether it was steady.
        busy_s: length of the pass.
        settle_s: how long the board rested before idle power was read.
        interval_s: time between two samples of a rail; None for counters.
        samples: how often power was read during the pass.
    """

    mj_per_inference: float
    busy_w: float
    idle_w: float
    runs: int
    source: str
    block_w: tuple[float, ...] = ()
    busy_s: float = 0.0
    settle_s: float = 0.0
    interval_s: float | None = None
    samples: int = 0

    def __post_init__(self) -> None:
        for name in ("mj_per_inference", "busy_w", "idle_w", "busy_s", "settle_s"):
            check_real(f"Energy.{name}", getattr(self, name), 0.0, 1e12)
        check_real("Energy.runs", self.runs, 1, 2**53)
        check_text("Energy.source", self.source, 4096)
        for watt in self.block_w:
            check_real("Energy.block_w: one block", watt, -1e12, 1e12)
        check_known(check_real, "Energy.interval_s", self.interval_s, 0.0, 1e6)
        check_int("Energy.samples", self.samples, 0, 2**53)

    @property
    def mj_above_idle(self) -> float:
        """Millijoules an inference beyond what the idle board draws; noise can bring it under 0."""
        if self.busy_w == 0.0:
            return 0.0
        return self.mj_per_inference * (1.0 - self.idle_w / self.busy_w)

    def as_json(self) -> dict[str, object]:
        """Return the JSON object that `from_json` reads."""
        return {**asdict(self), "block_w": list(self.block_w)}

    @classmethod
    def from_json(cls, value: object) -> "Energy":
        """Build from a JSON object; raises `ProtocolError` naming field and value."""
        found = take("Energy", value, [field.name for field in fields(cls)])
        return cls(**{**found, "block_w": as_tuple("Energy.block_w", found["block_w"])})


@dataclass(frozen=True)
class Reading:
    """Mean power while something was done.

    Attributes:
        mean_w: in W.
        samples: how often it was read.
    """

    mean_w: float
    samples: int


class Meter(Protocol):
    """Tells how much power is drawn while something is done."""

    @property
    def source(self) -> str:
        """What is read."""

    @property
    def interval_s(self) -> float | None:
        """Time between two samples; None where nothing is sampled."""

    def busy_s(self, asked_s: float) -> float:
        """Return how long a pass has to be, of what was asked for."""

    def readings(self, works: Sequence[Callable[[], object]]) -> list[Reading]:
        """Do the works one after another and return the power meanwhile.

        Raises:
            EnergyError: nothing could be read.
            Exception: whatever a work raises.
        """


def measure_energy(
    run_once: Callable[[], object],
    meter: Meter,
    asked_s: float,
    sleep: Callable[[float], object] = time.sleep,
) -> Energy:
    """Let the board settle, look at it idle, then run the network in blocks.

    Args:
        run_once: runs the network once.
        meter: reads the power.
        asked_s: least length of all blocks together, in s; idle takes three tenths of it, and so
            does settling before.
        sleep: waits.

    Raises:
        EnergyError: nothing could be read.
        Exception: whatever `run_once` raises.
    """
    busy_s = meter.busy_s(asked_s)
    rest_s = IDLE_SHARE * busy_s
    runs: list[int] = []
    took_s: list[float] = []

    def block() -> None:
        start_s, count = time.monotonic(), 0
        while count == 0 or time.monotonic() - start_s < busy_s / BLOCKS:
            run_once()
            count += 1
        runs.append(count)
        took_s.append(time.monotonic() - start_s)

    sleep(rest_s)
    idle, *blocks = meter.readings([lambda: sleep(rest_s), *[block] * BLOCKS])
    joules = sum(one.mean_w * took for one, took in zip(blocks, took_s, strict=True))
    if idle.mean_w < 0 or joules < 0:
        raise EnergyError(f"{meter.source} reports a negative power: check its shunt")
    return Energy(
        mj_per_inference=1e3 * joules / sum(runs),
        busy_w=joules / sum(took_s),
        idle_w=idle.mean_w,
        runs=sum(runs),
        source=meter.source,
        block_w=tuple(one.mean_w for one in blocks),
        busy_s=sum(took_s),
        settle_s=rest_s,
        interval_s=meter.interval_s,
        samples=sum(one.samples for one in blocks),
    )


def find_meter(root: Path, sampler: Sequence[str]) -> Meter | None:
    """Return what the board's energy can be read by; None where it tells nothing.

    The meter of an input rail that cannot be read raises `EnergyError` when it is used.

    Args:
        root: where the board's `/sys` stands.
        sampler: command that runs `print_rails` over the labels that are added to it.
    """
    rails = find_rails(root)
    readable = [rail for rail in rails if rail.watts() is not None]
    if readable:
        # Also where it cannot be read: parts of a board do not stand for all of it.
        whole = next(([r] for name in WHOLE_BOARD for r in rails if r.label == name), readable)
        return RailMeter(whole, sampler)
    counters = [
        counter
        for counter in sysfs.in_order(root.glob("sys/class/powercap/intel-rapl:?"))
        if sysfs.number(counter / "energy_uj") is not None
    ]
    return CounterMeter(counters) if counters else None


@dataclass(frozen=True)
class Rail:
    """One rail that a monitor sees; its files are looked for once.

    Attributes:
        label: such as `VDD_IN`.
        chip: kind of the monitor, such as `ina3221`.
        volt: file of its voltage in mV.
        ampere: file of its current in mA, which may be negative.
        power: file of its power in uW, where the chip works that out; it has no sign.
    """

    label: str
    chip: str
    volt: Path
    ampere: Path
    power: Path | None = None

    def watts(self) -> float | None:
        """Return the power that it delivers now; negative where current flows back."""
        ampere = sysfs.number(self.ampere, 1e-3)
        if self.power is not None:
            watt = sysfs.number(self.power, 1e-6)
            return -watt if watt is not None and (ampere or 0.0) < 0 else watt
        volt = sysfs.number(self.volt, 1e-3)
        return None if volt is None or ampere is None else round(volt * ampere, 6)


def find_rails(root: Path) -> list[Rail]:
    """Return the rails of all monitors, in their order."""
    return [
        rail for one in sysfs.in_order(root.glob("sys/class/hwmon/hwmon*")) for rail in _of(one)
    ]


def _of(monitor: Path) -> Iterator[Rail]:
    chip = sysfs.text(monitor / "name") or ""
    channels = (1, 2, 3) if chip == "ina3221" else (1,) if chip in SINGLE_RAIL else ()
    for channel in channels:
        names = [f"in{channel}_label"]
        names += ["power1_label", "label"] if chip in SINGLE_RAIL else []
        told = (sysfs.text(monitor / name) for name in names)
        label = next((text for text in told if text), None)
        power = monitor / "power1_input" if chip in SINGLE_RAIL else None
        if label and label != "NC":
            volt, ampere = (monitor / f"{kind}{channel}_input" for kind in ("in", "curr"))
            yield Rail(label, chip, volt, ampere, power)


def rails_w(root: Path) -> tuple[tuple[str, float], ...]:
    """Return the power of every rail that a monitor sees now, in W."""
    told = ((rail.label, rail.watts()) for rail in find_rails(root))
    return tuple((label, watt) for label, watt in told if watt is not None)


def unreadable_rails(root: Path) -> tuple[str, ...]:
    """Return the labels of rails whose power cannot be read."""
    return tuple(rail.label for rail in find_rails(root) if rail.watts() is None)


def print_rails(root: Path, labels: Sequence[str], interval_s: float = SAMPLE_S) -> None:
    """Sample rails until standard input ends, then print time and summed power of every sample.

    Run in a process of its own: beside a network that computes, a thread would sample when the
    interpreter lets it.
    """
    rails = [rail for rail in find_rails(root) if rail.label in labels]
    lines: list[str] = []
    print("ready", flush=True)
    ended = False
    while not ended:
        watts = [rail.watts() for rail in rails]
        known = [watt for watt in watts if watt is not None]
        total = sum(known) if known and len(known) == len(watts) else None
        lines.append(f"{time.monotonic()!r} {total!r}")
        ended = bool(select.select([sys.stdin], [], [], interval_s)[0])
    print("\n".join(lines), flush=True)


class RailMeter:
    """Keeps to `Meter`: reads the power of rails every few milliseconds in another process."""

    interval_s: float | None = SAMPLE_S

    def __init__(self, rails: Sequence[Rail], sampler: Sequence[str]) -> None:
        """Keep which rails to add, and the command that reads them."""
        labels = [rail.label for rail in rails]
        chips = dict.fromkeys(rail.chip.upper() for rail in rails)
        self._command = [*sampler, *labels]
        self.source = f"{' + '.join(chips)} {' + '.join(labels)}"

    def busy_s(self, asked_s: float) -> float:
        """All that is asked for: a rail is averaged by its chip, and sampled."""
        return asked_s

    def readings(self, works: Sequence[Callable[[], object]]) -> list[Reading]:
        """Read in a process of its own while the works are done here."""
        spans: list[tuple[float, float]] = []
        try:
            sampler = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
        except OSError as error:
            raise EnergyError(f"{self.source} cannot be sampled: {error}") from error
        assert sampler.stdin and sampler.stdout
        try:
            if sampler.stdout.readline().strip() != "ready":
                raise EnergyError(f"{self.source} cannot be sampled: see the job's log")
            for work in works:
                start_s = time.monotonic()
                work()
                spans.append((start_s, time.monotonic()))
            said, _ = sampler.communicate(timeout=SAMPLER_S)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise EnergyError(f"{self.source} cannot be sampled: {error}") from error
        finally:
            sampler.kill()
            sampler.wait()
        try:
            samples = [(float(at_s), watt) for at_s, watt in map(str.split, said.splitlines())]
            return [self._mean(samples, *span) for span in spans]
        except ValueError as error:
            raise EnergyError(f"{self.source}: the samples are not readable: {error}") from error

    def _mean(self, samples: list[tuple[float, str]], start_s: float, end_s: float) -> Reading:
        """Return the mean power from the last sample before a span to the first one after it."""
        before = max((at_s for at_s, _ in samples if at_s <= start_s), default=start_s)
        after = min((at_s for at_s, _ in samples if at_s >= end_s), default=end_s)
        within = [(at_s, watt) for at_s, watt in samples if before <= at_s <= after]
        told = [(at_s, float(watt)) for at_s, watt in within if watt != "None"]
        # A driver that is busy now and then costs a sample, a rail that has gone costs them all.
        if len(told) < 2 or len(told) < len(within) / 2:
            raise EnergyError(f"{self.source} could not be read any more: look at hwmon")
        joules = sum(
            (next_s - at_s) * (watt + next_watt) / 2
            for (at_s, watt), (next_s, next_watt) in pairwise(told)
        )
        return Reading(joules / (told[-1][0] - told[0][0]), len(told))


class CounterMeter:
    """Keeps to `Meter`: takes the difference of counters of energy, one a processor package."""

    interval_s: float | None = None

    def __init__(self, counters: list[Path]) -> None:
        """Keep the counters' folders."""
        self._counters = counters
        names = (sysfs.text(counter / "name") or counter.name for counter in counters)
        self.source = "RAPL " + " + ".join(names)

    def busy_s(self, asked_s: float) -> float:
        """A second at most."""
        return min(asked_s, COUNTER_S)

    def readings(self, works: Sequence[Callable[[], object]]) -> list[Reading]:
        """Read before and after each work."""
        return [Reading(self._mean_w(work), 2) for work in works]

    def _mean_w(self, work: Callable[[], object]) -> float:
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
