"""A stand-in for the `tensorrt` package: its names and arguments, with ONNX Runtime inside.

TensorRT's libraries come with NVIDIA's own systems alone. The stand-in lets every line of our
runtime run where there is none; that its names and arguments are those of the real package is held
against the compiled bindings by `test_agent_tensorrt.py`. It says nothing of speed or of what
TensorRT takes. Memory of "the device" is the host's, see `STAND_IN_CUDART`.
"""

import ctypes
import enum
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

__version__ = "10.3.0"

STAND_IN_CUDART = r"""
#include <stdlib.h>
#include <string.h>
#define OK return 0
static unsigned flags = 0;
int cudaGetDeviceCount(int *n) { *n = getenv("STAND_IN_NO_GPU") ? 0 : 1; OK; }
int cudaDriverGetVersion(int *v) { *v = 12060; OK; }
int cudaRuntimeGetVersion(int *v) { *v = 12060; OK; }
int cudaDeviceGetAttribute(int *v, int a, int d) { *v = a; OK; }
int cudaMalloc(void **p, size_t n) { if (n > (1u << 30)) return 2; *p = malloc(n); OK; }
int cudaMallocHost(void **p, size_t n) { *p = malloc(n); OK; }
int cudaMemcpyAsync(void *t, const void *s, size_t n, int kind, void *q) { memcpy(t, s, n); OK; }
int cudaStreamCreate(void **s) { *s = malloc(1); OK; }
int cudaStreamSynchronize(void *s) { OK; }
int cudaSetDeviceFlags(unsigned f) { flags = f; OK; }
int cudaGetDeviceFlags(unsigned *f) { *f = flags | 8; OK; }
int cudaEventCreate(void **e) { *e = malloc(1); OK; }
int cudaEventRecord(void *e, void *s) { OK; }
int cudaEventElapsedTime(float *ms, void *a, void *b) { *ms = 0.25f; OK; }
const char *cudaGetErrorString(int code) { return code == 2 ? "out of memory" : "an error"; }
"""

BUILT: list[bytes] = []
"""Networks that were built, in order."""


class DataType(enum.Enum):
    FLOAT = "tensor(float)"
    HALF = "tensor(float16)"
    INT32 = "tensor(int32)"
    INT64 = "tensor(int64)"


class TensorIOMode(enum.Enum):
    INPUT, OUTPUT = range(2)


class NetworkDefinitionCreationFlag(enum.IntEnum):
    STRONGLY_TYPED = 1


class BuilderFlag(enum.Enum):
    TF32 = 0


class MemoryPoolType(enum.Enum):
    WORKSPACE = 0


class ILogger:
    Severity = enum.IntEnum("Severity", ["INTERNAL_ERROR", "ERROR", "WARNING"])


class Network:
    num_inputs = 0

    def __init__(self) -> None:
        self.content, self.inputs = b"", []

    def get_input(self, index: int) -> Any:
        return self.inputs[index]


class OnnxParser:
    def __init__(self, network: Network, logger: ILogger) -> None:
        self.network, self.errors = network, []

    @property
    def num_errors(self) -> int:
        return len(self.errors)

    def get_error(self, index: int) -> Any:
        return self.errors[index]

    def parse_from_file(self, model: str) -> bool:
        return self._parse(Path(model).read_bytes())

    def _parse(self, model: bytes) -> bool:
        try:
            session = _session(model)
        except Exception as error:
            said = str(error)
            told = SimpleNamespace(
                node_operator=lambda: "Fuse", node_name=lambda: "only", desc=lambda: said
            )
            self.errors.append(told)
            return False
        self.network.content = model
        self.network.inputs = [
            SimpleNamespace(name=entry.name, shape=_shape(entry), dtype=DataType(entry.type))
            for entry in session.get_inputs()
        ]
        self.network.num_inputs = len(self.network.inputs)
        return True


