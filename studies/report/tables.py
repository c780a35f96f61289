"""The tables of a study's page."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from studies.report.designs.facts import latency_tail, probability
from studies.report.designs.payload import key_of
from studies.results import text as result_text
from studies.results.objectives import Objective
from studies.results.outcome import DesignResult, Outcome, Value, timed_later


@dataclass(frozen=True)
class Cell:
    """A cell: its text, cells within it, each on a line of its own, and notes beneath.

    An empty note is left out.
    """

    text: str = ""
    notes: tuple[str, ...] = ()
    parts: tuple["Cell", ...] = ()


@dataclass(frozen=True)
class Row:
    """A row: its label with a note beneath it, and a cell for each column.

    `style` is the label's class in the style sheet, `key` the design that the label opens.
    """

    label: str
    cells: Sequence[Cell]
    note: str = ""
    style: str = ""
    key: str = ""


@dataclass(frozen=True)
class Group:
    """Rows under a title, which may be empty."""

    title: str
    rows: Sequence[Row]


@dataclass(frozen=True)
class Table:
    """A table: `label` for those who cannot see it, and the title of the labels' column, `first`.

    columns: of each other column the title, and the class of its cells in the style sheet.
    """

    label: str
    caption: str
    first: str
    columns: Sequence[tuple[str, str]]
    groups: Sequence[Group]


PROBABILITY = "Probability not dominated"
MOST_TRIALS = 400
"""Rows of a table of trials: with many more a page is slow to open."""

Column = tuple[str, str, Callable[[DesignResult], Cell]]


def designs(outcome: Outcome, certain: Mapping[int, float]) -> Table | None:
    """The front, the seeded designs behind it, and the references; None where there are none.

    `certain`: the probability of not being dominated, by trial number.
    """
    front = list(outcome.front)
    shown = {row.number for row in front} | set(timed_later(outcome.rows))
    seeded = [row for row in outcome.rows if row.name and row.number not in shown]
    groups = [
        ("On the front, fastest first", front),
        (
            f"{'Seeded' if outcome.grid is None else 'Listed'} designs that are not on the front",
            seeded,
        ),
        (
            "References, outside the search",
            [*outcome.references, result_text.majority_row(outcome)],
        ),
    ]
    tuned = {id(each.row): each for each in outcome.fine_tuned}
    if tuned:
        whole = [each.row for each in outcome.fine_tuned]
        groups.append(("Fine-tuned whole, compared with each other only", whole))
    if not any((*front, *seeded, *outcome.references)):
        return None

    def where(row: DesignResult) -> Cell:
        each = tuned.get(id(row))
        return Cell(
            result_text.standing_of(row, outcome) if each is None else result_text.fine_tuned(each)
        )

    columns: list[Column] = [
        (_chosen(outcome), "number", lambda r: _accuracy(r.accuracy, r.accuracy_nonzero)),
        ("Test, %", "number", _tested),
        ("Latency, ms", "number", _latency),
        ("Parameters, MACs, ONNX", "number", _size),
        ("Where it stands", "said", where),
        ("In words", "words", _design),
    ]
    for objective in reversed(outcome.goals.more):
        columns.insert(3, (_heading(objective), "number", partial(_further, objective)))
    if any(row.test_sets for _, each in groups for row in each):
        columns.insert(2, ("Classes on test", "said", _set_scores))
    if certain:
        columns.insert(3, (PROBABILITY, "number", lambda r: Cell(probability(r, certain))))
    rows = [row for _, each in groups for row in each]
    used = any(row.use for row in rows)
    if used:
        columns.insert(len(columns) - 2, ("Uses, points of test", "uses", _used))
    caption = (
        "Accuracy is the share of samples classified correctly, latency that of one inference."
    )
    if outcome.multi_label:
        caption = (
            "Accuracy is subset accuracy: the share of samples of which every class is right. "
            "Micro-F1, macro-F1 and mean average precision are those of one training, on test. "
            "Latency is that of one inference."
        )
    if any(row.accuracy_nonzero or row.test_accuracy_nonzero for row in rows):
        caption += " “Non-zero” leaves out samples of score 0."
    if used:
        caption += (
            " What a design uses of a modality is its Shapley value: what it adds on average "
            "over all orders of adding the modalities; one that is absent is taken from another "
            "sample. “Without” a modality, an empty text, a picture of one colour or silence takes "
            "its place."
        )
    if any(row.tail for row in rows):
        caption += (
            " p95 and p99 are percentiles of single runs; jitter is the mean step from run to run."
        )
    return _table("Designs", caption, "Design", columns, groups)


def trials(outcome: Outcome, certain: Mapping[int, float]) -> Table | None:
    """Every trial, and the references; None where no trial has been run.

    Of more than MOST_TRIALS, the front, then those that are most probably not dominated.
    """
    if not outcome.rows:
        return None
    columns: list[Column] = [
        ("State", "said", _state),
        (_chosen(outcome), "number", lambda r: figure(result_text.percent_parts(r.accuracy))),
        ("Test, %", "number", lambda r: figure(result_text.percent_parts(r.test_accuracy))),
        ("Latency, ms", "number", _latency),
        *(
            (_heading(objective), "number", partial(_further, objective))
            for objective in outcome.goals.more
        ),
        ("Parameters", "number", lambda r: Cell(result_text.count(r.parameters))),
        ("Fidelity", "", lambda r: Cell(r.fidelity)),
        ("In words", "words", lambda r: Cell(result_text.arrows(r.design))),
    ]
    caption = (
        "Every trial in the order in which it was asked for, then the references, outside the "
        "search."
    )
    rows = outcome.rows
    if len(rows) > MOST_TRIALS:
        front = {row.number for row in outcome.front}
        likely = sorted(
            rows,
            key=lambda r: (r.number not in front, -certain.get(r.number or 0, -1.0), r.number),
        )
        which = "those that are most probably not dominated" if certain else "the first"
        rows = tuple(sorted(likely[:MOST_TRIALS], key=lambda r: r.number or 0))
        caption = (
            f"{MOST_TRIALS} of {len(outcome.rows):,} trials: the front and {which}, in the order "
            "in which they were asked for. All of them are in the plot and in the CSV file."
        )
    baselines = [*outcome.references, result_text.majority_row(outcome)]
    groups = [("", rows), ("", baselines)]
    return _table("Every trial", caption, "Trial", columns, groups)


def _table(
    label: str,
    caption: str,
    first: str,
    columns: Sequence[Column],
    groups: Sequence[tuple[str, Sequence[DesignResult]]],
) -> Table:
    made = [Group(title, [_row(row, columns) for row in rows]) for title, rows in groups]
    return Table(label, caption, first, [column[:2] for column in columns], made)


def _row(row: DesignResult, columns: Sequence[Column]) -> Row:
    cells = [cell(row) for _, _, cell in columns]
    is_design = row.number is not None or row.genotype is not None or row.latency is not None
    key = key_of(row) if is_design else ""
    if row.number is None or not row.name:
        return Row(row.label, cells, key=key)
    return Row(row.label, cells, f"trial {row.number}", "mark", key)


def _latency(row: DesignResult) -> Cell:
    return figure(result_text.milliseconds_parts(row.latency), latency_tail(row))


def _size(row: DesignResult) -> Cell:
    macs = "" if row.macs is None else f"{result_text.count(row.macs)} MACs"
    return Cell(result_text.count(row.parameters), (macs, result_text.size(row.onnx_bytes)))


def _design(row: DesignResult) -> Cell:
    untrained = row.did_not_train if row.state != "untrained" else ""
    source = f"published in {result_text.SOURCE_OF_PUBLISHED}, on CMU-MOSI: "
    figures = published(row).text
    origin = (row.adapted, figures and source + figures)
    notes = (row.fidelity, row.shortened, untrained, row.folded, result_text.load(row), *origin)
    return Cell(result_text.arrows(row.design), notes)


def _state(row: DesignResult) -> Cell:
    same = "" if row.duplicate_of is None else f"same design as trial {row.duplicate_of}"
    return Cell(row.state, (row.reason, same))


def _accuracy(value: Value | None, nonzero: Value | None, *notes: str) -> Cell:
    if nonzero is not None:
        first, interval = result_text.percent_parts(nonzero)
        notes = (f"non-zero {first}", interval, *notes)
    return figure(result_text.percent_parts(value), *notes)


def _tested(row: DesignResult) -> Cell:
    seeds = result_text.over_seeds(row)
    return _accuracy(row.test_accuracy, row.test_accuracy_nonzero, seeds)


def _set_scores(row: DesignResult) -> Cell:
    first, *rest = result_text.set_scores(row, "–") or ("",)
    return Cell(first, tuple(rest))


def _heading(objective: Objective) -> str:
    return objective.words[0].upper() + objective.words[1:]


def _further(objective: Objective, row: DesignResult) -> Cell:
    value = row.figure(objective)
    return Cell("" if value is None else f"{value.value:.4g}")


def _used(row: DesignResult) -> Cell:
    """Shapley values, and below them what is left without each modality."""
    if row.use is None:
        return Cell()
    parts = []
    for name, value in row.use.shapley.items():
        interval = "" if value.low is None else f"{value.low:+.1f} to {value.high:+.1f}"
        parts.append(Cell(f"{name} {value.value:+.1f}", (interval,)))
    notes = (*result_text.without(row.use), f"calibration error {row.use.ece:.3f}")
    return Cell(notes=notes, parts=tuple(parts))


def _chosen(outcome: Outcome) -> str:
    """The head of the column that the search chose by."""
    return "Cross-validated, %" if outcome.cv else "Valid, %"


def published(row: DesignResult) -> Cell:
    """The published figures, of which none is parted from its unit."""
    return Cell(result_text.published(row).replace(" ms", "\N{NO-BREAK SPACE}ms"))


def figure(parts: tuple[str, str], *notes: str) -> Cell:
    """The figure, its interval beneath it, and notes."""
    first, interval = parts
    return Cell(first, (interval, *notes))
