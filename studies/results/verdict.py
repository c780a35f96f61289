"""What the data decide about a design: on the front, dominated, or neither.

Means order designs that nothing tells apart. A verdict claims an order only where an interval
excludes the other one.
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from evaluators.data.measures import Z_95
from evaluators.latency.readings import Reading
from evaluators.statistics.paired import Correct, Paired, holm, paired
from evaluators.statistics.ratio import ratio_in_turns
from studies.results.outcome import (
    DesignResult,
    Gain,
    Split,
    Standing,
    Summary,
    Timing,
    Value,
    Verdict,
)
from studies.results.pareto import complete, point

BETWEEN_READINGS: Mapping[Timing, float] = {"alone": 0.016, "shared": 0.26}
"""How far readings of one network that were taken at different times lie apart: their relative
standard deviation, beyond what the interval of each accounts for.

Measured by `benchmarks/repeats.py`, on two x86 cores each. alone: 23 readings of six networks at
full size that passed every check of a board's timing (`2026-11-21-latency-truth.json`). shared: the
root mean square of five runs of 38 to 50 readings of five small networks on a virtual machine
(`2026-11-25-repeats*.json`): 0.13, 0.31 and 0.33 with nothing else running there, 0.18 and 0.29
under loads of 6 to 10. What others do on the same cores it cannot see.
"""

MOST_SAMPLES = 1_000_000
"""Designs that only more samples than this could tell apart count as alike."""
LATE, TEXT_ONLY = "late-", "text-only"
"""How names of seeded late designs begin, whatever their encoders, and the reference on text."""


@dataclass(frozen=True)
class Judged:
    """A design and, sample by sample, where it was right.

    right: (seeds, N) of 0 and 1 over the same N samples for every design that is compared; None
    where it is not kept.
    """

    row: DesignResult
    correct: Correct | None


@dataclass(frozen=True)
class Comparison:
    """One rival compared with a design.

    points: the rival's accuracy less the design's, over the same samples. speed: the design's
    latency over the rival's, with bounds as `speed` has them. Either is None where it cannot
    be had, and `missing` then says why; points also where the rival is slower anyway. alike: both
    were right on the same samples, equally often.
    """

    rival: Judged
    points: Paired | None
    speed: Value | None
    missing: str = ""
    alike: bool = False

    @property
    def no_slower(self) -> bool:
        """Whether the rival is, decidedly, as fast as the design or faster."""
        return self.speed is not None and self.speed.low is not None and self.speed.low >= 1

    @property
    def slower(self) -> bool:
        """Whether the rival is, decidedly, slower."""
        return self.speed is not None and self.speed.high is not None and self.speed.high < 1

    @property
    def dominates(self) -> bool:
        """Whether the rival, decidedly, is no slower and more accurate."""
        return self.no_slower and self.points is not None and self.points.low > 0

    @property
    def excluded(self) -> bool:
        """Whether the rival, decidedly, does not dominate: slower, less accurate, or the same."""
        if self.slower or (self.points is not None and self.points.high < 0):
            return True
        same_latency = self.speed is not None and self.speed.low == self.speed.high == 1
        return self.alike and same_latency


CorrectBySplit = Mapping[Split, Mapping[int | str, Correct]]
"""Which samples designs were right about, by split and by trial number or reference's name."""


def with_verdicts(
    standings: Sequence[Standing], held: Sequence[DesignResult], correct: CorrectBySplit
) -> tuple[Standing, ...]:
    """Standings with a verdict against `held` (the front and the references), each.

    All on test where every design concerned was looked at there, else on validation; without
    verdicts where neither is kept for all of them.
    """
    split = split_of((*(standing.row for standing in standings), *held), correct)
    if split is None:
        return tuple(standings)
    return tuple(
        replace(standing, verdict=verdict_on(split, standing.row, held, correct))
        for standing in standings
    )


def split_of(rows: Iterable[DesignResult], correct: CorrectBySplit) -> Split | None:
    """Test where it is kept of every row which samples there were right, else validation, or None.

    What is compared and shown together is on one split.
    """
    rows = list(rows)
    splits: tuple[Split, Split] = ("test", "valid")
    for split in splits:
        if all(judged(row, correct[split]).correct is not None for row in rows):
            return split
    return None


def verdict_on(
    split: Split, own: DesignResult, held: Sequence[DesignResult], correct: CorrectBySplit
) -> Verdict | None:
    """The verdict on one row by the samples of this split; None where they are not kept for all."""
    others = [row for row in held if row.label != own.label]
    known = [judged(row, correct[split]) for row in (own, *others)]
    if any(one.correct is None for one in known):
        return None
    return verdict(known[0], known[1:], split)


def judged(row: DesignResult, correct: Mapping[int | str, Correct]) -> Judged:
    """A row with what is kept of it, by trial number or name."""
    return Judged(row, correct.get(row.name if row.number is None else row.number))


