"""ONNX Runtime, on the processor or with CUDA."""

import importlib
import json
import math
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from device_agent.board.description import RuntimeInfo
from device_agent.runtime import VENV_HINT, Extras, OutOfMemory, Refused, Unavailable
from device_agent.runtimes.cuda import Cuda
from device_agent.runtimes.tensors import Output, digest
from device_agent.timing.inputs import tensor_bytes
from device_agent.wire.request import MeasureRequest, TensorSpec

NAME = "onnxruntime"
CPU = "CPUExecutionProvider"
OPTIONS: Mapping[str, Mapping[str, str]] = {
    CPU: {},
    # fp32 is fp32: whoever wants less than that asks for fp16.
    "CUDAExecutionProvider": {"cudnn_conv_algo_search": "EXHAUSTIVE", "use_tf32": "0"},
}
ELEMENT_TYPES = {
    "int64": "tensor(int64)",
    "int32": "tensor(int32)",
    "float32": "tensor(float)",
    "float16": "tensor(float16)",
    "uint8": "tensor(uint8)",
    "int16": "tensor(int16)",
}
BOOKKEEPING = frozenset({"Shape", "Size", "Constant", "ConstantOfShape"})
BOOKKEEPING_TYPES = frozenset({"int64", "int32", "bool"})
BOOKKEEPING_ELEMENTS = 64
OUT_OF_MEMORY = ("bad allocation", "bad_alloc", "failed to allocate", "out of memory")
# What the design, not the board, is to blame for when a session is made.
DESIGN_FAULTS = ("Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf", "NotImplemented")


class OnnxRuntime:
    """Keeps to `Runtime`; the package is imported when one of its calls needs it."""

    def describe(self) -> RuntimeInfo:
        """Say version and providers, and the newest ONNX it takes, found by trying."""
        try:
            ort = _load()
        except Unavailable as error:
            return RuntimeInfo(NAME, problem=str(error))
        return RuntimeInfo(
            name=NAME,
            version=str(ort.__version__),
            providers=tuple(ort.get_available_providers()),
            onnx_opset_max=_newest(ort, [(8, opset) for opset in range(13, 64)], 1),
            onnx_ir_max=_newest(ort, [(ir, 13) for ir in range(8, 32)], 0),
        )

    def version(self) -> str:
        """Return the version of the package; raises `Unavailable` when it cannot be loaded."""
        return str(_load().__version__)

    def prepare(
        self, model: Path, request: MeasureRequest, scratch: Path, kept: Path
    ) -> "OnnxSession":
        """Make a session with the asked provider alone; see `Runtime.prepare`."""
        ort = _load()
        offered = ort.get_available_providers()
        if request.provider not in OPTIONS or request.provider not in offered:
            usable = [name for name in offered if name in OPTIONS]
            asked = f"provider {request.provider} is not in this onnxruntime {ort.__version__}"
            raise Unavailable(f"{asked}: ask for one of {', '.join(usable)}, or install it there")
        waits_by = _spinning() if request.provider != CPU else None
        options = _options(ort, request.threads)
        options.enable_profiling = request.provider != CPU
        options.profile_file_prefix = str(scratch / "nodes")
        try:
            session = ort.InferenceSession(
                str(model), options, providers=[(request.provider, dict(OPTIONS[request.provider]))]
            )
        except Exception as error:
            raise _session_fault(error) from error
        taken = session.get_providers()
        if taken[0] != request.provider:
            asked = f"provider {request.provider} could not be loaded, onnxruntime took {taken[0]}"
            raise Unavailable(f"{asked}: look for its libraries in the job's log, install them")
        return OnnxSession(session, request, waits_by)


class OnnxSession:
    """Keeps to `Session`; inputs and outputs are NumPy arrays in the host's memory."""

    def __init__(self, session: Any, request: MeasureRequest, waits_by: str | None) -> None:
        """Check the inputs against the graph's and make them."""
        self._extras = Extras(waits_by=waits_by)
        _check_inputs(session.get_inputs(), request.inputs)
        self._session = session
        self._provider = request.provider
        self._inputs = {spec.name: _array(spec, request.seed) for spec in request.inputs}

    def run_once(self) -> None:
        """Run the network once."""
        self._session.run(None, self._inputs)

    def output_sha256(self) -> str:
        """Run once, see that every node kept to the provider, and digest the finite outputs."""
        try:
            outputs = self._session.run(None, self._inputs)
        except Exception as error:
            if _lacks_memory(error):
                raise OutOfMemory(f"in the first run: {_words(error)}") from error
            raise Unavailable(f"the first run failed: {_words(error)}") from error
        if self._provider != CPU:
            self._check_nodes()
        numpy = importlib.import_module("numpy")
        arrays = [numpy.asarray(output) for output in outputs]
        return digest(
            Output(node.name, str(array.dtype), array.shape, array.tobytes())
            for node, array in zip(self._session.get_outputs(), arrays, strict=True)
        )

    def extras(self) -> Extras:
        """How the host waits: sessions are compiled anew, and timed by the host's clock alone."""
        return self._extras

    def _check_nodes(self) -> None:
        # Profiling ends here, before anything is timed.
        profile = Path(self._session.end_profiling())
        strays = stray_nodes(json.loads(profile.read_text()), self._provider)
        if strays:
            named = ", ".join(strays[:10]) + (" ..." if len(strays) > 10 else "")
            fell = f"{len(strays)} nodes fell back from {self._provider}: {named}"
            raise Unavailable(f"{fell}: ask for a provider that runs them all, or drop them")


