"""Choosing a design of a finished study by latency and accuracy."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stored_study import stored_study
from typer.testing import CliRunner

from studies.cli.app import app
from studies.config.usage import UsageError
from studies.results.outcome import DesignResult, Value
from studies.results.pareto import pareto_front, point
from studies.results.verdict import CorrectBySplit
from studies.trained.choose import choose, told

NOTHING: CorrectBySplit = {"valid": {}, "test": {}}


def row(number: int, accuracy: float, ms: float, state: str = "complete") -> DesignResult:
    latency = Value(ms, 0.99 * ms, 1.01 * ms)
    return DesignResult(
        number, state, f"design {number}", accuracy=Value(accuracy), latency=latency, timing="alone"
    )  # type: ignore[arg-type]


FRONT = [row(0, 60, 1), row(1, 70, 2), row(2, 72, 4), row(3, 73, 16)]
ROWS = [*FRONT, row(4, 69, 3), row(5, 90, 1, state="infeasible")]


@pytest.mark.parametrize(
    ("latency", "accuracy", "said"),
    [
        (-1, None, "--latency -1: give milliseconds above 0"),
        (float("nan"), None, "--latency nan: give milliseconds above 0"),
        (None, float("nan"), "--min-accuracy nan: give 0 to 100"),
        (None, 101, "--min-accuracy 101: give 0 to 100"),
    ],
)
def test_a_limit_that_no_design_can_meet_is_refused(
    latency: float | None, accuracy: float | None, said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        choose(ROWS, NOTHING, latency, accuracy)


@pytest.mark.parametrize(
    ("latency", "accuracy", "knee", "expected"),
    [
        (None, None, False, 3),
        (4.5, None, False, 2),
        (None, 70, False, 1),
        (10, 65, False, 2),
        (None, None, True, 1),
        (10, 65, True, None),
    ],
)
def test_limits_decide_which_design_is_chosen(
    latency: float | None, accuracy: float | None, knee: bool, expected: int | None
) -> None:
    if expected is None:
        with pytest.raises(UsageError, match="--knee: the front has 2 designs; three are needed"):
            choose(ROWS, NOTHING, latency, accuracy, knee)
        return
    assert choose(ROWS, NOTHING, latency, accuracy, knee).row.number == expected


@given(
    st.lists(st.tuples(st.integers(50, 60), st.integers(1, 12)), min_size=1, max_size=20),
    st.integers(1, 12),
)
def test_what_is_chosen_meets_the_limit_and_is_on_the_front_of_what_does(
    points: list[tuple[int, int]], limit: int
) -> None:
    rows = [row(k, accuracy, ms) for k, (accuracy, ms) in enumerate(points)]
    if min(ms for _, ms in points) > limit:
        with pytest.raises(UsageError, match=f"within {limit} ms"):
            choose(rows, NOTHING, limit)
        return
    chosen = choose(rows, NOTHING, limit).row
    within = [each for each in rows if point(each)[1] <= limit]
    assert chosen in pareto_front(within)
    assert point(chosen)[0] == max(point(each)[0] for each in within)


def test_neighbours_are_compared_over_the_same_samples() -> None:
    right = {k: (np.arange(400) < 4 * point(FRONT[k])[0])[None].astype(float) for k in range(4)}
    found = choose(ROWS, {"valid": right, "test": {}}, 4.5)
    assert found.faster is not None and found.faster.row.number == 1
    assert found.slower is not None and found.slower.row.number == 3, "it misses the limit"
    assert found.faster.points is not None
    assert found.faster.points.points == pytest.approx(-2) and found.split == "valid"
    said = " ".join(told(found, "--name mine"))
    assert "Next faster: trial 1: -2.0 points" in said and "2.00 times as fast" in said
    assert "Next slower: trial 3: +1.0 points" in said
    assert "No slower design on the front." in " ".join(told(choose(ROWS, NOTHING), ""))
    assert said.endswith("fusion-nas export 2 --name mine")


def test_a_front_without_a_knee_has_none() -> None:
    straight = [row(k, 60 + k, 2**k) for k in range(4)]
    with pytest.raises(UsageError, match="no design lies above the line"):
        choose(straight, NOTHING, knee=True)
    same = [row(k, 60, 1) for k in range(4)]
    with pytest.raises(UsageError, match="the front has 1 design; three are needed"):
        choose(same, NOTHING, knee=True)


def test_what_no_design_meets_is_refused_with_what_is_nearest() -> None:
    with pytest.raises(
        UsageError, match=r"within 0\.5 ms of at least 80 %: of 5 the fastest takes"
    ):
        choose(ROWS, NOTHING, 0.5, 80)
    with pytest.raises(UsageError, match="no complete trial"):
        choose(ROWS[-1:], NOTHING)


def test_the_command_chooses_from_a_stored_study(tmp_path: Path) -> None:
    flags = ["--storage", stored_study(tmp_path), "--latency", "1000"]
    done = CliRunner().invoke(app, ["choose", *flags])
    assert done.exit_code == 0 and "Chosen as the most accurate within 1000 ms" in done.stdout, (
        done.output
    )
    told_json = json.loads(CliRunner().invoke(app, ["choose", *flags, "--json"]).stdout)
    assert f"export {told_json['trial']} --name" in " ".join(done.stdout.split())
