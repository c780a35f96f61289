"""What a sampler believes of designs that were not tried: Gaussian processes with priors."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from scipy.linalg import cho_solve, solve_triangular
from scipy.optimize import minimize

from search_space.genotype import Genotype
from studies.acquisition import Floats

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


AMPLITUDE = Prior(1.0, 1.0, 0.05, 20.0)
SLOPE = Prior(0.5, 1.0, 1e-3, 20.0)
LENGTH = Prior(1.5, 0.7, 0.1, 20.0)
ACCURACY_NOISE = Prior(0.05, 1.0, 1e-4, 1.0)
LATENCY_NOISE = Prior(1e-3, 1.0, 1e-5, 0.1)


class Surrogate:
    """A Gaussian process of one figure: a linear trend and a smooth departure from it.

    Kernel: DotProduct + Matérn 5/2 with a length scale a feature + white noise, on the figure
    brought to mean 0 and deviation 1. The hyperparameters are those of greatest posterior density
    under the priors above (in units of that deviation); the noise is estimated with them.
    """

    def __init__(self, features: Floats, values: Floats, noise: Prior) -> None:
        """Fits features (N, D) to values (N,)."""
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.gaussian_process import GaussianProcessRegressor
        from sklearn.gaussian_process.kernels import (
            ConstantKernel,
            DotProduct,
            Kernel,
            Matern,
            WhiteKernel,
        )

        self._mean = float(values.mean())
        self._scale = float(values.std()) or 1.0
        self._features, self._values = features, (values - self._mean) / self._scale
        priors = (SLOPE, AMPLITUDE, *(LENGTH for _ in range(features.shape[1])), noise)

        def box(prior: Prior) -> tuple[float, float]:
            return prior.low, prior.high

        kernel: Kernel = (
            ConstantKernel(SLOPE.median, box(SLOPE)) * DotProduct(1.0, "fixed")
            + ConstantKernel(AMPLITUDE.median, box(AMPLITUDE))
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
        self.noise = float(np.sqrt(fitted.kernel_.k2.noise_level)) * self._scale
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


def _evenly(count: int, most: int) -> Any:
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int))


def _under(priors: Sequence[Prior]) -> Callable[..., tuple[Any, float]]:
    """An optimizer for scikit-learn that adds the priors to the likelihood."""
    middle = np.log([prior.median for prior in priors])
    spread = np.array([prior.spread for prior in priors])

    def optimize(objective: Any, start: Any, bounds: Any) -> tuple[Any, float]:
        def loss(theta: Any) -> tuple[float, Any]:
            value, slope = objective(theta, eval_gradient=True)
            off = (theta - middle) / spread
            return value + 0.5 * float(off @ off), slope + off / spread

        found = minimize(
            loss, start, jac=True, bounds=bounds, method="L-BFGS-B", options={"maxiter": STEPS}
        )
        return found.x, float(found.fun)

    return optimize
