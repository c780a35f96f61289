"""The time of a new evaluation is divided among its stages."""

import pytest

from evaluators.evaluation import Evaluation, Measure
from studies.search.trial_runner import stage_seconds


def test_stages_add_up_to_the_wall_time() -> None:
    latency = Evaluation("k", "latency", (Measure("compile_s", 2.0, "s"),), {"build_s": 1.5})
    found = stage_seconds(latency, 10.0)
    assert found == {"building": 1.5, "compiling": 2.0, "timing": 6.5}
    quality = Evaluation("k", "quality", (), {"waited_s": 0.5})
    assert stage_seconds(quality, 4.0) == {"waiting": 0.5, "training": 3.5}
    assert stage_seconds(Evaluation("k", "probe"), 1.0) == pytest.approx(
        {"waiting": 0.0, "probe": 1.0}
    )


def test_seconds_of_the_device_during_which_a_design_was_trained_are_counted_once() -> None:
    latency = Evaluation("k", "latency", (Measure("compile_s", 5.0, "s"),), {"build_s": 1.0})
    assert stage_seconds(latency, 7.0, 2.0) == {"building": 1.0, "compiling": 3.0, "timing": 3.0}
    assert stage_seconds(latency, 1.0, 60.0) == {"building": 1.0, "compiling": 0.0, "timing": 0.0}
