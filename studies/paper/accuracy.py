"""The published designs trained and tested by one protocol, compared with each other."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

from evaluators.statistics.paired import Correct, Paired, correct_from, paired
from search_space.space.paper import SeededDesign, Stage
from studies.paper.timing import ratio
from studies.report.progress import Reporter
from studies.results.outcome import DesignResult, Outcome, Split, Verdict
from studies.results.verdict import CorrectBySplit, Judged, judged, split_of, verdict, verdict_on
from studies.study.context import StudyContext
from studies.study.final.final_test import Reference, reference_rows, testers


@dataclass(frozen=True)
class Line:
    """One design of the table.

    ratio, published_ratio: its latency over that of late fusion with the same vision encoder, here
    and in the paper. to_late, to_text: its accuracy less that of late fusion and of text alone,
    over the same samples. Each is None where a figure for it is missing.
    """

    row: DesignResult
    correct: Correct | None
    ratio: float | None
    published_ratio: float | None
    to_late: Paired | None
    to_text: Paired | None
    verdict: Verdict | None

    @property
    def stage(self) -> Stage:
        """Where the design fuses."""
        return parted(self.row.name)[0]


def judge_designs(
    context: StudyContext, designs: Sequence[SeededDesign], reporter: Reporter
) -> tuple[Judged, ...]:
    """Each design timed, trained and tested with every seed of the settings.

    What the evaluation store knows is not done again, so an interrupted table goes on where it
    was. Test is looked at for all of them: nothing is chosen here.
    """
    by_seed = testers(context.quality, context.settings.training.seeds)
    found = []
    for k, seeded in enumerate(designs, start=1):
        rows, correct = reference_rows(context, by_seed, [Reference.published(seeded)])
        found.append(Judged(rows[0], correct_from(correct["test"][seeded.name])))
        test = rows[0].test_accuracy
        said = "" if test is None else f": {test.value:.1f} % on test"
        reporter.trial(k, len(designs), f"{seeded.name}{said}")
    return tuple(found)


def named_in(
    outcome: Outcome, correct: CorrectBySplit
) -> tuple[tuple[Judged, ...], dict[str, Verdict | None], Split]:
    """The published designs of a study and its references, verdicts by name, and the split of all.

    They are compared with the front of the study and with the references. Table and verdicts
    are on test where every design concerned was looked at there, else on validation.
    """
    named = [row for row in outcome.rows if row.duplicate_of is None and is_published(row.name)]
    rows = [*named, *(row for row in outcome.references if is_published(row.name))]
    held = (*outcome.front, *outcome.references)
    trained = [row for row in rows if row.state == "complete"]
    split = split_of((*trained, *held), correct) or "valid"
    verdicts = {row.name: verdict_on(split, row, held, correct) for row in rows}
    return tuple(judged(row, correct[split]) for row in rows), verdicts, split


def lines_of(designs: Sequence[Judged], verdicts: Mapping[str, Verdict | None]) -> tuple[Line, ...]:
    """The table's lines; verdicts by the designs' names."""
    by_name = {design.row.name: design for design in designs}
    first_late = next((d for d in designs if parted(d.row.name)[0] == "late"), None)
    lines = []
    for design in designs:
        vision = parted(design.row.name)[1]
        late = by_name.get(f"late-{vision}") if vision else first_late
        text = by_name.get("text-only")
        lines.append(
            Line(
                design.row,
                design.correct,
                ratio(_ms(design.row), _ms(late.row if late else None)),
                ratio(
                    design.row.published_latency_ms, late.row.published_latency_ms if late else None
                ),
                _difference(design, late),
                _difference(design, text),
                verdicts.get(design.row.name),
            )
        )
    return tuple(lines)


def verdicts_among(designs: Sequence[Judged], split: Split) -> dict[str, Verdict | None]:
    """Each design compared with all others, by name."""
    return {
        design.row.name: verdict(design, [other for other in designs if other is not design], split)
        for design in designs
    }


def is_published(name: str) -> bool:
    """Whether a name is that of a published design, as published or adapted."""
    try:
        parted(name)
    except ValueError:
        return False
    return True


def parted(name: str) -> tuple[Stage, str]:
    """A design's stage and what its name says of the vision encoder. Raises ValueError."""
    stages: tuple[Stage, ...] = get_args(Stage)
    for stage in stages:
        if name == stage or name.startswith(f"{stage}-"):
            return stage, name[len(stage) + 1 :]
    raise ValueError(f"{name} is none of the published designs")


def _ms(row: DesignResult | None) -> float | None:
    return None if row is None or row.latency is None else row.latency.value


def _difference(own: Judged, other: Judged | None) -> Paired | None:
    """Its accuracy less the other's; None for the other itself."""
    if other is None or other is own or own.correct is None or other.correct is None:
        return None
    return paired(own.correct, other.correct)
