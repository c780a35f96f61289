"""The probe ranks designs by a linear system on their features, and trains nothing."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from quick_evaluators import BY_STAGE, QUICK, demo, design, image_folder, quality

from evaluators.data import DataSet
from evaluators.quality import trainer as trainer_module
from evaluators.quality.probe import ProbeEvaluator
from evaluators.training.linear_probe import ridge
from search_space.design.genotype import ATTENTION_OVER
from search_space.design.rules import violations
from search_space.operators.definitions import OPERATORS

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    return image_folder(tmp_path_factory.mktemp("data") / "set")


@pytest.mark.parametrize("features", [5, 40], ids=["more samples", "more features"])
def test_ridge_is_the_regularised_least_squares_solution(features: int) -> None:
    seen = RNG.normal(size=(20, features)).astype(np.float32)
    wanted = np.eye(3, dtype=np.float32)[RNG.integers(3, size=20)]
    asked = RNG.normal(size=(7, features)).astype(np.float32)
    scaled = (seen - seen.mean(0)) / seen.std(0)
    # The same as least squares with further rows that pull each weight to zero.
    more = np.concatenate([scaled, np.sqrt(0.3 * 20) * np.eye(features)])
    target = np.concatenate([wanted - wanted.mean(0), np.zeros((features, 3))])
    weights, *_ = np.linalg.lstsq(more, target, rcond=None)
    expected = (asked - seen.mean(0)) / seen.std(0) @ weights + wanted.mean(0)
    assert np.abs(ridge(seen, wanted, asked, 0.3) - expected).max() < 1e-4


def test_features_that_do_not_vary_count_for_nothing() -> None:
    seen, asked = np.ones((8, 3), np.float32), np.full((2, 3), 7.0, np.float32)
    seen[:, 0] = np.arange(8)
    wanted = np.eye(2, dtype=np.float32)[np.arange(8) % 2]
    with_constants = ridge(seen, wanted, asked, 0.3)
    assert np.isfinite(with_constants).all()
    assert np.allclose(with_constants, ridge(seen[:, :1], wanted, asked[:, :1], 0.3))


def test_a_probe_finds_what_the_features_tell_of_the_classes(data: DataSet, tmp_path: Path) -> None:
    """The first word of a text names its class: ids tell it, and so do a trunk's first states."""
    probe = ProbeEvaluator(quality(data, tmp_path).trainer)
    assert 0 < probe.evaluate(design())["probe_r2"].value < 100


def test_a_probe_trains_nothing_and_never_opens_test(
    data: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("trained")

    monkeypatch.setattr(trainer_module, "fit", refuse)
    trial_runner = quality(data, tmp_path)
    asked: list[str] = []
    split = DataSet.split

    def noted(self: DataSet, name: str) -> object:
        asked.append(name)
        return split(self, name)  # type: ignore[arg-type]

    monkeypatch.setattr(DataSet, "split", noted)
    ProbeEvaluator(trial_runner.trainer).evaluate(design())
    assert set(asked) == {"train", "valid"}
    assert not list(tmp_path.glob("weights/*"))


@pytest.mark.parametrize("over", ATTENTION_OVER)
@pytest.mark.parametrize("operator", OPERATORS)
def test_every_operator_can_be_probed(
    data: DataSet, tmp_path_factory: pytest.TempPathFactory, operator: str, over: str
) -> None:
    asked = design(operator, attention_blocks=1, attention_over=over)
    if violations(asked, demo().shapes):
        pytest.skip(f"{operator} does not attend over {over}")
    home = tmp_path_factory.getbasetemp() / "every-operator"
    found = ProbeEvaluator(quality(data, home).trainer).evaluate(asked)
    assert found["probe_r2"].value <= 100


def test_the_same_probe_again_gives_the_same_figure_under_the_same_key(
    data: DataSet, tmp_path: Path
) -> None:
    one, two = (ProbeEvaluator(quality(data, tmp_path / name).trainer) for name in "ab")
    torch.manual_seed(5)
    assert one.evaluate(design()) == two.evaluate(design())
    tuned = ProbeEvaluator(quality(data, tmp_path / "c", BY_STAGE).trainer)
    assert tuned.key(design()) != one.key(design())
    assert one.key(design()) != quality(data, tmp_path / "a", QUICK).key(design())


def test_designs_over_the_same_taps_share_one_probe(data: DataSet, tmp_path: Path) -> None:
    probe = ProbeEvaluator(quality(data, tmp_path).trainer)
    assert probe.key(design("product")) == probe.key(design("gated"))
    assert probe.evaluate(design("product")) == probe.evaluate(design("gated"))
    assert probe.key(design("product")) != probe.key(design("cross-attention")), "reads tokens"
    assert probe.key(replace(design(), text_tokens=32)) != probe.key(design())
