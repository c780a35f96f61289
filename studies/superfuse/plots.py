"""The plots of the study `superfuse`: the source's figures 1 to 3."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from evaluators.superfuse.model import FALSE_POSITIVES
from evaluators.superfuse.names import FACTORS, FUSIONS, NOISED, Fusion
from studies.report.ablation.plots import SERIES
from studies.report.front_plot import padded
from studies.report.plotting import Plot, axis, escaped, look
from studies.results.outcome import Value
from studies.superfuse.outcome import Cell, Superfused, TaskFacts, mean
from studies.superfuse.text import area, percent

MARKS: dict[Fusion, tuple[str, str]] = dict(zip(FUSIONS, SERIES, strict=False))
"""Symbol and colour of each fusion."""
HEIGHT, TOP, BOTTOM, LEFT, RIGHT = 400, 50, 52, 58, 12
GAP = 0.035
"""Between two panels, as a share of the width."""
TICKS = 7
LIGHTEST = 0.25
"""Opacity of the line of the smallest training set."""
RATES: dict[str, Any] = {"range": [-0.02, 1.02], "dtick": 0.25, "tick0": 0}


@dataclass(frozen=True)
class Point:
    """One mark: its place, its figure, and what it says when pointed at."""

    at: float
    value: Value
    said: str


@dataclass(frozen=True)
class Panel:
    """One figure of all fusions; `level` is a dotted line across it."""

    title: str
    at: str
    series: Mapping[Fusion, Sequence[Point]]
    level: float
    ticks: Sequence[int] = ()
    """Where the axis is marked, which makes it logarithmic."""


def over_sizes(outcome: Superfused) -> Plot:
    """Test accuracy over training pairs, a panel for each task."""
    panels = []
    for task in outcome.tasks:
        sizes = outcome.sizes(task.name)
        series = {
            fusion: [
                _point(outcome.cell(task.name, fusion, size), size, f"{size:,} training pairs")
                for size in sizes
            ]
            for fusion in outcome.fusions(task.name)
        }
        title = f"{task.name} task"
        panels.append(Panel(title, "training pairs", series, task.majority_percent, sizes))
    said = "Test accuracy of each fusion over training pairs. The tables have every figure."
    return _drawn("sizes", panels, said)


def under_noise(key: str, task: TaskFacts, held: Mapping[Fusion, Cell]) -> Plot:
    """Test accuracy over the noise factor: on text, on the image, on both."""
    panels = []
    for noised in NOISED:
        series = {
            fusion: [
                Point(factor, value, f"{fusion}, {noised} at {factor:g}: {percent(value)}")
                for factor in FACTORS
                for value in (mean(cell.under(noised, factor)),)
            ]
            for fusion, cell in held.items()
        }
        where = "text and image" if noised == "both" else noised
        panels.append(Panel(f"noise on {where}", "noise factor", series, task.majority_percent))
    said = (
        f"Test accuracy of each fusion on the {task.name} task over the noise factor. The tables "
        "have every figure."
    )
    return _drawn(key, panels, said)


def roc_curves(outcome: Superfused, task: TaskFacts) -> Plot:
    """ROC curves of a task, a panel for each fusion and a line for each training size."""
    fusions, sizes = outcome.fusions(task.name), outcome.sizes(task.name)
    figure = go.Figure()
    layout: dict[str, Any] = {}
    wide = (1 - GAP * (len(fusions) - 1)) / len(fusions)
    for k, fusion in enumerate(fusions):
        number = str(k + 1) if k else ""
        left = k * (wide + GAP)
        x, y = f"x{number}", f"y{number}"
        figure.add_shape(
            type="line", xref=x, x0=0, x1=1, yref=y, y0=0, y1=1, layer="below",
            line={"color": "var(--ink)", "width": 1, "dash": "dot"},
        )  # fmt: skip
        cells = [outcome.cell(task.name, fusion, size) for size in sizes]
        for rank, cell in enumerate(cells):
            share = rank / (len(cells) - 1) if len(cells) > 1 else 1.0
            said = f"{fusion}, {cell.size:,} training pairs: AUC {area(mean(cell.auc))}"
            figure.add_scatter(
                x=FALSE_POSITIVES if cell.roc else (),
                y=cell.roc,
                xaxis=x,
                yaxis=y,
                mode="lines",
                opacity=LIGHTEST + (1 - LIGHTEST) * share,
                line={"width": 1.5, "color": f"var(--{MARKS[fusion][1]})"},
                hoverinfo="text",
                hovertext=[escaped(said)] * len(cell.roc),
            )
        ends = " to ".join(
            dict.fromkeys(f"{each.auc.mean():.2f}" for each in (cells[0], cells[-1]))
        )
        layout[f"xaxis{number}"] = axis(
            title="false positives", domain=[left, left + wide], anchor=y, **RATES
        )
        layout[f"yaxis{number}"] = axis(
            title="" if k else "true positives", anchor=x, showticklabels=not k, **RATES
        )
        figure.add_annotation(
            text=f"<b>{escaped(fusion)}</b>, AUC {escaped(ends)}", xref="paper", yref="paper",
            x=left, y=1, xanchor="left", yanchor="bottom", yshift=6, showarrow=False,
            font={"size": 12.5},
        )  # fmt: skip
    figure.update_layout(look(), margin={"l": LEFT, "r": RIGHT, "t": TOP, "b": BOTTOM}, **layout)
    summary = (
        f"ROC curves of each fusion on the {task.name} task, darker with more training pairs. The "
        "areas under them are in the tables."
    )
    return Plot(f"roc-{task.name}", figure, HEIGHT, summary, min_width=330 * len(fusions))


def _point(cell: Cell, at: float, where: str) -> Point:
    value = mean(cell.test)
    return Point(at, value, f"{cell.fusion}, {where}: {percent(value)}")


def _drawn(key: str, panels: Sequence[Panel], summary: str) -> Plot:
    """The panels side by side, over one range of accuracies."""
    ends = [
        end
        for panel in panels
        for points in panel.series.values()
        for point in points
        for end in (point.value.low, point.value.high)
        if end is not None
    ]
    y_range = padded([*ends, *(panel.level for panel in panels)], 0.05)
    figure = go.Figure()
    layout: dict[str, Any] = {}
    wide = (1 - GAP * (len(panels) - 1)) / len(panels)
    for k, panel in enumerate(panels):
        number = str(k + 1) if k else ""
        left = k * (wide + GAP)
        _marks(figure, panel, f"x{number}", f"y{number}")
        layout[f"xaxis{number}"] = axis(
            title=panel.at, domain=[left, left + wide], anchor=f"y{number}", **_scale(panel)
        )
        layout[f"yaxis{number}"] = axis(
            title="" if k else "test accuracy, %", range=y_range, anchor=f"x{number}", nticks=8,
            showticklabels=not k,
        )  # fmt: skip
        figure.add_annotation(
            text=f"<b>{escaped(panel.title)}</b>", xref="paper", yref="paper", x=left, y=1,
            xanchor="left", yanchor="bottom", yshift=6, showarrow=False, font={"size": 12.5},
        )  # fmt: skip
    figure.update_layout(
        look(), margin={"l": LEFT, "r": RIGHT, "t": TOP, "b": BOTTOM}, **layout
    )  # fmt: skip
    return Plot(
        key, figure, HEIGHT, summary, min_width=360 if len(panels) == 1 else 330 * len(panels)
    )


def _scale(panel: Panel) -> dict[str, Any]:
    if not panel.ticks:
        return {"range": [-0.03, 0.98], "dtick": 0.2, "tick0": 0}
    shown = panel.ticks[:: -(-len(panel.ticks) // TICKS)]
    return {"type": "log", "tickvals": list(shown), "ticktext": [f"{size:,}" for size in shown]}


def _marks(figure: Any, panel: Panel, x: str, y: str) -> None:
    figure.add_shape(
        type="line", xref=f"{x} domain", x0=0, x1=1, yref=y, y0=panel.level, y1=panel.level,
        layer="below", line={"color": "var(--ink)", "width": 1, "dash": "dot"},
    )  # fmt: skip
    for fusion, points in panel.series.items():
        symbol, name = MARKS[fusion]
        colour = f"var(--{name})"
        figure.add_scatter(
            x=[point.at for point in points],
            y=[point.value.value for point in points],
            xaxis=x,
            yaxis=y,
            mode="lines+markers",
            line={"width": 1.5, "color": colour},
            marker={"symbol": symbol, "size": 7, "color": colour},
            error_y={
                "array": _half(points, lambda value: value.high),
                "arrayminus": _half(points, lambda value: value.low),
                "color": colour,
                "thickness": 1,
                "width": 2,
            },
            hoverinfo="text",
            hovertext=[escaped(point.said) for point in points],
        )


def _half(points: Sequence[Point], end: Callable[[Value], float | None]) -> list[float]:
    """How far one end of each interval is from its mean."""
    ends = [(point.value.value, end(point.value)) for point in points]
    return [0.0 if found is None else abs(found - value) for value, found in ends]