class Config:
    builder_optimization_level = 3

    def set_memory_pool_limit(self, pool: MemoryPoolType, pool_size: int) -> None:
        assert pool is MemoryPoolType.WORKSPACE and pool_size > 0

    def clear_flag(self, flag: BuilderFlag) -> None:
        assert flag is BuilderFlag.TF32

    def add_optimization_profile(self, profile: Any) -> int:
        self.profile = profile
        return 0

    def create_timing_cache(self, serialized_timing_cache: bytes) -> Any:
        content = serialized_timing_cache + b"timed;"
        return SimpleNamespace(serialize=lambda: content)

    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
        return not cache.serialize().startswith(b"of another board")


class Profile:
    def __init__(self) -> None:
        self.shapes: dict[str, tuple[int, ...]] = {}

    def set_shape(self, input: str, min: Any, opt: Any, max: Any) -> None:
        assert min == opt == max
        self.shapes[input] = tuple(opt)


class Builder:
    def __init__(self, logger: Any) -> None:
        self.logger = logger

    def create_network(self, flags: int = 0) -> Network:
        assert flags == 1 << NetworkDefinitionCreationFlag.STRONGLY_TYPED
        return Network()

    def create_builder_config(self) -> Config:
        return Config()

    def create_optimization_profile(self) -> Profile:
        return Profile()

    def build_serialized_network(self, network: Network, config: Config) -> bytes | None:
        model = onnx.load_from_string(network.content)
        if said := [entry.value for entry in model.metadata_props if entry.key == "fails"]:
            self.logger.log(ILogger.Severity.ERROR, said[0])
            return None
        for entry in network.inputs:
            assert -1 not in entry.shape or entry.name in config.profile.shapes
        BUILT.append(network.content)
        return b"engine:" + network.content


class Runtime:
    def __init__(self, logger: ILogger) -> None:
        self.logger = logger

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> Any:
        if not serialized_engine.startswith(b"engine:"):
            return None
        return Engine(_session(serialized_engine[len(b"engine:") :]))


class Engine:
    def __init__(self, session: ort.InferenceSession) -> None:
        self.session = session
        ends = (session.get_inputs(), session.get_outputs())
        self.inputs, self.outputs = ({entry.name: entry for entry in end} for end in ends)
        self.names = [*self.inputs, *self.outputs]
        self.num_io_tensors = len(self.names)

    def get_tensor_name(self, index: int) -> str:
        return self.names[index]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode.INPUT if name in self.inputs else TensorIOMode.OUTPUT

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return _shape((self.inputs | self.outputs)[name])

    def get_tensor_dtype(self, name: str) -> DataType:
        return DataType((self.inputs | self.outputs)[name].type)

    def create_execution_context(self) -> "Context":
        return Context(self)


class Context:
    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shapes[name] = shape
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        (batch,) = {shape[0] for shape in self.shapes.values()}
        told = self.engine.get_tensor_shape(name)
        return tuple(batch if extent == -1 else extent for extent in told)

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self.addresses[name] = memory
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        given = {}
        for name, shape in self.shapes.items():
            kind = {"tensor(float)": "<f4", "tensor(float16)": "<f2"}.get(
                self.engine.inputs[name].type, "<i8"
            )
            size = math.prod(shape) * np.dtype(kind).itemsize
            content = ctypes.string_at(self.addresses[name], size)
            given[name] = np.frombuffer(content, kind).reshape(shape)
        outputs = self.engine.session.run(None, given)
        for name, output in zip(self.engine.outputs, outputs, strict=True):
            content = np.ascontiguousarray(output).tobytes()
            ctypes.memmove(self.addresses[name], content, len(content))
        return True


def _session(model: bytes) -> ort.InferenceSession:
    return ort.InferenceSession(model, providers=["CPUExecutionProvider"])


def _shape(entry: Any) -> tuple[int, ...]:
    return tuple(extent if isinstance(extent, int) else -1 for extent in entry.shape)
