"""Time any ONNX file on a device, alone or against a baseline: what `fusion-nas time` does."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from device_agent.wire.request import MeasureRequest
from device_agent.wire.result import MeasureResult, Status
from evaluators.devices.registry import LOCAL
from evaluators.onnx.inputs import input_specs
from evaluators.statistics.ratio import ratio_in_turns
from search_space.errors import SLOWER, FusionNasError
from studies.config.home import devices, home
from studies.config.options import DeviceOptions, runtime_of
from studies.config.usage import UsageError
from studies.results.text import ms

Shapes = Mapping[str, Sequence[int]]
ORDER = "ABBAABBA"
"""Readings of a file (A) and of its baseline (B). A load that changes steadily cancels out in each
ABBA. The interval is estimated from the ratios of the pairs."""


class SlowerThanBaseline(FusionNasError):
    """A network is slower than its baseline by more than the tolerance."""

    exit_code = SLOWER


class TimingDevice:
    """An open device that times ONNX files; made by `timing_device`."""

    def __init__(self, options: DeviceOptions, client: Any) -> None:
        self._options, self._client = options, client
        self.name = options.names[0]
        self.fingerprint: str = client.hello().fingerprint
        self.way_out = "stop other programs, and repeat the command"
        """What to do where a reading is not stable."""
        if options.alone:
            self.way_out = "stop other programs, or give --timing shared"

    def time(self, path: Path, shapes: Shapes) -> MeasureResult:
        """Compile a file and time it.

        Raises:
            ValueError: For an input of unknown extents.
            FusionNasError: The device cannot be asked, or cannot run the network.
        """
        # It loads PyTorch: commands that time nothing start without.
        from evaluators.latency.evaluator import (
            BOARD_TIMING,
            LOCAL_TIMING,
            MeasureError,
            deadline_of,
        )

        kind, provider = runtime_of(self._options.runtime)
        inputs = input_specs(path, shapes)
        request = MeasureRequest(
            hashlib.sha256(path.read_bytes()).hexdigest(),
            inputs,
            kind,
            provider,
            BOARD_TIMING if self._options.alone else LOCAL_TIMING,
            threads=self._options.runtime_threads,
            deadline_s=deadline_of(kind),
        )
        result: MeasureResult = self._client.measure(path, request)
        if result.status is not Status.OK:
            raise MeasureError(f"{path.name} on {self.name}: {result.reason}")
        return result


@contextmanager
def timing_device(options: DeviceOptions) -> Iterator[TimingDevice]:
    """Open the one device of `options`, and close it in the end. Raises UsageError for several."""
    if len(options.names) > 1 or options.boards.unlike:
        raise UsageError(f"--device {', '.join(options.names)}: give one device")
    with ExitStack() as stack:
        if options.names[0] == LOCAL:
            from studies.study.context import local_device

            opener, held = local_device(home(make=True), options.runtime)
            stack.callback(held.release)
            client: Any = opener()
        else:
            from evaluators.devices.ssh.link import open_ssh_device

            client = open_ssh_device(devices().named(options.names[0])[0])
        stack.callback(client.close)
        yield TimingDevice(options, client)


@dataclass(frozen=True)
class Slowdown:
    """How many times slower a file is than its baseline: a ratio of latencies, with its 95 % CI."""

    ratio: float
    low: float
    high: float

    def verdict(self, tolerance: float) -> str:
        """`slower`, `undecided` or `ok`; tolerance: greatest allowed slowdown, 0.05 for 5 %."""
        if self.low > 1 + tolerance:
            return "slower"
        return "undecided" if self.high > 1 + tolerance else "ok"


def time_file(
    device: TimingDevice,
    path: Path,
    baseline: Path | None,
    shapes: Shapes,
    tolerance: float,
    baseline_shapes: Shapes | None = None,
) -> dict[str, Any]:
    """Time a file, and its baseline in turns with it, and return both as plain JSON values.

    `shapes` and `baseline_shapes` are the extents of open inputs of each file. `tolerance` is the
    greatest allowed slowdown, 0.05 for 5 %.

    Raises:
        MeasureError: The device cannot run a file, or no reading was stable.
        UsageError: A file cannot be timed as it is.
    """
    files = {"A": path} | ({} if baseline is None else {"B": baseline})
    for file in files.values():
        if not file.is_file():
            raise UsageError(f"{file}: no such file")
    extents = {"A": shapes, "B": baseline_shapes or {}}
    order = ORDER if baseline is not None else "A"
    readings: dict[str, list[MeasureResult]] = {name: [] for name in files}
    for name in order:
        readings[name].append(_stable(device, files[name], extents[name]))
    found = {
        "device": device.name,
        "fingerprint": device.fingerprint,
        **_as_json(path, readings["A"]),
    }
    if baseline is not None:
        slowdown = _slowdown(readings["A"], readings["B"])
        found["baseline"] = _as_json(baseline, readings["B"])
        found["slowdown"] = asdict(slowdown)
        found["tolerance"], found["verdict"] = tolerance, slowdown.verdict(tolerance)
    return found


def time_in_turns(
    device: TimingDevice, files: Mapping[str, Path], shapes: Mapping[str, Shapes] | None = None
) -> dict[str, dict[str, Any]]:
    """Time files in turns, and return the readings of each by its name.

    Rounds go through the files forwards, backwards, backwards, forwards. `shapes` has the extents
    of inputs that a file leaves open, by the name of the file in `files`.

    Raises:
        MeasureError: The device cannot run a file, or no reading was stable.
        UsageError: A file cannot be timed as it is.
    """
    readings: dict[str, list[MeasureResult]] = {name: [] for name in files}
    for forwards in (True, False, False, True):
        for name in list(files)[:: 1 if forwards else -1]:
            found = _stable(device, files[name], (shapes or {}).get(name, {}))
            readings[name].append(found)
    return {name: _as_json(files[name], found) for name, found in readings.items()}


def check_slowdown(found: Mapping[str, Any]) -> str:
    """Return the comparison in words, for what `time_file` returned.

    Raises:
        SlowerThanBaseline: The 95 % interval lies above the tolerance.
    """
    slowdown, percent = Slowdown(**found["slowdown"]), 100 * found["tolerance"]
    said = (
        f"{slowdown.ratio:.3f} times the latency of the baseline "
        f"({slowdown.low:.3f} to {slowdown.high:.3f})"
    )
    if found["verdict"] == "slower":
        raise SlowerThanBaseline(f"{said}: slower by more than {percent:g} %")
    if found["verdict"] == "undecided":
        return f"{said}: it is not shown whether it is slower by more than {percent:g} %"
    return f"{said}: not slower by more than {percent:g} %"


def in_words(found: Mapping[str, Any]) -> str:
    """`network.onnx on local: 1.93 ms (1.90 to 1.97), p95 2.1, p99 2.4, jitter 0.02`."""
    low, high = found["interval_ms"]
    tail = found["percentiles_ms"]
    return (
        f"{found['file']} on {found['device']}: {ms(found['median_ms'])} ms "
        f"({ms(low)} to {ms(high)}), p95 {ms(tail['p95'])}, p99 {ms(tail['p99'])}, "
        f"jitter {ms(found['jitter_ms'])}"
    )


def shapes_of(given: Sequence[str], flag: str = "shape") -> dict[str, tuple[int, ...]]:
    """Read `NAME=1,3,224,224` of each input. Raises UsageError."""
    shapes = {}
    for text in given:
        name, _, extents = text.partition("=")
        try:
            shapes[name] = tuple(int(each) for each in extents.split(","))
        except ValueError:
            raise UsageError(f"--{flag} {text!r}: give NAME=EXTENT,EXTENT,...") from None
    return shapes


def _stable(
    device: TimingDevice,
    path: Path,
    shapes: Shapes,
) -> MeasureResult:
    from evaluators.latency.evaluator import MeasureError

    try:
        result = device.time(path, shapes)
    except (ValueError, OSError) as error:
        raise UsageError(str(error)) from error
    if not result.stable:
        raise MeasureError(
            f"{path.name} on {device.name}: no stable reading "
            f"({'; '.join(result.instability_reasons)}); {device.way_out}"
        )
    return result


def _as_json(path: Path, readings: Sequence[MeasureResult]) -> dict[str, Any]:
    """A file's readings; the interval is from the least bound of them to the greatest."""
    lows, highs = zip(*(each.interval_ms for each in readings), strict=True)
    last = readings[-1]
    return {
        "file": path.name,
        "median_ms": median(each.median_ms for each in readings),
        "interval_ms": [min(lows), max(highs)],
        "readings_ms": [each.median_ms for each in readings],
        "percentiles_ms": {
            name: median(each.percentiles_ms[name] for each in readings)
            for name in last.percentiles_ms
        },
        "jitter_ms": median(each.jitter_ms for each in readings),
        "peak_memory_mb": last.peak_memory_mb,
        "others_cores": last.rounds[-1].others_cores,
    }


def _slowdown(own: Sequence[MeasureResult], baseline: Sequence[MeasureResult]) -> Slowdown:
    found = ratio_in_turns([a.median_ms for a in own], [b.median_ms for b in baseline])
    assert found is not None, f"{ORDER} has enough rounds"
    return Slowdown(found.value, found.low, found.high)
