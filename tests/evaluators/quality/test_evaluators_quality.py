"""A design's accuracy depends on the design, the data and the protocol, and on nothing else."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from every_design import enlarged
from PIL import Image
from quick_evaluators import BY_STAGE, QUICK, SPLITS, Line, demo, design, image_folder, quality
from torch import Tensor, nn

from evaluators.data import DataError, DataSet, Sample, load
from evaluators.evaluation import Evaluation, NotFiniteError
from evaluators.features import preprocessing
from evaluators.features.preprocessing import Preprocessing
from evaluators.features.tokenizers import LearnedTokenizer, PretrainedTokenizer
from evaluators.features.trunk_weights import TrunkWeights, WeightsError, load_prefix, save_state
from evaluators.onnx.builder import OnnxBuilder, run_onnx
from evaluators.onnx.quantisation import CALIBRATION_SAMPLES
from evaluators.quality import exporter as exporter_module
from evaluators.quality.evaluator import QualityEvaluator
from evaluators.training.loop import (
    Arithmetic,
    TrainingConfig,
    Trunks,
    fit,
    predict,
    shuffled_batches,
)
from evaluators.training.plan import ON_FROZEN, WHOLE
from search_space.design.encoder import EncoderError, EncoderSpec
from search_space.design.genotype import (
    ATTENTION_OVER,
    TEXT_POOLINGS,
    VISION_POOLINGS,
    FusionPoint,
    Genotype,
)
from search_space.design.rules import canonical, violations
from search_space.operators.definitions import OPERATORS
from search_space.space.named import load_space

FULL = 6


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    return image_folder(tmp_path_factory.mktemp("data") / "set")


@pytest.fixture(scope="module")
def frozen(data: DataSet, tmp_path_factory: pytest.TempPathFactory) -> QualityEvaluator:
    """An evaluator that several tests ask, so that features are made once."""
    return quality(data, tmp_path_factory.mktemp("frozen"))


@pytest.fixture(scope="module")
def by_stage(data: DataSet, tmp_path_factory: pytest.TempPathFactory) -> QualityEvaluator:
    evaluator = quality(data, tmp_path_factory.mktemp("by-stage"), BY_STAGE)
    evaluator.prepare()
    return evaluator


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of all pictures that are read from here on."""
    names: list[str] = []
    read = preprocessing.read_picture

    def noted(sample: Sample, size: int) -> np.ndarray:
        names.append(sample.picture.name)
        return read(sample, size)

    monkeypatch.setattr(preprocessing, "read_picture", noted)
    return names


def accuracy(evaluation: Evaluation) -> float:
    return evaluation["accuracy"].value


def judged(data: DataSet, logits: Tensor | np.ndarray) -> float:
    """Accuracy in percent of logits on the validation split."""
    labels = np.array([sample.label for sample in data.split("valid")])
    return float(100 * (np.asarray(logits).argmax(1) == labels).mean())


def whole_logits(evaluator: QualityEvaluator, genotype: Genotype) -> Tensor:
    """What the trained whole network says of the validation split, sample by sample."""
    network = evaluator.trainer.trained(genotype)
    with torch.inference_mode():
        rows = evaluator.exporter.inputs(genotype, evaluator.data.split("valid"))
        return torch.cat([network(*row) for row in rows])


def comparable(evaluation: Evaluation) -> Evaluation:
    return replace(evaluation, details={**evaluation.details, "seconds": 0, "waited_s": 0})


# -- the same again


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_design_is_worth_the_same_whatever_was_trained_before(
    data: DataSet, tmp_path: Path, precision: str
) -> None:
    asked = design(precision=precision)
    first = quality(data, tmp_path / "one")
    before = first.evaluate(asked)
    other = quality(data, tmp_path / "two")
    other.evaluate(design("gated"))
    torch.manual_seed(99)
    torch.rand(7)
    other.evaluate(design("tensor", text_tokens=24))
    assert comparable(other.evaluate(asked)) == comparable(before)
    assert comparable(other.evaluate(asked)) == comparable(before)
    ours, theirs = (
        first.trainer.trained(asked).state_dict(),
        other.trainer.trained(asked).state_dict(),
    )
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_design_that_is_trained_whole_is_worth_the_same_again(
    by_stage: QualityEvaluator, data: DataSet, tmp_path: Path
) -> None:
    again = quality(data, tmp_path, BY_STAGE)
    assert comparable(again.evaluate(design())) == comparable(by_stage.evaluate(design()))