def verdict(own: Judged, others: Sequence[Judged], split: Split) -> Verdict:
    """Where a design stands among others, as far as the samples of `split` decide it.

    Latencies are apart where the 95 % interval of their ratio, over readings at other times too,
    leaves 1 out (`speed`); the very same reading is a tie. Accuracies are
    apart where the paired 95 % interval does not hold zero.

    dominated: a rival is no slower and more accurate. A faster one that is about as accurate may
    well be the better choice, but no interval proves that it loses nothing. The rival is chosen
    before the samples are looked at: of those that are decidedly no slower the one with the best
    accuracy on validation (the faster of equals; rivals that are excluded are passed over). So
    many designs do not get as many chances to look better. Judged on validation itself, that
    choice is not independent.

    on the front: every other design is slower or less accurate, or the same network: the very same
    latency, right on the same samples. One without a latency cannot run there and is left out.

    not decidable: all else, also where a figure is missing or a latency is unstable. The verdict
    then names one rival that stays open, and roughly how many more samples would tell the two
    apart if their difference stayed as it is.
    """
    running = [
        other
        for other in others
        if other.row.latency is not None and other.row.state != "untrained"
    ]
    missing = _missing(own)
    if missing:
        return Verdict("not decidable", split, len(running), why=missing)
    compared = [compare(own, other) for other in running]
    chosen = _chosen(compared)
    if chosen is not None and chosen.dominates:
        return _found("dominated", chosen, split, len(running))
    open_ = [comparison for comparison in compared if not comparison.excluded]
    if not open_:
        seeds = _covers_seeds(compared)
        return Verdict("on the front", split, len(running), covers_seeds=seeds)
    shown = chosen or max(open_, key=_closeness)
    return _found("not decidable", shown, split, len(running))


def compare(own: Judged, rival: Judged) -> Comparison:
    """The rival compared with a design. Raises ValueError where their samples differ in number."""
    missing = _missing(own) or _missing(rival)
    found = Comparison(rival, None, speed(own.row, rival.row), missing)
    if found.slower or own.correct is None or rival.correct is None:
        return found  # slower is enough to know
    alike = np.array_equal(rival.correct.mean(0), own.correct.mean(0))
    return replace(found, points=paired(rival.correct, own.correct), alike=alike)


def speed(own: DesignResult, rival: DesignResult) -> Value | None:
    """How many times faster than `own` a rival is, and the 95 % interval of that ratio.

    Of designs that were read in turns at the study's end, from the ratios of each round. Of others,
    in the logarithm, in quadrature: the half-widths of the two intervals, and what two readings
    differ by that are not of one moment, 1.96 times the BETWEEN_READINGS of each. The very same
    reading is a tie, 1 without any width. None where a latency is missing, unstable or without an
    interval.
    """
    a, b = own.latency, rival.latency
    if a is None or b is None or "unstable" in (own.state, rival.state):
        return None
    if a.low is None or a.high is None or b.low is None or b.high is None:
        return None
    if min(a.low, b.low) <= 0:
        return None
    if a == b:  # two readings never agree to the last digit: this is one, of one graph
        return Value(1.0, 1.0, 1.0)
    if (found := _in_turns(own, rival)) is not None:
        return found
    ratio = a.value / b.value
    between = [Z_95 * BETWEEN_READINGS[row.timing] for row in (own, rival)]
    up = math.hypot(math.log(a.high / a.value), math.log(b.value / b.low), *between)
    down = math.hypot(math.log(a.value / a.low), math.log(b.high / b.value), *between)
    return Value(ratio, ratio * math.exp(-down), ratio * math.exp(up))


def _in_turns(own: DesignResult, rival: DesignResult) -> Value | None:
    """The ratio from readings of the same rounds; None where there are too few.

    On a device that does other work too, of processor times where they are known: on one thread
    they are the latency without the moments in which another program had the processor.
    """
    turns = [row.turns for row in (own, rival) if row.turns is not None]
    if len(turns) < 2 or turns[0].session != turns[1].session:
        return None
    readings = [reading for each in turns for reading in each.readings if reading is not None]
    shared = "shared" in (own.timing, rival.timing)
    by_cpu = shared and all(reading.cpu_ms for reading in readings)

    def compared(reading: Reading | None, other: Reading | None) -> float | None:
        if reading is None or other is None or reading.device != other.device:
            return None
        return reading.cpu_ms if by_cpu else reading.median_ms

    rounds = list(zip(turns[0].readings, turns[1].readings, strict=True))
    found = ratio_in_turns([compared(a, b) for a, b in rounds], [compared(b, a) for a, b in rounds])
    return None if found is None else Value(found.value, found.low, found.high)


def samples_to_decide(points: Paired) -> int | None:
    """Roughly how many more samples would part an interval from zero, to two digits.

    What samples bring to its width shrinks with the root of their number, what seeds bring stays,
    and so, it is taken, does the difference. None where it is decided, where the seeds alone keep
    it open, or where the two are too alike for MOST_SAMPLES.
    """
    half = (points.high - points.low) / 2
    room = points.points**2 - points.seeds_half**2
    if points.significant or room <= 0 or half == 0:
        return None
    more = points.count * ((half**2 - points.seeds_half**2) / room - 1)
    if more > MOST_SAMPLES:
        return None
    step = 10.0 ** max(0, math.floor(math.log10(max(1.0, more))) - 1)
    return max(1, math.ceil(more / step) * int(step))


