"""Faults: what is wrong with data that could be read, and with which a study does not start.

A label out of range or an id twice is none: such a file is refused outright, as it cannot be used.
A fault leaves data that can be used, but whose results would not be what a reader takes them for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from evaluators.data.layouts.entries import Entry
from evaluators.data.layouts.known import Known
from evaluators.data.samples import SPLITS, Fault, FaultKind, Split

_IN_WORDS: dict[FaultKind, tuple[str, str]] = {
    "two splits": (
        "row in another split than its video or picture",
        "rows in other splits than their video or picture",
    ),
    "fold": (
        "row in another split than the standard folds have it",
        "rows in other splits than the standard folds have them",
    ),
    "stranger": ("row of another data set", "rows of another data set"),
    "count": ("count that is not as published", "counts that are not as published"),
    "picture": ("row without a usable picture", "rows without a usable picture"),
    "sound": ("row without a usable sound", "rows without a usable sound"),
}


@dataclass(frozen=True)
class Tally:
    """How many of something the label file has in a split, and how many were published."""

    split: Split
    what: str
    """"samples", "videos", "negative", "zero" or "positive"."""
    found: int
    known: int | None


def summary(faults: Sequence[Fault]) -> str:
    """How many faults of each kind there are, in words; empty without faults."""
    counts = Counter(fault.kind for fault in faults)
    return ", ".join(
        f"{counts[kind]:,} {words[counts[kind] > 1]}"
        for kind, words in _IN_WORDS.items()
        if counts[kind]
    )


def label_faults(
    entries: Sequence[Entry], known: Known | None, tallies: Sequence[Tally]
) -> tuple[Fault, ...]:
    """What is wrong with the rows themselves: splits, row by row, then counts."""
    found = list(_split_faults(entries, known))
    for tally in tallies:
        if known is not None and tally.known is not None and tally.found != tally.known:
            text = (
                f"{tally.split} {tally.what}: {tally.found:,}, where {known.name} has "
                f"{tally.known:,}"
            )
            found.append(Fault("count", text))
    return tuple(found)


def tallied(entries: Sequence[Entry], known: Known | None) -> tuple[Tally, ...]:
    """What the rows hold, split by split, beside what is published; signs only of scores."""
    return tuple(
        Tally(split, what, count, known.counts[split].get(what) if known else None)
        for split in SPLITS
        for what, count in _counts(entries, split).items()
    )


def _counts(entries: Sequence[Entry], split: Split) -> dict[str, int]:
    part = [entry for entry in entries if entry.split == split]
    scores = [entry.score for entry in part if entry.score is not None]
    found = {"samples": len(part)}
    if scores:
        found["videos"] = len({entry.group for entry in part})
        found["negative"] = sum(score < 0 for score in scores)
        found["zero"] = scores.count(0.0)
        found["positive"] = sum(score > 0 for score in scores)
    return found


def _split_faults(entries: Sequence[Entry], known: Known | None) -> Iterator[Fault]:
    """Rows that lie in another split than the rest of their group, or than the standard folds."""
    splits: dict[str, Counter[Split]] = {}
    for entry in entries:
        splits.setdefault(entry.group, Counter())[entry.split] += 1
    folds = known.folds if known else {}
    for entry in entries:
        placed = splits[entry.group]
        if known and folds and entry.group not in folds:
            text = f"{entry.where}: {entry.id}: {known.name} has no video {entry.group}"
            yield Fault("stranger", text)
        fold = folds.get(entry.group)
        home = fold or placed.most_common(1)[0][0]
        if entry.split == home:
            continue
        text = f"{entry.where}: {entry.id} is in {entry.split}"
        if len(placed) > 1:
            others = ", ".join(f"{placed[s]:,} in {s}" for s in SPLITS if placed[s])
            of = "picture" if entry.image else "video"
            text += f", and its {of} {entry.group} in {len(placed)} splits (rows: {others})"
        if known and fold:
            text += f"; {known.name}'s standard folds have {entry.group} in {fold}"
        yield Fault("two splits" if len(placed) > 1 else "fold", text)
