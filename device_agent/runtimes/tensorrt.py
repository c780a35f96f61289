"""TensorRT 10 and 11 on the first GPU, by its Python package and CUDA's runtime library.

Networks are strongly typed: every tensor has the type that the ONNX file gives it, so precision is
the host's business (TensorRT 11 knows nothing else). Nothing but these two libraries is needed, not
even NumPy.
"""

import ctypes
import hashlib
import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from device_agent.board.description import RuntimeInfo
from device_agent.board.state import read_board
from device_agent.runtime import Extras, OutOfMemory, Refused, Unavailable
from device_agent.runtimes.cuda import LIBRARIES, Cuda
from device_agent.runtimes.tensorrt_build import (
    DTYPES,
    OPTIMIZATION_LEVEL,
    WORKSPACE_BYTES,
    build,
    check_input,
    check_names,
    dtype_name,
    last_words,
    load,
    new_log,
)
from device_agent.runtimes.tensors import Output, digest
from device_agent.storage.engine_cache import Engine, EngineCache, Key
from device_agent.timing.inputs import tensor_bytes
from device_agent.wire.request import MeasureRequest, TensorSpec

NAME = "tensorrt"
GPU = "GPU"


class TensorRt:
    """Keeps to `Runtime`.

    Args:
        cuda_libraries: where CUDA's runtime library may be.
    """

    def __init__(self, cuda_libraries: Sequence[str] = LIBRARIES) -> None:
        """Load nothing yet."""
        self._cuda_libraries = cuda_libraries

    def describe(self) -> RuntimeInfo:
        """Say version and device; which ONNX it takes it does not tell."""
        try:
            trt = load()
            Cuda(self._cuda_libraries)
        except Unavailable as error:
            return RuntimeInfo(NAME, problem=str(error))
        return RuntimeInfo(NAME, str(trt.__version__), (GPU,))

    def version(self) -> str:
        """Return the version of the package; raises `Unavailable` when it cannot be loaded."""
        return str(load().__version__)

    def prepare(
        self, model: Path, request: MeasureRequest, scratch: Path, kept: Path
    ) -> "TensorRtSession":
        """Take the engine that was kept, else build and keep it; see `Runtime.prepare`."""
        trt, cuda = load(), Cuda(self._cuda_libraries)
        if request.provider != GPU:
            asked = f"provider {request.provider} is not of TensorRT {trt.__version__}"
            raise Unavailable(f"{asked}: ask for {GPU}")
        waits_by = cuda.spin()
        log = new_log(trt)
        key = _key(trt, cuda, model, request)
        cache = EngineCache(kept / "engines")
        engine = cache.get(key)
        loaded = None if engine is None else _deserialize(trt, log, engine)
        if engine is None or loaded is None:
            engine = build(trt, log, model, request, _timing_cache(kept, key))
            _keep(cache, key, engine)
            loaded = _deserialize(trt, log, engine)
        if loaded is None:
            raise Unavailable(f"TensorRT does not load its own engine: {last_words(log)}")
        extras = Extras(build_s=engine.build_s, waits_by=waits_by)
        return TensorRtSession(trt, cuda, (log, *loaded), request, extras)


