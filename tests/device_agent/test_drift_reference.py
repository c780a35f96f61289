"""The drift reference is one valid ONNX file, the same everywhere, that runs where a job runs."""

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
from damage import DAMAGE

from device_agent.jobs import drift
from device_agent.jobs import job as jobs
from device_agent.runtime import Refused
from device_agent.runtimes.onnx_runtime import OnnxRuntime
from device_agent.storage.store import NOTE
from device_agent.timing.drift_reference import SIZES, reference_inputs, reference_onnx
from device_agent.wire.request import MeasureRequest, Status, TimingProtocol

onnx = pytest.importorskip("onnx")
np = pytest.importorskip("numpy")
ort = pytest.importorskip("onnxruntime")

REQUEST = MeasureRequest("0" * 64, reference_inputs(), threads=1)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "drift_reference.onnx").write_bytes(reference_onnx())
    return tmp_path / "drift_reference.onnx"


def test_it_is_valid_onnx_of_an_opset_that_every_runtime_takes() -> None:
    model = onnx.load_from_string(reference_onnx())
    onnx.checker.check_model(model, full_check=True)
    assert [opset.version for opset in model.opset_import] == [13]
    operators = [node.op_type for node in model.graph.node]
    assert operators == ["Conv", "Relu", "Conv", "Relu", "MatMul", "Relu", "MatMul"]


def test_it_is_the_same_file_everywhere() -> None:
    digest = hashlib.sha256(reference_onnx()).hexdigest()
    assert digest == "f9acdc5b33ab57c90519b2a3605a88804cb92be04184940336033cdb924b9427"


def test_it_computes_what_its_weights_say_and_stays_in_range(file: Path) -> None:
    from onnx.reference import ReferenceEvaluator

    x = np.linspace(-1, 1, 16 * 28 * 28, dtype=np.float32).reshape(1, 16, 28, 28)
    session = ort.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"x": x})
    (expected,) = ReferenceEvaluator(str(file)).run(None, {"x": x})
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3 * abs(expected).max())
    assert 0 < abs(found).max() < 1e6 and np.count_nonzero(found) > found.size / 2


@pytest.mark.parametrize("provider", ["CPUExecutionProvider", "CUDAExecutionProvider"])
def test_a_runtime_runs_it_as_it_runs_any_network(
    file: Path, tmp_path: Path, provider: str
) -> None:
    if provider not in ort.get_available_providers():
        pytest.skip(f"this onnxruntime has no {provider}")
    asked = replace(REQUEST, provider=provider)
    session = OnnxRuntime().prepare(file, asked, tmp_path, tmp_path)
    assert len(session.output_sha256()) == 64


