"""A design that runs without one of its modalities, by a graph of its own."""

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import optuna
import pytest
from quick_evaluators import QUICK, design, image_folder, quality
from tiny import Place, finished_place

from evaluators.data import DataSet
from evaluators.data.samples import BOTH as MODALITIES
from evaluators.quality.evaluator import QualityEvaluator
from evaluators.quality.modality_use import ModalityUseEvaluator
from studies.results.study_outcome import outcome_of


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    return image_folder(tmp_path_factory.mktemp("data") / "set")


@pytest.fixture(scope="module")
def trained(data: DataSet, tmp_path_factory: pytest.TempPathFactory) -> QualityEvaluator:
    return quality(data, tmp_path_factory.mktemp("home"), QUICK)


@pytest.mark.parametrize("operator", ["concatenation", "cross-attention"])
@pytest.mark.parametrize("absent", MODALITIES)
def test_its_graph_is_as_right_as_the_network_with_that_modality_masked(
    trained: QualityEvaluator, operator: str, absent: str
) -> None:
    asked = design(operator)
    artifact = trained.exporter.artifact_without(asked, absent)  # type: ignore[arg-type]
    session = onnxruntime.InferenceSession(str(artifact.path))
    names = [entry.name for entry in session.get_inputs()]
    kept = {"text": ["pixel_values"], "vision": ["input_ids", "attention_mask"]}[absent]
    assert set(names) <= set(kept) and [spec.name for spec in artifact.inputs] == kept
    samples = trained.data.split("test")
    right = []
    for sample, row in zip(samples, trained.exporter.inputs(asked, samples), strict=True):
        by_name = dict(zip(("input_ids", "attention_mask", "pixel_values"), row, strict=True))
        (logits,) = session.run(None, {name: by_name[name].numpy() for name in names})
        right.append(int(logits.argmax()) == sample.label)
    expected = (
        ModalityUseEvaluator(trained.trainer).evaluate(asked)[f"accuracy_without_{absent}"].value
    )
    assert 100 * np.mean(right) == pytest.approx(expected)
    artifact.discard()


@pytest.mark.parametrize("absent", MODALITIES)
def test_it_does_none_of_the_absent_modalitys_work(trained: QualityEvaluator, absent: str) -> None:
    whole = trained.exporter.artifact(design())
    alone = trained.exporter.artifact_without(design(), absent)  # type: ignore[arg-type]
    kinds = [node.op_type for node in onnx.load(alone.path).graph.node]
    assert alone.path.stat().st_size < whole.path.stat().st_size
    assert ("Conv" in kinds) == (absent == "text"), "the picture's trunk convolves, the text's not"
    for artifact in (whole, alone):
        artifact.discard()


@pytest.mark.parametrize("operator", ["concatenation", "cross-attention"])
def test_a_reduced_precision_runs_without_a_modality_too(
    trained: QualityEvaluator, operator: str
) -> None:
    asked = design(operator, precision="int8-dynamic")
    artifact = trained.exporter.artifact_without(asked, "vision")
    assert np.isfinite(artifact.max_difference)
    artifact.discard()


@pytest.mark.slow
def test_a_study_times_its_front_without_each_modality_and_export_writes_the_graphs(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    place = Place(tmp_path / "place")
    shutil.copytree(finished_place(tmp_path_factory.getbasetemp()).folder, place.folder)
    done = place.finish(place.run("--trials", "5", "--time-missing"))
    assert done.returncode == 0, done.stderr
    study = optuna.load_study(study_name="pareto-data-tiny", storage=place.url)
    front = outcome_of(study).front
    for row in front:
        assert row.use is not None and row.latency is not None
        timed = row.use.latency_without  # those that could be read well enough
        assert set(timed) <= set(MODALITIES)
    assert any(row.use and row.use.latency_without for row in front)
    assert f"without text {front[0].use.without['text']:.1f} % in " in " ".join(  # type: ignore[union-attr]
        done.stdout.split()
    )
    done = place.finish(place.command("export", str(front[0].number), "--out", "out"))
    assert done.returncode == 0, done.stderr
    card = json.loads((place.folder / "out" / "card.json").read_text(encoding="utf-8"))
    for absent in MODALITIES:
        told = card["without_a_modality"][absent]
        session = onnxruntime.InferenceSession(place.folder / "out" / told["file"])
        assert {i.name for i in session.get_inputs()} <= {each["name"] for each in told["inputs"]}
