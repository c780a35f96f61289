"""Content keys are what they always were: by them users find what they have stored."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from quick_evaluators import BY_STAGE, QUICK, demo, design

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
from search_space.operators.definitions import FUSION_OPERATORS

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
        Sample(f"{split}{k}", f"{split}{k}", f"text {k}", k % 2, None, split, Path(f"{k % 2}"))  # type: ignore[arg-type]
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
        ("frozen", "d03b87d199f86926", "13b87af85176972c"),
        ("tuned", "7ff9701dbe2f4653", "de93fbc053e96de3"),
        ("by-stage", "d4ad5c2fca6e1a99", "53ddf55091b94c55"),
        ("by-stage in bf16", "99b5fad081ee4204", "515aa015ae82aecd"),
        ("whole", "63b0a83ee5fbab88", "f860c48df51a5bbd"),
        ("paper", "200d50bd393433c5", "7528873e7c9f0fbd"),
    ],
)
def test_a_trained_design_is_kept_under_the_same_key(
    tmp_path: Path, name: str, early: str, late: str
) -> None:
    evaluator = QualityEvaluator(trainer(tmp_path, protocols()[name]))
    found = tuple(evaluator.key(each)[:16] for each in (design(), LATE))
    assert found == (early, late)


def test_only_designs_of_an_operator_whose_first_weights_changed_have_other_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys, designs = trainer(tmp_path).keys, (design(), design("low-rank-tensor"))
    now = [keys.quality(each) for each in designs]
    monkeypatch.setattr(FUSION_OPERATORS["low-rank-tensor"], "first_weights", 0, raising=True)
    before = [keys.quality(each) for each in designs]
    assert [a == b for a, b in zip(now, before, strict=True)] == [True, False]


def test_the_rung_of_whole_training_has_the_same_keys(tmp_path: Path) -> None:
    whole = trainer(tmp_path).other(whole=True)
    assert whole.keys.quality(design())[:16] == "639e975ffbbac6a0"
    by_stage = trainer(tmp_path, BY_STAGE)
    assert by_stage.other(whole=True).keys.quality(design()) == by_stage.keys.quality(design())


@pytest.mark.parametrize(
    ("runtime", "rewrites", "key"),
    [
        ("onnxruntime", "none", "c2520df8ee23a24b"),
        ("tensorrt", "none", "e00e61101dda5349"),
        ("onnxruntime", "all", "a08b132406811cad"),
        ("onnxruntime", "own-length", "d8a63e427a7e1c7f"),
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
        "cross-validation": "1c7567bd06561c8a",
        "robustness": "201dc980d2217a2a",
        "modality use": "fd8183345d3cba36",
        "stress, none": "d5f1fd8bc01919d0",
        "stress, 3": "e1f7382d290e87ef",
        "test": "dbeb46b39f775ae1",
    }
