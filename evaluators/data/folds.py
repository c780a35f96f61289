"""Cross-validation over the training and validation samples: the test split is not in it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace

from evaluators.data.errors import DataError
from evaluators.data.samples import DataSet, Sample, Split, class_counts

Part = Mapping[str, int]
"""Part 0..folds-1 of each sample, by its id."""


def fold(data: DataSet, k: int, folds: int) -> DataSet:
    """The train and valid samples of `data` under new splits: what fold `k` of `folds` sees.

    Part k is "test" (what the fold is judged on), the part after it "valid" (what stops training),
    all others "train". Samples of `data`'s own test split are not in it. Order and contents stay.
    Raises DataError where the samples cannot be cut into that many parts.
    """
    part = parts(data, folds)
    splits: dict[int, Split] = {k: "test", (k + 1) % folds: "valid"}
    samples = tuple(
        replace(sample, split=splits.get(part[sample.id], "train")) for sample in pool(data)
    )
    made = replace(
        data,
        samples=samples,
        fingerprint=_fingerprint(data, samples),
        cut_from=data.fingerprint,
    )
    _check(made, k)
    return made


def pool(data: DataSet) -> tuple[Sample, ...]:
    """The samples of train and valid, in the order of the file."""
    return tuple(sample for sample in data.samples if sample.split != "test")


def parts(data: DataSet, folds: int) -> Part:
    """Cuts `pool(data)` into parts: no group in two, alike in size and, as far as that goes, in
    classes. The same data are always cut alike. Raises DataError for fewer groups than parts.
    """
    if folds < 3:
        raise ValueError(f"{folds} folds: 3 or more are needed to train, to stop and to evaluate")
    samples = pool(data)
    groups: dict[str, list[Sample]] = {}
    for sample in samples:
        groups.setdefault(group_of(sample), []).append(sample)
    if len(groups) < folds:
        raise DataError(
            f"{data.name}: {len(groups)} groups in train and valid cannot be cut into {folds} "
            "parts; leave out --cv"
        )
    totals = _counts(samples, len(data.classes))
    held = [[0] * len(totals) for _ in range(folds)]
    found: dict[str, int] = {}
    for name in sorted(groups, key=lambda name: (-len(groups[name]), name)):
        counts = _counts(groups[name], len(data.classes))
        costs = [_cost(part, counts, totals) for part in held]
        best = costs.index(min(costs))
        held[best] = [a + b for a, b in zip(held[best], counts, strict=True)]
        found |= {sample.id: best for sample in groups[name]}
    return found


def group_of(sample: Sample) -> str:
    """What must not stand on both sides of a cut: the video, else everything of the same text.

    Image+text folders have no groups of their own, but may pair one sentence with many pictures.
    """
    words = " ".join(sample.text.split()).casefold()
    return sample.group if sample.group != sample.id or not words else f"text {words}"


def _counts(samples: Sequence[Sample], classes: int) -> list[int]:
    """All samples, then those of each class."""
    return [len(samples), *class_counts(samples, classes)]


def _cost(held: Sequence[int], added: Sequence[int], totals: Sequence[int]) -> float:
    """By how much the squared shares of a part grow: least where it is furthest behind."""
    return sum(
        ((have + more) ** 2 - have**2) / total**2
        for have, more, total in zip(held, added, totals, strict=True)
        if total
    )


def _check(made: DataSet, k: int) -> None:
    """Raises DataError for a fold in which a class cannot be learnt."""
    missing = [name for name, n in zip(made.classes, made.counts("train"), strict=True) if n == 0]
    if missing:
        raise DataError(
            f"{made.name}: no sample of class {', '.join(missing)} is left to train on in fold "
            f"{k + 1}: its groups are too few; leave out --cv"
        )


def _fingerprint(data: DataSet, samples: Sequence[Sample]) -> str:
    cut = [data.fingerprint, [[sample.id, sample.split] for sample in samples]]
    return hashlib.sha256(json.dumps(cut).encode()).hexdigest()
