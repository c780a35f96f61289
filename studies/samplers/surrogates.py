"""What a sampler believes of designs that were not tried: Gaussian processes with priors."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from scipy.linalg import cho_solve, solve_triangular
from scipy.optimize import minimize

from search_space.design.genotype import Genotype
from studies.results.hypervolume import Floats

FITTED_AT_MOST = 100
"""Length scales are settled by longer studies' evenly spaced trials, so many."""
STEPS = 30


class LatencyPrediction(Protocol):
    """Latencies of designs that need not have been timed."""

    def __call__(self, designs: Sequence[Genotype]) -> tuple[Floats, Floats]:
        """(median ms, relative standard deviation) of N designs, (N,) each."""
        ...


@dataclass(frozen=True)
class Prior:
    """Of a positive figure: log-normal, with hard bounds."""

    median: float
    spread: float
    low: float
    high: float


ALONE = Prior(2.0, 1.0, 0.05, 50.0)
TOGETHER = Prior(0.1, 1.0, 1e-3, 10.0)
LENGTH = Prior(1.5, 0.7, 0.1, 20.0)
ACCURACY_NOISE = Prior(0.02, 1.0, 1e-4, 1.0)
LATENCY_NOISE = Prior(1e-3, 1.0, 1e-5, 0.1)


class Surrogate:
    """A Gaussian process of one figure: a sum over the features, and a smooth departure from it.

    Kernel: additive Matérn 5/2 + Matérn 5/2 of all features + white noise, with a length scale a
    feature, on the figure brought to mean 0 and deviation 1. The hyperparameters are those of
    greatest posterior density under the priors above (in units of that deviation); the noise is
    estimated with them. `evidence` is the log of that density with that of the values.
    """

    def __init__(self, features: Floats, values: Floats, noise: Prior) -> None:
        """Fits features (N, D) to values (N,)."""
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.gaussian_process import GaussianProcessRegressor
        from sklearn.gaussian_process.kernels import (
            ConstantKernel,
            Kernel,
            Matern,
            WhiteKernel,
        )

        from studies.samplers.kernels import AdditiveMatern

        self._mean = float(values.mean())
        self._scale = float(values.std()) or 1.0
        self._features, self._values = features, (values - self._mean) / self._scale
        lengths = [LENGTH] * features.shape[1]
        priors = (ALONE, *lengths, TOGETHER, *lengths, noise)

        def box(prior: Prior) -> tuple[float, float]:
            return prior.low, prior.high

        kernel: Kernel = (
            ConstantKernel(ALONE.median, box(ALONE))
            * AdditiveMatern(np.full(features.shape[1], LENGTH.median), box(LENGTH))
            + ConstantKernel(TOGETHER.median, box(TOGETHER))
            * Matern(np.full(features.shape[1], LENGTH.median), box(LENGTH), nu=2.5)
            + WhiteKernel(noise.median, box(noise))
        )
        some = _evenly(len(values), FITTED_AT_MOST)
        fitted = GaussianProcessRegressor(kernel, alpha=1e-8, optimizer=_under(priors))
        with warnings.catch_warnings():
            # It warns of a figure at a bound; with priors a bound is where little was learned.
            warnings.simplefilter("ignore", ConvergenceWarning)
            fitted.fit(features[some], self._values[some])
        self._kernel = fitted.kernel_
        self.evidence = -_penalty(priors, self._kernel.theta)[0]
        self.evidence += fitted.log_marginal_likelihood_value_ - len(some) * np.log(self._scale)
        self._condition()

    def believe(self, features: Floats) -> None:
        """Takes what it expects at (M, D) for observed, hyperparameters kept (kriging believer)."""
        if len(features):
            mean, _ = self.predict(features)
            self._features = np.concatenate([self._features, features])
            self._values = np.concatenate([self._values, (mean - self._mean) / self._scale])
            self._condition()

    def predict(self, features: Floats) -> tuple[Floats, Floats]:
        """(mean, standard deviation) of the figure itself, noise left out, at (N, D): (N,) each."""
        signal = self._kernel.k1
        across = signal(features, self._features)
        mean = across @ self._weights
        half = solve_triangular(self._factor, across.T, lower=True)
        variance = signal.diag(features) - (half**2).sum(axis=0)
        sd = np.sqrt(np.maximum(variance, 0.0))
        return self._mean + self._scale * mean, self._scale * sd

    def _condition(self) -> None:
        covariance = self._kernel(self._features)
        covariance[np.diag_indices_from(covariance)] += 1e-8
        self._factor = np.linalg.cholesky(covariance)
        self._weights = cho_solve((self._factor, True), self._values)


class LatencySurrogate:
    """Latencies as trials tell them: of ms, or of log ms where that explains them better.

    Layers add up in ms; encoders and precisions multiply. Which of the two holds is told by the
    evidence of both.
    """

    def __init__(self, features: Floats, ms: Floats) -> None:
        """Fits features (N, D) to ms (N,)."""
        self._sums = Surrogate(features, ms, LATENCY_NOISE)
        self._logs = Surrogate(features, np.log(ms), LATENCY_NOISE)
        some = _evenly(len(ms), FITTED_AT_MOST)
        self._adds_up = self._sums.evidence > self._logs.evidence - np.log(ms[some]).sum()
        self._least = 0.5 * float(ms.min())

    def predict(self, features: Floats) -> tuple[Floats, Floats]:
        """(median ms, relative standard deviation) at (N, D): (N,) each."""
        if self._adds_up:
            mean, sd = self._sums.predict(features)
            ms = np.maximum(mean, self._least)
            return ms, np.minimum(sd / ms, 1.0)
        log_ms, log_sd = self._logs.predict(features)
        return np.exp(log_ms), np.minimum(log_sd, 1.0)


def _penalty(priors: Sequence[Prior], theta: Any) -> tuple[float, Any]:
    """How far figures, as logs, are from their priors, and the slope of that."""
    spread = np.array([prior.spread for prior in priors])
    off = (theta - np.log([prior.median for prior in priors])) / spread
    return 0.5 * float(off @ off), off / spread


def _evenly(count: int, most: int) -> Any:
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int))


def _under(priors: Sequence[Prior]) -> Callable[..., tuple[Any, float]]:
    """An optimizer for scikit-learn that adds the priors to the likelihood."""

    def optimize(objective: Any, start: Any, bounds: Any) -> tuple[Any, float]:
        def loss(theta: Any) -> tuple[float, Any]:
            value, slope = objective(theta, eval_gradient=True)
            more, steeper = _penalty(priors, theta)
            return value + more, slope + steeper

        found = minimize(
            loss, start, jac=True, bounds=bounds, method="L-BFGS-B", options={"maxiter": STEPS}
        )
        return found.x, float(found.fun)

    return optimize
