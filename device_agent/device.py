"""What an agent says of its device and of its runtimes."""

import hashlib
import json
from dataclasses import asdict, dataclass, fields

from device_agent.board import Board
from device_agent.checks import as_tuple, check_int, check_known, check_text, check_type, take


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
    """

    board: Board
    runtimes: tuple[RuntimeInfo, ...]
    python: str
    max_upload_bytes: int

    def __post_init__(self) -> None:
        check_type("DeviceInfo.board", self.board, Board)
        check_type("DeviceInfo.runtimes", self.runtimes, tuple)
        for runtime in self.runtimes:
            check_type("DeviceInfo.runtimes: one of them", runtime, RuntimeInfo)
        check_text("DeviceInfo.python", self.python, 64)
        check_int("DeviceInfo.max_upload_bytes", self.max_upload_bytes, 0, 2**62)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of what latency depends on and a restart does not change.

        Model, machine, cores, memory to the GiB, graphics cards, power mode, the runtimes with
        their versions, and Python's major and minor version; neither the kernel nor any state.
        """
        board = {**asdict(self.board), "kernel": None}
        if self.board.memory_mb is not None:
            board["memory_mb"] = round(self.board.memory_mb / 1024)
        runtimes = sorted([runtime.name, runtime.version] for runtime in self.runtimes)
        python = self.python.split(".")[:2]
        text = json.dumps([board, runtimes, python], sort_keys=True, allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()

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
