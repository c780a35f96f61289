"""Tables of what the rows say together: near misses, choices, and where time went."""

from collections.abc import Mapping, Sequence
from itertools import groupby

from studies.report.designs.facts import latency_tail, probability
from studies.report.designs.payload import key_of
from studies.report.tables import PROBABILITY, Cell, Group, Row, Table, figure
from studies.results import text as result_text
from studies.results.analysis.budget import budget
from studies.results.analysis.effects import Effect, effects
from studies.results.outcome import DesignResult, Outcome

CLOSEST = 8
MOST_MISSES = 12
FIRST_DECISIONS = 6


def close_to_front(outcome: Outcome, certain: Mapping[int, float]) -> Table | None:
    """The designs off the front that are most probably not dominated; None without any."""
    front = {row.number for row in outcome.front}
    off = [row for row in outcome.rows if row.number in certain and row.number not in front]
    off.sort(key=lambda row: -certain[row.number or 0])
    rows = [
        Row(
            row.label,
            [
                Cell(probability(row, certain)),
                figure(result_text.percent_parts(row.accuracy)),
                figure(result_text.milliseconds_parts(row.latency), latency_tail(row)),
                Cell(result_text.arrows(row.design)),
            ],
            key=key_of(row),
        )
        for row in off[:CLOSEST]
    ]
    if not rows:
        return None
    columns = [
        (PROBABILITY, "number"),
        ("Accuracy, %", "number"),
        ("Latency, ms", "number"),
        ("In words", "words"),
    ]
    caption = f"Complete designs off the front: the {len(rows)} most probably not dominated."
    return Table("Close to the front", caption, "Design", columns, [Group("", rows)])


def misses(outcome: Outcome) -> Table | None:
    """Trials that are not complete, by state, those nearest to the latency limit first."""
    limit = outcome.latency_limit_ms

    def order(row: DesignResult) -> tuple[int, str, float, int]:
        first = ("infeasible", "unstable", "untrained", "failed", "stopped").index(row.state)
        far = float("inf") if row.latency is None else row.latency.value - (limit or 0.0)
        return first, row.state, far, row.number or 0

    missed = sorted((row for row in outcome.rows if row.state != "complete"), key=order)
    groups = []
    for state, found in groupby(missed, key=lambda row: row.state):
        rows = list(found)
        shown = [_missed(row, limit) for row in rows[:MOST_MISSES]]
        more = f", {MOST_MISSES} of them here" if len(rows) > MOST_MISSES else ""
        groups.append(Group(f"{len(rows)} {state}{more}", shown))
    if not groups:
        return None
    columns = [("Why", "said"), ("Latency, ms", "number"), ("In words", "words")]
    caption = "Trials that are not complete, and so cannot be on the front."
    if limit is not None:
        caption += f" Those nearest to the latency limit of {limit:g} ms come first."
    return Table("Trials that are not complete", caption, "Trial", columns, groups)


def choices(outcome: Outcome) -> tuple[Table | None, Table | None]:
    """What each choice brings: of the most important decisions, and of all others."""
    weight = {
        name: sum(shares.get(name, 0.0) for shares in outcome.importances.values())
        for shares in outcome.importances.values()
        for name in shares
    }
    found = sorted(effects(outcome.rows), key=lambda e: -weight.get(e.decision, 0.0))
    by_decision = {
        name: list(group) for name, group in groupby(found, key=lambda each: each.decision)
    }
    names = list(by_decision)
    first, rest = names[:FIRST_DECISIONS], names[FIRST_DECISIONS:]
    return (
        _choices("Gain and cost of the most important decisions", by_decision, first),
        _choices("Gain and cost of the other decisions", by_decision, rest),
    )


def time_spent(outcome: Outcome) -> Table | None:
    """Where the time of the trials went; None where it is not recorded."""
    found = budget(outcome.rows)
    if found is None:
        return None
    total = sum(found.seconds.values()) or 1.0
    rows = [
        Row(stage, [Cell(duration(seconds)), Cell(f"{100 * seconds / total:.0f} %")])
        for stage, seconds in found.seconds.items()
    ]
    caption = (
        f"{result_text.counted(found.trials, 'trial')} in {duration(found.active_s)}, without "
        "the time in which no trial ran."
    )
    if found.recorded < found.trials:
        caption += (
            f" Stages are recorded of {found.recorded}: the others were made by an earlier "
            "version, took their results from the cache, or ended before the first stage."
        )
    columns = [("Time", "number"), ("Share", "number")]
    return Table("Time budget", caption, "Stage", columns, [Group("", rows)])


def duration(seconds: float) -> str:
    """`12.3 s`, `4 min 05 s` or `2 h 14 min`."""
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def _missed(row: DesignResult, limit: float | None) -> Row:
    over = ""
    if limit is not None and row.latency is not None and row.latency.value > limit:
        over = f"+{result_text.ms(row.latency.value - limit)}"
    cells = [
        Cell(row.reason),
        figure(result_text.milliseconds_parts(row.latency), over),
        Cell(result_text.arrows(row.design)),
    ]
    return Row(row.label, cells, key=key_of(row))


def _choices(
    label: str, found: Mapping[str, Sequence[Effect]], names: Sequence[str]
) -> Table | None:
    groups = [Group(name.replace("_", " "), [_choice(e) for e in found[name]]) for name in names]
    if not groups:
        return None
    caption = (
        "Mean accuracy of the complete designs with a choice minus that of all others, and the "
        "ratio of their geometric mean latencies, with 95 % intervals (Welch). Not adjusted for "
        "other decisions or for the number of comparisons; the sampler prefers good designs."
    )
    columns = [("Designs", "number"), ("Accuracy, points", "number"), ("Latency", "number")]
    return Table(label, caption, "Choice", columns, groups)


def _choice(effect: Effect) -> Row:
    points, ratio = effect.points, effect.ratio
    cells = [
        Cell(str(effect.designs)),
        Cell(f"{points.value:+.1f}", (f"({points.low:+.1f} to {points.high:+.1f})",)),
        Cell(f"{ratio.value:.2f}x", (f"({ratio.low:.2f} to {ratio.high:.2f})",)),
    ]
    return Row(effect.choice, cells)
