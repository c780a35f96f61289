"""Several studies as values: what of them can be compared, and what the comparison says."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import optuna

from studies.config.usage import UsageError
from studies.report.json_output import row_as_json
from studies.results.analysis.boards import Answers, good_on_all, on_board, ranks_of
from studies.results.outcome import DesignResult, GoodOnAll, Ranks
from studies.results.pareto import complete, pareto_front
from studies.results.study_outcome import (
    BOARDS,
    CONDITIONS,
    IDENTITY,
    SUBJECT,
    correct_answers,
    goals_of,
    rows_of,
)
from studies.results.trial_record import TrialRecord

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


def sides_of(study: optuna.Study) -> list[Side]:
    """One study of a comparison: a side, or one for each of its unlike boards.

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
    subject = study.user_attrs[SUBJECT]
    side = Side(
        "",
        study.study_name,
        study.user_attrs[CONDITIONS],
        study.user_attrs.get(IDENTITY, {}),
        rows,
        designs,
        pareto_front(rows, goals_of(subject).objectives),
        correct_answers(study, "valid"),
    )
    first, *others = subject.get(BOARDS) or [""]
    if not others:
        return [side]
    on_first = replace(side, name=f"{study.study_name} on {first}", front=pareto_front(rows))
    return [on_first, *(_on_board(side, board) for board in others)]


def _on_board(side: Side, board: str) -> Side:
    """A study by its latencies on a board beside the first one."""
    rows = tuple(row for row in (on_board(row, board) for row in side.rows) if row.latency)
    designs = {key: on_board(row, board) for key, row in side.designs.items()}
    conditions = {**side.conditions, "device": side.conditions.get(f"board {board}", board)}
    conditions.pop("runtime", None)  # the board's own is among its words
    device, runtime, threads = (side.identity.get("boards") or {}).get(board, (board, "", None))
    return replace(
        side,
        name=f"{side.name} on {board}",
        conditions=conditions,
        identity={**side.identity, "device": device, "runtime": runtime, "threads": threads},
        rows=rows,
        designs={key: row for key, row in designs.items() if row.latency},
        front=pareto_front(rows),
    )


def compare(studies: Sequence[optuna.Study]) -> Comparison:
    """Compare two or more studies, or the boards of one study.

    Raises:
        UsageError: A study is given twice or has no complete trial.
    """
    begun = {
        (study.study_name, tuple(t.datetime_start for t in study.get_trials(deepcopy=False)))
        for study in studies
    }
    if len(begun) < len(studies):
        raise UsageError("compare: a study is given twice; give each once")
    found = [side for study in studies for side in sides_of(study)]
    if len(found) < 2:
        raise UsageError("compare: give two studies or more, or one of several unlike boards")
    if len(found) > 26:
        raise UsageError("compare: give 26 studies or boards at most")
    sides = tuple(replace(side, letter=chr(ord("A") + k)) for k, side in enumerate(found))
    shared = [
        key
        for key in sides[0].designs
        if all(key in s.designs and s.designs[key].state == "complete" for s in sides)
    ]
    return Comparison(
        sides,
        _differing(sides, OF_ACCURACY),
        _differing(sides, OF_LATENCY),
        tuple(ranks_of(a, b) for a, b in combinations(sides, 2)),
        len(shared),
        good_on_all(sides, shared),
    )


def _differing(sides: Sequence[Side], parts: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(
        words
        for part, words in parts.items()
        if any(side.identity.get(part) != sides[0].identity.get(part) for side in sides)
    )


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
