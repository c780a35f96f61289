"""What a runtime must do to be measured: one small class per runtime keeps to these Protocols."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

from device_agent.board.description import RuntimeInfo
from device_agent.wire.request import MeasureRequest


class Refused(Exception):
    """This design can never work with this runtime on this device: INFEASIBLE."""


LACKS_MEMORY = "out of memory"
VENV_HINT = (
    "python3 -m venv --system-site-packages ~/fusion-nas-venv there, install it with that venv's "
    "pip, then `fusion-nas device install NAME --python fusion-nas-venv/bin/python`"
)
"""What to do where a runtime is missing for the agent's Python."""


class OutOfMemory(Refused):
    """It lacked memory; what other programs had may be free another time.

    Args:
        where: what lacked it, in words; the text begins with `LACKS_MEMORY`.
    """

    def __init__(self, where: str) -> None:
        super().__init__(f"{LACKS_MEMORY} {where}")


class Unavailable(Exception):
    """The runtime, the provider or the request is at fault, not the design: ERROR."""


@dataclass(frozen=True)
class Extras:
    """What only some runtimes can tell of a session.

    Attributes:
        device_ms: median time of the runs so far on the accelerator alone, by its own events.
        build_s: how long compiling took when the engine was compiled, maybe in an earlier job; None
            where every session is compiled anew.
        waits_by: how the host waits for the accelerator: `spin`, `yield`, `block` or `auto`; None
            where there is none.
    """

    device_ms: float | None = None
    build_s: float | None = None
    waits_by: str | None = None


class Session(Protocol):
    """A network that is compiled, has its inputs in place, and can run."""

    def run_once(self) -> None:
        """Run the network once, from the inputs in the host's memory to the outputs there."""

    def output_sha256(self) -> str:
        """Run once and return the SHA-256 of the outputs.

        Raises:
            Refused: an output holds NaN or an infinity.
            OutOfMemory: the run lacks memory.
            Unavailable: the run failed, or left the asked provider.
        """

    def extras(self) -> Extras:
        """Tell what the runtime knows besides."""


class Runtime(Protocol):
    """One way to run ONNX files."""

    def describe(self) -> RuntimeInfo:
        """Say version and providers; a runtime that cannot be loaded says so in `problem`."""

    def version(self) -> str:
        """Return the runtime's version; raises `Unavailable` when it cannot be loaded."""

    def prepare(self, model: Path, request: MeasureRequest, scratch: Path, kept: Path) -> Session:
        """Compile the ONNX file for the asked provider and make its inputs.

        Args:
            model: the file; do not write beside it.
            request: provider, inputs, seed and threads.
            scratch: a folder to write to, removed after the job.
            kept: a folder of the agent's home for what need not be made again.

        Raises:
            Refused: the runtime does not take the network.
            OutOfMemory: it lacks memory for it.
            Unavailable: runtime or provider are missing, or the inputs are not the graph's.
        """


class PluginRuntime(ABC):
    """A runtime of another package, for this machine; `docs/how-to/plugins.md` shows how.

    Its module runs in the agent's process: import from `device_agent` and the standard library
    above, and what the runtime needs inside the methods.

    Attributes:
        provider: what it runs on, as requests name it.
        on_processor: whether it runs on the processor, so that the number of threads counts.
        precisions: of designs, that built-in search spaces offer for it.
    """

    provider: ClassVar[str] = "CPU"
    on_processor: ClassVar[bool] = True
    precisions: ClassVar[tuple[str, ...]] = ("fp32",)

    @abstractmethod
    def version(self) -> str:
        """Return the version of what runs the networks; see `Runtime.version`."""

    @abstractmethod
    def prepare(self, model: Path, request: MeasureRequest, scratch: Path, kept: Path) -> Session:
        """Compile the ONNX file and make its inputs; see `Runtime.prepare`."""
