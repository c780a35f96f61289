"""One figure from the right and wrong answers of one network, or of several seeds."""

from collections.abc import Sequence

import numpy as np

from evaluators.data import Sample, Share, wilson
from evaluators.evaluation import Measure
from evaluators.statistics.paired import Correct, bootstrapped, checked


def measures_of(correct: Correct, samples: Sequence[Sample]) -> tuple[Measure, ...]:
    """Accuracy in percent over `samples` (N), from `right` (seeds, N), with its 95 % interval.

    "accuracy": every sample counts (in MOSI's layout: score >= 0 is non-negative, "has0").
    "accuracy_nonzero": of two classes in MOSI's layout, samples of score 0 left out.
    Raises ValueError where the two are not over the same number of samples.
    """
    if checked(correct).shape[1] != len(samples):
        raise ValueError(
            f"{correct.shape[1]} answers for {len(samples)} samples: give one for each, a seed"
        )
    shares = {"accuracy": mean_over_seeds(correct)}
    signed = np.array([sample.score is not None and sample.score != 0 for sample in samples])
    if signed.any() and max(sample.label for sample in samples) < 2:
        shares["accuracy_nonzero"] = mean_over_seeds(correct[:, signed])
    return tuple(
        Measure(name, 100 * share.value, "%", "higher", 100 * share.low, 100 * share.high)
        for name, share in shares.items()
    )


def mean_over_seeds(correct: Correct) -> Share:
    """The mean over seeds of the share that is right, and its 95 % interval.

    One seed: Wilson's interval. Several: a bootstrap over the samples with seeds averaged, two
    right and two wrong samples added (as Agresti and Coull do: no interval is of no width).
    Both cover what other samples could bring to these very networks. How far seeds lie apart is
    not in them; `spread_points` tells it beside them. `right` of the result is rounded.
    """
    seeds, count = checked(correct).shape
    if seeds == 1:
        return wilson(int(correct.sum()), count)
    shares = correct.mean(0)
    value = float(shares.mean())
    low, high = bootstrapped(np.concatenate([shares, [1.0, 1.0, 0.0, 0.0]]))
    return Share(value, min(low, value), max(high, value), round(value * count), count)


def spread_points(correct: Correct) -> dict[str, float]:
    """How far the seeds of `right` (seeds, N) lie apart: percent points.

    "lowest" and "highest": accuracy in percent of the worst and the best seed.
    "deviation": standard deviation over seeds, 0 for one seed.
    """
    percents = 100 * checked(correct).mean(1)
    return {
        "lowest": float(percents.min()),
        "highest": float(percents.max()),
        "deviation": float(percents.std(ddof=1)) if len(percents) > 1 else 0.0,
    }
