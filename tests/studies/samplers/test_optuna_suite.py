"""Optuna's own tests of samplers (`optuna.testing.pytest_samplers`), over EnumeratedEhviSampler.

What they ask a sampler alone passes. What they ask in a study of one objective is refused in
words, since the sampler weighs accuracy against latency; `test_ehvi_with_optuna` has the same tests
in studies of its objectives, over its space. SingleOnlySamplerTestCase is for samplers that must
refuse studies of several objectives, and does not apply.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.samplers import RandomSampler
from optuna.testing import pytest_samplers
from optuna.testing.pytest_samplers import (
    BasicSamplerTestCase,
    MultiObjectiveSamplerTestCase,
    RelativeSamplerTestCase,
)
from tiny import small_text, tiny_space

from studies.samplers.ehvi import EnumeratedEhviSampler
from studies.samplers.pool import DesignPool
from studies.samplers.registry import distributions

APPLY = {
    "test_float",
    "test_int",
    "test_categorical",
    "test_conditional_sample_independent",
    "test_multi_objective_sample_independent",
}
OF_ONE_OBJECTIVE = {
    "test_nan_objective_value",
    "test_partial_fixed_sampling",
    "test_sample_single_distribution",
    "test_single_parameter_objective",
    "test_conditional_parameter_objective",
    "test_combination_of_different_distributions_objective",
    "test_dynamic_range_objective",
    "test_sample_relative_numerical",
    "test_sample_relative_categorical",
    "test_sample_relative_mixed",
    "test_trial_relative_params",
}
SUITES = (BasicSamplerTestCase, RelativeSamplerTestCase, MultiObjectiveSamplerTestCase)


def named_tests(suite: type) -> dict[str, Callable[..., None]]:
    return {name: test for name, test in vars(suite).items() if name.startswith("test_")}


def refused(test: Callable[..., None]) -> Callable[..., None]:
    """The same test, of which the sampler says what it needs."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        with pytest.raises(ValueError, match=r"weighs accuracy in percent \(maximized\)"):
            test(*args, **kwargs)

    return run


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], EnumeratedEhviSampler]:
    folder: Path = tmp_path_factory.mktemp("suite")
    space = tiny_space(folder, small_text())
    pool = DesignPool(space, 0)
    return lambda: EnumeratedEhviSampler(
        pool, distributions(space), 0, independent_sampler=RandomSampler(seed=0)
    )


class OverTheSpace:
    @pytest.fixture
    def sampler(
        self, made: Callable[[], EnumeratedEhviSampler]
    ) -> Callable[[], optuna.samplers.BaseSampler]:
        return made


class TestWhatApplies(OverTheSpace):
    """What Optuna asks of any sampler passes."""


class TestOfOneObjective(OverTheSpace):
    """What Optuna asks in a study of one objective is refused in words."""


for _suite in SUITES:
    for _name, _asked in named_tests(_suite).items():
        if _name in APPLY:
            setattr(TestWhatApplies, _name, _asked)
        elif _name in OF_ONE_OBJECTIVE:
            setattr(TestOfOneObjective, _name, refused(_asked))


def test_each_of_optunas_tests_is_run_or_named() -> None:
    every = {name for suite in SUITES for name in named_tests(suite)}
    assert every == APPLY | OF_ONE_OBJECTIVE
    suites = {name for name in vars(pytest_samplers) if name.endswith("TestCase")}
    named = {suite.__name__ for suite in SUITES}
    assert suites - named == {"_BaseSamplerTestCase", "SingleOnlySamplerTestCase"}
