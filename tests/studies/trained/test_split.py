"""An export with its parts: what was encoded once is not encoded again."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import Place, finished_place

from studies.trained.export_files import predictor_of

TEXTS = ("a dim unheard picture", "a bright day")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    found = Place(tmp_path_factory.mktemp("split") / "place")
    shutil.copytree(finished_place(tmp_path_factory.getbasetemp()).folder, found.folder)
    return found


@pytest.fixture(scope="module")
def exported(place: Place) -> Path:
    """The export of the published early design, which attends over tokens, with its parts."""
    done = place.finish_stable(place.command("export", "2", "--out", "early", "--split"))
    assert done.returncode == 0, done.stderr
    assert "parts: text " in done.stdout and " ms on local; whole " in done.stdout
    return place.folder / "early"


@pytest.fixture
def module(exported: Path) -> Any:
    return predictor_of(exported)


def predict(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run predict.py as its users do."""
    command = [sys.executable, "-I", "predict.py", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def counted(network: Any) -> list[str]:
    """Return a list that the names of the files that the network runs are put into."""
    ran: list[str] = []
    run = network._run

    def noted(path: Path, fed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        ran.append(path.name)
        found: dict[str, np.ndarray] = run(path, fed)
        return found

    network._run = noted
    return ran


def test_the_card_has_what_each_part_takes_and_what_is_kept_of_an_input(exported: Path) -> None:
    card = json.loads((exported / "card.json").read_text("utf-8"))
    split = card["split"]
    assert split["device"] == "local" and split["compared_samples"] == 12
    assert split["greatest_difference_from_whole"] <= 1e-5
    assert [part["name"] for part in split["parts"]] == ["text", "image", "fusion"]
    for part in split["parts"]:
        low, high = part["ms"][1:]
        assert low <= part["ms"][0] <= high
        extents = [4 * np.prod(g["shape"]) for g in part["gives"] if g["dtype"] == "float32"]
        extents += [8 * np.prod(g["shape"]) for g in part["gives"] if g["dtype"] == "int64"]
        assert part["bytes"] == sum(extents)
    readme = (exported / "README.md").read_text("utf-8")
    assert "| `image-encoder.onnx` |" in readme and "expected ms by the share of repeats" in readme
    sums = (exported / "SHA256SUMS").read_text("utf-8")
    assert all(f"  {part['file']}\n" in sums for part in split["parts"])


def test_a_picture_that_is_asked_about_twice_is_encoded_once(
    exported: Path, module: Any, place: Place, tmp_path: Path
) -> None:
    image = place.data / "images" / "test03.png"
    copied = shutil.copy(image, tmp_path / "copy.png")
    network, whole = module.Network(exported, keep=8), module.Network(exported)
    ran = counted(network)
    for text, picture in zip(TEXTS, (image, copied), strict=True):
        found = network.predict(text=text, image=picture)
        assert found == pytest.approx(whole.predict(text=text, image=picture), abs=1e-5)
    assert ran.count("image-encoder.onnx") == 1 and ran.count("text-encoder.onnx") == 2
    assert ran.count("fusion.onnx") == 2


def test_an_encoded_picture_is_taken_in_place_of_its_file(
    exported: Path, module: Any, place: Place
) -> None:
    image = place.data / "images" / "test04.png"
    network = module.Network(exported)
    picture = network.encode(image=image)
    ran = counted(network)
    expected = network.predict(text=TEXTS[0], image=image)
    assert network.predict(text=TEXTS[0], image=picture) == pytest.approx(expected, abs=1e-5)
    assert "image-encoder.onnx" not in ran
    nbytes = sum(tensor.nbytes for tensor in picture.tensors.values())
    parts = {part["name"]: part for part in network.card["split"]["parts"]}
    assert nbytes == parts["image"]["bytes"]


def test_no_more_is_kept_than_asked_for(exported: Path, module: Any, place: Place) -> None:
    network = module.Network(exported, keep=3)
    for k in range(4):
        network.predict(text=TEXTS[0], image=place.data / "images" / f"test0{k}.png")
    assert len(network.kept) == 3
    assert {modality for modality, _ in network.kept} == {"text", "vision"}


def test_the_folder_checks_its_parts(exported: Path, tmp_path: Path) -> None:
    assert predict(exported, "--check").returncode == 0
    altered = shutil.copytree(exported, tmp_path / "altered")
    shutil.copy(altered / "text-encoder.onnx", altered / "image-encoder.onnx")
    done = predict(altered, "--text", "a", "--image", "example.png", "--split")
    assert done.returncode == 2 and "image-encoder.onnx: not the file" in done.stderr


def test_the_command_runs_the_parts(exported: Path) -> None:
    given = ("--text", TEXTS[0], "--image", "example.png", "--json")
    whole, split = predict(exported, *given), predict(exported, *given, "--split")
    assert split.returncode == 0, split.stderr
    assert json.loads(split.stdout) == pytest.approx(json.loads(whole.stdout), abs=1e-5)


def test_inputs_that_cannot_be_used_are_named(exported: Path, module: Any) -> None:
    network = module.Network(exported, keep=2)
    picture = network.encode(image=exported / "example.png")
    with pytest.raises(module.InputError, match="encoded image is not from the text encoder"):
        network.predict(text=picture, image=picture)
    with pytest.raises(module.InputError, match="encode takes one input"):
        network.encode(text="a", image=exported / "example.png")
    with pytest.raises(module.InputError, match="reads no sound here"):
        network.encode(sound="a.wav")
    with pytest.raises(module.InputError, match="the network reads text: give --text"):
        network.predict(image=picture)
    with pytest.raises(module.InputError, match=r"none\.png: there is no such image"):
        network.predict(text="a", image="none.png")
    with pytest.raises(module.InputError, match="keep -1: give 0 or more"):
        module.Network(exported, keep=-1)
    with pytest.raises(module.InputError, match="without vision has no parts"):
        module.Network(exported, without="vision", keep=1)


def test_an_export_without_parts_says_how_to_get_them(place: Place, exported: Path) -> None:
    """Written over the first: the parts that it has not are gone."""
    again = shutil.copytree(exported, place.folder / "again")
    assert (again / "image-encoder.onnx").is_file()
    done = place.finish(place.command("export", "2", "--out", "again"))
    assert done.returncode == 0, done.stderr
    assert not list(again.glob("*-encoder.onnx")) and not (again / "fusion.onnx").exists()
    done = predict(again, "--text", "a", "--image", "example.png", "--split")
    assert done.returncode == 2 and "export it again with --split" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("--device", "local"),
            "--device local: an export times the files of --split and --with-preprocessing",
        ),
        (("--split", "--device", "nowhere"), "nowhere"),
    ],
)
def test_a_device_that_cannot_time_the_parts_is_named(
    place: Place, arguments: tuple[str, ...], said: str
) -> None:
    done = place.finish(place.command("export", "2", "--out", "none", *arguments))
    assert done.returncode != 0 and said in done.stderr and "Traceback" not in done.stderr
    assert not (place.folder / "none").exists()
