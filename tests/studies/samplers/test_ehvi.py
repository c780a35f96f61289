"""The sampler that weighs every untried design: what it computes and what it never proposes."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState, create_trial
from tiny import Bench, small_text, tiny_space

from evaluators.latency.evaluator import MeasureError
from search_space.design.genotype import Genotype
from search_space.space.named import load_space
from search_space.space.space import SearchSpace
from studies.infra.workers import Workers
from studies.results.hypervolume import front_of
from studies.samplers.acquisition import (
    ehvi_with_uncertain_latency,
    expected_hypervolume_improvement,
)
from studies.samplers.ehvi import (
    COMPLETE_AT_LEAST,
    MODELLED_AT_MOST,
    START,
    EnumeratedEhviSampler,
    SpaceExhausted,
)
from studies.samplers.pool import DesignPool
from studies.samplers.registry import AUTO, SAMPLERS, chosen, distributions, sampler_maker
from studies.samplers.surrogates import ACCURACY_NOISE, Surrogate


@pytest.fixture
def small(tmp_path: Path) -> SearchSpace:
    """Few designs, most of them spelt by several vectors."""
    return tiny_space(tmp_path, small_text())


@pytest.fixture
def bench(tmp_path: Path, small: SearchSpace) -> Bench:
    bench = Bench(tmp_path / "bench")
    bench.space = small
    bench.quality.percent = worth
    bench.search = bench.new_search(bench.workers, "ehvi")
    return bench


def worth(genotype: Genotype) -> float:
    return 50.0 + 5.0 * genotype.deepest_tap("text") + 2.0 * genotype.deepest_tap("vision")


def buildable(space: SearchSpace) -> set[str]:
    return {DesignPool(space, 0).genotypes[i].key for i in DesignPool(space, 0).offered}


def keys(bench: Bench, trials: Sequence[optuna.trial.FrozenTrial] | None = None) -> list[str]:
    names = [decision.name for decision in bench.space.decisions]
    return [
        bench.space.decode([trial.params[name] for name in names]).key
        for trial in (bench.trials if trials is None else trials)
        if trial.state is not TrialState.FAIL
    ]


def sampled_improvement(
    accuracy: np.ndarray,
    latency: np.ndarray,
    front: tuple[np.ndarray, np.ndarray],
    worst: tuple[float, float],
) -> float:
    """Mean hypervolume that draws (M,) of one design add, counted on a fine grid of latencies."""
    grid = np.linspace(0.0, worst[1], 4001)[:-1] + worst[1] / 8000
    height = np.array([max([worst[0], *front[0][front[1] <= ms]]) for ms in grid])
    added = [
        np.maximum(a - height[grid >= ms], 0.0).sum() * worst[1] / 4000
        for a, ms in zip(accuracy, latency, strict=True)
    ]
    return float(np.mean(added))


@pytest.mark.parametrize("size", [0, 1, 6])
def test_the_closed_form_is_what_draws_of_accuracy_and_latency_come_to(size: int) -> None:
    rng, worst = np.random.default_rng(size), (0.0, 10.0)
    front = front_of(rng.uniform(50, 80, size), rng.uniform(1, 11, size), worst)
    mean, sd = np.array([55.0, 70.0, 79.0, 82.0]), np.array([6.0, 2.0, 1.0, 0.5])
    latency, relative_sd = np.array([0.8, 4.0, 7.0, 9.0]), np.array([0.01, 0.05, 0.02, 0.02])
    known = expected_hypervolume_improvement(mean, sd, latency, front, worst)
    unsure = ehvi_with_uncertain_latency(mean, sd, latency, relative_sd, front, worst)
    for k in range(len(mean)):
        draws = mean[k] + sd[k] * rng.standard_normal(4_000)
        ms = latency[k] * np.exp(relative_sd[k] * rng.standard_normal(4_000))
        still = np.full(len(draws), latency[k])
        assert known[k] == pytest.approx(
            sampled_improvement(draws, still, front, worst), rel=0.06, abs=0.1
        )
        assert unsure[k] == pytest.approx(
            sampled_improvement(draws, ms, front, worst), rel=0.06, abs=0.1
        )


def test_a_design_that_is_certain_adds_what_it_adds() -> None:
    front = front_of(np.array([60.0, 70.0, 65.0]), np.array([2.0, 5.0, 6.0]), (0.0, 10.0))
    assert front[0].tolist() == [60.0, 70.0] and front[1].tolist() == [2.0, 5.0]
    mean, ms = np.array([50.0, 65.0, 80.0, 70.0]), np.array([1.0, 3.0, 4.0, 5.0])
    added = expected_hypervolume_improvement(mean, np.zeros(4), ms, front, (0.0, 10.0))
    assert added.tolist() == pytest.approx([50.0, 10.0, 70.0, 0.0], abs=1e-6)


def test_what_is_over_the_latency_limit_adds_nothing() -> None:
    one = np.array([80.0]), np.array([1.0]), np.array([5.0]), np.array([0.0])
    front = front_of(np.array([60.0]), np.array([2.0]), (0.0, 10.0))
    assert ehvi_with_uncertain_latency(*one, front, (0.0, 10.0), limit_ms=4.9)[0] == 0.0
    assert ehvi_with_uncertain_latency(*one, front, (0.0, 10.0), limit_ms=5.1)[0] > 90.0


def test_a_design_that_several_vectors_spell_is_offered_once(small: SearchSpace) -> None:
    pool = DesignPool(small, 0)
    assert pool.whole and len(pool.offered) < small.size
    offered = [pool.genotypes[i].key for i in pool.offered]
    assert len(set(offered)) == len(offered)
    for index in pool.offered:
        vector = [pool.params(index)[decision.name] for decision in small.decisions]
        assert small.decode(vector) == pool.genotypes[index]
        assert not small.violations(pool.genotypes[index])


def test_a_small_space_is_tried_whole_each_design_once_and_the_run_ends_well(
    bench: Bench,
) -> None:
    bench.search.run(1000)
    tried = keys(bench)
    assert set(tried) == buildable(bench.space) and len(set(tried)) == len(tried)
    assert all(trial.state is TrialState.COMPLETE for trial in bench.trials)
    said = f"the space is exhausted: all {len(tried)} designs"
    assert bench.told.lines[-1].startswith(said) and bench.told.lines[-1].endswith("no more trials")
    bench.search.run(1000)
    assert len(bench.trials) == len(tried), "a run that finds nothing to try leaves no trial"


def test_seeded_designs_come_first_and_are_not_proposed_again(bench: Bench) -> None:
    pool = DesignPool(bench.space, 0)
    seeded = [
        SimpleNamespace(name=f"seed {k}", genotype=pool.genotypes[pool.offered[k]], adapted="")
        for k in (3, 1)
    ]
    bench.search.seed(seeded)
    bench.search.run(1000)
    tried = keys(bench)
    assert tried[: len(seeded)] == [s.genotype.key for s in seeded]
    assert len(set(tried)) == len(tried)


def test_a_design_whose_trial_failed_comes_again_after_all_others(bench: Bench) -> None:
    def once() -> Exception | None:
        return MeasureError("the board is hot") if len(bench.latency.timed) == 4 else None

    bench.latency.fails = once
    bench.search.run(1000)
    (failed,) = [t for t in bench.trials if t.state is TrialState.FAIL]
    assert keys(bench)[-1] == keys(bench, [_as_complete(failed)])[0]
    assert set(keys(bench)) == buildable(bench.space)


def _as_complete(trial: optuna.trial.FrozenTrial) -> optuna.trial.FrozenTrial:
    return create_trial(params=trial.params, distributions=trial.distributions, values=[1.0, 1.0])


def test_what_was_infeasible_or_unstable_is_not_proposed_again(bench: Bench) -> None:
    bench.latency.infeasible = lambda genotype: genotype.deepest_tap("text") == 3
    bench.latency.unstable = lambda genotype: "shaky" if genotype.deepest_tap("text") == 1 else ""
    bench.search.run(1000)
    assert sorted(keys(bench)) == sorted(buildable(bench.space))
    assert {t.state for t in bench.trials} == {TrialState.COMPLETE, TrialState.PRUNED}


def test_what_is_over_the_latency_limit_is_seldom_proposed(tmp_path: Path) -> None:
    over = []
    for name in ("ehvi", "random"):
        bench = Bench(tmp_path / name, limit_ms=4.0)
        bench.quality.percent = worth
        bench.new_search(bench.workers, name).run(20)
        over.append(sum(trial.state is TrialState.PRUNED for trial in bench.trials))
    assert over[0] <= START + 1 < over[1]


def test_workers_that_ask_at_once_get_different_designs(bench: Bench) -> None:
    bench.search.run(START + 3)
    other = Workers(bench.home / "workers")
    search = bench.new_search(other, "ehvi")
    held = [search._next(1000) for _ in range(4)]
    mine = [bench.search._next(1000) for _ in range(4)]
    assert None not in held + mine
    assert len(set(keys(bench))) == len(bench.trials) == START + 3 + 8
    other.close()


def test_the_last_designs_in_other_hands_end_a_run_well(bench: Bench) -> None:
    size = len(buildable(bench.space))
    bench.search.run(size - 1)
    other = Workers(bench.home / "workers")
    search = bench.new_search(other, "ehvi")
    held = search._next(1000)
    assert held is not None
    with pytest.raises(SpaceExhausted, match="in the hands of other workers"):
        bench.search._next(1000)
    search._take(held, 1000)
    bench.search.run(1000)
    assert "no more trials" in bench.told.lines[-1]
    assert len(bench.trials) == size
    other.close()


def test_a_trial_cut_off_while_it_was_asked_for_is_given_up_in_an_exhausted_space(
    bench: Bench,
) -> None:
    bench.search.run(1000)
    size = len(bench.trials)
    bench.study.ask()
    bench.workers.asking.write_text(bench.study.study_name)
    bench.search.run(1000)
    assert bench.trials[size].state is TrialState.FAIL and len(bench.trials) == size + 1


def test_a_pending_design_keeps_its_neighbours_from_being_proposed(small: SearchSpace) -> None:
    """Two trials in hand stand apart in what they try, as trials told one by one would."""
    rng = np.random.default_rng(0)
    features = rng.uniform(size=(8, 3))
    model = Surrogate(features, 60 + 10 * features[:, 0], ACCURACY_NOISE)
    at, near = np.full((1, 3), 0.5), np.full((1, 3), 0.52)
    before = model.predict(near)
    model.believe(at)
    after = model.predict(near)
    assert after[1][0] < before[1][0]
    assert after[0][0] == pytest.approx(before[0][0], abs=0.2)


def test_seed_and_trial_decide_what_is_proposed_also_after_a_cut(tmp_path: Path) -> None:
    drawn = []
    for name, totals in (("whole", (14,)), ("cut", (3, 9, 14))):
        bench = Bench(tmp_path / name)
        bench.quality.percent = worth
        for total in totals:
            bench.new_search(bench.workers, "ehvi").run(total)
        drawn.append(keys(bench))
    assert drawn[0] == drawn[1]


def test_seeds_start_apart(small: SearchSpace) -> None:
    first = set()
    for seed in range(6):
        sampler = sampler_maker("ehvi", seed, small)(0)
        study = optuna.create_study(sampler=sampler, directions=["maximize", "minimize"])
        first.add(tuple(study.ask(distributions(small)).params.items()))
    assert len(first) > 1


def test_the_start_goes_from_cheap_to_dear(bench: Bench) -> None:
    bench.search.run(START)
    ms = [trial.values[1] for trial in bench.trials]
    assert ms[0] == min(ms) and ms[1] == max(ms) and len(set(ms)) > COMPLETE_AT_LEAST


def test_a_latency_that_is_known_before_spares_what_cannot_improve_the_front(
    small: SearchSpace,
) -> None:
    asked: list[int] = []

    def latency(designs: Sequence[Genotype]) -> tuple[np.ndarray, np.ndarray]:
        asked.append(len(designs))
        ms = [1.0 + d.deepest_tap("text") + d.deepest_tap("vision") for d in designs]
        return np.array(ms, dtype=float), np.full(len(designs), 0.01)

    pool, make = DesignPool(small, 0), sampler_maker("ehvi", 0, small, latency)
    study = optuna.create_study(directions=["maximize", "minimize"])
    for number in range(12):
        study.sampler = make(number)
        trial = study.ask(distributions(small))
        index = pool.index_of(trial.params)
        assert index is not None
        design = pool.genotypes[index]
        study.tell(trial, [worth(design), float(latency([design])[0][0])])
    assert max(asked) > 1
    front = {tuple(t.values) for t in study.best_trials}
    assert (50.0 + 15.0 + 6.0, 7.0) in front and (50.0 + 5.0 + 2.0, 3.0) in front


def test_a_large_space_is_drawn_from_and_searched_around_its_front(tmp_path: Path) -> None:
    space = tiny_space(tmp_path)
    pool = DesignPool(space, 0)
    assert not pool.whole and space.size > len(pool.offered) > 0
    again = DesignPool(space, 0)
    assert [again.genotypes[i] for i in again.offered] == [pool.genotypes[i] for i in pool.offered]
    near = pool.neighbours(pool.offered[:1])
    assert near
    for index in near:
        assert not space.violations(pool.genotypes[index])
    before = len(pool.offered)
    assert pool.grow() and len(pool.offered) > before


def test_of_a_long_study_the_front_and_a_part_of_the_rest_are_modelled(small: SearchSpace) -> None:
    pool = DesignPool(small, 0)
    sampler = EnumeratedEhviSampler(pool, distributions(small), 0)
    history = sampler._history([])
    rng = np.random.default_rng(0)
    latency = rng.uniform(1.0, 10.0, 5_000)
    accuracy = 50.0 + 3.0 * latency + rng.normal(0.0, 5.0, 5_000)
    told = replace(history, complete=[0] * 5_000, accuracy=accuracy, latency=latency)
    kept = sampler._useful(told)
    assert len(set(kept)) == len(kept) == MODELLED_AT_MOST
    best = front_of(accuracy, latency, (0.0, np.inf))[0]
    assert set(best) <= set(accuracy[kept])


def test_a_space_without_a_design_left_says_so_to_who_asks_directly(bench: Bench) -> None:
    bench.search.run(1000)
    with pytest.raises(SpaceExhausted, match=r"all .* designs that can be built were tried"):
        bench.study.ask(distributions(bench.space))


def test_left_to_itself_a_study_takes_ehvi_where_the_space_is_listed_whole() -> None:
    listed, large = load_space("fusion-1152", weights="random"), load_space("demo")
    assert (chosen(AUTO, listed), chosen(AUTO, large)) == ("ehvi", "tpe")
    assert chosen(AUTO, large, deferred_timing=True) == "ehvi"
    assert {chosen(name, large) for name in SAMPLERS} == set(SAMPLERS)
