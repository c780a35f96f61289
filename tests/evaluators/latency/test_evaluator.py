"""A latency is what one device measured under one protocol, with its raw samples."""

import hashlib
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import onnx
import pytest
from quick_evaluators import QUICK_TIMING, builder, design, latency
from simulated_board import Board

from device_agent.board.power import Energy
from device_agent.wire.request import MeasureRequest
from device_agent.wire.result import MeasureResult
from evaluators.devices.client import DeviceClient, DeviceLost, DeviceRefused, open_local_device
from evaluators.evaluation import Evaluation
from evaluators.latency.evaluator import (
    ATTEMPTS,
    LOCAL_TIMING,
    LatencyEvaluator,
    MeasureError,
    Runs,
    crowded_by,
)
from evaluators.onnx import builder as onnx_builder
from evaluators.onnx.builder import Artifact
from evaluators.store import EvaluationStore, known_or_new
from search_space.design.genotype import PRECISIONS

RUNS = Runs(threads=1, timing=QUICK_TIMING, deadline_s=60.0)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("latency")


@pytest.fixture(scope="module")
def evaluator(home: Path) -> Iterator[LatencyEvaluator]:
    evaluator = latency(home)
    yield evaluator
    evaluator.close()


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    return builder(tmp_path / "built").build(design())


def left_behind(home: Path, evaluator: LatencyEvaluator) -> list[str]:
    """Artifacts and results that lie on the host, or on the device once all is settled."""
    evaluator.settle()
    folders = [home / "artifacts", home / "device" / "artifacts", home / "device" / "results"]
    return [file.name for folder in folders for file in folder.iterdir()]


def agent(evaluator: LatencyEvaluator) -> int:
    pid: int = evaluator._device._transport.pid  # type: ignore[attr-defined]
    return pid


def broken(artifact: Artifact, folder: Path) -> Artifact:
    """The same with a network that no runtime takes."""
    model = onnx.load(str(artifact.path))
    model.graph.node[0].op_type = "NoSuchOperator"
    return written(artifact, folder, model.SerializeToString())


def written(artifact: Artifact, folder: Path, content: bytes) -> Artifact:
    digest = hashlib.sha256(content).hexdigest()
    path = folder / f"{digest}.onnx"
    path.write_bytes(content)
    return replace(artifact, path=path, sha256=digest)


# -- what a result holds


def test_a_latency_is_the_median_of_its_samples_within_its_interval(
    evaluator: LatencyEvaluator, home: Path
) -> None:
    found = evaluator.evaluate(design())
    told, details = found["latency_ms"], found.details
    assert told.low is not None and told.high is not None
    assert 0 < told.low <= told.value <= told.high and told.unit == "ms"
    assert 8 <= len(details["samples_ms"]) <= 12 and told.value == median(details["samples_ms"])
    assert {told.low, told.high} <= set(details["samples_ms"])
    assert details["provider"] == "CPUExecutionProvider" and details["runtime_version"]
    assert len(details["block_medians_ms"]) == 2 and details["board_before"]
    assert details["board"] == evaluator.device().as_json()["board"]
    assert details["timing"] == "shared", "no board was watched for disturbances"
    names = {measure.name for measure in found.measures}
    assert names >= {"compile_s", "parameters", "macs", "weight_bytes", "onnx_bytes"}
    assert left_behind(home, evaluator) == []


