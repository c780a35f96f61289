"""What a reader must know before believing a front."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from evaluators.statistics.paired import Correct, Paired, holm, paired
from studies.results.objectives import Goals
from studies.results.outcome import DesignResult, timed_later
from studies.results.pareto import dominates, pareto_front
from studies.results.text import counted, ms, overlap
from studies.results.verdict import Judged, compare, speed

CorrectAnswers = Mapping[int | str, Correct]
"""Which samples each design was right about: (seeds, N), by trial number or reference's name."""
MOST_APART = 1.25
"""Two readings of one design whose ratio is below this are not mentioned."""


def cautions_of(
    rows: Sequence[DesignResult],
    subject: Mapping[str, Any],
    references: Sequence[DesignResult] = (),
    correct: CorrectAnswers | None = None,
    goals: Goals | None = None,
) -> tuple[str, ...]:
    """Sentences about trials, references and the front.

    Where `right` holds two designs over the same samples, their paired interval decides what is
    said about which of them is better.
    """
    goals, correct = goals or Goals(), correct or {}
    front = pareto_front(rows, goals.objectives)
    if goals.more:
        references = ()  # these are not asked for what a study searches for beside the two
    return (
        *subject.get("cautions", []),
        *_without_figures(rows),
        *(said for row in references if (said := _of_reference(row, front, correct))),
        *_of_training(rows),
        *_of_load((*rows, *references)),
        *_of_readings((*rows, *references)),
        *_of_parts((*front, *(row for row in rows if row.name)), references),
        *_of_order(front, correct),
        *_of_use(front),
    )


def neighbours(front: Sequence[DesignResult], correct: CorrectAnswers) -> tuple[Paired | None, ...]:
    """How much more accurate each design of a front is than the next faster one.

    Over the same samples; None where it is not kept which of them were right.
    """
    pairs = [_paired(slower, faster, correct) for faster, slower in pairwise(front)]
    adjusted = holm({k: pair for k, pair in enumerate(pairs) if pair is not None})
    return tuple(adjusted.get(k) for k in range(len(pairs)))


def _paired(one: DesignResult, other: DesignResult, correct: CorrectAnswers) -> Paired | None:
    a, b = correct.get(_who(one)), correct.get(_who(other))
    return None if a is None or b is None else paired(a, b)


def _who(row: DesignResult) -> int | str:
    return row.name if row.number is None else row.number


def _without_figures(rows: Sequence[DesignResult]) -> list[str]:
    found = []
    failed = [row for row in rows if row.state == "failed"]
    if failed:
        found.append(
            f"{len(failed)} trials failed and are on no front; trial {failed[0].number}: "
            f"{failed[0].reason or 'no reason was stored'}"
        )
    untrained = [row for row in rows if row.state == "untrained"]
    if untrained:
        found.append(
            f"{counted(len(untrained), 'trial')} did not train and "
            f"{'is' if len(untrained) == 1 else 'are'} on no front: the same class for every "
            f"sample. {untrained[0].label}: {untrained[0].reason}"
        )
    again = timed_later(rows)
    if again:
        first, later = next(iter(again.items()))
        found.append(
            f"{counted(len(again), 'trial')} had no stable latency and "
            f"{'was' if len(again) == 1 else 'were'} timed again in a later trial: trial {first} "
            f"as trial {later.number}."
        )
    unstable = [row for row in rows if row.state == "unstable" and row.number not in again]
    if unstable:
        found.append(
            f"{counted(len(unstable), 'trial')} had no stable latency: on no front, not trained, "
            f"to be timed again when the design comes up again. {unstable[0].label}: "
            f"{unstable[0].reason}"
        )
    return found


