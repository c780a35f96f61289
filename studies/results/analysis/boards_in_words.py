"""What is said of designs timed on several boards, on screen, page and in JSON."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from studies.results import text as result_text
from studies.results.outcome import DesignResult, GoodOnAll, OnBoards, Ranks
from studies.results.pareto import point
from studies.results.text import clean, counted

MOST_LISTED = 10
"""Designs good on all boards that are printed; JSON holds them all."""


@dataclass(frozen=True)
class Paragraph:
    """A heading and the lines below it."""

    head: str
    lines: tuple[str, ...]


def rank_words(ranks: Ranks, first: str = "", second: str = "") -> str:
    """Kendall's tau of two places in words, with the number of designs.

    `first` and `second` are what the places are called, where not by their letters.
    """
    a, b = first or ranks.first, second or ranks.second
    said = f"{a} and {b}: {counted(ranks.shared, 'shared design')} timed"
    if ranks.tau is not None:
        said += f", Kendall's tau of their latencies {ranks.tau:.2f}"
    elif ranks.shared:
        said += ", too few (or all alike) for Kendall's tau"
    if ranks.times_slower is not None:
        said += f"; median latency of {b} over {a} {ranks.times_slower:.2f}"
    return said + "."


def paragraphs(found: OnBoards) -> Iterator[Paragraph]:
    """Yield the front of each board, how the boards rank designs, and what is good on all."""
    names = {each.letter: each.board for each in found.fronts}
    for each in found.fronts:
        lines = tuple(_row(row, found, names) for row in each.front)
        yield Paragraph(
            f"Front on {each.board}, fastest first", lines or ("No design is complete.",)
        )
    ranks = tuple(rank_words(r, names[r.first], names[r.second]) for r in found.ranks)
    yield Paragraph("Latencies between boards", ranks)
    yield Paragraph("Good on all boards", tuple(_good(found)))


def _row(row: DesignResult, found: OnBoards, names: dict[str, str]) -> str:
    everywhere = []
    key = row.genotype.key if row.genotype else ""
    for place in found.fronts:
        same = place.designs.get(key)
        if same is not None and same.latency is not None:
            everywhere.append(f"{result_text.ms(same.latency.value)} ms on {place.board}")
    times = ", ".join(everywhere) or f"{result_text.ms(point(row)[1])} ms"
    said = f"{clean(row.label)}: {result_text.percent(row.accuracy, '-')} %, {times}"
    return f"{said}; {result_text.load(row)}" if row.crowded else said


def _good(found: OnBoards) -> Iterator[str]:
    of = f"of {counted(found.complete, 'complete design')}"
    if not found.good:
        yield f"None {of}."
        return
    yield (
        f"{len(found.good)} {of}: on the front of each board, or not decidedly worse than a "
        "design of it."
    )
    for each in found.good[:MOST_LISTED]:
        yield f"{clean(each.rows[0].label)}: {_places(each, found)}"
    if len(found.good) > MOST_LISTED:
        yield f"And {len(found.good) - MOST_LISTED} more (--json)."


def _places(good: GoodOnAll, found: OnBoards) -> str:
    places = []
    for place, row, on_front in zip(found.fronts, good.rows, good.on_front, strict=True):
        at = f"{result_text.ms(point(row)[1])} ms on {place.board}"
        places.append(f"{at}{', front' if on_front else ''}")
    return f"{result_text.percent(good.rows[0].accuracy, '-')} %, {'; '.join(places)}"


def as_json(found: OnBoards) -> dict[str, Any]:
    """Return what was found as plain JSON values; designs by the number of their trial."""
    names = {each.letter: each.board for each in found.fronts}
    return {
        "fronts": {each.board: [row.number for row in each.front] for each in found.fronts},
        "latency_ranks": [
            {
                "boards": [names[ranks.first], names[ranks.second]],
                "shared_designs": ranks.shared,
                "kendall_tau": ranks.tau,
                "median_times_slower": ranks.times_slower,
            }
            for ranks in found.ranks
        ],
        "complete_designs": found.complete,
        "good_on_all": [
            {"trial": each.rows[0].number, "on_front": list(each.on_front)} for each in found.good
        ],
    }
