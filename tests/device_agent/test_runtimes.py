"""Every runtime keeps to the Protocol, and a job tells designs from boards at fault."""

import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from runtime_contract import CPU, RuntimeContract, X, model, request

from device_agent.jobs.job import Job, measure
from device_agent.runtime import Runtime
from device_agent.runtimes.onnx_runtime import OnnxRuntime, stray_nodes
from device_agent.runtimes.openvino import OpenVino
from device_agent.runtimes.tensorrt import GPU, TensorRt
from device_agent.timing.inputs import tensor_bytes
from device_agent.wire.request import Status

onnx = pytest.importorskip("onnx")
np = pytest.importorskip("numpy")
ort = pytest.importorskip("onnxruntime")


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    (tmp_path / "scratch").mkdir()
    return tmp_path / "scratch"


class TestOnnxRuntime(RuntimeContract):
    """ONNX Runtime on the processor."""

    provider = CPU

    @pytest.fixture
    def runtime(self) -> Runtime:
        return OnnxRuntime()


class TestOpenVino(RuntimeContract):
    """OpenVINO on the processor."""

    provider = "CPU"

    @pytest.fixture
    def runtime(self) -> Runtime:
        pytest.importorskip("openvino", reason="no openvino here: fusion-nas[openvino] brings it")
        return OpenVino()

    def test_its_outputs_are_those_of_onnx_runtime(
        self, runtime: Runtime, tmp_path: Path, scratch: Path
    ) -> None:
        file = model(tmp_path / "m.onnx", "Abs")
        ours = runtime.prepare(file, request(provider=self.provider), scratch, scratch)
        theirs = OnnxRuntime().prepare(file, request(), scratch, scratch)
        assert ours.output_sha256() == theirs.output_sha256()

    def test_a_job_times_a_network_by_it(
        self, runtime: Runtime, tmp_path: Path, scratch: Path
    ) -> None:
        made = job(tmp_path, scratch, runtime="openvino", provider=self.provider)
        result = measure(made)
        assert (result.status, result.reason) == (Status.OK, "")
        assert result.runtime_version == runtime.version()


class TestTensorRt(RuntimeContract):
    """TensorRT on a GPU."""

    provider = GPU

    @pytest.fixture
    def runtime(self) -> Runtime:
        runtime = TensorRt()
        if problem := runtime.describe().problem:
            pytest.skip(problem)
        return runtime


def test_outputs_are_those_of_the_bytes_that_the_seed_gives(tmp_path: Path, scratch: Path) -> None:
    file = model(tmp_path / "m.onnx", "Abs")
    values = np.abs(np.frombuffer(tensor_bytes(X, 0), "<f4").reshape(2, 4))
    expected = hashlib.sha256(b"y float32 (2, 4)\n" + values.tobytes()).hexdigest()
    assert OnnxRuntime().prepare(file, request(), scratch, scratch).output_sha256() == expected


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
    return Job(request(**changes), model(tmp_path / "m.onnx", operator), scratch, tmp_path)


def test_a_good_design_is_ok_with_all_that_was_seen(tmp_path: Path, scratch: Path) -> None:
    result = measure(job(tmp_path, scratch))
    assert (result.status, result.reason) == (Status.OK, "")
    assert 6 <= len(result.samples_ms) <= 12
    assert (result.runtime_version, result.provider) == (ort.__version__, CPU)
    assert result.board_before is not None and result.board_after is not None


def test_energy_is_measured_where_the_board_tells_its_power_and_asked_for(
    tmp_path: Path, scratch: Path
) -> None:
    monitor = tmp_path / "root/sys/class/hwmon/hwmon0"
    monitor.mkdir(parents=True)
    files = {"name": "ina3221", "in1_label": "VDD_IN", "in1_input": "5000", "curr1_input": "800"}
    for name, content in files.items():
        (monitor / name).write_text(content)
    made = job(tmp_path, scratch, energy_s=0.3)
    found = measure(made, tmp_path / "root").energy
    assert found is not None and found.source == "INA3221 VDD_IN"
    assert found.busy_w == pytest.approx(4.0) and found.idle_w == pytest.approx(4.0)
    assert found.mj_per_inference * found.runs >= 4.0 * 300 * 0.99
    for name, each, root in (("a", job(tmp_path, scratch, energy_s=0.0), "root"), ("b", made, "x")):
        (tmp_path / name).mkdir()
        assert measure(replace(each, scratch=tmp_path / name), tmp_path / root).energy is None


def test_a_design_that_yields_nan_is_infeasible(tmp_path: Path, scratch: Path) -> None:
    result = measure(job(tmp_path, scratch, "Sqrt"))
    assert result.status is Status.INFEASIBLE
    assert "output y" in result.reason and result.compile_s is not None


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        (
            {"runtime": "abacus"},
            r"runtime 'abacus' is unknown: ask for one of onnxruntime, tensorrt, openvino",
        ),
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
