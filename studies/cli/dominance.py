"""A fixed list of designs on two sets of data: does the order of the designs turn over?"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from evaluators.statistics.paired import Paired
from studies.config.paths import check_page, default_page
from studies.config.settings import Settings
from studies.report import page as pages
from studies.report.json_output import as_json, paired_as_json
from studies.report.progress import Reporter
from studies.results import text as result_text
from studies.results.ablation import difference_of, listed
from studies.results.outcome import DesignResult, GridPoint, Outcome, Value
from studies.results.study_outcome import outcome_of
from studies.study.run import run_to_end

Kind = Literal["turns over", "does not turn over", "not decided"]


@dataclass(frozen=True)
class Turn:
    """One design against the one that it is compared with, on both sets.

    first, second: how much more accurate it is on each. more: the second difference less the
    first, with a 95 % interval; the sets are independent, so their variances add.
    """

    place: str
    against: str
    first: Paired
    second: Paired

    @property
    def more(self) -> Value:
        """By how many points the difference is greater on the second set."""
        value = self.second.points - self.first.points
        down = math.hypot(self.second.points - self.second.low, self.first.high - self.first.points)
        up = math.hypot(self.second.high - self.second.points, self.first.points - self.first.low)
        return Value(value, value - down, value + up)

    @property
    def kind(self) -> Kind:
        """What of it is decided: the order turns over where both are, in opposite directions."""
        if not (self.first.significant and self.second.significant):
            return "not decided"
        opposite = self.first.points * self.second.points < 0
        return "turns over" if opposite else "does not turn over"


@dataclass(frozen=True)
class SideBySide:
    """One fixed list on two sets of data."""

    first: Outcome
    second: Outcome

    @property
    def turns(self) -> tuple[Turn, ...]:
        """For each design that is compared with another and known on both sets."""
        found = []
        known = {(p.series, p.at): p for p, _ in listed(self.second)}
        for point, _ in listed(self.first):
            other = known.get((point.series, point.at))
            if other is None:
                continue
            here, there = difference_of(self.first, point), difference_of(self.second, other)
            if here is not None and there is not None:
                found.append(Turn(_place(point), point.against, here, there))
        return tuple(found)


def _place(point: GridPoint) -> str:
    return f"{point.series}, {point.at}"


def run_side_by_side(settings: Settings, reporter: Reporter) -> SideBySide:
    """Both studies at their ends, each with its page. Raises what `run_to_end` raises."""
    space = settings.space.name or ("paper" if settings.data.built_in is None else "demo")
    first = settings.with_options({"space": space})
    name = None if settings.name is None else f"{settings.name}-beside"
    second = first.with_options(
        {"data": settings.data.beside, "accept_faults": False, "name": name}
    )
    outcomes = []
    for each in (first, second):
        study = run_to_end(each, reporter, lambda name: check_page(default_page(name)))
        target = default_page(study.study_name)
        outcome = outcome_of(study)
        pages.write(outcome, target)
        reporter.line(f"page: {target}")
        outcomes.append(outcome)
    return SideBySide(*outcomes)


def told(found: SideBySide) -> Iterator[str]:
    """Both sets side by side, in lines: each design, then whether its order turns over."""
    for outcome in (found.first, found.second):
        yield ""
        yield f"{outcome.data_name} (majority {result_text.majority(outcome)})"
        for point, row in listed(outcome):
            yield f"  {_place(point)}: {_figures(outcome, point, row)}"
    yield ""
    for turn in found.turns:
        bounds = f"{turn.more.low:+.1f} to {turn.more.high:+.1f}"
        yield (
            f"{turn.place}, against {turn.against}: {result_text.difference(turn.first)} on "
            f"{found.first.data_name}, {result_text.difference(turn.second)} on "
            f"{found.second.data_name}; {turn.more.value:+.1f} points more ({bounds}): {turn.kind}"
        )
    if not found.turns:
        yield "No design is known on both sets yet: the same command goes on."


def _figures(outcome: Outcome, point: GridPoint, row: DesignResult) -> str:
    accuracy = row.test_accuracy or row.accuracy
    parts = [
        f"{result_text.percent(accuracy, '-')} %",
        f"{result_text.milliseconds(row.latency, '-')} ms",
    ]
    if row.use is not None:
        parts += [
            f"{modality} {share.value:+.1f} points ({share.low:+.1f} to {share.high:+.1f})"
            for modality, share in row.use.shapley.items()
        ]
    return "; ".join(parts)


def side_by_side_json(found: SideBySide) -> dict[str, Any]:
    """Both studies whole, and what is asked of them."""
    return {
        "first": as_json(found.first),
        "second": as_json(found.second),
        "turns": [_turn_json(turn) for turn in found.turns],
    }


def _turn_json(turn: Turn) -> Mapping[str, Any]:
    return {
        "place": turn.place,
        "against": turn.against,
        "first_points": paired_as_json(turn.first),
        "second_points": paired_as_json(turn.second),
        "more_points": {"value": turn.more.value, "low": turn.more.low, "high": turn.more.high},
        "kind": turn.kind,
    }
