"""A board times a design while it is trained: a study is the same as one stage after another."""

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny import Bench, FakeLatency

from evaluators.evaluation import Evaluation, NotFiniteError
from evaluators.latency.evaluator import MeasureError, Timing
from search_space.design.genotype import Genotype
from studies.results.objectives import goals
from studies.results.trial_record import TrialRecord
from studies.search.loop import Search
from studies.search.trial_runner import Evaluators, SearchTargets, TrialRunner

WAIT_S = 30.0


class Board(FakeLatency):
    """Answers once its design is being trained, as `begin` allows for."""

    def __init__(self, trained: list[str]) -> None:
        super().__init__()
        self.trained, self.training = trained, threading.Event()
        self.begun: list[str] = []
        self.waited_in_vain = 0

    def begin(self, genotype: Genotype, again: Callable[[Evaluation], bool]) -> Timing:
        self.begun.append(genotype.key)
        is_known = genotype.key in self.trained

        def readings() -> list[Evaluation]:
            self.waited_in_vain += not (is_known or self.training.wait(WAIT_S))
            self.training.clear()
            found = [self.evaluate(genotype)]
            return [*found, self.evaluate(genotype)] if again(found[0]) else found

        return Timing(readings)


def bench(folder: Path, apart: bool, limits: tuple[str, ...] = (), **more: Any) -> Bench:
    """A bench with a board; `apart` has its designs trained while it times them."""
    made = Bench(folder, **more)
    board = Board(made.quality.trained)
    made.latency = board
    train = made.quality.evaluate

    def evaluate(genotype: Genotype) -> Evaluation:
        board.training.set()
        return train(genotype)

    made.quality.evaluate = evaluate  # type: ignore[method-assign]
    parts = Evaluators(board, made.quality, made.store, apart=apart)  # type: ignore[arg-type]
    targets = SearchTargets(goals((), limits), made.limit_ms)
    runner = TrialRunner(made.study, made.space, parts, targets, None, made.seeded)
    made.search = Search(runner, made.workers, made.told, made.search._sampler)
    return made


def told(one: Bench) -> list[tuple[Any, ...]]:
    """What a study knows of its trials, without dates and seconds."""
    found = []
    for trial in one.trials:
        result = replace(TrialRecord.of(trial).result, seconds={})
        found.append((trial.params, trial.values, trial.state, dict(trial.constraints), result))
    return found


def both(tmp_path: Path, change: Callable[[Bench], object], trials: int = 8) -> tuple[Bench, Bench]:
    """The same study run one stage after the other, and with training beside timing."""
    found = []
    for apart in (False, True):
        one = bench(tmp_path / str(apart), apart)
        change(one)
        one.search.seed(one.seeded)
        one.search.run(trials)
        found.append(one)
    return found[0], found[1]


def of(one: Bench) -> Board:
    board = one.latency
    assert isinstance(board, Board)
    return board


def test_a_design_is_trained_while_the_board_times_it(tmp_path: Path) -> None:
    one = bench(tmp_path, apart=True)
    one.search.run(6)
    assert of(one).begun and of(one).waited_in_vain == 0
    assert [trial.state.name for trial in one.trials] == ["COMPLETE"] * 6


def sound(one: Bench) -> None:
    """Nothing is wrong with any design."""


def some_infeasible(one: Bench) -> None:
    one.latency.infeasible = lambda genotype: genotype.deepest_tap("text") == 1


def some_unstable(one: Bench) -> None:
    one.latency.unstable = lambda genotype: "halves apart" if genotype.key[0] < "8" else ""


def some_untrained(one: Bench) -> None:
    one.quality.check = lambda genotype: (
        {"constant": True, "did_not_train": "one class"} if genotype.key[0] < "8" else {}
    )


@pytest.mark.parametrize("change", [sound, some_infeasible, some_unstable, some_untrained])
def test_the_study_is_the_same_as_one_stage_after_the_other(
    tmp_path: Path, change: Callable[[Bench], object]
) -> None:
    after, beside = both(tmp_path, change)
    assert told(after) == told(beside)
    assert of(after).timed == of(beside).timed, "named designs that miss are read twice"
    assert set(after.quality.trained) <= set(beside.quality.trained)


def test_of_a_design_that_fails_in_both_the_timing_is_told_and_it_is_trained_once(
    tmp_path: Path,
) -> None:
    def failing(one: Bench) -> None:
        errors = iter([MeasureError("no answer"), None, None, None])
        one.latency.fails = lambda: next(errors, None)
        train, count = one.quality.evaluate, iter(range(100))

        def evaluate(genotype: Genotype) -> Evaluation:
            done = train(genotype)
            if len(one.trials) <= 2:  # of the first two trials
                next(count)
                raise NotFiniteError("loss is nan")
            return done

        one.quality.evaluate = evaluate  # type: ignore[method-assign]

    one = bench(tmp_path, apart=True)
    failing(one)
    one.search.run(4)
    reasons = [TrialRecord.of(trial).result.reason for trial in one.trials]
    assert reasons[:2] == ["no answer", "loss is nan"]
    assert [trial.state.name for trial in one.trials[:2]] == ["FAIL", "FAIL"]
    assert one.quality.trained.count(one.quality.trained[1]) == 1


def test_under_a_latency_limit_nothing_is_trained_before_it_is_timed(tmp_path: Path) -> None:
    one = bench(tmp_path, apart=True, limit_ms=3.0)
    one.search.run(6)
    assert of(one).begun == [] and len(one.quality.trained) < len(of(one).timed)


def test_nor_under_a_limit_on_another_figure_that_the_board_tells(tmp_path: Path) -> None:
    one = bench(tmp_path, apart=True, limits=("latency=3",))
    one.search.run(6)
    assert of(one).begun == [] and len(one.quality.trained) < len(of(one).timed)


def test_on_the_machine_that_trains_one_stage_follows_the_other(tmp_path: Path) -> None:
    one = bench(tmp_path, apart=False)
    one.search.run(4)
    assert of(one).begun == [] and len(of(one).timed) == len(one.quality.trained)
