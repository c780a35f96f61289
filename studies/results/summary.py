"""What a reader asks of a search first: its best design, and whether it beats the baselines."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from evaluators.statistics.paired import Correct, holm, paired
from search_space.space.paper import DESIGNS
from studies.results.outcome import DesignResult, Gain, Summary
from studies.results.pareto import complete, point
from studies.results.verdict import CorrectBySplit, judged, speed, split_of

LATE = tuple(each.name for each in DESIGNS if each.stage == "late")
TEXT_ONLY = "text-only"


def summary_of(
    rows: Sequence[DesignResult], references: Sequence[DesignResult], correct: CorrectBySplit
) -> Summary | None:
    """The most accurate design that the search found, compared with the baselines.

    Both are chosen by the accuracy that the search chose by. The baselines are the most accurate
    seeded design, the best late design and text alone, as far as they are known. Where there are
    several, their p-values are adjusted together.

    Returns:
        None where the search has found no complete design.
    """
    known = complete(rows)
    best = _best([row for row in known if not row.name])
    if best is None:
        return None
    seeded = [row for row in known if row.name]
    late = [row for row in seeded if row.name in LATE]
    alone = [row for row in references if row.name == TEXT_ONLY and row.accuracy and row.latency]
    asked = (
        ("the most accurate seeded design", _best(seeded)),
        ("late fusion", _best(late)),
        ("text alone", _best(alone)),
    )
    gains: dict[str, Gain] = {}
    for role, baseline in asked:
        if baseline is None:
            continue
        roles = (*gains[baseline.name].roles, role) if baseline.name in gains else (role,)
        gains[baseline.name] = Gain(baseline, roles, times_faster=speed(baseline, best))
    split = split_of((best, *(gain.baseline for gain in gains.values())), correct)
    if split is not None:
        gains = _with_points(gains, best, correct[split])
    return Summary(best, tuple(gains.values()), split)


def _with_points(
    gains: Mapping[str, Gain], best: DesignResult, correct: Mapping[int | str, Correct]
) -> dict[str, Gain]:
    own = judged(best, correct).correct
    pairs = {}
    for name, gain in gains.items():
        other = judged(gain.baseline, correct).correct
        if own is not None and other is not None:
            pairs[name] = paired(own, other)
    tested = holm(pairs)
    return {name: replace(gain, points=tested.get(name)) for name, gain in gains.items()}


def _best(rows: Sequence[DesignResult]) -> DesignResult | None:
    """The most accurate row, the faster of equals; None of none."""

    def rank(row: DesignResult) -> tuple[float, float]:
        accuracy, latency = point(row)
        return accuracy, -latency

    return max(rows, key=rank, default=None)
