"""A study's outcome, and how far a run has come, on a terminal."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Column
from rich.text import Text

from studies.report.ablation import text as ablation_text
from studies.report.progress import Reporter, Silent
from studies.report.progress import open_console as open_console
from studies.results import text as result_text
from studies.results.analysis import boards_in_words
from studies.results.outcome import DesignResult, Outcome, timed_later
from studies.results.text import clean

LONG_STEP_S = 10.0
STEP_LINES_S = 60.0
"""Between two lines about one step, where there is no terminal."""
WIDE = 60
"""Columns of a terminal that has room for a bar."""


def show(outcome: Outcome, console: Console) -> None:
    """Print the outcome; reads well at 80 columns, without colour and in a file."""
    paper = _Paper(console)
    paper.say(outcome.title, "bold")
    paper.say(f"Data: {outcome.data_name}")
    paper.say(outcome.data_note, "bold yellow")
    paper.say(result_text.tally(outcome) + ".")
    if said := result_text.rungs(outcome):
        paper.say(said + ".")
    paper.say(result_text.emptiness(outcome), "bold")
    if outcome.front:
        paper.head("Front, fastest first")
        more = [result_text.further(row, outcome) for row in outcome.front]
        _figures(outcome.front, paper, outcome.cv, more)
    if outcome.boards is not None:
        for paragraph in boards_in_words.paragraphs(outcome.boards):
            paper.head(paragraph.head)
            for line in paragraph.lines:
                paper.say(line, hang=4)
    if outcome.fine_tuned:
        paper.head("Fine-tuned whole, compared with each other only, fastest first")
        notes = [result_text.fine_tuned(each) for each in outcome.fine_tuned]
        _figures(tuple(each.row for each in outcome.fine_tuned), paper, outcome.cv, notes)
    again = timed_later(outcome.rows)
    named = [row for row in outcome.rows if row.name and row.number not in again]
    if outcome.grid is not None:
        paper.head("The list")
        for line in ablation_text.told(outcome):
            paper.say(line, hang=4)
    elif named:
        paper.head("Named designs")
        for row in named:
            paper.say(f"{row.label}: {result_text.standing_of(row, outcome)}", hang=4)
            if row not in outcome.front:
                paper.say(row.folded, "dim", indent=4)
    if outcome.rows:
        paper.head("References, outside the search")
        _figures((*outcome.references, result_text.majority_row(outcome)), paper, outcome.cv)
    paper.head("Bounds")
    for line in _bounds(outcome):
        paper.say(line, hang=4)
    paper.head("To read this")
    listed = (*ablation_text.readings(outcome), *outcome.grid.notes) if outcome.grid else ()
    carried = () if outcome.grid else _carried_over(named)
    for sentence in (*result_text.how_to_read(outcome), *listed, *carried, *outcome.cautions):
        paper.say(f"- {sentence}", hang=2)
    if summary := result_text.summary(outcome):
        paper.head("Summary")
        for sentence in summary:
            paper.say(sentence, hang=4)


@dataclass(frozen=True)
class _Paper:
    """Lines that wrap at the console's width and end without blanks."""

    console: Console

    def say(self, text: str, style: str = "", indent: int = 0, hang: int = 0) -> None:
        """Print a paragraph, its further lines `hang` deeper; nothing for an empty text."""
        room = max(10, self.console.width - indent - hang)
        first, *_ = Text(clean(text)).wrap(self.console, room + hang) or [Text()]
        rest = Text(clean(text)[len(first.plain) :].strip())
        lines = [" " * indent + first.plain.rstrip()]
        lines += [" " * (indent + hang) + t.plain.rstrip() for t in rest.wrap(self.console, room)]
        for line in lines:
            if line.strip():
                self.put(Text(line, style))

    def head(self, text: str) -> None:
        """Print a blank line and a heading."""
        self.put(Text())
        self.put(Text(text, "bold underline"))

    def put(self, line: Text) -> None:
        """Print one line that is known to fit."""
        self.console.print(line, highlight=False, no_wrap=True, overflow="ignore", crop=False)


