"""A network crosses the link without its weights and is as good to time as with them."""

import hashlib
import json
import math
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from every_design import inputs_ending_at
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper
from quick_evaluators import QUICK_TIMING, builder, design, latency

from device_agent.jobs.job import Job, measure
from device_agent.onnx.file import parse_onnx, read_onnx
from device_agent.onnx.guard import RefusedFile, check_file
from device_agent.onnx.synthesize_weights import BLOCK, Fill, fill_of, fill_weights
from device_agent.wire.request import MeasureRequest, Status, job_id_of
from evaluators.devices.client import DeviceClient
from evaluators.latency.evaluator import LatencyEvaluator, Runs
from evaluators.onnx.builder import Artifact, run_onnx
from evaluators.onnx.stripped import KEPT_BYTES, strip_weights
from search_space.design.genotype import PRECISIONS, Genotype
from search_space.operators.definitions import OPERATORS

ROOT = Path(__file__).parents[3]
EVERY = [(o, PRECISIONS[(k + 1) % len(PRECISIONS)]) for k, o in enumerate(OPERATORS)]
"""Each operator in one of the precisions, its neighbours in the others."""
KINDS = {1: "<f4", 2: "u1", 3: "i1", 10: "<f2"}


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    made = Path(mkdtemp(prefix="weightless-"))
    yield made
    shutil.rmtree(made)


@lru_cache
def built(folder: Path, operator: str, precision: str) -> tuple[Genotype, Artifact, Artifact]:
    """A design, its file, and the same without weights."""
    over = "pooled" if operator == "product" else "tokens"
    made = design(operator, attention_blocks=1, attention_over=over, precision=precision)
    whole = builder(folder).build(made)
    return made, whole, strip_weights(whole)


def filled(stripped: Path, seed: int = 0) -> Path:
    file = stripped.with_suffix(f".{seed}.filled")
    if not file.exists():
        fill_weights(stripped, check_file(stripped, seed), seed, file)
    return file


def values(file: Path) -> dict[str, tuple[np.ndarray, str]]:
    """Every initializer by name, with what it says of itself."""
    return {
        tensor.name: (numpy_helper.to_array(tensor), tensor.doc_string)
        for tensor in onnx.load(str(file)).graph.initializer
    }


# -- every export there is


@pytest.mark.parametrize(("operator", "precision"), EVERY)
def test_the_guard_takes_every_export_with_and_without_weights(
    folder: Path, operator: str, precision: str
) -> None:
    _, whole, stripped = built(folder, operator, precision)
    check_file(whole.path, None)
    check_file(stripped.path, 0)
    check_file(filled(stripped.path), None)
    with pytest.raises(RefusedFile, match="weights that were left out need a seed"):
        check_file(stripped.path, None)


@pytest.mark.parametrize(("operator", "precision"), EVERY)
def test_a_filled_network_differs_in_its_large_weights_alone_and_gives_finite_outputs(
    folder: Path, operator: str, precision: str
) -> None:
    made, whole, stripped = built(folder, operator, precision)
    one, other = onnx.load(str(whole.path)), onnx.load(str(filled(stripped.path)))
    before, after = values(whole.path), values(filled(stripped.path))
    drawn = {name for name, (_, doc) in after.items() if doc}
    assert drawn and before.keys() == after.keys()
    for name, (array, _) in before.items():
        found = after[name][0]
        assert (found.dtype, found.shape) == (array.dtype, array.shape)
        if name not in drawn:
            assert np.array_equal(found, array)
            assert (
                array.nbytes <= KEPT_BYTES
                or array.dtype.kind not in "fiu"
                or (array.dtype.itemsize > 1 and array.dtype.kind in "iu")
            )
    for model in (one, other):
        del model.graph.initializer[:]
    assert one == other
    rows = [inputs_ending_at(made, 9)]
    assert np.isfinite(run_onnx(filled(stripped.path), rows)).all()


