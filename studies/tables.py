"""The tables of a study's page."""

from collections.abc import Callable, Sequence
from html import escape

from studies import wording
from studies.outcome import Outcome, Row, Value

Cell = Callable[[Row], str]


def designs(outcome: Outcome) -> str:
    """The front, the seeded designs behind it, the references, and what they are held against."""
    front = list(outcome.front)
    shown = {row.number for row in front}
    seeded = [row for row in outcome.rows if row.name and row.number not in shown]
    groups = (
        ("On the front, fastest first", front),
        ("Seeded designs that are not on the front", seeded),
        ("References, outside the search", list(outcome.references)),
    )
    if not any(rows for _, rows in groups):
        return "<p>There is no design to show yet.</p>"
    columns: list[tuple[str, str, Cell]] = [
        ("Valid, %", "number", lambda r: _accuracy(r.accuracy, r.accuracy_nonzero)),
        ("Test, %", "number", lambda r: _accuracy(r.test_accuracy, r.test_accuracy_nonzero)),
        ("Latency, ms", "number", lambda r: _value(wording.milliseconds(r.latency))),
        ("Parameters, MACs, ONNX", "number", _size),
        ("Where it stands", "said", lambda r: escape(wording.standing_of(r, outcome))),
        ("In words", "words", _design),
    ]
    if any(wording.published(row) for _, rows in groups for row in rows):
        heading = f"Published, {wording.SOURCE_OF_PUBLISHED}"
        columns.insert(
            5, (heading, "", lambda r: escape(wording.published(r)).replace(" ms", "&nbsp;ms"))
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
    return _table("Designs", caption, "Design", columns, body) + _held_against(outcome)


def trials(outcome: Outcome) -> str:
    """Every trial, folded away."""
    if not outcome.rows:
        return "<p>No trial has been run yet.</p>"
    columns: list[tuple[str, str, Cell]] = [
        ("State", "said", _state),
        ("Valid, %", "number", lambda r: _value(wording.percent(r.accuracy))),
        ("Test, %", "number", lambda r: _value(wording.percent(r.test_accuracy))),
        ("Latency, ms", "number", lambda r: _value(wording.milliseconds(r.latency))),
        ("Parameters", "number", lambda r: wording.count(r.parameters)),
        ("Fidelity", "", lambda r: _words(r.fidelity)),
        ("In words", "words", lambda r: _words(wording.arrows(r.design))),
    ]
    body = "<tbody>" + "".join(_line(row, columns) for row in outcome.rows) + "</tbody>"
    caption = "Every trial in the order in which it was asked for."
    table = _table("Every trial", caption, "Trial", columns, body)
    return f"<details><summary>{escape(wording.tally(outcome))}</summary>{table}</details>"


def _line(row: Row, columns: Sequence[tuple[str, str, Cell]]) -> str:
    cells = "".join(
        f'<td class="{style}">{cell(row)}</td>' if style else f"<td>{cell(row)}</td>"
        for _, style, cell in columns
    )
    number = "" if row.number is None or not row.name else f"<small> trial {row.number}</small>"
    mark = ' class="mark"' if row.name and row.number is not None else ""
    return f'<tr><th scope="row"><span{mark}>{_words(row.label)}</span>{number}</th>{cells}</tr>'


def _table(
    label: str, caption: str, first: str, columns: Sequence[tuple[str, str, Cell]], body: str
) -> str:
    heads = "".join(
        f'<th scope="col"{f" class={style}" if style else ""}>{escape(title)}</th>'
        for title, style, _ in columns
    )
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{label}"><table>'
        f"<caption><span>{escape(caption)}</span></caption>"
        f'<thead><tr><th scope="col">{first}</th>{heads}</tr></thead>{body}</table></div>'
    )


def _held_against(outcome: Outcome) -> str:
    valid, test = outcome.majority
    said = (
        f"Always naming the most frequent class: {valid:.1f} % of validation, {test:.1f} % of test."
    )
    if outcome.ceilings:
        best = ", ".join(f"{name} {value:.1f} %" for name, value in outcome.ceilings.items())
        said += f" The best that these data allow: {best}."
    return f"<p>{_words(said)}</p>"


def _size(row: Row) -> str:
    macs = f"<small>{wording.count(row.macs)} MACs</small>" if row.macs is not None else ""
    onnx = f"<small>{wording.size(row.onnx_bytes)}</small>" if row.onnx_bytes is not None else ""
    return wording.count(row.parameters) + macs + onnx


def _design(row: Row) -> str:
    notes = [_words(note) for note in (row.fidelity, row.shortened, row.carried_over) if note]
    return _words(wording.arrows(row.design)) + "".join(f"<small>{note}</small>" for note in notes)


def _state(row: Row) -> str:
    notes = [row.reason] if row.reason else []
    if row.duplicate_of is not None:
        notes.append(f"same design as trial {row.duplicate_of}")
    return row.state + "".join(f"<small>{_words(note)}</small>" for note in notes)


def _accuracy(value: Value | None, nonzero: Value | None) -> str:
    said = _value(wording.percent(value))
    if nonzero is None:
        return said
    figure, _, interval = wording.percent(nonzero).partition(" ")
    return f"{said}<small>non-zero {figure}</small><small>{interval}</small>"


def _value(said: str) -> str:
    """The figure, and its interval beneath it."""
    figure, _, interval = said.partition(" ")
    return figure + (f"<small>{interval}</small>" if interval else "")


def _words(text: str) -> str:
    return escape(wording.clean(text), quote=True)