def _of_reference(row: DesignResult, front: Sequence[DesignResult], correct: CorrectAnswers) -> str:
    if row.state == "unstable":
        return f"The latency of {row.label} is not stable: {row.reason}"
    if row.state == "untrained":
        return f"{row.label} {row.reason}: no comparison with it means anything"
    if row.state == "infeasible":
        return f"{row.label} has an accuracy and no latency: {row.reason}"
    beaten = [other for other in front if dominates(row, other)]
    if not beaten:
        return ""
    reference = Judged(row, correct.get(_who(row)))
    sure = [
        other
        for other in beaten
        if compare(Judged(other, correct.get(_who(other))), reference).dominates
    ]
    if sure:
        return (
            f"The reference {row.label} dominates {len(sure)} of "
            f"{counted(len(front), 'design')} on the front ({_first(sure)}): it is no slower and, "
            "over the same samples, significantly more accurate."
        )
    return (
        f"The reference {row.label} was measured as at least as accurate and as fast as "
        f"{len(beaten)} of {counted(len(front), 'design')} on the front ({_first(beaten)}), but "
        "not significantly better."
    )


def _first(rows: Sequence[DesignResult]) -> str:
    return ", ".join([row.label for row in rows[:3]] + ["..."] * (len(rows) > 3))


def _of_training(rows: Sequence[DesignResult]) -> list[str]:
    found = []
    adapted = [row for row in rows if row.genotype and row.genotype.lora_rank]
    if adapted:
        found.append(
            f"Adapters of the trunks were trained with the fusion in "
            f"{counted(len(adapted), 'design')} (those with a LoRA rank), but in no other."
        )
    if len({row.fidelity for row in rows if row.fidelity and row not in adapted}) > 1:
        found.append(
            "Late designs train fusion and head on frozen trunks, all others are trained whole."
        )
    below = [row for row in rows if row.did_not_train and row.state == "complete"]
    if below:
        first = "; ".join(f"{row.label} {row.did_not_train}" for row in below[:3])
        found.append(
            f"{counted(len(below), 'design')} may be limited by training or precision, not by the "
            f"design: below a linear probe of the same features, or far below fp32. {first}"
            f"{f'; and {len(below) - 3} more' if len(below) > 3 else ''}."
        )
    shortened = [row for row in rows if row.shortened]
    if shortened:
        first = ", ".join(row.label for row in shortened[:5])
        found.append(
            f"{counted(len(shortened), 'trial')} ({first}{', ...' if len(shortened) > 5 else ''}) "
            "had a fusion so expensive that it got fewer epochs than the others: their accuracy is "
            "what this bound allows."
        )
    return found


def _of_use(front: Sequence[DesignResult]) -> list[str]:
    """Fused designs of which it is not shown that they use all of their modalities."""
    found = []
    for row in front:
        unused = [
            f"{name}: shuffling it over the samples costs {lost.value:+.1f} points "
            f"({lost.low:+.1f} to {lost.high:+.1f})"
            for name, lost in (row.use.dropped.items() if row.use else ())
            if lost.low is None or lost.low <= 0
        ]
        if unused and row.use:
            count = "two" if len(row.use.dropped) == 2 else "three"
            found.append(
                f"{row.label} fuses {count} modalities, but these data do not show that it uses "
                f"{'; nor '.join(unused)}."
            )
    return found


def _of_load(rows: Sequence[DesignResult]) -> list[str]:
    """Latencies that were read while other programs took processors from the design."""
    crowded = [row for row in rows if row.crowded and row.latency]
    if not crowded:
        return []
    first = "; ".join(f"{row.label}: {row.crowded}" for row in crowded[:3])
    timed = sum(row.latency is not None for row in rows)
    return [
        f"{len(crowded)} of {timed} measured {'latency' if timed == 1 else 'latencies'} may be "
        f"too high ({first}{'; ...' if len(crowded) > 3 else ''}). Their intervals do not cover "
        "this. Stop other programs, or use fewer workers, before the next study."
    ]


