"""A study's outcome as one self-contained web page."""

import base64
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import plotly.offline

from studies.report import front_plot, tables
from studies.report import history_plots as plots
from studies.report.ablation import plots as ablation_plots
from studies.report.ablation import section as ablation_section
from studies.report.assets import CSS, SCRIPT
from studies.report.plotting import Plot
from studies.results import text as result_text
from studies.results.outcome import Outcome

_SECTIONS = {
    "list": "What was compared",
    "front": "Accuracy against latency",
    "designs": "Designs in figures",
    "course": "Course of the search",
    "decisions": "What mattered",
    "trials": "Every trial",
    "conditions": "Conditions",
}
_MARKS = (
    ("front", "front, with 95 % intervals", '<circle cx="11" cy="7" r="4.5"/><path d="M0 7h22"/>'),
    ("seeded", "seeded design", '<path d="M11 0l7 7-7 7-7-7z"/>'),
    ("tuned", "fine-tuned whole, with their front", '<path d="M11 1l6 11h-12z"/>'),
    ("reference", "reference", '<path d="M6 2h10v10h-10z"/>'),
    ("faint", "other complete trial", '<circle cx="11" cy="7" r="4"/>'),
    ("infeasible", "infeasible trial, by latency", '<path d="M11 1v12"/>'),
)


def render(outcome: Outcome) -> str:
    """One HTML page that needs nothing but itself: no network, no other file."""
    sections, drawn = _sections(outcome)
    named = {key: (_SECTIONS[key], content) for key, content in sections.items()}
    return document(outcome.title, _header(outcome), named, drawn)


def document(
    title: str, header: str, sections: Mapping[str, tuple[str, str]], drawn: Sequence[Plot]
) -> str:
    """A whole page: `sections` are heading and content by key, `drawn` the plots in them."""
    body = "".join(
        f'<section aria-labelledby="{key}"><h2 id="{key}">{heading}</h2>{content}</section>'
        for key, (heading, content) in sections.items()
    )
    links = "".join(
        f'<li><a href="#{key}">{heading}</a></li>' for key, (heading, _) in sections.items()
    )
    navigation = f'<nav aria-label="Sections"><ul>{links}</ul></nav>'
    scripts = [_script(plotly.offline.get_plotlyjs()), _script(SCRIPT)] if drawn else []
    policy = _policy(scripts, compiles=any(plot.webgl for plot in drawn))
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark"><link rel="icon" href="data:,">'
        f"<title>{_words(title)}</title><style>{CSS}</style></head><body>"
        f"<header>{header}{navigation}</header><main>{body}</main>"
        + (f'<script type="application/json" id="plots">{_data(drawn)}</script>' if drawn else "")
        + "".join(f"<script>{script}</script>" for script in scripts)
        + "</body></html>\n"
    )


def _sections(outcome: Outcome) -> tuple[dict[str, str], list[Plot]]:
    """What the page holds, by section, and the plots in it.

    A fixed list is compared; the course of a search and what mattered in it it does not have.
    """
    listed, front = ablation_plots.plot(outcome), front_plot.front(outcome)
    drawn = [listed, front]
    found = (
        {} if outcome.grid is None else {"list": ablation_section.section(outcome, listed, figure)}
    )
    further = plots.further(outcome)
    drawn += [plot for _, plot in further]
    found["front"] = _front(outcome, front) + "".join(
        f"<h3>{_words(title)}</h3>{figure(plot)}" for title, plot in further
    )
    found["designs"] = _note(outcome) + tables.designs(outcome)
    if outcome.grid is None:
        course, bars = plots.hypervolume(outcome), plots.importances(outcome)
        parallel = plots.parallel(outcome)
        drawn += [course, *(plot for _, plot in bars), parallel]
        found["course"] = _course(outcome, course)
        found["decisions"] = _decisions(outcome, bars, parallel)
    found["trials"] = _note(outcome) + tables.trials(outcome)
    found["conditions"] = _conditions(outcome)
    return found, [plot for plot in drawn if plot]


def write(outcome: Outcome, path: Path) -> None:
    """Write the page of a study."""
    write_whole(render(outcome), path)


