"""An export whose graph prepares its pictures: predict.py uses it, and its card says how close."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import optuna
import pytest
from PIL import Image
from tiny import Place, finished_place

from studies.results.study_outcome import SETTINGS
from studies.trained.export_files import predictor_of

TEXT = "a dim unheard picture"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    found = Place(tmp_path_factory.mktemp("prepared") / "place")
    shutil.copytree(finished_place(tmp_path_factory.getbasetemp()).folder, found.folder)
    return found


@pytest.fixture(scope="module")
def exported(place: Place) -> Path:
    """The export of the published early design with its parts and its preprocessing."""
    given = ("export", "2", "--out", "early", "--split", "--with-preprocessing")
    done = place.finish_stable(place.command(*given))
    assert done.returncode == 0, done.stderr
    assert "with-preprocessing.onnx: pixels differ from Pillow's by at most " in done.stdout
    return place.folder / "early"


@pytest.fixture
def module(exported: Path) -> Any:
    return predictor_of(exported)


@pytest.fixture
def photograph(tmp_path: Path) -> Path:
    """A picture that is neither square nor of the size that the network reads."""
    y, x = np.mgrid[0:150, 0:260]
    channels = [np.sin(x / 9), np.cos(y / 7), np.sin((x + y) / 11)]
    pixels = (127 + 100 * np.stack(channels, 2)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photograph.png")
    return tmp_path / "photograph.png"


def predict(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run predict.py as its users do."""
    command = [sys.executable, "-I", "predict.py", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_the_graph_takes_a_picture_of_any_size(exported: Path, module: Any) -> None:
    graph = onnxruntime.InferenceSession(str(exported / "with-preprocessing.onnx"))
    image = next(entry for entry in graph.get_inputs() if entry.name == "image")
    assert image.type == "tensor(uint8)" and image.shape == ["height", "width", 3]
    fed = module.Network(exported).inputs(text=TEXT, image=exported / "example.png")
    for size in ((20, 30), (400, 33)):
        fed["image"] = np.zeros((*size, 3), np.uint8)
        assert np.isfinite(graph.run(["logits"], fed)[0]).all()


def test_both_ways_of_preparing_a_picture_give_nearly_the_same(
    exported: Path, module: Any, photograph: Path
) -> None:
    graph = module.Network(exported)
    host = module.Network(exported, prepare="host")
    assert (graph.prepare, host.prepare) == ("graph", "host")
    found = graph.predict(text=TEXT, image=photograph)
    assert found == pytest.approx(host.predict(text=TEXT, image=photograph), abs=0.01)
    image = graph.inputs(text=TEXT, image=photograph)["image"]
    assert image.shape == (150, 260, 3) and image.dtype == np.uint8


def test_the_card_says_how_close_the_graph_is_and_what_both_ways_take(exported: Path) -> None:
    card = json.loads((exported / "card.json").read_text("utf-8"))
    differences = card["with_preprocessing"]["differences"]
    assert differences["samples"] == 12 and differences["classes"] == 0
    assert differences["pixel_levels"] <= 2.001 and differences["probability"] < 0.01
    pipeline = card["whole_pipeline"]
    assert list(pipeline["ms"]) == ["decode and resize", "network", "tokenise", "total"]
    assert list(pipeline["with_preprocessing_ms"]) == ["decode", "network", "tokenise", "total"]
    readme = (exported / "README.md").read_text("utf-8")
    assert "## Preprocessing in the graph" in readme and "with preprocessing in the graph" in readme
    assert "`image`, uint8 (height, width, 3), RGB, of any size" in readme
    sums = (exported / "SHA256SUMS").read_text("utf-8")
    assert f"{card['with_preprocessing']['sha256']}  with-preprocessing.onnx\n" in sums


def test_both_graphs_are_timed_in_turns_on_the_device_for_a_picture_of_the_data(
    exported: Path, place: Place
) -> None:
    card = json.loads((exported / "card.json").read_text("utf-8"))
    found = card["with_preprocessing"]["on_device"]
    with Image.open(place.data / "images" / "valid03.png") as picture:
        assert found["extents"] == {"image": [picture.height, picture.width, 3]}
    assert found["device"] == "local" and found["device_fingerprint"]
    for name in ("network_ms", "with_preprocessing_ms"):
        median, low, high = found[name]
        assert 0 < low <= median <= high
    readme = (exported / "README.md").read_text("utf-8")
    assert "| latency with preprocessing in the graph | " in readme
    assert f"for a picture of {picture.width} x {picture.height} pixels" in readme


def test_the_command_runs_and_times_the_graph(exported: Path) -> None:
    assert predict(exported, "--check").returncode == 0
    given = ("--text", TEXT, "--image", "example.png")
    timed = predict(exported, *given, "--time", "2", "--json")
    assert timed.returncode == 0, timed.stderr
    assert list(json.loads(timed.stdout)["ms"]) == ["tokenise", "decode", "network", "total"]
    host = predict(exported, *given, "--time", "2", "--json", "--prepare", "host")
    assert "decode and resize" in json.loads(host.stdout)["ms"]
    for other in (("--without", "text", "--image", "example.png"), (*given, "--split")):
        assert predict(exported, *other).returncode == 0
        refused = predict(exported, *other, "--prepare", "graph")
        assert refused.returncode == 2 and "prepare them on the host" in refused.stderr


def test_an_altered_graph_is_refused(exported: Path, tmp_path: Path) -> None:
    altered = shutil.copytree(exported, tmp_path / "altered")
    with open(altered / "with-preprocessing.onnx", "ab") as file:
        file.write(b"\0")
    done = predict(altered, "--text", TEXT, "--image", "example.png")
    assert done.returncode == 2 and "with-preprocessing.onnx: not the file" in done.stderr


@pytest.mark.parametrize(
    ("runtime", "said"),
    [("tensorrt", "TensorRT takes neither"), ("openvino", "OpenVINO resizes without antialiasing")],
)
def test_a_study_of_a_runtime_that_cannot_run_the_graph_is_refused(
    place: Place, tmp_path: Path, runtime: str, said: str
) -> None:
    other = Place(tmp_path / "other")
    shutil.copytree(place.folder, other.folder)
    (name,) = optuna.study.get_all_study_names(other.url)
    study = optuna.load_study(study_name=name, storage=other.url)
    settings = study.user_attrs[SETTINGS]
    study.set_user_attr(SETTINGS, {**settings, "runtime": runtime})
    done = other.finish(other.command("export", "2", "--with-preprocessing"))
    assert done.returncode == 2 and said in done.stderr
    assert not (other.folder / "export-2").exists()


def test_an_export_without_the_graph_says_how_to_get_it(place: Place, exported: Path) -> None:
    """Written over the first: the graph that it has not is gone."""
    again = place.folder / "again"
    shutil.copytree(exported, again)
    done = place.finish(place.command("export", "2", "--out", "again"))
    assert done.returncode == 0, done.stderr
    assert not (again / "with-preprocessing.onnx").exists()
    given = ("--text", TEXT, "--image", "example.png", "--prepare", "graph")
    done = predict(again, *given)
    assert done.returncode == 2 and "again with --with-preprocessing" in done.stderr
