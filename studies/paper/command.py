"""`fusion-nas paper`: the published designs, timed, trained and judged beside their figures."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console

from evaluators.statistics.paired import MIN_SEEDS, paired
from evaluators.store import EvaluationStore
from search_space.network.rewrites import NONE
from search_space.space.paper import SOURCE, SeededDesign, seeded_designs
from studies.config.home import home
from studies.config.options import runtime_of
from studies.config.settings import Settings
from studies.config.usage import UsageError
from studies.paper.accuracy import (
    Line,
    judge_designs,
    lines_of,
    named_in,
    verdicts_among,
)
from studies.paper.caveats import Caveat, confounded_training, subset_of_test
from studies.paper.checks import (
    at_length,
    confounding,
    folding,
    of_stage,
    timing_of,
    with_padding_cut,
)
from studies.paper.tables import (
    accuracy_of,
    caveat_json,
    latency_of,
    latency_table,
    line_json,
    ranking_lines,
    timed_json,
    verdict_lines,
)
from studies.paper.timing import Timed, fused, lengths, time_designs
from studies.report import terminal
from studies.report.paragraphs import say, say_all
from studies.report.progress import Reporter
from studies.results.outcome import Split
from studies.results.study_outcome import PROTOCOL, correct_answers, outcome_of
from studies.results.text import clean
from studies.results.verdict import CorrectBySplit
from studies.study.context import (
    StudyContext,
    check_single_label,
    data_label,
    load_space_of,
    open_context,
)
from studies.study.identity import conditions
from studies.study.lookup import find_study

CLASSES = 2
"""Of the published task; latency needs no data to know it."""
STATED = (
    "data",
    "data check",
    "left out",
    "encoders",
    "training",
    "device",
    "runtime",
    "rewrites before timing",
)
"""Conditions that stand below the table."""


@dataclass(frozen=True)
class Shown:
    """Everything that is printed. `lines` and `majority_percent` are there with data alone."""

    notes: tuple[str, ...]
    caveats: tuple[Caveat, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)
    designs: Sequence[SeededDesign] = ()
    tokens: tuple[int, ...] = ()
    timed: Timed = field(default_factory=dict)
    lines: tuple[Line, ...] = ()
    majority_percent: float | None = None
    split: Split = "test"


def show_paper(settings: Settings, tokens: tuple[int, ...], json_only: bool) -> None:
    """Times the fused designs at each text length; with data, trains and judges all nine too.

    No length stands for TOKENS without data, and for the designs' own with them. Everything is
    kept, so an interrupted table goes on where it was. Raises UsageError, and what
    `open_context` raises.
    """
    if settings.device.boards.unlike:
        raise UsageError(
            f"--device {settings.device.names[0]}: this table is of one board; make one for each"
        )
    console = terminal.open_console(stderr=json_only)
    with terminal.progress(console) as reporter:
        if settings.data.source is None:
            shown = _timed(settings, tokens, reporter)
        else:
            shown = _judged(settings, tokens, reporter)
    _show(shown, console, json_only)


def show_paper_of_study(storage: str | None, name: str | None, json_only: bool) -> None:
    """Shows the published designs as trials of a study. Raises StorageError or UsageError."""
    study = find_study(storage, name)
    outcome = outcome_of(study)
    if outcome.multi_label:
        raise UsageError(
            f"paper needs one class per sample, and the data of study {study.study_name} are "
            "multi-label: use `fusion-nas report`"
        )
    correct: CorrectBySplit = {
        "valid": correct_answers(study, "valid"),
        "test": correct_answers(study, "test"),
    }
    designs, verdicts, split = named_in(outcome, correct)
    if all(design.row.number is None for design in designs):  # references alone, or nothing
        raise UsageError(
            f"study {study.study_name!r} holds none of the designs of {SOURCE}: run it with "
            "--seed-paper, or give --data"
        )
    lines = lines_of(designs, verdicts)
    late = _first(lines, "late")
    caveats = [subset_of_test(late.row.label, late.correct)] if late and split == "test" else []
    early, protocol = _first(lines, "early"), study.user_attrs[PROTOCOL].get("name", "fair")
    if late and early and late.correct is not None and early.correct is not None:
        here = paired(late.correct, early.correct)
        caveats.append(confounded_training(protocol, late.row.label, early.row.label, here, None))
    said = outcome.conditions
    notes = [f"study {outcome.study}: {outcome.title}", outcome.data_note, *_carried_over(lines)]
    notes += [f"{key}: {said[key]}" for key in STATED if key in said]
    notes.append("Each design is compared with the study's front and the unimodal designs.")
    if split == "valid":
        notes.append(
            "Table and verdicts are on validation: test is shown once it has been looked at for "
            "every design that is compared."
        )
    _show(
        Shown(
            tuple(note for note in notes if note),
            tuple(caveats),
            {"study": outcome.study, "conditions": dict(said)},
            lines=lines,
            majority_percent=outcome.majority[split == "test"],
            split=split,
        ),
        terminal.open_console(stderr=json_only),
        json_only,
    )


def _timed(settings: Settings, tokens: tuple[int, ...], reporter: Reporter) -> Shown:
    """The latencies of the six fused designs, on random weights."""
    where, space = home(make=True), load_space_of(settings)
    designs = fused(seeded_designs(space))
    tokens = lengths(tokens, designs, space)
    store = EvaluationStore(where / "evaluations.jsonl")
    with timing_of(settings, space, CLASSES, NONE, reporter) as latency:
        timed = time_designs(store, latency, designs, tokens, reporter.step)
    early = of_stage(designs, "early")
    caveats = [subset_of_test()]
    if early is not None:
        plain = at_length(early, min(tokens), timed)
        caveats += folding(settings, space, CLASSES, early, plain, store, reporter)
    runtime, provider = runtime_of(settings.device.runtime)
    devices = ", ".join(settings.device.names)
    notes = (
        "Random weights: latency depends on the graph alone. Timed as published, batch 1, with "
        f"{runtime} ({provider}) on {devices}; the paper's figures are of a Jetson Orin AGX at 512 "
        "tokens. Ratios are to the late design with the same vision encoder.",
        *ranking_lines(designs, tokens, timed),
    )
    return Shown(notes, tuple(caveats), {}, designs, tokens, timed)


def _judged(settings: Settings, tokens: tuple[int, ...], reporter: Reporter) -> Shown:
    """All nine designs trained by one protocol, and compared with each other on test."""
    context = open_context(settings, reporter.step)
    try:
        check_single_label(
            context.data, "paper", "give data with a column label, or use run --seed-paper"
        )
        stated = {key: words for key, words in conditions(context).items() if key in STATED}
        notes = [*_data_notes(context, stated)]
        for note in notes:
            reporter.line(note)
        context.quality.prepare()
        designs = seeded_designs(context.space)
        judged = judge_designs(context, designs, reporter)
        lines = lines_of(judged, verdicts_among(judged, "test"))
        six = fused(designs)
        tokens = lengths(tokens, six, context.space) if tokens and six else ()
        timed = time_designs(context.store, context.latency, six, tokens, reporter.step)
        caveats, cut = with_padding_cut(context, six, reporter)
        context.latency.settle()
    finally:
        context.close()
    late, early = _first(lines, "late"), _first(lines, "early")
    found = [subset_of_test(late.row.label, late.correct)] if late else []
    classes, shortest = len(context.data.classes), of_stage(six, "early")
    if shortest is not None and cut is not None:
        found += folding(settings, context.space, classes, shortest, cut, context.store, reporter)
    found += caveats
    if late is not None and early is not None:
        found += confounding(context, late, early, designs)
    majority = 100 * context.data.majority("test")[1]
    notes += [*_carried_over(lines), _seeds(settings)]
    facts = {
        "conditions": stated,
        "seeds": settings.training.seeds,
        "protocol": settings.training.protocol,
    }
    return Shown(tuple(notes), tuple(found), facts, six, tokens, timed, lines, majority)


def _show(shown: Shown, console: Console, json_only: bool) -> None:
    if json_only:
        print(json.dumps(_as_json(shown), allow_nan=False))
        return
    if shown.lines:
        console.print(latency_of(shown.lines))
        console.print()
        console.print(accuracy_of(shown.lines, shown.majority_percent, shown.split))
        say_all(
            console,
            f"Verdicts, on {shown.split}",
            verdict_lines(shown.lines, shown.majority_percent, shown.split),
        )
    if shown.timed:
        console.print(latency_table(shown.designs, shown.tokens, shown.timed))
    say_all(console, "To read this", shown.notes)
    say_all(console, "Caveats of the paper", (caveat.text for caveat in shown.caveats))
    doubted = [evaluation.unstable for evaluation in shown.timed.values() if evaluation.unstable]
    doubted += [line.row.reason for line in shown.lines if line.row.state == "unstable"]
    if doubted:
        say(
            console,
            f"? marks a latency that was not stable ({clean(doubted[0])}); the same command times "
            "it again.",
        )


def _as_json(shown: Shown) -> dict[str, Any]:
    found = {
        "source": SOURCE,
        **timed_json(shown.designs, shown.tokens, shown.timed),
        "notes": list(shown.notes),
        "caveats": [caveat_json(caveat) for caveat in shown.caveats],
        **shown.facts,
    }
    if shown.lines:
        found |= {
            "designs": [line_json(line) for line in shown.lines],
            "majority_percent": shown.majority_percent,
            "split": shown.split,
        }
    return found


def _data_notes(context: StudyContext, stated: Mapping[str, str]) -> Iterator[str]:
    yield from (f"{key}: {words}" for key, words in stated.items())
    if context.data.note:
        yield context.data.note
    if context.data.kind != "mosi":
        data = data_label(context.data)
        yield f"{data} is not CMU-MOSI: the published accuracies are of other data."


def _carried_over(lines: Sequence[Line]) -> list[str]:
    carried = [line.row for line in lines if line.row.adapted]
    if not carried:
        return []
    return [
        f"{len(carried)} of {len(lines)} designs are not on the paper's encoders or lengths, so "
        f"the published figures are of other networks: {carried[0].adapted}"
    ]


def _seeds(settings: Settings) -> str:
    last = settings.training.seed + settings.training.seeds - 1
    seeds = (
        f"seeds {settings.training.seed} to {last}"
        if settings.training.seeds > 1
        else f"seed {settings.training.seed}"
    )
    over = "samples and seeds" if settings.training.seeds >= MIN_SEEDS else "the samples alone"
    return (
        f"Accuracies are means over {seeds} on all of test, with intervals over the samples; "
        f"paired intervals are over {over}. Differences whose interval includes 0 are not "
        "significant."
    )


def _first(lines: Sequence[Line], stage: str) -> Line | None:
    return next((line for line in lines if line.stage == stage), None)
