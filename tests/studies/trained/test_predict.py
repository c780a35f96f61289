"""An exported folder predicts as torch does, without torch, and says what is wrong with inputs."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from hearing import HEARING, write_sounds
from tiny import Place, finished_place, new_place, write_space

from search_space.design.genotype import Genotype
from search_space.space.named import load_space
from studies.study.lookup import find_study
from studies.trained.export_files import predictor_of, run_lines
from studies.trained.predictor import Predictor

BLOCKED = ("torch", "transformers", "timm", "onnx", "optuna", "evaluators", "fusion_nas")
WITHOUT_TORCH = (
    "import sys, runpy\n"
    f"for name in {BLOCKED!r}:\n    sys.modules[name] = None\n"
    "sys.argv = sys.argv[1:]\n"
    "sys.path.insert(0, '.')\n"
    "runpy.run_path(sys.argv[0], run_name='__main__')\n"
)
LOG_MEL = """
[[audio_encoder]]
name = "tiny-log-mel"
library = "transformers"
source = "tiny-log-mel"
weights = "random"
model_type = "mobilenet_v2"
seconds = 1
config = { depth_multiplier = 0.1, image_size = 64, num_channels = 1 }
"""
BERT, VIT, WAVES, BANDS = "tiny-bert", "tiny-vit", "tiny-wav2vec2", "tiny-log-mel"
KINDS: dict[str, tuple[set[str], bool]] = {
    "text alone": ({BERT}, False),
    "image alone": ({VIT}, False),
    "log-mel bands alone": ({BANDS}, False),
    "waveform, image and text": ({BERT, VIT, WAVES}, False),
    "attention over tokens": ({BERT, VIT}, True),
}
"""Encoders of a design, and whether its attention blocks run over tokens."""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return finished_place(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def exported(finished: Place) -> Path:
    """The export of the published early design, which attends over tokens."""
    done = finished.finish(finished.command("export", "2", "--out", "early"))
    assert done.returncode == 0, done.stderr
    return finished.folder / "early"


def predict(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run predict.py as its users do, where neither torch nor this library can be imported."""
    command = [sys.executable, "-I", "-c", WITHOUT_TORCH, "predict.py", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def as_torch(place: Place, number: int, **given: Any) -> dict[str, float]:
    """Probabilities of a trial's network in torch."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FUSION_NAS_HOME", str(place.home))
        patch.chdir(place.folder)
        predictor = Predictor(find_study(place.url, None))
        found = predictor.predict(number, **given)[0]
    return dict(zip(predictor.classes, map(float, found), strict=True))


def test_a_sentence_and_a_picture_give_what_torch_gives(finished: Place, exported: Path) -> None:
    image = finished.data / "images" / "test03.png"
    done = predict(exported, "--text", "a dim unheard picture", "--image", str(image), "--json")
    assert done.returncode == 0, done.stderr
    expected = as_torch(finished, 2, texts=["a dim unheard picture"], images=[image])
    assert json.loads(done.stdout) == pytest.approx(expected, abs=1e-4)


def test_the_folder_verifies_itself(exported: Path, tmp_path: Path) -> None:
    done = predict(exported, "--check")
    assert done.returncode == 0, done.stderr
    sums = subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=exported)
    assert sums.returncode == 0
    named = {line.split("  ")[1] for line in (exported / "SHA256SUMS").read_text().splitlines()}
    assert named == {file.name for file in exported.iterdir()} - {"SHA256SUMS"}
    altered = shutil.copytree(exported, tmp_path / "altered")
    (altered / "tokenizer_config.json").write_text("{}")
    done = predict(altered, "--check")
    assert done.returncode == 2 and "tokenizer_config.json: not the file" in done.stderr


def test_the_card_says_where_the_network_comes_from(finished: Place, exported: Path) -> None:
    card = json.loads((exported / "card.json").read_text("utf-8"))
    assert card["seeds"][0] == 0 and card["training_protocol"]["name"] == "fair"
    low, high = card["latency"]["ms"][1:]
    assert low < card["latency"]["ms"][0] < high
    assert card["licences"]["predict.py"] == "Apache-2.0"
    assert card["licences"]["encoder tiny-bert"] == "no pretrained weights"
    text = (exported / "README.md").read_text("utf-8")
    assert "95 % interval" in text and card["latency"]["words"] in text
    assert str(finished.folder) not in text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--text", "a text"), "reads image: give --image, or --without vision"),
        (("--image", "example.png"), "reads text: give --text, or --without text"),
        (("--text", "  ", "--image", "example.png"), "--text is empty"),
        (("--text", "a text", "--image", "card.json"), "card.json: not a readable image"),
        (("--text", "a text", "--image", "none.png"), "none.png: there is no such image"),
        (("--text", "a text", "--image", "example.png", "--sound", "s.wav"), "no sound here"),
        (("--text", "a text", "--without", "audio"), "no graph runs without audio"),
        (("--text", "a text", "--time"), "reads image: give --image"),
        (("--text", "a", "--image", "example.png", "--time", "0"), "--time 0: give 1 to 100000"),
        (("--text", "a", "--image", "example.png", "--time", "--split"), "leave --split out"),
    ],
)
def test_an_input_that_cannot_be_used_is_named(
    exported: Path, arguments: tuple[str, ...], said: str
) -> None:
    done = predict(exported, *arguments)
    assert done.returncode == 2 and done.stdout == ""
    assert said in done.stderr and done.stderr.startswith("predict.py: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("gone", ["network.onnx", "card.json", "tokenizer.json"])
def test_a_file_that_is_gone_is_named(exported: Path, tmp_path: Path, gone: str) -> None:
    lacking = shutil.copytree(exported, tmp_path / "lacking")
    (lacking / gone).unlink()
    done = predict(lacking, "--text", "a text", "--image", "example.png")
    assert done.returncode == 2 and f"{gone}: missing" in done.stderr


def test_a_long_text_is_cut_with_a_word_about_it(exported: Path) -> None:
    done = predict(exported, "--text", "dim " * 99, "--image", "example.png")
    assert done.returncode == 0 and "is cut to" in done.stderr


def test_whole_predictions_are_timed_stage_by_stage(exported: Path) -> None:
    given = ("--text", "dim " * 99, "--image", "example.png", "--time", "3")
    done = predict(exported, *given, "--json")
    assert done.returncode == 0, done.stderr
    stages = json.loads(done.stdout)["ms"]
    assert list(stages) == ["tokenise", "decode and resize", "network", "total"]
    assert all(0 < ms["median"] <= ms["p95"] for ms in stages.values())
    assert stages["total"]["p95"] >= stages["network"]["median"]
    assert done.stderr.count("is cut to") == 1
    shown = predict(exported, *given).stdout.splitlines()
    assert [line.split("  ")[0] for line in shown] == list(stages) and max(map(len, shown)) < 80
    card = json.loads((exported / "card.json").read_text("utf-8"))
    assert set(card["whole_pipeline"]["ms"]) == set(stages)
    assert "decode and resize" in (exported / "README.md").read_text("utf-8")


def test_the_graph_without_a_modality_is_timed_without_it(exported: Path) -> None:
    done = predict(exported, "--text", "a", "--without", "vision", "--time", "2", "--json")
    assert done.returncode == 0, done.stderr
    assert list(json.loads(done.stdout)["ms"]) == ["tokenise", "network", "total"]


def test_without_a_modality_the_other_graph_runs(exported: Path) -> None:
    done = predict(exported, "--text", "a dim picture", "--without", "vision", "--json")
    assert done.returncode == 0, done.stderr
    assert sum(json.loads(done.stdout).values()) == pytest.approx(1)


def some_design(space: Any, encoders: set[str], tokens: bool, rng: np.random.Generator) -> Genotype:
    """A random valid design over these encoders."""
    while True:
        vector = [rng.choice(list(d.choices)) for d in space.decisions]
        choices = [
            int(c) if d.kind == "integer" else d.choices[list(map(str, d.choices)).index(str(c))]
            for d, c in zip(space.decisions, vector, strict=True)
        ]
        genotype = space.decode(choices)
        over_tokens = genotype.attention_over == "tokens" and genotype.attention_blocks > 0
        fits = set(genotype.encoders.values()) == encoders and over_tokens == tokens
        if fits and not space.violations(genotype):
            return genotype


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A study of one design of each kind, where every modality is optional."""
    place = new_place(tmp_path_factory.mktemp("mixed") / "place")
    write_sounds(place.data)
    optional = 'optional = ["text", "vision", "audio"]'
    write_space(place.folder / "tiny.toml", HEARING.replace("\n", f"\n{optional}\n", 1) + LOG_MEL)
    done = place.finish(place.run("--sampler", "random", "--trials", "1"))
    assert done.returncode == 0, done.stderr
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place.folder)
        space, rng = load_space("tiny.toml"), np.random.default_rng(0)
    (name,) = optuna.study.get_all_study_names(place.url)
    study = optuna.load_study(study_name=name, storage=place.url)
    for encoders, tokens in KINDS.values():
        vector = space.encode(some_design(space, encoders, tokens, rng))
        params = {d.name: c for d, c in zip(space.decisions, vector, strict=True)}
        study.enqueue_trial(params)
    done = place.finish(place.run("--sampler", "random", "--trials", str(1 + len(KINDS))))
    assert done.returncode == 0, done.stderr
    return place


