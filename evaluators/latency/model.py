"""How long a design not yet timed will take on one device, learnt from a few readings of others.

A design's time is a sum over its parts (`evaluators.latency.features`). Each part's time is its
nominal cost times a factor of its own, so never negative; logarithms of the factors are normal
before any reading, and correlated: a first reading tells how fast the device is at everything. The
logarithm of a latency is then fitted by Gauss-Newton on the parts' factors, and its uncertainty is
that of the fit made linear (Laplace). What the sum cannot tell, of designs and of readings that do
not repeat, is a deviation whose size is found from the readings themselves (evidence). Readings far
from the rest weigh less (Student's t), so that one taken while others ran does not bend the model.

A prediction says what to time next and what is not worth it. It is no measurement.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from evaluators.latency.features import LatencyFeatures
from search_space.design.genotype import Genotype

Array = npt.NDArray[np.float64]
MISFITS = tuple(0.006 * 1.6**k for k in reversed(range(11)))
"""Relative deviations of readings from the sum of parts among which one is found."""
EXPECTED_MISFIT, MISFIT_SPREAD = 0.03, 0.8
"""Of these, what is expected before any reading, and the deviation of its logarithm."""
FREEDOM = 5.0
"""Degrees of freedom of Student's t."""
STEPS = 60
CONVERGED = 1e-6
POOL = 1500
"""So many candidates are weighed at once; of more, as many drawn."""


@dataclass(frozen=True)
class TimedDesign:
    """A design's latency on the device: median in ms, and half of its 95 % interval's width as a
    share of it."""

    genotype: Genotype
    ms: float
    half_width: float

    def __post_init__(self) -> None:
        if not (np.isfinite(self.ms) and self.ms > 0):
            raise ValueError(f"a latency of {self.ms} ms: give a reading above 0")
        if not (np.isfinite(self.half_width) and self.half_width >= 0):
            raise ValueError(f"a half-width of {self.half_width}: give a share of 0 or more")


@dataclass(frozen=True)
class LatencyModel:
    """What is known of one device, runtime, number of threads and timing after some readings.

    effects: (effects,) the most probable ones; spread: (effects, effects) with spread spread' their
    covariance; misfit: the relative deviation of a reading from the sum. scale: (parts,) factors of
    the nominal costs, those of another device that the model started from. evidence: logarithm of
    how probable the readings are under what was believed before them, but for a constant that
    depends on them alone.
    """

    features: LatencyFeatures
    beliefs: Array
    effects: Array
    spread: Array
    misfit: float
    scale: Array
    evidence: float = 0.0

    @staticmethod
    def fit(
        features: LatencyFeatures,
        readings: Sequence[TimedDesign],
        other: "LatencyModel | None" = None,
        likeness: float = 1.0,
    ) -> "LatencyModel":
        """The model after these readings, in whatever order; with none it knows no device yet.

        `other` is the model of another device: its most probable factors are the nominal costs
        here. How far this device may be from them is as uncertain as without, times `likeness`,
        but for how fast it is at everything.

        Raises ValueError for a reading of an encoder that the features do not know.
        """
        beliefs = features.beliefs()
        if likeness != 1.0:
            beliefs = np.concatenate([beliefs[:, :1], likeness * beliefs[:, 1:]], axis=1)
        scale = np.ones(len(beliefs))
        if other is not None:
            scale = other.scale * np.exp(beliefs @ other.effects)
        if not readings:
            count = beliefs.shape[1]
            return LatencyModel(
                features, beliefs, np.zeros(count), np.eye(count), EXPECTED_MISFIT, scale
            )
        # One order, so that sums round alike whatever the order given.
        ordered = sorted(readings, key=lambda one: (one.genotype.key, one.ms, one.half_width))
        costs = features.of([one.genotype for one in ordered]) * scale
        targets = np.log([one.ms for one in ordered])
        noise = np.array([one.half_width / 1.96 for one in ordered])
        fits: list[_Fit] = []
        for misfit in MISFITS:  # each fit starts where the one before ended, close by
            start = fits[-1].effects if fits else np.zeros(beliefs.shape[1])
            fits.append(_Fit.of(costs, beliefs, targets, noise, misfit, start))
        best = max(fits, key=lambda one: one.evidence)
        # Few readings leave open how large the misfit is: larger ones count as they are probable.
        odds = np.exp([one.evidence - best.evidence for one in fits])
        misfit = float(np.sqrt(np.square(MISFITS) @ odds / odds.sum()))
        evidence = best.evidence + float(np.log(odds.sum()))
        return LatencyModel(features, beliefs, best.effects, best.spread, misfit, scale, evidence)

    def predict(self, costs: Array) -> tuple[Array, Array]:
        """Latency in ms (N,) of designs with these features, and the relative standard deviation
        (N,) of a reading of each."""
        expected, slopes = _sum_of_parts(costs * self.scale, self.beliefs, self.effects)
        variance = np.square(slopes @ self.spread).sum(1) + self.misfit**2
        return np.exp(expected), np.sqrt(variance)

    def by_owner(self, costs: Array) -> list[dict[str, float]]:
        """Expected ms of each owner's parts, for designs with these features (N, columns).

        The values of a design add up to its predicted latency.
        """
        times = costs * self.scale * np.exp(self.beliefs @ self.effects)
        found: list[dict[str, float]] = []
        for row in times:
            found.append({})
            for owner, ms in zip(self.features.owners, row.tolist(), strict=True):
                if ms:
                    found[-1][owner] = found[-1].get(owner, 0.0) + ms
        return found

    def next_to_time(self, costs: Array, count: int, seed: int = 0) -> list[int]:
        """Which candidates (indices into N) to time so that most is learnt of all of them.

        One by one, each the one whose reading lowers the mean variance over the candidates most,
        given those before it; no reading is needed to choose the next. Fewer where there are
        fewer. `seed` draws the candidates that are weighed where there are over POOL.
        """
        drawn = np.arange(len(costs))
        if len(costs) > POOL:
            drawn = np.sort(np.random.default_rng(seed).choice(drawn, POOL, replace=False))
        _, slopes = _sum_of_parts(costs[drawn] * self.scale, self.beliefs, self.effects)
        roots = slopes @ self.spread
        covariance = roots @ roots.T
        open_ = np.ones(len(drawn), dtype=bool)
        chosen: list[int] = []
        for _ in range(min(count, len(drawn))):
            gains = np.square(covariance).sum(1) / (np.diag(covariance) + self.misfit**2)
            best = int(np.argmax(np.where(open_, gains, -np.inf)))
            open_[best] = False
            chosen.append(int(drawn[best]))
            column = covariance[:, best]
            covariance = covariance - np.outer(column, column) / (column[best] + self.misfit**2)
        return chosen


