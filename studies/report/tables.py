"""The tables of a study's page."""

from collections.abc import Callable, Sequence
from functools import partial
from html import escape

from studies.results import text as result_text
from studies.results.objectives import Objective
from studies.results.outcome import DesignResult, Outcome, Value

Cell = Callable[[DesignResult], str]


def designs(outcome: Outcome) -> str:
    """The front, the seeded designs behind it, the references, and what they are held against."""
    front = list(outcome.front)
    shown = {row.number for row in front}
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
        groups.append(("Fine-tuned whole, held against each other alone", whole))
    if not any((*front, *seeded, *outcome.references)):
        return "<p>There is no design to show yet.</p>"

    def where(row: DesignResult) -> str:
        each = tuned.get(id(row))
        return escape(
            result_text.standing_of(row, outcome) if each is None else result_text.fine_tuned(each)
        )

    columns: list[tuple[str, str, Cell]] = [
        (_chosen(outcome), "number", lambda r: _accuracy(r.accuracy, r.accuracy_nonzero)),
        ("Test, %", "number", _tested),
        ("Latency, ms", "number", lambda r: figure(result_text.milliseconds(r.latency))),
        ("Parameters, MACs, ONNX", "number", _size),
        ("Where it stands", "said", where),
        ("In words", "words", _design),
    ]
    for objective in reversed(outcome.goals.more):
        columns.insert(3, (_heading(objective), "number", partial(_further, objective)))
    if any(row.use for _, rows in groups for row in rows):
        columns.insert(len(columns) - 2, ("Uses, points of test", "uses", _used))
    if any(result_text.published(row) for _, rows in groups for row in rows):
        heading = f"Published, {result_text.SOURCE_OF_PUBLISHED}"
        columns.insert(
            len(columns) - 1,
            (heading, "", lambda r: escape(result_text.published(r)).replace(" ms", "&nbsp;ms")),
        )
    body = "".join(
        f'<tbody><tr><th scope="rowgroup" colspan="{len(columns) + 1}">{title}</th></tr>'
        + "".join(_line(row, columns) for row in rows)
        + "</tbody>"
        for title, rows in groups
        if rows
    )
    caption = "Accuracy is the share of samples classified rightly, latency that of one inference."
    if any(row.accuracy_nonzero or row.test_accuracy_nonzero for _, rs in groups for row in rs):
        caption += " “Non-zero” leaves out samples of score 0."
    if any(row.use for _, rs in groups for row in rs):
        caption += (
            " What a design uses of a modality is its Shapley value: what it adds on the average "
            "over all orders of coming, an absent one being that of another sample. Without one: "
            "in its place stands an empty text, a picture of one colour or silence."
        )
    return framed("Designs", caption, "Design", _heads(columns), body) + _held_against(outcome)


def trials(outcome: Outcome) -> str:
    """Every trial, folded away."""
    if not outcome.rows:
        return "<p>No trial has been run yet.</p>"
    columns: list[tuple[str, str, Cell]] = [
        ("State", "said", _state),
        (_chosen(outcome), "number", lambda r: figure(result_text.percent(r.accuracy))),
        ("Test, %", "number", lambda r: figure(result_text.percent(r.test_accuracy))),
        ("Latency, ms", "number", lambda r: figure(result_text.milliseconds(r.latency))),
        *(
            (_heading(objective), "number", partial(_further, objective))
            for objective in outcome.goals.more
        ),
        ("Parameters", "number", lambda r: result_text.count(r.parameters)),
        ("Fidelity", "", lambda r: words(r.fidelity)),
        ("In words", "words", lambda r: words(result_text.arrows(r.design))),
    ]
    held_against = (*outcome.references, result_text.majority_row(outcome))
    body = "".join(
        "<tbody>" + "".join(_line(row, columns) for row in rows) + "</tbody>"
        for rows in (outcome.rows, held_against)
    )
    caption = (
        "Every trial in the order in which it was asked for, then the references, outside the "
        "search."
    )
    table = framed("Every trial", caption, "Trial", _heads(columns), body)
    return f"<details><summary>{escape(result_text.tally(outcome))}</summary>{table}</details>"


