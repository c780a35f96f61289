"""Several studies as values: what of them can be compared, and what the comparison says."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import median
from typing import Any

import optuna

from evaluators.statistics.paired import Correct, paired
from studies.config.usage import UsageError
from studies.report.json_output import row_as_json
from studies.results.outcome import DesignResult
from studies.results.pareto import complete, pareto_front, point
from studies.results.study_outcome import (
    CONDITIONS,
    IDENTITY,
    SUBJECT,
    correct_answers,
    goals_of,
    rows_of,
)
from studies.results.trial_record import TrialRecord
from studies.results.verdict import judged, speed

Answers = Mapping[int | str, Correct]

LEAST_SHARED = 3
"""Designs from which Kendall's tau is computed."""
OF_ACCURACY = {
    "data": "data",
    "training protocol or seed": "training protocol or seed",
    "selection (--cv or not)": "selection",
}
"""Parts of a study's identity that accuracies depend on, and what they are called."""
OF_LATENCY = {
    "device": "device",
    "threads": "threads",
    "runtime": "runtime",
    "timing": "timing protocol",
    "rewrites": "rewrites",
}


@dataclass(frozen=True)
class Side:
    """One study of a comparison.

    Attributes:
        letter: what tables and plots call it.
        name: of the study.
        conditions: in words.
        identity: what its results depend on.
        rows: all finished trials.
        designs: the rows with a stable latency, by the key of the design.
        front: complete rows that no other beats in accuracy and latency.
        correct: which validation samples each was right about.
    """

    letter: str
    name: str
    conditions: Mapping[str, str]
    identity: Mapping[str, Any]
    rows: tuple[DesignResult, ...]
    designs: Mapping[str, DesignResult]
    front: tuple[DesignResult, ...]
    correct: Answers


@dataclass(frozen=True)
class Ranks:
    """How two studies rank the latencies of the designs that both have timed.

    Attributes:
        first, second: letters of the two.
        shared: how many designs both have timed.
        tau: Kendall's tau-b; None for fewer than LEAST_SHARED designs or equal latencies.
        times_slower: median ratio of the second's latency to the first's; None without any.
    """

    first: str
    second: str
    shared: int
    tau: float | None
    times_slower: float | None


@dataclass(frozen=True)
class GoodOnAll:
    """A design that is good in every study.

    Attributes:
        design: in words.
        rows: its row in each study, in their order.
        on_front: whether it is on the front of each; otherwise no design of that front is
            decidedly better.
    """

    design: str
    rows: tuple[DesignResult, ...]
    on_front: tuple[bool, ...]


@dataclass(frozen=True)
class Comparison:
    """Several studies side by side.

    Attributes:
        sides: the studies.
        accuracy_differs, latency_differs: which conditions of each are not the same in all.
        ranks: of each pair of studies.
        shared: designs that are complete in all studies.
        good: those that are good in all; those on most fronts first, then by accuracy.
    """

    sides: tuple[Side, ...]
    accuracy_differs: tuple[str, ...]
    latency_differs: tuple[str, ...]
    ranks: tuple[Ranks, ...]
    shared: int
    good: tuple[GoodOnAll, ...]

    @property
    def accuracies_comparable(self) -> bool:
        """Whether the accuracies of the studies are of the same data and training."""
        return not self.accuracy_differs


def side_of(letter: str, study: optuna.Study) -> Side:
    """One study of a comparison.

    Raises:
        UsageError: It has no complete trial.
    """
    rows = rows_of(study)
    if not complete(rows):
        raise UsageError(
            f"study {study.study_name!r} has no complete trial: there is nothing to compare"
        )
    by_number = {row.number: row for row in rows}
    designs: dict[str, DesignResult] = {}
    for trial in study.get_trials(deepcopy=False):
        row, key = by_number.get(trial.number), TrialRecord.of(trial).result.key
        if row and key and row.latency and row.state != "unstable":
            designs.setdefault(key, row)
    return Side(
        letter,
        study.study_name,
        study.user_attrs[CONDITIONS],
        study.user_attrs.get(IDENTITY, {}),
        rows,
        designs,
        pareto_front(rows, goals_of(study.user_attrs[SUBJECT]).objectives),
        correct_answers(study, "valid"),
    )


def compare(studies: Sequence[optuna.Study]) -> Comparison:
    """Compare two or more studies.

    Raises:
        UsageError: A study is given twice or has no complete trial.
    """
    if len(studies) < 2:
        raise UsageError("compare: give two studies or more")
    if len(studies) > 26:
        raise UsageError("compare: give 26 studies at most")
    begun = {
        (study.study_name, tuple(t.datetime_start for t in study.get_trials(deepcopy=False)))
        for study in studies
    }
    if len(begun) < len(studies):
        raise UsageError("compare: a study is given twice; give each once")
    sides = tuple(side_of(chr(ord("A") + k), study) for k, study in enumerate(studies))
    shared = [
        key
        for key in sides[0].designs
        if all(key in s.designs and s.designs[key].state == "complete" for s in sides)
    ]
    return Comparison(
        sides,
        _differing(sides, OF_ACCURACY),
        _differing(sides, OF_LATENCY),
        tuple(_ranks(a, b) for a, b in combinations(sides, 2)),
        len(shared),
        _good(sides, shared),
    )


def _differing(sides: Sequence[Side], parts: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(
        words
        for part, words in parts.items()
        if any(side.identity.get(part) != sides[0].identity.get(part) for side in sides)
    )


def _ranks(a: Side, b: Side) -> Ranks:
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


def _good(sides: Sequence[Side], shared: Sequence[str]) -> tuple[GoodOnAll, ...]:
    found = []
    for key in shared:
        rows = tuple(side.designs[key] for side in sides)
        standing = [good_in(row, side) for row, side in zip(rows, sides, strict=True)]
        if all(each is not None for each in standing):
            found.append(GoodOnAll(rows[0].design, rows, tuple(map(bool, standing))))
    return tuple(sorted(found, key=lambda e: (-sum(e.on_front), -point(e.rows[0])[0])))


def good_in(row: DesignResult, side: Side) -> bool | None:
    """Whether a complete row is on its study's front; None where it is decidedly worse.

    It is decidedly worse than a design of the front that is no slower and significantly more
    accurate over the same samples, or significantly faster and no less accurate.
    """
    if any(point(other) == point(row) for other in side.front):
        return True
    if any(_is_worse(row, other, side.correct) for other in side.front):
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


def comparison_as_json(found: Comparison) -> dict[str, Any]:
    """Return the comparison as plain JSON values."""
    return {
        "accuracies_comparable": found.accuracies_comparable,
        "accuracy_differs_by": list(found.accuracy_differs),
        "latency_differs_by": list(found.latency_differs),
        "studies": [
            {
                "letter": side.letter,
                "study": side.name,
                "conditions": dict(side.conditions),
                "front": [row_as_json(row) for row in side.front],
            }
            for side in found.sides
        ],
        "latency_ranks": [
            {
                "studies": [ranks.first, ranks.second],
                "shared_designs": ranks.shared,
                "kendall_tau": ranks.tau,
                "median_times_slower": ranks.times_slower,
            }
            for ranks in found.ranks
        ],
        "shared_complete_designs": found.shared,
        "good_on_all": [
            {
                "design": each.design,
                "trials": [row.number for row in each.rows],
                "on_front": list(each.on_front),
            }
            for each in found.good
        ],
    }
