"""Plots of how a search went: its course, and what its decisions mattered."""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from studies.report.designs.payload import key_of
from studies.report.front_plot import hover
from studies.report.plotting import Plot, axis, both, escaped, look, ms
from studies.results.analysis.budget import over_time
from studies.results.analysis.effects import active
from studies.results.outcome import Outcome
from studies.results.pareto import value_of
from studies.results.text import clean, volume_unit
from studies.results.text import further as further_words

MAX_DIMENSIONS = 12
MAX_BARS = 12
MOST_MARKS = 500
_DIGITS = {"tickformat": ".3~g"}


def hypervolume(outcome: Outcome) -> Plot | None:
    """Hypervolume over trials, seeded trials marked; None where it is not known."""
    if not outcome.hypervolume:
        return None
    numbers = [number for number, _ in outcome.hypervolume]
    values = [value for _, value in outcome.hypervolume]
    after = dict(outcome.hypervolume)
    seeded = [row for row in outcome.rows if row.name and row.number in after]
    figure = go.Figure()
    figure.add_scatter(
        x=numbers, y=values, mode=_mode(len(outcome.hypervolume)), hoverinfo="text",
        hovertext=[f"trial {n}: {v:.1f}" for n, v in outcome.hypervolume],
        meta=[str(n) for n in numbers],
        line={"shape": "hv", "color": "var(--front)", "width": 2},
        marker={"size": 4, "color": "var(--front)"},
    )  # fmt: skip
    figure.add_scatter(
        x=[row.number for row in seeded],
        y=[after[row.number] for row in seeded if row.number is not None],
        mode="markers", hoverinfo="text", hovertext=[escaped(row.label) for row in seeded],
        meta=[key_of(row) for row in seeded],
        marker={"symbol": "diamond", "size": 11, "color": "var(--seeded)"}
        | {"line": {"color": "var(--surface)", "width": 1}},
    )  # fmt: skip
    figure.update_layout(
        look(),
        margin={"l": 64, "r": 14, "t": 12, "b": 48},
        xaxis=axis(title="trial", dtick=1 if numbers[-1] <= 12 else None),
        yaxis=axis(title=volume_unit(outcome).replace(" x ", " × ")),
    )
    summary = f"The hypervolume is {values[-1]:.1f} after trial {numbers[-1]}."
    return Plot("hypervolume", figure, 320, summary)


def _mode(points: int) -> str:
    """Marks that touch each other say nothing and take long to draw."""
    return "lines+markers" if points <= MOST_MARKS else "lines"


def hypervolume_over_time(outcome: Outcome) -> Plot | None:
    """Hypervolume over the time that trials ran; None where ends of trials are not recorded."""
    course = over_time(outcome)
    if not course:
        return None
    unit, seconds = next(
        (pair for pair in (("hours", 3600), ("minutes", 60)) if course[-1][0] >= 2 * pair[1]),
        ("seconds", 1),
    )
    figure = go.Figure()
    figure.add_scatter(
        x=[at / seconds for at, _, _ in course], y=[value for _, value, _ in course],
        mode=_mode(len(outcome.hypervolume)), hoverinfo="text",
        hovertext=[f"trial {n}, {at / seconds:.3g} {unit}: {v:.1f}" for at, v, n in course],
        meta=[str(n) for _, _, n in course],
        line={"shape": "hv", "color": "var(--front)", "width": 2},
        marker={"size": 4, "color": "var(--front)"},
    )  # fmt: skip
    figure.update_layout(
        look(),
        margin={"l": 64, "r": 14, "t": 12, "b": 48},
        xaxis=axis(title=f"{unit} of running trials"),
        yaxis=axis(title=volume_unit(outcome).replace(" x ", " × ")),
    )
    summary = f"The hypervolume is {course[-1][1]:.1f} after {course[-1][0] / seconds:.3g} {unit}."
    return Plot("hypervolume-time", figure, 320, summary)


def further(outcome: Outcome) -> list[tuple[str, Plot]]:
    """For each objective beside accuracy and latency, its values over latency."""
    found = []
    for objective in outcome.goals.more:
        rows = [row for row in outcome.rows if row.state == "complete" and row.figure(objective)]
        if not rows:
            continue
        on_front = [row for row in rows if row in outcome.front]
        others = [row for row in rows if row not in on_front]
        figure = go.Figure()
        for group, colour, size in ((others, "var(--faint)", 8), (on_front, "var(--front)", 9)):
            figure.add_scatter(
                x=[ms(row) for row in group],
                y=[value_of(row, objective) for row in group],
                mode="markers", hoverinfo="text",
                hovertext=[hover(row, (further_words(row, outcome),)) for row in group],
                customdata=[key_of(row) for row in group],
                marker={"size": size, "color": colour}
                | {"line": {"color": "var(--surface)", "width": 1}},
            )  # fmt: skip
        figure.update_layout(
            look(),
            margin={"l": 64, "r": 14, "t": 12, "b": 48},
            xaxis=axis(title=f"{outcome.latency_is}, ms"),
            yaxis=axis(title=escaped(objective.words)),
        )
        summary = f"{len(rows)} designs, {len(on_front)} of them on the front."
        found.append(
            (
                f"{objective.words}, over latency",
                Plot(f"over-{objective.name}", figure, 360, summary),
            )
        )
    return found