@pytest.mark.parametrize(("operator", "precision"), EVERY)
def test_filled_weights_spread_as_the_real_ones_do(
    folder: Path, operator: str, precision: str
) -> None:
    _, whole, stripped = built(folder, operator, precision)
    before, after = values(whole.path), values(filled(stripped.path))
    for name, (found, doc) in after.items():
        if not doc:
            continue
        real = before[name][0].astype("f8")
        drawn = found.astype("f8")
        room = 0.02 * (real.max() - real.min()) + 1e-3 * np.abs(real).max()
        assert real.min() - room <= drawn.min() and drawn.max() <= real.max() + room
        assert (real > 0).all() <= (drawn > 0).all()
        if real.std() > 0:
            assert 0.6 * real.std() < drawn.std() < 1.2 * real.std()
            assert abs(drawn.mean() - real.mean()) < 0.25 * real.std()
        if found.dtype.kind == "f" and real.any():
            assert np.abs(found[found != 0]).min() >= np.finfo(found.dtype).smallest_normal
            assert (found == 0).sum() <= (real == 0).sum()


def test_no_two_tensors_are_filled_alike(folder: Path) -> None:
    _, _, stripped = built(folder, "gated", "fp32")
    drawn = [array for array, doc in values(filled(stripped.path)).values() if doc and array.std()]
    assert len({array.tobytes()[:4000] for array in drawn}) == len(drawn) > 5


# -- seeds


def test_the_seed_alone_decides_the_weights(folder: Path, tmp_path: Path) -> None:
    _, _, stripped = built(folder, "gated", "fp32")
    again = tmp_path / "again"
    shutil.copy(stripped.path, again)
    assert filled(again).read_bytes() == filled(stripped.path).read_bytes()
    assert filled(again, seed=1).read_bytes() != filled(stripped.path).read_bytes()


@pytest.mark.parametrize("name", ["python3.10", "python3.11", "python3.12", "python3.13"])
def test_every_python_makes_the_same_bytes(folder: Path, name: str, tmp_path: Path) -> None:
    python = shutil.which(name)
    if python is None or subprocess.run([python, "-V"], capture_output=True).returncode != 0:
        pytest.skip(f"{name} is not here, or does not start")
    code = """if True:
        import sys
        from pathlib import Path
        from device_agent.onnx.synthesize_weights import fill_weights
        from device_agent.onnx.guard import check_file
        file, made, seed = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
        fill_weights(file, check_file(file, seed), seed, made)
    """
    for precision in PRECISIONS:
        _, _, stripped = built(folder, "gated", precision)
        made = tmp_path / precision
        command = [python, "-c", code, str(stripped.path), str(made), "0"]
        subprocess.run(command, cwd=ROOT, check=True, timeout=60)
        assert made.read_bytes() == filled(stripped.path).read_bytes()


def test_the_same_design_is_the_same_file_however_often_it_is_stripped(folder: Path) -> None:
    _, whole, stripped = built(folder, "tensor", "fp32")
    again = strip_weights(whole)
    assert again.sha256 == stripped.sha256 and again.path != stripped.path
    assert hashlib.sha256(again.path.read_bytes()).hexdigest() == again.sha256
    again.discard()
    assert stripped.path.exists() and whole.path.exists()


# -- what is left out, and what is not


def network_of(*arrays: np.ndarray) -> onnx.ModelProto:
    """A network that only holds these arrays."""
    held = [numpy_helper.from_array(array, f"t{k}") for k, array in enumerate(arrays)]
    ends = [onnx.helper.make_tensor_value_info(name, 1, [1]) for name in "xy"]
    node = onnx.helper.make_node("Abs", ["x"], ["y"])
    graph = onnx.helper.make_graph([node], "g", ends[:1], ends[1:], held)
    return onnx.helper.make_model(graph, ir_version=8, producer_name="p", doc_string="d")


def fills(folder: Path, *arrays: np.ndarray) -> list[Fill | None]:
    path = folder / "network.onnx"
    onnx.save(network_of(*arrays), str(path))
    stripped = strip_weights(Artifact(path, "0" * 64, (), 0.0, ()))
    found = [fill_of(tensor) for tensor in read_onnx(stripped.path).graph.initializers]
    stripped.discard()
    return found


