"""The expected latency of a design whose inputs repeat: what its parts take, by their shares."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from quick_evaluators import QUICK_TIMING, builder, demo, design

from evaluators.devices.client import DeviceClient, open_local_device
from evaluators.evaluation import Evaluation, Measure
from evaluators.latency.evaluator import LatencyEvaluator, Runs
from evaluators.latency.reuse import Reuse, expected, reuse_of
from evaluators.latency.turns import read_in_turns
from search_space.design.genotype import FusionPoint, Genotype
from search_space.design.rules import canonical

RUNS = Runs(threads=1, timing=QUICK_TIMING, deadline_s=60.0)
COSTS = (Measure("parameters", 7.0, "", "lower"),)


def reading(ms: float, **more: Any) -> Evaluation:
    """Return a reading of one part, all of whose samples are alike."""
    measures = (
        Measure("latency_ms", ms, "ms", "lower", 0.9 * ms, 1.2 * ms),
        Measure("compile_s", 1.0, "s", "lower"),
        Measure("peak_memory_mb", 50.0, "MB", "lower"),
        Measure("energy_mj", 10 * ms, "mJ", "lower"),
        Measure("energy_above_idle_mj", ms, "mJ", "lower"),
    )
    details: Mapping[str, Any] = {
        "samples_ms": [ms],
        "block_medians_ms": [ms],
        "anchor_ms": [1.0],
        "cpu_ms": ms,
        "crowded": "",
        "steady": True,
        "interruptions": [],
        "sent_sha256": "0" * 64,
        "device": "local",
    }
    return Evaluation("key", "latency", measures, details, **more)


PARTS = {"text": reading(3.0), "image": reading(12.0), "fusion": reading(1.0)}


@pytest.mark.parametrize(("share", "ms"), [(0.0, 16.0), (0.5, 10.0), (0.8, 6.4), (1.0, 4.0)])
def test_it_is_the_sum_of_the_parts_by_how_often_they_run(share: float, ms: float) -> None:
    found = expected(PARTS, {"image": share}, COSTS)
    taken = found["latency_ms"]
    assert (taken.value, taken.low, taken.high) == pytest.approx((ms, 0.9 * ms, 1.2 * ms))
    assert found["energy_mj"].value == pytest.approx(10 * ms)
    assert found.details["cpu_ms"] == pytest.approx(ms)
    assert found["parameters"].value == 7.0 and found["compile_s"].value == 3.0
    assert "peak_memory_mb" not in {measure.name for measure in found.measures}
    assert found.details["parts"]["image"]["ms"] == 12.0
    assert found.details["parts"]["image"]["share_cached"] == share


def test_a_design_that_is_never_run_is_infeasible() -> None:
    found = expected({"image": reading(12.0)}, {"image": 1.0}, COSTS)
    assert "all of its inputs are cached" in found.infeasible and found.measures == COSTS


def test_its_percentiles_are_of_requests_and_not_of_their_mean() -> None:
    found = expected(PARTS, {"image": 0.97}, COSTS)
    assert found["latency_p95_ms"].value == pytest.approx(4.0)
    assert found["latency_p99_ms"].value == pytest.approx(16.0)
    assert expected(PARTS, {"image": 1.0}, COSTS)["latency_jitter_ms"].value == 0
    again = expected(PARTS, {"image": 0.97}, COSTS)
    assert again == found


def test_a_part_that_cannot_run_or_is_not_stable_names_itself() -> None:
    broken = {**PARTS, "fusion": Evaluation("key", "latency", COSTS, infeasible="no kernel")}
    assert expected(broken, {"image": 0.5}, COSTS).infeasible == "its fusion part: no kernel"
    shaky = {**PARTS, "image": reading(12.0, unstable="halves differ")}
    assert expected(shaky, {"image": 0.5}, COSTS).unstable == "its image part: halves differ"


def test_shares_are_told_in_words() -> None:
    assert reuse_of(()).words() == ""
    one, two = reuse_of(("image=0.8",)), reuse_of(("text=0.5", "image=0.125"))
    assert one.words() == "expected latency with 80 % of images cached"
    assert two.words() == "expected latency with 50 % of texts and 12.5 % of images cached"


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DeviceClient]:
    with open_local_device(tmp_path_factory.mktemp("device")) as opened:
        yield opened


@pytest.fixture
def timed(device: DeviceClient, tmp_path: Path) -> LatencyEvaluator:
    return LatencyEvaluator(builder(tmp_path), lambda: device, RUNS, Reuse((("vision", 0.8),)))


def test_a_design_is_timed_by_its_parts(timed: LatencyEvaluator, tmp_path: Path) -> None:
    found = timed.evaluate(design("gated"))
    parts = found.details["parts"]
    assert list(parts) == ["text", "image", "fusion"]
    by_hand = parts["text"]["ms"] + 0.2 * parts["image"]["ms"] + parts["fusion"]["ms"]
    assert found["latency_ms"].value == pytest.approx(by_hand)
    assert not list(tmp_path.iterdir()), "no file is left"
    plain = LatencyEvaluator(builder(tmp_path), lambda: timed._device, RUNS)
    assert found.key == timed.key(design("gated")) != plain.key(design("gated"))


def test_a_design_without_the_modality_has_the_latency_of_one_inference(
    timed: LatencyEvaluator, tmp_path: Path
) -> None:
    alone = Genotype("small-bert", None, 16, (FusionPoint(2, 0),))
    plain = LatencyEvaluator(builder(tmp_path), lambda: timed._device, RUNS)
    assert timed.key(alone) == plain.key(alone)
    assert "parts" not in timed.evaluate(alone).details


def test_a_design_of_that_modality_alone_costs_nothing_where_it_repeats(
    timed: LatencyEvaluator,
) -> None:
    alone = canonical(
        replace(design(), text_encoder=None, text_tokens=0, points=(FusionPoint(0, 2),)),
        demo().shapes,
    )
    found = timed.evaluate(alone)
    (whole,) = found.details["parts"].values()
    assert found["latency_ms"].value == pytest.approx(0.2 * whole["ms"])


def test_it_is_read_in_turns_as_well(timed: LatencyEvaluator) -> None:
    designs = (design("sum"), design("product"))
    readings = read_in_turns(timed, designs, rounds=2)
    assert set(readings) == {timed.key(one) for one in designs}
    assert all(one is not None for found in readings.values() for one in found)