def importances(outcome: Outcome) -> list[tuple[str, Plot]]:
    """One bar chart for each objective that importances are known for."""
    found = []
    for k, (objective, shares) in enumerate(outcome.importances.items()):
        top = sorted(shares.items(), key=lambda item: -item[1])[:MAX_BARS]
        if not top:
            continue
        names = [escaped(name.replace("_", " ")) for name, _ in top]
        figure = go.Figure()
        figure.add_bar(
            x=[share for _, share in top],
            y=list(range(len(top))),
            orientation="h",
            text=[f"{share:.2f}" for _, share in top],
            textposition="outside",
            cliponaxis=False,
            hoverinfo="skip",
            marker={"color": "var(--front)"},
        )
        figure.update_layout(
            look(),
            margin={"l": 20, "r": 40, "t": 8, "b": 36},
            xaxis=axis(rangemode="tozero", fixedrange=True),
            yaxis=axis(
                tickvals=list(range(len(top))), ticktext=names, autorange="reversed",
                automargin=True, fixedrange=True,
            )
            | {"showgrid": False},
        )  # fmt: skip
        summary = "Importance: " + ", ".join(f"{name} {share:.2f}" for name, share in top)
        found.append(
            (objective, Plot(f"importance-{k}", figure, 70 + 26 * len(top), summary, still=True))
        )
    return found


def parallel(outcome: Outcome) -> Plot | None:
    """Decisions and both objectives side by side; None below two complete trials."""
    rows = [row for row in outcome.rows if row.state == "complete" and both(row)]
    if len(rows) < 2:
        return None
    designs = [active(row.params) for row in rows]
    decisions = _telling(designs, outcome)[: MAX_DIMENSIONS - 2]
    accuracies = [row.accuracy.value for row in rows if row.accuracy]
    dimensions = [_dimension(name, designs) for name in decisions]
    dimensions.append(
        {"label": f"{outcome.latency_is}, ms", "values": [ms(row) for row in rows]} | _DIGITS
    )
    dimensions.append({"label": "accuracy, %", "values": accuracies} | _DIGITS)
    for objective in outcome.goals.more:
        values = [value_of(row, objective) for row in rows]
        dimensions.append({"label": objective.words, "values": values} | _DIGITS)
    figure = go.Figure()
    figure.add_parcoords(
        dimensions=dimensions,
        line={
            "color": accuracies,
            "colorscale": [[0, "var(--low)"], [0.5, "var(--middle)"], [1, "var(--high)"]],
        },
        labelfont={"size": 12},
        tickfont={"size": 11},
        rangefont={"size": 11},
        labelangle=-18,
    )
    figure.update_layout(look(), margin={"l": 112, "r": 40, "t": 84, "b": 28})
    summary = f"{len(rows)} complete trials over {len(decisions)} decisions and both objectives."
    return Plot("parallel", figure, 440, summary, webgl=True, min_width=92 * len(dimensions) + 152)


def _telling(designs: Sequence[Mapping[str, str | int]], outcome: Outcome) -> list[str]:
    """Decisions that vary, the most important first, then those that most designs make."""
    made = Counter(name for design in designs for name in design)
    weight: dict[str, float] = defaultdict(float)
    for shares in outcome.importances.values():
        for name, share in shares.items():
            weight[name] += share
    varying = [name for name in made if len({design.get(name) for design in designs}) > 1]
    return sorted(varying, key=lambda name: (-weight[name], -made[name]))


def _dimension(name: str, designs: Sequence[Mapping[str, str | int]]) -> dict[str, Any]:
    """One axis: numbers where there are many, else one tick for each choice."""
    label = escaped(name.replace("_", " "))
    made = [design.get(name) for design in designs]
    numbers = [choice for choice in made if isinstance(choice, int)]
    if len(numbers) == len(made) and len(set(numbers)) > 6:
        return {"label": label, "values": numbers}
    choices = sorted(set(made), key=lambda c: (c is not None, isinstance(c, str), c))
    every = math.ceil(len(choices) / 16)
    words = ["not used" if c is None else _short(str(c)) for c in choices]
    return {
        "label": label,
        "values": [choices.index(choice) for choice in made],
        "range": [-0.1, len(choices) - 0.9],
        "tickvals": list(range(0, len(choices), every)),
        "ticktext": words[::every],
    }


def _short(text: str, width: int = 15) -> str:
    """The text's beginning and end, where it is too long for an axis."""
    text = clean(text)
    if len(text) > width:
        text = f"{text[: width - 6]}…{text[-5:]}"
    return escaped(text)
