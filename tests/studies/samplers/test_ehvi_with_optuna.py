"""The sampler that weighs every untried design in studies of others: what they may ask of it."""

import math
import pickle
import threading
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, IntDistribution
from optuna.samplers import PartialFixedSampler, RandomSampler
from optuna.trial import TrialState
from tiny import small_text, tiny_space

from search_space.space.space import SearchSpace
from studies.infra.storage import quiet_optuna
from studies.results.hypervolume import volume
from studies.samplers.acquisition import Beliefs, ehvi_of_three
from studies.samplers.ehvi import START, EnumeratedEhviSampler, SpaceExhausted
from studies.samplers.pool import DesignPool
from studies.samplers.registry import distributions, sampler_maker

PAIR = ("maximize", "minimize")


@pytest.fixture(autouse=True)
def quiet() -> None:
    quiet_optuna()


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> SearchSpace:
    return tiny_space(tmp_path_factory.mktemp("small"), small_text())


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> SearchSpace:
    return tiny_space(tmp_path_factory.mktemp("large"))


def new_sampler(space: SearchSpace, **more: Any) -> EnumeratedEhviSampler:
    return EnumeratedEhviSampler(DesignPool(space, 0), distributions(space), 0, **more)


def study_of(
    sampler: optuna.samplers.BaseSampler, directions: tuple[str, ...] = PAIR
) -> optuna.Study:
    return optuna.create_study(sampler=sampler, directions=directions)


def suggest(trial: optuna.Trial, space: SearchSpace, asked: int | None = None) -> dict[str, Any]:
    """Asks the first decisions, all where `asked` is not given, as an objective does."""
    said: dict[str, Any] = {}
    for name, how in list(distributions(space).items())[:asked]:
        if isinstance(how, IntDistribution):
            said[name] = trial.suggest_int(name, how.low, how.high)
        else:
            assert isinstance(how, CategoricalDistribution)
            said[name] = trial.suggest_categorical(name, how.choices)
    return said


def key_of(space: SearchSpace, params: Mapping[str, Any]) -> str:
    return space.decode([params[decision.name] for decision in space.decisions]).key


def keys(study: optuna.Study, space: SearchSpace) -> list[str]:
    return [key_of(space, trial.params) for trial in study.get_trials(deepcopy=False)]


def values_of(space: SearchSpace, params: Mapping[str, Any]) -> tuple[float, float]:
    """Percent and ms that grow with the taps."""
    design = space.decode([params[decision.name] for decision in space.decisions])
    text, vision = design.deepest_tap("text"), design.deepest_tap("vision")
    return 50.0 + 5.0 * text + 2.0 * vision, 1.0 + text + 0.5 * vision


def objective(space: SearchSpace) -> Callable[[optuna.Trial], tuple[float, float]]:
    return lambda trial: values_of(space, suggest(trial, space))


def tried(space: SearchSpace, sampler: optuna.samplers.BaseSampler, trials: int) -> optuna.Study:
    study = study_of(sampler)
    study.optimize(objective(space), n_trials=trials)
    return study


def count(space: SearchSpace, **given: Any) -> int:
    """Designs that can be built and that a vector with these answers spells."""
    pool = DesignPool(space, 0)
    return len(pool.under(given).offered) if given else len(pool.offered)


# Threads


def test_threads_that_share_it_try_every_design_once(small: SearchSpace) -> None:
    """Each trial has one tap stored when all four are asked for the rest."""
    threads, together = 4, threading.Barrier(4)

    def meeting(trial: optuna.Trial) -> tuple[float, float]:
        suggest(trial, small, asked=5)
        together.wait(timeout=60)
        return values_of(small, suggest(trial, small))

    study = study_of(new_sampler(small))
    size = count(small) // threads * threads
    study.optimize(meeting, n_trials=size, n_jobs=threads)
    assert len(set(keys(study, small))) == size
    assert all(trial.state is TrialState.COMPLETE for trial in study.trials)


def test_threads_that_share_it_in_a_large_space_get_different_designs(large: SearchSpace) -> None:
    study = study_of(new_sampler(large))
    study.optimize(objective(large), n_trials=10, n_jobs=4)
    assert len(set(keys(study, large))) == len(study.trials) == 10


def test_what_was_proposed_to_a_trial_that_ended_without_it_is_proposed_again(
    small: SearchSpace,
) -> None:
    study = study_of(new_sampler(small))
    trial = study.ask()
    suggest(trial, small, asked=5)
    first = [dict(study.ask(distributions(small)).params) for _ in range(2)]
    study.tell(trial, state=TrialState.FAIL)
    after = [dict(study.ask(distributions(small)).params) for _ in range(count(small) - 2)]
    assert len({key_of(small, params) for params in (*first, *after)}) == count(small)
    with pytest.raises(SpaceExhausted):
        study.ask(distributions(small))


