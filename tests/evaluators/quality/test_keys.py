"""Content keys are what they always were: by them users find what they have stored."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_evaluators_contract import BY_STAGE, QUICK, demo, design

from evaluators.data import DataSet, Sample
from evaluators.evaluation import Evaluator
from evaluators.features.preprocessing import Preprocessing
from evaluators.features.trunk_weights import TrunkWeights
from evaluators.quality.cross_validation import CrossValidatedEvaluator
from evaluators.quality.evaluator import QualityEvaluator
from evaluators.quality.modality_use import ModalityUseEvaluator
from evaluators.quality.probe import ProbeEvaluator
from evaluators.quality.robustness import Noise, RobustnessEvaluator
from evaluators.quality.stress import StressEvaluator
from evaluators.quality.trainer import Compute, DesignTrainer, Target, new_trainer
from evaluators.training.config import TrainingProtocol, named_protocol
from search_space.network.rewrites import BY_NAME, NONE

FULL = 6
LATE = design(text_tap=FULL, vision_tap=FULL)
INT8 = design(precision="int8")


@pytest.fixture(autouse=True)
def named_inputs_and_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Inputs and weights stand in keys by their encoder's name, so that no library changes them."""
    monkeypatch.setattr(Preprocessing, "fingerprint", lambda _, spec: f"inputs of {spec.name}")
    monkeypatch.setattr(Preprocessing, "text_lengths", lambda *_: (5, 9))
    monkeypatch.setattr(TrunkWeights, "loaded_identity", lambda _, spec: f"trunk {spec.name}")


def data() -> DataSet:
    splits = {"train": 9, "valid": 6, "test": 3}
    samples = tuple(
        Sample(f"{split}{k}", f"{split}{k}", f"text {k}", k % 2, None, split, Path())  # type: ignore[arg-type]
        for split, count in splits.items()
        for k in range(count)
    )
    return DataSet("set", "folder", ("no", "yes"), samples, "", "0" * 64)


def trainer(home: Path, protocol: TrainingProtocol = QUICK, **more: Any) -> DesignTrainer:
    encoders = {spec.name: spec for spec in demo().encoders}
    compute = Compute(more.pop("compute_device", "cpu"), more.pop("execution", None))
    target = Target(more.pop("runtime", "onnxruntime"), more.pop("rewrites", NONE))
    read = Preprocessing(data(), demo().shapes)
    return new_trainer(read, encoders, protocol, home, compute=compute, target=target, **more)


def protocols() -> dict[str, TrainingProtocol]:
    return {
        "frozen": QUICK,
        "tuned": replace(QUICK, trunks="tuned"),
        "by-stage": BY_STAGE,
        "by-stage in bf16": replace(BY_STAGE, arithmetic="bf16"),
        "whole": replace(QUICK, trunks="whole"),
        "paper": named_protocol("paper", seed=3),
    }


@pytest.mark.parametrize(
    ("name", "early", "late"),
    [
        ("frozen", "a983a1268c8d0911", "1c286d39fd199d9b"),
        ("tuned", "b6f647ac7dc71f3a", "76b17f16f3d6bb4f"),
        ("by-stage", "aa03c3b238056442", "85d5f402af3ff5c2"),
        ("by-stage in bf16", "4cc7fae53a92546c", "408494f9a7bebb30"),
        ("whole", "514382e1df7fdddc", "c1ded3b7852f57b6"),
        ("paper", "e276b32a4cce1b7b", "3f53d0fa6816a2fe"),
    ],
)
def test_a_trained_design_is_kept_under_the_same_key(
    tmp_path: Path, name: str, early: str, late: str
) -> None:
    evaluator = QualityEvaluator(trainer(tmp_path, protocols()[name]))
    found = tuple(evaluator.key(each)[:16] for each in (design(), LATE))
    assert found == (early, late)


def test_the_rung_of_whole_training_has_the_same_keys(tmp_path: Path) -> None:
    whole = trainer(tmp_path).other(whole=True)
    assert whole.keys.quality(design())[:16] == "0b436363f54f7bc9"
    by_stage = trainer(tmp_path, BY_STAGE)
    assert by_stage.other(whole=True).keys.quality(design()) == by_stage.keys.quality(design())


@pytest.mark.parametrize(
    ("runtime", "rewrites", "key"),
    [
        ("onnxruntime", "none", "77021a510a1a0292"),
        ("tensorrt", "none", "93db766f31a82e01"),
        ("onnxruntime", "all", "250787b2a110e058"),
        ("onnxruntime", "own-length", "94046e6db3dc6518"),
    ],
)
def test_a_reduced_precision_has_the_same_key_for_each_graph_that_it_is_judged_by(
    tmp_path: Path, runtime: str, rewrites: str, key: str
) -> None:
    made = trainer(tmp_path, runtime=runtime, rewrites=BY_NAME[rewrites])
    assert made.keys.quality(INT8)[:16] == key


def test_trunks_that_are_tuned_alone_are_kept_under_the_same_keys(tmp_path: Path) -> None:
    made = trainer(tmp_path, BY_STAGE)
    found = {spec.name: made.keys.tuned_trunk(spec)[:16] for spec in demo().encoders}
    assert found == {"small-bert": "adce5487f8e20f5b", "small-xcit": "dbb7a8b21e4e4949"}


def test_what_else_is_found_of_a_design_is_kept_under_the_same_keys(tmp_path: Path) -> None:
    made = trainer(tmp_path)
    evaluators: dict[str, Evaluator] = {
        "probe": ProbeEvaluator(made),
        "cross-validation": CrossValidatedEvaluator(QualityEvaluator(made)),
        "robustness": RobustnessEvaluator(made, Noise()),
        "modality use": ModalityUseEvaluator(made),
        "stress, none": StressEvaluator(made, "dropped-words", 0),
        "stress, 3": StressEvaluator(made, "dropped-words", 3),
    }
    found = {name: evaluator.key(design())[:16] for name, evaluator in evaluators.items()}
    found["test"] = QualityEvaluator(made).test_key(design())[:16]
    assert found == {
        "probe": "20afa76c846a6033",
        "cross-validation": "32d2e3412e1bfc92",
        "robustness": "b2f4f20767e5fb64",
        "modality use": "4e4f06b3c7c4aa3d",
        "stress, none": "dea70b44562e4482",
        "stress, 3": "1d56da467fe0764e",
        "test": "510e1f8a6972c9f4",
    }
