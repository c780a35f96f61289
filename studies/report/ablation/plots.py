"""The plots of studies of a fixed list: one panel a figure over what was varied, or nine cells."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from evaluators.statistics.paired import Paired
from studies.report.front_plot import hover, padded
from studies.report.plotting import Plot, axis, escaped, look
from studies.results import text as result_text
from studies.results.ablation import (
    CELLS,
    SHARES,
    TRIMODAL,
    accuracy_of,
    difference_of,
    extra_ms,
    listed,
    rows_by_name,
    split_of,
)
from studies.results.outcome import DesignResult, GridPoint, Outcome, Split, Value
from studies.results.text import clean

SERIES = (
    ("circle", "front"), ("diamond", "seeded"), ("square", "reference"),
    ("triangle-up", "infeasible"), ("x", "high"),
)  # fmt: skip
"""Symbol and colour of each series, in order; a further one begins anew."""
ABLATION_PERCENT: dict[int | str, float] = {4: 67.89, 8: 69.09}
"""By blocks over the vector: MobileNetV2's early design on CMU-MOSI, arXiv 2511.21889."""
AXES = {
    "ablation-attention": "attention blocks",
    "stage-sweep": "text layers run, vision in proportion",
    "tokens": "text tokens",
    "stages": "where the design fuses",
    TRIMODAL: "what the design reads",
    SHARES: "layer",
}
DODGE = 0.09
PANEL, GAP, TOP, BOTTOM = 200, 26, 14, 52
LEFT, RIGHT = 62, 128
LABEL = 15
"""Pixels: of a panel, between two, above and below them, beside them, a line's label."""


@dataclass(frozen=True)
class Panel:
    """One figure of every point. `lines` are horizontal, by what they say.

    filled: whether the symbol of a point is; open symbols are differences that are not significant.
    """

    title: str
    value: Callable[[GridPoint, DesignResult], Value | None]
    lines: tuple[tuple[str, float], ...] = ()
    marks: tuple[tuple[int | str, float], ...] = ()
    filled: Callable[[GridPoint, Value], bool] = lambda _point, _value: True


def plot(outcome: Outcome) -> Plot | None:
    """The plot of the study's list; None for a search, and where no design is complete."""
    points = listed(outcome)
    if outcome.grid is None or not points:
        return None
    return _cells(outcome) if outcome.grid.kind == CELLS else _curves(outcome, points)


def series_of(outcome: Outcome) -> tuple[str, ...]:
    """The names of the series, in the order of their symbols; none for cells."""
    if outcome.grid is None or outcome.grid.kind == CELLS:
        return ()
    return tuple(dict.fromkeys(point.series for point, _ in listed(outcome)))


def marks_of(
    outcome: Outcome, points: Iterable[tuple[GridPoint, DesignResult]]
) -> dict[int | str, float]:
    """Published accuracies by where they stand on the axis."""
    assert outcome.grid is not None
    if outcome.grid.kind == "ablation-attention":
        return {**ABLATION_PERCENT}
    if outcome.grid.kind == SHARES:
        return {}
    return {p.at: r.published_accuracy for p, r in points if r.published_accuracy is not None}


# -- curves


def _curves(outcome: Outcome, points: Sequence[tuple[GridPoint, DesignResult]]) -> Plot:
    panels = _panels(outcome, points)
    given = dict.fromkeys(point.at for point, _ in points)
    ats = list(given) if any(isinstance(at, str) for at in given) else sorted(given, key=int)
    height = TOP + BOTTOM + len(panels) * PANEL + (len(panels) - 1) * GAP
    figure = go.Figure()
    layout: dict[str, Any] = {}
    for k, panel in enumerate(panels):
        layout[f"yaxis{k + 1 if k else ''}"] = _panel(
            figure, outcome, panel, points, ats, k, height
        )
    figure.update_layout(
        look(),
        margin={"l": LEFT, "r": RIGHT, "t": TOP, "b": BOTTOM},
        xaxis=axis(
            title=AXES[outcome.grid.kind] if outcome.grid else "",
            tickvals=list(range(len(ats))),
            ticktext=[str(at) for at in ats],
            range=[-0.5, len(ats) - 0.5],
            anchor=f"y{len(panels)}" if len(panels) > 1 else "y",
        ),
        **layout,
    )
    shown = ", ".join(panel.title for panel in panels)
    summary = f"{shown} of {len(points)} points. The table has every figure."
    wide = LEFT + RIGHT + 24 * len(ats) * max(1, len(series_of(outcome)))
    return Plot("grid", figure, height, summary, min_width=max(520, min(900, wide)))


