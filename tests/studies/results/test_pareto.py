"""Pareto front, standing and hypervolume, each against the plainest reckoning there is."""

from dataclasses import replace
from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sample_outcome import sample

from studies.results.cautions import cautions_of, neighbours
from studies.results.hypervolume import area, reference_pair, volume
from studies.results.outcome import DesignResult, Value
from studies.results.pareto import (
    dominates,
    hypervolume,
    hypervolume_history,
    pareto_front,
    point,
    reference_point,
    standing,
)
from studies.results.text import unsettled


def row(number: int, accuracy: int, latency: int, **more: object) -> DesignResult:
    return DesignResult(
        number, "complete", "", accuracy=Value(accuracy), latency=Value(latency), **more
    )  # type: ignore[arg-type]


# Few values, so that ties and equal designs are common.
POINTS = st.lists(st.tuples(st.integers(0, 8), st.integers(1, 8)), max_size=12)


@st.composite
def studies(draw: st.DrawFn) -> list[DesignResult]:
    rows: list[DesignResult] = []
    for number, (accuracy, latency) in enumerate(draw(POINTS)):
        kind = draw(st.sampled_from(["complete", "complete", "complete", "infeasible", "failed"]))
        if kind == "complete":
            earlier = draw(st.sampled_from([None, None, 0])) if rows else None
            rows.append(row(number, accuracy, latency, duplicate_of=earlier))
        else:
            rows.append(DesignResult(number, kind, "", latency=Value(latency)))
    return rows


def complete(rows: list[DesignResult]) -> list[DesignResult]:
    return [r for r in rows if r.state == "complete" and r.duplicate_of is None]


@given(POINTS)
def test_dominance_is_irreflexive_and_one_way(points: list[tuple[int, int]]) -> None:
    rows = [row(k, *p) for k, p in enumerate(points)]
    for a in rows:
        assert not dominates(a, a)
        for b in rows:
            assert not (dominates(a, b) and dominates(b, a))


@given(studies())
def test_the_front_is_every_design_that_no_other_beats(rows: list[DesignResult]) -> None:
    def beaten(p: tuple[float, float]) -> bool:
        others = [point(o) for o in complete(rows)]
        return any(o[0] >= p[0] and o[1] <= p[1] and o != p for o in others)

    wanted = {r.number for r in complete(rows) if not beaten(point(r))}
    assert {r.number for r in pareto_front(rows)} == wanted


@given(studies())
def test_neither_duplicates_nor_what_has_no_result_is_on_the_front(
    rows: list[DesignResult],
) -> None:
    for shown in pareto_front(rows):
        assert shown.state == "complete"
        assert shown.duplicate_of is None


@given(studies())
def test_the_front_is_shown_from_fast_to_slow_and_gains_accuracy(rows: list[DesignResult]) -> None:
    front = [point(r) for r in pareto_front(rows)]
    for (a, fast), (b, slow) in pairwise(front):
        assert (a == b and fast == slow) or (a < b and fast < slow)


@given(studies())
def test_a_design_is_on_the_front_or_beaten_by_one_that_is(rows: list[DesignResult]) -> None:
    front = [r.number for r in pareto_front(rows)]
    for r in complete(rows):
        found = standing(r, rows)
        assert found.on_front == (r.number in front)
        if found.dominated_by is not None:
            assert dominates(found.dominated_by, r)
            assert found.points_lost == point(found.dominated_by)[0] - point(r)[0] >= 0
            assert found.times_slower == point(r)[1] / point(found.dominated_by)[1] >= 1


@given(studies())
def test_hypervolume_is_the_number_of_unit_squares_that_are_covered(
    rows: list[DesignResult],
) -> None:
    reference = (0.0, 9.0)
    covered = sum(
        any(a >= accuracy + 1 and ms <= latency for a, ms in map(point, complete(rows)))
        for accuracy in range(8)
        for latency in range(9)
    )
    assert hypervolume(rows, reference) == covered


@given(studies())
def test_hypervolume_never_falls_and_ends_at_that_of_the_front(rows: list[DesignResult]) -> None:
    reference = reference_point(rows)
    history = hypervolume_history(rows, reference)
    if reference is None:
        assert history == ()
        return
    values = [value for _, value in history]
    assert values == sorted(values)
    assert values[-1] == hypervolume(pareto_front(rows), reference)


def test_no_reference_point_is_claimed_before_two_designs_are_known() -> None:
    assert reference_point([row(0, 50, 2)]) is None


def test_a_row_without_values_has_no_point() -> None:
    with pytest.raises(ValueError, match="trial 3 has no accuracy"):
        point(DesignResult(3, "failed", ""))


