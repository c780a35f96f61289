"""A study's outcome as plain JSON values, with units in the names."""

import math
from dataclasses import asdict
from typing import Any

from evaluators.statistics.paired import Paired
from studies.results.ablation import rows_by_name
from studies.results.analysis import boards_in_words
from studies.results.outcome import (
    DesignResult,
    GridOutcome,
    ModalityUse,
    Outcome,
    Standing,
    Summary,
    Value,
    Verdict,
)


def as_json(outcome: Outcome) -> dict[str, Any]:
    """Everything the outcome holds. Rows of the front are named by trial number.

    A figure that is not known, or not finite, is null.
    """
    reference = outcome.reference_point
    return {
        "study": outcome.study,
        "title": outcome.title,
        "data": {"name": outcome.data_name, "note": outcome.data_note},
        "chosen_by": "cross-validation" if outcome.cv else "validation split",
        **({"multi_label": True} if outcome.multi_label else {}),
        "majority_percent": {
            "valid": _number(outcome.majority[0]),
            "test": _number(outcome.majority[1]),
        },
        "ceilings_percent": {name: _number(v) for name, v in outcome.ceilings.items()},
        "latency_is": outcome.latency_is,
        "latency_limit_ms": _number(outcome.latency_limit_ms),
        "objectives": [each.name for each in outcome.goals.objectives],
        "limits": {each.objective.name: each.value for each in outcome.goals.limits},
        "front": [row.number for row in outcome.front],
        "front_neighbours": [
            pair
            and {"points": pair.points, "low": pair.low, "high": pair.high, "samples": pair.count}
            for pair in outcome.neighbours
        ],
        "standings": [_standing(standing) for standing in outcome.standings],
        "reference_point": reference
        and {
            "accuracy_percent": _number(reference[0]),
            "latency_ms": _number(reference[1]),
            **{
                each.name: _number(value)
                for each, value in zip(outcome.goals.more, reference[2:], strict=True)
            },
        },
        "hypervolume": [
            {"trial": trial, "percent_points_ms": _number(value)}
            for trial, value in outcome.hypervolume
        ],
        "importances": {
            objective: {decision: _number(share) for decision, share in shares.items()}
            for objective, shares in outcome.importances.items()
        },
        **({} if outcome.boards is None else {"boards": boards_in_words.as_json(outcome.boards)}),
        "trials": [row_as_json(row) for row in outcome.rows],
        "references": [row_as_json(row) for row in outcome.references],
        "conditions": dict(outcome.conditions),
        "cautions": list(outcome.cautions),
        "list": outcome.grid and _list(outcome, outcome.grid),
        "summary": outcome.summary and _summary(outcome.summary),
        "rungs": outcome.rungs
        and {
            "probed": outcome.rungs.probed,
            "trained": outcome.rungs.trained,
            "kendall_tau": outcome.rungs.tau,
            "fine_tuned": outcome.rungs.fine_tuned,
            "kendall_tau_of_fine_tuning": outcome.rungs.fine_tau,
        },
        "fine_tuned": [
            {
                **row_as_json(each.row),
                "on_front_of_fine_tuned": each.on_front,
                "points_gained": paired_as_json(each.gained),
            }
            for each in outcome.fine_tuned
        ],
    }


def _summary(summary: Summary) -> dict[str, Any]:
    """The best design by trial, and what it gains over each baseline."""
    return {
        "best": summary.best.number,
        "split": summary.split,
        "gains": [
            {
                "baseline": gain.baseline.label,
                "roles": list(gain.roles),
                "points": paired_as_json(gain.points),
                "times_faster": _value(gain.times_faster),
            }
            for gain in summary.gains
        ],
    }


def _list(outcome: Outcome, grid: GridOutcome) -> dict[str, Any]:
    """A fixed list: its points by trial, and how far each is from what it is compared with."""
    trials = {name: row.number for name, row in rows_by_name(outcome.rows).items()}
    return {
        "kind": grid.kind,
        "about": grid.about,
        "notes": list(grid.notes),
        "points": [
            {
                "series": point.series,
                "at": point.at,
                "name": point.design,
                "trial": trials.get(point.design),
                "against": point.against or None,
                "test_points": paired_as_json(grid.paired.get((point.design, point.against))),
            }
            for point in grid.points
        ],
    }


