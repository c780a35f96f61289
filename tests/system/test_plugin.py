"""The example plugins are installed by pip, and used by their names."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from plugin_packages import on_path
from runtime_contract import model
from tiny import SPACE, Place, new_place, write_space

from evaluators.data.plugins import plugin_data_set
from evaluators.devices.runtimes import plugin_runtime
from fusion_nas.testing import check_data_set, check_encoder, check_operator, check_runtime
from search_space.encoders.plugins import plugin_encoder
from search_space.operators.registry import operator_of

EXAMPLE = Path(__file__).parents[2] / "examples" / "plugin"
OPERATORS = '["cross-gated"]'
TINY = (
    SPACE.replace('["concatenation", "gated", "product", "tensor", "cross-attention"]', OPERATORS)
    .replace("fusion_points = [1, 2]", "fusion_points = [1, 1]")
    .replace("attention_blocks = [0, 4]", "attention_blocks = [0, 0]")
)
NAME = "pareto-data-tiny"
GROUPS = {
    "cross-gated": "operators",
    "separable": "encoders",
    "stripes": "datasets",
    "onnx-reference": "runtimes",
}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where pip has put the example."""
    folder = tmp_path_factory.mktemp("plugin")
    # Building writes beside the sources.
    source = shutil.copytree(EXAMPLE, folder / "source")
    options = ("--no-deps", "--no-build-isolation", "--no-index", "--quiet")
    command = [sys.executable, "-m", "pip", "install", *options, "--target", "site", str(source)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "site"


@pytest.fixture(scope="module")
def place(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A place with a space of the example's operator alone."""
    path = os.pathsep.join([str(installed), os.environ.get("PYTHONPATH", "")])
    place = new_place(tmp_path_factory.mktemp("place"), PYTHONPATH=path)
    write_space(place.folder / "tiny.toml", TINY)
    return place


@pytest.fixture(scope="module")
def studied(place: Place) -> Place:
    """The place with a finished study."""
    done = place.finish(place.run("--trials", "2"))
    assert done.returncode == 0, done.stderr
    return place


def without_plugin(place: Place) -> Place:
    return Place(place.folder, {"PYTHONPATH": os.environ.get("PYTHONPATH", "")})


def test_the_example_passes_the_checks(installed: Path) -> None:
    with on_path(installed):
        check_operator(operator_of("cross-gated"))
        check_encoder(plugin_encoder("separable"))
        check_data_set(plugin_data_set("stripes"))
        runtime = plugin_runtime("onnx-reference")
        assert runtime is not None
        check_runtime(runtime)


def test_the_example_takes_no_half_of_a_picture_as_drawn(
    installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Image.Image.save

    def interrupted(picture: Image.Image, file: Path, **_: object) -> None:
        whole(picture, file)
        os.truncate(file, 40)
        raise KeyboardInterrupt

    with on_path(installed):
        stripes = plugin_data_set("stripes")
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(Image.Image, "save", interrupted)
            list(stripes.rows(tmp_path))
        for row in stripes.rows(tmp_path):
            assert row.image is not None
            Image.open(row.image).load()


def test_the_readme_of_the_example_is_ten_lines() -> None:
    assert len((EXAMPLE / "README.md").read_text(encoding="utf-8").splitlines()) <= 10


def test_the_plugin_is_listed(place: Place) -> None:
    done = place.finish(place.command("doctor"))
    for name, group in GROUPS.items():
        assert f"{name} (fusion-nas-example 0.1.0): fusion_nas.{group}" in done.stdout
    done = place.finish(place.command("space", "tiny.toml"))
    assert "operator cross-gated: of the plugin fusion-nas-example 0.1.0" in done.stdout


def test_a_network_is_timed_by_the_runtime(place: Place, tmp_path: Path) -> None:
    file = str(model(tmp_path / "abs.onnx", "Abs"))
    command = ("time", file, "--shape", "x=1,4", "--runtime", "onnx-reference", "--json")
    done = place.finish_stable(place.command(*command))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["median_ms"] > 0


def test_a_run_whose_plugin_is_missing_says_so_in_a_line(place: Place) -> None:
    alone = without_plugin(place)
    done = alone.finish(alone.run("--trials", "3"))
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert "operators: 'cross-gated' is none of concatenation, " in done.stderr
    assert "choose one, or install the plugin that has it" in done.stderr


@pytest.mark.slow
def test_a_study_searches_over_the_operator(studied: Place) -> None:
    done = studied.finish(studied.command("report", "--json"))
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    assert {each["state"] for each in shown["trials"]} == {"complete"}
    assert shown["conditions"]["plugins"] == "cross-gated of fusion-nas-example 0.1.0"
    page = (studied.folder / "runs" / f"{NAME}.html").read_text(encoding="utf-8")
    assert "sigmoid(W I + b) * T + sigmoid(V T + c) * I (plugin fusion-nas-example" in page


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments", [("report",), ("export", "0"), ("choose",), ("compare", NAME, NAME)]
)
def test_a_study_whose_plugin_is_missing_says_so_in_a_line(
    studied: Place, arguments: tuple[str, ...]
) -> None:
    alone = without_plugin(studied)
    done = alone.finish(alone.command(*arguments))
    assert done.returncode == 6 and done.stderr.count("\n") == 1, done.stderr
    assert (
        "its operator 'cross-gated' is of the plugin fusion-nas-example 0.1.0, which is not "
        "installed: install it"
    ) in done.stderr


@pytest.fixture(scope="module")
def striped(place: Place) -> Place:
    """The place with a finished study of the example's data set and encoder."""
    given = ("--data", "stripes", "--vision-encoder", "separable", "--name", "striped")
    more = ("--space", "tiny.toml", "--trunks", "frozen", "--seeds", "1", "--final-readings", "0")
    done = place.finish(place.command("run", *given, *more, "--trials", "1"))
    assert done.returncode == 0, done.stderr
    return place


@pytest.mark.slow
def test_a_study_uses_the_encoder_and_the_data_set(striped: Place) -> None:
    done = striped.finish(striped.command("report", "--json", "--name", "striped"))
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    assert "separable of fusion-nas-example 0.1.0" in shown["conditions"]["plugins"]
    assert "separable" in shown["conditions"]["encoders"]


@pytest.mark.slow
def test_a_study_whose_encoder_is_missing_says_so_in_a_line(striped: Place) -> None:
    without_operator = without_plugin(striped)
    done = without_operator.finish(without_operator.command("report", "--name", "striped"))
    assert done.returncode == 6 and done.stderr.count("\n") == 1, done.stderr
    assert "of the plugin fusion-nas-example 0.1.0, which is not installed" in done.stderr


@pytest.mark.slow
def test_a_study_is_not_resumed_with_another_version_of_its_plugin(
    studied: Place, installed: Path, tmp_path: Path
) -> None:
    newer = shutil.copytree(installed, tmp_path / "newer")
    (about,) = newer.glob("*.dist-info")
    metadata = about / "METADATA"
    text = metadata.read_text(encoding="utf-8")
    metadata.write_text(text.replace("Version: 0.1.0", "Version: 0.2.0"), encoding="utf-8")
    path = os.pathsep.join([str(newer), os.environ.get("PYTHONPATH", "")])
    other = Place(studied.folder, {"PYTHONPATH": path})
    done = other.finish(other.run("--trials", "3"))
    assert done.returncode == 6 and done.stderr.count("\n") == 1, done.stderr
    assert "another version of the plugins: repeat its command (it began with " in done.stderr
