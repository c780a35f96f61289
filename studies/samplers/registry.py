"""Samplers, by the name that `--sampler` takes, and the questions that they answer."""

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

from search_space.space.space import SearchSpace

if TYPE_CHECKING:  # settings read the names of samplers, and start without Optuna and SciPy
    import optuna
    from optuna.distributions import BaseDistribution

    from studies.samplers.surrogates import LatencyPrediction

RESEED = 100_003
BLIND = ("tpe", "gp", "nsga2")
"""Samplers that learn nothing from a design that was trained and not timed, or shun its like."""

AUTO = "auto"
"""The sampler that `chosen` takes."""
SAMPLERS = {
    "tpe": "tree-structured Parzen estimator, all decisions together",
    "ehvi": "expected hypervolume improvement over every untried design; for few trials",
    "gp": "Gaussian process with constraints; slower a trial, better in few trials",
    "nsga2": "evolution by non-dominated sorting; for long studies",
    "random": "every design drawn afresh; what the others are compared with",
}


def chosen(name: str, space: SearchSpace, deferred_timing: bool = False, pair: bool = True) -> str:
    """The sampler of this name; of AUTO "ehvi" for a space that is listed whole, else "tpe".

    On the table of such a space `benchmarks/samplers.py` found "ehvi" ahead of all others or level
    with the best; of larger spaces there is no such table. With few readings it is "ehvi" too.
    """
    if name != AUTO:
        return name
    from studies.samplers.pool import ENUMERABLE

    if not pair:  # of more objectives the samplers were not compared
        return "tpe"
    return "ehvi" if deferred_timing or space.size <= ENUMERABLE else "tpe"


def sampler_maker(
    name: str, seed: int, space: SearchSpace, latency: "LatencyPrediction | None" = None
) -> "Callable[[int], optuna.samplers.BaseSampler]":
    """What makes the sampler of a trial from the trial's number. `name` is a key of SAMPLERS.

    Seed and trial decide what it draws: a study that was cut off goes on as if it had not been,
    and workers that start together draw apart. `latency` is what "ehvi" takes a design's latency
    to be before it is timed; without it, what the study's own trials tell.
    """
    from optuna import samplers

    from studies.samplers.ehvi import EnumeratedEhviSampler
    from studies.samplers.pool import DesignPool

    asked = distributions(space)
    pool = cache(lambda: DesignPool(space, seed))  # listing a space takes seconds, so when needed
    makers: dict[str, Callable[[int], samplers.BaseSampler]] = {
        "tpe": lambda seed: samplers.TPESampler(seed=seed, multivariate=True),
        "ehvi": lambda seed: EnumeratedEhviSampler(pool(), asked, seed, latency),
        "gp": lambda seed: samplers.GPSampler(seed=seed),
        "nsga2": lambda seed: samplers.NSGAIISampler(seed=seed, population_size=20),
        "random": lambda seed: samplers.RandomSampler(seed=seed),
    }
    make = makers[name]
    return lambda trial: make((seed + RESEED * trial) % 2**32)


def distributions(space: SearchSpace) -> "dict[str, BaseDistribution]":
    """The decisions of a space as Optuna asks them: all of them, every time."""
    from optuna.distributions import CategoricalDistribution, IntDistribution

    found: dict[str, BaseDistribution] = {}
    for decision in space.decisions:
        if decision.kind == "integer":
            found[decision.name] = IntDistribution(
                int(decision.choices[0]), int(decision.choices[-1])
            )
        else:
            found[decision.name] = CategoricalDistribution(decision.choices)
    return found
