"""OpenVINO on the processor."""

import importlib
import math
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from device_agent.board.description import RuntimeInfo
from device_agent.runtime import VENV_HINT, Extras, OutOfMemory, Refused, Unavailable
from device_agent.runtimes.tensors import Output, digest
from device_agent.timing.inputs import tensor_bytes
from device_agent.wire.request import MeasureRequest, TensorSpec

NAME = "openvino"
CPU = "CPU"
ELEMENT_TYPES = {
    "i64": "int64",
    "i32": "int32",
    "f32": "float32",
    "f16": "float16",
    "u8": "uint8",
    "i16": "int16",
}
"""Our name of an element by OpenVINO's."""
OUT_OF_MEMORY = ("bad_alloc", "bad allocation", "out of memory", "failed to allocate")


class OpenVino:
    """Keeps to `Runtime`; the package is imported when one of its calls needs it."""

    def describe(self) -> RuntimeInfo:
        """Say version and device; which ONNX it takes it does not tell."""
        try:
            version = self.version()
        except Unavailable as error:
            return RuntimeInfo(NAME, problem=str(error))
        return RuntimeInfo(NAME, version, (CPU,))

    def version(self) -> str:
        """Return the version of the package; raises `Unavailable` when it cannot be loaded."""
        return str(_load().__version__).split("-")[0]

    def prepare(
        self, model: Path, request: MeasureRequest, scratch: Path, kept: Path
    ) -> "OpenVinoSession":
        """Compile for the processor at the shapes of the request; see `Runtime.prepare`."""
        ov = _load()
        if request.provider != CPU:
            raise Unavailable(f"provider {request.provider} is not offered here: ask for {CPU}")
        if not model.is_file():
            raise Unavailable(f"{model.name} is not there: send it again")
        options: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "INFERENCE_PRECISION_HINT": "f32",  # Not bf16 by itself: fp32 is fp32.
        }
        if request.threads:
            options["INFERENCE_NUM_THREADS"] = request.threads
        core = ov.Core()
        try:
            network = core.read_model(str(model))
        except Exception as error:
            raise _fault(error, "while reading") from error
        _check_inputs(network.inputs, request.inputs)
        try:
            network.reshape({spec.name: list(spec.shape) for spec in request.inputs})
            compiled = core.compile_model(network, CPU, options)
        except Exception as error:
            raise _fault(error, "while compiling") from error
        return OpenVinoSession(compiled, request)


class OpenVinoSession:
    """Keeps to `Session`; inputs and outputs are NumPy arrays in the host's memory."""

    def __init__(self, compiled: Any, request: MeasureRequest) -> None:
        """Make the inputs."""
        self._run = compiled.create_infer_request()
        self._names = [output.get_any_name() for output in compiled.outputs]
        self._inputs = {spec.name: _array(spec, request.seed) for spec in request.inputs}

    def run_once(self) -> None:
        """Run the network once, with a copy of the outputs, as ONNX Runtime gives one."""
        self._run.infer(self._inputs)

    def output_sha256(self) -> str:
        """Run once and digest the outputs, which must be finite."""
        try:
            outputs = [*self._run.infer(self._inputs).values()]
        except Exception as error:
            if _lacks_memory(error):
                raise OutOfMemory(f"in the first run: {_words(error)}") from error
            raise Unavailable(f"the first run failed: {_words(error)}") from error
        return digest(
            Output(name, str(array.dtype), tuple(array.shape), array.tobytes())
            for name, array in zip(self._names, outputs, strict=True)
        )

    def extras(self) -> Extras:
        """Nothing: networks are compiled anew, and runs are timed by the host's clock alone."""
        return Extras()


def _load() -> Any:
    try:
        return importlib.import_module("openvino")
    except Exception as error:
        failed = f"openvino cannot be loaded by {sys.executable}: {_words(error)}"
        raise Unavailable(f"{failed}: {VENV_HINT}") from error


def _check_inputs(entries: Iterable[Any], specs: Iterable[TensorSpec]) -> None:
    wanted = {entry.get_any_name(): entry for entry in entries}
    given = {spec.name: spec for spec in specs}
    if wanted.keys() != given.keys():
        names = f"the graph's inputs are {sorted(wanted)}, the request's {sorted(given)}"
        raise Unavailable(f"{names}: give each of the graph's, and no other")
    for name, spec in given.items():
        told = wanted[name].get_element_type().get_type_name()
        shape = [-1 if e.is_dynamic else e.get_length() for e in wanted[name].get_partial_shape()]
        fits = len(shape) == len(spec.shape) and all(
            extent in (-1, asked) for extent, asked in zip(shape, spec.shape, strict=False)
        )
        if ELEMENT_TYPES.get(told) != spec.dtype or not fits:
            asked = f"the request gives {spec.dtype} {list(spec.shape)}"
            raise Unavailable(f"input {name}: the graph takes {told} {shape}, {asked}")


def _array(spec: TensorSpec, seed: int) -> Any:
    numpy = importlib.import_module("numpy")
    kind = numpy.dtype(spec.dtype).newbyteorder("<")
    values = numpy.frombuffer(tensor_bytes(spec, seed), kind)
    assert values.size == math.prod(spec.shape)
    return values.reshape(spec.shape).astype(spec.dtype)


def _fault(error: Exception, when: str) -> Exception:
    if _lacks_memory(error):
        return OutOfMemory(f"{when}: {_words(error)}")
    return Refused(f"openvino refuses the network: {_words(error)}")


def _lacks_memory(error: Exception) -> bool:
    said = str(error).lower()
    return isinstance(error, MemoryError) or any(words in said for words in OUT_OF_MEMORY)


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:2000]