def write_whole(text: str, path: Path) -> None:
    """Write a page whole or not at all; folders on the way are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".page-{os.getpid()}.tmp")
    try:
        unfinished.write_text(text, encoding="utf-8", newline="\n")
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _header(outcome: Outcome) -> str:
    told = [escape(sentence) for sentence in result_text.how_to_read(outcome)]
    cautions = [f"<strong>Caution:</strong> {_words(caution)}" for caution in outcome.cautions]
    why, rungs = result_text.emptiness(outcome), result_text.rungs(outcome)
    return (
        f'<p class="study">Study {_words(outcome.study)}</p>'
        f"<h1>{_words(outcome.title)}</h1>"
        f"<p>Data: {_words(outcome.data_name)}</p>{_note(outcome)}"
        f"<p>{escape(result_text.tally(outcome))}.</p>"
        + (f"<p>{escape(rungs)}.</p>" if rungs else "")
        + (f"<p><strong>{escape(why)}</strong></p>" if why else "")
        + plain_list([*told, *cautions])
    )


def _note(outcome: Outcome) -> str:
    note = _words(outcome.data_note)
    return f'<p class="note" role="note">{note}</p>' if note else ""


def _front(outcome: Outcome, plot: Plot | None) -> str:
    if plot is None:
        return "<p>No design has both an accuracy and a latency yet.</p>"
    used = {
        "front": bool(outcome.front),
        "seeded": any(row.name and row.state == "complete" for row in outcome.rows),
        "tuned": bool(outcome.fine_tuned),
        "reference": bool(outcome.references),
        "faint": any(row.state == "complete" for row in outcome.rows),
        "infeasible": any(row.state == "infeasible" and row.latency for row in outcome.rows),
    }
    marks = "".join(
        f'<li><svg viewBox="0 0 22 14" aria-hidden="true" fill="var(--{name})" '
        f'stroke="var(--{name})" stroke-width="1.5">{shape}</svg>{words}</li>'
        for name, words, shape in _marks(outcome)
        if used[name]
    )
    return (
        "<p>Up is more accurate, left is faster. Dotted lines: what the majority class reaches"
        + (", and the best that these data allow" if outcome.ceilings else "")
        + f'.</p><ul class="legend">{marks}</ul>{figure(plot)}'
    )


def _marks(outcome: Outcome) -> Iterator[tuple[str, str, str]]:
    """Colour, words and shape of what the front's plot shows."""
    for name, words, shape in _MARKS:
        listed = name == "seeded" and outcome.grid is not None
        yield name, "design of the list" if listed else words, shape


def _course(outcome: Outcome, plot: Plot | None) -> str:
    if plot is None:
        return "<p>No hypervolume: it takes a reference point and two complete designs.</p>"
    against = ""
    if outcome.reference_point:
        against = f" against the reference point {result_text.reference_point(outcome)}"
    return (
        f"<p>Hypervolume{against}: what the front dominates, in "
        f"{escape(result_text.volume_unit(outcome))}; more is better. "
        "Diamonds are seeded designs.</p>"
        f"{figure(plot)}"
    )


def _decisions(outcome: Outcome, bars: Sequence[tuple[str, Plot]], lines: Plot | None) -> str:
    if bars:
        charts = "".join(f"<div><h3>{_words(name)}</h3>{figure(plot)}</div>" for name, plot in bars)
        said = "<p>Share of each objective's variation that a decision accounts for.</p>"
        said += f'<div class="pair">{charts}</div>'
    else:
        said = f"<p>{escape(_no_importances(outcome))}</p>"
    if lines is None:
        return said
    return (
        f"{said}<h3>All complete designs</h3><p>One line is one trial; the darker (in the dark "
        "look: the lighter), the more accurate. Drag along an axis to keep only the lines that "
        "pass there. Decisions that never vary are left out.</p>" + figure(lines)
    )


def _no_importances(outcome: Outcome) -> str:
    complete = [row for row in outcome.rows if row.state == "complete"]
    if len(complete) < 2:
        return f"No importances: they compare complete trials, and there are {len(complete)}."
    if len({row.accuracy.value for row in complete if row.accuracy}) < 2:
        return "No importances: every complete trial reached the same accuracy."
    return "No importances: none were worked out for this study."


def _conditions(outcome: Outcome) -> str:
    if not outcome.conditions:
        return "<p>None were recorded.</p>"
    items = "".join(
        f"<dt>{_words(label)}</dt><dd>{_words(words)}</dd>"
        for label, words in outcome.conditions.items()
    )
    return f"<dl>{items}</dl>"


def figure(plot: Plot) -> str:
    """Where a plot is drawn, with words for those who cannot see it."""
    drawing = f'<div id="plot-{plot.key}" role="img" aria-label="{_words(plot.summary)}"></div>'
    if plot.min_width:
        drawing = (
            f'<div class="scroll" tabindex="0" role="region" aria-label="Wide plot">{drawing}</div>'
        )
    return f"<figure>{drawing}<noscript>Plots need scripts; the tables do not.</noscript></figure>"


def plain_list(items: Iterable[str]) -> str:
    """A list of HTML items."""
    return '<ul class="plain">' + "".join(f"<li>{item}</li>" for item in items) + "</ul>"


def _words(text: str) -> str:
    return escape(result_text.clean(text), quote=True)


def _data(drawn: Sequence[Plot]) -> str:
    """The plots as JSON that cannot end the script element that it stands in."""
    text = json.dumps([_plain(plot) for plot in drawn], allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _plain(plot: Plot) -> dict[str, Any]:
    figure = plot.figure.to_plotly_json()
    return {
        "key": f"plot-{plot.key}",
        "data": figure["data"],
        "layout": figure["layout"],
        "height": plot.height,
        "minWidth": plot.min_width,
        "still": plot.still,
        "webgl": plot.webgl,
        "labels": [
            {"text": label.text, "x": label.x, "y": label.y, "color": label.colour}
            | {"line": label.line}
            for label in plot.labels
        ],
    }


def _script(text: str) -> str:
    """Text as it stands in the page: the policy's hash is over exactly this."""
    return text.replace("\r\n", "\n").replace("\r", "\n").replace("</script", "<\\/script")


def _policy(scripts: Sequence[str], compiles: bool) -> str:
    """Only these scripts, and nothing from elsewhere; plotly's WebGL compiles code of its own."""
    digests = [base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in scripts]
    sources = " ".join(f"'sha256-{digest}'" for digest in digests) or "'none'"
    sources += " 'unsafe-eval'" if compiles else ""
    return (
        f"default-src 'none'; script-src {sources}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )
