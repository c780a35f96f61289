"""How a study's values are put into words, alike on screen and page."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import TYPE_CHECKING

from studies.results.outcome import (
    DesignResult,
    FineTuned,
    ModalityUse,
    Outcome,
    Standing,
    Summary,
    Value,
    Verdict,
)

if TYPE_CHECKING:  # it loads NumPy, and commands that show no study start without
    from evaluators.statistics.paired import Paired

NEAREST_MISSES = 3
SOURCE_OF_PUBLISHED = "arXiv 2511.21889"


def clean(text: str) -> str:
    """One line that is safe to show: no control characters, lone surrogates or line ends."""
    return "".join(c if c.isprintable() else " " if c.isspace() else "\ufffd" for c in text)


def arrows(text: str) -> str:
    """A design's words with arrows that no line end can part."""
    return text.replace("->", "→")


def percent(value: Value | None, dash: str = "–") -> str:
    """`71.2 (65.0–76.7)`; empty where nothing is known."""
    return _bounded(value, "{:.1f}".format, dash)


def milliseconds(value: Value | None, dash: str = "–") -> str:
    """`3.21 (3.15–3.30)`; empty where nothing is known."""
    return _bounded(value, ms, dash)


def ms(value: float) -> str:
    """A number of milliseconds with three digits that count, down to a tenth of a microsecond."""
    bounds = (100, 10, 1, 0.1)
    return f"{value:.{next((k for k, bound in enumerate(bounds) if value >= bound), 4)}f}"


def count(number: int | None) -> str:
    """`1.2 M`; empty where nothing is known."""
    if number is None:
        return ""
    for unit, one in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= one:
            return f"{number / one:.{0 if number >= 100 * one else 1}f} {unit}"
    return str(number)


def size(number: int | None) -> str:
    """Bytes as `4.5 MB`; empty where nothing is known."""
    return "" if number is None else f"{number / 1e6:.1f} MB"


def overlap(one: Value | None, other: Value | None) -> bool:
    """Whether both have intervals and these share a point."""
    if one is None or other is None or None in (one.low, one.high, other.low, other.high):
        return False
    return max(one.low or 0.0, other.low or 0.0) <= min(one.high or 0.0, other.high or 0.0)


def standing(where: Standing) -> str:
    """`on the front`, or by which trial it is dominated and by how much, as far as it is decided.

    By the means alone where it is not kept which samples were right.
    """
    if where.verdict is not None:
        same = where.row.duplicate_of
        said = verdict(where.verdict)
        if where.verdict.kind == "on the front" and not where.on_front:
            # Medians of wall times draw the front; on a busy machine processor times decide.
            said = said.replace("on the front", "behind the front as drawn, but not dominated", 1)
        return said + (f" (same design as trial {same})" if same is not None else "")
    if where.on_front:
        same = where.row.duplicate_of
        return "on the front" + (f" (same design as trial {same})" if same is not None else "")
    better = where.dominated_by
    if better is None:
        return "dominated"
    said = f"dominated by {clean(better.label)}: "
    points = f"{where.points_lost:.1f}"
    said += "the same accuracy" if points == "0.0" else f"+{points} points"
    ratio = f"{1 / where.times_slower:.2f}" if where.times_slower > 0 else "1.00"
    said += " at the same latency" if ratio == "1.00" else f" at {ratio}x the latency"
    if overlap(where.row.accuracy, better.accuracy):
        said += " (accuracy intervals overlap)"
    return said


def verdict(found: Verdict) -> str:
    """A verdict with the figures of the other design.

    `dominated by trial 4, which has +3.1 points (+1.2 to +5.0) and is 2.31 times as fast (...)`.
    """
    said = _verdict(found)
    return said + ("; other seeds of training are not covered" * (found.covers_seeds is False))


def _verdict(found: Verdict) -> str:
    if found.kind == "on the front":
        if found.held_against == 0:
            return "on the front: there is no other design to compare it with"
        if found.held_against == 1:
            return "on the front: the one other is significantly slower or less accurate"
        return (
            f"on the front: each of {found.held_against} others is significantly slower or less "
            "accurate"
        )
    if found.rival is None:
        return f"not decidable: {clean(found.why)}"
    rival = clean(found.rival.label) + _figures(found)
    if found.kind == "dominated":
        return f"dominated by {rival}"
    said = f"not decidable against {rival}; {clean(found.why)}"
    if found.more_samples is not None:
        more = f"{found.more_samples:,} more samples"
        said += f"; {more if found.more_samples > 1 else 'one more sample'} may decide"
    return said


def _figures(found: Verdict) -> str:
    """`, which has +1.3 points (...) and is 1.06 times slower (...)`, as far as it is known."""
    points, faster = _points(found), _times(found.times_faster)
    said = [f"has {points}"] * bool(points) + [f"is {faster}"] * bool(faster)
    return f", which {' and '.join(said)}" if said else ""