@dataclass(frozen=True)
class _Fit:
    """The most probable effects under one misfit, and how well it explains the readings."""

    effects: Array
    spread: Array
    misfit: float
    evidence: float

    @staticmethod
    def of(
        costs: Array, beliefs: Array, targets: Array, noise: Array, misfit: float, start: Array
    ) -> "_Fit":
        """The fit that Gauss-Newton reaches from these effects."""
        variance = noise**2 + misfit**2
        effects = start
        loss = np.inf
        for _ in range(STEPS):
            expected, slopes = _sum_of_parts(costs, beliefs, effects)
            weighed = variance / _weights(targets - expected, variance)
            gram = slopes @ slopes.T + np.diag(weighed)
            goal = slopes.T @ np.linalg.solve(gram, targets - expected + slopes @ effects)
            step = 1.0
            while True:
                tried = effects + step * (goal - effects)
                reached = _loss(costs, beliefs, targets, variance, tried)
                if reached <= loss or step < 1e-3:
                    break
                step /= 2
            moved = float(np.abs(tried - effects).max())
            effects, loss = tried, reached
            if moved < CONVERGED:
                break
        expected, slopes = _sum_of_parts(costs, beliefs, effects)
        weighed = variance / _weights(targets - expected, variance)
        precision = np.eye(len(effects)) + slopes.T @ (slopes / weighed[:, None])
        lower = np.linalg.cholesky(precision)
        spread = np.linalg.solve(lower, np.eye(len(effects))).T
        prior = -0.5 * (np.log(misfit / EXPECTED_MISFIT) / MISFIT_SPREAD) ** 2
        evidence = prior - loss - np.log(np.diag(lower)).sum()
        return _Fit(effects, spread, misfit, float(evidence))


def _sum_of_parts(costs: Array, beliefs: Array, effects: Array) -> tuple[Array, Array]:
    """Logarithm of the latency (N,), and its slope along each effect (N, effects)."""
    times = costs * np.exp(beliefs @ effects)
    total = times.sum(1)
    return np.log(total), (times / total[:, None]) @ beliefs


def _weights(residuals: Array, variance: Array) -> Array:
    """How much each reading counts under Student's t."""
    return (FREEDOM + 1) / (FREEDOM + residuals**2 / variance)


def _loss(costs: Array, beliefs: Array, targets: Array, variance: Array, effects: Array) -> float:
    """Negative logarithm of how probable readings and effects are together, but for a constant."""
    expected, _ = _sum_of_parts(costs, beliefs, effects)
    share = (targets - expected) ** 2 / variance / FREEDOM
    of_readings = (FREEDOM + 1) / 2 * np.log1p(share) + 0.5 * np.log(variance)
    return float(of_readings.sum() + 0.5 * effects @ effects)