def _of_readings(rows: Sequence[DesignResult]) -> list[str]:
    """Designs whose latency was another when it was read again at the end."""
    found = []
    for row in rows:
        first, last = row.latency_in_search, row.latency
        if first is None or last is None:
            continue
        times = max(first.value, last.value) / min(first.value, last.value)
        if times > MOST_APART and not overlap(first, last):
            found.append(f"{row.label} {ms(first.value)} ms, then {ms(last.value)} ms")
    if not found:
        return []
    return [
        f"{counted(len(found), 'design')} had another latency when timed again at the end: "
        f"{'; '.join(found[:3])}{'; ...' if len(found) > 3 else ''}. The later latency is shown; "
        "the search chose by the first."
    ]


def _of_parts(rows: Sequence[DesignResult], references: Sequence[DesignResult]) -> list[str]:
    """Latencies that contradict those of networks of one modality that are parts of the design."""
    found = []
    for row in {row.number: row for row in rows if row.genotype and row.latency}.values():
        parts = [part for part in references if part.latency and _is_alike(part, row)]
        for part in parts:
            ratio = speed(row, part)
            if _contains(row, part) and ratio and ratio.high is not None and ratio.high < 1:
                found.append(
                    f"{row.label} contains {part.label} and was read {1 / ratio.value:.2f} times "
                    "as fast"
                )
        whole = [part for part in parts if _contains(part, row)]
        if row.genotype and len(whole) == len(row.genotype.encoders) > 1:
            most = 2 * sum(_high(part) for part in whole)
            if row.latency and (row.latency.low or row.latency.value) > most:
                found.append(
                    f"{row.label} takes over twice as long as networks of its encoders alone "
                    f"({ms(row.latency.value)} ms, {' and '.join(p.label for p in whole)} up to "
                    f"{ms(most / 2)} ms together)"
                )
    if not found:
        return []
    return [
        "Latencies that contradict each other, of which one is wrong: "
        f"{'; '.join(found[:3])}{'; ...' if len(found) > 3 else ''}. Run the command again with "
        "--retime on a quieter device."
    ]


def _is_alike(part: DesignResult, row: DesignResult) -> bool:
    """Whether a network of one modality has an encoder, a precision and a text of the design."""
    one, own = part.genotype, row.genotype
    if one is None or own is None or one.is_fused or not own.is_fused:
        return False
    (modality,) = one.encoders
    same = own.encoders.get(modality) == one.encoders[modality] and own.precision == one.precision
    return same and (modality != "text" or own.text_tokens == one.text_tokens)


def _contains(whole: DesignResult, part: DesignResult) -> bool:
    """Whether the trunk that both have is as deep in `whole`, or deeper."""
    one, other = whole.genotype, part.genotype
    assert one is not None
    assert other is not None
    shared = one.encoders.keys() & other.encoders.keys()
    return all(one.deepest_tap(m) >= other.deepest_tap(m) for m in shared)


def _high(row: DesignResult) -> float:
    assert row.latency is not None
    return row.latency.value if row.latency.high is None else row.latency.high


def _of_order(front: Sequence[DesignResult], correct: CorrectAnswers) -> list[str]:
    """How many designs cannot be told from the most accurate one of the front."""
    best = [row for row in front if row.accuracy]
    if len(best) < 2:
        return []
    top = max(best, key=lambda row: row.accuracy.value if row.accuracy else 0)
    pairs = [_paired(top, row, correct) for row in best if row is not top]
    known = [pair for pair in pairs if pair is not None]
    if len(known) == len(pairs):
        tested = holm(dict(enumerate(known))).values()
        open_ = sum(not pair.significant for pair in tested)
        if not open_:
            return []
        return [
            f"{open_} of the {len(pairs)} other designs on the front are not significantly "
            f"less accurate than {top.label}, the most accurate one: paired over the same "
            f"{known[0].count} samples, at the 5 % level, after Holm's correction."
        ]
    if top.accuracy is None or top.accuracy.low is None:
        return []
    tied = [row for row in best if row.accuracy and row.accuracy.value >= top.accuracy.low]
    if len(tied) < 2:
        return []
    return [
        f"{len(tied)} of the {len(best)} designs on the front lie within the 95 % interval of "
        f"the most accurate one ({top.accuracy.low:.1f} to {top.accuracy.high:.1f} %): these data "
        "do not order them."
    ]
