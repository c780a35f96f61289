"""The page of a study."""

import base64
import gzip
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from studies.report import document, front_plot, tables
from studies.report import history_plots as plots
from studies.report.ablation import section as ablation_section
from studies.report.designs import analysis
from studies.report.designs.notation import notation
from studies.report.designs.payload import payload, shown
from studies.report.plotting import Mark
from studies.results import text as result_text
from studies.results.analysis import boards_in_words, certainty
from studies.results.analysis.certainty import non_dominated
from studies.results.analysis.columns import as_csv
from studies.results.outcome import Outcome
from studies.results.text import clean


def render(outcome: Outcome) -> str:
    """Return one HTML page that needs nothing but itself: no network, no other file."""
    listed, front = ablation_section.section(outcome), front_plot.front(outcome)
    further = plots.further(outcome)
    # Designs are compared by accuracy and latency alone.
    certain = {} if outcome.goals.more else non_dominated(outcome.rows)
    drawn = [front, listed and listed.plot, *(plot for _, plot in further)]
    search = {} if outcome.grid else _search(outcome)
    drawn += search.pop("drawn", [])
    return document.render(
        "study.html.j2",
        [plot for plot in drawn if plot],
        data=_data(outcome, certain),
        outcome=outcome,
        tally=result_text.tally(outcome),
        rungs=result_text.rungs(outcome),
        emptiness=result_text.emptiness(outcome),
        summary=result_text.summary(outcome),
        how_to_read=result_text.how_to_read(outcome),
        probability=certainty.DEFINITION if certain else "",
        notation=notation([row.genotype for row in shown(outcome) if row.genotype]),
        listed=listed,
        front=front,
        front_legend=list(_legend(outcome)),
        boards=[] if outcome.boards is None else list(boards_in_words.paragraphs(outcome.boards)),
        further=further,
        designs=tables.designs(outcome, certain),
        close=analysis.close_to_front(outcome, certain),
        misses=analysis.misses(outcome),
        held_against=_held_against(outcome),
        no_importances=_no_importances(outcome),
        trials=tables.trials(outcome, certain),
        file=re.sub(r"[^\w.-]+", "-", clean(outcome.study)) or "study",
        **search,
    )


def _search(outcome: Outcome) -> dict[str, Any]:
    """What a page shows of a search and not of a list: its course, and what mattered."""
    course, over_time = plots.hypervolume(outcome), plots.hypervolume_over_time(outcome)
    importances, parallel = plots.importances(outcome), plots.parallel(outcome)
    return {
        "drawn": [course, over_time, *(plot for _, plot in importances), parallel],
        "course": course,
        "over_time": over_time,
        "budget": analysis.time_spent(outcome),
        "reference_point": result_text.reference_point(outcome),
        "volume_unit": result_text.volume_unit(outcome),
        "importances": importances,
        "parallel": parallel,
        "choices": analysis.choices(outcome),
    }


def _data(outcome: Outcome, certain: Mapping[int, float]) -> str:
    """The designs for the page's script, with the CSV file: JSON, gzip, base64; empty for none."""
    if not shown(outcome):
        return ""
    found = {**payload(outcome, certain), "csv": as_csv(outcome)}
    text = json.dumps(found, allow_nan=False, separators=(",", ":"))
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()


def write(outcome: Outcome, path: Path) -> None:
    """Write the page of a study."""
    document.write_whole(render(outcome), path)


def _legend(outcome: Outcome) -> Iterator[Mark]:
    """Yield what the front's plot shows."""
    if outcome.front:
        yield Mark("front", "front", "front, with 95 % intervals")
    if any(row.name and row.state == "complete" for row in outcome.rows):
        words = "seeded design" if outcome.grid is None else "design of the list"
        yield Mark("seeded", "seeded", words)
    if outcome.fine_tuned:
        yield Mark("tuned", "tuned", "fine-tuned whole, with their front")
    if outcome.references:
        yield Mark("reference", "reference", "reference")
    complete = (row for row in outcome.rows if row.state == "complete" and not row.name)
    if any(row not in outcome.front for row in complete):
        yield Mark("faint", "faint", "other complete trial")
    if any(row.state == "infeasible" and row.latency for row in outcome.rows):
        yield Mark("infeasible", "infeasible", "infeasible trial, by latency")


def _held_against(outcome: Outcome) -> str:
    said = (
        f"Always predicting the most frequent {result_text.most_frequent(outcome)}: "
        f"{result_text.majority(outcome)}."
    )
    if outcome.ceilings:
        best = ", ".join(f"{name} {value:.1f} %" for name, value in outcome.ceilings.items())
        said += f" The best that these data allow: {best}."
    return said


def _no_importances(outcome: Outcome) -> str:
    complete = [row for row in outcome.rows if row.state == "complete"]
    if len(complete) < 2:
        return f"No importances: they compare complete trials, and there are {len(complete)}."
    if len({row.accuracy.value for row in complete if row.accuracy}) < 2:
        return "No importances: every complete trial reached the same accuracy."
    return "No importances: none were worked out for this study."
