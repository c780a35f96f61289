"""Every runtime keeps to the Protocol, and a job tells designs from boards at fault."""

import hashlib
import json
import re
from abc import ABC, abstractmethod
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from device_agent.inputs import tensor_bytes
from device_agent.job import Job, measure
from device_agent.protocol import MeasureRequest, Status, TensorSpec, TimingProtocol
from device_agent.runtime import Refused, Runtime, Unavailable
from device_agent.runtimes import RUNTIMES
from device_agent.runtimes.onnx_runtime import OnnxRuntime, stray_nodes

onnx = pytest.importorskip("onnx")
np = pytest.importorskip("numpy")
ort = pytest.importorskip("onnxruntime")

CPU = "CPUExecutionProvider"
QUICK = TimingProtocol(
    warmup_min_runs=1, warmup_min_s=0.0, warmup_max_s=0.1, min_repeats=6, max_repeats=12,
    min_time_s=0.0, max_time_s=1.0,
)  # fmt: skip
X = TensorSpec("x", "float32", (2, 4), low=-1.0, high=1.0)


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
    return replace(MeasureRequest("0" * 64, (X,), provider=CPU, timing=QUICK), **changes)


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    (tmp_path / "scratch").mkdir()
    return tmp_path / "scratch"


class RuntimeContract(ABC):
    """What every `Runtime` promises; a subclass gives it and a provider it surely has."""

    provider: str

    @abstractmethod
    @pytest.fixture
    def runtime(self) -> Runtime:
        """The runtime."""

    def test_it_says_its_version_and_providers(self, runtime: Runtime) -> None:
        info = runtime.describe()
        assert info.version == runtime.version()
        assert self.provider in info.providers
        assert RUNTIMES[info.name].describe() == info
        assert (info.onnx_opset_max or 99) >= 17 and (info.onnx_ir_max or 99) >= 8

    def test_the_same_seed_gives_the_same_outputs(
        self, runtime: Runtime, tmp_path: Path, scratch: Path
    ) -> None:
        file = model(tmp_path / "m.onnx", "Abs")
        asked = request(provider=self.provider)
        one = runtime.prepare(file, asked, scratch)
        one.run_once()
        again = runtime.prepare(file, asked, scratch).output_sha256()
        other = runtime.prepare(file, replace(asked, seed=1), scratch).output_sha256()
        assert one.output_sha256() == again != other

    @pytest.mark.parametrize("operator", ["Sqrt", "Log"])
    def test_outputs_that_are_not_finite_are_refused(
        self, runtime: Runtime, tmp_path: Path, scratch: Path, operator: str
    ) -> None:
        file = model(tmp_path / "m.onnx", operator)
        zeros = replace(X, fill="zeros") if operator == "Log" else X
        session = runtime.prepare(file, request(provider=self.provider, inputs=(zeros,)), scratch)
        with pytest.raises(Refused, match=r"output y: .* are NaN or inf"):
            session.output_sha256()

    def test_an_operator_it_does_not_know_is_refused(
        self, runtime: Runtime, tmp_path: Path, scratch: Path
    ) -> None:
        file = model(tmp_path / "m.onnx", "Fuse", domain="elsewhere")
        with pytest.raises(Refused, match="Fuse"):
            runtime.prepare(file, request(provider=self.provider), scratch)

    @pytest.mark.parametrize("content", [b"no network at all", b""])
    def test_a_file_that_is_no_network_is_refused(
        self, runtime: Runtime, tmp_path: Path, scratch: Path, content: bytes
    ) -> None:
        (tmp_path / "m.onnx").write_bytes(content)
        with pytest.raises(Refused, match="refuses the network"):
            runtime.prepare(tmp_path / "m.onnx", request(provider=self.provider), scratch)

    def test_a_missing_file_is_not_the_design_s_fault(
        self, runtime: Runtime, scratch: Path
    ) -> None:
        with pytest.raises(Unavailable):
            runtime.prepare(scratch / "none.onnx", request(provider=self.provider), scratch)

    def test_a_provider_it_lacks_is_not_replaced_by_another(
        self, runtime: Runtime, tmp_path: Path, scratch: Path
    ) -> None:
        file = model(tmp_path / "m.onnx", "Abs")
        with pytest.raises(Unavailable, match=f"AbacusProvider.*{self.provider}"):
            runtime.prepare(file, request(provider="AbacusProvider"), scratch)

    @pytest.mark.parametrize(
        "inputs",
        [(), (replace(X, name="z"),), (replace(X, dtype="float16"),), (replace(X, shape=(2, 5)),)],
    )
    def test_inputs_that_are_not_the_graph_s_are_named(
        self, runtime: Runtime, tmp_path: Path, scratch: Path, inputs: tuple[TensorSpec, ...]
    ) -> None:
        file = model(tmp_path / "m.onnx", "Abs")
        with pytest.raises(Unavailable, match=r"the graph.* the request"):
            runtime.prepare(file, request(provider=self.provider, inputs=inputs), scratch)


