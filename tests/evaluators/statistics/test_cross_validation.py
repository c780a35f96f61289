"""Cross-validated selection: pooled over train and valid, and nothing leaks between folds."""

from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from evaluator_contract import EvaluatorContract
from quick_evaluators import (
    BY_STAGE,
    QUICK,
    SPLITS,
    demo,
    design,
    image_folder,
    quality,
)

from evaluators.data import DataSet, Sample
from evaluators.data.folds import fold
from evaluators.evaluation import Evaluation, Evaluator
from evaluators.features import preprocessing
from evaluators.quality import trainer as trainer_module
from evaluators.quality.cross_validation import CrossValidatedEvaluator
from evaluators.statistics.paired import correct_of
from evaluators.training.check import TrainingCheck
from evaluators.training.loop import TrainingProtocol
from search_space.design.genotype import FusionPoint, Genotype

FOLDS = 3
POOL = SPLITS["train"] + SPLITS["valid"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    return image_folder(tmp_path_factory.mktemp("data") / "set")


def crossed(
    data: DataSet, home: Path, protocol: TrainingProtocol = QUICK, folds: int = FOLDS
) -> CrossValidatedEvaluator:
    return CrossValidatedEvaluator(quality(data, home, protocol), folds)


def comparable(evaluation: Evaluation) -> Evaluation:
    return replace(evaluation, details={**evaluation.details, "seconds": 0})


class TestCrossValidationIsAnEvaluator(EvaluatorContract):
    @pytest.fixture(scope="class")
    def evaluator(self, tmp_path_factory: pytest.TempPathFactory) -> Evaluator:
        folder = tmp_path_factory.mktemp("crossed")
        return crossed(image_folder(folder / "set"), folder / "home")


def test_every_sample_of_train_and_valid_is_judged_once_by_a_fold_without_it(
    data: DataSet, tmp_path: Path
) -> None:
    evaluator = crossed(data, tmp_path)
    found = evaluator.evaluate(design())
    right = correct_of(found)
    assert right.shape == (1, POOL) and len(evaluator.samples) == POOL
    assert found["accuracy"].value == pytest.approx(100 * right.mean())
    by_id = dict(zip((s.id for s in evaluator.samples), right[0], strict=True))
    for k in range(FOLDS):
        one = quality(fold(data, k, FOLDS), tmp_path)
        alone, details = one.out_of_fold(design())
        assert [by_id[s.id] for s in one.data.split("test")] == alone[0].tolist()
        assert found.details["epochs"][k] == details["epochs"]
    assert found.kind == "quality" and found.details["split"].startswith("3-fold")


def test_choosing_by_folds_and_by_the_valid_split_never_share_a_result(
    data: DataSet, tmp_path: Path
) -> None:
    by_split, by_folds = quality(data, tmp_path), crossed(data, tmp_path)
    keys = {by_split.key(design()), by_folds.key(design())}
    keys |= {crossed(data, tmp_path, folds=4).key(design())}
    keys |= {crossed(data, tmp_path, BY_STAGE).key(design())}
    keys |= {crossed(data, tmp_path, replace(QUICK, seed=1)).key(design())}
    assert len(keys) == 5


def test_nothing_of_the_test_split_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = image_folder(tmp_path / "set")
    for sample in data.split("test"):
        sample.image.write_bytes(b"garbage")
    opened: list[str] = []
    read = preprocessing.read_picture

    def noted(sample: Sample, size: int) -> np.ndarray:
        opened.append(sample.picture.name)
        return read(sample, size)

    monkeypatch.setattr(preprocessing, "read_picture", noted)
    evaluator = crossed(data, tmp_path / "home")
    evaluator.evaluate(design())
    evaluator.evaluate(design("gated", precision="int8"))
    assert opened and not [name for name in opened if name.startswith("test")]
    assert len(set(opened)) == POOL


def test_pictures_pass_a_frozen_trunk_once_for_all_folds(
    data: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    read = preprocessing.read_picture

    def noted(sample: Sample, size: int) -> np.ndarray:
        opened.append(sample.picture.name)
        return read(sample, size)

    monkeypatch.setattr(preprocessing, "read_picture", noted)
    evaluator = crossed(data, tmp_path)
    evaluator.evaluate(design())
    assert len(opened) == len(set(opened)) == POOL
    evaluator.evaluate(design("gated", vision_tap=5))
    assert len(opened) == POOL


def test_kept_features_of_a_fold_are_those_of_its_own_splits(data: DataSet, tmp_path: Path) -> None:
    one = fold(data, 1, FOLDS)
    # The same samples as data of their own: features are then made split by split.
    apart = replace(one, cut_from="")
    genotype = Genotype(None, "small-xcit", 0, (FusionPoint(0, 3),), vision_pooling="mean")
    cut, whole = quality(one, tmp_path / "cut"), quality(apart, tmp_path / "whole")
    for split in ("train", "valid", "test"):
        a, b = (e.trainer.inputs.examples(genotype, split, kept=True) for e in (cut, whole))  # type: ignore[arg-type]
        assert a.labels.tolist() == b.labels.tolist()
        (ours,), (theirs,) = a._features.values(), b._features.values()  # type: ignore[attr-defined]
        assert abs(ours.whole() - theirs.whole()).max() < 1e-5


def test_each_fold_learns_words_and_trunks_from_its_own_training_part(
    tmp_path: Path,
) -> None:
    plain = image_folder(tmp_path / "set")
    samples = tuple(replace(s, text=f"word{k}") for k, s in enumerate(plain.samples))
    data = replace(plain, samples=samples)
    tuned = replace(QUICK, trunks="text-tuned")
    folds = [quality(fold(data, k, FOLDS), tmp_path / "home", tuned) for k in range(FOLDS)]
    spec = demo().encoder("small-bert")
    for one in folds:
        tokenizer = one.trainer.preprocessing.tokenizer(spec)
        unknown = tokenizer.encode(["zzz"], 8)[0][0, 1]
        known = {
            s.id for s in one.data.samples if tokenizer.encode([s.text], 8)[0][0, 1] != unknown
        }
        assert known == {s.id for s in one.data.split("train")}
    CrossValidatedEvaluator(quality(data, tmp_path / "home", tuned), FOLDS).prepare()
    kept = list((tmp_path / "home" / "trunks").glob("*.safetensors"))
    assert len(kept) == FOLDS, "one trunk a fold, none of the standard split"


def test_folds_leave_no_weights_and_the_export_is_of_the_standard_split(
    data: DataSet, tmp_path: Path
) -> None:
    standard = quality(data, tmp_path)
    CrossValidatedEvaluator(standard, FOLDS).evaluate(design())
    assert not list((tmp_path / "weights").glob("*.safetensors"))
    standard.trainer.trained(design())
    (kept,) = (tmp_path / "weights").glob("*.safetensors")
    assert kept.stem == standard.key(design())


def test_data_that_are_no_fold_are_never_judged_on_their_test_split_by_the_search(
    data: DataSet, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="is no fold"):
        quality(data, tmp_path).out_of_fold(design())


def test_a_design_is_worth_the_same_again(data: DataSet, tmp_path: Path) -> None:
    told: list[str] = []
    standard = quality(data, tmp_path / "one")
    evaluator = CrossValidatedEvaluator(standard, FOLDS, lambda what, *_: told.append(what))
    first = evaluator.evaluate(design())
    assert comparable(crossed(data, tmp_path / "two").evaluate(design())) == comparable(first)
    assert {what.split(":")[0] for what in told} == {f"fold {k} of 3" for k in (1, 2, 3)}


@pytest.mark.parametrize(("stuck", "constant"), [(1, False), (FOLDS, True)])
def test_folds_that_did_not_train_are_reported_and_all_of_them_make_a_design_constant(
    data: DataSet,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stuck: int,
    constant: bool,
) -> None:
    attempts = count()

    def check(*_: object) -> TrainingCheck:
        fold = next(attempts) // 2 if stuck == FOLDS else next(attempts) - 1  # two where it fails
        return TrainingCheck(50.0, 50.0, 6, constant=fold < stuck)

    monkeypatch.setattr(trainer_module, "check_training", check)
    details = crossed(data, tmp_path).evaluate(design()).details
    assert (details["constant"], details["attempts"]) == (constant, 2)
    assert details["did_not_train"] == (
        f"in {stuck} of {FOLDS} folds did not train: the same class for every sample, "
        "50.0 % on validation; a linear probe of its features 50.0 %"
    )
