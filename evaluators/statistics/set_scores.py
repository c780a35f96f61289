"""Scores of sets of classes: macro-F1, micro-F1 and mean average precision of multi-label data."""

from typing import Any

import numpy as np
import numpy.typing as npt

from evaluators.data.answers import Targets, answers_of
from evaluators.evaluation import Measure

RESAMPLES, SEED = 2000, 0
Floats = npt.NDArray[np.float64]


def set_measures(logits: npt.NDArray[Any], targets: Targets) -> list[Measure]:
    """Return "macro_f1", "micro_f1" and "mean_average_precision" in percent.

    Each with a 95 % bootstrap interval over samples.

    Args:
        logits: (N, C), of which those above 0 answer that the class is there.
        targets: (N, C), 1 for the classes of a sample, else 0.
    """
    predicted, ranking = answers_of(logits, multi_label=True), Ranking(logits, targets)
    hits = (targets & predicted).astype(np.float64)
    either = (targets + predicted).astype(np.float64)

    def figures(weights: npt.NDArray[np.int64]) -> Floats:
        counts = weights @ hits, weights @ either
        return np.array([_macro(*counts), _micro(*counts), ranking.mean_average_precision(weights)])

    rng, count = np.random.default_rng(SEED), len(targets)
    own = figures(np.ones(count, np.int64))
    drawn = np.array(
        [
            figures(np.bincount(rng.integers(0, count, count), minlength=count))
            for _ in range(RESAMPLES)
        ]
    )
    bounds = np.quantile(drawn, [0.025, 0.975], axis=0)
    names = ("macro_f1", "micro_f1", "mean_average_precision")
    return [
        Measure(name, float(value), "%", "higher", float(min(low, value)), float(max(high, value)))
        for name, value, low, high in zip(names, own, *bounds, strict=True)
    ]


def _micro(hits: npt.NDArray[Any], either: npt.NDArray[Any]) -> float:
    """F1 score over all pairs of sample and class, in percent; 0 without any class.

    Args:
        hits: (C,) how often each class was there and predicted.
        either: (C,) how often it was there, plus how often it was predicted.
    """
    total = float(either.sum())
    return 200 * float(hits.sum()) / total if total else 0.0


def _macro(hits: npt.NDArray[Any], either: npt.NDArray[Any]) -> float:
    """Mean over classes of the F1 score, in percent; 0 without any class. Arguments of `_micro`.

    A class that is neither there nor predicted is left out; one that is predicted for none of its
    samples counts as 0.
    """
    there = either > 0
    return 200 * float((hits[there] / either[there]).mean()) if there.any() else 0.0


class Ranking:
    """Samples in the order of their logits, class by class, sorted once for all resamples."""

    def __init__(self, logits: npt.NDArray[Any], targets: Targets) -> None:
        """Sort logits (N, C), with targets (N, C) of 1 and 0."""
        scores = np.ascontiguousarray(logits.T)
        self._order = np.argsort(-scores, axis=1, kind="stable")
        ranked = np.take_along_axis(scores, self._order, axis=1)
        self._positive = np.take_along_axis(np.ascontiguousarray(targets.T), self._order, axis=1)
        # Equal logits have one rank: precision is taken behind the last of them.
        equal = ranked[:, :-1] == ranked[:, 1:]
        self._last = None
        if equal.any():
            count = ranked.shape[1]
            is_last = np.concatenate([~equal, np.ones((len(ranked), 1), bool)], axis=1)
            places = np.where(is_last, np.arange(count), count - 1)
            self._last = np.minimum.accumulate(places[:, ::-1], axis=1)[:, ::-1]

    def mean_average_precision(self, weights: npt.NDArray[np.int64]) -> float:
        """Return the mean over classes of the average precision, in percent.

        That is the sum over ranks of precision times the gain in recall, without interpolation.
        Classes that none of the samples has are left out; 0 where all are.

        Args:
            weights: (N,) how often each sample occurs.
        """
        times = weights.astype(np.float32)[self._order]
        hits = times * self._positive
        seen, right = times.cumsum(1), hits.cumsum(1)
        total = right[:, -1]
        if self._last is not None:
            seen, right = (np.take_along_axis(x, self._last, axis=1) for x in (seen, right))
        gained = np.einsum("cn,cn->c", hits, right / np.maximum(seen, 1), dtype=np.float64)
        there = total > 0
        return 100 * float((gained[there] / total[there]).mean()) if there.any() else 0.0
