"""Checks of runtimes, those of plugins and those of `device_agent.runtimes`."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import onnx

from device_agent.onnx.guard import check_file
from device_agent.runtime import PluginRuntime, Refused, Runtime, Session, Unavailable
from device_agent.runtimes.onnx_runtime import OnnxRuntime
from device_agent.runtimes.plugin import OfPlugin
from device_agent.timing.drift_reference import reference_inputs, reference_onnx
from device_agent.wire.request import MeasureRequest, TensorSpec, TimingProtocol

QUICK = TimingProtocol(
    warmup_min_runs=1, warmup_min_s=0.0, warmup_max_s=0.1, min_repeats=6, max_repeats=12,
    min_time_s=0.0, max_time_s=1.0, interval_share=100.0, block_tolerance=100.0,
    reference_tolerance=100.0, reference_runs=3, retries=0,
)  # fmt: skip
X = TensorSpec("x", "float32", (2, 4), low=-1.0, high=1.0)
CPU = "CPUExecutionProvider"


@dataclass(frozen=True)
class RuntimeCase:
    """A runtime, the provider that it is checked with, and an empty folder to write to."""

    runtime: Runtime
    provider: str
    folder: Path

    def model(self, operator: str, operands: int = 1, domain: str = "") -> Path:
        """Write a network of one operator; see `model`."""
        return model(self.folder / "model.onnx", operator, operands, domain)

    def request(self, **changes: Any) -> MeasureRequest:
        """Return a request for the case's provider; see `request`."""
        return request(**{"provider": self.provider, **changes})

    def prepare(self, file: Path, asked: MeasureRequest) -> Session:
        """Prepare a file."""
        scratch = self.folder / "scratch"
        scratch.mkdir(exist_ok=True)
        return self.runtime.prepare(file, asked, scratch, scratch)


def model(path: Path, operator: str, operands: int = 1, domain: str = "") -> Path:
    """Write `y = operator(x, ...)` over float32 [batch, 4]."""
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    ends = [helper.make_tensor_value_info(name, kind, ["batch", 4]) for name in "xy"]
    node = helper.make_node(operator, ["x"] * operands, ["y"], name="only", domain=domain)
    versions = [helper.make_opsetid("", 17), helper.make_opsetid("elsewhere", 1)]
    graph = helper.make_graph([node], "graph", ends[:1], ends[1:])
    made = helper.make_model(graph, opset_imports=versions, ir_version=8)
    path.write_bytes(made.SerializeToString())
    return path


def request(**changes: Any) -> MeasureRequest:
    """Return a request to time networks of `model`, on the processor."""
    return replace(MeasureRequest("0" * 64, (X,), provider=CPU, timing=QUICK), **changes)


def check_runtime(runtime: PluginRuntime) -> None:
    """Check that a plugin's runtime does what the agent relies on.

    It reports version and provider; the same seed gives the same outputs, and another seed others;
    its outputs are those of ONNX Runtime; outputs that are NaN or infinite, unknown operators and
    files that are no network are refused; a missing file, another provider and inputs that are not
    the graph's are not reported as the network's fault; the drift reference, which every job runs
    beside the network, runs on it. It takes seconds.

    Args:
        runtime: an instance of the class that the entry point names.

    Raises:
        AssertionError: the first thing that is wrong, in words.
    """
    made = type(runtime)
    named = OfPlugin("checked", "its package", lambda: runtime)
    for check in (*RUNTIME_CHECKS, check_outputs):
        with tempfile.TemporaryDirectory(prefix="fusion-nas-") as folder:
            case = RuntimeCase(named, runtime.provider, Path(folder))
            try:
                check(case)
            except AssertionError as error:
                raise AssertionError(f"{made.__name__}: {error}") from error
            except Exception as error:
                task = check.__name__.removeprefix("check_").replace("_", " ")
                said = f"{type(error).__name__}: {error}"
                raise AssertionError(f"{made.__name__}: checking {task} raised {said}") from error


def check_description(case: RuntimeCase) -> None:
    """It reports its version and providers, the same each time."""
    info = case.runtime.describe()
    assert not info.problem, f"it cannot be loaded: {info.problem}"
    version = case.runtime.version()
    assert info.version == version, f"describe says version {info.version}, version() {version}"
    assert case.provider in info.providers, f"{case.provider} is not among {info.providers}"
    assert info == case.runtime.describe(), "it describes itself otherwise the second time"
    opset, ir = info.onnx_opset_max or 99, info.onnx_ir_max or 99
    assert opset >= 17 and ir >= 8, f"it takes ONNX opset {opset} and IR {ir}; 17 and 8 are needed"