def test_a_pickled_sampler_proposes_what_it_would_have(small: SearchSpace) -> None:
    sampler = new_sampler(small)
    study = tried(small, sampler, START + 2)
    study.sampler = pickle.loads(pickle.dumps(sampler))
    again = study.ask(distributions(small)).params
    study.tell(START + 2, state=TrialState.FAIL)
    study.sampler = sampler
    assert study.ask(distributions(small)).params != again, "failed ones come last"
    other = tried(small, new_sampler(small), START + 2)
    assert other.ask(distributions(small)).params == again


# Answers that are fixed


def test_fixed_answers_are_kept_and_the_designs_that_they_leave_are_tried_once(
    small: SearchSpace,
) -> None:
    fixed = {"text_tap_1": 2, "width_1": 16}
    study = tried(small, PartialFixedSampler(fixed, new_sampler(small)), count(small, **fixed))
    assert 1 < len(study.trials) < count(small)
    assert all(trial.params.items() >= fixed.items() for trial in study.trials)
    assert len(set(keys(study, small))) == len(study.trials)
    with pytest.raises(SpaceExhausted, match="with text_tap_1 = 2, width_1 = 16 were tried"):
        study.optimize(objective(small), n_trials=1)


def test_designs_tried_before_answers_were_fixed_are_not_tried_again(small: SearchSpace) -> None:
    sampler = new_sampler(small)
    study = tried(small, sampler, 10)
    study.sampler = PartialFixedSampler({"vision_tap_1": 1}, sampler)
    before = sum(trial.params["vision_tap_1"] == 1 for trial in study.trials)
    study.optimize(objective(small), n_trials=count(small, vision_tap_1=1) - before)
    assert len(set(keys(study, small))) == len(study.trials)
    study.sampler = sampler
    study.optimize(objective(small), n_trials=count(small) - len(study.trials))
    assert len(set(keys(study, small))) == count(small)


def test_threads_keep_fixed_answers_and_share_the_designs_that_they_leave(
    small: SearchSpace,
) -> None:
    study = study_of(PartialFixedSampler({"width_1": 16}, new_sampler(small)))
    study.optimize(objective(small), n_trials=count(small, width_1=16), n_jobs=4)
    assert len(set(keys(study, small))) == len(study.trials) == count(small, width_1=16)
    assert {trial.params["width_1"] for trial in study.trials} == {16}


def test_in_a_large_space_fixed_answers_are_kept_also_where_a_design_has_no_use_for_them(
    large: SearchSpace,
) -> None:
    """One fusion point: the second's operator is asked and spells nothing."""
    fixed = {"fusion_points": 1, "operator_2": "gated"}
    study = tried(large, PartialFixedSampler(fixed, new_sampler(large)), START + 1)
    assert all(trial.params.items() >= fixed.items() for trial in study.trials)
    assert len(set(keys(study, large))) == len(study.trials)


def test_a_large_space_with_nearly_all_answers_fixed_comes_to_its_end(large: SearchSpace) -> None:
    pool = DesignPool(large, 0)
    fixed = pool.params(pool.offered[0])
    free = next(d for d in large.decisions if d.name == "text_tap_1")
    fixed.pop(free.name)
    study = tried(large, PartialFixedSampler(fixed, new_sampler(large)), 1)
    with pytest.raises(SpaceExhausted):
        study.optimize(objective(large), n_trials=len(free.choices))
    done = [trial for trial in study.trials if trial.state is TrialState.COMPLETE]
    assert (
        len({key_of(large, trial.params) for trial in done}) == len(done) == count(large, **fixed)
    )


def test_the_rest_of_a_queued_design_is_chosen_among_untried_ones(small: SearchSpace) -> None:
    study = study_of(new_sampler(small))
    size = count(small, text_tap_1=3)
    for _ in range(size):
        study.enqueue_trial({"text_tap_1": 3})
    study.optimize(objective(small), n_trials=size + 1)
    assert [trial.params["text_tap_1"] == 3 for trial in study.trials] == [True] * size + [False]
    assert len(set(keys(study, small))) == size + 1


def test_an_answer_that_the_space_does_not_offer_is_refused(small: SearchSpace) -> None:
    study = study_of(PartialFixedSampler({"text_tap_1": 7}, new_sampler(small)))
    with (
        pytest.warns(UserWarning, match="out of range"),
        pytest.raises(ValueError, match="text_tap_1 = 7: space tiny offers 1, 2, 3"),
    ):
        study.ask(distributions(small))


# Objectives


