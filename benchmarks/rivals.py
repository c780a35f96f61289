"""Samplers of other toolkits for `samplers.py`; none of them is a dependency of this one.

    pip install ax-platform syne-tune

- ax: Ax's Client as it comes: the center of the space, Sobol draws to five trials, then BoTorch's
  noisy expected hypervolume improvement (qLogNEHVI), from thresholds that Ax infers.
- ax-reference: the same with the published reference point as thresholds. Ax recommends to give
  them where they are known; here the slowest design is, before any was timed.
- moasha: Syne Tune's MOASHA as it comes: about one design of three passes the first of two rungs.
  The rungs are what the table has, the probe first and training second, the latency at both. It
  draws designs at random and judges by the first rung alone: what training tells changes nothing.
- moasha-ranks: the same with the ranks that its own description gives. Those of Syne Tune 0.16.0
  are the sorted indices of the designs, not their ranks, so it stops designs that beat all others,
  and all of them for hundreds of designs in some studies. A study ends where it has started as many
  as the table holds.
"""

import importlib.util
import logging
import warnings
from collections.abc import Mapping
from datetime import datetime
from importlib import metadata
from typing import Any

import numpy as np

from search_space.space.space import Decision, SearchSpace
from studies.samplers.ehvi import SpaceExhausted
from studies.table.replay import Proposer
from studies.table.table import Table

PACKAGES = {
    "ax": ("ax", "ax-platform"),
    "ax-reference": ("ax", "ax-platform"),
    "moasha": ("syne_tune", "syne-tune"),
    "moasha-ranks": ("syne_tune", "syne-tune"),
}
"""What a rival needs: the module, and the package that brings it."""


class RivalMissing(Exception):
    """A rival's package is not installed; the text says which."""


def check_installed(name: str) -> None:
    """Raises RivalMissing where a rival's package is not installed."""
    module, package = PACKAGES[name]
    if importlib.util.find_spec(module) is None:
        raise RivalMissing(f"{name}: there is no module {module}; pip install {package}")


def versions() -> dict[str, str]:
    """Of the rivals' packages that are installed."""
    wanted = ("ax-platform", "botorch", "gpytorch", "syne-tune")
    found = {each.metadata["Name"]: each.version for each in metadata.distributions()}
    return {name: found[name] for name in wanted if name in found}


def rival(name: str, seed: int, table: Table) -> Proposer:
    """The rival of this name, new."""
    if name.startswith("ax"):
        worst_ms = 1.1 * float(table.latency.max()) if name == "ax-reference" else None
        return AxProposer(table.space, seed, worst_ms)
    return MoashaProposer(table, seed, own_ranks=name == "moasha")


class AxProposer:
    """Ax's Client. `worst_ms`: the threshold of latency, with 0 % that of accuracy; or inferred."""

    def __init__(self, space: SearchSpace, seed: int, worst_ms: float | None) -> None:
        from ax.api.client import Client

        for handler in logging.getLogger("ax").handlers:  # some lines a trial
            handler.setLevel(logging.ERROR)
        warnings.filterwarnings("ignore", module=r"(ax|botorch|linear_operator)\.")
        self._client = Client(random_seed=seed)
        self._client.configure_experiment([_ax_parameter(d) for d in space.decisions])
        thresholds = None if worst_ms is None else ["accuracy >= 0", f"latency <= {worst_ms}"]
        self._client.configure_optimization("accuracy, -latency", thresholds)
        self.started = 0

    def ask(self) -> Mapping[str, Any]:
        """As the Protocol has it."""
        ((self._trial, params),) = self._client.get_next_trials(1).items()
        self.started += 1
        return params

    def tell(self, accuracy: float, latency: float) -> None:
        """As the Protocol has it."""
        self._client.complete_trial(self._trial, {"accuracy": accuracy, "latency": latency})


def _ax_parameter(decision: Decision) -> Any:
    from ax.api.configs import ChoiceParameterConfig, RangeParameterConfig

    choices = list(decision.choices)
    number = isinstance(choices[0], int)
    kind = "int" if number else "str"
    if decision.kind == "integer" and len(choices) > 1:
        return RangeParameterConfig(decision.name, (choices[0], choices[-1]), kind)
    return ChoiceParameterConfig(decision.name, choices, kind, is_ordered=number)


class MoashaProposer:
    """Syne Tune's MOASHA, one design after another; asked designs have passed the first rung."""

    def __init__(self, table: Table, seed: int, own_ranks: bool) -> None:
        from syne_tune.config_space import choice
        from syne_tune.optimizer.schedulers.multiobjective.moasha import MOASHA

        # Its draws come from numpy's global generator, whatever seed it is given.
        np.random.seed(seed)
        self._table = table
        self._scheduler = MOASHA(
            {d.name: choice(list(d.choices)) for d in table.space.decisions},
            metrics=["loss", "latency"],
            time_attr="rung",
            max_t=2,
            multiobjective_priority=None if own_ranks else _ranks(),
            random_seed=seed,
        )
        self.started = 0

    def ask(self) -> Mapping[str, Any]:
        """As the Protocol has it."""
        from syne_tune.backend.trial_status import Trial
        from syne_tune.optimizer.scheduler import SchedulerDecision

        while self.started < len(self._table.genotypes):
            config = self._scheduler.suggest().config
            self._trial = Trial(self.started, config, datetime.now())
            self.started += 1
            self._scheduler.on_trial_add(self._trial)
            row = self._table.row(config)
            told = self._result(1, self._table.probe[row], self._table.latency[row])
            if self._scheduler.on_trial_result(self._trial, told) == SchedulerDecision.CONTINUE:
                return config
            self._scheduler.on_trial_remove(self._trial)
        raise SpaceExhausted(f"{self.started:,} designs were started, as many as the table holds")

    def tell(self, accuracy: float, latency: float) -> None:
        """As the Protocol has it."""
        told = self._result(2, accuracy, latency)
        self._scheduler.on_trial_result(self._trial, told)
        self._scheduler.on_trial_complete(self._trial, told)

    @staticmethod
    def _result(rung: int, percent: float, latency: float) -> dict[str, Any]:
        return {"rung": rung, "loss": -float(percent), "latency": float(latency)}


def _ranks() -> Any:
    from syne_tune.optimizer.schedulers.multiobjective.multiobjective_priority import MOPriority
    from syne_tune.optimizer.schedulers.multiobjective.non_dominated_priority import (
        compute_epsilon_net,
        pareto_efficient,
    )

    class Ranks(MOPriority):
        """Rank of each design, 0 the best: front by front, well spread ones of a front first."""

        def priority_unsafe(self, objectives: np.ndarray) -> np.ndarray:
            ranks = np.empty(len(objectives), dtype=int)
            left, ranked = np.arange(len(objectives)), 0
            while left.size:
                best = pareto_efficient(objectives[left])
                front = left[best]
                ranks[front] = ranked + compute_epsilon_net(objectives[front], dim=0)
                ranked, left = ranked + front.size, left[~best]
            return ranks

    return Ranks()
