"""What `fusion-nas cascade` does: a fast design answers where it is sure, another one otherwise."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from rich.table import Table

from evaluators.data import Split
from evaluators.data.measures import wilson
from evaluators.quality.cascade import (
    Answers,
    Cascade,
    best_cascade,
    cascade,
    risk_coverage,
    selective_accuracy,
    thresholds,
)
from evaluators.statistics.paired import Correct, paired
from search_space.design.genotype import Genotype
from studies.config.usage import UsageError
from studies.report import terminal
from studies.report.json_output import paired_as_json
from studies.results import text as result_text
from studies.results.outcome import DesignResult, Outcome
from studies.results.study_outcome import outcome_of
from studies.study.context import StudyContext
from studies.study.final.final_test import references_of
from studies.trained.trial import context_of

COVERAGES = (0.8, 0.9)
"""Shares of samples for which selective accuracy is reported."""


@dataclass(frozen=True)
class Pair:
    """The two designs of a cascade: their results, and what they answer by split."""

    rows: tuple[DesignResult, DesignResult]
    answers: Mapping[Split, tuple[Answers, Answers]]

    @property
    def ms(self) -> tuple[float, float]:
        """Latency of each."""
        first, second = (row.latency for row in self.rows)
        assert first is not None
        assert second is not None
        return first.value, second.value


def show_cascade(
    study: optuna.Study,
    first: str | None,
    second: str | None,
    most_ms: float | None,
    as_json: bool,
) -> None:
    """Choose the threshold of a cascade on validation, and show what it comes to on test.

    Args:
        study: a finished study.
        first: number or name of the design that is asked first; None for the most accurate
            network of one modality that is faster than the second.
        second: of the other; None for the most accurate design of the front.
        most_ms: the greatest mean latency of an answer.
        as_json: print JSON instead of a table.

    Raises:
        UsageError: for designs that there are not, that have no latency or no trained network, or
            a limit that no threshold meets. Also what `context_of` raises.
    """
    outcome = outcome_of(study)
    if outcome.latency_is != "latency":
        raise UsageError(
            f"study {study.study_name} has the {outcome.latency_is}, not that of one inference, "
            "which a cascade adds up: run a study without --reuse"
        )
    if outcome.multi_label:
        raise UsageError(
            "a cascade answers by the confidence in one class, and the data of study "
            f"{study.study_name} are multi-label: choose one design by `fusion-nas choose`"
        )
    rows = chosen(outcome, first, second)
    with (
        terminal.progress(terminal.open_console(stderr=True)) as reporter,
        context_of(study, reporter) as context,
    ):
        context.quality.prepare()
        pair = Pair(rows, _answers(context, rows))
    try:
        found = best_cascade(*pair.answers["valid"], pair.ms, most_ms)
    except ValueError as error:
        raise UsageError(f"--latency: {error}") from error
    if as_json:
        print(json.dumps(_as_json(pair, found)))
        return
    _show(pair, found)


def chosen(
    outcome: Outcome, first: str | None, second: str | None
) -> tuple[DesignResult, DesignResult]:
    """The two designs of a cascade. Raises UsageError."""
    rows = [r for r in (*outcome.rows, *outcome.references) if r.accuracy and r.latency]
    last = _named(rows, second) if second else _best(outcome.front, "the front has no design")
    if first:
        return _named(rows, first), last
    limit = _ms(last)
    alone = [r for r in rows if _reads_one(r) and _ms(r) < limit and r is not last]
    return _best(
        alone,
        f"no trained network of one modality is faster than {last.label}: name the design that is "
        "asked first",
    ), last


def _named(rows: list[DesignResult], name: str) -> DesignResult:
    for row in rows:
        if name in (row.name, str(row.number)):
            return row
    known = ", ".join(dict.fromkeys(row.name for row in rows if row.name))
    raise UsageError(
        f"no trained and timed design {name!r}: give the number of a complete trial"
        + (f" or one of {known}" if known else "")
    )


def _best(rows: Any, otherwise: str) -> DesignResult:
    found = [row for row in rows if row.accuracy and row.latency]
    if not found:
        raise UsageError(otherwise)
    best: DesignResult = max(found, key=lambda row: (row.accuracy.value, -_ms(row)))
    return best


def _ms(row: DesignResult) -> float:
    assert row.latency is not None
    return row.latency.value


def _reads_one(row: DesignResult) -> bool:
    """Whether a design reads one modality: references do, and some trials."""
    return row.number is None or (row.genotype is not None and not row.genotype.is_fused)


def _answers(
    context: StudyContext, rows: tuple[DesignResult, DesignResult]
) -> dict[Split, tuple[Answers, Answers]]:
    known = {each.name: each.genotype for each in references_of(context)}
    designs: list[Genotype] = []
    for row in rows:
        design = row.genotype or known.get(row.name)
        if design is None:
            raise UsageError(f"{row.label}: its design is not known to this version")
        designs.append(design)
    found: dict[Split, tuple[Answers, Answers]] = {}
    splits: tuple[Split, ...] = ("valid", "test")
    for split in splits:
        labels = np.array([sample.label for sample in context.data.split(split)])
        first, second = (
            Answers(context.quality.logits(d, split).astype(np.float64), labels) for d in designs
        )
        found[split] = (first, second)
    return found


def _show(pair: Pair, found: Cascade) -> None:
    console = terminal.open_console()
    first, second = pair.rows
    table = Table("", "answered first, %", "valid, %", "test, % (95 % CI)", "ms")
    table.title, table.title_justify = f"{first.label}, then {second.label}", "left"
    test = _on_test(pair, found)
    alone = {"first": pair.answers["test"][0].correct, "second": pair.answers["test"][1].correct}
    on_valid = [100 * float(each.correct.mean()) for each in pair.answers["valid"]]
    for k, (row, correct) in enumerate(zip(pair.rows, alone.values(), strict=True)):
        table.add_row(row.label, "", f"{on_valid[k]:.1f}", _share(correct), f"{pair.ms[k]:.4g}")
    table.add_row(
        "cascade",
        f"{100 * test.answered:.0f}",
        f"{found.percent:.1f}",
        _share(test.correct),
        f"{test.expected_ms:.4g}",
    )
    console.print(table)
    if found.answered == 0:
        console.print(f"{first.label} is never sure enough: the cascade is {second.label}.")
    else:
        console.print(
            f"{first.label} answers from a confidence of {found.threshold:.3f} on, chosen on "
            "validation.",
            highlight=False,
        )
    for k, row in enumerate(pair.rows):
        difference = paired(test.correct, pair.answers["test"][k].correct)
        console.print(
            f"cascade against {row.label} on test: {result_text.difference(difference)}; "
            f"{_times(pair.ms[k], test.expected_ms)}",
            highlight=False,
        )
    for row, answers in zip(pair.rows, pair.answers["test"], strict=True):
        said = ", ".join(
            f"{selective_accuracy(answers, each):.1f} % at {100 * each:g} % coverage"
            for each in COVERAGES
        )
        console.print(f"selective accuracy of {row.label} on test: {said}", highlight=False)


def _on_test(pair: Pair, found: Cascade) -> Cascade:
    return cascade(*pair.answers["test"], found.threshold, pair.ms)


def _share(correct: Correct) -> str:
    share = wilson(int(correct.sum()), correct.size)
    return f"{100 * share.value:.1f} ({100 * share.low:.1f} to {100 * share.high:.1f})"


def _times(other_ms: float, own_ms: float) -> str:
    ratio = other_ms / own_ms
    return f"{ratio:.2f} times as fast" if ratio >= 1 else f"{1 / ratio:.2f} times slower"


def _as_json(pair: Pair, found: Cascade) -> dict[str, Any]:
    test = _on_test(pair, found)
    on_valid = pair.answers["valid"]
    curve = [cascade(*on_valid, each, pair.ms) for each in thresholds(on_valid[0])]

    def summary(one: Cascade) -> dict[str, Any]:
        return {
            "answered_first": one.answered,
            "percent": one.percent,
            "expected_ms": one.expected_ms,
        }

    return {
        "first": pair.rows[0].label,
        "second": pair.rows[1].label,
        "ms": list(pair.ms),
        "threshold": None if np.isinf(found.threshold) else found.threshold,
        "valid": summary(found),
        "test": summary(test),
        "test_against": {
            row.label: paired_as_json(paired(test.correct, answers.correct))
            for row, answers in zip(pair.rows, pair.answers["test"], strict=True)
        },
        "curve_on_valid": [summary(each) for each in curve],
        "risk_coverage_on_test": {
            row.label: [list(point) for point in risk_coverage(answers)]
            for row, answers in zip(pair.rows, pair.answers["test"], strict=True)
        },
    }
