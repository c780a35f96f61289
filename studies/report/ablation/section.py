"""A fixed list's own section of the page: what it compares, its plot and its table."""

from collections.abc import Callable
from html import escape

from studies.report import tables
from studies.report.ablation.plots import ABLATION_PERCENT, SERIES, marks_of, series_of
from studies.report.ablation.text import place, readings
from studies.report.plotting import Plot
from studies.results import text as result_text
from studies.results.ablation import (
    CELLS,
    SHARES,
    accuracy_of,
    difference_of,
    extra_ms,
    listed,
    rows_by_name,
    split_of,
)
from studies.results.outcome import DesignResult, GridPoint, Outcome, Value
from studies.results.text import clean

Cell = Callable[[GridPoint, DesignResult], str]

SHAPES = {
    "circle": '<circle cx="11" cy="7" r="4.5"/>',
    "diamond": '<path d="M11 1l6 6-6 6-6-6z"/>',
    "square": '<path d="M6.5 2.5h9v9h-9z"/>',
    "triangle-up": '<path d="M11 2l6 10h-12z"/>',
    "x": '<path d="M7 3l8 8M15 3l-8 8"/>',
}
STAR = (
    '<path d="M11 0l1.6 5.2h5.4l-4.4 3.2 1.7 5.2-4.3-3.2-4.3 3.2 1.7-5.2-4.4-3.2h5.4z" '
    'fill="var(--ink)" stroke="none"/>'
)


def section(outcome: Outcome, plot: Plot | None, drawn: Callable[[Plot], str]) -> str:
    """The section's HTML; `drawn` gives that of a plot."""
    assert outcome.grid is not None
    notes = "".join(f"<li>{escape(clean(note))}</li>" for note in outcome.grid.notes)
    said = f"<p>{escape(clean(outcome.grid.about))}</p>"
    said += f'<ul class="plain hint">{notes}</ul>' if notes else ""
    if plot is None:
        return said + "<p>No design of the list is complete yet.</p>"
    said += "".join(f"<p>{escape(line)}</p>" for line in readings(outcome))
    if outcome.grid.paired:
        how = "coloured" if outcome.grid.kind == CELLS else "filled; the others are open marks"
        said += f"<p>In the plot only decided differences are {how}.</p>"
    return said + _legend(outcome) + drawn(plot) + _table(outcome)


def _legend(outcome: Outcome) -> str:
    assert outcome.grid is not None
    items = []
    for k, name in enumerate(series_of(outcome)):
        symbol, colour = SERIES[k % len(SERIES)]
        items.append(mark(SHAPES[symbol], f"var(--{colour})", _series(outcome, name)))
    if outcome.grid.kind != CELLS and marks_of(outcome, listed(outcome)):
        source = result_text.SOURCE_OF_PUBLISHED
        said = f"published accuracy on CMU-MOSI, {source}: not a result of this study"
        if outcome.grid.kind == "ablation-attention":
            said += " (" + ", ".join(f"{n} blocks {v} %" for n, v in ABLATION_PERCENT.items()) + ")"
        items.append(mark(STAR, "var(--ink)", said))
    return f'<ul class="legend">{"".join(items)}</ul>' if items else ""


def _series(outcome: Outcome, name: str) -> str:
    assert outcome.grid is not None
    return f"{name} layers, the other trunk in full" if outcome.grid.kind == SHARES else name


def mark(shape: str, colour: str, words: str) -> str:
    """A line of a legend."""
    return (
        f'<li><svg viewBox="0 0 22 14" aria-hidden="true" fill="{colour}" stroke="{colour}" '
        f'stroke-width="1.5">{shape}</svg>{escape(clean(words))}</li>'
    )


def _table(outcome: Outcome) -> str:
    points, found, split = listed(outcome), rows_by_name(outcome.rows), split_of(outcome)
    against = {point.against for point, _ in points} - {""}
    base = f" to {next(iter(against))}" if len(against) == 1 else ""

    def slower(point: GridPoint, row: DesignResult) -> str:
        extra = extra_ms(row, found.get(point.against))
        return "" if extra is None else tables.figure(_signed_ms(extra))

    columns: list[tuple[str, str, Cell]] = [
        ("Design", "words", lambda _, row: tables.words(result_text.arrows(row.design))),
        (
            f"{split.capitalize()}, %",
            "number",
            lambda _, row: tables.figure(result_text.percent(accuracy_of(row, split))),
        ),
        (
            f"Difference{base}, points",
            "number",
            lambda point, _: _difference(outcome, point, named=not base),
        ),
        (
            "Latency, ms",
            "number",
            lambda _, row: tables.figure(result_text.milliseconds(row.latency)),
        ),
        (f"Slower{base}, ms".replace("Slower to", "Slower than"), "number", slower),
    ]
    if any(result_text.published(row) for _, row in points):
        columns.append((f"Published, {result_text.SOURCE_OF_PUBLISHED}", "number", _published))
    body = "".join(
        f'<tr><th scope="row">{tables.words(place(outcome, point))}</th>'
        + "".join(f'<td class="{style}">{cell(point, row)}</td>' for _, style, cell in columns)
        + "</tr>"
        for point, row in points
    )
    caption = "The list in its order; a design that stands at several places was run once."
    heads = [(title, style) for title, style, _ in columns]
    return tables.framed("The list", caption, "Place", heads, f"<tbody>{body}</tbody>")


def _published(_: GridPoint, row: DesignResult) -> str:
    return escape(result_text.published(row)).replace(" ms", "&nbsp;ms")


def _difference(outcome: Outcome, point: GridPoint, named: bool) -> str:
    assert outcome.grid is not None
    pair = difference_of(outcome, point)
    if pair is None:
        return "" if point.against or outcome.grid.kind == SHARES else "held against"
    said = tables.figure(f"{pair.points:+.1f} ({pair.low:+.1f} to {pair.high:+.1f})")
    said += "" if pair.decided else "<small>not decided</small>"
    return f"{said}<small>to {tables.words(point.against)}</small>" if named else said


def _signed_ms(extra: Value) -> str:
    def signed(number: float) -> str:
        return f"{'-' if number < 0 else '+'}{result_text.ms(abs(number))}"

    if extra.low is None or extra.high is None:
        return signed(extra.value)
    return f"{signed(extra.value)} ({signed(extra.low)} to {signed(extra.high)})"
