"""Designs timed in several places: how the places rank them, and which are good in all.

A place is a study of a comparison, or one board of a study of several unlike boards.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from statistics import median
from typing import Protocol

from evaluators.statistics.paired import Correct, paired
from studies.results.objectives import latency_on
from studies.results.outcome import BoardFront, DesignResult, GoodOnAll, OnBoards, Ranks
from studies.results.pareto import pareto_front, point
from studies.results.verdict import judged, speed

Answers = Mapping[int | str, Correct]

LEAST_SHARED = 3
"""Designs from which Kendall's tau is computed."""


class Place(Protocol):
    """Where designs were timed: rows by the design's key, their front, and what was right."""

    @property
    def letter(self) -> str: ...
    @property
    def front(self) -> tuple[DesignResult, ...]: ...
    @property
    def designs(self) -> Mapping[str, DesignResult]: ...
    @property
    def correct(self) -> Answers: ...


def on_board(row: DesignResult, board: str) -> DesignResult:
    """The row with its latency on a board beside the first one; without where it has none there.

    Figures that only the first board reports are left out.
    """
    read = row.boards.get(board, {})
    return replace(
        row,
        latency=row.more.get(latency_on(board)),
        device=read.get("device", ""),
        crowded=read.get("crowded", ""),
        turns=None,
        latency_in_search=None,
        predicted_latency=None,
        tail={},
        parts={},
    )


def on_boards(
    rows: Sequence[DesignResult], boards: Sequence[str], correct: Answers
) -> OnBoards | None:
    """The fronts of each board; None for a study of one.

    Args:
        rows: all trials of the study.
        boards: names of its unlike boards, the first one first; empty for one.
        correct: which validation samples each design was right about.
    """
    if not boards:
        return None
    fronts = tuple(board_fronts(rows, boards, correct))
    shared = [
        key
        for key, row in fronts[0].designs.items()
        if row.state == "complete" and all(key in each.designs for each in fronts)
    ]
    ranks = tuple(ranks_of(a, b) for a, b in combinations(fronts, 2))
    return OnBoards(fronts, ranks, len(shared), good_on_all(fronts, shared))


def board_fronts(
    rows: Sequence[DesignResult], boards: Sequence[str], correct: Answers
) -> list[BoardFront]:
    """The front of each board by accuracy and the latency there, the first board first."""
    found = []
    for k, board in enumerate(boards):
        own = rows if k == 0 else [on_board(row, board) for row in rows]
        timed = [row for row in own if row.latency is not None]
        designs: dict[str, DesignResult] = {}
        for row in timed:
            if row.genotype is not None and row.state != "unstable" and row.duplicate_of is None:
                designs.setdefault(row.genotype.key, row)
        found.append(BoardFront(chr(ord("A") + k), board, pareto_front(timed), designs, correct))
    return found


def ranks_of(a: Place, b: Place) -> Ranks:
    """How two places rank the designs that were timed in both."""
    pairs = [
        (a.designs[key].latency.value, b.designs[key].latency.value)  # type: ignore[union-attr]
        for key in a.designs
        if key in b.designs
    ]
    tau = None
    if len(pairs) >= LEAST_SHARED:
        from scipy.stats import kendalltau

        found = float(kendalltau(*zip(*pairs, strict=True))[0])
        tau = found if math.isfinite(found) else None
    ratio = median(y / x for x, y in pairs) if pairs else None
    return Ranks(a.letter, b.letter, len(pairs), tau, ratio)


def good_on_all(places: Sequence[Place], shared: Sequence[str]) -> tuple[GoodOnAll, ...]:
    """Those of the shared designs that are good everywhere; see `good_in`."""
    found = []
    for key in shared:
        rows = tuple(place.designs[key] for place in places)
        standing = [good_in(row, place) for row, place in zip(rows, places, strict=True)]
        if all(each is not None for each in standing):
            found.append(GoodOnAll(rows[0].design, rows, tuple(map(bool, standing))))
    return tuple(sorted(found, key=lambda e: (-sum(e.on_front), -point(e.rows[0])[0])))


def good_in(row: DesignResult, place: Place) -> bool | None:
    """Whether a complete row is on its front; None where it is decidedly worse.

    It is decidedly worse than a design of the front that is no slower and significantly more
    accurate over the same samples, or significantly faster and no less accurate.
    """
    if any(point(other) == point(row) for other in place.front):
        return True
    if any(_is_worse(row, other, place.correct) for other in place.front):
        return None
    return False


def _is_worse(row: DesignResult, rival: DesignResult, all_correct: Answers) -> bool:
    (accuracy, latency), (other_accuracy, other_latency) = point(row), point(rival)
    times = speed(row, rival)
    if times is not None and times.low is not None and times.low > 1 and other_accuracy >= accuracy:
        return True
    if other_latency > latency:
        return False
    own, other = (judged(each, all_correct).correct for each in (row, rival))
    if own is not None and other is not None:
        pair = paired(other, own)
        return pair.points > 0 and pair.significant
    high = row.accuracy.high if row.accuracy else None
    return high is not None and high < other_accuracy
