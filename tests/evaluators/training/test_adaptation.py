"""Adapters are trained on kept features, merged, and judged and exported as merged."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from quick_evaluators import QUICK, image_folder, quality
from safetensors.torch import load_file
from tiny import write_space

from evaluators.data import DataSet
from evaluators.data.folds import fold
from evaluators.onnx.artifacts import ParityError
from evaluators.onnx.builder import OnnxBuilder
from evaluators.quality import trainer as trainer_module
from evaluators.quality.evaluator import QualityEvaluator
from evaluators.training import plan
from evaluators.training.config import TrainingConfig
from evaluators.training.plan import WHOLE
from search_space.design.encoder import EncoderError
from search_space.design.genotype import FusionPoint, Genotype
from search_space.encoders.trunks import GivenStates
from search_space.network.network import FusionNetwork
from search_space.space.named import load_space
from search_space.space.space import SearchSpace

FROZEN = Genotype("tiny-bert", "tiny-vit", 16, (FusionPoint(3, 3, "gated", 16),))
ADAPTED = replace(FROZEN, lora_rank=4)


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> SearchSpace:
    return load_space(str(write_space(tmp_path_factory.mktemp("space") / "tiny.toml")))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    return image_folder(tmp_path_factory.mktemp("data") / "set")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "ADAPTERS", TrainingConfig(2, 2, 8, 1e-3, 1e-2))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where features and weights are kept, so that they are made once."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def evaluator(data: DataSet, space: SearchSpace, home: Path) -> QualityEvaluator:
    return quality(data, home, space=space)


def test_a_design_with_adapters_is_trained_merged_and_kept(
    evaluator: QualityEvaluator, data: DataSet, space: SearchSpace, home: Path
) -> None:
    found = evaluator.evaluate(ADAPTED)
    assert found.details["fidelity"] == "fusion and adapters of rank 4 on frozen trunks"
    assert 0 <= found.details["merged_distance_max"] < 1e-3
    frozen = evaluator.trainer.trained(FROZEN).trunks["text"].state_dict()
    trained = evaluator.trainer.trained(ADAPTED)
    own = trained.trunks["text"].state_dict()
    changed = {name for name in own if not torch.equal(own[name], frozen[name])}
    assert changed
    assert all(".layer.2." in name for name in changed), "layers 1 and 2 of 3 stay as they are"
    # Another session reads them back, and they answer as the evaluation says.
    again = quality(data, home, space=space)
    part = again.trainer.trained_part(ADAPTED)
    assert isinstance(part, FusionNetwork)
    ours, theirs = part.state_dict(), trained.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    labels = np.array([sample.label for sample in data.split("valid")])
    right = again.logits(ADAPTED, "valid").argmax(1) == labels
    assert 100 * right.mean() == pytest.approx(found["accuracy"].value)


def test_what_is_kept_is_the_adapters_and_the_fusion_alone(
    evaluator: QualityEvaluator, home: Path
) -> None:
    evaluator.trainer.trained_part(ADAPTED)
    file = home / "weights" / f"{evaluator.key(ADAPTED)}.safetensors"
    names = load_file(file).keys()
    assert {name.split(".")[0] for name in names} == {"fusion", "adapters"}
    assert all(name[-2:] in (".a", ".b") for name in names if name.startswith("adapters"))


def test_the_exported_graph_is_the_frozen_designs_with_other_weights(
    evaluator: QualityEvaluator,
) -> None:
    """`artifact` raises ParityError where the exported network differs from the trained one."""
    graphs = []
    for genotype in (FROZEN, ADAPTED):
        artifact = evaluator.exporter.artifact(genotype)
        graphs.append(onnx.load(str(artifact.path)).graph)
        artifact.discard()
    frozen, adapted = graphs
    assert Counter(n.op_type for n in frozen.node) == Counter(n.op_type for n in adapted.node)
    shapes = [Counter(tuple(each.dims) for each in graph.initializer) for graph in graphs]
    assert shapes[0] == shapes[1]


def test_the_timed_graph_is_the_frozen_designs_so_the_two_share_a_reading(
    space: SearchSpace, tmp_path: Path
) -> None:
    encoders = {spec.name: spec for spec in space.encoders}
    builder = OnnxBuilder(encoders, space.shapes, 2, tmp_path, parts=tmp_path / "parts")
    frozen, adapted = (builder.build(genotype) for genotype in (FROZEN, ADAPTED))
    assert frozen.sha256 == adapted.sha256
    # What the key of a latency holds of a design.
    assert builder.rewriting.timed(ADAPTED) == builder.rewriting.timed(FROZEN) == FROZEN


def test_frozen_layers_run_once_for_all_ranks(
    evaluator: QualityEvaluator, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluator.evaluate(ADAPTED)
    made: list[str] = []
    monkeypatch.setattr(
        evaluator.trainer.inputs._features, "_make", lambda *a: made.append(a[1].name)
    )
    evaluator.evaluate(replace(ADAPTED, lora_rank=8))
    assert made == []


def test_ranks_and_recipes_have_keys_of_their_own_and_designs_without_keep_theirs(
    data: DataSet, space: SearchSpace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluator = quality(data, tmp_path, space=space)
    frozen, four = evaluator.key(FROZEN), evaluator.key(ADAPTED)
    assert len({frozen, four, evaluator.key(replace(ADAPTED, lora_rank=8))}) == 3
    monkeypatch.setattr(plan, "ADAPTERS", TrainingConfig(3, 2, 8, 1e-3, 1e-2))
    assert evaluator.key(ADAPTED) != four
    assert evaluator.key(FROZEN) == frozen


def test_a_rung_higher_a_design_with_adapters_is_trained_whole(
    data: DataSet, space: SearchSpace, home: Path
) -> None:
    whole = quality(data, home, space=space, whole=True)
    assert whole.trainer.plan.fidelity(ADAPTED) == WHOLE
    assert not whole.trainer.plan.adapts(ADAPTED)


def test_adapters_start_from_tuned_trunks_where_these_are_tuned(
    data: DataSet, space: SearchSpace, tmp_path: Path
) -> None:
    tuned = quality(data, tmp_path, replace(QUICK, trunks="text-tuned"), space)
    tuned.evaluate(ADAPTED)
    ours = tuned.trainer.trained(ADAPTED).trunks["text"].state_dict()
    theirs = tuned.trainer.untrained(FROZEN).trunks["text"].state_dict()
    first = next(name for name in ours if ".layer.0." in name)
    assert torch.equal(ours[first], theirs[first])


def test_a_trunk_that_does_not_go_on_from_its_tap_is_refused_in_words(
    evaluator: QualityEvaluator, monkeypatch: pytest.MonkeyPatch
) -> None:
    handed_on = GivenStates.forward
    monkeypatch.setattr(GivenStates, "forward", lambda *a, **k: handed_on(*a, **k).flip(1))
    with pytest.raises(EncoderError, match=r"text encoder tiny-bert: run from a kept tap on"):
        evaluator.evaluate(ADAPTED)


def test_a_merged_network_that_answers_otherwise_is_refused(
    evaluator: QualityEvaluator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer_module.Adapters, "merge", lambda self: self._layers.clear())
    merged = trainer_module.DesignTrainer._merged

    def on_other_weights(self, genotype, learnt):  # type: ignore[no-untyped-def]
        network = merged(self, genotype, learnt)
        torch.nn.init.zeros_(network.fusion.head[-1].weight)  # type: ignore[arg-type]
        return network

    monkeypatch.setattr(trainer_module.DesignTrainer, "_merged", on_other_weights)
    with pytest.raises(ParityError, match="merged adapters gives other logits"):
        evaluator.evaluate(ADAPTED)


def test_a_fold_of_cross_validation_trains_adapters_too(
    data: DataSet, space: SearchSpace, home: Path
) -> None:
    part = fold(data, 0, 5)
    correct, details = quality(part, home, space=space).out_of_fold(ADAPTED)
    assert correct.shape == (1, len(part.split("test")))
    assert details["merged_distance_max"] < 1e-3
