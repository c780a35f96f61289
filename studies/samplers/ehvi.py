"""A sampler for a space that can be listed and whose latency is nearly known."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial

from search_space.space.space import Choice
from studies.results.hypervolume import Floats, front_of, reference_pair, reference_value
from studies.samplers.acquisition import Beliefs, ehvi_of_three, ehvi_with_uncertain_latency
from studies.samplers.history import PAIR, History, check_directions, history_of
from studies.samplers.pool import DesignPool
from studies.samplers.proposals import Proposals
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


class SpaceExhausted(Exception):
    """Every design that the space offers and that can be built was tried or is being tried."""


class EnumeratedEhviSampler(optuna.samplers.BaseSampler):
    """Proposes the untried design that is expected to add most hypervolume to the front.

    All designs of the pool are weighed at once: the whole space where it is small, else a seeded
    draw of it and the neighbours of the current front (`DesignPool`). None is proposed twice, nor
    one that another worker runs; one whose trial failed comes again after all others.

    - Start: START designs from cheap to expensive, drawn with a leaning away from those tried.
    - Accuracy: a Gaussian process over the trials (`Surrogate`). The front that is to be improved
      is of its means at the tried designs, not of the noisy readings (a plug-in form of the noisy
      improvement of Daulton, Balandat and Bakshy, NeurIPS 2021, arXiv 2105.08195).
    - Latency: `latency` if given, else a Gaussian process (`LatencySurrogate`). The reference point
      is that of the published hypervolume: 0 %, 1.1 times the slowest design.
    - Batches: designs that other workers are evaluating count as observed, accuracy and third
      objective with their posterior means, hyperparameters kept (the kriging believer of
      Ginsbourger, Le Riche and Carraro, "Kriging is well-suited to parallelize optimization",
      2010), latency with its prediction. So q workers get the sequentially greedy batch of q
      designs, as BoTorch builds one with `X_pending`; it averages over fantasies, as Optuna's
      GPSampler does, where one mean stands for them here.
    - Designs that were infeasible or unstable, or of an infinitely bad value, teach which others
      will be (logistic regression).
    - Of more than MODELLED_AT_MOST complete trials, the NEAR_THE_FRONT that are nearest below the
      front are modelled, and others evenly spaced over the study.

    The study must have the objectives accuracy in percent, maximized, and latency in ms, minimized,
    in this order. It may have a third one of either direction, modelled as accuracy is
    (`ehvi_of_three`); its reference point is 1.1 times its worst value, or 0 where that is worse.
    Other studies are refused when a trial is asked for.

    Answers that are fixed elsewhere are kept, and the designs that they leave are weighed: by
    `optuna.samplers.PartialFixedSampler` and by `Study.enqueue_trial` with a part of the decisions.

    Threads may share a sampler (`Study.optimize(n_jobs=4)`): they are served one at a time.
    Threads, processes and hosts that share a storage get different designs, also if they ask at
    the same moment: each writes its proposal to the storage, and who finds the same design there
    draws again (`Proposals`).
    """

    def __init__(
        self,
        pool: DesignPool,
        decisions: Mapping[str, BaseDistribution],
        seed: int,
        latency: LatencyPrediction | None = None,
        independent_sampler: optuna.samplers.BaseSampler | None = None,
    ) -> None:
        """`seed` decides the start; `decisions` are the pool's space as Optuna asks it.

        `independent_sampler` answers what an objective asks beside these decisions; nothing is
        learned from it. Without one, such questions are refused.
        """
        self._pool, self._decisions = pool, dict(decisions)
        self._seed, self._latency = seed, latency
        self._independent_sampler = independent_sampler
        self._proposals = Proposals(tuple(decisions))
        self._parts: dict[tuple[tuple[str, Choice], ...], EnumeratedEhviSampler] = {}

    def reseed_rng(self) -> None:
        """Only of the independent sampler: what this one draws is decided by seed and trials."""
        if self._independent_sampler is not None:
            self._independent_sampler.reseed_rng()

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Raises ValueError for a study whose objectives are others."""
        check_directions(study.directions)

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Every decision of the space."""
        return dict(self._decisions)

    def sample_relative(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        search_space: dict[str, BaseDistribution],
    ) -> dict[str, Any]:
        """The answers that spell the design. Raises SpaceExhausted.

        Raises ValueError for a study whose objectives are others, for values of which no model can
        be made, and for what is no decision of the space.
        """
        check_directions(study.directions)
        for name in search_space:
            if name not in self._decisions:
                raise ValueError(_unknown(name))
        given = self._given(study, trial, search_space)
        if len(given) == len(self._decisions):
            return {}
        with self._pool.lock:
            while True:
                trials = study.get_trials(deepcopy=False)
                others = [other for other in trials if other.number != trial.number]
                ended = {other.number for other in others if other.state.is_finished()}
                answers = self._under(given).answers(others, study.directions)
                if self._proposals.claim(study, trial, answers, self._pool.index_of, ended):
                    return {name: answers[name] for name in search_space}

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """What the independent sampler answers. Raises ValueError without one.

        Raises ValueError, too, for a decision of the space that is asked with other choices.
        """
        if param_name in self._decisions:
            raise ValueError(
                f"{param_name} is asked as {param_distribution}; the space that this sampler was "
                f"made for asks it as {self._decisions[param_name]}"
            )
        if self._independent_sampler is None:
            raise ValueError(_unknown(param_name))
        return self._independent_sampler.sample_independent(
            study, trial, param_name, param_distribution
        )

    def check_untried(
        self, trials: Sequence[FrozenTrial], directions: Sequence[StudyDirection] = PAIR
    ) -> None:
        """Raises SpaceExhausted where no design is left, before a trial is made for one."""
        with self._pool.lock:
            self._untried(self._history(trials, directions))

    def answers(
        self,
        trials: Sequence[FrozenTrial],
        directions: Sequence[StudyDirection],
    ) -> dict[str, Choice]:
        """What spells the design to try next, given all other trials. Raises SpaceExhausted."""
        return self._pool.params(self._propose(self._history(trials, directions)))

    def _propose(self, history: History) -> int:
        untried = self._untried(history)
        rng = np.random.default_rng(self._seed)
        if len(history.begun) < START or len(history.complete) < COMPLETE_AT_LEAST:
            return self._start(history, untried, rng)
        gain = self._gain(history, untried)
        if not gain.any():  # nothing is expected to help: learn where least is known
            return self._start(history, untried, rng)
        return untried[int(np.argmax(gain))]

    def _given(
        self, study: optuna.Study, trial: FrozenTrial, search_space: Mapping[str, BaseDistribution]
    ) -> dict[str, Choice]:
        """Answers that are not this sampler's to choose: queued ones, and a wrapping sampler's."""
        queued = trial.system_attrs.get("fixed_params", {})
        found = {name: queued[name] for name in self._decisions if name in queued}
        if study.sampler is self:
            return found
        for name, distribution in self._decisions.items():
            if name not in found and name not in search_space and not distribution.single():
                found[name] = study.sampler.sample_independent(study, trial, name, distribution)
        return found

    def _under(self, given: dict[str, Choice]) -> "EnumeratedEhviSampler":
        """The sampler of the designs that these answers leave."""
        if not given:
            return self
        key = tuple(sorted(given.items()))
        if key not in self._parts:
            pool = self._pool.under(given)
            self._parts[key] = EnumeratedEhviSampler(
                pool, self._decisions, self._seed, self._latency
            )
        return self._parts[key]

    def _history(
        self,
        trials: Sequence[FrozenTrial],
        directions: Sequence[StudyDirection] = PAIR,
    ) -> History:
        return history_of(trials, self._pool, self._proposals.answers, directions)

    def _untried(self, history: History) -> list[int]:
        """Designs to choose from. Raises SpaceExhausted."""
        taken = set(history.begun)
        while True:
            offered = list(self._pool.offered)
            if not self._pool.whole and history.complete:
                near = self._pool.neighbours(history.on_front)
                offered = list(dict.fromkeys([*offered, *near]))
            free = [design for design in offered if design not in taken]
            failed = set(history.failed)
            untouched = [design for design in free if design not in failed]
            if untouched or free:
                return untouched or free
            if not self._pool.grow():
                raise SpaceExhausted(
                    f"the space is exhausted: all {len(offered):,} designs that can be built"
                    f"{self._pool.words} were tried or are in the hands of other workers"
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
        if history.third is None:
            front = front_of(believed, known_ms, worst)
            gain = ehvi_with_uncertain_latency(
                mean, sd, ms, relative_sd, front, worst, history.limit_ms
            )
        else:
            more = Surrogate(at_tried, history.third[kept], ACCURACY_NOISE)
            more.believe(at_pending)
            third, third_sd = more.predict(at_untried)
            known_third, _ = more.predict(np.concatenate([at_tried, at_pending]))
            least = float(min(known_third.min(), third.min()))
            worst_third = min(0.0, -reference_value(False, -least))
            gain = ehvi_of_three(
                Beliefs(mean, sd, ms, relative_sd, third, third_sd),
                (believed, known_ms, known_third),
                (*worst, worst_third),
                history.limit_ms,
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
        near = np.argsort(history.below_the_front(), kind="stable")
        others = np.sort(near[NEAR_THE_FRONT:])
        spread = np.linspace(0, len(others) - 1, MODELLED_AT_MOST - NEAR_THE_FRONT).astype(int)
        return sorted([*near[:NEAR_THE_FRONT].tolist(), *others[spread].tolist()])


def _level(k: int) -> float:
    """0, 1, 1/2, 1/4, 3/4, 1/8, ...: the k-th share of the costs to look at."""
    if k < 2:
        return float(k)
    share, part, k = 0.0, 0.5, k - 1
    while k:
        share += part * (k % 2)
        part, k = part / 2, k // 2
    return share


def _unknown(name: str) -> str:
    return f"{name} is no decision of the space that this sampler was made for"