def row_as_json(row: DesignResult) -> dict[str, Any]:
    """A row with units in its names."""
    return {
        "number": row.number,
        "name": row.name,
        "state": row.state,
        "reason": row.reason,
        "duplicate_of": row.duplicate_of,
        "timed_as": row.timed_as,
        "design": row.design,
        "params": dict(row.params),
        "carried_over": row.adapted,
        "fidelity": row.fidelity,
        "shortened": row.shortened,
        **({"did_not_train": row.did_not_train} if row.did_not_train else {}),
        "folded": row.folded,
        "crowded": row.crowded,
        "device": row.device,
        **(
            {"boards": {name: dict(each) for name, each in row.boards.items()}}
            if row.boards
            else {}
        ),
        "valid_accuracy_percent": _value(row.accuracy),
        "valid_accuracy_nonzero_percent": _value(row.accuracy_nonzero),
        "test_accuracy_percent": _value(row.test_accuracy),
        "test_accuracy_nonzero_percent": _value(row.test_accuracy_nonzero),
        "test_accuracy_percent_by_seed": list(row.test_seeds),
        **(
            {"test_set_scores_percent": {n: _value(v) for n, v in row.test_sets.items()}}
            if row.test_sets
            else {}
        ),
        "modality_use": row.use and _use(row.use),
        "latency_ms": _value(row.latency),
        **({} if row.turns is None else {"final_latency": _turns(row)}),
        **({"latency_tail_ms": dict(row.tail)} if row.tail else {}),
        **({"estimated_ms_by_part": dict(row.parts)} if row.parts else {}),
        "further": {name: _value(value) for name, value in row.more.items()},
        "probe_r2_percent": _value(row.probe_r2),
        "predicted_latency_ms": _value(row.predicted_latency),
        "parameters": row.parameters,
        "macs": row.macs,
        "onnx_bytes": row.onnx_bytes,
        "published": {
            "accuracy_percent": _number(row.published_accuracy),
            "latency_ms": _number(row.published_latency_ms),
        },
    }


def _turns(row: DesignResult) -> dict[str, Any]:
    """Readings in turns at the end: those of one session and one position are of one round."""
    turns = row.turns
    assert turns is not None
    return {
        "session": turns.session,
        "readings": [each and asdict(each) for each in turns.readings],
        "latency_ms_in_search": _value(row.latency_in_search),
    }


def _use(use: ModalityUse) -> dict[str, Any]:
    """What a design uses on test."""
    return {
        "shapley_points": {name: _value(value) for name, value in use.shapley.items()},
        "points_lost_by_shuffling": {name: _value(value) for name, value in use.dropped.items()},
        "percent_without": dict(use.without),
        "latency_ms_without": {name: _value(v) for name, v in use.latency_without.items()},
        "percent_all_shuffled": use.chance,
        "expected_calibration_error": use.ece,
    }


def _standing(standing: Standing) -> dict[str, Any]:
    better = standing.dominated_by
    return {
        "name": standing.row.label,
        "number": standing.row.number,
        "on_front": standing.on_front,
        "dominated_by": None if better is None else better.number,
        "points_lost": _number(standing.points_lost),
        "times_slower": _number(standing.times_slower),
        "verdict": verdict_as_json(standing.verdict),
    }


def verdict_as_json(found: Verdict | None) -> dict[str, Any] | None:
    """A verdict; `points` and `times_faster` are the rival's over the design's own."""
    if found is None:
        return None
    rival = found.rival
    return {
        "kind": found.kind,
        "split": found.split,
        "held_against": found.held_against,
        "rival": None if rival is None else {"name": rival.label, "number": rival.number},
        "points": paired_as_json(found.points),
        "times_faster": _value(found.times_faster),
        "more_samples": found.more_samples,
        "why": found.why,
        "covers_seeds": found.covers_seeds,
    }


def paired_as_json(points: Paired | None) -> dict[str, float | int] | None:
    """A paired difference in percent points with its bounds."""
    if points is None:
        return None
    return {
        "value": points.points,
        "low": points.low,
        "high": points.high,
        "samples": points.count,
        "seeds": points.seeds,
        "significant": points.significant,
    }


def _value(value: Value | None) -> dict[str, float | None] | None:
    if value is None or not math.isfinite(value.value):
        return None
    return {"value": value.value, "low": _number(value.low), "high": _number(value.high)}


def _number(number: float | None) -> float | None:
    return None if number is None or not math.isfinite(number) else number