def test_a_job_reads_the_drift_reference_before_and_after_without_a_thread_of_its_own(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[int] = []
    prepare = OnnxRuntime.prepare

    def seen(self: OnnxRuntime, model: Path, request: MeasureRequest, *rest: Path) -> object:
        if model.parent.name == "drift_reference":
            assert request.artifact_sha256 == hashlib.sha256(model.read_bytes()).hexdigest()
            threads.append(request.threads)
        return prepare(self, model, request, *rest)

    monkeypatch.setattr(OnnxRuntime, "prepare", seen)
    (tmp_path / "scratch").mkdir()
    quick = TimingProtocol(
        warmup_min_s=0.0, min_repeats=6, min_time_s=0.0, max_time_s=1.0, retries=0, reference_runs=3
    )
    asked = replace(REQUEST, timing=quick, threads=2)
    result = jobs.measure(jobs.Job(asked, file, tmp_path / "scratch", tmp_path))
    assert result.status is Status.OK and set(threads) == {1}
    assert result.drift_reference_size == len(threads) - 1
    (taken,) = result.rounds
    assert all(reading_ms > 0 for reading_ms in taken.drift_reference_ms)
    if Path("/proc/stat").is_file():
        assert taken.others_cores is not None


def test_a_drift_reference_that_does_not_run_is_no_fault_of_the_design(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare = OnnxRuntime.prepare

    def no_reference(self: OnnxRuntime, model: Path, *rest: object) -> object:
        if model.parent.name == "drift_reference":
            raise Refused("no Conv here")
        return prepare(self, model, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(OnnxRuntime, "prepare", no_reference)
    (tmp_path / "scratch").mkdir()
    result = jobs.measure(jobs.Job(REQUEST, file, tmp_path / "scratch", tmp_path))
    assert result.status is Status.ERROR
    assert "the drift reference does not run on this device: no Conv here" in result.reason


@pytest.mark.parametrize("size", range(len(SIZES)))
def test_every_size_is_a_valid_network_of_four_times_the_work(size: int) -> None:
    model = onnx.load_from_string(reference_onnx(size))
    onnx.checker.check_model(model, full_check=True)
    assert SIZES[size] == 28 * 4**size
    outputs = [dim.dim_value for dim in model.graph.output[0].type.tensor_type.shape.dim]
    assert outputs == ([1, 64, 1, 1] if size else [1, 64, 28, 28])


class Clocked:
    """A runtime on a device where a size takes this long, by its own clock."""

    def __init__(self, takes_ms: list[float]) -> None:
        self.takes_ms, self.now_s, self.prepared = takes_ms, 0.0, list[int]()

    def version(self) -> str:
        return "1.0"

    def prepare(self, model: Path, *rest: object) -> "Clocked":
        self.prepared.append(int(model.stem.rpartition("-")[2]))
        return self

    def output_sha256(self) -> str:
        return "0" * 64

    def run_once(self) -> None:
        self.now_s += self.takes_ms[self.prepared[-1]] / 1e3


@pytest.mark.parametrize(
    ("takes_ms", "size"),
    [
        ([60.0], 0),
        ([1.0, 4.0, 16.0], 2),
        ([0.2, 0.2, 0.5, 2.0, 8.0], 4),
        ([0.01] * len(SIZES), len(SIZES) - 1),
    ],
)
def test_its_size_is_chosen_once_so_that_a_run_is_long_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, takes_ms: list[float], size: int
) -> None:
    device = Clocked(takes_ms)
    monkeypatch.setattr(drift.time, "perf_counter", lambda: device.now_s)
    for name in ("first", "again"):
        (tmp_path / name).mkdir()
        _, found = drift.drift_session(device, REQUEST, tmp_path / name, tmp_path)  # type: ignore[arg-type]
        assert found == size
    assert device.prepared == [*range(size + 1), size]
    (tmp_path / drift.REMEMBERED).write_text('{"onnxruntime 1.0": "large"}')
    (tmp_path / "third").mkdir()
    _, found = drift.drift_session(device, REQUEST, tmp_path / "third", tmp_path)  # type: ignore[arg-type]
    assert found == size, "notes that are not what was written are made again"


@pytest.mark.parametrize("harm", [*DAMAGE, "another size"])
def test_a_size_that_was_altered_is_chosen_again_with_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], harm: str
) -> None:
    device = Clocked([1.0, 8.0])
    monkeypatch.setattr(drift.time, "perf_counter", lambda: device.now_s)
    sizes = []
    for name in ("first", "damaged", "again"):
        (tmp_path / name).mkdir()
        sizes.append(drift.drift_session(device, REQUEST, tmp_path / name, tmp_path)[1])  # type: ignore[arg-type]
        if name == "first":
            notes = tmp_path / drift.REMEMBERED
            assert capsys.readouterr().err == ""
            if harm in DAMAGE:
                DAMAGE[harm](notes)
            else:
                notes.write_text(notes.read_text().replace(": 1,", ": 0,"))
    assert sizes == [1, 1, 1]
    said = f"{NOTE}the size of the drift reference is chosen again\n"
    assert capsys.readouterr().err == ("" if harm == "removed" else said)
    assert device.prepared == [0, 1, 0, 1, 1]