def _points(found: Verdict) -> str:
    """`+1.3 points (+0.1 to +2.5)`; that alone decides of accuracy, whatever of latency."""
    points = found.points
    if points is None:
        return ""
    significant = found.kind == "not decidable" and points.significant
    return difference(points) + ", significant" * significant


def difference(pair: Paired) -> str:
    """`+1.3 points (+0.1 to +2.5)`."""
    return f"{pair.points:+.1f} points ({pair.low:+.1f} to {pair.high:+.1f})"


def times(found: Value | None) -> str:
    """`2.31 times as fast (2.25 to 2.38)`, and whether it is significant; empty where not known."""
    said = _times(found)
    if found is None or found.low is None or found.high is None or found.low > 1 or found.high < 1:
        return said
    return f"{said}, not significant"


def _times(found: Value | None) -> str:
    """`2.31 times as fast (2.25 to 2.38)`, or `1.50 times slower (1.44 to 1.57)`."""
    if found is None or found.low is None or found.high is None:
        return ""
    if found.value < 1:
        low, high = 1 / found.high, 1 / found.low
        return f"{ms(1 / found.value)} times slower ({ms(low)} to {ms(high)})"
    return f"{ms(found.value)} times as fast ({ms(found.low)} to {ms(found.high)})"


def summary(outcome: Outcome) -> tuple[str, ...]:
    """The best design found, what it gains over each baseline, and what stays open."""
    found = outcome.summary
    if found is None:
        return ()
    best, shown = found.best, "test" if found.split == "test" else "validation"
    accuracy = best.test_accuracy if found.split == "test" else best.accuracy
    limit = outcome.latency_limit_ms
    within = "" if limit is None else f" within {limit:g} ms"
    said = [
        f"Most accurate design found by the search{within}: {clean(best.label)}, "
        f"{percent(accuracy, ' to ')} % on {shown}, {milliseconds(best.latency, ' to ')} ms."
    ]
    for gain in found.gains:
        figures = []
        if gain.points is not None:
            note = "significant" if gain.points.significant else "not significant"
            figures.append(f"{difference(gain.points)}, {note}")
        if faster := times(gain.times_faster):
            figures.append(faster)
        if figures:
            said.append(
                f"Against {clean(gain.baseline.label)} ({', '.join(gain.roles)}): "
                f"{'; '.join(figures)}."
            )
    return (*said, *_weighed(found))


def _weighed(found: Summary) -> Iterator[str]:
    """How the gains of a summary are to be read, and what would settle those that are open."""
    pairs = [gain.points for gain in found.gains if gain.points is not None]
    if not pairs:
        return
    said = f"Differences are over the same {counted(pairs[0].count, 'sample')}"
    if found.split == "valid":
        said += " that the design was chosen by, so they are optimistic"
    if len(pairs) > 1:
        said += f"; significance at the 5 % level, after Holm's correction for {len(pairs)} tests"
    seeds = all(pair.covers_seeds for pair in pairs)
    trained = counted(min(pair.seeds for pair in pairs), "training")
    yield said + ("." if seeds else f"; {trained} each, so other seeds are not covered.")
    if found.split == "test" and not seeds and not all(pair.significant for pair in pairs):
        yield "What is not significant may be settled by more test samples, or by --seeds 3."


def standing_of(row: DesignResult, outcome: Outcome) -> str:
    """Where a row stands, as far as the outcome says; else what became of it."""
    for where in outcome.standings:
        if (where.row.number, where.row.name) == (row.number, row.name):
            return standing(where)
    if row.number is not None and row.number in {other.number for other in outcome.front}:
        return "on the front"
    if row.duplicate_of is not None:
        return f"same design as trial {row.duplicate_of}"
    if row.state == "untrained":
        return clean(row.reason)
    return "" if row.state == "complete" else f"{row.state}: {clean(row.reason)}"


def tally(outcome: Outcome) -> str:
    """`24 trials: 18 complete, 4 infeasible, 2 failed; 6 designs on the front`."""
    states = [row.state for row in outcome.rows if row.timed_as is None]
    parts = [
        f"{states.count(state)} {state}"
        for state in ("complete", "stopped", "infeasible", "unstable", "untrained", "failed")
        if state in states
    ]
    trials = counted(len(states), "trial")
    if not parts:
        return trials
    front = counted(len(outcome.front), "design")
    return f"{trials}: {', '.join(parts)}; {front} on the front"


