"""A comparison of studies on a terminal and as an HTML page."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from evaluators.cached_files import write_whole
from studies.comparison.fronts import Comparison, Side
from studies.results import text as result_text
from studies.results.analysis.boards_in_words import rank_words
from studies.results.outcome import DesignResult
from studies.results.pareto import point
from studies.results.text import clean, counted

ROWS = 14
"""Lines of the plot."""
MOST_LISTED = 10
"""Designs good on all that are printed; JSON holds them all."""


def lines_of(found: Comparison, width: int) -> Iterator[tuple[str, bool]]:
    """Yield (line, whether it must not be wrapped) for a terminal of `width` columns."""
    for side in found.sides:
        conditions = side.conditions
        said = "; ".join(conditions[k] for k in ("device", "runtime") if k in conditions)
        yield f"{side.letter}: study {side.name}, {said}", False
    yield "", False
    if found.accuracy_differs:
        yield (
            f"The accuracies are NOT comparable: {' and '.join(found.accuracy_differs)} differ. "
            "Each front is that of its own study.",
            False,
        )
    if found.latency_differs:
        yield f"The latencies differ by {', '.join(found.latency_differs)}.", False
    else:
        yield "Device, runtime, threads and timing are the same.", False
    yield "", False
    for line in plotted(found.sides, width):
        yield line, True
    for side in found.sides:
        yield "", False
        yield f"Front of {side.letter}, fastest first", False
        for row in side.front:
            yield from _row(row, side, found)
    yield "", False
    for ranks in found.ranks:
        yield rank_words(ranks), False
    yield "", False
    yield from ((line, False) for line in _good(found))


def _row(row: DesignResult, side: Side, found: Comparison) -> Iterator[tuple[str, bool]]:
    key = next((k for k, each in side.designs.items() if each.number == row.number), None)
    others = [(o.letter, o.designs.get(key or "")) for o in found.sides if o is not side]
    elsewhere = [
        f"{letter} {result_text.ms(same.latency.value)} ms"
        for letter, same in others
        if same and same.latency
    ]
    also = f" ({', '.join(elsewhere)})" if elsewhere else ""
    yield (
        f"  {clean(row.label)}: {result_text.percent(row.accuracy, '-')} %, "
        f"{result_text.milliseconds(row.latency, '-')} ms{also}",
        False,
    )


def _good(found: Comparison) -> Iterator[str]:
    if not found.shared:
        yield "No design is complete in all studies: run --from times a front on another device."
        return
    of = f"of {counted(found.shared, 'design')} that all studies completed"
    if not found.good:
        yield f"Good on all: none {of}."
        return
    yield f"Good on all ({of}): on the front, or not decidedly worse than a design of it"
    for each in found.good[:MOST_LISTED]:
        places = []
        for side, row, on_front in zip(found.sides, each.rows, each.on_front, strict=True):
            at = f"{side.letter} trial {row.number}, {result_text.ms(point(row)[1])} ms"
            places.append(f"{at}{', front' if on_front else ''}")
        yield f"  {clean(each.design)}: {'; '.join(places)}"
    if len(found.good) > MOST_LISTED:
        yield f"  and {len(found.good) - MOST_LISTED} more (--json)"


def plotted(sides: Sequence[Side], width: int) -> list[str]:
    """The fronts as letters over accuracy (up) and latency (right, logarithmic).

    `*` stands where fronts meet. Every line fits into `width` columns.
    """
    width = min(width, 100)
    marks = [(side.letter, *point(row)) for side in sides for row in side.front]
    logs = [math.log(ms) for _, _, ms in marks]
    accuracies = [accuracy for _, accuracy, _ in marks]
    left, right, low, high = min(logs), max(logs), min(accuracies), max(accuracies)
    margin = max(len(f"{each:.1f}") for each in (low, high)) + 2
    columns = max(8, width - margin - 2)
    grid = [[" "] * columns for _ in range(ROWS)]
    for (letter, accuracy, _), x in zip(marks, logs, strict=True):
        k = round((columns - 1) * (x - left) / (right - left)) if right > left else 0
        up = (accuracy - low) / (high - low) if high > low else 0.5
        line = grid[ROWS - 1 - round((ROWS - 1) * up)]
        line[k] = letter if line[k] in (" ", letter) else "*"
    ends = {0: f"{high:.1f}", ROWS - 1: f"{low:.1f}"}
    lines = [
        (ends.get(k, "").rjust(margin - 1) + " |" + "".join(row)).rstrip()
        for k, row in enumerate(grid)
    ]
    lines.append(" " * margin + "+" + "-" * columns)
    first, last = f"{result_text.ms(math.exp(left))} ms", f"{result_text.ms(math.exp(right))} ms"
    room = columns - len(first) - len(last)
    lines.append(" " * (margin + 1) + first + (" " * room + last if room > 0 else ""))
    return lines


def write_page(found: Comparison, page: Path) -> None:
    """Write the fronts as an HTML page that needs no network. Raises OSError."""
    import plotly.graph_objects as go

    from studies.report.plotting import escaped

    figure = go.Figure()
    for side in found.sides:
        values = [point(row) for row in side.front]
        bounds = [
            (row.accuracy.low, row.accuracy.high)
            if row.accuracy and row.accuracy.low is not None and row.accuracy.high is not None
            else at
            for row, at in zip(side.front, ((a, a) for a, _ in values), strict=True)
        ]
        figure.add_trace(
            go.Scatter(
                x=[latency for _, latency in values],
                y=[accuracy for accuracy, _ in values],
                error_y={
                    "type": "data",
                    "array": [
                        high - accuracy
                        for (accuracy, _), (_, high) in zip(values, bounds, strict=True)
                    ],
                    "arrayminus": [
                        accuracy - low
                        for (accuracy, _), (low, _) in zip(values, bounds, strict=True)
                    ],
                },
                text=[f"{escaped(row.label)}<br>{escaped(row.design)}" for row in side.front],
                hovertemplate="%{text}<br>%{y:.1f} %, %{x:.3g} ms<extra></extra>",
                mode="lines+markers",
                line={"shape": "hv"},
                name=escaped(f"{side.letter}: {side.name}"),
            )
        )
    said = [] if found.accuracies_comparable else ["accuracies are not comparable"]
    figure.update_layout(
        title="; ".join(["Fronts with 95 % intervals", *said]),
        xaxis={"title": "latency, ms", "type": "log"},
        yaxis={"title": "accuracy on validation, %"},
        legend={"orientation": "h", "y": -0.2},
        template="plotly_white",
    )
    page.parent.mkdir(parents=True, exist_ok=True)
    write_whole(page, figure.to_html(include_plotlyjs=True, full_html=True).encode())
