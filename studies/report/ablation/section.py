"""A fixed list's own section of the page: what it compares, its plot and its table."""

from collections.abc import Iterator
from dataclasses import dataclass

from studies.report import tables
from studies.report.ablation import plots
from studies.report.ablation.text import place, readings
from studies.report.plotting import Mark, Plot
from studies.report.tables import Cell, Group, Row, Table
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
from studies.results.outcome import GridPoint, Outcome, Value


@dataclass(frozen=True)
class Section:
    """What is shown of a list; `significant_are`: how significant differences are drawn."""

    readings: tuple[str, ...]
    significant_are: str
    legend: tuple[Mark, ...]
    plot: Plot
    table: Table


def section(outcome: Outcome) -> Section | None:
    """Return what is shown of a list; None for a search, and where no design is complete."""
    plot = plots.plot(outcome)
    if outcome.grid is None or plot is None:
        return None
    cells = outcome.grid.kind == CELLS
    return Section(
        tuple(readings(outcome)),
        "coloured" if cells else "filled; the others are open marks",
        tuple(_legend(outcome)),
        plot,
        _table(outcome),
    )


def _legend(outcome: Outcome) -> Iterator[Mark]:
    assert outcome.grid is not None
    kind = outcome.grid.kind
    for k, name in enumerate(plots.series_of(outcome)):
        words = f"{name} layers, the other trunk in full" if kind == SHARES else name
        yield Mark(*plots.SERIES[k % len(plots.SERIES)], words)
    if kind != CELLS and plots.marks_of(outcome, listed(outcome)):
        source = result_text.SOURCE_OF_PUBLISHED
        said = f"published accuracy on CMU-MOSI, {source}: not a result of this study"
        if kind == "ablation-attention":
            percents = plots.ABLATION_PERCENT.items()
            said += " (" + ", ".join(f"{n} blocks {v} %" for n, v in percents) + ")"
        yield Mark("star", "ink", said)


def _table(outcome: Outcome) -> Table:
    points, found, split = listed(outcome), rows_by_name(outcome.rows), split_of(outcome)
    against = {point.against for point, _ in points} - {""}
    base = f" to {next(iter(against))}" if len(against) == 1 else ""
    columns = [
        ("Design", "words"),
        (f"{split.capitalize()}, %", "number"),
        (f"Difference{base}, points", "number"),
        ("Latency, ms", "number"),
        (f"Slower{base}, ms".replace("Slower to", "Slower than"), "number"),
    ]
    published = any(result_text.published(row) for _, row in points)
    if published:
        columns.append((f"Published, {result_text.SOURCE_OF_PUBLISHED}", "number"))
    rows = []
    for point, row in points:
        extra = extra_ms(row, found.get(point.against))
        cells = [
            Cell(result_text.arrows(row.design)),
            tables.figure(result_text.percent_parts(accuracy_of(row, split))),
            _difference(outcome, point, named=not base),
            tables.figure(result_text.milliseconds_parts(row.latency)),
            Cell() if extra is None else tables.figure(_signed_ms(extra)),
        ]
        cells += [tables.published(row)] * published
        rows.append(Row(place(outcome, point), cells))
    caption = "The list in its order; a design that stands at several places was run once."
    return Table("The list", caption, "Place", columns, [Group("", rows)])


def _difference(outcome: Outcome, point: GridPoint, named: bool) -> Cell:
    assert outcome.grid is not None
    pair = difference_of(outcome, point)
    if pair is None:
        lone = not point.against and outcome.grid.kind != SHARES
        return Cell("baseline" if lone else "")
    return tables.figure(
        (f"{pair.points:+.1f}", f"({pair.low:+.1f} to {pair.high:+.1f})"),
        "" if pair.significant else "not significant",
        f"to {point.against}" if named else "",
    )


def _signed_ms(extra: Value) -> tuple[str, str]:
    def signed(number: float) -> str:
        return f"{'-' if number < 0 else '+'}{result_text.ms(abs(number))}"

    if extra.low is None or extra.high is None:
        return signed(extra.value), ""
    return signed(extra.value), f"({signed(extra.low)} to {signed(extra.high)})"
