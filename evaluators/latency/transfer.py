"""A new device's latency model that begins from models of other devices, and its error.

A device is expected to be at each part of a network as much slower or faster than another as it is
at the others, up to deviations whose size is not known beforehand: two thread counts of one
processor are more alike than a processor and a GPU. So models with the deviations of
`evaluators.latency.features` times each of LIKENESSES are fitted, from every other device and from
none, and the one under which the readings are most probable is taken (evidence). The more alike the
devices, the fewer readings are needed; unlike ones give the model that the readings alone give.

HELP (Lee et al., NeurIPS 2021, https://arxiv.org/abs/2106.08630) learns the same by meta-learning
over many devices; here the parts of a network and their nominal costs take the place of those.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from evaluators.latency.features import LatencyFeatures
from evaluators.latency.model import LatencyModel, TimedDesign

LIKENESSES = (1.0, 0.3)
"""Factors of the deviations that a part is expected to have from another device's."""
LEAST_FOR_ERROR = 4
"""Readings from which the leave-one-out error is estimated."""


@dataclass(frozen=True)
class Transferred:
    """A model of a new device.

    Attributes:
        model: the latency model after the readings.
        source: the device whose model it began from; empty where none made the readings more
            probable.
        likeness: the factor of the deviations from it.
        readings: how many readings of the new device it knows.
    """

    model: LatencyModel
    source: str
    likeness: float
    readings: int


@dataclass(frozen=True)
class LeaveOneOut:
    """The error of a model on readings that it was not given, each left out in turn.

    Attributes:
        error: mean absolute error, as a share of the reading.
        spearman: rank correlation of predictions and readings; None where either are all alike.
        readings: how many there are.
    """

    error: float
    spearman: float | None
    readings: int


def transferred(
    features: LatencyFeatures,
    readings: Sequence[TimedDesign],
    others: Mapping[str, LatencyModel],
) -> Transferred:
    """The model of a new device after its readings, begun from the other device that explains most.

    Args:
        features: what of designs takes time.
        readings: of the new device.
        others: models of other devices, by name.
    """
    if not others:
        return Transferred(LatencyModel.fit(features, readings), "", 1.0, len(readings))
    if not readings:  # nothing tells which device is like this one
        name, other = next(iter(others.items()))
        return Transferred(LatencyModel.fit(features, (), other), name, 1.0, 0)
    best = Transferred(LatencyModel.fit(features, readings), "", 1.0, len(readings))
    for name, other in others.items():
        for likeness in LIKENESSES:
            model = LatencyModel.fit(features, readings, other, likeness)
            if model.evidence > best.model.evidence:
                best = Transferred(model, name, likeness, len(readings))
    return best


def leave_one_out(
    found: Transferred, readings: Sequence[TimedDesign], others: Mapping[str, LatencyModel]
) -> LeaveOneOut | None:
    """The error of a model, each of its readings predicted from the rest; None for too few.

    The other device and the likeness stay those that all readings chose.
    """
    if len(readings) < LEAST_FOR_ERROR:
        return None
    features, other = found.model.features, others.get(found.source)
    costs = features.of([one.genotype for one in readings])
    said = np.array(
        [
            LatencyModel.fit(
                features, [*readings[:k], *readings[k + 1 :]], other, found.likeness
            ).predict(costs[k : k + 1])[0][0]
            for k in range(len(readings))
        ]
    )
    seen = np.array([one.ms for one in readings])
    error = float(np.abs(said / seen - 1).mean())
    return LeaveOneOut(error, spearman(said, seen), len(readings))


def spearman(a: np.ndarray, b: np.ndarray) -> float | None:
    """Spearman's rank correlation of two rows (N,); None where either is all alike."""
    if len(set(a.tolist())) < 2 or len(set(b.tolist())) < 2:
        return None
    from scipy.stats import spearmanr

    return float(spearmanr(a, b).statistic)
