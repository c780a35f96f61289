"""What an agent says of its device and of its runtimes."""

import hashlib
import json
from dataclasses import asdict, dataclass, fields

from device_agent.board.state import Board, BoardState
from device_agent.checks import (
    as_tuple,
    check_int,
    check_known,
    check_real,
    check_sha256,
    check_text,
    check_type,
    take,
)

ALWAYS_NAMED = ("onnxruntime", "tensorrt")
"""Runtimes of 0.1.0: an identity names them also where they are missing."""


@dataclass(frozen=True)
class RuntimeInfo:
    """One runtime of the device's agent.

    Attributes:
        name: as in `MeasureRequest.runtime`.
        version: as the runtime says it; None when it cannot be loaded there.
        providers: those it was built with; that one is named here does not prove that it loads.
        onnx_opset_max: highest ONNX operator set it takes, where it says so.
        onnx_ir_max: highest ONNX IR version it takes, where it says so.
        problem: why it cannot be loaded and what to do; empty when it can.
    """

    name: str
    version: str | None = None
    providers: tuple[str, ...] = ()
    onnx_opset_max: int | None = None
    onnx_ir_max: int | None = None
    problem: str = ""

    def __post_init__(self) -> None:
        check_text("RuntimeInfo.name", self.name, 64)
        where = f"RuntimeInfo {self.name!r}"
        check_known(check_text, f"{where}: version", self.version, 256)
        check_type(f"{where}: providers", self.providers, tuple)
        for provider in self.providers:
            check_text(f"{where}: one provider", provider, 64)
        check_known(check_int, f"{where}: onnx_opset_max", self.onnx_opset_max, 1, 10_000)
        check_known(check_int, f"{where}: onnx_ir_max", self.onnx_ir_max, 1, 10_000)
        check_text(f"{where}: problem", self.problem, 8000, least=0)

    @classmethod
    def from_json(cls, value: object) -> "RuntimeInfo":
        """Build from a JSON object; raises `ProtocolError` naming field and value."""
        found = take("RuntimeInfo", value, [field.name for field in fields(cls)])
        found["providers"] = as_tuple("RuntimeInfo.providers", found["providers"])
        return cls(**found)


@dataclass(frozen=True)
class DeviceInfo:
    """What an agent says of itself when asked.

    Attributes:
        board: the device.
        runtimes: those of the agent, also the ones that cannot be loaded there.
        python: version of the agent's Python, such as `3.10.12`.
        max_upload_bytes: the largest artifact it takes.
        agent_sha256: of the agent's one file; None where it runs from its sources.
    """

    board: Board
    runtimes: tuple[RuntimeInfo, ...]
    python: str
    max_upload_bytes: int
    agent_sha256: str | None = None

    def __post_init__(self) -> None:
        check_type("DeviceInfo.board", self.board, Board)
        check_type("DeviceInfo.runtimes", self.runtimes, tuple)
        for runtime in self.runtimes:
            check_type("DeviceInfo.runtimes: one of them", runtime, RuntimeInfo)
        check_text("DeviceInfo.python", self.python, 64)
        check_int("DeviceInfo.max_upload_bytes", self.max_upload_bytes, 0, 2**62)
        check_known(check_sha256, "DeviceInfo.agent_sha256", self.agent_sha256)

    @property
    def identity(self) -> dict[str, object]:
        """What latency depends on and a restart does not change, by name.

        Model, machine, cores, memory to the GiB, graphics cards and their driver, power mode,
        release of L4T, the runtimes with their versions, and Python's major and minor version;
        neither the kernel nor any state.
        """
        board = {**asdict(self.board), "kernel": None, "boot_id": None}
        memory_mb = board.pop("memory_mb")
        board.pop("fastest_mode")
        memory_gb = None if memory_mb is None else round(memory_mb / 1024)
        # A runtime that came after 0.1.0 and is missing is left out: fingerprints stay the same.
        runtimes = {
            f"runtime {runtime.name}": runtime.version
            for runtime in self.runtimes
            if runtime.version is not None or runtime.name in ALWAYS_NAMED
        }
        python = ".".join(self.python.split(".")[:2])
        return {**board, "memory_gb": memory_gb, "python": python, **runtimes}

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the identity."""
        text = json.dumps(self.identity, sort_keys=True, allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()

    def differences(self, other: "DeviceInfo") -> tuple[str, ...]:
        """Return in words where the identity of another device differs from this one's."""
        ours, theirs = self.identity, other.identity
        return tuple(
            f"{name} {ours.get(name)!r} and {theirs.get(name)!r}"
            for name in {**ours, **theirs}
            if ours.get(name) != theirs.get(name)
        )

    def as_json(self) -> dict[str, object]:
        """Return the JSON object that `from_json` reads."""
        found: dict[str, object] = json.loads(json.dumps(asdict(self), allow_nan=False))
        return found

    @classmethod
    def from_json(cls, value: object) -> "DeviceInfo":
        """Build from a JSON object; raises `ProtocolError` naming field and value."""
        found = take("DeviceInfo", value, [field.name for field in fields(cls)])
        found["board"] = Board.from_json(found["board"])
        runtimes = as_tuple("DeviceInfo.runtimes", found["runtimes"])
        found["runtimes"] = tuple(RuntimeInfo.from_json(runtime) for runtime in runtimes)
        return cls(**found)


@dataclass(frozen=True)
class DeviceState:
    """What an agent says of the state its device is in now.

    Attributes:
        unix_s: the device's clock.
        home_free_mb: room on the disk of the agent's home.
        board: clocks, temperatures, load and memory.
        others_s: processor time that all programs but the agent took since the start of the board;
            None where the system does not tell.
        unreadable_rails: rails of its power monitors that cannot be read.
    """

    unix_s: float
    home_free_mb: int
    board: BoardState
    others_s: float | None = None
    unreadable_rails: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_real("DeviceState.unix_s", self.unix_s, -1e12, 1e12)
        check_int("DeviceState.home_free_mb", self.home_free_mb, 0, 2**62)
        check_type("DeviceState.board", self.board, BoardState)
        check_known(check_real, "DeviceState.others_s", self.others_s, -1e12, 1e12)
        check_type("DeviceState.unreadable_rails", self.unreadable_rails, tuple)
        for rail in self.unreadable_rails:
            check_text("DeviceState.unreadable_rails: one rail", rail, 4096)

    def as_json(self) -> dict[str, object]:
        """Return the JSON object that `from_json` reads."""
        return {
            "unix_s": float(self.unix_s),
            "home_free_mb": self.home_free_mb,
            "board": self.board.as_json(),
            "others_s": self.others_s,
            "unreadable_rails": list(self.unreadable_rails),
        }

    @classmethod
    def from_json(cls, value: object) -> "DeviceState":
        """Build from a JSON object; raises `ProtocolError` naming field and value."""
        if isinstance(value, dict):
            value = {"unreadable_rails": [], **value}  # Agents of 0.1.0 do not tell them.
        found = take("DeviceState", value, [field.name for field in fields(cls)])
        found["board"] = BoardState.from_json(found["board"])
        rails = as_tuple("DeviceState.unreadable_rails", found["unreadable_rails"])
        return cls(**{**found, "unreadable_rails": rails})
