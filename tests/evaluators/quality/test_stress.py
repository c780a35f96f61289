"""A trained network on corrupted pictures and texts."""

import json
from pathlib import Path

import pytest
from quick_evaluators import QUICK, demo, design, image_folder, quality
from tiny import Place, finished_place

from evaluators.data import DataSet
from evaluators.features.corruptions import CORRUPTIONS
from evaluators.quality.evaluator import QualityEvaluator
from evaluators.quality.stress import StressEvaluator, reads


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    return image_folder(tmp_path_factory.mktemp("data") / "set")


@pytest.fixture(scope="module")
def trained(data: DataSet, tmp_path_factory: pytest.TempPathFactory) -> QualityEvaluator:
    return quality(data, tmp_path_factory.mktemp("home"), QUICK)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return finished_place(tmp_path_factory.getbasetemp())


def test_inputs_as_they_are_give_the_accuracy_of_the_evaluation(trained: QualityEvaluator) -> None:
    clean = trained.evaluate(design())["accuracy"]
    for name in ("blur", "dropped-words"):
        found = StressEvaluator(trained.trainer, name, 0).evaluate(design())
        assert found["accuracy"] == clean


def test_a_network_is_judged_as_it_was_trained_on_inputs_as_they_are(
    trained: QualityEvaluator, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained.evaluate(design())

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("trained")

    monkeypatch.setattr("evaluators.quality.trainer.fit", refuse)
    keys = set()
    for name in CORRUPTIONS:
        evaluator = StressEvaluator(trained.trainer, name, 3)
        assert 0 <= evaluator.evaluate(design())["accuracy"].value <= 100
        keys.add(evaluator.key(design()))
    assert len(keys) == len(CORRUPTIONS)


def test_a_design_of_one_modality_reads_nothing_of_the_other(trained: QualityEvaluator) -> None:
    text = trained.trainer.plan.unimodal(demo().encoder("small-bert"))
    assert not reads(text, "blur") and reads(text, "misspelt-words")


def test_what_a_trial_loses_is_told_and_kept(finished: Place) -> None:
    asked = ("stress", "0", "--corruption", "dark", "--corruption", "dropped-words")
    done = finished.finish(finished.command(*asked, "--severity", "5", "--json"))
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert [each["corruption"] for each in told["corrupted"]] == ["dark", "dropped-words"]
    for each in told["corrupted"]:
        lost = each["percent"] - told["clean_percent"]
        assert each["points"]["value"] == pytest.approx(lost)
    kept = len(finished.kept())
    done = finished.finish(finished.command(*asked, "--severity", "5"))
    assert done.returncode == 0 and "most is lost by" in done.stdout
    assert len(finished.kept()) == kept


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("0", "--corruption", "rain"), "--corruption 'rain': choose one of blur, "),
        (("0", "--severity", "6"), "--severity 6: give 1 to 5"),
        (("99",), "no trial 99 in study"),
        (("0", "--fine-tuned"), "was not fine-tuned"),
    ],
)
def test_what_there_is_not_is_refused(
    finished: Place, flags: tuple[str, ...], words: str, tmp_path: Path
) -> None:
    done = finished.finish(finished.command("stress", *flags))
    assert done.returncode == 2 and words in done.stderr and done.stderr.count("\n") == 1
