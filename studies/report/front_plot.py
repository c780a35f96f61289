"""The plot that the search is for: validation accuracy over latency."""

import math
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

import plotly.graph_objects as go

from studies.report.designs.payload import key_of
from studies.report.plotting import Label, Plot, axis, both, escaped, look, ms
from studies.results import text as result_text
from studies.results.outcome import DesignResult, Outcome, Value
from studies.results.text import clean

LOG_RATIO = 20
MOST_LABELLED = 6
"""Designs of the front without a name that are labelled: the most accurate ones."""


def front(outcome: Outcome) -> Plot | None:
    """Validation accuracy over latency; None where no row has both."""
    trials = [row for row in outcome.rows if row.state == "complete" and both(row)]
    references = [row for row in outcome.references if both(row)]
    tuned = [each.row for each in outcome.fine_tuned]
    shown = [*trials, *references, *tuned]
    if not shown:
        return None
    rejected = [row for row in outcome.rows if row.state == "infeasible" and row.latency]
    on_front = [row for row in outcome.front if both(row)]
    seeded = [row for row in trials if row.name]
    constant = "majority set" if outcome.multi_label else "majority class"
    lines = {constant: outcome.majority[0], **outcome.ceilings}

    xs = [ms(row) for row in (*shown, *rejected)]
    if outcome.latency_limit_ms is not None:
        xs.append(outcome.latency_limit_ms)
    log = min(xs) > 0 and max(xs) / min(xs) > LOG_RATIO
    x_range = padded([math.log10(x) for x in xs] if log else xs, 0.07)
    if not log:
        x_range[0] = max(0.0, x_range[0])
    ys = [y for row in shown for y in _ends(row.accuracy, row in on_front)]
    y_range = padded([*ys, *lines.values()], 0.06)

    chosen = "cross-validated" if outcome.cv else "validation"
    chosen += " subset" if outcome.multi_label else ""
    figure = go.Figure()
    others = [row for row in trials if not row.name and row not in on_front]
    figure.add_trace(_points(others, "circle", "var(--faint)", 8))
    figure.add_trace(_step(on_front, _end(x_range, log)))
    figure.add_trace(_points(on_front, "circle", "var(--front)", 9, bars=True))
    figure.add_trace(_points(seeded, "diamond", "var(--seeded)", 12))
    figure.add_trace(_points(references, "square", "var(--reference)", 10))
    if tuned:
        kept = [each.row for each in outcome.fine_tuned if each.on_front]
        figure.add_trace(_step(kept, _end(x_range, log), "var(--tuned)", "dot"))
        figure.add_trace(_points(tuned, "triangle-up", "var(--tuned)", 11))
    if rejected:
        rug = _points(rejected, "line-ns-open", "var(--infeasible)", 12)
        figure.add_trace(rug.update(y=[0] * len(rejected), yaxis="y2", marker={"line_width": 2}))
    for y in lines.values():
        figure.add_hline(y, line={"color": "var(--line)", "width": 1, "dash": "dot"})
    if outcome.latency_limit_ms is not None:
        figure.add_vline(
            outcome.latency_limit_ms,
            line={"color": "var(--infeasible)", "width": 1.5, "dash": "dash"},
        )
        figure.add_annotation(
            x=math.log10(outcome.latency_limit_ms) if log else outcome.latency_limit_ms,
            y=1, yref="paper", yanchor="bottom", xanchor="right", showarrow=False,
            text=f"limit {outcome.latency_limit_ms:g} ms", font={"color": "var(--infeasible)"},
        )  # fmt: skip
    figure.update_layout(
        look(),
        margin={"l": 52, "r": 14, "t": 28, "b": 48},
        xaxis=axis(
            title=f"{outcome.latency_is}, ms", range=x_range, anchor="y2" if rejected else "y"
        )
        | (_log_ticks(x_range) if log else {}),
        yaxis=axis(
            title=f"{chosen} accuracy, %", range=y_range, domain=[0.09 if rejected else 0, 1]
        ),
    )
    if rejected:
        figure.update_layout(
            yaxis2=axis(range=[-1, 1], domain=[0, 0.06], showticklabels=False, fixedrange=True)
            | {"showgrid": False}
        )
    labels = [Label(f"{name} {y:.1f} %", y, line=True) for name, y in lines.items()]
    # All designs of a fixed list have names: too many to write, but for those on the front.
    named = seeded if outcome.grid is None else [row for row in on_front if row.name]
    labels += [_label(row, "var(--seeded)") for row in named]
    labels += [_label(row, "var(--reference)") for row in references]
    found = [row for row in on_front if not row.name]
    labels += [_label(row, "var(--front)") for row in found[-MOST_LABELLED:]]
    summary = (
        f"{len(trials)} complete trials, {len(on_front)} of them on the front, by {chosen} "
        f"accuracy and latency. The tables have every figure."
    )
    return Plot("front", figure, 540, summary, tuple(labels))


