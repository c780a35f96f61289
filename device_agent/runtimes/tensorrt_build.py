"""From an ONNX file to TensorRT's engine, and what TensorRT says of itself on the way."""

import importlib
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from device_agent.runtime import OutOfMemory, Refused, Unavailable
from device_agent.storage.engine_cache import Engine, write_whole
from device_agent.wire.request import MeasureRequest, TensorSpec

MAJORS = (10, 11)
WORKSPACE_BYTES = 2**30
OPTIMIZATION_LEVEL = 3
DTYPES = {
    "FLOAT": ("float32", 4),
    "HALF": ("float16", 2),
    "INT32": ("int32", 4),
    "INT64": ("int64", 8),
    "INT8": ("int8", 1),
    "UINT8": ("uint8", 1),
    "BOOL": ("bool", 1),
}
"""Name and bytes of an element by TensorRT's `DataType`."""
OUT_OF_MEMORY = ("out of memory", "outofmemory", "memory allocation", "insufficient memory")
BOARD_FAULTS = ("cuda runtime", "cuda error", "cuda initialization", "cudnn", "driver")


def load() -> Any:
    """Import TensorRT; raises `Unavailable` where it is not there or of an unknown version."""
    try:
        trt = importlib.import_module("tensorrt")
        major = int(str(trt.__version__).split(".")[0])
    except Exception as error:
        failed = f"tensorrt cannot be loaded by {sys.executable}: {type(error).__name__}: {error}"
        raise Unavailable(f"{failed[:2000]}: JetPack brings it for its own python3") from error
    if major not in MAJORS:
        known = " and ".join(map(str, MAJORS))
        raise Unavailable(f"TensorRT {trt.__version__} is not known: {known} are, use one of them")
    return trt


def new_log(trt: Any, keep_all: bool = False) -> Any:
    """Make a logger that keeps errors for our words and prints them to the job's log.

    With `keep_all` it keeps whatever is said, in `lines`.
    """

    class Log(trt.ILogger):  # type: ignore[misc]  # TensorRT takes loggers in no other way
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []
            self.lines: list[str] = []

        def log(self, severity: Any, msg: str) -> None:
            if keep_all:
                self.lines.append(msg)
            if severity in (trt.ILogger.Severity.INTERNAL_ERROR, trt.ILogger.Severity.ERROR):
                self.errors.append(msg)
                print(f"tensorrt: {msg}", file=sys.stderr)

    return Log()


def last_words(log: Any) -> str:
    """Return the last errors of a log that `new_log` made."""
    return " / ".join(" ".join(message.split()) for message in log.errors[-5:])[:2000] or "nothing"


def build(trt: Any, log: Any, model: Path, request: MeasureRequest, timings: Path) -> Engine:
    """Compile the file.

    Raises:
        Refused: TensorRT does not take the network.
        OutOfMemory: it lacks memory for it.
        Unavailable: the board failed.
    """
    start = time.perf_counter()
    builder = trt.Builder(log)
    network = parsed(trt, log, builder, model)
    config = configured(trt, builder)
    config.add_optimization_profile(_profile(builder, network, request))
    cache = _timings(config, timings)
    serialized = builder.build_serialized_network(network, config)
    if serialized is None:
        raise build_fault(last_words(log))
    content = bytes(memoryview(serialized))
    try:
        write_whole(timings, bytes(memoryview(cache.serialize())))
    except OSError as error:
        print(f"tensorrt: its kernel timings are not stored: {error}", file=sys.stderr)
    return Engine(content, time.perf_counter() - start)


def parsed(trt: Any, log: Any, builder: Any, model: Path) -> Any:
    """Read a file into a new network, which keeps no copy of it.

    Raises:
        Refused: the parser does not take it; each node is named with the reason.
    """
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    if not parser.parse_from_file(str(model)):
        errors = (parser.get_error(number) for number in range(parser.num_errors))
        said = " / ".join(
            f"{error.node_operator()} {error.node_name()}: {error.desc()}" for error in errors
        )
        raise Refused(f"tensorrt refuses the network: {said or last_words(log)}"[:4000])
    return network


def configured(trt: Any, builder: Any) -> Any:
    """Make the configuration that all engines are built with."""
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, WORKSPACE_BYTES)
    config.builder_optimization_level = OPTIMIZATION_LEVEL
    config.clear_flag(trt.BuilderFlag.TF32)  # fp32 is fp32; whoever wants less asks for fp16.
    return config


def _profile(builder: Any, network: Any, request: MeasureRequest) -> Any:
    """Fix every extent that the file leaves open at what the request asks for."""
    asked = {spec.name: spec for spec in request.inputs}
    inputs = [network.get_input(number) for number in range(network.num_inputs)]
    check_names([entry.name for entry in inputs], request.inputs)
    profile = builder.create_optimization_profile()
    for entry in inputs:
        shape = asked[entry.name].shape
        check_input(asked[entry.name], entry.dtype, entry.shape)
        if -1 in tuple(entry.shape):
            profile.set_shape(entry.name, shape, shape, shape)
    return profile


def _timings(config: Any, file: Path) -> Any:
    """Give the builder the kernel timings of earlier builds; none where there are none."""
    content = file.read_bytes() if file.is_file() else b""
    cache = config.create_timing_cache(content)
    if cache is None or not config.set_timing_cache(cache, False):
        print(f"tensorrt: {file.name} is not for this board: a new one is begun", file=sys.stderr)
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, False)
    return cache


def build_fault(said: str) -> Exception:
    """Return whose fault it is that no engine was built, by what the builder said."""
    if any(words in said.lower() for words in OUT_OF_MEMORY):
        return OutOfMemory(f"while compiling: {said}")
    if any(words in said.lower() for words in BOARD_FAULTS):
        return Unavailable(f"tensorrt built no engine: {said}: look at the driver's log")
    return Refused(f"tensorrt refuses the network: {said}")


def check_names(wanted: Sequence[str], specs: Sequence[TensorSpec]) -> None:
    """Raise `Unavailable` unless the request gives exactly the inputs that the graph has."""
    given = [spec.name for spec in specs]
    if sorted(wanted) != sorted(given):
        names = f"the graph's inputs are {sorted(wanted)}, the request's {sorted(given)}"
        raise Unavailable(f"{names}: give each of the graph's, and no other")


def check_input(spec: TensorSpec, told_dtype: Any, told_shape: Any) -> None:
    """Raise `Unavailable` unless an input has the type and shape that TensorRT tells."""
    dtype, shape = dtype_name(told_dtype), tuple(told_shape)
    fits = len(shape) == len(spec.shape) and all(
        extent in (-1, asked) for extent, asked in zip(shape, spec.shape, strict=False)
    )
    if dtype != spec.dtype or not fits:
        asked = f"the request gives {spec.dtype} {list(spec.shape)}"
        raise Unavailable(f"input {spec.name}: the graph takes {dtype} {list(shape)}, {asked}")


def dtype_name(told: Any) -> str:
    """Return our name of a `DataType`; raises `Unavailable` for one that has none."""
    name = str(told).rsplit(".", 1)[-1]
    if name not in DTYPES:
        raise Unavailable(f"TensorRT's type {name} is not known here: export another")
    return DTYPES[name][0]
