"""Optuna's samplers, by the name that `--sampler` takes."""

from collections.abc import Callable
from typing import Any

RESEED = 100_003

SAMPLERS = {
    "tpe": "tree-structured Parzen estimator, all decisions together (the default)",
    "gp": "Gaussian process with constraints; slower a trial, better in few trials",
    "nsga2": "evolution by non-dominated sorting; for long studies",
    "random": "every design drawn afresh; what the others are held against",
}


def make_sampler(name: str, seed: int, trial: int) -> Any:
    """An Optuna sampler for one trial. `name` is a key of SAMPLERS.

    Seed and trial decide what it draws: a study that was cut off goes on as if it had not been,
    and workers that start together draw apart.
    """
    from optuna import samplers

    seed = (seed + RESEED * trial) % 2**32

    makers: dict[str, Callable[[], samplers.BaseSampler]] = {
        "tpe": lambda: samplers.TPESampler(seed=seed, multivariate=True),
        "gp": lambda: samplers.GPSampler(seed=seed),
        "nsga2": lambda: samplers.NSGAIISampler(seed=seed, population_size=20),
        "random": lambda: samplers.RandomSampler(seed=seed),
    }
    return makers[name]()
