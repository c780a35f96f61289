"""Pareto fronts: who is on them, who beats whom, by how much."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from studies.results.hypervolume import reference_value, volume
from studies.results.objectives import PAIR, Objective
from studies.results.outcome import DesignResult, Standing

Objectives = Sequence[Objective]


def dominates(a: DesignResult, b: DesignResult, objectives: Objectives = PAIR) -> bool:
    """Whether `a` is no worse than `b` in any objective, and better in one."""
    gains_a, gains_b = gains(a, objectives), gains(b, objectives)
    return gains_a != gains_b and all(x >= y for x, y in zip(gains_a, gains_b, strict=True))


def gains(row: DesignResult, objectives: Objectives) -> tuple[float, ...]:
    """The row's values such that more is better. Raises ValueError where one is not known."""
    return tuple(objective.gain(value_of(row, objective)) for objective in objectives)


def value_of(row: DesignResult, objective: Objective) -> float:
    """The row's value of one objective. Raises ValueError where it is not known."""
    found = row.figure(objective)
    if found is None:
        raise ValueError(f"{row.label} has no {objective.name}")
    return found.value


def point(row: DesignResult) -> tuple[float, float]:
    """(accuracy in percent on validation, latency in ms) of a complete row. Raises ValueError."""
    accuracy, latency = (value_of(row, objective) for objective in PAIR)
    return accuracy, latency


def complete(rows: Sequence[DesignResult]) -> list[DesignResult]:
    """Rows that are complete, duplicates left out."""
    return [r for r in rows if r.state == "complete" and r.duplicate_of is None]


def pareto_front(
    rows: Sequence[DesignResult], objectives: Objectives = PAIR
) -> tuple[DesignResult, ...]:
    """Complete rows that no other beats, fastest first."""
    candidates = complete(rows)
    found = np.array([gains(row, objectives) for row in candidates], dtype=float)
    front = [row for row, own in zip(candidates, found, strict=True) if not _beaten(own, found)]
    return tuple(sorted(front, key=lambda row: (point(row)[1], row.number or 0)))


def _beaten(own: NDArray[np.float64], others: NDArray[np.float64]) -> bool:
    """Whether one of the others (N, objectives) dominates a point; of each more is better."""
    return bool(((others >= own).all(axis=1) & (others > own).any(axis=1)).any())


def standing(
    row: DesignResult, rows: Sequence[DesignResult], objectives: Objectives = PAIR
) -> Standing:
    """Where a complete row stands against the others.

    The dominating trial that is named is the fastest of the most accurate ones.
    """
    beaten_by = [other for other in complete(rows) if dominates(other, row, objectives)]
    if not beaten_by:
        return Standing(row, on_front=True)
    best = max(beaten_by, key=lambda other: (point(other)[0], -point(other)[1]))
    (accuracy, latency), (best_accuracy, best_latency) = point(row), point(best)
    return Standing(row, False, best, best_accuracy - accuracy, latency / best_latency)


def reference_point(
    rows: Sequence[DesignResult], objectives: Objectives = PAIR
) -> tuple[float, ...] | None:
    """The point that hypervolume is counted from, a value an objective; None for too few rows."""
    candidates = complete(rows)
    if len(candidates) < 2:
        return None
    return tuple(
        reference_value(each.higher, max(value_of(row, each) for row in candidates))
        for each in objectives
    )


def hypervolume(
    rows: Sequence[DesignResult], reference: tuple[float, ...], objectives: Objectives = PAIR
) -> float:
    """What the rows dominate up to the reference point, in the product of the objectives' units.

    Of two objectives an area, in percent x ms.
    """
    worst = np.array([each.gain(at) for each, at in zip(objectives, reference, strict=True)])
    found = [gains(row, objectives) for row in complete(rows)]
    return volume(np.array(found, dtype=float).reshape(-1, len(objectives)), worst)


def hypervolume_history(
    rows: Sequence[DesignResult], reference: tuple[float, ...] | None, objectives: Objectives = PAIR
) -> tuple[tuple[int, float], ...]:
    """(trial number, hypervolume so far) after each trial that has a number."""
    if reference is None:
        return ()
    worst = np.array([each.gain(at) for each, at in zip(objectives, reference, strict=True)])
    front = np.empty((0, len(objectives)))
    value, history = 0.0, []
    for row in rows:
        if row.number is None:
            continue
        for counted in complete([row]):
            own = np.array(gains(counted, objectives), dtype=float)
            # A point that is dominated adds nothing, so the front so far is enough.
            if not ((front >= own).all(axis=1)).any():
                front = np.vstack((front[~(own >= front).all(axis=1)], own))
                value = volume(front, worst)
        history.append((row.number, value))
    return tuple(history)