def test_another_seed_draws_other_weights(data: DataSet, tmp_path: Path) -> None:
    one, two = (quality(data, tmp_path / str(s), replace(QUICK, seed=s)) for s in (0, 1))
    ours, theirs = (e.trainer.trained(design()).state_dict() for e in (one, two))
    assert not torch.equal(ours["fusion.head.0.weight"], theirs["fusion.head.0.weight"])


# -- what may be looked at


@pytest.mark.parametrize("protocol", [QUICK, BY_STAGE], ids=["frozen", "by-stage"])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_test_split_is_never_opened_before_the_end(
    tmp_path: Path, opened: list[str], protocol: object, precision: str
) -> None:
    data = image_folder(tmp_path / "set")
    for sample in data.split("test"):
        sample.image.write_bytes(b"garbage")
    evaluator = quality(data, tmp_path / "home", protocol)  # type: ignore[arg-type]
    evaluator.evaluate(design(precision=precision))
    assert opened and not [name for name in opened if name.startswith("test")]
    with pytest.raises(DataError, match="test"):
        evaluator.test(design(precision=precision))


def test_words_of_other_splits_are_not_learnt(tmp_path: Path) -> None:
    data = image_folder(tmp_path / "set")
    samples = tuple(
        replace(s, text="unheard of") if s.split != "train" else s for s in data.samples
    )
    spec = demo().encoder("small-bert")
    made = Preprocessing(replace(data, samples=samples), demo().shapes)
    ids, _ = made.text(spec, made.data.split("test"), 16)
    unknown = made.tokenizer(spec).encode(["zzz"], 16)[0][0, 1]
    assert (ids[:, 1:3] == unknown).all()


def test_the_test_figure_is_told_apart_from_validation(frozen: QualityEvaluator) -> None:
    found = frozen.test(design())
    assert found.kind == "test" and found.key == frozen.test_key(design()) != frozen.key(design())
    assert found.details["split"] == "test" and 0 <= accuracy(found) <= 100


# -- keys


def test_judging_on_kept_features_loads_no_trunk(
    frozen: QualityEvaluator, monkeypatch: pytest.MonkeyPatch
) -> None:
    frozen.evaluate(design())
    frozen.test(design())
    loaded: list[str] = []
    monkeypatch.setattr(TrunkWeights, "trunk", lambda *_: loaded.append("a trunk"))
    frozen.test(design())
    frozen.trainer.forget_weights(design())
    frozen.test(design())
    assert loaded == []


def test_the_key_changes_with_data_protocol_seed_and_weights(data: DataSet, tmp_path: Path) -> None:
    first = data.samples[0]
    worded = replace(
        data, fingerprint="0" * 64, samples=(replace(first, text="x"), *data.samples[1:])
    )
    spec = demo().encoder("small-bert")
    other = replace(spec, config={**spec.config, "num_attention_heads": 8})
    heads = replace(demo(), encoders=(other, *demo().encoders[1:]))
    evaluators = {
        "as it is": quality(data, tmp_path),
        "data": quality(worded, tmp_path),
        "trunks": quality(data, tmp_path, BY_STAGE),
        "epochs": quality(data, tmp_path, replace(QUICK, fusion=replace(QUICK.fusion, epochs=4))),
        "seed": quality(data, tmp_path, replace(QUICK, seed=1)),
        "heads, with weights of the same sizes": quality(data, tmp_path, QUICK, heads),
    }
    keys = {name: evaluator.key(design()) for name, evaluator in evaluators.items()}
    assert len(set(keys.values())) == len(keys)
    assert quality(data, tmp_path / "elsewhere").key(design()) == keys["as it is"]


def saved_bert(folder: Path, seed: int, **settings: int) -> Path:
    """A pretrained text encoder of one's own, as transformers saves it."""
    from search_space.encoders.libraries import import_transformers

    transformers = import_transformers()
    torch.manual_seed(seed)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 40}
    config = transformers.BertConfig(
        **{**sizes, "intermediate_size": 32, "max_position_embeddings": 32, **settings}
    )
    transformers.BertModel(config).save_pretrained(folder)
    LearnedTokenizer(["good bad fine slow plain"], 40).save(folder)
    return folder