def emptiness(outcome: Outcome) -> str:
    """Why there is little or nothing to see; empty for an ordinary study."""
    complete = sum(row.state == "complete" for row in outcome.rows)
    if not outcome.rows:
        return "No trial has been run yet."
    if complete == 0:
        what = "are" if len(outcome.rows) > 1 else "is"
        every = "every one was" if len(outcome.rows) > 1 else "it was"
        states = {row.state for row in outcome.rows}
        how = f"{every} {' or '.join(sorted(states))}"
        said = f"There {what} {counted(len(outcome.rows), 'trial')}, and {how}: no front yet."
        return said + _nearest_misses(outcome)
    if complete == 1:
        return "Only one trial is complete: one design is a point, not a front."
    return ""


def _nearest_misses(outcome: Outcome) -> str:
    """Of a latency limit that nothing meets, the designs that came nearest; else empty."""
    limit = outcome.latency_limit_ms
    missed = {
        row.design: row
        for row in outcome.rows
        if limit is not None and row.latency is not None and row.latency.value > limit
    }
    if not missed:
        return ""
    nearest = sorted(missed.values(), key=lambda row: row.latency.value if row.latency else 0.0)
    told = "; ".join(
        f"{clean(row.label)} at {ms(row.latency.value)} ms, {clean(row.design)}"
        for row in nearest[:NEAREST_MISSES]
        if row.latency
    )
    return f" Nearest to the latency limit of {limit:g} ms: {told}."


def how_to_read(outcome: Outcome) -> tuple[str, ...]:
    """What every reader must know before reading a figure of this outcome."""
    rows = (*outcome.rows, *outcome.references)
    chosen = "cross-validated" if outcome.cv else "validation"
    said = [f"Accuracy in the search is {chosen} accuracy."]
    if outcome.grid is not None:
        said = ["The designs are a fixed list: none was chosen by its accuracy."]
    if any(row.test_accuracy for row in rows):
        said[0] = said[0][:-1] + "; test was evaluated once, at the end."
    else:
        said[0] = said[0][:-1] + "; test has not been evaluated."
    if any(_has_bounds(row) for row in rows):
        said.append(
            "Brackets are 95 % confidence intervals of single designs. Two designs are compared by "
            "the paired interval of their difference over the same samples, usually a narrower one."
        )
    settled = unsettled(outcome)
    return (*said, settled) if settled else tuple(said)


def unsettled(outcome: Outcome) -> str:
    """How many neighbours on the front are not told apart; empty where all are.

    By paired tests, after Holm's correction, where it is kept which samples were right, else by
    whether the two intervals overlap.
    """
    if outcome.goals.more:
        return ""  # accuracy alone does not order such a front
    pairs = list(pairwise(outcome.front))
    known = [pair for pair in outcome.neighbours if pair is not None]
    by_pairs = len(known) == len(pairs)
    if by_pairs:
        close = sum(not pair.significant for pair in known)
    else:
        close = sum(overlap(a.accuracy, b.accuracy) for a, b in pairs)
    if not close:
        return ""
    which = f"{close} of {counted(len(pairs), 'neighbouring pair')}"
    if by_pairs:
        return (
            f"On the front, the difference in accuracy is not significant in {which}: "
            "their order is not settled."
        )
    return f"On the front, the accuracy intervals of {which} overlap: their order is not settled."


def rungs(outcome: Outcome) -> str:
    """How the stages of a study agree; empty for one that neither probed nor fine-tuned."""
    found = outcome.rungs
    if found is None:
        return ""
    said = []
    if found.probed:
        stages = f"{counted(found.probed, 'design')} probed, {found.trained} of them trained"
        said.append(f"{stages}; {_agreement(found.tau)}")
    if found.fine_tuned:
        stages = f"{counted(found.fine_tuned, 'design')} fine-tuned whole"
        said.append(f"{stages}; {_agreement(found.fine_tau)}")
    return ". ".join(said)


def _agreement(tau: float | None) -> str:
    if tau is None:
        return "too few or too alike to say whether both rank them alike"
    return f"of those the ranks agree with Kendall's tau {tau:.2f}"


def fine_tuned(each: FineTuned) -> str:
    """What fine-tuning brought a design, and where it stands among those that were fine-tuned."""
    before = each.before.accuracy.value if each.before.accuracy else 0.0
    where = "on their front" if each.on_front else "beaten by another of them"
    return f"{where}; {difference(each.gained)} over its {before:.1f} % on frozen trunks"


def reference_point(outcome: Outcome) -> str:
    """`0.0 % at 12.1 ms`, and further objectives by name; empty where there is none."""
    if outcome.reference_point is None:
        return ""
    accuracy, latency, *more = outcome.reference_point
    further = "".join(
        f", {each.name} {value:.4g}" for each, value in zip(outcome.goals.more, more, strict=True)
    )
    return f"{accuracy:.1f} % at {ms(latency)} ms{further}"


def volume_unit(outcome: Outcome) -> str:
    """What a hypervolume of these objectives is counted in."""
    return " x ".join(["percentage points", "ms", *(each.name for each in outcome.goals.more)])


