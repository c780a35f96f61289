"""The page of the study `superfuse`: one file that needs nothing but itself."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from evaluators.superfuse.names import FACTORS, NOISED, Fusion
from studies.report import document, tables
from studies.report.plotting import Mark
from studies.report.tables import Group, Row, Table
from studies.superfuse import plots, text
from studies.superfuse.outcome import Cell, Seeds, Superfused, TaskFacts, mean


def write(outcome: Superfused, path: Path) -> None:
    """Write the page whole or not at all; folders on the way are made."""
    document.write_whole(render(outcome), path)


def render(outcome: Superfused) -> str:
    """Return the page as HTML."""
    over_sizes = plots.over_sizes(outcome)
    under_noise, noise_tables = [], []
    for task in outcome.tasks:
        for size in outcome.shown_sizes(task.name):
            held, title = outcome.at(task.name, size), text.title_of(task, size)
            plot = plots.under_noise(f"noise-{task.name}-{size}", task, held)
            under_noise.append((title, plot))
            noise_tables.append(_noise_table(title, held))
    curves = [plots.roc_curves(outcome, task) for task in outcome.tasks]
    return document.render(
        "superfuse.html.j2",
        [over_sizes, *curves, *(plot for _, plot in under_noise)],
        outcome=outcome,
        findings=text.findings(outcome),
        marks=list(_legend(outcome)),
        over_sizes=over_sizes,
        curves=list(zip(outcome.tasks, curves, strict=True)),
        under_noise=under_noise,
        size_tables=[_size_table(outcome, task) for task in outcome.tasks],
        noise_tables=noise_tables,
        source=text.SOURCE,
        as_published=text.as_published(outcome),
        not_as_published=text.not_as_published(outcome),
        conditions=text.conditions(outcome),
    )


def _legend(outcome: Superfused) -> Iterator[Mark]:
    there = {cell.fusion for cell in outcome.cells}
    for fusion, (shape, colour) in plots.MARKS.items():
        if fusion in there:
            yield Mark(shape, colour, fusion)
    yield Mark("line", "ink", "always predicting the most frequent class")


def _size_table(outcome: Superfused, task: TaskFacts) -> Table:
    caption = (
        f"{task.name.capitalize()} task: test accuracy in percent, its 95 % interval, the "
        "validation accuracy of the same epochs, which the source shows, and the area under the "
        "ROC curve on test."
    )
    rows = [
        Row(f"{size:,}", [_clean(cell) for cell in outcome.at(task.name, size).values()])
        for size in outcome.sizes(task.name)
    ]
    columns = _columns(outcome.fusions(task.name))
    return Table(f"{task.name} task", caption, "Training pairs", columns, [Group("", rows)])


def _noise_table(title: str, held: Mapping[Fusion, Cell]) -> Table:
    caption = (
        f"{title}: test accuracy in percent and its 95 % interval, by what is noised and factor."
    )
    rows = [
        Row(
            f"{noised}, {factor:g}",
            [_figure(cell.under(noised, factor)) for cell in held.values()],
        )
        for noised in NOISED
        for factor in FACTORS
    ]
    columns = _columns(held)
    return Table(f"Noise, {title}", caption, "Noise on, factor", columns, [Group("", rows)])


def _columns(fusions: Iterable[Fusion]) -> list[tuple[str, str]]:
    return [(f"{fusion.capitalize()}, %", "number") for fusion in fusions]


def _clean(cell: Cell) -> tables.Cell:
    notes = [f"validation {float(cell.valid.mean()):.1f}"]
    if cell.roc:
        notes.append(f"AUC {float(cell.auc.mean()):.3f}")
    return _figure(cell.test, *notes)


def _figure(seeds: Seeds, *notes: str) -> tables.Cell:
    value = mean(seeds)
    return tables.Cell(f"{value.value:.1f}", (f"{value.low:.1f}–{value.high:.1f}", *notes))
