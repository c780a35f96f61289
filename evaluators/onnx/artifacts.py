"""What a builder hands over: one ONNX file of a design, or why there is none."""

from dataclasses import dataclass
from pathlib import Path

from device_agent.wire.request import TensorSpec
from evaluators.evaluation import Measure
from search_space.errors import NUMBERS, FusionNasError


class ParityError(FusionNasError):
    """An ONNX file gives other outputs than the network it came from."""

    exit_code = NUMBERS


@dataclass(frozen=True)
class Artifact:
    """One ONNX file that a device can compile.

    max_difference: greatest absolute difference of its logits from those that the network as
    written gives in torch for a few inputs; for fp32 it is within the builder's tolerance, for a
    reduced precision it is what that costs. rewritten: what was rewritten, in words, if anything.
    weightless: its large weights are told by their range alone, see `evaluators.onnx.stripped`.
    """

    path: Path
    sha256: str
    inputs: tuple[TensorSpec, ...]
    max_difference: float
    costs: tuple[Measure, ...]
    rewritten: tuple[str, ...] = ()
    stripped: bool = False

    def discard(self) -> None:
        """Removes the file."""
        self.path.unlink(missing_ok=True)
