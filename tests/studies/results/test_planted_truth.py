"""Planted truth: the winner is as good as it is said to be; only real differences are ordered.

Sixty designs of one true accuracy, data of CMU-MOSI's sizes. Choosing among them by 229 clips
overstates the winner; the same choice by cross-validation over 1,513 hardly does. The folds, the
pooling and the intervals are the product's own; what is trained is a linear discriminant, because
the truth about it is known exactly and thousands of trainings take seconds.
"""

from dataclasses import replace

import numpy as np
import pytest
from planted import SIGNAL, World, designs, planted

from evaluators.quality.cross_validation import CrossValidatedEvaluator
from evaluators.statistics.paired import paired
from search_space.design.genotype import Genotype
from studies.results.outcome import DesignResult, Value
from studies.results.verdict import Judged, verdict

CANDIDATES = 60
WORLDS = 30


@pytest.fixture(scope="module")
def optimism() -> dict[str, np.ndarray]:
    """The chosen design's accuracy in the choice less its true one, in points, world by world."""
    candidates = designs(CANDIDATES)
    found: dict[str, list[float]] = {"valid": [], "cv": []}
    for seed in range(WORLDS):
        standard = planted(seed)
        folds = CrossValidatedEvaluator(standard)  # type: ignore[arg-type]
        for name, evaluator in (("valid", standard), ("cv", folds)):
            said = [evaluator.evaluate(g)["accuracy"].value for g in candidates]  # type: ignore[attr-defined]
            winner = int(np.argmax(said))
            found[name].append(said[winner] - standard.truth(candidates[winner]))
    return {name: np.array(points) for name, points in found.items()}


@pytest.mark.slow
def test_choosing_on_the_valid_split_overstates_the_winner(optimism: dict[str, np.ndarray]) -> None:
    assert optimism["valid"].mean() >= 1.5


@pytest.mark.slow
def test_choosing_by_cross_validation_hardly_does(optimism: dict[str, np.ndarray]) -> None:
    assert -0.5 <= optimism["cv"].mean() <= 0.5
    assert optimism["cv"].std() < 0.6 * optimism["valid"].std()


def test_the_candidates_are_alike_in_truth() -> None:
    truths = [planted(0).truth(g) for g in designs(CANDIDATES)]
    assert np.std(truths) < 0.6 and 75 < np.mean(truths) < 90


def row(name: str, ms: float, percent: float) -> DesignResult:
    latency = Value(ms, 0.99 * ms, 1.01 * ms)
    return DesignResult(None, "complete", name, name=name, accuracy=Value(percent), latency=latency)


def judged(name: str, ms: float, genotype: Genotype, signal: float, seed: int) -> Judged:
    """A design on the test clips of one world; another `signal` is another ceiling."""
    right = planted(seed, signal).test(genotype)
    return Judged(row(name, ms, 100 * float(right.mean())), right)


@pytest.mark.parametrize("seed", range(8))
def test_designs_of_different_ceilings_are_ordered(seed: int) -> None:
    first, second = designs(2)
    strong, weak = (judged(n, ms, g, s, seed) for n, ms, g, s in (
        ("strong", 5.0, first, 0.085), ("weak", 15.0, second, 0.045),
    ))  # fmt: skip
    assert planted(seed, 0.085).truth(first) - planted(seed, 0.045).truth(second) > 10
    behind, ahead = verdict(weak, [strong], "test"), verdict(strong, [weak], "test")
    assert behind.kind == "dominated" and behind.rival is strong.row
    assert ahead.kind == "on the front"


def pairs() -> list[tuple[Genotype, Genotype]]:
    made = designs(6)
    return list(zip(made[::2], made[1::2], strict=True))


def test_designs_of_one_ceiling_are_not_decidable() -> None:
    kinds = []
    for seed in range(WORLDS):
        for first, second in pairs():
            slow = judged("slow", 15.0, first, SIGNAL, seed)
            fast = judged("fast", 5.0, second, SIGNAL, seed)
            kinds.append(verdict(slow, [fast], "test").kind)
    assert kinds.count("not decidable") >= 0.9 * len(kinds), "one in twenty may be mistaken"
    assert kinds.count("dominated") <= 0.06 * len(kinds)


def test_the_difference_between_two_planted_designs_is_held_by_its_interval() -> None:
    held = []
    for standard in map(planted, range(WORLDS)):
        for first, second in pairs():
            found = paired(standard.test(first), standard.test(second))
            truth = standard.truth(first) - standard.truth(second)
            held.append(found.low <= truth <= found.high)
    assert sum(held) >= 0.9 * len(held)


def test_a_world_keeps_to_the_sizes_of_mosi() -> None:
    data = World(3).data
    assert [len(data.split(s)) for s in ("train", "valid", "test")] == [1284, 229, 686]
    assert [len(data.groups(s)) for s in ("train", "valid", "test")] == [52, 10, 31]
    assert replace(data) == World(3).data