def _points(
    rows: Sequence[DesignResult], symbol: str, colour: str, size: int, bars: bool = False
) -> Any:
    trace = go.Scatter(
        x=[ms(row) for row in rows],
        y=[None if row.accuracy is None else row.accuracy.value for row in rows],
        mode="markers",
        hoverinfo="text",
        hovertext=[hover(row) for row in rows],
        customdata=[key_of(row) for row in rows],
        marker={"symbol": symbol, "size": size, "color": colour}
        | {"line": {"color": "var(--surface)", "width": 1}},
    )
    if bars:
        trace.update(
            error_x=_bars([row.latency for row in rows]),
            error_y=_bars([row.accuracy for row in rows]),
        )
    return trace


def _bars(values: Iterable[Value | None]) -> dict[str, Any]:
    pairs = [(v.value, *_ends(v, True)) if v else (0.0, 0.0, 0.0) for v in values]
    return {
        "array": [high - value for value, _, high in pairs],
        "arrayminus": [value - low for value, low, _ in pairs],
        "color": "var(--front)",
        "thickness": 1,
        "width": 0,
    }


def _end(x_range: Sequence[float], log: bool) -> float:
    """Milliseconds at the right end of an axis whose range is given in what it shows."""
    return float(10 ** x_range[1] if log else x_range[1])


def _step(
    rows: Sequence[DesignResult], right: float, colour: str = "var(--front)", dash: str = "solid"
) -> Any:
    xs, ys = [ms(row) for row in rows], [row.accuracy.value for row in rows if row.accuracy]
    if rows:
        xs, ys = [*xs, right], [*ys, ys[-1]]
    line = {"shape": "hv", "color": colour, "width": 2, "dash": dash}
    return go.Scatter(x=xs, y=ys, mode="lines", hoverinfo="skip", line=line)


def hover(row: DesignResult, more: Iterable[str] = ()) -> str:
    """What is shown of a row when it is pointed at; `more` are further lines."""
    figures = [
        ("selection", result_text.percent(row.accuracy), "%"),
        ("test", result_text.percent(row.test_accuracy), "%"),
        ("latency", result_text.milliseconds(row.latency), "ms"),
        ("parameters", result_text.count(row.parameters), ""),
        ("MACs", result_text.count(row.macs), ""),
    ]
    number = f" (trial {row.number})" if row.name and row.number is not None else ""
    lines = [f"<b>{escaped(row.label)}</b>{number}"]
    lines += [f"{what} {value} {unit}".rstrip() for what, value, unit in figures if value]
    lines += map(escaped, more)
    lines += map(escaped, textwrap.wrap(clean(row.fidelity), 56))
    lines += map(escaped, textwrap.wrap(result_text.arrows(clean(row.design)), 56))
    lines += map(escaped, textwrap.wrap(clean(row.reason), 56))
    return "<br>".join(lines)


def _label(row: DesignResult, colour: str) -> Label:
    return Label(clean(row.label), row.accuracy.value if row.accuracy else 0, ms(row), colour)


def _ends(value: Value | None, bounds: bool) -> tuple[float, float]:
    if value is None:
        return 0.0, 0.0
    if not bounds or value.low is None or value.high is None:
        return value.value, value.value
    return value.low, value.high


def padded(values: Sequence[float], share: float) -> list[float]:
    """The range of an axis that holds the values, with a share of it left at both ends."""
    low, high = min(values), max(values)
    pad = (high - low) * share or max(abs(high) * share, 0.1)
    return [low - pad, high + pad]


def _log_ticks(x_range: Sequence[float]) -> dict[str, Any]:
    ticks = [
        digit * 10.0**power
        for power in range(math.floor(x_range[0]), math.ceil(x_range[1]) + 1)
        for digit in (1, 2, 5)
    ]
    return {"type": "log", "tickvals": ticks, "ticktext": [f"{tick:g}" for tick in ticks]}