def test_other_weights_in_the_same_folder_are_other_keys_tuned_or_not(
    data: DataSet, tmp_path: Path
) -> None:
    def keys(folder: Path) -> list[str]:
        space = load_space("demo", text_encoders=[str(folder)])
        space = replace(
            space, encoders=(replace(space.encoders[0], name="mine"), space.encoders[1])
        )
        space = replace(space, shapes={**space.shapes, "mine": next(iter(space.shapes.values()))})
        genotype = Genotype("mine", None, 16, (FusionPoint(1, 0),))
        protocols = (QUICK, BY_STAGE)
        return [quality(data, tmp_path / "home", p, space).key(genotype) for p in protocols]

    folder = saved_bert(tmp_path / "bert", seed=0)
    before = keys(folder)
    shutil.copytree(folder, tmp_path / "moved" / "bert")
    assert keys(tmp_path / "moved" / "bert") == before, "a folder may be moved"
    saved_bert(folder, seed=1)
    after = keys(folder)
    saved_bert(folder, seed=1, num_attention_heads=4)
    assert len({*before, *after, *keys(folder)}) == 6


def test_the_key_is_the_same_before_and_after_trunks_are_tuned(
    by_stage: QualityEvaluator, data: DataSet, tmp_path: Path
) -> None:
    assert quality(data, tmp_path, BY_STAGE).key(design()) == by_stage.key(design())


@pytest.mark.parametrize(
    ("trunks", "tuned"), [("frozen", ()), ("text-tuned", ("text",)), ("tuned", ("text", "vision"))]
)
def test_trunks_are_tuned_by_modality_and_designs_then_train_on_their_features(
    data: DataSet, tmp_path: Path, trunks: Any, tuned: tuple[str, ...]
) -> None:
    done: list[str] = []
    protocol = replace(QUICK, trunks=trunks)
    evaluator = quality(data, tmp_path, protocol, progress=lambda what, *_: done.append(what))
    early = design(text_tap=2, vision_tap=2)
    assert evaluator.evaluate(early).details["fidelity"] == ON_FROZEN
    alone = {what.split()[1] for what in done if what.startswith("tuning")}
    assert alone == {f"small-{'bert' if m == 'text' else 'xcit'}" for m in tuned}
    assert "training whole" not in done


def test_designs_on_other_trunks_have_other_keys(data: DataSet, tmp_path: Path) -> None:
    modes = get_args(Trunks)
    keys = {quality(data, tmp_path, replace(QUICK, trunks=t)).key(design()) for t in modes}
    assert len(keys) == len(modes) == 5


def test_trunks_with_pretrained_weights_are_trained_by_regimes_of_their_own(
    data: DataSet, tmp_path: Path
) -> None:
    space = load_space("demo", text_encoders=[str(saved_bert(tmp_path / "bert", seed=0))])
    told: set[tuple[str, int]] = set()
    protocol = replace(
        BY_STAGE,
        alone_pretrained=replace(QUICK.alone, epochs=4, patience=4),
        whole_pretrained=replace(QUICK.whole, epochs=5, patience=5),
    )
    evaluator = quality(
        data, tmp_path / "home", protocol, space, progress=lambda what, _, n: told.add((what, n))
    )
    text, vision = space.text_encoders[0], space.vision_encoders[0]
    evaluator.evaluate(Genotype(text, vision, 16, (FusionPoint(1, 2),)))
    assert {(f"tuning {text} alone", 4), (f"tuning {vision} alone", 1)} < told
    assert ("training whole", 5) in told


# -- training


def test_batches_hold_every_sample_once_and_texts_of_like_length() -> None:
    examples = Line(1000)
    examples.lengths = torch.randint(3, 100, (1000,), generator=torch.Generator().manual_seed(3))
    batches = shuffled_batches(examples, 32, torch.Generator().manual_seed(0))
    again = shuffled_batches(examples, 32, torch.Generator().manual_seed(0))
    assert sorted(torch.cat(batches).tolist()) == list(range(1000))
    assert all(torch.equal(a, b) for a, b in zip(batches, again, strict=True))
    padded = sum(int(examples.lengths[b].max()) * len(b) for b in batches)
    assert padded < 1.15 * int(examples.lengths.sum())
    longest = [int(examples.lengths[b].max()) for b in batches]
    assert longest != sorted(longest)  # the order of batches stays random


