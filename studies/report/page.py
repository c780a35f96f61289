"""The page of a study."""

from collections.abc import Iterator
from pathlib import Path

from studies.report import document, front_plot, tables
from studies.report import history_plots as plots
from studies.report.ablation import section as ablation_section
from studies.report.plotting import Mark, Plot
from studies.results import text as result_text
from studies.results.outcome import Outcome


def render(outcome: Outcome) -> str:
    """Return one HTML page that needs nothing but itself: no network, no other file."""
    listed, front = ablation_section.section(outcome), front_plot.front(outcome)
    further = plots.further(outcome)
    drawn = [listed and listed.plot, front, *(plot for _, plot in further)]
    importances: list[tuple[str, Plot]] = []
    course = parallel = None
    if outcome.grid is None:
        course, parallel = plots.hypervolume(outcome), plots.parallel(outcome)
        importances = plots.importances(outcome)
        drawn += [course, *(plot for _, plot in importances), parallel]
    return document.render(
        "study.html.j2",
        [plot for plot in drawn if plot],
        outcome=outcome,
        tally=result_text.tally(outcome),
        rungs=result_text.rungs(outcome),
        emptiness=result_text.emptiness(outcome),
        summary=result_text.summary(outcome),
        how_to_read=result_text.how_to_read(outcome),
        listed=listed,
        front=front,
        front_legend=list(_legend(outcome)),
        further=further,
        designs=tables.designs(outcome),
        held_against=_held_against(outcome),
        course=course,
        reference_point=result_text.reference_point(outcome),
        volume_unit=result_text.volume_unit(outcome),
        importances=importances,
        no_importances=_no_importances(outcome),
        parallel=parallel,
        trials=tables.trials(outcome),
    )


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
    if any(row.state == "complete" for row in outcome.rows):
        yield Mark("faint", "faint", "other complete trial")
    if any(row.state == "infeasible" and row.latency for row in outcome.rows):
        yield Mark("infeasible", "infeasible", "infeasible trial, by latency")


def _held_against(outcome: Outcome) -> str:
    said = f"Always naming the most frequent class: {result_text.majority(outcome)}."
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
