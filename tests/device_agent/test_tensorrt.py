"""Every TensorRT name and argument that we call is there in the compiled bindings, and our code
runs to its end over a stand-in of them. On a GPU the contract in `test_agent_runtime.py` holds."""

import ast
import importlib.metadata
import importlib.util
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
import stand_in_tensorrt as stand_in
from runtime_contract import RuntimeContract, X, model, request

from device_agent.jobs.job import Job, measure
from device_agent.runtime import Refused, Runtime, Unavailable
from device_agent.runtimes import RUNTIMES, cuda
from device_agent.runtimes import tensorrt as running
from device_agent.runtimes import tensorrt_build as ours
from device_agent.runtimes.onnx_runtime import OnnxRuntime
from device_agent.runtimes.tensorrt import GPU, TensorRt
from device_agent.wire.result import Status

# What we call: the class, the name, and its arguments; None for what is no call.
CALLS: dict[str, Sequence[str] | None] = {
    "Builder.__init__": ["logger"],
    "Builder.create_network": ["flags"],
    "Builder.create_builder_config": [],
    "Builder.create_optimization_profile": [],
    "Builder.build_serialized_network": ["network", "config"],
    "OnnxParser.__init__": ["network", "logger"],
    "OnnxParser.parse_from_file": ["model"],
    "OnnxParser.num_errors": None,
    "OnnxParser.get_error": ["index"],
    "ParserError.desc": [],
    "ParserError.node_name": [],
    "ParserError.node_operator": [],
    "INetworkDefinition.num_inputs": None,
    "INetworkDefinition.get_input": ["index"],
    "ITensor.name": None,
    "ITensor.shape": None,
    "ITensor.dtype": None,
    "IBuilderConfig.set_memory_pool_limit": ["pool", "pool_size"],
    "IBuilderConfig.builder_optimization_level": None,
    "IBuilderConfig.clear_flag": ["flag"],
    "IBuilderConfig.add_optimization_profile": ["profile"],
    "IBuilderConfig.create_timing_cache": ["serialized_timing_cache"],
    "IBuilderConfig.set_timing_cache": ["cache", "ignore_mismatch"],
    "ITimingCache.serialize": [],
    "IOptimizationProfile.set_shape": ["input", "min", "opt", "max"],
    "Runtime.__init__": ["logger"],
    "Runtime.deserialize_cuda_engine": ["serialized_engine"],
    "ICudaEngine.create_execution_context": [],
    "ICudaEngine.num_io_tensors": None,
    "ICudaEngine.get_tensor_name": ["index"],
    "ICudaEngine.get_tensor_mode": ["name"],
    "ICudaEngine.get_tensor_shape": ["name"],
    "ICudaEngine.get_tensor_dtype": ["name"],
    "IExecutionContext.set_input_shape": ["name", "shape"],
    "IExecutionContext.get_tensor_shape": ["name"],
    "IExecutionContext.set_tensor_address": ["name", "memory"],
    "IExecutionContext.execute_async_v3": ["stream_handle"],
    "ILogger.__init__": [],
    "ILogger.log": ["severity", "msg"],
    "ILogger.Severity.ERROR": None,
    "ILogger.Severity.INTERNAL_ERROR": None,
    "NetworkDefinitionCreationFlag.STRONGLY_TYPED": None,
    "MemoryPoolType.WORKSPACE": None,
    "BuilderFlag.TF32": None,
    "TensorIOMode.INPUT": None,
    **{f"DataType.{name}": None for name in ours.DTYPES},
}
STAND_IN_NAMES = {
    "INetworkDefinition": "Network",
    "IBuilderConfig": "Config",
    "IOptimizationProfile": "Profile",
    "ICudaEngine": "Engine",
    "IExecutionContext": "Context",
}
LIBRARIES = ("nvinfer", "nvinfer_plugin", "nvonnxparser")
FUNCTIONS = (
    "createInferBuilder_INTERNAL", "createInferRefitter_INTERNAL", "createInferRuntime_INTERNAL",
    "createNvOnnxParser_INTERNAL", "createNvOnnxParserRefitter_INTERNAL", "getPluginRegistry",
    "getBuilderPluginRegistry", "getNvOnnxParserVersion", "initLibNvInferPlugins",
)  # fmt: skip
# Run where empty libraries stand for NVIDIA's: the module loads and tells all its signatures.
LOOK = """
import functools, json, sys
import tensorrt_bindings as trt
sys.modules["tensorrt"] = trt
from device_agent.runtimes import tensorrt_build as ours
log = ours.new_log(ours.load())
log.log(trt.ILogger.Severity.WARNING, "not kept")
log.log(trt.ILogger.Severity.ERROR, "kept")
docs = {}
for name in json.loads(sys.argv[1]):
    try:
        docs[name] = functools.reduce(getattr, name.split("."), trt).__doc__ or ""
    except AttributeError:
        docs[name] = None
dtypes = [ours.dtype_name(getattr(trt.DataType, name)) for name in ours.DTYPES]
print(json.dumps({"docs": docs, "errors": log.errors, "dtypes": dtypes}))
"""


