"""What is asked of a device and what comes back, as frozen and checked values.

Every value refuses bad fields when it is built, so one that exists is good; `from_json` goes
through the same door. Units are part of the names: `_ms`, `_s`, `_mb` (2**20 bytes), `_c`.
"""

import hashlib
import json
import math
from dataclasses import asdict, dataclass, fields
from typing import Literal

from device_agent.board.description import DeviceInfo, RuntimeInfo
from device_agent.board.state import Board, BoardState
from device_agent.checks import (
    ProtocolError,
    as_tuple,
    check_choice,
    check_int,
    check_known,
    check_real,
    check_sha256,
    check_text,
    check_type,
    take,
)
from device_agent.wire.result import MeasureResult, Status

__all__ = [
    "Board",
    "BoardState",
    "DeviceInfo",
    "MeasureRequest",
    "MeasureResult",
    "ProtocolError",
    "RuntimeInfo",
    "Status",
    "TensorSpec",
    "TimingProtocol",
    "job_id_of",
]

DType = Literal["int64", "int32", "float32", "float16", "uint8", "int16"]
Fill = Literal["uniform", "ones", "normal", "zeros"]

DTYPES: tuple[DType, ...] = ("int64", "int32", "float32", "float16", "uint8", "int16")
FILLS: tuple[Fill, ...] = ("uniform", "ones", "normal", "zeros")
BOUNDS = {
    "int64": (-(2**53), 2**53),
    "int32": (-(2**31), 2**31),
    "int16": (-(2**15), 2**15),
    "uint8": (0, 2**8),
}
"""Least value and bound of whole numbers that are drawn uniformly, by type."""
JSON_NAMES = {"reference_runs": "anchor_runs", "reference_tolerance": "anchor_tolerance"}
"""Fields whose name in JSON is another: the one that keys of stored evaluations are made of."""
MAX_ELEMENTS = 2**26
MAX_REPEATS = 10_000
DAY_S = 86_400.0


