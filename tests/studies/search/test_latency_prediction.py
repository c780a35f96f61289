"""While a study runs, its own readings tell how long designs will take that are not timed yet."""

import random

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState, create_trial
from tiny import tiny_space

from evaluators.onnx.rewriting import Rewriting
from search_space.design.genotype import Genotype
from search_space.network.rewrites import NONE
from search_space.space.space import SearchSpace
from studies.results.objectives import Goals
from studies.results.outcome import Value
from studies.results.trial_record import StoredEvaluation, TimingRecord, TrialRecord, TrialResult
from studies.search.latency_prediction import LearnedLatency
from studies.study.identity import directions_of


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> SearchSpace:
    return tiny_space(tmp_path_factory.mktemp("space"))


@pytest.fixture
def study() -> optuna.Study:
    return optuna.create_study(directions=directions_of(Goals()))


def designs(space: SearchSpace, count: int, seed: int) -> list[Genotype]:
    rng = random.Random(seed)
    found: dict[str, Genotype] = {}
    while len(found) < count:
        design = space.sample(rng)
        found[design.key] = design
    return list(found.values())


def planted_ms(design: Genotype) -> float:
    """A slow device: 3 ms, and more for every layer that is run."""
    return 3.0 + 2.0 * design.deepest_tap("text") + 1.0 * design.deepest_tap("vision")


def add_trial(
    study: optuna.Study, design: Genotype, ms: float, reason: str = "", unstable: str = ""
) -> None:
    timed = StoredEvaluation("latency", "", {"latency_ms": Value(ms, 0.99 * ms, 1.01 * ms)})
    timing = TimingRecord(unstable=unstable)
    result = TrialResult(design, reason=reason, evaluations=(timed,), timing=timing)
    pruned = reason or unstable
    values = None if pruned else [50.0, ms]
    state = TrialState.PRUNED if pruned else TrialState.COMPLETE
    attributes = TrialRecord(result=result).to_attributes()
    study.add_trial(create_trial(state=state, values=values, user_attrs=attributes))


def learnt(study: optuna.Study, space: SearchSpace) -> LearnedLatency:
    return LearnedLatency(study, space, Rewriting(NONE))


def test_designs_that_were_not_timed_are_told_from_those_that_were(
    study: optuna.Study, space: SearchSpace
) -> None:
    latency, unseen = learnt(study, space), designs(space, 20, seed=1)
    _, unsure = latency(unseen)
    for design in designs(space, 20, seed=2):
        add_trial(study, design, planted_ms(design))
    found, sd = latency(unseen)
    truth = np.array([planted_ms(design) for design in unseen])
    assert np.abs(found / truth - 1).mean() < 0.1
    assert (sd < unsure).all()


def test_a_design_over_the_limit_was_timed_and_teaches_as_well(
    study: optuna.Study, space: SearchSpace
) -> None:
    design = designs(space, 1, seed=3)[0]
    add_trial(study, design, 800.0, reason="800 ms is over the latency limit of 20 ms")
    assert learnt(study, space)([design])[0] == pytest.approx(800, rel=0.05)


def test_an_unstable_reading_teaches_nothing(study: optuna.Study, space: SearchSpace) -> None:
    asked = designs(space, 5, seed=4)
    before, _ = learnt(study, space)(asked)
    add_trial(study, asked[0], 800.0, unstable="its halves are far apart")
    after, _ = learnt(study, space)(asked)
    assert after.tolist() == before.tolist()


def test_of_no_designs_nothing_is_told(study: optuna.Study, space: SearchSpace) -> None:
    found, sd = learnt(study, space)([])
    assert found.shape == sd.shape == (0,)