def _figures(
    rows: tuple[DesignResult, ...], paper: _Paper, cv: bool, said: Sequence[str] = ()
) -> None:
    """A head line, then a row's figures, and below them its design and what is `said` of it."""
    cells = [
        (
            result_text.percent(row.accuracy, "-"),
            "" if row.test_accuracy is None else f"{row.test_accuracy.value:.1f}",
            "" if row.latency is None else result_text.ms(row.latency.value),
            result_text.count(row.parameters),
        )
        for row in rows
    ]
    heads = ("cv %" if cv else "valid %", "test %", "ms", "params")
    widths = [max(len(heads[k]), *(len(c[k]) for c in cells)) for k in range(len(heads))]
    labels = [clean(row.label) for row in rows]
    room = max(10, paper.console.width - sum(widths) - 2 * len(widths))
    widest = min(room, max(map(len, labels)))

    def line(label: str, figures: tuple[str, ...], style: str) -> Text:
        right = "".join(f"  {f:>{w}}" for f, w in zip(figures, widths, strict=True))
        made = Text.assemble((label.ljust(widest), style), (right, "dim" if not label else ""))
        made.rstrip()
        return made

    paper.put(line("", heads, ""))
    notes = said or [""] * len(rows)
    for row, label, figures, note in zip(rows, labels, cells, notes, strict=True):
        if len(label) > widest:
            paper.say(label, "bold")
            label = " "
        paper.put(line(label, figures, "bold"))
        paper.say(row.design, "dim", indent=4)
        paper.say(_tested(row), "dim", indent=4)
        paper.say(", ".join(result_text.set_scores(row)), "dim", indent=4)
        paper.say(result_text.use(row), "dim", indent=4)
        paper.say(row.folded, "dim", indent=4)
        paper.say(result_text.load(row), "dim", indent=4)
        paper.say(note, "dim", indent=4)


def _tested(row: DesignResult) -> str:
    """The test figure in full, beneath the one of the line; empty where there is none."""
    if row.test_accuracy is None or row.test_accuracy.low is None:
        return ""
    parts = [f"test {result_text.percent(row.test_accuracy, '-')}"]
    if row.test_accuracy_nonzero is not None:
        parts.append(f"non-zero {result_text.percent(row.test_accuracy_nonzero, '-')}")
    return ", ".join(part for part in (*parts, result_text.over_seeds(row)) if part)


def _bounds(outcome: Outcome) -> Iterator[str]:
    yield f"Majority {'set' if outcome.multi_label else 'class'}: {result_text.majority(outcome)}."
    if outcome.ceilings:
        best = ", ".join(f"{name} {value:.1f} %" for name, value in outcome.ceilings.items())
        yield f"Best possible, as the data are made: {best}."
    if outcome.latency_is != "latency":
        yield f"Latencies: {outcome.latency_is}."
    if outcome.latency_limit_ms is not None:
        yield f"Latency limit: {outcome.latency_limit_ms:g} ms."
    if outcome.hypervolume:
        trial, value = outcome.hypervolume[-1]
        said = f"Hypervolume: {value:.1f} {result_text.volume_unit(outcome)} after trial {trial}"
        if outcome.reference_point:
            said += f"; reference point {result_text.reference_point(outcome)}"
        yield said + "."


def _carried_over(named: list[DesignResult]) -> Iterator[str]:
    if any(row.adapted for row in named):
        yield (
            "Published designs were adapted to the depth of these encoders; the page says how, and "
            "lists the published figures."
        )


