"""How sure a front is, what choices bring, and where time went."""

import math
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from optuna.trial import FrozenTrial, TrialState, create_trial
from sample_outcome import sample

from studies.results.analysis.budget import REST, STAGES, budget, over_time
from studies.results.analysis.certainty import DRAWS, non_dominated
from studies.results.analysis.effects import active, effects
from studies.results.outcome import DesignResult, TrialTimes, Value
from studies.results.study_outcome import active_seconds


def row(number: int, accuracy: Value, latency: Value, **rest: object) -> DesignResult:
    return DesignResult(
        number, "complete", f"design {number}", accuracy=accuracy, latency=latency, **rest
    )  # type: ignore[arg-type]


def test_a_design_that_is_better_in_both_by_far_is_surely_not_dominated() -> None:
    good = row(0, Value(90, 89, 91), Value(1, 0.9, 1.1))
    bad = row(1, Value(60, 59, 61), Value(9, 8, 10))
    assert non_dominated([good, bad]) == {0: 1.0, 1: 0.0}


def test_of_two_equal_designs_that_differ_in_noise_alone_each_is_dominated_a_quarter() -> None:
    # One is dominated where the other is better in both: one half times one half.
    twins = [row(k, Value(80, 75, 85), Value(2, 1.9, 2.1)) for k in range(2)]
    error = 4 * math.sqrt(0.25 * 0.75 / DRAWS)
    assert all(abs(p - 0.75) < error for p in non_dominated(twins).values())


def test_incomplete_trials_and_duplicates_have_no_probability() -> None:
    outcome = sample()
    found = non_dominated(outcome.rows)
    complete = [r for r in outcome.rows if r.state == "complete" and r.duplicate_of is None]
    assert list(found) == [r.number for r in complete]
    assert all(0 <= p <= 1 for p in found.values())
    assert non_dominated([]) == {}


def test_a_planted_effect_is_found_with_its_size() -> None:
    rows = [
        row(
            k,
            Value(70 + 5 * (k % 2) + 0.1 * (k // 2 % 3)),
            Value((1 + k % 2) * (1 + 0.01 * (k // 2 % 3))),
            params={"precision": ("fp32", "int8")[k % 2], "text_tap_1": k},
        )
        for k in range(24)
    ]
    found = {(e.decision, e.choice): e for e in effects(rows)}
    planted = found["precision", "int8 (else fp32)"]
    assert planted.points.value == pytest.approx(5, abs=0.2) and planted.designs == 12
    assert planted.points.low is not None and planted.points.low > 4
    assert planted.ratio.value == pytest.approx(2, rel=0.02)
    halves = [choice for decision, choice in found if decision == "text_tap_1"]
    assert halves == ["below 12 (else 12 or more)"]


def test_a_choice_of_one_design_has_no_effect() -> None:
    rows = [
        row(k, Value(70 + k), Value(1 + k), params={"precision": "int8" if k else "fp32"})
        for k in range(4)
    ]
    assert effects(rows) == []


def test_the_time_budget_adds_up_to_the_time_of_the_trials() -> None:
    stages = {"building": 1.0, "compiling": 2.0, "timing": 3.0, "training": 10.0, "waiting": 1.0}
    one = row(0, Value(80), Value(1), times=TrialTimes(20, 20, stages))
    other = row(1, Value(80), Value(1), times=TrialTimes(25, 5))
    found = budget([one, other])
    assert found and found.active_s == 25 and (found.trials, found.recorded) == (2, 1)
    assert sum(found.seconds.values()) == 25
    assert found.seconds[REST] == 8 and found.seconds[STAGES["training"]] == 10
    assert budget([replace(one, times=None)]) is None


def frozen(number: int, start: float, end: float) -> FrozenTrial:
    begin = datetime(2026, 1, 1)
    trial = create_trial(state=TrialState.COMPLETE, value=0.0)
    trial.number = number
    trial.datetime_start = begin + timedelta(seconds=start)
    trial.datetime_complete = begin + timedelta(seconds=end)
    return trial


def test_the_time_in_which_no_trial_ran_is_left_out() -> None:
    trials = [frozen(0, 0, 10), frozen(1, 5, 20), frozen(2, 1000, 1010), frozen(3, 1002, 1030)]
    assert active_seconds(trials) == {0: 10, 1: 20, 2: 30, 3: 50}
    assert active_seconds([]) == {}


def test_the_hypervolume_over_time_never_falls() -> None:
    outcome = sample()
    course = over_time(outcome)
    assert len(course) == len(outcome.hypervolume)
    assert [v for _, v, _ in course] == sorted(v for _, v, _ in course)
    assert [s for s, _, _ in course] == sorted(s for s, _, _ in course)


def test_a_rank_of_adapters_is_a_choice_only_of_designs_that_run_a_second_layer() -> None:
    made = {"fusion_points": 1, "text_tap_1": 1, "vision_tap_1": 1, "vision_tap_2": 3}
    assert "lora_rank" not in active({**made, "lora_rank": 4})
    assert active({**made, "fusion_points": 2, "lora_rank": 4})["lora_rank"] == 4
    assert active({"fusion_points": 1, "text_tap_1": 2, "lora_rank": 4})["lora_rank"] == 4


def test_image_tokens_are_a_choice_only_of_designs_that_fuse_tokens() -> None:
    made: dict[str, str | int] = {
        "fusion_points": 1,
        "image_tokens": 4,
        "operator_1": "sum",
        "operator_2": "cross-attention",
        "attention_blocks": 2,
        "attention_over": "pooled",
    }
    assert "image_tokens" not in active(made)
    for token_form in ({"fusion_points": 2}, {"attention_over": "tokens"}):
        assert active({**made, **token_form})["image_tokens"] == 4
    assert "image_tokens" not in active(
        {**made, "attention_over": "tokens", "vision_encoder": "none"}
    )