def compiled(folder: Path, source: str, names: Sequence[str]) -> None:
    """Compile C into shared libraries of these names; skips where there is no compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler here, which makes the empty libraries: install cc")
    (folder / "source.c").write_text(source)
    for name in names:
        built = [compiler, "-shared", "-fPIC", "-o", str(folder / name), str(folder / "source.c")]
        subprocess.run(built, check=True, capture_output=True, timeout=60)


@pytest.fixture(scope="module")
def bindings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the compiled bindings tell of our names."""
    if importlib.util.find_spec("tensorrt_bindings") is None:
        pytest.skip("no tensorrt_cu13_bindings here: pip install 'fusion-nas[dev]' brings them")
    version = importlib.metadata.version("tensorrt_cu13_bindings")
    folder = tmp_path_factory.mktemp("empty-libraries")
    source = "".join(f"void *{name}(void) {{ return 0; }}\n" for name in FUNCTIONS)
    compiled(folder, source, [f"lib{name}.so.{version.split('.')[0]}" for name in LIBRARIES])
    done = subprocess.run(
        [sys.executable, "-c", LOOK, json.dumps(list(CALLS))],
        env={**os.environ, "LD_LIBRARY_PATH": str(folder)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("name", CALLS)
def test_the_bindings_have_what_we_call_with_the_arguments_we_give(
    bindings: dict[str, Any], name: str
) -> None:
    told = bindings["docs"][name]
    assert told is not None, f"TensorRT has no {name}"
    wanted = CALLS[name]
    if wanted is None:
        return
    call = name.split(".")[-1]
    signatures = re.findall(rf"^(?:\d+\. )?{call}\((.*)\) -> ", told, re.MULTILINE)
    arguments = [re.findall(r"(?:^|, )(\w+): ", one) for one in signatures]
    optional = [set(re.findall(r"(\w+): [^,]* = ", one)) for one in signatures]
    assert any(
        [name for name in given[1:] if name in wanted or name not in free] == list(wanted)
        for given, free in zip(arguments, optional, strict=True)
    ), f"{name} takes {signatures}"


def test_our_logger_and_types_are_those_of_the_bindings(bindings: dict[str, Any]) -> None:
    assert bindings["errors"] == ["kept"]
    assert bindings["dtypes"] == [dtype for dtype, _ in ours.DTYPES.values()]


def test_nothing_of_tensorrt_is_called_that_is_not_held_here() -> None:
    tree = ast.parse(inspect.getsource(ours) + inspect.getsource(running))
    named = {
        ast.unparse(node).removeprefix("trt.")
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node).startswith("trt.")
    }
    held = {name.removesuffix(".__init__") for name in CALLS}
    prefixes = {name.rpartition(".")[0] for name in held} | {"ILogger.__init__", "__version__"}
    assert named <= held | prefixes
    assert {"Builder", "OnnxParser", "Runtime"} <= named


@pytest.mark.parametrize("name", [name for name, given in CALLS.items() if given is not None])
def test_the_stand_in_takes_the_same_arguments(name: str) -> None:
    kind, _, call = name.partition(".")
    found = getattr(stand_in, STAND_IN_NAMES.get(kind, kind), None)
    if found is None or call not in vars(found):
        assert kind in ("ParserError", "ITimingCache", "ILogger"), f"the stand-in has no {name}"
        return
    assert list(inspect.signature(getattr(found, call)).parameters)[1:] == list(CALLS[name] or ())


def test_every_call_of_cuda_is_in_its_own_library() -> None:
    try:
        library = cuda._load(cuda.LIBRARIES)
    except Unavailable as error:
        pytest.skip(str(error))
    assert [name for name in cuda.ARGUMENTS if not hasattr(library, name)] == []


# -- our code over the stand-in


@pytest.fixture(scope="module")
def cudart(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("cudart")
    compiled(folder, stand_in.STAND_IN_CUDART, ["libcudart.so"])
    return str(folder / "libcudart.so")


@pytest.fixture
def runtime(cudart: str, monkeypatch: pytest.MonkeyPatch) -> Runtime:
    monkeypatch.setitem(sys.modules, "tensorrt", stand_in)
    stand_in.BUILT.clear()
    return TensorRt((cudart,))


class TestTensorRtOverAStandIn(RuntimeContract):
    """TensorRT, as far as it can be held without a GPU."""

    provider = GPU

    @pytest.fixture
    def runtime(self, cudart: str, monkeypatch: pytest.MonkeyPatch) -> Runtime:
        monkeypatch.setitem(sys.modules, "tensorrt", stand_in)
        return TensorRt((cudart,))


ASKED = request(provider=GPU)


def failing(path: Path, words: str) -> Path:
    """A network at which the stand-in's builder fails with these words."""
    made = onnx.load(str(model(path, "Abs")))
    made.metadata_props.add(key="fails", value=words)
    path.write_bytes(made.SerializeToString())
    return path


def test_outputs_are_those_of_onnx_runtime(runtime: Runtime, tmp_path: Path) -> None:
    file = model(tmp_path / "m.onnx", "Abs")
    session = runtime.prepare(file, ASKED, tmp_path, tmp_path)
    expected = OnnxRuntime().prepare(file, request(), tmp_path, tmp_path)
    assert session.output_sha256() == expected.output_sha256()


def test_events_and_building_are_told(runtime: Runtime, tmp_path: Path) -> None:
    session = runtime.prepare(model(tmp_path / "m.onnx", "Abs"), ASKED, tmp_path, tmp_path)
    assert session.extras().device_ms is None
    session.run_once()
    assert session.extras().device_ms == 0.25 and session.extras().waits_by == "spin"
    assert (session.extras().build_s or 0) > 0


def test_a_network_is_compiled_once_and_says_then_what_it_took(
    runtime: Runtime, tmp_path: Path
) -> None:
    file = model(tmp_path / "m.onnx", "Abs")
    first = runtime.prepare(file, ASKED, tmp_path, tmp_path)
    again = runtime.prepare(
        file, replace(ASKED, seed=7, artifact_sha256="1" * 64), tmp_path, tmp_path
    )
    assert len(stand_in.BUILT) == 1
    assert again.extras().build_s == first.extras().build_s
    runtime.prepare(model(tmp_path / "m.onnx", "Exp"), ASKED, tmp_path, tmp_path)
    runtime.prepare(file, replace(ASKED, inputs=(replace(X, shape=(3, 4)),)), tmp_path, tmp_path)
    assert len(stand_in.BUILT) == 3


def test_a_job_says_what_compiling_took_also_when_it_had_not_to(
    runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(RUNTIMES, "tensorrt", runtime)  # type: ignore[arg-type]
    file = model(tmp_path / "m.onnx", "Abs")
    results = []
    for name in ("first", "again"):
        (tmp_path / name).mkdir()
        asked = replace(ASKED, runtime="tensorrt")
        results.append(measure(Job(asked, file, tmp_path / name, tmp_path)))
    assert [(one.status, one.reason) for one in results] == [(Status.OK, "")] * 2
    size = results[0].drift_reference_size
    assert size is not None and size == results[1].drift_reference_size
    assert len(stand_in.BUILT) == 2 + size, "the network and the drift references, once each"
    assert results[0].waits_by == "spin"
    assert results[0].compile_s == results[1].compile_s
    assert results[0].device_ms == 0.25 and results[0].runtime_version == stand_in.__version__


def test_another_tensorrt_compiles_again(
    runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = model(tmp_path / "m.onnx", "Abs")
    runtime.prepare(file, ASKED, tmp_path, tmp_path)
    monkeypatch.setattr(stand_in, "__version__", "11.4.0.106")
    runtime.prepare(file, ASKED, tmp_path, tmp_path)
    assert len(stand_in.BUILT) == 2


def test_an_engine_that_does_not_load_is_compiled_again(runtime: Runtime, tmp_path: Path) -> None:
    file = model(tmp_path / "m.onnx", "Abs")
    runtime.prepare(file, ASKED, tmp_path, tmp_path)
    (kept,) = tmp_path.glob("engines/*.engine")
    kept.write_bytes(b"torn")
    assert runtime.prepare(file, ASKED, tmp_path, tmp_path).output_sha256()
    assert len(stand_in.BUILT) == 2


def test_kernel_timings_are_kept_for_the_next_network_and_not_for_another_board(
    runtime: Runtime, tmp_path: Path
) -> None:
    for operator in ("Abs", "Exp"):
        file = model(tmp_path / "m.onnx", operator)
        runtime.prepare(file, ASKED, tmp_path, tmp_path)
    (timings,) = (tmp_path / "engines").glob("*.timing")
    assert timings.read_bytes() == b"timed;timed;"
    timings.write_bytes(b"of another board")
    runtime.prepare(model(tmp_path / "m.onnx", "Neg"), ASKED, tmp_path, tmp_path)
    assert timings.read_bytes() == b"timed;"


@pytest.mark.parametrize(
    ("words", "kind", "told"),
    [
        ("[x] OutOfMemory (Requested size was 9)", Refused, "out of memory while compiling"),
        ("Cuda Runtime (an illegal address)", Unavailable, "built no engine.*driver's log"),
        ("Could not find any implementation", Refused, "refuses the network: Could not find"),
    ],
)
def test_designs_and_boards_at_fault_are_told_apart(
    runtime: Runtime, tmp_path: Path, words: str, kind: type[Exception], told: str
) -> None:
    with pytest.raises(kind, match=told):
        runtime.prepare(failing(tmp_path / "m.onnx", words), ASKED, tmp_path, tmp_path)
    assert not list(tmp_path.glob("engines/*.engine"))


def test_without_a_gpu_or_with_another_major_version_it_says_so(
    cudart: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "tensorrt cannot be loaded" in TensorRt((cudart,)).describe().problem
    monkeypatch.setitem(sys.modules, "tensorrt", stand_in)
    assert "libcudart-none" in TensorRt(("libcudart-none.so",)).describe().problem
    monkeypatch.setenv("STAND_IN_NO_GPU", "1")
    assert "CUDA sees no device" in TensorRt((cudart,)).describe().problem
    monkeypatch.setattr(stand_in, "__version__", "9.3.0")
    assert "10 and 11 are" in TensorRt((cudart,)).describe().problem
