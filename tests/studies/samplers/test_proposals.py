"""Designs that several samplers are asked for at once, each with a connection of its own."""

import multiprocessing
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from search_space.space.space import SearchSpace
from studies.infra.optuna_private import set_system_attribute
from studies.infra.storage import open_storage, quiet_optuna
from studies.samplers import proposals
from studies.samplers.ehvi import START, EnumeratedEhviSampler, SpaceExhausted
from studies.samplers.pool import DesignPool
from studies.samplers.proposals import PROPOSED, Proposals
from studies.samplers.registry import distributions
from studies.simulation.parts import SPACE

SMALL: SearchSpace = replace(
    SPACE,
    fusion_points=(1, 1),
    text_tokens=(16,),
    attention_blocks=(0, 0),
    attention_over=("pooled",),
    operators=("concatenation",),
    widths=(8,),
    text_poolings=("cls",),
    vision_poolings=("mean",),
    precisions=("fp32",),
)
"""16 designs: 4 taps of texts, 4 of pictures."""
DIRECTIONS = ["maximize", "minimize"]


@pytest.fixture(autouse=True)
def quiet() -> None:
    quiet_optuna()


@pytest.fixture
def url(tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    optuna.create_study(storage=open_storage(url), study_name="asked", directions=DIRECTIONS)
    return url


def new_sampler() -> EnumeratedEhviSampler:
    """As a process of its own makes it: all with the same seed, which would propose the same."""
    return EnumeratedEhviSampler(DesignPool(SMALL, 0), distributions(SMALL), 0)


def opened(url: str) -> optuna.Study:
    return optuna.load_study(storage=open_storage(url), study_name="asked", sampler=new_sampler())


def key_of(params: dict[str, Any]) -> str:
    return SMALL.decode([params[decision.name] for decision in SMALL.decisions]).key


def keys(url: str) -> list[str]:
    return [key_of(trial.params) for trial in opened(url).get_trials(deepcopy=False)]


def tell(study: optuna.Study, trial: optuna.Trial) -> None:
    design = SMALL.decode([trial.params[decision.name] for decision in SMALL.decisions])
    text, vision = design.deepest_tap("text"), design.deepest_tap("vision")
    study.tell(trial, [50.0 + 5 * text + 2 * vision, 1.0 + text + 0.5 * vision])


def ask_and_tell(url: str, asks: int, together: Any) -> None:
    study = opened(url)
    for _ in range(asks):
        together.wait(60)
        tell(study, study.ask(distributions(SMALL)))


@pytest.mark.slow
def test_processes_that_ask_at_once_get_different_designs(url: str) -> None:
    context = multiprocessing.get_context("fork")
    together = context.Barrier(3)
    processes = [context.Process(target=ask_and_tell, args=(url, 3, together)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert len(keys(url)) == len(set(keys(url))) == 9 > START


def in_threads(work: Callable[[], None], count: int) -> None:
    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)


@pytest.mark.slow
def test_all_designs_are_given_out_once_and_then_the_space_is_exhausted(url: str) -> None:
    size, ended = len(DesignPool(SMALL, 0).offered), []

    def work() -> None:
        study = opened(url)
        try:
            while True:
                tell(study, study.ask(distributions(SMALL)))
        except SpaceExhausted:
            ended.append(True)

    in_threads(work, 2)
    assert ended == [True] * 2
    done = [t for t in opened(url).trials if t.state is TrialState.COMPLETE]
    assert len({key_of(trial.params) for trial in done}) == len(done) == size == 16


def test_a_proposal_yields_to_one_that_is_settled_and_is_withdrawn(url: str) -> None:
    study, pool = opened(url), DesignPool(SMALL, 0)
    shared, answers = Proposals([d.name for d in SMALL.decisions]), pool.params(pool.offered[3])
    first, second = (study.ask() for _ in range(2))
    frozen = [study.trials[0], study.trials[1]]
    assert shared.claim(study, frozen[1], answers, pool.index_of)
    assert not shared.claim(study, frozen[0], answers, pool.index_of)
    trials = study.get_trials()
    assert trials[first.number].system_attrs[PROPOSED] is None
    assert shared.answers(trials[second.number]) == answers


def test_a_lower_number_waits_for_an_open_proposal_and_takes_what_is_withdrawn(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, pool = opened(url), DesignPool(SMALL, 0)
    shared, answers = Proposals([d.name for d in SMALL.decisions]), pool.params(pool.offered[3])
    for _ in range(2):
        study.ask()
    lower, higher = study.trials
    open_one = [list(answers.values()), False]
    set_system_attribute(study, higher, PROPOSED, open_one)
    monkeypatch.setattr(proposals.time, "sleep", lambda seconds: shared.withdraw(study, higher))
    assert shared.claim(study, lower, answers, pool.index_of)


def test_an_open_proposal_of_a_worker_that_died_is_waited_for_and_then_left_to_it(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proposals, "PATIENCE_S", 0.05)
    study, pool = opened(url), DesignPool(SMALL, 0)
    shared, answers = Proposals([d.name for d in SMALL.decisions]), pool.params(pool.offered[3])
    for _ in range(2):
        study.ask()
    lower, higher = study.trials
    set_system_attribute(study, higher, PROPOSED, [list(answers.values()), False])
    assert not shared.claim(study, lower, answers, pool.index_of)


def test_a_queued_design_that_a_worker_has_just_taken_is_not_proposed(url: str) -> None:
    """Its answers are stored one by one only after it was taken."""
    study, pool = opened(url), DesignPool(SMALL, 0)
    first = study.ask(distributions(SMALL)).params
    study.tell(0, state=TrialState.FAIL)
    again = optuna.create_study(directions=DIRECTIONS, sampler=new_sampler())
    again.enqueue_trial(first)
    again.ask()
    asked = again.ask(distributions(SMALL)).params
    assert pool.index_of(asked) != pool.index_of(first)