class TensorRtSession:
    """Keeps to `Session`; inputs and outputs stand in the host's memory, one batch in flight."""

    def __init__(
        self, trt: Any, cuda: Cuda, loaded: Sequence[Any], request: MeasureRequest, extras: Extras
    ) -> None:
        """Check the inputs, fill them and take the memory."""
        self._cuda = cuda
        self._loaded = loaded  # Log, runtime and engine must outlive what was made of them.
        self._extras = extras
        engine = loaded[-1]
        self._context = engine.create_execution_context()
        if self._context is None:
            raise OutOfMemory(f"on the device for its activations: {last_words(loaded[0])}")
        self._stream, self._start, self._end = cuda.stream(), cuda.event(), cuda.event()
        self._events_ms: list[float] = []
        names = [engine.get_tensor_name(number) for number in range(engine.num_io_tensors)]
        inputs = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
        check_names(inputs, request.inputs)
        self._copies_in = [self._put(engine, spec, request.seed) for spec in request.inputs]
        self._outputs = [self._expect(engine, name) for name in names if name not in inputs]

    def run_once(self) -> None:
        """Copy the inputs to the device, run the network, copy the outputs back, and wait."""
        cuda, stream = self._cuda, self._stream
        for on_device, on_host, size in self._copies_in:
            cuda.to_device(on_device, on_host, size, stream)
        cuda.record(self._start, stream)
        if not self._context.execute_async_v3(stream):
            raise Unavailable(f"TensorRT did not run the network: {last_words(self._loaded[0])}")
        cuda.record(self._end, stream)
        for output, on_device, on_host in self._outputs:
            cuda.to_host(on_host, on_device, _size(output), stream)
        cuda.wait(stream)
        self._events_ms.append(cuda.passed_ms(self._start, self._end))

    def output_sha256(self) -> str:
        """Run once and digest the outputs, which must be finite."""
        self.run_once()
        return digest(
            Output(name, dtype, shape, ctypes.string_at(on_host, _size((name, dtype, shape))))
            for (name, dtype, shape), _, on_host in self._outputs
        )

    def extras(self) -> Extras:
        """Give the median of the runs so far by CUDA's events, and what building took."""
        device_ms = median(self._events_ms) if self._events_ms else None
        return replace(self._extras, device_ms=device_ms)

    def _put(self, engine: Any, spec: TensorSpec, seed: int) -> tuple[int, int, int]:
        check_input(spec, engine.get_tensor_dtype(spec.name), engine.get_tensor_shape(spec.name))
        content = tensor_bytes(spec, seed)
        on_host = self._cuda.host_memory(len(content))
        ctypes.memmove(on_host, content, len(content))
        on_device = self._cuda.device_memory(len(content))
        if not self._context.set_input_shape(spec.name, spec.shape):
            raise Unavailable(f"input {spec.name}: TensorRT does not take {list(spec.shape)}")
        self._context.set_tensor_address(spec.name, on_device)
        return on_device, on_host, len(content)

    def _expect(self, engine: Any, name: str) -> tuple[tuple[str, str, tuple[int, ...]], int, int]:
        shape = tuple(self._context.get_tensor_shape(name))
        if any(extent < 0 for extent in shape):
            raise Refused(f"output {name}: its shape {list(shape)} hangs on values, not on shapes")
        output = name, dtype_name(engine.get_tensor_dtype(name)), shape
        on_device = self._cuda.device_memory(_size(output))
        self._context.set_tensor_address(name, on_device)
        return output, on_device, self._cuda.host_memory(_size(output))


def _key(trt: Any, cuda: Cuda, model: Path, request: MeasureRequest) -> Key:
    """Return all that an engine hangs on; of a filled file its content covers the seed too."""
    try:
        content = hashlib.sha256(model.read_bytes()).hexdigest()
    except OSError as error:
        raise Unavailable(f"{model.name} cannot be read: {error}: send it again") from error
    board = read_board()
    shapes = [[spec.name, spec.dtype, list(spec.shape)] for spec in request.inputs]
    return {
        "onnx": content,
        "inputs": repr(shapes),
        "tensorrt": str(trt.__version__),
        **cuda.facts(),
        "driver": board.driver,
        "l4t": board.l4t,
        "device": board.model,
        "gpus": ", ".join(board.gpus),
        "power_mode": board.power_mode,
        "workspace_bytes": WORKSPACE_BYTES,
        "optimization_level": OPTIMIZATION_LEVEL,
        "tf32": False,
    }


def _timing_cache(kept: Path, key: Key) -> Path:
    """Name the file of kernel timings, one for all networks of this board and TensorRT."""
    own = {name: value for name, value in key.items() if name not in ("onnx", "inputs")}
    name = hashlib.sha256(repr(sorted(own.items())).encode()).hexdigest()[:32]
    return kept / "engines" / f"{name}.timing"


def _keep(cache: EngineCache, key: Key, engine: Engine) -> None:
    try:
        cache.put(key, engine)
    except OSError as error:
        print(f"tensorrt: the engine is used, but not stored: {error}", file=sys.stderr)


def _deserialize(trt: Any, log: Any, engine: Engine) -> tuple[Any, Any] | None:
    runtime = trt.Runtime(log)
    loaded = runtime.deserialize_cuda_engine(engine.content)
    return None if loaded is None else (runtime, loaded)


def _size(output: tuple[str, str, tuple[int, ...]]) -> int:
    width = next(width for dtype, width in DTYPES.values() if dtype == output[1])
    return width * math.prod(output[2])
