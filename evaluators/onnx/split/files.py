"""The parts of a design's ONNX file as files: written, described and compared with the whole."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import onnxruntime
from torch import Tensor

from device_agent.wire.request import DType, Fill, TensorSpec
from evaluators.onnx.artifacts import ParityError
from evaluators.onnx.split.cutting import FUSION, Cut, split
from search_space.design.genotype import Genotype
from search_space.modality import CALLED, Modality
from search_space.network.network import INPUTS

SPLIT_TOLERANCE = 1e-5
"""Greatest difference of the parts' logits from the whole graph's, relative to the larger of 1 and
the largest logit."""
ROUNDED_TOLERANCE = 1e-2
"""The same in a reduced precision: runtimes round at other places where a graph ends there."""


@dataclass(frozen=True)
class Part:
    """One part of a split design, as a file.

    Attributes:
        name: text, image, sound or fusion.
        modality: whose encoder it is; None for the fusion.
        path: of the ONNX file, with its weights.
        sha256: of the file.
        inputs: what it reads, and what a device may fill it with.
        gives: the tensors of an encoder that the fusion reads; empty for the fusion.
    """

    name: str
    modality: Modality | None
    path: Path
    sha256: str
    inputs: tuple[TensorSpec, ...]
    gives: tuple[Cut, ...]

    @property
    def bytes(self) -> int:
        """What an encoder gives for one input, in bytes."""
        return sum(cut.bytes for cut in self.gives)


def write_parts(
    whole: Path, genotype: Genotype, inputs: Sequence[TensorSpec], folder: Path
) -> tuple[Part, ...]:
    """Write the encoders of a fused design's ONNX file, in the order of its inputs, and its fusion.

    Args:
        whole: the file, with its weights or without the large ones.
        genotype: the design.
        inputs: of the whole.
        folder: takes `text-encoder.onnx` and the like, and `fusion.onnx`.

    Raises:
        NotSplit: The design reads one modality.
    """
    model = onnx.load(str(whole))
    made = split(model, {modality: INPUTS[modality] for modality in genotype.encoders})
    parts = []
    for modality, encoder in made.encoders.items():
        read = {entry.name for entry in encoder.graph.input}
        own = tuple(spec for spec in inputs if spec.name in read)
        path, gives = folder / f"{CALLED[modality]}-encoder.onnx", made.of(modality)
        parts.append(Part(CALLED[modality], modality, path, _written(encoder, path), own, gives))
    path = folder / f"{FUSION}.onnx"
    own = tuple(map(_spec, made.cuts))
    return (*parts, Part(FUSION, None, path, _written(made.fusion, path), own, ()))


def _written(model: onnx.ModelProto, path: Path) -> str:
    content = model.SerializeToString()
    path.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def _spec(cut: Cut) -> TensorSpec:
    fill: Fill = "normal" if cut.dtype.startswith("float") else "ones"
    return TensorSpec(cut.name, cast(DType, cut.dtype), cut.shape, fill)


def run_parts(
    parts: Sequence[Part], names: Sequence[str], rows: Iterable[Sequence[Tensor]]
) -> np.ndarray:
    """Logits (N, classes) of inputs of batch 1 by the parts one after another, on this CPU.

    `names` are those of the inputs of the whole graph, in the order of each row.
    """
    sessions = [_Session(part.path) for part in parts]
    logits = []
    for row in rows:
        known = {n: t.contiguous().numpy() for n, t in zip(names, row, strict=True)}
        for session in sessions:
            known.update(session.run(known))
        logits.append(known["logits"])
    return np.concatenate(logits)


class _Session:
    """An ONNX file that takes and gives tensors by name."""

    def __init__(self, path: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        providers = ["CPUExecutionProvider"]
        self._session: Any = onnxruntime.InferenceSession(str(path), options, providers)
        self._reads = [entry.name for entry in self._session.get_inputs()]
        self._gives = [entry.name for entry in self._session.get_outputs()]

    def run(self, known: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        found = self._session.run(self._gives, {name: known[name] for name in self._reads})
        return dict(zip(self._gives, found, strict=True))


def check_parts(
    parts: Sequence[Part],
    genotype: Genotype,
    names: Sequence[str],
    rows: Sequence[Sequence[Tensor]],
    expected: np.ndarray,
) -> float:
    """Return the greatest difference of the parts' logits from those of the whole graph.

    Args:
        parts: the parts.
        genotype: the design.
        names: of the whole graph's inputs.
        rows: inputs of batch 1.
        expected: (N, classes), logits of the whole graph for them.

    Raises:
        ParityError: The difference is over the tolerance, or a logit is not finite.
    """
    found = run_parts(parts, names, rows)
    difference = float(np.abs(found - expected).max())
    tolerance = SPLIT_TOLERANCE if genotype.precision == "fp32" else ROUNDED_TOLERANCE
    allowed = tolerance * max(1.0, float(np.abs(expected).max()))
    if not difference <= allowed:
        raise ParityError(
            f"{genotype.describe()}: its parts give logits that differ from the whole graph's by "
            f"{difference:.2e} (allowed {allowed:.1e}); nothing was written. please report it"
        )
    return difference
