"""A study's outcome as plain JSON values, with units in the names."""

import math
from typing import Any

from studies.outcome import Outcome, Row, Standing, Value


def as_json(outcome: Outcome) -> dict[str, Any]:
    """Everything the outcome holds. Rows of the front are named by trial number.

    A figure that is not known, or not finite, is null.
    """
    reference = outcome.reference_point
    return {
        "study": outcome.study,
        "title": outcome.title,
        "data": {"name": outcome.data_name, "note": outcome.data_note},
        "majority_percent": {
            "valid": _number(outcome.majority[0]),
            "test": _number(outcome.majority[1]),
        },
        "ceilings_percent": {name: _number(v) for name, v in outcome.ceilings.items()},
        "latency_limit_ms": _number(outcome.latency_limit_ms),
        "front": [row.number for row in outcome.front],
        "standings": [_standing(standing) for standing in outcome.standings],
        "reference_point": reference
        and {"accuracy_percent": _number(reference[0]), "latency_ms": _number(reference[1])},
        "hypervolume": [
            {"trial": trial, "percent_points_ms": _number(value)}
            for trial, value in outcome.hypervolume
        ],
        "importances": {
            objective: {decision: _number(share) for decision, share in shares.items()}
            for objective, shares in outcome.importances.items()
        },
        "trials": [_row(row) for row in outcome.rows],
        "references": [_row(row) for row in outcome.references],
        "conditions": dict(outcome.conditions),
        "cautions": list(outcome.cautions),
    }


def _row(row: Row) -> dict[str, Any]:
    return {
        "number": row.number,
        "name": row.name,
        "state": row.state,
        "reason": row.reason,
        "duplicate_of": row.duplicate_of,
        "design": row.design,
        "params": dict(row.params),
        "carried_over": row.carried_over,
        "fidelity": row.fidelity,
        "shortened": row.shortened,
        "device": row.device,
        "valid_accuracy_percent": _value(row.accuracy),
        "valid_accuracy_nonzero_percent": _value(row.accuracy_nonzero),
        "test_accuracy_percent": _value(row.test_accuracy),
        "test_accuracy_nonzero_percent": _value(row.test_accuracy_nonzero),
        "latency_ms": _value(row.latency),
        "parameters": row.parameters,
        "macs": row.macs,
        "onnx_bytes": row.onnx_bytes,
        "published": {
            "accuracy_percent": _number(row.published_accuracy),
            "latency_ms": _number(row.published_latency_ms),
        },
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
    }


def _value(value: Value | None) -> dict[str, float | None] | None:
    if value is None or not math.isfinite(value.value):
        return None
    return {"value": value.value, "low": _number(value.low), "high": _number(value.high)}


def _number(number: float | None) -> float | None:
    return None if number is None or not math.isfinite(number) else number