@contextmanager
def progress(
    console: Console, quiet: bool = False, clock_s: Callable[[], float] = time.monotonic
) -> Iterator[Reporter]:
    """Report how far a run has come: a line for each finished trial, with the time left.

    A terminal also shows two live lines: trials, and the current step. Elsewhere a step takes a
    line once it has gone on for LONG_STEP_S, and another every STEP_LINES_S, with the time left;
    so does any step that begins after STEP_LINES_S without a line.
    """
    if quiet:
        yield Silent()
    elif console.is_terminal and not console.is_dumb_terminal:
        with _bars(console) as bars:
            yield _Live(bars, clock_s)
    else:
        yield _Lines(console, clock_s)


class _TimeLeft:
    """The time that the remaining trials will take, by the mean of those of this run."""

    def __init__(self, clock_s: Callable[[], float]) -> None:
        self._clock_s = clock_s
        self._begun: tuple[float, int] | None = None

    def after(self, done: int, total: int, is_begin: bool) -> str:
        """In words after `done` of `total` trials; empty while nothing is known."""
        if is_begin or self._begun is None:
            self._begun = self._clock_s(), done
            return ""
        since, first = self._begun
        if done <= first or done >= total:
            return ""
        return duration((total - done) * (self._clock_s() - since) / (done - first))


def duration(seconds: float) -> str:
    """`40 s`, `12 min` or `3.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


class _Lines:
    def __init__(self, console: Console, clock_s: Callable[[], float]) -> None:
        self._console, self._clock_s, self._left = console, clock_s, _TimeLeft(clock_s)
        self._lock = threading.Lock()
        self._step, self._last, self._due_s, self._step_left = "", 0, 0.0, _TimeLeft(clock_s)
        self._shown_s = clock_s()

    def trial(self, done: int, total: int, text: str) -> None:
        with self._lock:
            self._step = ""
            left = self._left.after(done, total, not text)
        if text:
            self.line(f"[{done}/{total}] {text}" + (f"; about {left} left" if left else ""))

    def step(self, what: str, done: int, total: int) -> None:
        with self._lock:
            now, is_begin = self._clock_s(), what != self._step or done < self._last
            if is_begin:
                self._step, self._due_s = what, now + LONG_STEP_S
            self._last, left = done, self._step_left.after(done, total, is_begin)
            due = now >= self._due_s or now >= self._shown_s + STEP_LINES_S
            if due:
                self._due_s = now + STEP_LINES_S
        if due:
            self.line(f"  {what}: {done} of {total}" + (f", about {left} left" if left else ""))

    def line(self, text: str) -> None:
        self._shown_s = self._clock_s()
        self._console.print(Text(clean(text)), soft_wrap=True, highlight=False)


def _bars(console: Console) -> Progress:
    words = Column(ratio=1, no_wrap=True, overflow="ellipsis")
    bar = (BarColumn(bar_width=20),) if console.width >= WIDE else ()
    return Progress(
        TextColumn("{task.fields[what]}", table_column=words, markup=False),
        *bar,
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        expand=True,
        refresh_per_second=4,
    )


class _Live:
    def __init__(self, bars: Progress, clock_s: Callable[[], float]) -> None:
        self._bars, self._left = bars, _TimeLeft(clock_s)
        self._trials = bars.add_task("", total=None, what="trials")
        self._step = bars.add_task("", total=None, what="", visible=False)
        self._what, self._lock = "", threading.Lock()

    def trial(self, done: int, total: int, text: str) -> None:
        if text:
            self.line(f"[{done}/{total}] {text}")
        with self._lock:
            left = self._left.after(done, total, not text)
            what = f"trials, about {left} left" if left else "trials"
            self._bars.update(self._trials, completed=done, total=total, what=what)
            self._what = ""
            self._bars.update(self._step, visible=False)

    def step(self, what: str, done: int, total: int) -> None:
        with self._lock:
            if what != self._what:
                self._what = what
                self._bars.reset(self._step, total=total)
            self._bars.update(
                self._step, completed=done, total=total, what=f"  {clean(what)}", visible=True
            )

    def line(self, text: str) -> None:
        self._bars.console.print(Text(clean(text)), highlight=False)
