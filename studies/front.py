"""Pareto fronts of accuracy against latency: who is on them, who beats whom, by how much."""

from collections.abc import Sequence

from studies.outcome import Row, Standing


def dominates(a: Row, b: Row) -> bool:
    """Whether `a` is at least as accurate and as fast as `b`, and better in one of the two."""
    (a_accuracy, a_latency), (b_accuracy, b_latency) = point(a), point(b)
    no_worse = a_accuracy >= b_accuracy and a_latency <= b_latency
    return no_worse and (a_accuracy, a_latency) != (b_accuracy, b_latency)


def point(row: Row) -> tuple[float, float]:
    """(accuracy in percent on validation, latency in ms) of a complete row. Raises ValueError."""
    if row.accuracy is None or row.latency is None:
        raise ValueError(f"{row.label} has no accuracy or no latency")
    return row.accuracy.value, row.latency.value


def complete(rows: Sequence[Row]) -> list[Row]:
    """Rows with both values, duplicates left out."""
    return [r for r in rows if r.state == "complete" and r.duplicate_of is None]


def pareto_front(rows: Sequence[Row]) -> tuple[Row, ...]:
    """Complete rows that no other beats, fastest first."""
    candidates = complete(rows)
    front = [r for r in candidates if not any(dominates(other, r) for other in candidates)]
    return tuple(sorted(front, key=lambda row: (point(row)[1], row.number or 0)))


def standing(row: Row, rows: Sequence[Row]) -> Standing:
    """Where a complete row stands against the others.

    The dominating trial that is named is the fastest of the most accurate ones.
    """
    beaten_by = [other for other in complete(rows) if dominates(other, row)]
    if not beaten_by:
        return Standing(row, on_front=True)
    best = max(beaten_by, key=lambda other: (point(other)[0], -point(other)[1]))
    (accuracy, latency), (best_accuracy, best_latency) = point(row), point(best)
    return Standing(row, False, best, best_accuracy - accuracy, latency / best_latency)


def reference_point(rows: Sequence[Row]) -> tuple[float, float] | None:
    """The worst corner that hypervolume is counted from: (accuracy 0 %, 1.1 times the slowest)."""
    candidates = complete(rows)
    if len(candidates) < 2:
        return None
    return 0.0, 1.1 * max(point(row)[1] for row in candidates)


def hypervolume(rows: Sequence[Row], reference: tuple[float, float]) -> float:
    """Area that the rows dominate, in percent x ms, between them and the reference point."""
    worst_accuracy, worst_latency = reference
    area, best = 0.0, worst_accuracy
    for accuracy, latency in sorted(
        (point(r) for r in complete(rows)), key=lambda p: (p[1], -p[0])
    ):
        if latency < worst_latency and accuracy > best:
            area += (accuracy - best) * (worst_latency - latency)
            best = accuracy
    return area


def hypervolume_history(
    rows: Sequence[Row], reference: tuple[float, float] | None
) -> tuple[tuple[int, float], ...]:
    """(trial number, hypervolume so far) after each trial that has a number."""
    if reference is None:
        return ()
    numbered = [row for row in rows if row.number is not None]
    return tuple(
        (row.number, hypervolume(numbered[: k + 1], reference))
        for k, row in enumerate(numbered)
        if row.number is not None
    )