def test_shapes_masks_and_small_tensors_stay(tmp_path: Path) -> None:
    mask = np.zeros((64, 64), "f")
    mask[np.triu_indices(64, 1)] = -math.inf
    holed = np.ones(2000, "f")
    holed[7] = np.nan
    kept = [
        np.ones(KEPT_BYTES // 4, "f"),
        np.arange(5000),
        np.arange(5000, dtype="int32"),
        np.ones(5000, bool),
        mask,
        np.where(mask < 0, np.finfo("f").min, mask).astype("f"),
        holed,
        np.full(2000, 1e-30, "f") * np.arange(2000, dtype="f"),
        np.linspace(0, 1, 2000),
    ]
    assert fills(tmp_path, *kept) == [None] * len(kept)


def test_constants_are_kept_and_variances_stay_positive(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    variance = np.exp(rng.normal(size=2000) * 2).astype("f")
    ones, zeros, spread = fills(tmp_path, np.ones(2000, "f"), np.zeros(2000, "f"), variance)
    assert ones == Fill(1.0, 1.0) and zeros == Fill(0.0, 0.0)
    assert spread is not None and 0 < spread.low < spread.high
    (quantised,) = fills(tmp_path, rng.integers(-127, 127, 9000).astype("int8"))
    assert quantised is not None and -127 <= quantised.low < -90 < 90 < quantised.high <= 127


@given(
    st.lists(
        st.tuples(
            st.sampled_from([*KINDS]), st.integers(0, 3 * BLOCK),
            st.floats(-100, 100), st.floats(-100, 100),
        ),
        max_size=4,
    ),
    st.integers(0, 2**63 - 1),
)  # fmt: skip
@settings(deadline=None, max_examples=25)
def test_a_filled_file_is_what_onnx_would_have_written(
    asked: list[tuple[int, int, float, float]], seed: int
) -> None:
    with_room = Path(mkdtemp(prefix="filled-"))
    try:
        model = network_of(*(np.zeros(0, "f") for _ in asked))
        for tensor, (kind, count, one, other) in zip(model.graph.initializer, asked, strict=True):
            low, high = sorted((one, other))
            if kind == 2:
                low, high = abs(int(low)), abs(int(low)) + 100
            if kind == 3:
                low, high = int(low), int(high)
            tensor.data_type, tensor.doc_string = kind, str(Fill(round(low, 2), round(high, 2)))
            tensor.dims[:] = [count]
            tensor.ClearField("raw_data")
        model.opset_import.add(domain="last", version=3)
        (with_room / "sent").write_bytes(model.SerializeToString())
        found = onnx.load(str(filled(with_room / "sent", seed)))
        for tensor, one in zip(model.graph.initializer, found.graph.initializer, strict=True):
            array = np.frombuffer(one.raw_data, KINDS[one.data_type])
            assert array.size == tensor.dims[0] and array.size == math.prod(one.dims)
            fill = fill_of(next(t for t in read_onnx(with_room / "sent").graph.initializers
                                if t.name == one.name))  # fmt: skip
            assert fill is not None
            room = 1e-3 * max(1.0, abs(fill.low), abs(fill.high))
            assert ((fill.low - room <= array) & (array <= fill.high + room)).all()
            one.ClearField("raw_data")
        assert found == model
    finally:
        shutil.rmtree(with_room)


def test_a_file_that_lacks_nothing_is_filled_to_itself(tmp_path: Path) -> None:
    (tmp_path / "sent").write_bytes(network_of(np.ones(9, "f")).SerializeToString())
    assert filled(tmp_path / "sent").read_bytes() == (tmp_path / "sent").read_bytes()


def test_a_full_disk_is_an_error_in_words(folder: Path, tmp_path: Path) -> None:
    _, _, stripped = built(folder, "gated", "fp32")
    request = MeasureRequest(stripped.sha256, stripped.inputs, weights_seed=0)
    result = measure(Job(request, stripped.path, tmp_path / "no such folder", tmp_path))
    assert result.status is Status.ERROR and "weights cannot be written" in result.reason


# -- the way to the device


@pytest.fixture(scope="module")
def evaluator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LatencyEvaluator]:
    evaluator = latency(tmp_path_factory.mktemp("device"))
    yield evaluator
    evaluator.close()


def sent_by(evaluator: LatencyEvaluator, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The files and requests that the device gets from here on."""
    sent: list[Any] = []
    measure = DeviceClient.measure

    def noted(self: DeviceClient, path: Path, asked: MeasureRequest, **named: Any) -> Any:
        sent.append((path, path.stat().st_size, asked))
        return measure(self, path, asked, **named)

    monkeypatch.setattr(DeviceClient, "measure", noted)
    return sent


def test_a_latency_is_measured_without_sending_the_weights(
    evaluator: LatencyEvaluator, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, whole, stripped = built(folder, "tensor", "fp32")
    sent = sent_by(evaluator, monkeypatch)
    found = evaluator.time(made, whole)
    ((path, size, asked),) = sent
    assert asked.artifact_sha256 == stripped.sha256 and asked.weights_seed == 0
    assert size < 0.2 * whole.path.stat().st_size and found["latency_ms"].value > 0
    assert found["onnx_bytes"].value == whole.path.stat().st_size
    assert found.details["onnx_sha256"] == whole.sha256
    assert found.details["sent_sha256"] == stripped.sha256
    assert whole.path.exists() and not path.exists()


def test_a_network_can_be_sent_whole(
    evaluator: LatencyEvaluator, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, whole, _ = built(folder, "gated", "fp32")
    client = evaluator._device
    runs = Runs(threads=1, timing=QUICK_TIMING, deadline_s=60.0, weights_seed=None)
    sent = sent_by(evaluator, monkeypatch)
    plain = LatencyEvaluator(builder(folder), lambda: client, runs)
    found = plain.time(made, whole)
    ((path, _, asked),) = sent
    assert path == whole.path and asked.weights_seed is None
    assert found.details["sent_sha256"] == found.details["onnx_sha256"] == whole.sha256
    assert found.key != evaluator.key(made)


def test_a_full_size_network_crosses_the_link_in_under_a_hundredth_of_its_bytes(
    tmp_path: Path,
) -> None:
    torch.manual_seed(0)
    layers = [torch.nn.Linear(768, 768) for _ in range(6)]
    arrays = [p.detach().numpy() for layer in layers for p in layer.parameters()]
    path = tmp_path / "network.onnx"
    onnx.save(network_of(*arrays), str(path))
    stripped = strip_weights(Artifact(path, "0" * 64, (), 0.0, ()))
    assert stripped.path.stat().st_size < 0.01 * path.stat().st_size
    assert filled(stripped.path).stat().st_size < 1.001 * path.stat().st_size


def test_a_fill_is_said_and_understood_alike() -> None:
    for low, high in ((-0.0361, 0.0361), (1e-06, 1.0), (-128, 127), (0.0, 0.0), (-1e4, 1e4)):
        said = str(Fill(low, high))
        kind = 3 if isinstance(low, int) else 1
        tensor = onnx.TensorProto(name="t", data_type=kind, dims=[3], doc_string=said)
        model = network_of()
        model.graph.initializer.append(tensor)
        (found,) = parse_onnx(model.SerializeToString()).graph.initializers
        assert fill_of(found) == Fill(low, high)


def test_what_a_request_says_of_weights_survives_the_trip() -> None:
    request = MeasureRequest("0" * 64, (), weights_seed=7)
    for asked in (request, replace(request, weights_seed=None)):
        assert MeasureRequest.from_json(json.loads(json.dumps(asked.as_json()))) == asked
    assert job_id_of(request) != job_id_of(replace(request, weights_seed=8))