def _panels(outcome: Outcome, points: Sequence[tuple[GridPoint, DesignResult]]) -> list[Panel]:
    assert outcome.grid is not None
    found = rows_by_name(outcome.rows)

    def difference(point: GridPoint, row: DesignResult) -> Value | None:
        pair = difference_of(outcome, point)
        if pair is None:
            return None if point.against or outcome.grid.kind == SHARES else Value(0.0)  # type: ignore[union-attr]
        return Value(pair.points, pair.low, pair.high)

    def significant(point: GridPoint, _: Value) -> bool:
        pair = difference_of(outcome, point)
        return pair is not None and pair.significant

    def share(point: GridPoint, row: DesignResult) -> Value | None:
        return extra_ms(row, found.get(point.against))

    if outcome.grid.kind == SHARES:
        return [
            Panel("points a layer brings", difference, (("", 0.0),), filled=significant),
            Panel("ms a layer costs", share, (("", 0.0),), filled=lambda _, ms: _excludes_0(ms)),
        ]
    split = split_of(outcome)
    lines = [
        (row.label, value.value)
        for row in (result_text.majority_row(outcome), *outcome.references)
        if (value := accuracy_of(row, split)) is not None
    ]
    title = "test accuracy, %" if split == "test" else "accuracy, %"
    marks = tuple(marks_of(outcome, points).items())
    panels = [Panel(title, lambda _, row: accuracy_of(row, split), tuple(lines), marks)]
    if outcome.grid.paired:
        panels.append(Panel("difference, points", difference, (("", 0.0),), filled=significant))
    return [*panels, Panel("latency, ms", lambda _, row: row.latency)]


def _excludes_0(value: Value) -> bool:
    return (value.low or 0.0) > 0 or (value.high or 0.0) < 0


def _panel(
    figure: Any,
    outcome: Outcome,
    panel: Panel,
    points: Sequence[tuple[GridPoint, DesignResult]],
    ats: Sequence[int | str],
    number: int,
    height: int,
) -> dict[str, Any]:
    """Draws one panel's traces and returns its axis."""
    inner = height - TOP - BOTTOM
    top = 1 - number * (PANEL + GAP) / inner
    name = f"y{number + 1}" if number else "y"
    values = [v for point, row in points if (v := panel.value(point, row)) is not None]
    ends = [end for v in values for end in (v.value, v.low, v.high) if end is not None]
    y_range = padded([*ends, *(y for _, y in panel.lines), *(y for _, y in panel.marks)], 0.08)
    series = series_of(outcome)
    for k, label in enumerate(series):
        symbol, colour = SERIES[k % len(SERIES)]
        dodge = (k - (len(series) - 1) / 2) * DODGE
        of_series = [(p, r, v) for p, r in points if p.series == label and (v := panel.value(p, r))]
        figure.add_scatter(
            x=[ats.index(p.at) + dodge for p, _, _ in of_series],
            y=[v.value for _, _, v in of_series],
            yaxis=name,
            mode="lines+markers",
            line={"width": 1, "color": f"var(--{colour})"},
            marker={
                "symbol": [
                    symbol if panel.filled(p, v) else f"{symbol}-open" for p, _, v in of_series
                ],
                "size": 9,
                "color": f"var(--{colour})",
                "line": {"width": 1.5, "color": f"var(--{colour})"},
            },
            error_y=_bars([v for _, _, v in of_series], colour),
            hoverinfo="text",
            hovertext=[hover(r, _said(outcome, p)) for p, r, _ in of_series],
        )
    if panel.marks:
        figure.add_scatter(
            x=[ats.index(at) for at, _ in panel.marks if at in ats],
            y=[y for at, y in panel.marks if at in ats],
            yaxis=name,
            mode="markers",
            marker={"symbol": "star", "size": 12, "color": "var(--ink)"},
            hoverinfo="text",
            hovertext=[f"published {y:.2f} %" for at, y in panel.marks if at in ats],
        )
    _lines(figure, panel.lines, name, y_range)
    return axis(title=panel.title, range=y_range, domain=[max(0.0, top - PANEL / inner), top]) | (
        {"nticks": 6}
    )


