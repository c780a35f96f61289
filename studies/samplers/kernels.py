"""A kernel for scikit-learn: functions that are sums of one-dimensional ones."""

from typing import Any

import numpy as np
from sklearn.gaussian_process.kernels import Hyperparameter, Kernel, NormalizedKernelMixin


class AdditiveMatern(NormalizedKernelMixin, Kernel):  # type: ignore[misc]
    """The mean over the features of a Matérn 5/2 kernel of each, with a length scale a feature.

    Functions under it have no interactions, so that few points tell much of all the others
    (Duvenaud, Nickisch and Rasmussen, "Additive Gaussian processes", NeurIPS 2011, first order).
    """

    def __init__(self, length_scale: Any, length_scale_bounds: Any = (1e-5, 1e5)) -> None:
        self.length_scale = length_scale
        self.length_scale_bounds = length_scale_bounds

    @property
    def hyperparameter_length_scale(self) -> Any:
        """One figure a feature, on a log scale."""
        count = len(self.length_scale)
        return Hyperparameter("length_scale", "numeric", self.length_scale_bounds, count)

    def __call__(self, X: Any, Y: Any = None, eval_gradient: bool = False) -> Any:
        """(N, M), and with `eval_gradient` its slope by the log of each length: (N, N, D)."""
        other = X if Y is None else Y
        if not eval_gradient:  # a feature at a time: thousands of designs fill the cache else
            total = np.zeros((len(X), len(other)))
            for mine, theirs, length in zip(X.T, other.T, self.length_scale, strict=True):
                scaled = np.abs(mine[:, None] - theirs) * (np.sqrt(5) / length)
                total += (1 + scaled + scaled**2 / 3) * np.exp(-scaled)
            return total / X.shape[1]
        scaled = np.abs(X[:, None, :] - other[None, :, :]) * (np.sqrt(5) / self.length_scale)
        decay = np.exp(-scaled)
        values = np.asarray(((1 + scaled + scaled**2 / 3) * decay).mean(axis=2))
        return values, scaled**2 * (1 + scaled) * decay / (3 * X.shape[1])

    def is_stationary(self) -> bool:
        """True."""
        return True