@pytest.mark.slow
@pytest.mark.parametrize("kind", list(KINDS))
def test_each_kind_of_design_predicts_as_torch(mixed: Place, kind: str) -> None:
    number = 1 + list(KINDS).index(kind)
    done = mixed.finish(mixed.command("export", str(number)))
    assert done.returncode == 0, done.stderr
    folder = mixed.folder / f"export-{number}"
    assert predict(folder, "--check").returncode == 0
    image, sound = mixed.data / "images" / "test04.png", mixed.data / "sounds" / "test04.wav"
    expected = as_torch(mixed, number, texts=["a bright day"], images=[image], sounds=[sound])
    read, _ = KINDS[kind]
    own = {BERT: ("text", "a bright day"), VIT: ("image", image)}
    own |= {WAVES: ("sound", sound), BANDS: ("sound", sound)}
    given = dict(own[encoder] for encoder in read)
    assert predictor_of(folder).Network(folder).predict(**given) == pytest.approx(
        expected, abs=1e-4
    )


@pytest.mark.slow
def test_a_sound_of_another_form_is_refused_with_what_converts_it(
    mixed: Place, tmp_path: Path
) -> None:
    import wave

    folder = mixed.folder / "export-3"
    if not folder.is_dir():
        assert mixed.finish(mixed.command("export", "3")).returncode == 0
    with wave.open(str(tmp_path / "stereo.wav"), "wb") as file:
        file.setnchannels(2), file.setsampwidth(2), file.setframerate(44_100)
        file.writeframes(bytes(4000))
    done = predict(folder, "--sound", str(tmp_path / "stereo.wav"))
    assert done.returncode == 2 and "ffmpeg -i stereo.wav" in done.stderr


@pytest.mark.slow
def test_the_lines_of_the_readme_run_in_an_empty_environment(
    exported: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(exported, tmp_path / "carried")
    lines = run_lines((folder / "README.md").read_text("utf-8"))
    assert len(lines) == 3
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    env["PATH"] = f"{Path(sys.executable).resolve().parent}:{env['PATH']}"
    for line in lines:
        done = subprocess.run(line, shell=True, cwd=folder, env=env, capture_output=True, text=True)
        if "pip install" in line and "connection" in done.stderr.lower():
            pytest.skip("no package index can be reached")
        assert done.returncode == 0, done.stderr
    assert {row.split()[0] for row in done.stdout.splitlines()} == {"dark", "light"}
    there = subprocess.run(
        ["env/bin/python", "-c", "import torch"], cwd=folder, env=env, capture_output=True
    )
    assert there.returncode != 0
