"""Designs that were fine-tuned whole at the end of a study, read back from what it keeps.

They are a front of their own: its accuracies are those of another rung than the search chose by.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from evaluators.statistics.paired import correct_from, paired
from studies.results.outcome import SEEDS, USE, DesignResult, FineTuned, ModalityUse, Value
from studies.results.pareto import complete, dominates, pareto_front, point

ATTRIBUTE = "fine-tuned "
"""Before the number of the trial whose design it is: of the study, what fine-tuning came to."""
RIGHT, RIGHT_BEFORE, TEST = "right", "right_before", "test"
RIGHTS = (RIGHT, RIGHT_BEFORE)
"""Which samples the design was right about, as fine-tuned and as the search saw it."""


def earn_it(rows: Sequence[DesignResult], count: int) -> list[DesignResult]:
    """The designs that are worth fine-tuning: so many, first those that no other beats.

    By non-dominated rank in accuracy and latency; of a rank that is too many, those that stand
    farthest from their neighbours, its two ends first (crowding distance: Deb et al. 2002,
    NSGA-II). Fewer where there are fewer complete designs.
    """
    left = complete(rows)
    found: list[DesignResult] = []
    while left and len(found) < count:
        rank = list(pareto_front(left))
        left = [row for row in left if row not in rank]
        found += _least_crowded(rank, count - len(found))
    return found


def _least_crowded(rank: Sequence[DesignResult], count: int) -> list[DesignResult]:
    """So many of a front's rows, given fastest first; in the order of their distance."""
    distances = {rank[0].number: float("inf"), rank[-1].number: float("inf")}
    (low, fast), (high, slow) = point(rank[0]), point(rank[-1])
    for before, row, after in zip(rank, rank[1:], rank[2:], strict=False):
        (a, left), (b, right) = point(before), point(after)
        across = (b - a) / ((high - low) or 1)  # alike designs may share one point
        distances[row.number] = across + (right - left) / ((slow - fast) or 1)
    return sorted(rank, key=lambda row: -distances[row.number])[:count]


def fine_tuned_of(
    attributes: Mapping[str, Any], rows: Sequence[DesignResult]
) -> tuple[FineTuned, ...]:
    """What a study's own attributes tell of the designs that were fine-tuned, fastest first."""
    by_number = {row.number: row for row in rows}
    made = {}
    for name, kept in attributes.items():
        if not name.startswith(ATTRIBUTE) or "accuracy" not in kept:
            continue
        row = by_number[int(name.removeprefix(ATTRIBUTE))]
        before, after = correct_from(kept[RIGHT_BEFORE]), correct_from(kept[RIGHT])
        made[row.number] = (_tuned(row, kept), row, paired(after, before))
    tuned = [row for row, _, _ in made.values()]
    found = [
        FineTuned(row, before, gained, not any(dominates(other, row) for other in tuned))
        for row, before, gained in made.values()
    ]
    return tuple(sorted(found, key=lambda each: (point(each.row)[1], each.row.number or 0)))


def _tuned(row: DesignResult, kept: Mapping[str, Any]) -> DesignResult:
    tests = kept.get(TEST, {})
    return replace(
        row,
        accuracy=Value.kept(kept, "accuracy"),
        accuracy_nonzero=Value.kept(kept, "accuracy_nonzero"),
        test_accuracy=Value.kept(tests, "accuracy"),
        test_accuracy_nonzero=Value.kept(tests, "accuracy_nonzero"),
        test_seeds=tuple(tests.get(SEEDS, ())),
        use=ModalityUse.kept(tests.get(USE)),
        fidelity=kept["fidelity"],
        shortened="",
        did_not_train="",
    )


def failures(attributes: Mapping[str, Any]) -> dict[int, str]:
    """Why designs could not be fine-tuned, by the number of their trial."""
    return {
        int(name.removeprefix(ATTRIBUTE)): kept["reason"]
        for name, kept in attributes.items()
        if name.startswith(ATTRIBUTE) and "reason" in kept
    }
