"""Two designs on the same samples: how far apart they are, and whether that can be told at all."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from evaluators.data.measures import Z_95
from evaluators.evaluation import Evaluation

RESAMPLES = 20_000
SEED = 0
"""Of the bootstrap's generator: the same two designs always get the same interval."""
SIGNIFICANCE = 0.05
MIN_SEEDS = 3
"""Trainings of a design from which its spread between seeds is estimated."""

Key = TypeVar("Key")
Correct = npt.NDArray[np.float64]
"""Shape (seeds, N): 1.0 where the network of a seed was right about a sample, else 0.0."""


@dataclass(frozen=True)
class Paired:
    """How much more accurate one design is than another on the same samples.

    points: difference of the two accuracies in percent points, the first less the second.
    low, high: its 95 % interval. count: samples. seeds: trainings of the design that has fewer.
    seeds_half: half the width that the interval would have were there samples without end, in
    percent points: what the spread between seeds brings to it. adjusted_p: the p-value that `holm`
    adjusted where several differences are tested at once; None for one alone.
    """

    points: float
    low: float
    high: float
    count: int
    seeds: int = 1
    seeds_half: float = 0.0
    adjusted_p: float | None = None

    @property
    def covers_seeds(self) -> bool:
        """Whether the interval holds what other seeds of training could bring."""
        return self.seeds >= MIN_SEEDS

    @property
    def p_value(self) -> float:
        """Two-sided p-value of no difference, not adjusted.

        From the half of the interval that points to zero, by the normal distribution: below 0.05
        exactly where the interval excludes zero.
        """
        half = self.points - self.low if self.points > 0 else self.high - self.points
        if half <= 0:
            return 0.0 if self.points else 1.0
        return math.erfc(Z_95 * abs(self.points) / half / math.sqrt(2))

    @property
    def significant(self) -> bool:
        """Whether the two differ at the 5 % level, after `holm` where several were tested."""
        p = self.p_value if self.adjusted_p is None else self.adjusted_p
        return p < SIGNIFICANCE


def paired(right_a: Correct, right_b: Correct) -> Paired:
    """The difference between two designs and its 95 % interval, over samples and seeds.

    Both are (seeds, N) over the same N samples; seeds are averaged first, and their number may
    differ. What other samples could bring is a bootstrap over them. One sample for each of the two
    and one against are added before samples are drawn (Bonett and Price 2012): without them a
    handful of differing samples would pass for a proof.

    Where both have MIN_SEEDS trainings or more, the variance between seeds is added to that of the
    samples, and Student's quantile is taken at the degrees of freedom of such a sum (Satterthwaite
    1946): three seeds tell their spread but roughly. With fewer trainings the interval says
    nothing of other seeds. Raises ValueError where the two are not over the same number of samples.
    """
    a, b = checked(right_a), checked(right_b)
    if a.shape[1] != b.shape[1]:
        raise ValueError(
            f"{a.shape[1]} samples of one design and {b.shape[1]} of the other: pair designs that "
            "were evaluated on the same samples"
        )
    differences = a.mean(0) - b.mean(0)
    low, high = bootstrapped(np.concatenate([differences, [1.0, -1.0]]))
    points = float(differences.mean())
    down, up = max(0.0, points - low), max(0.0, high - points)
    seeds, seeds_half = min(len(a), len(b)), 0.0
    if seeds >= MIN_SEEDS:
        parts = [(variance_of_seeds(one) / len(one), len(one) - 1) for one in (a, b)]
        between = sum(variance for variance, _ in parts)
        quantile = _student(((down + up) / (2 * Z_95)) ** 2 + between, parts)
        seeds_half = quantile * math.sqrt(between)
        down, up = (math.hypot(quantile / Z_95 * half, seeds_half) for half in (down, up))
    return Paired(
        100 * points,
        100 * (points - down),
        100 * (points + up),
        a.shape[1],
        seeds,
        100 * seeds_half,
    )


def holm(pairs: Mapping[Key, Paired]) -> dict[Key, Paired]:
    """Adjust the p-values of several differences that are tested at once (Holm 1979).

    The chance that any of them is called significant though none exists stays at 5 %. Intervals
    are not widened.
    """
    ordered = sorted(pairs, key=lambda key: pairs[key].p_value)
    adjusted, least = {}, 0.0
    for k, key in enumerate(ordered):
        least = max(least, min(1.0, (len(ordered) - k) * pairs[key].p_value))
        adjusted[key] = replace(pairs[key], adjusted_p=least)
    return {key: adjusted[key] for key in pairs}


def variance_of_seeds(correct: Correct) -> float:
    """Variance of accuracy (a share) between seeds, (seeds, N), beyond what samples make of it.

    Two-way analysis of variance, samples by seeds, one answer each: seeds that are right on other
    samples, equally often, differ by chance alone, and the samples' own bootstrap has that.
    """
    seeds, count = correct.shape
    means = correct.mean(1, keepdims=True)
    rest = correct - correct.mean(0) - means + correct.mean()
    by_chance = float((rest**2).sum()) / ((seeds - 1) * max(1, count - 1)) / count
    return float(max(0.0, means.var(ddof=1) - by_chance))


def _student(total: float, parts: Sequence[tuple[float, int]]) -> float:
    """97.5th percentile for a sum of variances, of which `parts` have few degrees of freedom."""
    from scipy.special import stdtrit  # where there is one training it is never needed

    weights = sum(variance**2 / freedom for variance, freedom in parts)
    return float(stdtrit(total**2 / weights, 0.975)) if weights > 0 else Z_95


def correct_of(evaluation: Evaluation) -> Correct:
    """Which samples a quality or test evaluation found right: (seeds, N), in split order.

    Raises KeyError for an evaluation that does not say.
    """
    try:
        return correct_from(evaluation.details["right"])
    except KeyError as error:
        raise KeyError(
            f"a {evaluation.kind} evaluation without details['right']: evaluate the design again"
        ) from error


def correct_from(rows: Sequence[str]) -> Correct:
    """The array (seeds, N) that `right_rows` wrote."""
    digits = [np.frombuffer(row.encode(), np.uint8) for row in rows]
    return np.stack(digits).astype(np.float64) - ord("0")


def correct_rows(correct: npt.NDArray[np.bool_ | np.floating]) -> list[str]:
    """(seeds, N) of 0 and 1 as one string of digits a seed."""
    return ["".join("1" if hit else "0" for hit in row) for row in np.atleast_2d(correct)]


def checked(correct: Correct) -> Correct:
    """The same array. Raises ValueError unless it is (seeds, N) and holds something."""
    if correct.ndim != 2 or not correct.size:
        raise ValueError(
            f"right answers of shape {correct.shape}: give (seeds, samples), not empty"
        )
    return correct


def bootstrapped(values: npt.NDArray[np.float64]) -> tuple[float, float]:
    """2.5th and 97.5th percentile of the mean of as many draws from `values`.

    Drawing samples and counting how often each distinct value came is one multinomial draw.
    """
    distinct, counts = np.unique(values.round(9), return_counts=True)
    drawn = np.random.default_rng(SEED).multinomial(
        len(values), counts / len(values), size=RESAMPLES
    )
    low, high = np.quantile(drawn @ distinct / len(values), [0.025, 0.975])
    return float(low), float(high)
