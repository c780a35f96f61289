"""What a study of a fixed list came to, read back from its trials."""

from collections.abc import Mapping, Sequence
from typing import Any

from evaluators.statistics.paired import Correct, Paired, holm, paired
from studies.results.outcome import DesignResult, GridOutcome, GridPoint, Outcome, Split, Value

CELLS, SHARES = "depth-or-merge", "tap-marginals"
"""The lists that are shown as cells, and as the share of each layer."""
TRIMODAL = "trimodal"
"""The list that asks for encoders of three modalities."""


def cell(depth: str, merging: str) -> str:
    """What a design of `CELLS` is called."""
    return f"{depth} depth, {merging} merging"


DEPTH_ALONE, MERGING_ALONE = cell("early", "late"), cell("late", "early")


def grid_outcome(
    said: Mapping[str, Any] | None,
    rows: Sequence[DesignResult],
    correct: Mapping[int | str, Correct],
) -> GridOutcome | None:
    """The list that a study's subject names; None for a search.

    `right` holds which test samples each design was right about, (seeds, N), by trial number;
    differences are known between designs that stand in it.
    """
    if said is None:
        return None
    points = tuple(GridPoint(**point) for point in said["points"])
    by_name = rows_by_name(rows)
    differences: dict[tuple[str, str], Paired] = {}
    pairs = [(point.design, point.against) for point in points]
    if said["kind"] == CELLS:
        pairs.append((DEPTH_ALONE, MERGING_ALONE))
    for pair in dict.fromkeys(pairs):
        numbers = [by_name[name].number for name in pair if name in by_name]
        known = [correct[n] for n in numbers if n is not None and n in correct]
        if len(known) == 2:
            differences[pair] = paired(*known)
    return GridOutcome(said["kind"], said["about"], points, tuple(said["notes"]), holm(differences))


def rows_by_name(rows: Sequence[DesignResult]) -> dict[str, DesignResult]:
    """Complete rows by name, the last of each: an unstable reading may have been taken again."""
    return {row.name: row for row in rows if row.name and row.state == "complete"}


def listed(outcome: Outcome) -> list[tuple[GridPoint, DesignResult]]:
    """The points whose design has an accuracy and a latency, in the list's order."""
    if outcome.grid is None:
        return []
    found = rows_by_name(outcome.rows)
    return [(p, found[p.design]) for p in outcome.grid.points if p.design in found]


def absent(outcome: Outcome) -> tuple[str, ...]:
    """Designs of the list that are not complete, by name."""
    if outcome.grid is None:
        return ()
    found = rows_by_name(outcome.rows)
    return tuple(dict.fromkeys(p.design for p in outcome.grid.points if p.design not in found))


def split_of(outcome: Outcome) -> Split:
    """ "test" once every listed design has been looked at there; till then validation is shown."""
    rows = [row for _, row in listed(outcome)]
    return "test" if all(row.test_accuracy is not None for row in rows) else "valid"


def accuracy_of(row: DesignResult, split: Split) -> Value | None:
    """The accuracy on test, or that which a search would choose by."""
    return row.test_accuracy if split == "test" else row.accuracy


def difference_of(outcome: Outcome, point: GridPoint) -> Paired | None:
    """The point's accuracy less that of the design that it is compared with; None where unknown."""
    assert outcome.grid is not None
    return outcome.grid.paired.get((point.design, point.against))


def extra_ms(row: DesignResult, other: DesignResult | None) -> Value | None:
    """How much slower the row is than the other, in ms, with bounds that hold both intervals."""
    if other is None or row.latency is None or other.latency is None:
        return None
    ours, theirs = row.latency, other.latency
    value = ours.value - theirs.value
    if None in (ours.low, ours.high, theirs.low, theirs.high):
        return Value(value)
    return Value(
        value,
        (ours.low or 0.0) - (theirs.high or 0.0),
        (ours.high or 0.0) - (theirs.low or 0.0),
    )
