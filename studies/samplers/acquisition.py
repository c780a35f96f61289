"""Expected hypervolume improvement of accuracy (up) against latency (down), in closed form.

Where the latency of a design is known, the area that it adds to a front is the sum, over the
cells that the front cuts the latency axis into, of the cell's length times how far the accuracy
is above the best of the front there: for a Gaussian accuracy a sum of one-dimensional expected
improvements, exact (the two-dimensional case of Emmerich, Deutz and Klinkenberg, "Hypervolume-based
expected improvement", CEC 2011, with one objective known).

A third objective cuts space into slabs, in each of which the front of the other two is that of the
points that are at least as good in the third: the sum over the slabs of that expected area, times
how far the third objective is expected to reach into the slab (`ehvi_of_three`), exact as well for
figures that are independent.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

from studies.results.hypervolume import Floats, front_of, not_dominated

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
    gain = _expected_gains(mean, sd, front, worst)
    return np.asarray((_lengths(latency, front, worst) * gain).sum(axis=1))


def _expected_gains(
    mean: Floats, sd: Floats, front: tuple[Floats, Floats], worst: tuple[float, float]
) -> Floats:
    """Percent above the best of the front that is expected in each cell: (N, cells)."""
    level = np.concatenate(([worst[0]], front[0]))
    return expected_improvement(mean[:, None], sd[:, None], level)


def _lengths(latency: Floats, front: tuple[Floats, Floats], worst: tuple[float, float]) -> Floats:
    """Ms of each cell that designs of this latency (N,) reach: (N, cells)."""
    begin = np.concatenate(([-np.inf], front[1]))
    end = np.concatenate((front[1], [worst[1]]))
    return np.asarray(np.maximum(end - np.maximum(latency[:, None], begin), 0.0))


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
    total, gain = np.zeros_like(mean), _expected_gains(mean, sd, front, worst)
    for node, weight in zip(_NODES, _WEIGHTS, strict=True):
        at = latency * np.exp(node * relative_sd)
        area = (_lengths(at, front, worst) * gain).sum(axis=1)
        total += weight * np.where(at <= limit_ms, area, 0.0)
    return total


@dataclass(frozen=True)
class Beliefs:
    """What is believed of N designs, each (N,); the figures are taken to be independent.

    accuracy, accuracy_sd: percent, Gaussian. latency, relative_sd: median ms and the standard
    deviation of its logarithm, log-normal. third, third_sd: a third objective such that more is
    better, Gaussian.
    """

    accuracy: Floats
    accuracy_sd: Floats
    latency: Floats
    relative_sd: Floats
    third: Floats
    third_sd: Floats


def ehvi_of_three(
    beliefs: Beliefs,
    known: tuple[Floats, Floats, Floats],
    worst: tuple[float, float, float],
    limit_ms: float = np.inf,
) -> Floats:
    """Volume that each of N designs is expected to add to what known ones dominate: (N,).

    known: accuracy, ms and third objective of M designs, (M,) each, none of them need be on the
    front. worst: the reference point. Of the third objective more is better. What is slower than
    `limit_ms` adds nothing.
    """
    b, total = beliefs, np.zeros_like(beliefs.accuracy)
    for begin, end, front in _slabs(known, worst):
        reach = expected_improvement(b.third, b.third_sd, np.array(begin))
        if np.isfinite(end):
            reach = reach - expected_improvement(b.third, b.third_sd, np.array(end))
        area = ehvi_with_uncertain_latency(
            b.accuracy, b.accuracy_sd, b.latency, b.relative_sd, front, worst[:2], limit_ms
        )
        total += reach * area
    return total


def _slabs(
    known: tuple[Floats, Floats, Floats], worst: tuple[float, float, float]
) -> Iterator[tuple[float, float, tuple[Floats, Floats]]]:
    """(begin, end, front of accuracy and latency) of each slab of the third objective, from worst.

    Between two neighbouring values of the third objective that front is the same everywhere.
    """
    gains = np.stack([known[0], -known[1], known[2]], axis=1)
    gains = not_dominated(gains[(gains > (worst[0], -worst[1], worst[2])).all(axis=1)])
    begin = worst[2]
    for end in (*np.unique(gains[:, 2]).tolist(), np.inf):
        reaching = gains[gains[:, 2] >= end]
        yield begin, end, front_of(reaching[:, 0], -reaching[:, 1], worst[:2])
        begin = end
