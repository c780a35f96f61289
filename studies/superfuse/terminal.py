"""The study `superfuse` on a terminal of 80 columns, and as JSON."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from math import isnan
from typing import Any

from rich.console import Console

from evaluators.superfuse.model import FALSE_POSITIVES
from evaluators.superfuse.names import FACTORS, NOISED, Fusion
from studies.report.paragraphs import say, say_all
from studies.results.outcome import Value
from studies.superfuse.outcome import Cell, Superfused, TaskFacts, mean, seconds
from studies.superfuse.text import (
    area,
    as_published,
    conditions,
    findings,
    not_as_published,
    title_of,
)

SHOWN_FACTORS = (0.0, 0.1, 0.3, 0.5, 0.95)
"""Of the noise factors, those that a terminal shows; page and JSON have all."""
WIDTH = 20


def show(outcome: Superfused, console: Console) -> None:
    """Print the outcome; reads well at 80 columns, without colour and in a file."""
    say(console, outcome.title)
    say(console, f"Embeddings: {outcome.data_name}")
    for note in (outcome.data_note, *outcome.notes):
        say(console, note)
    for task in outcome.tasks:
        said = "test accuracy in %, mean and 95 % over seeds"
        _over_sizes(console, outcome, task, said, lambda cell: _short(mean(cell.test)))
        said = "area under the ROC curve on test"
        _over_sizes(console, outcome, task, said, lambda cell: area(mean(cell.auc)))
        for size in outcome.shown_sizes(task.name):
            _noise(console, title_of(task, size), outcome.at(task.name, size))
    for finding in findings(outcome):
        say_all(console, f"Found. {finding.title}", finding.lines)
    say_all(console, "As published", as_published(outcome))
    say_all(console, "Different, or left open by the source", not_as_published(outcome))
    say_all(console, "Conditions", [f"{k}: {v}" for k, v in conditions(outcome).items()])


def _over_sizes(
    console: Console,
    outcome: Superfused,
    task: TaskFacts,
    what: str,
    figure: Callable[[Cell], str],
) -> None:
    fusions = outcome.fusions(task.name)
    console.print()
    say(console, f"{task.name.capitalize()} task: {what}")
    _row(console, "training pairs", fusions)
    for size in outcome.sizes(task.name):
        cells = (outcome.cell(task.name, fusion, size) for fusion in fusions)
        _row(console, f"{size:,}", [figure(cell) for cell in cells])


def _noise(console: Console, title: str, held: Mapping[Fusion, Cell]) -> None:
    console.print()
    say(console, f"{title}, under noise")
    _row(console, "noise on, factor", list(held))
    for noised in NOISED:
        for factor in SHOWN_FACTORS:
            figures = [_short(mean(cell.under(noised, factor))) for cell in held.values()]
            _row(console, f"{noised} {factor:g}", figures)


def _row(console: Console, first: str, cells: Any) -> None:
    line = f"{first:<{WIDTH}}" + "".join(f"{cell:>{WIDTH}}" for cell in cells)
    console.print(line.rstrip(), highlight=False, markup=False, soft_wrap=True)


def _short(value: Value) -> str:
    return f"{value.value:.1f} ({value.low:.1f}-{value.high:.1f})"


def as_json(outcome: Superfused) -> dict[str, Any]:
    """Plain JSON values: every cell with its figures, and what was found in words."""
    train_s, noise_s = seconds(outcome.cells)
    return {
        "study": outcome.study,
        "title": outcome.title,
        "embeddings": outcome.data_name,
        "note": outcome.data_note,
        "left_out": list(outcome.notes),
        "tasks": [asdict(task) for task in outcome.tasks],
        "seeds": [each.seed for each in outcome.cells[0].trained],
        "regime": asdict(outcome.config),
        "noise_factors": list(FACTORS),
        "false_positive_rates": list(FALSE_POSITIVES),
        "findings": [asdict(finding) for finding in findings(outcome)],
        "as_published": list(as_published(outcome)),
        "not_as_published": list(not_as_published(outcome)),
        "train_cpu_s": train_s,
        "noise_cpu_s": noise_s,
        "cells": [_cell(cell) for cell in outcome.cells],
    }


def _cell(cell: Cell) -> dict[str, Any]:
    train_s, noise_s = seconds([cell])
    auc = mean(cell.auc)
    return {
        "task": cell.task,
        "fusion": cell.fusion,
        "size": cell.size,
        "test_percent": asdict(mean(cell.test)),
        "valid_percent": asdict(mean(cell.valid)),
        "test_percent_by_seed": cell.test.tolist(),
        "auc": None if isnan(auc.value) else asdict(auc),
        "roc": list(cell.roc),
        "best_epoch_by_seed": [each.best_epoch for each in cell.trained],
        "noise_percent": {
            noised: [asdict(mean(cell.under(noised, factor))) for factor in FACTORS]
            for noised in NOISED
        },
        "train_cpu_s": train_s,
        "noise_cpu_s": noise_s,
    }
