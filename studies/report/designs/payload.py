"""All designs of a study as plain values for the page's script: each text and shape once."""

from collections.abc import Hashable, Iterator, Mapping
from typing import Any

from studies.report.designs.drawing import WIDTH, Shape, draw
from studies.report.designs.facts import facts
from studies.results.outcome import DesignResult, Outcome
from studies.results.text import clean


def key_of(row: DesignResult) -> str:
    """What a design is called in links of its page: its trial's number, or a reference's name."""
    return clean(row.name) if row.number is None else str(row.number)


def shown(outcome: Outcome) -> list[DesignResult]:
    """The designs that have a drawing or facts of their own: trials, then references."""
    return [*outcome.rows, *outcome.references]


def payload(outcome: Outcome, certain: Mapping[int, float]) -> dict[str, Any]:
    """Designs in order, each as [key, label, height, shapes, facts].

    shapes are indices into `shapes`; facts are pairs of indices into `words`. A design without a
    stored genotype has the height 0 and no shapes.
    """
    words, shapes = _Numbered(), _Numbered()
    designs = []
    for row in shown(outcome):
        drawing = None if row.genotype is None else draw(row.genotype, row.parts)
        told = [words.of(clean(part)) for pair in facts(row, outcome, certain) for part in pair]
        drawn = [] if drawing is None else [shapes.of(_plain(shape)) for shape in drawing.shapes]
        height = 0 if drawing is None else drawing.height
        designs.append([key_of(row), clean(row.label), height, drawn, told])
    return {
        "width": WIDTH,
        "words": list(words),
        "shapes": list(shapes),
        "designs": designs,
    }


def _plain(shape: Shape) -> tuple[Any, ...]:
    text = (shape.text,) if shape.text else ()
    return (shape.kind, shape.style, *shape.at, *text)


class _Numbered:
    """Values in the order of their first use."""

    def __init__(self) -> None:
        self._numbers: dict[Hashable, int] = {}

    def of(self, value: Hashable) -> int:
        return self._numbers.setdefault(value, len(self._numbers))

    def __iter__(self) -> Iterator[Hashable]:
        return iter(self._numbers)