def test_energy_is_told_where_the_board_tells_its_power(
    evaluator: LatencyEvaluator, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "energy_mj" not in {measure.name for measure in evaluator.evaluate(design()).measures}
    ask = DeviceClient.measure

    def with_rails(self: DeviceClient, *asked: Any, **more: Any) -> MeasureResult:
        energy = Energy(41.5, 6.25, 2.5, 150, "INA3221 VDD_IN")
        return replace(ask(self, *asked, **more), energy=energy)

    monkeypatch.setattr(DeviceClient, "measure", with_rails)
    found = evaluator.evaluate(design())
    assert (found["energy_mj"].value, found["energy_mj"].unit) == (41.5, "mJ")
    assert found.details["energy"]["idle_w"] == 2.5


def test_a_warm_up_that_never_became_steady_is_told_as_unstable(
    evaluator: LatencyEvaluator, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = DeviceClient.measure

    def unsteady(self: DeviceClient, *asked: Any, **more: Any) -> MeasureResult:
        return replace(ask(self, *asked, **more), steady=False)

    monkeypatch.setattr(DeviceClient, "measure", unsteady)
    told = evaluator.evaluate(design()).unstable
    assert told == "the timing cannot be trusted: the warm-up never became steady"


def test_a_device_slower_for_a_whole_trial_than_in_an_earlier_one_is_not_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = DeviceClient.measure
    references_ms = iter([1.0, 1.02, 1.2, 0.9, 1.0])

    def slower(self: DeviceClient, *asked: Any, **more: Any) -> MeasureResult:
        result = ask(self, *asked, **more)
        both = 2 * (next(references_ms),)
        last = replace(result.rounds[-1], drift_reference_ms=both, instability_reasons=())
        return replace(result, rounds=(last,), steady=True)

    monkeypatch.setattr(DeviceClient, "measure", slower)
    alone = replace(QUICK_TIMING, reference_tolerance=0.03, watch_board=True, retries=0)
    evaluator = latency(tmp_path, replace(RUNS, timing=alone))
    try:
        evaluations = [evaluator.evaluate(design()) for _ in range(5)]
    finally:
        evaluator.close()
    assert {one.details["timing"] for one in evaluations} == {"alone"}
    found = [one.unstable for one in evaluations]
    assert [bool(said) for said in found] == [False, False, True, False, True]
    assert "20.0 % slower than in an earlier trial on local (1.2 against 1 ms; 3 %" in found[2]
    assert "(1 against 0.9 ms" in found[4]


@pytest.mark.parametrize(
    ("takes_ms", "said"),
    [(lambda run: 10.0 + 0.02 * run, "25 % are"), (lambda run: 10.0 + 5 * (run % 2), "20 % asked")],
)
def test_on_a_shared_device_too_a_gross_drift_or_a_wide_interval_is_not_trusted(
    takes_ms: Callable[[int], float], said: str
) -> None:
    timing = Board(takes_ms).time(replace(LOCAL_TIMING, min_repeats=400, max_repeats=500))
    (doubt,) = timing.rounds[0 if "are" in said else -1].instability_reasons
    assert said in doubt


@pytest.mark.parametrize(
    ("others", "cores", "threads", "expected"),
    [
        (1.7, 2, 1, "other programs used 1.7 of 2 processors"),
        (0.9, 2, 1, ""),
        (0.9, 2, 0, "other programs used 0.9 of 2 processors"),
        (0.05, 2, 2, ""),
        (0.05, 2, 8, ""),
        (None, 2, 1, ""),
        (1.7, None, 1, ""),
    ],
)
def test_a_reading_is_called_crowded_where_other_programs_left_too_few_processors(
    others: float | None, cores: int | None, threads: int, expected: str
) -> None:
    assert crowded_by(others, cores, threads) == expected


def test_each_precision_of_a_design_is_timed_as_its_own_file(
    evaluator: LatencyEvaluator, home: Path
) -> None:
    found = [evaluator.evaluate(design(precision=p)) for p in PRECISIONS]
    assert len({f.details["onnx_sha256"] for f in found}) == len({f.key for f in found}) == 4
    assert left_behind(home, evaluator) == []


def test_a_reading_that_is_not_stable_says_so_and_is_no_answer_later(
    tmp_path: Path,
) -> None:
    strict = replace(QUICK_TIMING, block_tolerance=0.0, reference_tolerance=0.0, retries=1)
    evaluator = latency(tmp_path, replace(RUNS, timing=strict))
    store = EvaluationStore(tmp_path / "evaluations.jsonl")
    try:
        found, known = known_or_new(store, evaluator, design())
        again, known_again = known_or_new(store, evaluator, design())
    finally:
        evaluator.close()
    assert not known and not known_again and found.key == again.key
    assert found.unstable.startswith("none of 2 rounds of timing can be trusted; in the last, the")
    assert "0 % are allowed" in found.unstable
    assert found["latency_ms"].value == median(found.details["samples_ms"])
    (earlier,) = found.details["earlier_rounds"]
    assert len(earlier["samples_ms"]) >= 8 and earlier["doubts"] and len(earlier["anchor_ms"]) == 2
    kept = store.path.read_text().splitlines()
    assert len(kept) == 2, "both are kept with their raw samples"
    assert store.get(found.key) is None
    assert Evaluation.from_json(found.as_json()) == found


def test_how_designs_are_timed_is_told_with_the_figures_of_the_protocol(
    evaluator: LatencyEvaluator,
) -> None:
    told = evaluator.timing()
    assert "at least 8 runs in 2 blocks" in told and "interval is 10000 % wide" in told
    assert "up to 0 times" in told


# -- keys


def test_the_key_depends_on_device_threads_timing_runtime_and_classes(
    evaluator: LatencyEvaluator, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other_timing = replace(QUICK_TIMING, max_repeats=11)
    changed: dict[str, Any] = {
        "threads": replace(RUNS, threads=2),
        "timing": replace(RUNS, timing=other_timing),
        "provider": replace(RUNS, provider="CUDAExecutionProvider"),
        "runtime": replace(RUNS, runtime="tensorrt"),
        "weights": replace(RUNS, weights_seed=None),
        "seed": replace(RUNS, weights_seed=1),
    }
    keys = {evaluator.key(design())}
    client = evaluator._device
    for runs in changed.values():
        keys.add(LatencyEvaluator(builder(home), lambda: client, runs).key(design()))
    keys.add(LatencyEvaluator(builder(home, classes=3), lambda: client, RUNS).key(design()))
    info = client.hello()
    other = replace(info, board=replace(info.board, model="another board"))
    monkeypatch.setattr(DeviceClient, "hello", lambda self: other)
    keys.add(evaluator.key(design()))
    assert len(keys) == len(changed) + 3


def test_a_latency_is_of_one_version_of_the_graphs(
    evaluator: LatencyEvaluator, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = evaluator.key(design())
    monkeypatch.setattr(onnx_builder, "GRAPH_VERSION", onnx_builder.GRAPH_VERSION - 1)
    assert evaluator.key(design()) != now


def test_the_key_does_not_depend_on_how_long_one_waits(
    evaluator: LatencyEvaluator, home: Path
) -> None:
    patient = replace(RUNS, deadline_s=500.0)
    client = evaluator._device
    assert LatencyEvaluator(builder(home), lambda: client, patient).key(design()) == evaluator.key(
        design()
    )


def test_a_job_has_an_hour_where_tensorrt_compiles_and_ten_minutes_elsewhere(
    evaluator: LatencyEvaluator, home: Path, artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[float] = []

    def refuse(self: DeviceClient, _: Path, request: MeasureRequest, **more: Any) -> None:
        asked.append(request.deadline_s)
        raise DeviceRefused("bad-message", "not now")

    monkeypatch.setattr(DeviceClient, "measure", refuse)
    client = evaluator._device
    for runtime in ("tensorrt", "onnxruntime"):
        runs = Runs(runtime, timing=QUICK_TIMING)
        with pytest.raises(DeviceRefused):
            LatencyEvaluator(builder(home), lambda: client, runs).time(design(), artifact)
    assert asked == [3600.0, 600.0]


# -- what goes wrong


def test_a_lost_agent_is_opened_again_once(evaluator: LatencyEvaluator, home: Path) -> None:
    before = agent(evaluator)
    os.kill(before, signal.SIGKILL)
    found = evaluator.evaluate(design())
    assert found["latency_ms"].value > 0 and agent(evaluator) != before
    assert left_behind(home, evaluator) == []


def test_a_device_that_is_lost_every_time_is_told_and_usable_afterwards(
    home: Path, tmp_path: Path, artifact: Artifact
) -> None:
    opened: list[DeviceClient] = []

    def open_device() -> DeviceClient:
        opened.append(open_local_device(tmp_path / "device"))
        if len(opened) <= ATTEMPTS:
            opened[-1].hello()
            os.kill(opened[-1]._transport.pid, signal.SIGKILL)  # type: ignore[attr-defined]
        return opened[-1]

    unlucky = LatencyEvaluator(builder(tmp_path / "artifacts"), open_device, RUNS)
    try:
        with pytest.raises(MeasureError, match=f"lost {ATTEMPTS} times"):
            unlucky.time(design(), artifact)
        assert len(opened) == ATTEMPTS + 1
        assert unlucky.time(design(), artifact)["latency_ms"].value > 0
    finally:
        unlucky.close()


def test_a_result_is_not_lost_with_the_agent_that_gave_it(
    evaluator: LatencyEvaluator, artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose(self: DeviceClient, *_: object) -> None:
        raise DeviceLost("gone while it tidied up")

    evaluator.time(design(), artifact)
    with monkeypatch.context() as patch:
        patch.setattr(DeviceClient, "forget", lose)
        evaluator.settle()
        found = evaluator.time(design(), artifact)
    assert found["latency_ms"].value > 0 and len(found.details["interruptions"]) == 1


def test_what_a_host_could_not_keep_is_fetched_and_not_timed_again(
    evaluator: LatencyEvaluator, home: Path, artifact: Artifact
) -> None:
    first = evaluator.time(design(), artifact)
    evaluator.close()  # as a host that is ended before it kept the evaluation
    again = latency(home, RUNS)
    try:
        assert again.time(design(), artifact).details["samples_ms"] == first.details["samples_ms"]
        again.settle()
        anew = again.time(design(), artifact)
        assert anew.details["samples_ms"] != first.details["samples_ms"]
    finally:
        again.close()
        evaluator._device = open_local_device(home / "device")


def test_what_another_power_mode_measured_is_not_fetched(
    evaluator: LatencyEvaluator, artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = evaluator.time(design(), artifact)
    owed, evaluator._unsettled = evaluator._unsettled, []  # as a host that was ended too soon
    info = evaluator.device()
    other = replace(info, board=replace(info.board, power_mode="15W"))
    monkeypatch.setattr(DeviceClient, "hello", lambda self: other)
    assert evaluator.time(design(), artifact).details["samples_ms"] != first.details["samples_ms"]
    evaluator._unsettled += owed


def test_a_network_that_can_never_run_is_an_evaluation_with_words(
    evaluator: LatencyEvaluator, artifact: Artifact, tmp_path: Path, home: Path
) -> None:
    found = evaluator.time(design(), broken(artifact, tmp_path))
    assert "NoSuchOperator" in found.infeasible and found.key == evaluator.key(design())
    assert "latency_ms" not in {measure.name for measure in found.measures}
    assert found["macs"].value > 0
    assert left_behind(home, evaluator) == []


@pytest.mark.parametrize(
    ("runs", "words"),
    [
        (replace(RUNS, runtime="tensorrt"), "tensorrt"),
        (replace(RUNS, provider="CUDAExecutionProvider"), "CUDAExecutionProvider"),
        (replace(RUNS, deadline_s=0.1), "0.1 s"),
    ],
    ids=["runtime", "provider", "deadline"],
)
def test_what_is_not_the_designs_fault_is_an_error_and_no_evaluation(
    evaluator: LatencyEvaluator, artifact: Artifact, runs: Runs, words: str, home: Path
) -> None:
    client = evaluator._device
    with pytest.raises(MeasureError, match=words):
        LatencyEvaluator(builder(home), lambda: client, runs).time(design(), artifact)
    assert [name for name in left_behind(home, evaluator) if name == artifact.sha256] == []
    assert evaluator.time(design(), artifact)["latency_ms"].value > 0


def test_a_build_that_fails_leaves_nothing_and_asks_no_device(
    evaluator: LatencyEvaluator, home: Path
) -> None:
    with pytest.raises(ValueError, match="taps 1 to 6"):
        evaluator.evaluate(design(text_tap=9))
    assert left_behind(home, evaluator) == []


def test_an_artifact_is_discarded_also_where_measuring_fails(
    evaluator: LatencyEvaluator, home: Path
) -> None:
    client = evaluator._device
    refused = LatencyEvaluator(
        builder(home / "artifacts"), lambda: client, replace(RUNS, runtime="tensorrt")
    )
    with pytest.raises(MeasureError):
        refused.evaluate(design())
    assert left_behind(home, evaluator) == []
