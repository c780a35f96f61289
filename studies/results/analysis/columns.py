"""A study's designs as rows of a flat table, for files and data frames."""

import csv
import io
from collections.abc import Sequence
from typing import Any

from studies.results.outcome import DesignResult, Outcome, Value
from studies.results.text import clean


def columns(row: DesignResult) -> dict[str, Any]:
    """One design as a row: figures with their units in the names, None where not known."""
    return {
        "number": row.number,
        "name": row.name,
        "state": row.state,
        "design": row.design,
        **_with_interval("accuracy", row.accuracy),
        **_with_interval("latency_ms", row.latency),
        "test_accuracy": None if row.test_accuracy is None else row.test_accuracy.value,
        "parameters": row.parameters,
        "macs": row.macs,
        "onnx_bytes": row.onnx_bytes,
        "device": row.device,
        "reason": row.reason,
        **{f"latency_{name}_ms": ms for name, ms in row.tail.items()},
        **{name: value.value for name, value in row.more.items()},
        **{f"params_{name}": value for name, value in row.params.items()},
    }


def table(rows: Sequence[DesignResult]) -> dict[str, list[Any]]:
    """The rows' columns by name, each as long as the rows; texts are cleaned."""
    found = [
        {name: clean(value) if isinstance(value, str) else value for name, value in own.items()}
        for own in map(columns, rows)
    ]
    names = list(dict.fromkeys(name for row in found for name in row))
    return {name: [row.get(name) for row in found] for name in names}


def as_csv(outcome: Outcome) -> str:
    """All trials and references as CSV; what is not known is empty."""
    found = table([*outcome.rows, *outcome.references])
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(found)
    writer.writerows(zip(*found.values(), strict=True))
    return text.getvalue()


def _with_interval(name: str, value: Value | None) -> dict[str, float | None]:
    if value is None:
        return {name: None, f"{name}_low": None, f"{name}_high": None}
    return {name: value.value, f"{name}_low": value.low, f"{name}_high": value.high}