@pytest.mark.parametrize(
    "directions",
    [("maximize",), ("minimize", "maximize"), ("maximize", "maximize"), (*PAIR, *PAIR)],
    ids=str,
)
def test_other_objectives_are_refused_at_the_first_trial(
    small: SearchSpace, directions: tuple[str, ...]
) -> None:
    study = study_of(new_sampler(small), directions)
    asked = ", ".join(f'"{direction}"' for direction in directions)
    with pytest.raises(ValueError) as refusal:
        study.ask()
    said = str(refusal.value)
    assert said.startswith(f"a study of directions=[{asked}]: EnumeratedEhviSampler weighs")
    assert 'directions=["maximize", "minimize"]' in said


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ((math.inf, 2.0), "accuracy is inf"),
        ((50.0, -math.inf), "latency is -inf; .* finite values above 0, and inf for"),
        ((50.0, 0.0), "latency is 0"),
        ((50.0, -1.0), "latency is -1"),
    ],
)
def test_values_that_cannot_be_modelled_are_refused_with_their_trial(
    small: SearchSpace, values: tuple[float, float], words: str
) -> None:
    study = tried(small, new_sampler(small), 3)
    study.tell(study.ask(distributions(small)), values)
    with pytest.raises(ValueError, match=f"trial 3: {words}"):
        study.ask(distributions(small))


@pytest.mark.parametrize("values", [(-math.inf, 2.0), (50.0, math.inf)])
def test_a_design_of_an_infinitely_bad_value_is_taken_for_one_that_does_not_work(
    small: SearchSpace, values: tuple[float, float]
) -> None:
    def failing(trial: optuna.Trial) -> tuple[float, float]:
        params = suggest(trial, small)
        return values if params["text_tap_1"] == 3 else values_of(small, params)

    sampler = new_sampler(small)
    study = study_of(sampler)
    study.optimize(failing, n_trials=START + 4)
    assert len(set(keys(study, small))) == START + 4
    history = sampler._history(study.trials)
    failed = [trial.params["text_tap_1"] == 3 for trial in study.trials]
    assert 0 < len(history.rejected) == sum(failed) < len(study.trials)
    assert len(history.complete) == len(study.trials) - sum(failed)


def test_a_value_that_is_no_number_fails_the_trial_and_the_study_goes_on(
    small: SearchSpace,
) -> None:
    study = tried(small, new_sampler(small), 3)
    study.optimize(lambda t: (math.nan, values_of(small, suggest(t, small))[1]), n_trials=1)
    study.optimize(objective(small), n_trials=START)
    states = [trial.state for trial in study.trials]
    assert states == [TrialState.COMPLETE] * 3 + [TrialState.FAIL] + [TrialState.COMPLETE] * START


def test_a_pruned_trial_is_not_proposed_again(small: SearchSpace) -> None:
    def pruned(trial: optuna.Trial) -> tuple[float, float]:
        if suggest(trial, small)["width_1"]:
            raise optuna.TrialPruned
        return values_of(small, trial.params)

    study = study_of(new_sampler(small))
    study.optimize(pruned, n_trials=START + 6)
    assert len(set(keys(study, small))) == START + 6
    assert {trial.state for trial in study.trials} == {TrialState.PRUNED, TrialState.COMPLETE}


# What else is asked


def test_answers_are_of_the_types_that_optuna_stores(small: SearchSpace) -> None:
    study = tried(small, new_sampler(small), START + 2)
    for trial in study.trials:
        for name, how in distributions(small).items():
            assert type(trial.params[name]) in (int, str)
            assert how._contains(how.to_internal_repr(trial.params[name]))


def test_a_question_beside_the_space_goes_to_the_independent_sampler(small: SearchSpace) -> None:
    def with_rate(trial: optuna.Trial) -> tuple[float, float]:
        rate = trial.suggest_float("rate", 1e-4, 1e-2, log=True)
        percent, ms = values_of(small, suggest(trial, small))
        return percent - rate, ms

    study = study_of(new_sampler(small, independent_sampler=RandomSampler(seed=0)))
    study.optimize(with_rate, n_trials=START + 3)
    assert len({trial.params["rate"] for trial in study.trials}) == START + 3
    assert len(set(keys(study, small))) == START + 3
    with pytest.raises(ValueError, match="rate is no decision of the space"):
        study_of(new_sampler(small)).optimize(with_rate, n_trials=1)


def test_a_decision_that_is_asked_with_other_choices_is_refused(small: SearchSpace) -> None:
    study = study_of(new_sampler(small))
    with pytest.raises(ValueError, match=r"text_tap_1 is asked as .*; the space .* asks it as"):
        study.ask({"text_tap_1": IntDistribution(7, 9)})


# Three objectives


