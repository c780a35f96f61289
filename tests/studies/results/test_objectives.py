"""What a study may search for beside accuracy and latency, and limits on any of it."""

import json
import re
from collections import Counter
from itertools import combinations
from pathlib import Path

import numpy as np
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import Place, new_place

from studies.config.settings import load_settings
from studies.config.usage import UsageError
from studies.report import page
from studies.results.objectives import BY_NAME, Limit, goals
from studies.results.outcome import DesignResult, Value
from studies.results.pareto import gains, hypervolume, pareto_front, reference_point
from studies.results.study_outcome import outcome_of

THREE = goals(["robustness"], []).objectives
FLAGS = ("--objective", "robustness", "--noise", "0.95", "--objective", "without-vision")
POINTS = st.lists(st.tuples(*[st.integers(1, 6)] * 3), min_size=2, max_size=9)


def rows(points: list[tuple[int, int, int]]) -> list[DesignResult]:
    return [
        DesignResult(
            k,
            "complete",
            f"design {k}",
            accuracy=Value(float(a)),
            latency=Value(float(ms)),
            more={"robustness": Value(float(robust))},
        )
        for k, (a, ms, robust) in enumerate(points)
    ]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A study of four objectives."""
    made = new_place(tmp_path_factory.mktemp("four") / "place")
    done = made.finish(made.run("--trials", "6", "--seed-paper", *FLAGS))
    assert done.returncode == 0, done.stderr
    return made


def study_of(place: Place) -> optuna.Study:
    return optuna.load_study(study_name="pareto-data-tiny", storage=place.url)


# Fronts of more than two objectives


@given(POINTS)
def test_a_front_is_what_nothing_beats_in_every_objective(
    points: list[tuple[int, int, int]],
) -> None:
    given_rows = rows(points)
    front = pareto_front(given_rows, THREE)
    values = [np.array(gains(row, THREE)) for row in given_rows]
    for row, mine in zip(given_rows, values, strict=True):
        beaten = any((other >= mine).all() and (other > mine).any() for other in values)
        assert (row in front) != beaten


@given(POINTS)
def test_the_hypervolume_is_that_of_the_union_of_boxes(points: list[tuple[int, int, int]]) -> None:
    given_rows = rows(points)
    worst = reference_point(given_rows, THREE)
    assert worst is not None and worst[0] == worst[2] == 0
    assert worst[1] == pytest.approx(1.1 * max(ms for _, ms, _ in points))
    boxes = [(a, worst[1] - ms, robust) for a, ms, robust in set(points)]
    expected = 0.0
    for size in range(1, len(boxes) + 1):  # inclusion and exclusion
        for some in combinations(boxes, size):
            expected -= (-1) ** size * float(np.prod(np.min(some, axis=0)))
    assert hypervolume(given_rows, worst, THREE) == pytest.approx(expected)


# A whole study


def test_every_complete_trial_has_all_that_is_searched_for(place: Place) -> None:
    study = study_of(place)
    assert study.metric_names == [
        "accuracy_percent", "latency_ms", "robustness", "without-vision",
    ]  # fmt: skip
    for trial in study.get_trials(states=(optuna.trial.TrialState.COMPLETE,)):
        record = trial.user_attrs["record"]
        measures = ("accuracy", "latency_ms", "robustness", "accuracy_without_vision")
        assert trial.values == [record[name][0] for name in measures]
    outcome = outcome_of(study)
    assert outcome.front == pareto_front(outcome.rows, outcome.goals.objectives)
    assert outcome.reference_point is not None and len(outcome.reference_point) == 4
    assert not any(standing.verdict for standing in outcome.standings)


def test_screen_page_and_json_tell_every_objective(place: Place) -> None:
    done = place.finish(place.command("report", "--json"))
    told = json.loads(done.stdout)
    assert told["objectives"] == ["accuracy", "latency", "robustness", "without-vision"]
    for trial in told["trials"]:
        if trial["state"] == "complete":
            assert {"robustness", "without-vision"} <= trial["further"].keys()
    done = place.finish(place.command("report"))
    words = " ".join(done.stdout.split())
    assert re.search(r"robustness, % \d+(\.\d+)?; accuracy without vision, % \d", words)
    html = page.render(outcome_of(study_of(place)))
    assert "robustness, %, over latency" in html and "Accuracy without vision, %" in html


@pytest.mark.slow
def test_a_study_goes_on_with_the_objectives_it_began_with_alone(place: Place) -> None:
    kept = [evaluation["key"] for evaluation in place.kept()]
    unstable = [row for row in outcome_of(study_of(place)).rows if row.state == "unstable"]
    done = place.finish(place.run("--trials", "6", "--seed-paper", *FLAGS))
    assert done.returncode == 0, done.stderr
    new = Counter(each["kind"] for each in place.kept() if each["key"] not in kept)
    assert not new or max(new.values()) <= len(unstable), "an unstable reading is taken again"
    for flags in ((), ("--objective", "parameters"), (*FLAGS, "--limit", "accuracy=1")):
        done = place.finish(place.run("--trials", "6", *flags))
        assert done.returncode == 6 and "was made with another" in done.stderr


@pytest.mark.slow
def test_what_misses_a_limit_is_on_no_front(tmp_path: Path, place: Place) -> None:
    sizes = [row.more["parameters"].value for row in outcome_of(study_of(place)).rows if row.more]
    middle = sorted(sizes)[len(sizes) // 2]
    other = new_place(tmp_path / "place")
    limits = ("--limit", f"parameters={middle}", "--limit", "accuracy=101", "--name", "limited")
    done = other.finish(other.run("--trials", "6", "--seed-paper", *limits))
    assert done.returncode == 0, done.stderr
    study = optuna.load_study(study_name="limited", storage=other.url)
    assert {trial.state.name for trial in study.trials} == {"PRUNED"}
    reasons = [trial.user_attrs["record"]["reason"] for trial in study.trials]
    early = [reason for reason in reasons if "parameters" in reason]
    late = [reason for reason in reasons if "accuracy, %" in reason]
    assert early and late and len(early) + len(late) == 6
    for trial in study.trials:  # what is known before training spares it
        record = trial.user_attrs["record"]
        assert ("accuracy" in record) == (record["reason"] in late)
        assert max(trial.constraints.values()) > 0


def test_a_device_that_does_not_tell_the_objective_ends_the_run(tmp_path: Path) -> None:
    place = new_place(tmp_path / "place")
    done = place.finish(place.run("--trials", "3", "--objective", "energy"))
    if done.returncode == 0:
        pytest.skip("this machine tells its energy")
    assert done.returncode == 5
    assert "--objective energy: this device reports no energy an inference, mJ" in done.stderr


# What cannot be meant


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"objectives": ("speed",)}, "--objective 'speed': choose one of accuracy, latency"),
        ({"objectives": ("robustness",)}, "without noise: say up to which factor"),
        ({"limits": ("robustness=50",)}, "without noise"),
        ({"noise": 0.5}, "nothing is asked under noise"),
        ({"objectives": ("robustness",), "noise": 0.0}, "--noise 0: give a number above 0"),
        ({"objectives": ("bytes", "memory", "parameters")}, "that makes 5; give 2 at most"),
        ({"limits": ("parameters",)}, "give NAME=NUMBER"),
        ({"limits": ("parameters=many",)}, "give NAME=NUMBER"),
        ({"limits": ("parameters=nan",)}, "give NAME=NUMBER"),
        ({"limits": ("speed=1",)}, "--limit 'speed'"),
        ({"objectives": ("calibration",), "cv": True}, "--cv with calibration"),
        ({"objectives": ("bytes",), "probe": True}, "--probe with --objective bytes"),
        ({"objectives": ("bytes", "memory"), "sampler": "ehvi"}, "--objective memory: it weighs"),
        ({"objectives": ("bytes",), "deferred_timing": True}, "--deferred-timing with"),
        ({"objectives": ("bytes",), "fine_tune": 2}, "--fine-tune with"),
        ({"objectives": ("without-text",), "text_only": True}, "there is one modality"),
    ],
)
def test_goals_that_cannot_be_meant_are_refused(flags: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=re.escape(words)):
        load_settings("pareto", flags)


def test_a_fixed_list_takes_no_objectives() -> None:
    with pytest.raises(UsageError, match="--objective: study tokens tries a fixed list"):
        load_settings("tokens", {"objectives": ("bytes",)})


@pytest.mark.parametrize(("value", "missed"), [(69.0, 1.0), (70.0, 0.0), (71.0, -1.0)])
def test_a_limit_is_a_floor_where_more_is_better(value: float, missed: float) -> None:
    assert Limit(BY_NAME["accuracy"], 70.0).missed_by(value) == missed
    assert Limit(BY_NAME["latency"], 70.0).missed_by(value) == -missed
