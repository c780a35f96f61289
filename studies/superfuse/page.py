"""The page of the study `superfuse`: one file that needs nothing but itself."""

from collections.abc import Mapping
from html import escape
from pathlib import Path

from evaluators.superfuse.names import FACTORS, NOISED, Fusion
from studies.report import tables
from studies.report.ablation.section import SHAPES, mark
from studies.report.page import document, figure, plain_list, write_whole
from studies.report.plotting import Plot
from studies.superfuse.outcome import Cell, Seeds, Superfused, TaskFacts, mean
from studies.superfuse.plots import MARKS, over_sizes, under_noise
from studies.superfuse.text import (
    SOURCE,
    Finding,
    as_published,
    conditions,
    findings,
    not_as_published,
    title_of,
)

LEVEL = '<path d="M0 7h22" stroke-dasharray="2 2.5"/>'


def write(outcome: Superfused, path: Path) -> None:
    """Write the page whole or not at all; folders on the way are made."""
    write_whole(render(outcome), path)


def render(outcome: Superfused) -> str:
    """The page as HTML."""
    sizes = over_sizes(outcome)
    drawn: list[Plot] = [sizes]
    noise, noise_tables = [], []
    for task in outcome.tasks:
        for size in outcome.shown_sizes(task.name):
            held, title = outcome.at(task.name, size), title_of(task, size)
            plot = under_noise(f"noise-{task.name}-{size}", task, held)
            drawn.append(plot)
            noise.append(f"<h3>{escape(title)}</h3>{figure(plot)}")
            noise_tables.append(_noise_table(title, held))
    legend = _legend(outcome)
    sections = {
        "found": ("What was found", "".join(map(_finding, findings(outcome)))),
        "sizes": (
            "Accuracy over training pairs",
            f"<p>{escape(_BARS)}</p>{legend}{figure(sizes)}",
        ),
        "noise": (
            "Accuracy under noise",
            f"<p>{escape(_NOISE)}</p>{legend}{''.join(noise)}",
        ),
        "figures": (
            "In figures",
            "".join(_size_table(outcome, task) for task in outcome.tasks)
            + "<details><summary>Under noise, every factor</summary>"
            + "".join(noise_tables)
            + "</details>",
        ),
        "published": ("As published, and not", _published(outcome)),
        "conditions": ("Conditions", _conditions(outcome)),
    }
    header = (
        f'<p class="study">Study {tables.words(outcome.study)}</p>'
        f"<h1>{tables.words(outcome.title)}</h1><p>{tables.words(outcome.about)}</p>"
        f"<p>Embeddings: {tables.words(outcome.data_name)}</p>"
        + (
            f'<p class="note" role="note">{tables.words(outcome.data_note)}</p>'
            * bool(outcome.data_note)
        )
        + plain_list(f"<strong>Caution:</strong> {tables.words(note)}" for note in outcome.notes)
    )
    return document(outcome.title, header, sections, drawn)


def _finding(finding: Finding) -> str:
    return f"<h3>{escape(finding.title)}</h3>{plain_list(map(tables.words, finding.lines))}"


_BARS = (
    "Mean test accuracy over seeds, at each seed's best epoch on validation. Bars are 95 % "
    "intervals of the mean over seeds; many are smaller than their marks."
)
_NOISE = (
    "Test accuracy of the same networks with noise added to one modality or both, scaled by the "
    "factor; at 0 it is the clean accuracy."
)


def _legend(outcome: Superfused) -> str:
    there = {cell.fusion for cell in outcome.cells}
    items = [
        mark(SHAPES[symbol], f"var(--{colour})", fusion)
        for fusion, (symbol, colour) in MARKS.items()
        if fusion in there
    ]
    items.append(mark(LEVEL, "var(--ink)", "always naming the most frequent class"))
    return f'<ul class="legend">{"".join(items)}</ul>'


def _size_table(outcome: Superfused, task: TaskFacts) -> str:
    fusions = outcome.fusions(task.name)
    rows = "".join(
        f'<tr><th scope="row">{size:,}</th>'
        + "".join(
            f'<td class="number">{_clean(outcome.cell(task.name, fusion, size))}</td>'
            for fusion in fusions
        )
        + "</tr>"
        for size in outcome.sizes(task.name)
    )
    caption = (
        f"{task.name.capitalize()} task: test accuracy in percent, its 95 % interval, and the "
        "validation accuracy of the same epochs, which the source shows."
    )
    heads = [(f"{fusion.capitalize()}, %", "number") for fusion in fusions]
    return tables.framed(
        f"{task.name} task", caption, "Training pairs", heads, f"<tbody>{rows}</tbody>"
    )


def _clean(cell: Cell) -> str:
    valid = float(cell.valid.mean())
    return f"{_figure(cell.test)}<small>validation {valid:.1f}</small>"


def _noise_table(title: str, held: Mapping[Fusion, Cell]) -> str:
    rows = "".join(
        f'<tr><th scope="row">{noised}, {factor:g}</th>'
        + "".join(
            f'<td class="number">{_figure(cell.under(noised, factor))}</td>'
            for cell in held.values()
        )
        + "</tr>"
        for noised in NOISED
        for factor in FACTORS
    )
    heads = [(f"{fusion.capitalize()}, %", "number") for fusion in held]
    caption = (
        f"{title}: test accuracy in percent and its 95 % interval, by what is noised and factor."
    )
    return tables.framed(
        f"Noise, {title}", caption, "Noise on, factor", heads, f"<tbody>{rows}</tbody>"
    )


def _figure(seeds: Seeds) -> str:
    value = mean(seeds)
    return f"{value.value:.1f}<small>{value.low:.1f}–{value.high:.1f}</small>"


def _published(outcome: Superfused) -> str:
    return (
        f"<p>The source is {escape(SOURCE)}.</p><h3>As published</h3>"
        + plain_list(map(tables.words, as_published(outcome)))
        + "<h3>Different, or left open by the source</h3>"
        + plain_list(map(tables.words, not_as_published(outcome)))
    )


def _conditions(outcome: Superfused) -> str:
    items = "".join(
        f"<dt>{tables.words(label)}</dt><dd>{tables.words(said)}</dd>"
        for label, said in conditions(outcome).items()
    )
    return f"<dl>{items}</dl>"