def _chosen(compared: Sequence[Comparison]) -> Comparison | None:
    """The rival that is asked whether it dominates."""
    faster = [c for c in compared if c.no_slower and not c.excluded and c.points is not None]
    return max(faster, key=_promise, default=None)


def _promise(comparison: Comparison) -> tuple[float, float]:
    row, correct = comparison.rival.row, comparison.rival.correct
    if row.accuracy is not None:
        accuracy = row.accuracy.value
    else:
        accuracy = 0.0 if correct is None else 100 * float(correct.mean())
    return accuracy, -(row.latency.value if row.latency else 0.0)


def _closeness(comparison: Comparison) -> float:
    """How near a rival comes to dominating; one with a missing figure is named last."""
    return -math.inf if comparison.points is None else comparison.points.points


def _found(kind: str, comparison: Comparison, split: Split, held_against: int) -> Verdict:
    points = comparison.points
    undecided = kind == "not decidable"
    return Verdict(
        kind,  # type: ignore[arg-type]
        split,
        held_against=held_against,
        rival=comparison.rival.row,
        points=points,
        times_faster=comparison.speed,
        more_samples=samples_to_decide(points) if undecided and points else None,
        why=_why(comparison) if undecided else "",
        covers_seeds=_covers_seeds([comparison]),
    )


def _covers_seeds(compared: Sequence[Comparison]) -> bool | None:
    known = [comparison.points for comparison in compared if comparison.points is not None]
    return all(points.covers_seeds for points in known) if known else None


def _why(comparison: Comparison) -> str:
    if comparison.missing:
        return comparison.missing
    reasons = []
    if not comparison.no_slower:
        reasons.append("difference in latency not significant")
    if comparison.alike:
        reasons.append("both were right on the same samples")
    elif comparison.points is not None and not comparison.points.significant:
        by_seeds = comparison.points.seeds_half >= abs(comparison.points.points) > 0
        alone = " because of the spread between seeds" if by_seeds else ""
        reasons.append("accuracy not significant (95 % CI includes 0)" + alone)
    return "; ".join(reasons)


def _missing(judged: Judged) -> str:
    """Why nothing can be decided about a design; empty where all is there."""
    row = judged.row
    if row.state == "unstable":
        return f"the latency of {row.label} is not stable"
    if row.state == "untrained":
        return f"{row.label} {row.reason}"
    if row.latency is None:
        return f"{row.label} has no latency" + (f": {row.reason}" if row.reason else "")
    if row.latency.low is None or row.latency.high is None:
        return f"the latency of {row.label} has no interval"
    if judged.correct is None:
        return f"it is not stored on which samples {row.label} was right"
    return ""


def summary_of(
    rows: Sequence[DesignResult],
    references: Sequence[DesignResult],
    correct: CorrectBySplit,
    found_before: Collection[str] = (),
) -> Summary | None:
    """The most accurate design that the search found, compared with the baselines.

    Both are chosen by the accuracy that the search chose by. The baselines are the most accurate
    seeded design, the best late design and text alone, as far as they are known. Where there are
    several, their p-values are adjusted together. `found_before` are the names of designs that
    another study's search found: they are no baselines.

    Returns:
        None where the search has found no complete design.
    """
    known = complete(rows)
    seeded = [row for row in known if row.name and row.name not in found_before]
    best = _best([row for row in known if row not in seeded])
    if best is None:
        return None
    late = [row for row in seeded if row.name.startswith(LATE)]
    alone = [row for row in references if row.name == TEXT_ONLY and row.accuracy and row.latency]
    asked = (
        ("the most accurate seeded design", _best(seeded)),
        ("late fusion", _best(late)),
        ("text alone", _best(alone)),
    )
    gains: dict[str, Gain] = {}
    for role, baseline in asked:
        if baseline is None:
            continue
        roles = (*gains[baseline.name].roles, role) if baseline.name in gains else (role,)
        gains[baseline.name] = Gain(baseline, roles, times_faster=speed(baseline, best))
    split = split_of((best, *(gain.baseline for gain in gains.values())), correct)
    if split is not None:
        gains = _with_points(gains, best, correct[split])
    return Summary(best, tuple(gains.values()), split)


def _with_points(
    gains: Mapping[str, Gain], best: DesignResult, correct: Mapping[int | str, Correct]
) -> dict[str, Gain]:
    own = judged(best, correct).correct
    pairs = {}
    for name, gain in gains.items():
        other = judged(gain.baseline, correct).correct
        if own is not None and other is not None:
            pairs[name] = paired(own, other)
    tested = holm(pairs)
    return {name: replace(gain, points=tested.get(name)) for name, gain in gains.items()}


def _best(rows: Sequence[DesignResult]) -> DesignResult | None:
    """The most accurate row, the faster of equals; None of none."""

    def rank(row: DesignResult) -> tuple[float, float]:
        accuracy, latency = point(row)
        return accuracy, -latency

    return max(rows, key=rank, default=None)