def _line(row: DesignResult, columns: Sequence[tuple[str, str, Cell]]) -> str:
    cells = "".join(
        f'<td class="{style}">{cell(row)}</td>' if style else f"<td>{cell(row)}</td>"
        for _, style, cell in columns
    )
    number = "" if row.number is None or not row.name else f"<small> trial {row.number}</small>"
    mark = ' class="mark"' if row.name and row.number is not None else ""
    return f'<tr><th scope="row"><span{mark}>{words(row.label)}</span>{number}</th>{cells}</tr>'


def _heads(columns: Sequence[tuple[str, str, Cell]]) -> list[tuple[str, str]]:
    return [(title, style) for title, style, _ in columns]


def framed(
    label: str, caption: str, first: str, columns: Sequence[tuple[str, str]], body: str
) -> str:
    """A table that scrolls by itself; columns are (title, style), `body` holds its rows."""
    heads = "".join(
        f'<th scope="col"{f" class={style}" if style else ""}>{escape(title)}</th>'
        for title, style in columns
    )
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{label}"><table>'
        f"<caption><span>{escape(caption)}</span></caption>"
        f'<thead><tr><th scope="col">{first}</th>{heads}</tr></thead>{body}</table></div>'
    )


def _held_against(outcome: Outcome) -> str:
    said = f"Always naming the most frequent class: {result_text.majority(outcome)}."
    if outcome.ceilings:
        best = ", ".join(f"{name} {value:.1f} %" for name, value in outcome.ceilings.items())
        said += f" The best that these data allow: {best}."
    return f"<p>{words(said)}</p>"


def _size(row: DesignResult) -> str:
    macs = f"<small>{result_text.count(row.macs)} MACs</small>" if row.macs is not None else ""
    onnx = (
        f"<small>{result_text.size(row.onnx_bytes)}</small>" if row.onnx_bytes is not None else ""
    )
    return result_text.count(row.parameters) + macs + onnx


def _design(row: DesignResult) -> str:
    notes = [words(note) for note in (row.fidelity, row.shortened, row.folded, row.adapted) if note]
    return words(result_text.arrows(row.design)) + "".join(
        f"<small>{note}</small>" for note in notes
    )


def _state(row: DesignResult) -> str:
    notes = [row.reason] if row.reason else []
    if row.duplicate_of is not None:
        notes.append(f"same design as trial {row.duplicate_of}")
    return row.state + "".join(f"<small>{words(note)}</small>" for note in notes)


def _accuracy(value: Value | None, nonzero: Value | None) -> str:
    said = figure(result_text.percent(value))
    if nonzero is None:
        return said
    first, _, interval = result_text.percent(nonzero).partition(" ")
    return f"{said}<small>non-zero {first}</small><small>{interval}</small>"


def _tested(row: DesignResult) -> str:
    seeds = result_text.over_seeds(row)
    said = _accuracy(row.test_accuracy, row.test_accuracy_nonzero)
    return said + (f"<small>{seeds}</small>" if seeds else "")


def _heading(objective: Objective) -> str:
    return objective.words[0].upper() + objective.words[1:]


def _further(objective: Objective, row: DesignResult) -> str:
    value = row.figure(objective)
    return "" if value is None else f"{value.value:.4g}"


def _used(row: DesignResult) -> str:
    """Shapley values, and below them what is left without each modality."""
    if row.use is None:
        return ""
    shares = "".join(
        f"<div>{words(name)} {value.value:+.1f}"
        + ("" if value.low is None else f"<small>{value.low:+.1f} to {value.high:+.1f}</small>")
        + "</div>"
        for name, value in row.use.shapley.items()
    )
    left = [words(said) for said in result_text.without(row.use)]
    left.append(f"calibration error {row.use.ece:.3f}")
    return shares + "".join(f"<small>{said}</small>" for said in left)


def _chosen(outcome: Outcome) -> str:
    """The head of the column that the search chose by."""
    return "Cross-validated, %" if outcome.cv else "Valid, %"


def figure(said: str) -> str:
    """The figure, and its interval beneath it."""
    first, _, interval = said.partition(" ")
    return first + (f"<small>{interval}</small>" if interval else "")


def words(text: str) -> str:
    """Text as the page can hold it."""
    return escape(result_text.clean(text), quote=True)