class TestOnnxRuntime(RuntimeContract):
    """ONNX Runtime on the processor."""

    provider = CPU

    @pytest.fixture
    def runtime(self) -> Runtime:
        return OnnxRuntime()


def test_outputs_are_those_of_the_bytes_that_the_seed_gives(tmp_path: Path, scratch: Path) -> None:
    file = model(tmp_path / "m.onnx", "Abs")
    values = np.abs(np.frombuffer(tensor_bytes(X, 0), "<f4").reshape(2, 4))
    expected = hashlib.sha256(b"y float32 (2, 4)\n" + values.tobytes()).hexdigest()
    assert OnnxRuntime().prepare(file, request(), scratch).output_sha256() == expected


def profile(tmp_path: Path, file: Path, x: Any) -> list[dict[str, Any]]:
    options = ort.SessionOptions()
    options.enable_profiling = True
    options.profile_file_prefix = str(tmp_path / "profile")
    session = ort.InferenceSession(str(file), options, providers=[CPU])
    session.run(None, {"x": x})
    found: list[dict[str, Any]] = json.loads(Path(session.end_profiling()).read_text())
    return found


def test_nodes_that_left_the_asked_provider_are_named_by_a_real_profile(tmp_path: Path) -> None:
    events = profile(tmp_path, model(tmp_path / "m.onnx", "Abs"), np.ones((2, 4), "f"))
    assert stray_nodes(events, CPU) == []
    assert stray_nodes(events, "CUDAExecutionProvider") == [f"only (Abs on {CPU})"]


def test_nodes_that_only_work_out_shapes_may_stay_on_the_processor(tmp_path: Path) -> None:
    def event(operator: str, *outputs: dict[str, list[int]]) -> dict[str, Any]:
        said = {"op_name": operator, "provider": CPU, "output_type_shape": list(outputs)}
        return {"cat": "Node", "name": f"{operator}_kernel_time", "args": said}

    fine = [event("Shape", {"int64": [2]}), event("Gather", {"int64": []}), event("Size")]
    strays = [event("Gather", {"float": [1]}), event("Add", {"int64": [1, 512]}), event("TopK")]
    assert [name.split(" ")[0] for name in stray_nodes(fine + strays, "CUDA")] == [
        "Gather",
        "Add",
        "TopK",
    ]


def job(tmp_path: Path, scratch: Path, operator: str = "Abs", **changes: Any) -> Job:
    return Job(request(**changes), model(tmp_path / "m.onnx", operator), scratch)


def test_a_good_design_is_ok_with_all_that_was_seen(tmp_path: Path, scratch: Path) -> None:
    result = measure(job(tmp_path, scratch))
    assert (result.status, result.reason) == (Status.OK, "")
    assert 6 <= len(result.samples_ms) <= 12
    assert (result.runtime_version, result.provider) == (ort.__version__, CPU)
    assert result.board_before is not None and result.board_after is not None


def test_a_design_that_yields_nan_is_infeasible(tmp_path: Path, scratch: Path) -> None:
    result = measure(job(tmp_path, scratch, "Sqrt"))
    assert result.status is Status.INFEASIBLE
    assert "output y" in result.reason and result.compile_s is not None


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"runtime": "abacus"}, r"runtime 'abacus' is unknown: ask for one of onnxruntime"),
        ({"provider": "CUDAExecutionProvider"}, r"CUDAExecutionProvider.*ask for one of"),
        ({"inputs": ()}, r"the graph's inputs are \['x'\]"),
    ],
)
def test_a_request_that_cannot_be_met_is_an_error_in_words(
    tmp_path: Path, scratch: Path, changes: dict[str, Any], named: str
) -> None:
    if changes.get("provider") in ort.get_available_providers():
        pytest.skip("this onnxruntime was built with that provider")
    result = measure(job(tmp_path, scratch, **changes))
    assert result.status is Status.ERROR
    assert re.search(named, result.reason)
