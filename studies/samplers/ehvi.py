"""A sampler for a space that can be listed and whose latency is nearly known."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from studies.results.hypervolume import Floats, front_of, reference_pair
from studies.results.trial_record import TrialRecord, TrialRecordError
from studies.samplers.acquisition import ehvi_with_uncertain_latency
from studies.samplers.pool import DesignPool
from studies.samplers.surrogates import (
    ACCURACY_NOISE,
    LatencyPrediction,
    LatencySurrogate,
    Surrogate,
)

START = 6
"""Designs that are spread over the space, cheap to expensive, before a model is asked."""
COMPLETE_AT_LEAST = 3
MODELLED_AT_MOST = 200
NEAR_THE_FRONT = 130
"""Of the modelled trials; the others are spread evenly over the study."""
LIMIT = "ms_over_latency_limit"


class SpaceExhausted(Exception):
    """Every design that the space offers and that can be built was tried or is being tried."""


@dataclass(frozen=True)
class History:
    """A study so far, designs as indices of the pool.

    accuracy (percent) and latency (ms) are those of `complete`, (N,); there the latency of one that
    was trained and not timed is the predicted one. over: timed, over the latency limit, their ms in
    over_ms. rejected: infeasible or unstable otherwise. stopped: by the probe, before training.
    pending: in the hands of workers. limit_ms: the study's latency limit, else infinite.
    """

    complete: list[int]
    accuracy: Floats
    latency: Floats
    over: list[int]
    over_ms: list[float]
    rejected: list[int]
    stopped: list[int]
    pending: list[int]
    failed: list[int]
    limit_ms: float

    @property
    def begun(self) -> list[int]:
        """Designs that were tried or are being tried; those whose trial failed are not."""
        return [*self.complete, *self.over, *self.rejected, *self.stopped, *self.pending]


class EnumeratedEhviSampler(optuna.samplers.BaseSampler):
    """Proposes the untried design that is expected to add most hypervolume to the front.

    All designs of the pool are weighed at once: the whole space where it is small, else a seeded
    draw of it and the neighbours of the current front (`DesignPool`). None is proposed twice, nor
    one that another worker has in hand; one whose trial failed comes again after all others.

    - Start: START designs from cheap to expensive, drawn with a leaning away from those tried.
    - Accuracy: a Gaussian process over the trials (`Surrogate`). The front that is to be improved
      is of its means at the tried designs, not of the noisy readings (a plug-in form of the noisy
      improvement of Daulton, Balandat and Bakshy, NeurIPS 2021, arXiv 2105.08195).
    - Latency: `latency` if given, else a Gaussian process (`LatencySurrogate`). The reference point
      is that of the published hypervolume: 0 %, 1.1 times the slowest design.
    - Trials of other workers count as told, with what is expected of them.
    - Designs that were infeasible or unstable teach which others will be (logistic regression).
    - Of more than MODELLED_AT_MOST complete trials, the NEAR_THE_FRONT that are nearest below the
      front are modelled, and others evenly spaced over the study.

    The study must have two objectives: accuracy in percent up, latency in ms down.
    """

    def __init__(
        self,
        pool: DesignPool,
        decisions: Mapping[str, BaseDistribution],
        seed: int,
        latency: LatencyPrediction | None = None,
    ) -> None:
        """`seed` decides the start; `decisions` are the pool's space as Optuna asks it."""
        self._pool, self._decisions = pool, dict(decisions)
        self._seed, self._latency = seed, latency

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Every decision of the space."""
        return self._decisions

    def sample_relative(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        search_space: dict[str, BaseDistribution],
    ) -> dict[str, Any]:
        """The answers that spell the design. Raises SpaceExhausted."""
        others = [t for t in study.get_trials(deepcopy=False) if t.number != trial.number]
        return self._pool.params(self.propose(others))

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Raises ValueError: nothing but the space's decisions is known here."""
        raise ValueError(f"{param_name} is no decision of the space that this sampler was made for")

    def check_untried(self, trials: Sequence[FrozenTrial]) -> None:
        """Raises SpaceExhausted where no design is left, before a trial is made for one."""
        self._untried(self._history(trials))

    def propose(self, trials: Sequence[FrozenTrial]) -> int:
        """The design to try next, of the pool, given all other trials. Raises SpaceExhausted."""
        history = self._history(trials)
        untried = self._untried(history)
        rng = np.random.default_rng(self._seed)
        if len(history.begun) < START or len(history.complete) < COMPLETE_AT_LEAST:
            return self._start(history, untried, rng)
        gain = self._gain(history, untried)
        if not gain.any():  # nothing is expected to help: learn where least is known
            return self._start(history, untried, rng)
        return untried[int(np.argmax(gain))]

    def _history(self, trials: Sequence[FrozenTrial]) -> History:
        complete: list[int] = []
        values: list[Sequence[float]] = []
        over: list[int] = []
        over_ms: list[float] = []
        rejected: list[int] = []
        stopped: list[int] = []
        predicted: dict[int, tuple[float, float]] = {}
        pending: list[int] = []
        failed: list[int] = []
        limit = np.inf
        for trial in trials:
            design = self._pool.index_of(trial.params)
            if design is None:
                continue
            if trial.state is TrialState.COMPLETE:
                complete.append(design)
                values.append(trial.values)
                if LIMIT in trial.constraints:
                    limit = trial.values[1] - trial.constraints[LIMIT]
            elif trial.state is TrialState.PRUNED and trial.constraints.get(LIMIT, 0.0) > 0:
                over.append(design)
                over_ms.append(_timed_ms(trial))
                limit = over_ms[-1] - trial.constraints[LIMIT]
            elif trial.state is TrialState.PRUNED:
                result = TrialRecord.of(trial).result
                if not result.stopped:
                    rejected.append(design)
                elif result.accuracy and result.predicted:  # trained: both are nearly known
                    predicted[design] = result.accuracy.value, result.predicted.value
                else:
                    stopped.append(design)
            elif trial.state is TrialState.RUNNING:
                pending.append(design)
            elif trial.state is TrialState.FAIL:
                failed.append(design)
        timed_since = {*complete, *over, *rejected, *pending}
        for design in sorted(predicted.keys() - timed_since):
            complete.append(design)
            values.append(predicted[design])
        told = np.array(values, dtype=float).reshape(-1, 2)
        accuracy, latency = told.T
        return History(
            complete, accuracy, latency, over, over_ms, rejected, stopped, pending, failed, limit
        )

    def _untried(self, history: History) -> list[int]:
        """Designs to choose from. Raises SpaceExhausted."""
        taken = set(history.begun)
        while True:
            offered = list(self._pool.offered)
            if not self._pool.whole and history.complete:
                worst = reference_pair(np.inf)
                front = set(zip(*front_of(history.accuracy, history.latency, worst), strict=True))
                told = zip(history.accuracy, history.latency, strict=True)
                on_front = [
                    design
                    for design, point in zip(history.complete, told, strict=True)
                    if point in front
                ]
                offered = list(dict.fromkeys([*offered, *self._pool.neighbours(on_front)]))
            free = [design for design in offered if design not in taken]
            failed = set(history.failed)
            untouched = [design for design in free if design not in failed]
            if untouched or free:
                return untouched or free
            if not self._pool.grow():
                raise SpaceExhausted(
                    f"the space is exhausted: all {len(offered):,} designs that can be built were "
                    "tried or are in the hands of other workers"
                )

    def _start(self, history: History, untried: list[int], rng: np.random.Generator) -> int:
        """A design of the next cost, cheap and expensive first, then between.

        What looks as expensive as one over the latency limit comes last.
        """
        begun, cost = history.begun, self._cost(untried)
        if history.over:
            within = np.flatnonzero(cost < self._cost(history.over).min())
            if len(within):
                untried, cost = [untried[i] for i in within], cost[within]
        rank = np.argsort(np.argsort(cost, kind="stable"), kind="stable") / len(untried)
        off = np.abs(rank - _level(len(begun)))
        near = np.flatnonzero(off <= max(0.05, off.min()))
        features = self._pool.features([untried[i] for i in near])
        # Mostly chance: what is farthest from all others pairs the ends of the decisions, such as a
        # deep text trunk with a shallow vision trunk, and such designs are seldom on a front.
        apart = rng.uniform(0.0, 3.0, len(near))
        if begun:
            steps = features[:, None, :] - self._pool.features(begun)[None, :, :]
            apart += np.sqrt((steps**2).sum(axis=2)).min(axis=1)
        return untried[int(near[int(np.argmax(apart))])]

    def _cost(self, designs: list[int]) -> Floats:
        if self._latency is None:
            return self._pool.cost(designs)
        return self._latency([self._pool.genotypes[i] for i in designs])[0]

    def _gain(self, history: History, untried: list[int]) -> Floats:
        """Hypervolume that each untried design is expected to add, percent x ms: (N,)."""
        kept = self._useful(history)
        tried = [history.complete[i] for i in kept]
        accuracy, latency = history.accuracy[kept], history.latency[kept]
        at_tried, at_pending, at_untried = map(
            self._pool.features, (tried, history.pending, untried)
        )
        quality = Surrogate(at_tried, accuracy, ACCURACY_NOISE)
        quality.believe(at_pending)
        believed, _ = quality.predict(np.concatenate([at_tried, at_pending]))
        mean, sd = quality.predict(at_untried)
        timing = None
        if self._latency is None:
            at_timed = self._pool.features([*tried, *history.over])
            timed_ms = np.concatenate([latency, history.over_ms])
            timing = LatencySurrogate(at_timed, timed_ms)

        def times(designs: list[int], features: Floats) -> tuple[Floats, Floats]:
            if timing is None:
                assert self._latency is not None
                return self._latency([self._pool.genotypes[i] for i in designs])
            return timing.predict(features)

        ms, relative_sd = times(untried, at_untried)
        pending_ms, _ = times(history.pending, at_pending)
        known_ms = np.concatenate([latency, pending_ms])
        slowest = min(max(known_ms.max(), ms.max()), history.limit_ms)
        worst = reference_pair(float(slowest))
        front = front_of(believed, known_ms, worst)
        gain = ehvi_with_uncertain_latency(
            mean, sd, ms, relative_sd, front, worst, history.limit_ms
        )
        return gain * self._works(history, untried)

    def _works(self, history: History, untried: list[int]) -> Floats | float:
        """How likely each untried design is neither infeasible nor unstable."""
        if not history.rejected:
            return 1.0
        from sklearn.linear_model import LogisticRegression

        seen = [*history.complete, *history.rejected]
        worked = np.arange(len(seen)) < len(history.complete)
        model = LogisticRegression().fit(self._pool.features(seen), worked)
        return np.asarray(model.predict_proba(self._pool.features(untried))[:, 1])

    def _useful(self, history: History) -> list[int]:
        """Positions of the complete trials that are modelled."""
        count = len(history.complete)
        if count <= MODELLED_AT_MOST:
            return list(range(count))
        worst = reference_pair(np.inf)
        accuracy, latency = front_of(history.accuracy, history.latency, worst)
        at = np.searchsorted(latency, history.latency, side="right")
        below = np.concatenate(([worst[0]], accuracy))[at] - history.accuracy
        near = np.argsort(below, kind="stable")
        others = np.sort(near[NEAR_THE_FRONT:])
        spread = np.linspace(0, len(others) - 1, MODELLED_AT_MOST - NEAR_THE_FRONT).astype(int)
        return sorted([*near[:NEAR_THE_FRONT].tolist(), *others[spread].tolist()])


def _timed_ms(trial: FrozenTrial) -> float:
    latency = TrialRecord.of(trial).result.latency
    if latency is None:
        raise TrialRecordError(f"trial {trial.number}: over the latency limit, without a latency")
    return latency.value


def _level(k: int) -> float:
    """0, 1, 1/2, 1/4, 3/4, 1/8, ...: the k-th share of the costs to look at."""
    if k < 2:
        return float(k)
    share, part, k = 0.0, 0.5, k - 1
    while k:
        share += part * (k % 2)
        part, k = part / 2, k // 2
    return share
