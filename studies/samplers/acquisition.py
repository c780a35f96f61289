"""Expected hypervolume improvement of accuracy (up) against latency (down), in closed form.

Where the latency of a design is known, the area that it adds to a front is the sum, over the
cells that the front cuts the latency axis into, of the cell's length times how far the accuracy
is above the best of the front there: for a Gaussian accuracy a sum of one-dimensional expected
improvements, exact (the two-dimensional case of Emmerich, Deutz and Klinkenberg, "Hypervolume-based
expected improvement", CEC 2011, with one objective known).
"""

import numpy as np
from scipy.special import ndtr

from studies.results.hypervolume import Floats

_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(5)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()


def expected_improvement(mean: Floats, sd: Floats, best: Floats) -> Floats:
    """E[max(0, x - best)] of x ~ N(mean, sd²), elementwise; sd may be 0."""
    sd = np.maximum(sd, 1e-12)
    z = (mean - best) / sd
    density = np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi)
    return np.asarray(np.maximum(sd * (density + z * ndtr(z)), 0.0))


def expected_hypervolume_improvement(
    mean: Floats,
    sd: Floats,
    latency: Floats,
    front: tuple[Floats, Floats],
    worst: tuple[float, float],
) -> Floats:
    """Percent x ms that each of N designs is expected to add to the front: (N,).

    mean, sd: of the accuracy in percent, (N,). latency: ms, known, (N,). front: as `front_of`
    gives it. worst: the reference point, (percent, ms).
    """
    accuracy, at = front
    level = np.concatenate(([worst[0]], accuracy))  # the best accuracy of each cell, (cells,)
    begin = np.concatenate(([-np.inf], at))
    end = np.concatenate((at, [worst[1]]))
    length = np.maximum(end - np.maximum(latency[:, None], begin), 0.0)
    gain = expected_improvement(mean[:, None], sd[:, None], level)
    return np.asarray((length * gain).sum(axis=1))


def ehvi_with_uncertain_latency(
    mean: Floats,
    sd: Floats,
    latency: Floats,
    relative_sd: Floats,
    front: tuple[Floats, Floats],
    worst: tuple[float, float],
    limit_ms: float = np.inf,
) -> Floats:
    """As `expected_hypervolume_improvement`, over five nodes of a log-normal latency (N,).

    `relative_sd` (N,) is the standard deviation of the logarithm of the latency. What is slower
    than `limit_ms` adds nothing.
    """
    total = np.zeros_like(mean)
    for node, weight in zip(_NODES, _WEIGHTS, strict=True):
        at = latency * np.exp(node * relative_sd)
        gain = expected_hypervolume_improvement(mean, sd, at, front, worst)
        total += weight * np.where(at <= limit_ms, gain, 0.0)
    return total
