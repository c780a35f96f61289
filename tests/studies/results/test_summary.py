"""The summary: the best design of a search beside seeded designs, late fusion and text alone."""

from dataclasses import replace

import numpy as np
import pytest

from evaluators.statistics.paired import Correct
from studies.results import text as result_text
from studies.results.outcome import DesignResult, Outcome, Summary, Value
from studies.results.verdict import CorrectBySplit, summary_of

SAMPLES = 400


def row(number: int | None, name: str, accuracy: float, ms: float) -> DesignResult:
    value, latency = Value(accuracy, accuracy - 4, accuracy + 4), Value(ms, 0.99 * ms, 1.01 * ms)
    return DesignResult(
        number,
        "complete",
        "a design",
        name=name,
        accuracy=value,
        test_accuracy=value,
        latency=latency,
        timing="alone",
    )


def right(percent: float, seeds: int = 1) -> Correct:
    return np.tile(np.arange(SAMPLES) < percent / 100 * SAMPLES, (seeds, 1)).astype(float)


EARLY = row(0, "early-mobilenetv2", 62, 1.0)
LATE = row(1, "late-mobilenetv2", 70, 3.0)
FOUND = row(2, "", 74, 2.0)
OTHER = row(3, "", 66, 0.8)
TEXT = row(None, "text-only", 69, 0.9)
ROWS = (EARLY, LATE, FOUND, OTHER)


def correct(rows: tuple[DesignResult, ...], seeds: int = 1) -> CorrectBySplit:
    known: dict[int | str, Correct] = {}
    for each in rows:
        assert each.accuracy is not None
        who = each.name if each.number is None else each.number
        known[who] = right(each.accuracy.value, seeds)
    return {"test": known, "valid": known}


def said_of(outcome: Outcome, summary: Summary | None) -> str:
    return " ".join(result_text.summary(replace(outcome, summary=summary)))


@pytest.fixture
def outcome() -> Outcome:
    return Outcome(
        study="s",
        title="",
        data_name="",
        data_note="",
        majority=(50.0, None),
        ceilings={},
        rows=ROWS,
        references=(TEXT,),
        front=(),
        standings=(),
        hypervolume=(),
        reference_point=None,
        importances={},
        conditions={},
    )


def test_the_most_accurate_design_of_the_search_is_compared_with_each_baseline_once() -> None:
    found = summary_of(ROWS, (TEXT,), correct((*ROWS, TEXT)))
    assert found is not None and found.best == FOUND and found.split == "test"
    roles = {gain.baseline.name: gain.roles for gain in found.gains}
    assert roles == {
        "late-mobilenetv2": ("the most accurate seeded design", "late fusion"),
        "text-only": ("text alone",),
    }
    late, text = found.gains
    assert late.points is not None and late.points.points == pytest.approx(4)
    assert late.times_faster is not None and late.times_faster.value == pytest.approx(1.5)
    assert text.times_faster is not None and text.times_faster.value == pytest.approx(0.45)


def test_late_fusion_is_known_on_any_encoder_and_beside_a_better_seeded_design() -> None:
    late = replace(LATE, name="late-small-xcit")
    early = replace(EARLY, accuracy=Value(72), test_accuracy=Value(72))
    found = summary_of((early, late, FOUND), (), {"test": {}, "valid": {}})
    assert found is not None
    assert {gain.baseline.name: gain.roles for gain in found.gains} == {
        early.name: ("the most accurate seeded design",),
        late.name: ("late fusion",),
    }


def test_accuracy_and_speed_are_two_statements(outcome: Outcome) -> None:
    said = said_of(outcome, summary_of(ROWS, (TEXT,), correct((*ROWS, TEXT))))
    assert said.startswith(
        "Most accurate design found by the search: trial 2, 74.0 (70.0 to 78.0) % on test"
    )
    assert "Against late-mobilenetv2 (the most accurate seeded design, late fusion): +4.0" in said
    assert "1.50 times as fast" in said and "Holm's correction for 2 tests" in said
    assert "--seeds 3" not in said, "both are significant"


def test_what_is_not_significant_is_said_with_what_may_settle_it(outcome: Outcome) -> None:
    near = replace(FOUND, accuracy=Value(70.5), test_accuracy=Value(70.5))
    rows = (EARLY, LATE, near)
    said = said_of(outcome, summary_of(rows, (), correct(rows)))
    assert "not significant" in said and "--seeds 3" in said
    seeds = said_of(outcome, summary_of(rows, (), correct(rows, seeds=3)))
    assert "--seeds 3" not in seeds and "other seeds are not covered" not in seeds


def test_where_test_is_not_known_of_all_validation_is_used_and_said_to_be_optimistic(
    outcome: Outcome,
) -> None:
    known = {"test": {}, "valid": correct((*ROWS, TEXT))["valid"]}
    found = summary_of(ROWS, (TEXT,), known)  # type: ignore[arg-type]
    assert found is not None and found.split == "valid"
    assert "so they are optimistic" in said_of(outcome, found)


def test_nothing_is_claimed_where_nothing_is_kept(outcome: Outcome) -> None:
    found = summary_of(ROWS, (TEXT,), {"test": {}, "valid": {}})
    assert found is not None and found.split is None
    assert all(gain.points is None for gain in found.gains)
    assert "significan" not in said_of(outcome, found).replace("times as fast", "")


def test_a_study_of_seeded_designs_alone_has_no_summary(outcome: Outcome) -> None:
    assert summary_of((EARLY, LATE), (TEXT,), correct((EARLY, LATE, TEXT))) is None
    assert said_of(outcome, None) == ""