def stray_nodes(events: Iterable[Mapping[str, Any]], provider: str) -> list[str]:
    """Return the nodes of a profile that ran elsewhere than on `provider`.

    Nodes that only work out shapes are passed over: ONNX Runtime keeps those on the processor on
    purpose. They are known by their operator, or by giving a few whole numbers.
    """
    strays: dict[str, None] = {}
    for event in events:
        said = event.get("args", {})
        if event.get("cat") != "Node" or "provider" not in said or said["provider"] == provider:
            continue
        if said.get("op_name") in BOOKKEEPING or _gives_few_whole_numbers(said):
            continue
        name = str(event.get("name", "")).removesuffix("_kernel_time")
        strays[f"{name} ({said.get('op_name')} on {said['provider']})"] = None
    return list(strays)


def _gives_few_whole_numbers(said: Mapping[str, Any]) -> bool:
    outputs = [pair for one in said.get("output_type_shape", []) for pair in one.items()]
    return bool(outputs) and all(
        kind in BOOKKEEPING_TYPES and math.prod(shape) <= BOOKKEEPING_ELEMENTS
        for kind, shape in outputs
    )


def _spinning() -> str:
    """Have the host spin while it waits for CUDA, and return how it waits."""
    try:
        return Cuda().spin()
    except Unavailable as error:
        print(f"onnxruntime: how the host waits for CUDA was not set: {error}", file=sys.stderr)
        return "unknown"


def _load() -> Any:
    try:
        importlib.import_module("numpy")
        ort = importlib.import_module("onnxruntime")
        ort.set_default_logger_severity(3)
        ort.disable_telemetry_events()
    except Exception as error:
        failed = f"onnxruntime cannot be loaded by {sys.executable}: {_words(error)}"
        seen = "the agent does not see packages of a user's own site"
        raise Unavailable(f"{failed} ({seen}): {VENV_HINT}") from error
    return ort


def _options(ort: Any, threads: int) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    return options


def _session_fault(error: Exception) -> Exception:
    if _lacks_memory(error):
        return OutOfMemory(f"while compiling: {_words(error)}")
    if type(error).__name__ in DESIGN_FAULTS and "CUDA failure" not in str(error):
        return Refused(f"onnxruntime refuses the network: {_words(error)}")
    return Unavailable(f"onnxruntime made no session: {_words(error)}")


def _lacks_memory(error: Exception) -> bool:
    said = str(error).lower()
    return isinstance(error, MemoryError) or any(words in said for words in OUT_OF_MEMORY)


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:2000]


def _check_inputs(nodes: Iterable[Any], specs: Iterable[TensorSpec]) -> None:
    wanted = {node.name: node for node in nodes}
    given = {spec.name: spec for spec in specs}
    if wanted.keys() != given.keys():
        names = f"the graph's inputs are {sorted(wanted)}, the request's {sorted(given)}"
        raise Unavailable(f"{names}: give each of the graph's, and no other")
    for name, spec in given.items():
        node = wanted[name]
        fits = len(node.shape) == len(spec.shape) and all(
            not isinstance(extent, int) or extent == asked
            for extent, asked in zip(node.shape, spec.shape, strict=False)
        )
        if node.type != ELEMENT_TYPES[spec.dtype] or not fits:
            asked = f"the request gives {spec.dtype} {list(spec.shape)}"
            raise Unavailable(f"input {name}: the graph takes {node.type} {node.shape}, {asked}")


def _array(spec: TensorSpec, seed: int) -> Any:
    numpy = importlib.import_module("numpy")
    kind = numpy.dtype(spec.dtype).newbyteorder("<")
    values = numpy.frombuffer(tensor_bytes(spec, seed), kind).reshape(spec.shape)
    return values.astype(spec.dtype)


def _newest(ort: Any, versions: Iterable[tuple[int, int]], which: int) -> int | None:
    """Return the highest of the rising versions, one of a pair, that a network may have."""
    options = _options(ort, 1)
    options.log_severity_level = 4
    newest = None
    for pair in versions:
        try:
            ort.InferenceSession(_one_relu(*pair), options, providers=[CPU])
        except Exception:
            break
        newest = pair[which]
    return newest


def _one_relu(ir: int, opset: int) -> bytes:
    """Return an ONNX file `y = Relu(x)` of these versions, written by hand."""

    def part(field: int, content: bytes) -> bytes:
        return bytes([field << 3 | 2, len(content)]) + content

    tensor = part(1, b"\x08\x01" + part(2, part(1, b"\x08\x01")))  # float32 [1]
    node = part(1, b"x") + part(2, b"y") + part(4, b"Relu")
    ends = part(11, part(1, b"x") + part(2, tensor)) + part(12, part(1, b"y") + part(2, tensor))
    graph = part(1, node) + part(2, b"g") + ends
    return bytes([1 << 3, ir]) + part(7, graph) + part(8, bytes([2 << 3, opset]))