def test_training_in_bf16_keeps_weights_in_fp32_and_learns_the_same() -> None:
    modules = {kind: nn.Sequential(nn.Linear(1, 16), nn.ReLU(), nn.Linear(16, 2)) for kind in "ab"}
    modules["b"].load_state_dict(modules["a"].state_dict())
    config = TrainingConfig(8, 8, 8, 0.05, 0.0)
    kinds: tuple[Arithmetic, ...] = ("fp32", "bf16")
    done = [
        fit(module, Line(64), Line(20), config, 0, arithmetic=arithmetic)
        for module, arithmetic in zip(modules.values(), kinds, strict=True)
    ]
    assert [d.valid_accuracy for d in done] == [1.0, 1.0]
    assert next(modules["b"].parameters()).dtype == torch.float32
    assert not torch.equal(modules["a"][0].weight, modules["b"][0].weight)


def line(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Linear(1, 2)


def test_training_keeps_the_best_epoch_and_stops_after_its_patience() -> None:
    valid = Line(10, [0.5, 0.8, 0.6, 0.8, 0.7, 0.9])
    module = line()
    done = fit(module, Line(20), valid, TrainingConfig(6, 3, 8, 0.1, 0.1), seed=0)
    assert (done.epochs, done.best_epoch, done.valid_accuracy) == (5, 2, pytest.approx(0.8))
    assert torch.equal(next(module.parameters()), valid.weights[1])
    assert not torch.equal(valid.weights[1], valid.weights[4]) and not module.training


@pytest.mark.parametrize("epochs", range(1, 13))
def test_any_number_of_steps_can_be_trained(epochs: int) -> None:
    done = fit(line(), Line(6), Line(4), TrainingConfig(epochs, epochs, 8, 0.1, 0.1), seed=0)
    assert 1 <= done.epochs <= epochs


def test_a_last_batch_of_one_does_not_reach_batch_norm(
    data: DataSet, frozen: QualityEvaluator
) -> None:
    assert SPLITS["train"] % QUICK.fusion.batch_size == 1
    normed = design(vision_pooling="conv-max")
    assert frozen.evaluate(normed).details["epochs"] in (3, 6)  # in a second attempt twice as many
    flat = nn.Sequential(nn.Linear(1, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    fit(flat, Line(9), Line(4), TrainingConfig(2, 2, 8, 0.1, 0.1), seed=0)


@pytest.mark.parametrize(("epochs", "batch"), [(0, 8), (3, 1)])
def test_a_regime_that_would_train_nothing_is_refused(epochs: int, batch: int) -> None:
    with pytest.raises(ValueError, match="give at least"):
        TrainingConfig(epochs, 3, batch, 1e-3, 0.0)


@pytest.mark.parametrize("split", ["train", "valid"])
def test_a_loss_that_is_nan_ends_training_in_words(split: str) -> None:
    lines = {"train": Line(8), "valid": Line(8), split: Line(8, factor=float("nan"))}
    with pytest.raises(NotFiniteError, match=r"loss is nan.*--trunks frozen.*--seed"):
        fit(line(), lines["train"], lines["valid"], TrainingConfig(2, 2, 8, 0.1, 0.1), seed=0)


def test_a_design_that_diverges_leaves_no_weights(data: DataSet, tmp_path: Path) -> None:
    wild = replace(QUICK, fusion=TrainingConfig(3, 3, 8, 1e30, 0.0))
    with pytest.raises(NotFiniteError):
        quality(data, tmp_path, wild).evaluate(design())
    assert not list((tmp_path / "weights").glob("*"))


# -- features of frozen trunks


def designs_of_every_form() -> list[Genotype]:
    made = []
    for k, operator in enumerate(OPERATORS):
        for over in (None, *ATTENTION_OVER):
            if operator == "tensor-fusion" and over == "pooled":
                continue  # 4 heads cannot share the square of an odd number
            blocks = 0 if over is None else 1
            for pooling in VISION_POOLINGS:
                genotype = design(
                    operator,
                    text_tap=FULL - k % 2,
                    attention_blocks=blocks,
                    attention_over=over or "pooled",
                    vision_pooling=pooling,
                    text_pooling=TEXT_POOLINGS[(k + blocks) % len(TEXT_POOLINGS)],
                )
                made.append(canonical(genotype, demo().shapes))
    unique = list(dict.fromkeys(made))
    assert not any(violations(genotype, demo().shapes) for genotype in unique)
    return unique


@pytest.mark.parametrize("genotype", designs_of_every_form(), ids=Genotype.describe)
def test_kept_features_give_the_logits_of_the_whole_network(
    frozen: QualityEvaluator, genotype: Genotype
) -> None:
    network = enlarged(frozen.trainer.untrained(genotype))
    kept = predict(network.fusion, frozen.trainer.inputs.examples(genotype, "valid", kept=True))
    whole = predict(network, frozen.trainer.inputs.examples(genotype, "valid", kept=False))
    halved = any(f.form == "tokens" for read in network.wanted.values() for f in read)
    assert (kept - whole).abs().max() < (1e-3 if halved else 1e-5)
    assert kept.std(0).max() > 2e-5, "or they would agree whatever was kept"


def test_features_are_made_once_and_read_by_the_next_run(
    data: DataSet, tmp_path: Path, opened: list[str]
) -> None:
    first = quality(data, tmp_path).evaluate(design())
    assert len(opened) == len(set(opened)) == SPLITS["train"] + SPLITS["valid"]
    features = list((tmp_path / "features").rglob("*.safetensors"))
    times = [file.stat().st_mtime_ns for file in features]
    opened.clear()
    again = quality(data, tmp_path)
    assert comparable(again.evaluate(design())) == comparable(first)
    again.evaluate(design("gated", text_tap=4, vision_tap=1, vision_pooling="max"))
    assert not opened
    assert features and times == [file.stat().st_mtime_ns for file in features]
    assert not list(tmp_path.rglob("*.partial"))


@pytest.mark.parametrize("cached_bytes", [0, 4, 100, -1])
def test_damaged_features_are_made_again(data: DataSet, tmp_path: Path, cached_bytes: int) -> None:
    asked = design("cross-attention")
    first = quality(data, tmp_path).evaluate(asked)
    for file in (tmp_path / "features").rglob("*.safetensors"):
        file.write_bytes(file.read_bytes()[:cached_bytes])
    assert comparable(quality(data, tmp_path).evaluate(asked)) == comparable(first)


def test_a_disk_without_room_for_features_leaves_nothing_half_written(
    data: DataSet, tmp_path: Path
) -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    evaluator = quality(data, tmp_path)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        with pytest.raises(OSError, match="make room"):
            evaluator.evaluate(design())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    left = [file for file in (tmp_path / "features").rglob("*") if file.is_file()]
    assert not [file for file in left if file.suffix != ".lock"]
    assert evaluator.evaluate(design()).measures


# -- what was trained


@pytest.mark.parametrize(
    ("late", "fidelity"), [(True, ON_FROZEN), (False, WHOLE)], ids=["late", "whole"]
)
def test_a_trained_network_is_as_right_as_its_evaluation_said(
    by_stage: QualityEvaluator, late: bool, fidelity: str
) -> None:
    asked = design(text_tap=FULL, vision_tap=FULL) if late else design()
    found = by_stage.evaluate(asked)
    assert by_stage.trainer.plan.fidelity(asked) == found.details["fidelity"] == fidelity
    assert judged(by_stage.data, whole_logits(by_stage, asked)) == accuracy(found)


def test_a_trained_network_on_frozen_trunks_is_as_right_as_its_evaluation_said(
    frozen: QualityEvaluator,
) -> None:
    found = frozen.evaluate(design())
    assert found.details["fidelity"] == ON_FROZEN
    assert judged(frozen.data, whole_logits(frozen, design())) == accuracy(found)


@pytest.mark.parametrize("precision", ["int8", "int8-dynamic", "fp16"])
def test_a_reduced_precision_is_judged_by_running_its_exported_file(
    frozen: QualityEvaluator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    asked = design(precision=precision)
    found = frozen.evaluate(asked)
    encoders = {spec.name: spec for spec in demo().encoders}
    train = frozen.data.split("train")
    spread = frozen.exporter.inputs(asked, train[:: -(-len(train) // CALIBRATION_SAMPLES)])
    made = OnnxBuilder(encoders, demo().shapes, 2, tmp_path).build(
        asked, frozen.trainer.trained(asked), spread
    )
    logits = run_onnx(made.path, frozen.exporter.inputs(asked, frozen.data.split("valid")))
    assert judged(frozen.data, logits) == accuracy(found)
    apart = np.abs(logits - whole_logits(frozen, asked).numpy())
    # Kept features are in half precision, so the distance is told to about a thousandth.
    assert found.details["torch_distance_max"] == pytest.approx(apart.max(), abs=2e-3)
    assert found.details["torch_distance_mean"] == pytest.approx(apart.mean(), abs=2e-3)
    monkeypatch.setattr(exporter_module, "run_onnx", lambda path, rows: -run_onnx(path, rows))
    assert accuracy(frozen.evaluate(asked)) == pytest.approx(100 - accuracy(found))
    assert not list((frozen.trainer._home / "artifacts").iterdir())


def test_fp32_has_no_distance_to_tell(frozen: QualityEvaluator) -> None:
    assert "torch_distance_max" not in frozen.evaluate(design()).details


def test_the_key_of_an_int8_design_depends_on_the_runtime_it_is_for(
    data: DataSet, tmp_path: Path
) -> None:
    here, there = (quality(data, tmp_path, runtime=one) for one in ("onnxruntime", "tensorrt"))
    assert here.key(design(precision="int8")) != there.key(design(precision="int8"))
    assert here.key(design()) == there.key(design())


@pytest.mark.parametrize("harm", [Path.unlink, lambda file: file.write_bytes(b"torn")])
def test_weights_that_are_gone_or_damaged_are_trained_again_to_the_same(
    data: DataSet, tmp_path: Path, harm: Callable[[Path], object]
) -> None:
    evaluator = quality(data, tmp_path)
    before = evaluator.trainer.trained(design()).state_dict()
    (file,) = (tmp_path / "weights").glob("*.safetensors")
    harm(file)
    after = evaluator.trainer.trained(design()).state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_weights_of_another_network_are_told_in_words(tmp_path: Path) -> None:
    save_state(nn.Linear(2, 3), tmp_path / "w")
    for other in (nn.Linear(2, 4), nn.Sequential(nn.Linear(2, 3))):
        with pytest.raises(WeightsError, match="another network"):
            load_prefix(other, tmp_path / "w")
    load_prefix(nn.Linear(2, 3), tmp_path / "w")


# -- trunks tuned alone


def test_trunks_are_tuned_once_and_serve_every_depth(data: DataSet, tmp_path: Path) -> None:
    told: list[str] = []
    first = quality(data, tmp_path, BY_STAGE, progress=lambda what, *_: told.append(what))
    first.prepare()
    assert set(told) == {"tuning small-bert alone", "tuning small-xcit alone"}
    told.clear()
    key = first.trainer.keys.tuned_trunk(demo().encoders[0])
    (tmp_path / "trunks" / f"{key}.safetensors").write_bytes(b"x")
    quality(data, tmp_path, BY_STAGE, progress=lambda what, *_: told.append(what)).prepare()
    assert set(told) == {"tuning small-bert alone"}, "what is damaged is tuned again"
    told.clear()
    again = quality(data, tmp_path, BY_STAGE, progress=lambda what, *_: told.append(what))
    again.prepare()
    assert not told
    for name in ("small-bert", "small-xcit"):
        spec = demo().encoder(name)
        whole = again.trainer._trunks.trunk(spec, FULL).state_dict()
        short = again.trainer._trunks.trunk(spec, 3).state_dict()
        loaded = TrunkWeights(demo().shapes, tmp_path, QUICK.seed).trunk(spec, 3).state_dict()
        assert all(torch.equal(short[key], whole[key]) for key in short)
        assert any(not torch.equal(short[key], loaded[key]) for key in short)


def test_a_design_by_stages_never_trains_on_untuned_trunks(
    by_stage: QualityEvaluator, data: DataSet, tmp_path: Path
) -> None:
    late = design(text_tap=FULL, vision_tap=FULL)
    unprepared = quality(data, tmp_path, BY_STAGE)
    ours, theirs = (
        unprepared.trainer.trained(late).state_dict(),
        by_stage.trainer.trained(late).state_dict(),
    )
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("name", ["small-bert", "small-xcit"])
def test_one_modality_alone_is_a_design_like_others(
    frozen: QualityEvaluator, opened: list[str], name: str
) -> None:
    spec = demo().encoder(name)
    alone = frozen.trainer.plan.unimodal(spec)
    assert not violations(alone, demo().shapes)
    assert max(alone.deepest_tap("text"), alone.deepest_tap("vision")) == demo().shapes[name].depth
    found = frozen.evaluate(alone)
    assert judged(frozen.data, whole_logits(frozen, alone)) == accuracy(found)
    assert bool(opened) == (spec.modality == "vision")


# -- data of other kinds


def test_three_classes_are_three_logits(tmp_path: Path) -> None:
    evaluator = quality(image_folder(tmp_path / "set", ("a", "b", "c")), tmp_path / "home")
    for precision in ("fp32", "int8"):
        asked = design(precision=precision)
        found = evaluator.evaluate(asked)
        assert [measure.name for measure in found.measures] == ["accuracy"]
        assert 0 <= accuracy(found) <= 100
    assert whole_logits(evaluator, design()).shape == (SPLITS["valid"], 3)


@pytest.mark.parametrize("texts", [[""], ["", "one word", " "]])
def test_empty_texts_are_texts(tmp_path: Path, texts: list[str]) -> None:
    evaluator = quality(image_folder(tmp_path / "set", texts=texts), tmp_path / "home")
    attending = design(text_pooling="mean", attention_blocks=1, attention_over="tokens")
    for asked in (design("cross-attention"), attending):
        assert judged(evaluator.data, whole_logits(evaluator, asked)) == accuracy(
            evaluator.evaluate(asked)
        )


def test_scores_of_zero_are_counted_once_with_and_once_without(tmp_path: Path) -> None:
    rows = ["video_id,clip_id,text,label,mode"]
    scores = {"train": (-1.0, 2.0, 0.0, -2.0), "valid": (-1.0, 0.0, 1.5, 0.0), "test": (1.0, -1.0)}
    for split, values in scores.items():
        frames = tmp_path / "mosi" / "Frames" / split
        frames.mkdir(parents=True)
        for k, score in enumerate(values):
            rows.append(f"{split},{k},said {k},{score},{split}")
            Image.new("RGB", (9, 9), (40 * k, 80, 20)).save(frames / f"{k}.png")
    (tmp_path / "mosi" / "label.csv").write_text("\n".join(rows))
    data = load(tmp_path / "mosi", cache=tmp_path / "cache")
    found = quality(data, tmp_path / "home").evaluate(design())
    counted = {measure.name: measure.value for measure in found.measures}
    assert set(counted) == {"accuracy", "accuracy_nonzero"}
    assert counted["accuracy"] % 25 == 0 and counted["accuracy_nonzero"] % 50 == 0
    low, high = found["accuracy"].low, found["accuracy"].high
    assert low is not None and high is not None and low <= accuracy(found) <= high


# -- tokens


def test_a_learned_vocabulary_fits_an_encoder_described_by_a_folder(
    data: DataSet, tmp_path: Path
) -> None:
    folder = saved_bert(tmp_path / "bert", seed=0, vocab_size=7)
    (folder / "tokenizer.json").unlink()
    spec = EncoderSpec("mine", "text", "transformers", str(folder), "random")
    made = Preprocessing(data, demo().shapes)
    ids, mask = made.text(spec, data.samples, 16)
    assert ids.max() < 7 and ids.shape == mask.shape and mask[:, 0].all()


def folder_with_tokenizer(folder: Path, change: Callable[[Path], object]) -> EncoderSpec:
    """A pretrained text encoder whose tokenizer's files are changed."""
    change(saved_bert(folder, seed=0))
    return EncoderSpec("mine", "text", "transformers", str(folder))


def change_json(file: Path, key: str, value: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), key: value}))


def without_pad_token(folder: Path) -> None:
    change_json(folder / "tokenizer.json", "padding", None)
    change_json(folder / "tokenizer_config.json", "pad_token", None)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (without_pad_token, "names no pad_token.*tokenizer_config.json"),
        (lambda folder: (folder / "tokenizer.json").write_text("{"), "no usable tokenizer"),
        (lambda folder: (folder / "tokenizer.json").write_text("{}"), "no usable tokenizer"),
        (lambda folder: (folder / "tokenizer_config.json").write_text("{"), "no usable tokenizer"),
    ],
    ids=["no pad token", "torn", "empty", "torn settings"],
)
def test_a_tokenizer_that_cannot_be_used_is_refused_in_words(
    tmp_path: Path, change: Callable[[Path], object], told: str
) -> None:
    spec = folder_with_tokenizer(tmp_path / "bert", change)
    with pytest.raises(EncoderError, match=f"text encoder {spec.source}: .*{told}"):
        PretrainedTokenizer(spec)


def test_any_token_can_be_named_to_pad_with(tmp_path: Path) -> None:
    spec = folder_with_tokenizer(tmp_path / "bert", without_pad_token)
    change_json(tmp_path / "bert" / "tokenizer_config.json", "pad_token", "[SEP]")
    _, mask = PretrainedTokenizer(spec).encode(["good bad", "fine"], 16)
    assert mask.tolist() == [[1, 1, 1, 1], [1, 1, 1, 0]]


def test_a_tokenizer_of_another_encoder_is_refused_in_words(data: DataSet, tmp_path: Path) -> None:
    def change(folder: Path) -> None:
        words = [f"word{n}" for n in range(90)]
        LearnedTokenizer([*words, *(sample.text for sample in data.samples)], 200).save(folder)

    spec = folder_with_tokenizer(tmp_path / "bert", change)
    made = Preprocessing(data, demo().shapes)
    samples = [replace(sample, text="word89") for sample in data.samples]
    with pytest.raises(EncoderError, match=r"token id \d+, .*knows 40 .*belong together"):
        made.text(spec, samples, 16)


def test_a_learned_tokenizer_is_read_back_as_it_was(tmp_path: Path) -> None:
    learned = LearnedTokenizer(["good ##ly bad fine"], 40)
    learned.save(tmp_path)
    spec = EncoderSpec("mine", "text", "transformers", str(tmp_path))
    texts = ["Good badly goodly", "", "fine " * 40]
    for ours, theirs in zip(
        learned.encode(texts, 16), PretrainedTokenizer(spec).encode(texts, 16), strict=True
    ):
        assert torch.equal(ours, theirs)


def test_tokenizers_of_one_vocabulary_that_spell_differently_are_told_apart(
    tmp_path: Path,
) -> None:
    prints = []
    for name, rule in (("a", "Lowercase"), ("b", "NFC")):
        folder = saved_bert(tmp_path / name, seed=0)
        file = folder / "tokenizer.json"
        file.write_text(file.read_text().replace('"Lowercase"', f'"{rule}"'))
        spec = EncoderSpec(name, "text", "transformers", str(folder))
        tokenizer = PretrainedTokenizer(spec)
        prints.append(tokenizer.fingerprint)
        tokenizer.encode(["Good bad"], 16)
        assert PretrainedTokenizer(spec).fingerprint == prints[-1]
    assert prints[0] != prints[1]


def test_padding_to_another_token_or_length_changes_no_logits(
    shared: Path, data: DataSet, tmp_path: Path
) -> None:
    folder = shared / "weights" / "all-MiniLM-L6-v2"
    space = load_space("demo", text_encoders=[str(folder)])
    name = space.encoders[0].name
    points = (FusionPoint(2, 1, "concatenation", 16),)
    genotype = Genotype(name, "small-xcit", 32, points, text_pooling="mean")
    evaluator = quality(data, tmp_path, QUICK, space)
    found = evaluator.evaluate(genotype)
    logits = whole_logits(evaluator, genotype)
    assert judged(data, logits) == accuracy(found)
    network = evaluator.trainer.trained(genotype)
    rows = evaluator.exporter.inputs(genotype, data.split("valid"))
    with torch.inference_mode():
        other = torch.cat(
            [network(ids.masked_fill(mask == 0, 103), mask, p) for ids, mask, p in rows]
        )
    assert (other - logits).abs().max() < 1e-5


def test_real_mobilenet_weights_are_kept_tuned_and_cut_without_loss(
    shared: Path, data: DataSet, tmp_path: Path
) -> None:
    folder = shared / "weights" / "mobilenet_v2_1.0_224"
    space = load_space("demo", vision_encoders=[str(folder)])
    spec = space.encoders[-1]
    evaluator = quality(data, tmp_path, QUICK, space)
    for tap, operator, pooling, most in (
        (5, "concatenation", "conv-max", 1e-5),
        (9, "cross-attention", "mean", 1e-3),
    ):
        points = (FusionPoint(2, tap, operator, 16),)  # type: ignore[arg-type]
        genotype = Genotype("small-bert", spec.name, 16, points, vision_pooling=pooling)  # type: ignore[arg-type]
        network = evaluator.trainer.untrained(genotype)
        kept = predict(network.fusion, evaluator.trainer.inputs.kept(genotype, "valid"))
        whole = predict(network, evaluator.trainer.inputs.raw(genotype, "valid"))
        assert (kept - whole).abs().max() < most
    trunks = TrunkWeights(space.shapes, tmp_path / "trunks", seed=0)
    loaded = trunks.identity(spec)
    changed = trunks.trunk(spec, space.shapes[spec.name].depth)
    with torch.no_grad():
        next(changed.parameters()).mul_(2)
    trunks.keep_tuned("changed", changed)
    trunks.use_tuned(spec, "changed")
    short, full = trunks.trunk(spec, 4).state_dict(), changed.state_dict()
    assert all(torch.equal(short[name], full[name]) for name in short)
    assert trunks.identity(spec) != loaded == trunks.loaded_identity(spec)