def further(row: DesignResult, outcome: Outcome) -> str:
    """`robustness, % 61.2`: what is searched for beside accuracy and latency; may be empty."""
    return "; ".join(
        f"{each.words} {value.value:.4g}"
        for each in outcome.goals.more
        if (value := row.figure(each)) is not None
    )


def use(row: DesignResult) -> str:
    """`text +21.3 points (+15.0 to +27.4), vision ...; without text 55.1 %, ...`; may be empty."""
    found = row.use
    if found is None:
        return ""
    shares = ", ".join(f"{name} {_share(value)}" for name, value in found.shapley.items())
    left = ", ".join(without(found))
    return f"uses {shares}; {left}; calibration error {found.ece:.3f}"


def without(found: ModalityUse) -> list[str]:
    """`without text 55.1 % in 2.31 ms` for each modality; no ms where that was not timed."""
    said = []
    for name, value in found.without.items():
        taken = found.latency_without.get(name)
        within = "" if taken is None else f" in {ms(taken.value)} ms"
        said.append(f"without {name} {value:.1f} %{within}")
    return said


def _share(value: Value) -> str:
    bounds = "" if value.low is None else f" ({value.low:+.1f} to {value.high:+.1f})"
    return f"{value.value:+.1f} points{bounds}"


def majority_row(outcome: Outcome) -> DesignResult:
    """What always predicting the most frequent class reaches, as a row beside the references."""
    (valid, test), answer = outcome.majority, most_frequent(outcome)
    return DesignResult(
        None,
        "complete",
        f"always the most frequent {answer}",
        name="majority set" if outcome.multi_label else "majority class",
        accuracy=Value(valid),
        test_accuracy=None if test is None else Value(test),
    )


def most_frequent(outcome: Outcome) -> str:
    """What a constant answer is: `class`, of multi-label data `set of classes`."""
    return "set of classes" if outcome.multi_label else "class"


SET_SCORES = {
    "micro_f1": "micro-F1",
    "macro_f1": "macro-F1",
    "mean_average_precision": "mean average precision",
}
"""Scores of sets of classes, in the order in which they are shown."""


def set_scores(row: DesignResult, dash: str = "-") -> tuple[str, ...]:
    """`micro-F1 81.3 (78.0-84.4) %` and the like, on test; none where nothing is known."""
    return tuple(
        f"{words} {percent(row.test_sets[name], dash)} %"
        for name, words in SET_SCORES.items()
        if name in row.test_sets
    )


def majority(outcome: Outcome) -> str:
    """`52.4 % of validation, 51.7 % of test`."""
    valid, test = outcome.majority
    said = f"{valid:.1f} % of {'train and valid' if outcome.cv else 'validation'}"
    return said if test is None else f"{said}, {test:.1f} % of test"


def chosen_by(outcome: Outcome) -> str:
    """What the accuracy is that a search chooses by."""
    return "by cross-validation" if outcome.cv else "that on validation"


def over_seeds(row: DesignResult) -> str:
    """`3 seeds: 78.1 to 79.4`; empty for a single training."""
    if len(row.test_seeds) < 2:
        return ""
    return f"{len(row.test_seeds)} seeds: {min(row.test_seeds):.1f} to {max(row.test_seeds):.1f}"


def published(row: DesignResult) -> str:
    """`84.25 %, 21.6 ms`; empty where nothing was published."""
    parts = []
    if row.published_accuracy is not None:
        parts.append(f"{row.published_accuracy:.2f} %")
    if row.published_latency_ms is not None:
        parts.append(f"{row.published_latency_ms:.4g} ms")
    return ", ".join(parts)


def _has_bounds(row: DesignResult) -> bool:
    return any(v is not None and v.low is not None for v in (row.accuracy, row.test_accuracy))


def load(row: DesignResult) -> str:
    """`timing disturbed: other programs used 1.7 of 2 processors`; empty where none was."""
    return f"timing disturbed: {row.crowded}" if row.crowded else ""


def counted(number: int, what: str) -> str:
    """`1 trial`, `2 trials`."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def percent_parts(value: Value | None) -> tuple[str, str]:
    """Return a percentage and its interval in brackets; either is empty where it is not known."""
    return _parts(value, "{:.1f}".format, "–")


def milliseconds_parts(value: Value | None) -> tuple[str, str]:
    """The same of a time in ms."""
    return _parts(value, ms, "–")


def _bounded(value: Value | None, form: Callable[[float], str], dash: str) -> str:
    return " ".join(part for part in _parts(value, form, dash) if part)


def _parts(value: Value | None, form: Callable[[float], str], dash: str) -> tuple[str, str]:
    if value is None:
        return "", ""
    if value.low is None or value.high is None:
        return form(value.value), ""
    return form(value.value), f"({form(value.low)}{dash}{form(value.high)})"
