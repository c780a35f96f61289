"""Optuna's samplers, by the name that `--sampler` takes."""

from collections.abc import Callable
from typing import Any

SAMPLERS = {
    "tpe": "tree-structured Parzen estimator, all decisions together (the default)",
    "gp": "Gaussian process with constraints; slower a trial, better in few trials",
    "nsga2": "evolution by non-dominated sorting; for long studies",
    "random": "every design drawn afresh; what the others are held against",
}


def make_sampler(name: str, seed: int) -> Any:
    """An Optuna sampler. `name` is a key of SAMPLERS."""
    from optuna import samplers

    makers: dict[str, Callable[[], samplers.BaseSampler]] = {
        "tpe": lambda: samplers.TPESampler(
            seed=seed, multivariate=True, warn_independent_sampling=False
        ),
        "gp": lambda: samplers.GPSampler(seed=seed, warn_independent_sampling=False),
        "nsga2": lambda: samplers.NSGAIISampler(seed=seed, population_size=20),
        "random": lambda: samplers.RandomSampler(seed=seed),
    }
    return makers[name]()
