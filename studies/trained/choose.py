"""What `fusion-nas choose` does: pick the design of a study to ship, and say what it costs."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from evaluators.statistics.paired import Paired, holm, paired
from studies.config.usage import UsageError
from studies.report.json_output import paired_as_json, row_as_json
from studies.results import text as result_text
from studies.results.objectives import Limit
from studies.results.outcome import DesignResult, Split, Value
from studies.results.pareto import complete, pareto_front, point
from studies.results.text import counted
from studies.results.verdict import CorrectBySplit, judged, speed, split_of


@dataclass(frozen=True)
class Neighbour:
    """The next faster or next slower design of the front.

    points: its accuracy less that of the chosen design, over the same samples; None where it is not
    kept which were right. times_faster: the chosen design's latency over its own.
    """

    row: DesignResult
    points: Paired | None
    times_faster: Value | None


@dataclass(frozen=True)
class Choice:
    """A design that was chosen by accuracy on validation and by latency.

    rule: how, in words. eligible: complete designs that meet the limits. faster, slower: its
    neighbours on the front of the whole study, whatever the limits. split: of the samples that
    neighbours are compared on.
    """

    row: DesignResult
    rule: str
    eligible: int
    faster: Neighbour | None
    slower: Neighbour | None
    split: Split | None


def choose(
    rows: Sequence[DesignResult],
    correct: CorrectBySplit,
    latency_ms: float | None = None,
    least_accuracy: float | None = None,
    knee: bool = False,
) -> Choice:
    """Choose the most accurate design within a latency, or the fastest above an accuracy.

    With both limits, or with none, the most accurate is chosen. With `knee` it is the design of the
    front that lies furthest above the line between the ends of the front, in accuracy against the
    logarithm of latency, both scaled to 0..1.

    Args:
        rows: All trials of the study.
        correct: Which samples each was right about.
        latency_ms: Greatest latency.
        least_accuracy: Least accuracy on validation, in percent.
        knee: Choose the knee.

    Raises:
        UsageError: A limit makes no sense, no complete design meets the limits, or there are fewer
            than three for a knee.
    """
    if latency_ms is not None and not 0 < latency_ms < math.inf:
        raise UsageError(f"--latency {latency_ms:g}: give milliseconds above 0")
    if least_accuracy is not None and not 0 <= least_accuracy <= 100:
        raise UsageError(f"--min-accuracy {least_accuracy:g}: give 0 to 100")
    known = complete(rows)
    if not known:
        raise UsageError("nothing to choose from: the study has no complete trial")
    eligible = [row for row in known if _meets(row, latency_ms, least_accuracy)]
    limits = _limits(latency_ms, least_accuracy)
    if not eligible:
        fastest = min(point(row)[1] for row in known)
        best = max(point(row)[0] for row in known)
        raise UsageError(
            f"no complete design{limits}: of {len(known)} the fastest takes "
            f"{result_text.ms(fastest)} ms, the most accurate reaches {best:.1f} %"
        )
    within = _distinct(pareto_front(eligible))
    if knee:
        chosen, rule = _knee(within), f"the knee of {counted(len(within), 'design')} on the front"
    elif least_accuracy is not None and latency_ms is None:
        chosen, rule = within[0], "the fastest"
    else:
        chosen, rule = within[-1], "the most accurate"
    # Neighbours may miss the limits: they show what another limit would bring.
    front = _distinct(pareto_front(known))
    at = [point(row) for row in front].index(point(chosen))
    around = {k: front[at + k] for k in (-1, 1) if 0 <= at + k < len(front)}
    split = split_of((chosen, *around.values()), correct)
    pairs = {}
    for k, row in around.items():
        if split is not None:
            own, other = (judged(each, correct[split]).correct for each in (chosen, row))
            if own is not None and other is not None:
                pairs[k] = paired(other, own)
    tested = holm(pairs)
    faster, slower = (
        Neighbour(around[k], tested.get(k), speed(chosen, around[k])) if k in around else None
        for k in (-1, 1)
    )
    return Choice(chosen, rule + limits, len(eligible), faster, slower, split)


def meeting(rows: Sequence[DesignResult], limits: Sequence[Limit]) -> list[DesignResult]:
    """The complete rows that meet further limits, as on the latency of another board.

    Raises:
        UsageError: No complete row meets one, or the study does not know what it bounds.
    """
    left = complete(rows)
    for limit in limits:
        name = limit.objective.name
        values = [row.figure(limit.objective) for row in left]
        if left and all(value is None for value in values):
            raise UsageError(f"--limit {name}: the study knows it of no complete design")
        within = [
            row
            for row, value in zip(left, values, strict=True)
            if value is not None and limit.missed_by(value.value) <= 0
        ]
        if left and not within:
            known = [value.value for value in values if value is not None]
            best = max(known) if limit.objective.higher else min(known)
            raise UsageError(
                f"--limit {name}={limit.value:g}: no complete design meets it; the best has "
                f"{best:.4g}"
            )
        left = within
    return left


def told(choice: Choice, where: str) -> Iterator[str]:
    """Yield the choice in lines: the design, why, its neighbours, and how to export it.

    `where` are the flags that name the study.
    """
    row = choice.row
    yield (
        f"{result_text.clean(row.label)}: {result_text.percent(row.accuracy, ' to ')} % on "
        f"validation, {result_text.milliseconds(row.latency, ' to ')} ms"
    )
    yield result_text.clean(row.design)
    yield f"Chosen as {choice.rule}; {counted(choice.eligible, 'design')} to choose from."
    for words, neighbour in (("faster", choice.faster), ("slower", choice.slower)):
        if neighbour is None:
            yield f"No {words} design on the front."
            continue
        figures = []
        if neighbour.points is not None:
            note = "significant" if neighbour.points.significant else "not significant"
            figures.append(f"{result_text.difference(neighbour.points)} on {choice.split}, {note}")
        if neighbour.times_faster is not None:
            figures.append(result_text.times(neighbour.times_faster))
        name = result_text.clean(neighbour.row.label)
        yield f"Next {words}: {name}: {'; '.join(figures) or 'not compared'}."
    if row.crowded:
        yield f"Its latency may be too high: {result_text.load(row)}."
    yield f"Export it: fusion-nas export {row.number} {where}"


def choice_as_json(choice: Choice) -> dict[str, Any]:
    """Return the choice as plain JSON values."""

    def neighbour(found: Neighbour | None) -> dict[str, Any] | None:
        if found is None:
            return None
        times = found.times_faster
        return {
            "trial": found.row.number,
            "points": paired_as_json(found.points),
            "times_faster": times and {"value": times.value, "low": times.low, "high": times.high},
        }

    return {
        "trial": choice.row.number,
        "rule": choice.rule,
        "eligible": choice.eligible,
        "split": choice.split,
        "design": row_as_json(choice.row),
        "faster": neighbour(choice.faster),
        "slower": neighbour(choice.slower),
    }


def _meets(row: DesignResult, latency_ms: float | None, least_accuracy: float | None) -> bool:
    accuracy, latency = point(row)
    fast = latency_ms is None or latency <= latency_ms
    return fast and (least_accuracy is None or accuracy >= least_accuracy)


def _limits(latency_ms: float | None, least_accuracy: float | None) -> str:
    said = "" if latency_ms is None else f" within {latency_ms:g} ms"
    return said + ("" if least_accuracy is None else f" of at least {least_accuracy:g} %")


def _distinct(front: Sequence[DesignResult]) -> list[DesignResult]:
    """The first row of each point of a front."""
    found: dict[tuple[float, float], DesignResult] = {}
    for row in front:
        found.setdefault(point(row), row)
    return list(found.values())


def _knee(front: Sequence[DesignResult]) -> DesignResult:
    """The row of a front, fastest first, that lies furthest above the line between its ends."""
    if len(front) < 3:
        raise UsageError(f"--knee: the front has {counted(len(front), 'design')}; three are needed")
    points = [(math.log(latency), accuracy) for accuracy, latency in map(point, front)]
    (low_ms, low), (high_ms, high) = points[0], points[-1]
    above = [(y - low) / (high - low) - (x - low_ms) / (high_ms - low_ms) for x, y in points]
    at = max(range(1, len(above) - 1), key=above.__getitem__)
    if above[at] <= 0:
        raise UsageError("--knee: no design lies above the line between the ends of the front")
    return front[at]