@dataclass(frozen=True)
class TensorSpec:
    """One input of a network, made on the device from the seed of the request.

    Attributes:
        name: the name of the graph's input.
        dtype: the type of its elements.
        shape: its extents, all known and at least 1; `()` is a scalar.
        fill: `uniform` draws from `[low, high)`, whole numbers for whole-number types (token
            ids: `low=0, high=vocabulary`); `normal` draws with mean 0 and deviation 1, floats
            only; `ones` and `zeros` are constant.
        low: lowest value of `uniform`.
        high: bound of `uniform`, not itself drawn.
    """

    name: str
    dtype: DType
    shape: tuple[int, ...]
    fill: Fill = "uniform"
    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        check_text("TensorSpec.name", self.name, 256)
        where = f"TensorSpec {self.name!r}"
        check_choice(f"{where}: dtype", self.dtype, DTYPES)
        check_choice(f"{where}: fill", self.fill, FILLS)
        check_type(f"{where}: shape", self.shape, tuple)
        check_int(f"{where}: number of extents", len(self.shape), 0, 8)
        for extent in self.shape:
            check_int(f"{where}: extent in shape {self.shape}", extent, 1, MAX_ELEMENTS)
        check_int(f"{where}: number of elements", self.elements, 1, MAX_ELEMENTS)
        check_real(f"{where}: low", self.low, -(2.0**53), 2.0**53)
        check_real(f"{where}: high", self.high, -(2.0**53), 2.0**53)
        if not self.low < self.high:
            raise ProtocolError(f"{where}: low {self.low} is not under high {self.high}")
        if self.is_integer and self.fill == "normal":
            raise ProtocolError(f"{where}: fill 'normal' is for floats, dtype is {self.dtype}")
        if self.is_integer and self.fill == "uniform":
            least, most = BOUNDS[self.dtype]
            if self.low != int(self.low) or self.high != int(self.high):
                raise ProtocolError(f"{where}: low {self.low}, high {self.high}: give whole ones")
            check_real(f"{where}: low", self.low, least, most)
            check_real(f"{where}: high", self.high, least, most)

    @property
    def elements(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    @property
    def is_integer(self) -> bool:
        """Whether the elements are whole numbers."""
        return self.dtype in BOUNDS

    def as_json(self) -> dict[str, object]:
        """Return the JSON object that `from_json` reads."""
        numbers = {"low": float(self.low), "high": float(self.high)}
        return {**asdict(self), "shape": list(self.shape), **numbers}

    @classmethod
    def from_json(cls, value: object) -> "TensorSpec":
        """Build from a JSON object; raises `ProtocolError` naming field and value."""
        found = take("TensorSpec", value, [field.name for field in fields(cls)])
        return cls(**{**found, "shape": as_tuple("TensorSpec.shape", found["shape"])})


@dataclass(frozen=True)
class TimingProtocol:
    """How long to warm up and how often to time, the same on every device and runtime.

    Warm-up runs until it has made `warmup_min_runs` runs and taken `warmup_min_s`, and the median
    of its last `steady_runs` runs is within `steady_tolerance` of the median of the `steady_runs`
    before; after `warmup_max_s`, but not before twice `steady_runs` runs, it gives up waiting for
    that, and the result is not stable where the two still differ
    (see `device_agent.timing.instability`).

    Then comes a round: the drift reference is timed (`reference_runs` runs, their median), then the
    network in `blocks` blocks, then the reference again. A block is an equal share of `min_repeats`
    and `min_time_s`, at least one sample. Blocks of that size are added until the 95 % interval of
    the median of the round's samples is no wider than `interval_share` of that median, or the
    halves are too far apart for the round to be of use; but the round takes no more than
    `max_repeats` samples and no longer than `max_time_s`, which wins over the minima; each of the
    `blocks` has at least one sample.

    A round is unstable when the medians of the first and the second half of its blocks are over
    `block_tolerance` apart and their own 95 % intervals do not overlap, when the reference after it
    is over `reference_tolerance` away from the reference before (both as shares of the smaller
    one), when other programs kept more than `others_cores` processors busy on average, or, with
    `watch_board`, when the board throttled or lowered its clocks meanwhile. A unstable round is
    taken again, up to `retries` times; when the last one is unstable too, or its interval is still
    wider than `interval_share`, the result is not stable.
    """

    warmup_min_runs: int = 5
    warmup_min_s: float = 0.2
    warmup_max_s: float = 10.0
    steady_runs: int = 5
    steady_tolerance: float = 0.05
    min_repeats: int = 20
    max_repeats: int = 2500
    min_time_s: float = 0.5
    max_time_s: float = 120.0
    blocks: int = 2
    interval_share: float = 0.01
    block_tolerance: float = 0.02
    reference_tolerance: float = 0.03
    reference_runs: int = 30
    others_cores: float = 0.1
    watch_board: bool = True
    retries: int = 3

    def __post_init__(self) -> None:
        check_int("TimingProtocol.warmup_min_runs", self.warmup_min_runs, 1, MAX_REPEATS)
        check_real("TimingProtocol.warmup_max_s", self.warmup_max_s, 0.0, DAY_S)
        check_real("TimingProtocol.warmup_min_s", self.warmup_min_s, 0.0, self.warmup_max_s)
        check_int("TimingProtocol.steady_runs", self.steady_runs, 1, 1000)
        check_real("TimingProtocol.steady_tolerance", self.steady_tolerance, 0.0, 1.0)
        check_int("TimingProtocol.max_repeats", self.max_repeats, 1, MAX_REPEATS)
        check_int("TimingProtocol.min_repeats", self.min_repeats, 1, self.max_repeats)
        check_real("TimingProtocol.max_time_s", self.max_time_s, 0.0, DAY_S)
        check_real("TimingProtocol.min_time_s", self.min_time_s, 0.0, self.max_time_s)
        check_int("TimingProtocol.blocks", self.blocks, 1, min(self.min_repeats, 100))
        for name in ("interval_share", "block_tolerance", "reference_tolerance", "others_cores"):
            check_real(f"TimingProtocol.{name}", getattr(self, name), 0.0, 1e6)
        check_int("TimingProtocol.reference_runs", self.reference_runs, 1, 1000)
        check_type("TimingProtocol.watch_board", self.watch_board, bool)
        most = MAX_REPEATS // self.max_repeats - 1
        check_int("TimingProtocol.retries, with these max_repeats", self.retries, 0, most)

    def as_json(self) -> dict[str, object]:
        """Return the JSON object that `from_json` reads."""
        found = asdict(self)
        for field in fields(self):
            if isinstance(field.default, float):
                found[field.name] = float(found[field.name])
        return {JSON_NAMES.get(name, name): value for name, value in found.items()}

    @classmethod
    def from_json(cls, value: object) -> "TimingProtocol":
        """Build from a JSON object; raises `ProtocolError` naming field and value."""
        names = [field.name for field in fields(cls)]
        found = take("TimingProtocol", value, [JSON_NAMES.get(name, name) for name in names])
        return cls(**{name: found[JSON_NAMES.get(name, name)] for name in names})


@dataclass(frozen=True)
class MeasureRequest:
    """One network to compile and time on a device.

    Attributes:
        artifact_sha256: the ONNX file, one file with its weights inside, or without those that
            the device makes from `weights_seed`.
        inputs: all inputs of its graph.
        runtime: a name in `device_agent.runtimes.RUNTIMES`.
        provider: the only execution provider that may run its nodes.
        timing: how to time.
        seed: of the inputs' values.
        threads: of one operator; 0 leaves the choice to the runtime.
        deadline_s: from the start of the job, compiling included, to when it is killed.
        weights_seed: from which the weights that the file lacks are filled in on the device, see
            `device_agent.onnx.synthesize_weights`; None: the file has them all.
        energy_s: least length of the pass in which energy is measured, on a board that tells its
            power, besides settling and an idle reading; 0: no such pass. Where power is counted
            and not sampled a second is enough.
    """

    artifact_sha256: str
    inputs: tuple[TensorSpec, ...]
    runtime: str = "onnxruntime"
    provider: str = "CPUExecutionProvider"
    timing: TimingProtocol = TimingProtocol()
    seed: int = 0
    threads: int = 0
    deadline_s: float = 600.0
    weights_seed: int | None = None
    energy_s: float = 10.0

    def __post_init__(self) -> None:
        check_sha256("MeasureRequest.artifact_sha256", self.artifact_sha256)
        check_type("MeasureRequest.inputs", self.inputs, tuple)
        for spec in self.inputs:
            check_type("MeasureRequest.inputs: one of them", spec, TensorSpec)
        names = [spec.name for spec in self.inputs]
        if len(set(names)) != len(names):
            raise ProtocolError(f"MeasureRequest.inputs: {names}: give every name once")
        check_text("MeasureRequest.runtime", self.runtime, 64)
        check_text("MeasureRequest.provider", self.provider, 64)
        check_type("MeasureRequest.timing", self.timing, TimingProtocol)
        check_int("MeasureRequest.seed", self.seed, 0, 2**63 - 1)
        check_int("MeasureRequest.threads", self.threads, 0, 1024)
        check_real("MeasureRequest.deadline_s", self.deadline_s, 0.1, DAY_S)
        check_real("MeasureRequest.energy_s", self.energy_s, 0.0, DAY_S)
        check_known(check_int, "MeasureRequest.weights_seed", self.weights_seed, 0, 2**63 - 1)

    def as_json(self) -> dict[str, object]:
        """Return the JSON object that `from_json` reads."""
        return {
            "artifact_sha256": self.artifact_sha256,
            "inputs": [spec.as_json() for spec in self.inputs],
            "runtime": self.runtime,
            "provider": self.provider,
            "timing": self.timing.as_json(),
            "seed": self.seed,
            "threads": self.threads,
            "deadline_s": float(self.deadline_s),
            "weights_seed": self.weights_seed,
            "energy_s": float(self.energy_s),
        }

    @classmethod
    def from_json(cls, value: object) -> "MeasureRequest":
        """Build from a JSON object; raises `ProtocolError` naming field and value."""
        found = take("MeasureRequest", value, [field.name for field in fields(cls)])
        specs = as_tuple("MeasureRequest.inputs", found["inputs"])
        found["inputs"] = tuple(TensorSpec.from_json(spec) for spec in specs)
        found["timing"] = TimingProtocol.from_json(found["timing"])
        return cls(**found)


def job_id_of(request: MeasureRequest, attempt: int = 0, device: DeviceInfo | None = None) -> str:
    """Return the name of a job that anyone with the same request and attempt would give it.

    Use it to fetch the result of a job after a lost link instead of running it again. With what the
    device says of itself, it is another name once power mode, driver, a runtime or the agent is
    another one: what was measured before is not taken for a reading of now.
    """
    on = None if device is None else [device.fingerprint, device.agent_sha256]
    asked = json.dumps([request.as_json(), attempt, on], sort_keys=True, allow_nan=False)
    return hashlib.sha256(asked.encode()).hexdigest()