def drawn_front(rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Accuracy, ms and a third objective of designs of which some are not on the front."""
    return rng.uniform(40, 80, size), rng.uniform(1, 11, size), rng.uniform(-1, 5, size)


def added(point: np.ndarray, known: np.ndarray, worst: np.ndarray) -> float:
    return volume(np.vstack([known, point]), worst) - volume(known, worst)


@pytest.mark.parametrize("size", [0, 1, 4, 12])
def test_a_design_whose_three_figures_are_certain_adds_what_it_adds(size: int) -> None:
    rng, worst = np.random.default_rng(size), (0.0, 10.0, 0.0)
    known, new = drawn_front(rng, size), drawn_front(rng, 40)
    never = np.zeros(40)
    found = ehvi_of_three(Beliefs(new[0], never, new[1], never, new[2], never), known, worst)
    gains = np.array([0.0, -10.0, 0.0])
    told = np.stack([known[0], -known[1], known[2]], axis=1)
    expected = [added(np.array([a, -ms, t]), told, gains) for a, ms, t in zip(*new, strict=True)]
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-6)
    assert (found > 0).any() and (found == 0).any()


def test_the_expected_volume_is_what_draws_of_two_uncertain_figures_come_to() -> None:
    rng, worst = np.random.default_rng(1), np.array([0.0, -10.0, 0.0])
    known = drawn_front(rng, 6)
    told = np.stack([known[0], -known[1], known[2]], axis=1)
    means = np.array([[70.0, 4.0, 3.0], [70.0, 2.0, 1.0], [79.0, 8.0, 4.5]])
    sds = np.array([[5.0, 0.0, 1.0], [2.0, 0.0, 0.5], [1.0, 0.0, 2.0]])
    m, s = means.T, sds.T
    found = ehvi_of_three(Beliefs(m[0], s[0], m[1], s[1], m[2], s[2]), known, (0.0, 10.0, 0.0))
    for k in range(len(means)):
        draws = [1.0, -1.0, 1.0] * (means[k] + sds[k] * rng.standard_normal((600, 3)))
        sampled = np.array([added(draw, told, worst) for draw in draws])
        error = sampled.std() / np.sqrt(len(sampled))
        assert abs(found[k] - sampled.mean()) < 3 * error, means[k]


def test_what_is_over_the_latency_limit_adds_no_volume() -> None:
    one = [np.array([v]) for v in (80.0, 1.0, 5.0, 0.0, 2.0, 0.5)]
    known = (np.array([60.0]), np.array([2.0]), np.array([1.0]))
    worst = (0.0, 10.0, 0.0)
    assert ehvi_of_three(Beliefs(*one), known, worst, limit_ms=4.9)[0] == 0.0
    assert ehvi_of_three(Beliefs(*one), known, worst, limit_ms=5.1)[0] > 100.0


@pytest.mark.parametrize("third", ["minimize", "maximize"])
def test_a_third_objective_is_searched_for_in_its_direction(small: SearchSpace, third: str) -> None:
    """The third figure is best where accuracy and latency are not: at a tap of its own."""
    sign = 1.0 if third == "maximize" else -1.0

    def three(params: Mapping[str, Any]) -> tuple[float, float, float]:
        figure = 10.0 - 3.0 * abs(params["vision_tap_1"] - 2) - params["text_tap_1"]
        return *values_of(small, params), figure if sign > 0 else 20.0 - figure

    def asked(trial: optuna.Trial) -> tuple[float, float, float]:
        return three(suggest(trial, small))

    pool = DesignPool(small, 0)
    every = np.array([three(pool.params(i)) for i in pool.offered]) * [1.0, -1.0, sign]
    worst = np.minimum(1.1 * every.min(axis=0), 0.0)
    study = study_of(new_sampler(small), (*PAIR, third))
    study.optimize(asked, n_trials=16)
    found = np.array([trial.values for trial in study.trials]) * [1.0, -1.0, sign]
    assert len(set(keys(study, small))) == 16
    assert volume(found, worst) > 0.999 * volume(every, worst)


def test_three_objectives_are_searched_whole_also_by_the_neighbours_of_their_front(
    large: SearchSpace,
) -> None:
    study = study_of(new_sampler(large), (*PAIR, "minimize"))
    study.optimize(lambda t: (*objective(large)(t), 1.0 + t.params["width_1"]), n_trials=START + 1)
    assert len(set(keys(study, large))) == START + 1


def test_the_same_seed_proposes_the_same_designs_as_a_new_sampler_for_each_trial(
    small: SearchSpace,
) -> None:
    """The product makes a sampler for each trial from one pool."""
    drawn = []
    for _ in range(2):
        make, study = sampler_maker("ehvi", 0, small), study_of(new_sampler(small))
        for number in range(START + 3):
            study.sampler = make(number)
            trial = study.ask(distributions(small))
            study.tell(trial, values_of(small, trial.params))
        drawn.append(keys(study, small))
    assert drawn[0] == drawn[1]