def check_seed(case: RuntimeCase) -> None:
    """The same seed gives the same outputs, and another one others."""
    file, asked = case.model("Abs"), case.request()
    first = case.prepare(file, asked)
    first.run_once()
    again = case.prepare(file, asked).output_sha256()
    other = case.prepare(file, replace(asked, seed=1)).output_sha256()
    assert first.output_sha256() == again, "the same seed gives other outputs"
    assert again != other, "another seed gives the same outputs: inputs are those of tensor_bytes"


def check_finite_outputs(case: RuntimeCase) -> None:
    """Outputs that are NaN or infinite are refused, with the output's name."""
    zeros = replace(X, fill="zeros")
    for operator, given, bad in (("Sqrt", X, "NaN"), ("Log", zeros, "infinite")):
        session = case.prepare(case.model(operator), case.request(inputs=(given,)))
        said = _raised(Refused, session.output_sha256, f"outputs that are {bad}")
        assert "output y" in said and "NaN or inf" in said, f"it refuses in other words: {said}"


def check_unknown_operator(case: RuntimeCase) -> None:
    """An operator that it does not know is refused, with the operator's name."""
    file = case.model("Fuse", domain="elsewhere")
    said = _raised(Refused, lambda: case.prepare(file, case.request()), "an unknown operator")
    assert "Fuse" in said, f"it does not name the unknown operator Fuse: {said}"


def check_broken_file(case: RuntimeCase) -> None:
    """A file that holds no network is refused."""
    file = case.folder / "broken.onnx"
    for content in (b"no network at all", b""):
        file.write_bytes(content)
        what = f"a file of {len(content)} bytes that holds no network"
        said = _raised(Refused, lambda: case.prepare(file, case.request()), what)
        assert "refuses the network" in said, f"it does not say that it refuses the network: {said}"


def check_missing_file(case: RuntimeCase) -> None:
    """A missing file is not the network's fault."""
    missing = case.folder / "none.onnx"
    _raised(Unavailable, lambda: case.prepare(missing, case.request()), "a missing file")


def check_other_provider(case: RuntimeCase) -> None:
    """A provider that it lacks is not replaced by another one."""
    file, asked = case.model("Abs"), case.request(provider="AbacusProvider")
    said = _raised(Unavailable, lambda: case.prepare(file, asked), "provider AbacusProvider")
    named = "AbacusProvider" in said and case.provider in said.partition("AbacusProvider")[2]
    assert named, f"it does not name AbacusProvider, and then {case.provider}: {said}"


def check_other_inputs(case: RuntimeCase) -> None:
    """Inputs that are not the graph's are not the network's fault."""
    file = case.model("Abs")
    for inputs, what in (
        ((), "no inputs"),
        ((replace(X, name="z"),), "an input of another name"),
        ((replace(X, dtype="float16"),), "an input of another type"),
        ((replace(X, shape=(2, 5)),), "an input of another shape"),
    ):
        asked = case.request(inputs=inputs)
        said = _raised(Unavailable, partial(case.prepare, file, asked), what)
        named = "the graph" in said and "the request" in said.partition("the graph")[2]
        assert named, f"it does not say what the graph and what the request has: {said}"


def check_drift_reference(case: RuntimeCase) -> None:
    """The drift reference, which every job times beside its network, runs on it."""
    file = case.folder / "reference.onnx"
    file.write_bytes(reference_onnx(0))
    check_file(file, None)
    session = case.prepare(file, case.request(inputs=reference_inputs(0), threads=1))
    session.output_sha256()
    session.run_once()
    session.extras()


def check_outputs(case: RuntimeCase) -> None:
    """Its outputs are those of ONNX Runtime, bit by bit, where nothing is rounded."""
    file = case.model("Abs")
    expected = OnnxRuntime().prepare(file, request(), case.folder, case.folder).output_sha256()
    found = case.prepare(file, case.request()).output_sha256()
    assert found == expected, "its digest of the outputs of Abs is not that of ONNX Runtime"


RUNTIME_CHECKS: tuple[Callable[[RuntimeCase], None], ...] = (
    check_description,
    check_seed,
    check_finite_outputs,
    check_unknown_operator,
    check_broken_file,
    check_missing_file,
    check_other_provider,
    check_other_inputs,
    check_drift_reference,
)
"""Checks that every runtime must pass, also those on a GPU; each raises AssertionError."""


def _raised(kind: type[Exception], call: Callable[[], object], what: str) -> str:
    """Return what is said of `what`. Raises AssertionError unless that is said by `kind`."""
    try:
        call()
    except kind as error:
        return str(error)
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
        raise AssertionError(f"{what}: it raises {said}, not {kind.__name__}") from error
    raise AssertionError(f"{what}: it raises nothing, not {kind.__name__}")