def test_a_reference_that_dominates_designs_on_the_front_is_a_caution() -> None:
    front = [row(0, 50, 3), row(1, 70, 5), row(2, 90, 9)]
    alone = [row(0, 70, 4, name="vision-only"), row(0, 60, 4, name="text-only")]
    said = cautions_of(front, {}, alone)
    assert said == (
        "The reference vision-only was measured as at least as accurate and as fast as 1 of 3 "
        "designs on the front (trial 1), but not significantly better.",
    )
    unknown = DesignResult(None, "unstable", "", name="text-only", latency=Value(1), reason="hot")
    assert cautions_of(front, {}, [unknown]) == ("The latency of text-only is not stable: hot",)


def test_that_a_reference_dominates_is_claimed_where_the_same_samples_say_so() -> None:
    def timed(number: int, accuracy: float, ms: float, name: str = "") -> DesignResult:
        latency = Value(ms, 0.99 * ms, 1.01 * ms)
        return replace(row(number, accuracy, ms, name=name), latency=latency)

    front = [timed(0, 50, 3), timed(1, 70, 9)]
    alone = replace(timed(0, 75, 4, name="text-only"), number=None)
    right = np.ones((1, 200))
    right[0, :60] = 0
    better, alike = np.ones((1, 200)), right.copy()
    better[0, :40] = 0
    alike[0, :2], alike[0, 60:62] = 1, 0
    first = right * 0
    said = cautions_of(front, {}, [alone], {0: first, 1: right, "text-only": better})
    assert said == (
        "The reference text-only dominates 1 of 2 designs on the front (trial 1): it is no "
        "slower and, over the same samples, significantly more accurate.",
    )
    (said_of_alike,) = cautions_of(front, {}, [alone], {0: first, 1: right, "text-only": alike})
    assert "but not significantly better" in said_of_alike


def test_neighbours_on_the_front_are_told_apart_by_the_same_samples_or_not_at_all() -> None:
    front = [row(0, 50, 3), row(1, 51, 5), row(2, 90, 9)]
    rng = np.random.default_rng(0)
    right = {
        k: (rng.random((1, 400)) < share).astype(float) for k, share in enumerate((0.5, 0.51, 0.9))
    }
    close, apart = neighbours(front, right)
    assert close and not close.significant and apart and apart.low > 0
    assert neighbours(front, {0: right[0], 2: right[2]}) == (None, None)
    (said,) = cautions_of(front, {}, (), {**right, 2: right[1]})
    assert said.startswith(
        "2 of the 2 other designs on the front are not significantly less accurate than trial 2"
    )
    outcome = replace(sample(), front=tuple(front), neighbours=(close, apart))
    assert unsettled(outcome) == (
        "On the front, the difference in accuracy is not significant in 1 of 2 "
        "neighbouring pairs: their order is not settled."
    )


def test_latencies_that_were_read_under_load_are_named() -> None:
    busy = "other programs used 1.7 of 2 processors"
    rows = [row(k, accuracy=60 + k, latency=1 + k) for k in range(3)]
    (said,) = [s for s in cautions_of([replace(rows[0], crowded=busy), *rows[1:]], {}) if busy in s]
    assert said.startswith(f"1 of 3 measured latencies may be too high (trial 0: {busy})")


@given(st.data())
def test_volume_of_more_objectives_is_the_number_of_unit_cubes_that_are_covered(
    data: st.DataObject,
) -> None:
    count = data.draw(st.sampled_from([2, 3, 4]))
    points = data.draw(st.lists(st.tuples(*[st.integers(0, 4)] * count), max_size=7))
    cubes = {cube for point in points for cube in product(*map(range, point))}
    gains = np.array(points, dtype=float).reshape(-1, count)
    assert volume(gains, np.zeros(count)) == len(cubes)


def test_an_area_is_the_same_to_the_last_digit_as_versions_before_printed_it() -> None:
    rng = np.random.default_rng(0)
    accuracy, latency = rng.uniform(50, 90, 200), rng.uniform(1, 30, 200)
    total, best = 0.0, 0.0
    for ms, percent in sorted(zip(latency.tolist(), accuracy.tolist(), strict=True)):
        if percent > best:
            total += (percent - best) * (-ms + 33.0)
            best = percent
    assert area(accuracy, latency, (0.0, 33.0)) == total


def test_there_is_one_reference_point() -> None:
    worst = reference_point([row(0, 50, 2), row(1, 60, 4)])
    assert worst == reference_pair(4.0) == (0.0, 1.1 * 4.0)