def _lines(
    figure: Any, lines: Sequence[tuple[str, float]], name: str, y_range: Sequence[float]
) -> None:
    """Horizontal lines, each with its words beside the panel, none upon another."""
    low, high = y_range
    taken: list[float] = []
    for words, y in sorted(lines, key=lambda line: line[1]):
        figure.add_shape(
            type="line", xref="paper", x0=0, x1=1, yref=name, y0=y, y1=y, layer="below",
            line={"color": "var(--line)", "width": 1, "dash": "dot"},
        )  # fmt: skip
        if not words:
            continue
        at = (y - low) / (high - low) * PANEL
        place = max(at, taken[-1] + LABEL) if taken else at
        taken.append(place)
        figure.add_annotation(
            text=escaped(_short(words)), xref="paper", x=1, xanchor="left", xshift=4, yref=name,
            y=y, yshift=place - at, yanchor="middle", showarrow=False,
            font={"size": 11, "color": "var(--muted)"},
        )  # fmt: skip


def _short(words: str, most: int = 19) -> str:
    words = clean(words)
    return words if len(words) <= most else f"{words[: most - 1]}…"


def _bars(values: Sequence[Value], colour: str) -> dict[str, Any]:
    highs = [v.value if v.high is None else v.high for v in values]
    lows = [v.value if v.low is None else v.low for v in values]
    return {
        "array": [high - v.value for high, v in zip(highs, values, strict=True)],
        "arrayminus": [v.value - low for low, v in zip(lows, values, strict=True)],
        "color": f"var(--{colour})",
        "thickness": 1,
        "width": 3,
    }


def _said(outcome: Outcome, point: GridPoint) -> tuple[str, ...]:
    pair = difference_of(outcome, point)
    return () if pair is None else (f"{result_text.difference(pair)} to {point.against}",)


# -- cells


def _cells(outcome: Outcome) -> Plot:
    """Depth downwards, merging to the right; a cell is coloured where it is significant."""
    assert outcome.grid is not None
    found = rows_by_name(outcome.rows)
    columns = list(dict.fromkeys(point.series for point in outcome.grid.points))
    depths = list(dict.fromkeys(str(point.at) for point in outcome.grid.points))
    shades = [[0.0] * len(columns) for _ in depths]
    figure = go.Figure()
    split = split_of(outcome)
    for point in outcome.grid.points:
        x, y = columns.index(point.series), depths.index(str(point.at))
        pair = difference_of(outcome, point)
        if pair is not None and pair.significant:
            shades[y][x] = 1.0 if pair.points > 0 else -1.0
        figure.add_annotation(
            x=x, y=y, showarrow=False, align="center", font={"size": 12.5},
            text="<br>".join(_cell(found.get(point.design), point, pair, split)),
        )  # fmt: skip
    figure.add_heatmap(
        z=shades, x=list(range(len(columns))), y=list(range(len(depths))),
        zmin=-1, zmax=1, opacity=0.28, xgap=6, ygap=6, showscale=False, hoverinfo="skip",
        colorscale=[[0, "var(--infeasible)"], [0.5, "var(--line)"], [1, "var(--reference)"]],
    )  # fmt: skip
    ticks = {"showgrid": False, "fixedrange": True}
    figure.update_layout(
        look(),
        margin={"l": 128, "r": 14, "t": 44, "b": 14},
        xaxis=axis(
            tickvals=list(range(len(columns))), ticktext=[f"{c} merging" for c in columns],
            side="top",
        )
        | ticks,
        yaxis=axis(
            tickvals=list(range(len(depths))), ticktext=[f"{d} depth" for d in depths],
            autorange="reversed",
        )
        | ticks,
    )  # fmt: skip
    summary = (
        f"{len(found)} designs by depth and merging, each with accuracy, its difference to "
        "the late design, and latency. The table has every figure."
    )
    return Plot("grid", figure, 400, summary, min_width=680, still=True)


def _cell(
    row: DesignResult | None, point: GridPoint, pair: Paired | None, split: Split
) -> list[str]:
    if row is None:
        return ["not complete"]
    lines = [f"<b>{result_text.percent(accuracy_of(row, split))} %</b>"]
    if pair is not None:
        lines.append(result_text.difference(pair))
    elif not point.against:
        lines.append("the baseline of the others")
    lines.append(f"{result_text.milliseconds(row.latency)} ms")
    published = result_text.published(row)
    if published:
        lines.append(f"<i>published: {escaped(published)}</i>")
    return lines
