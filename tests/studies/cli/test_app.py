"""The command line as users run it, on a finished tiny study."""

import hashlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import optuna
import pytest
from PIL import Image
from tiny import SPLITS, Place, finished_place
from typer.main import get_command

from evaluators.data import BUILT_IN
from search_space.design.genotype import (
    IMAGE_TOKENS,
    PRECISIONS,
    TEXT_POOLINGS,
    VISION_POOLINGS,
)
from search_space.modality import MODALITIES
from search_space.operators.definitions import OPERATORS
from studies.cli.app import app
from studies.cli.study import show_space
from studies.config.options import ENGINES, PROTOCOLS, REWRITES, RUNTIMES, TIMINGS, TRUNKS
from studies.results.objectives import MORE
from studies.samplers.registry import AUTO, SAMPLERS


@pytest.fixture
def finished(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return finished_place(tmp_path_factory.getbasetemp())


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys\nfrom studies.cli.app import main\nsys.argv = ['fusion-nas', 'run', '--help']\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert end.code == 0\n"
        "heavy = {'torch', 'optuna', 'timm', 'transformers', 'onnx', 'plotly', 'numpy'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--seed-paper" in done.stdout


@pytest.mark.parametrize(
    ("flag", "choices"),
    [
        ("objectives", [objective.name for objective in MORE]),
        ("sampler", [AUTO, *SAMPLERS]),
        ("trunks", TRUNKS),
        ("protocol", PROTOCOLS),
        ("rewrites", REWRITES),
        ("timing", TIMINGS[1:]),
        ("engine", ENGINES),
        ("runtime", RUNTIMES),
        ("precisions", PRECISIONS),
        ("modalities", MODALITIES),
        ("image_tokens", map(str, IMAGE_TOKENS)),
        ("data", BUILT_IN),
    ],
)
def test_the_help_of_run_lists_every_choice(flag: str, choices: Iterable[str]) -> None:
    """A name may be shortened to its last part: robustness-text, -vision, -audio."""
    (parameter,) = [p for p in get_command(app).commands["run"].params if p.name == flag]
    words = {word.rstrip(".:") for word in re.split(r"[\s,;()=]+", parameter.help)}
    missing = [c for c in choices if c not in words and f"-{c.partition('-')[2]}" not in words]
    assert not missing


def test_run_with_json_prints_one_object_and_nothing_else_to_stdout(finished: Place) -> None:
    done = finished.finish(finished.run("--trials", "5", "--seed-paper", "--json"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1
    outcome = json.loads(done.stdout)
    names = [trial["name"] for trial in outcome["trials"]]
    assert names[:3] == ["late-tiny-vit", "intermediate-tiny-vit", "early-tiny-vit"]
    assert "Traceback" not in done.stderr and "Warning" not in done.stderr


def test_report_shows_the_front_and_writes_the_page(finished: Place, tmp_path: Path) -> None:
    page = tmp_path / "new" / "page.html"
    done = finished.finish(finished.command("report", "--page", str(page)))
    assert done.returncode == 0, done.stderr
    assert "late-tiny-vit" in done.stdout
    assert "<html" in page.read_text(encoding="utf-8")
    assert done.stderr == ""


def test_report_with_json_agrees_with_the_run(finished: Place) -> None:
    done = finished.finish(finished.command("report", "--json"))
    outcome = json.loads(done.stdout)
    rows = {trial["number"]: trial for trial in outcome["trials"]}
    assert len(rows) == 5
    for number in outcome["front"]:
        assert rows[number]["test_accuracy_percent"] is not None


def test_an_exported_trial_runs_as_recorded_from_its_folder_alone(
    finished: Place, tmp_path: Path
) -> None:
    import onnxruntime
    from tokenizers import Tokenizer

    # From another folder than the run's: what the study keeps of its data has to be absolute.
    out = tmp_path / "out"
    elsewhere = Place(tmp_path, {"FUSION_NAS_HOME": str(finished.home)})
    command = elsewhere.command("export", "0", "--storage", finished.url, "--out", str(out))
    done = elsewhere.finish(command)
    assert done.returncode == 0, done.stderr
    files = {file.name for file in out.iterdir()}
    assert files >= {"network.onnx", "card.json", "environment.txt", "tokenizer.json"}
    card = json.loads((out / "card.json").read_text(encoding="utf-8"))
    assert card["sha256"] == hashlib.sha256((out / "network.onnx").read_bytes()).hexdigest()
    assert card["name"] == "late-tiny-vit"
    assert "torch==" in (out / "environment.txt").read_text(encoding="utf-8")

    inputs = {entry["name"]: entry for entry in card["inputs"]}
    length = inputs["input_ids"]["shape"][1]
    tokenizer = Tokenizer.from_file(str(out / "tokenizer.json"))
    tokenizer.enable_truncation(length)
    tokenizer.enable_padding(length=length, pad_token="[PAD]", pad_id=0)
    pixels, session = card["pixels"], onnxruntime.InferenceSession(out / "network.onnx")
    right = 0
    for line in (finished.data / "label.csv").read_text(encoding="utf-8").splitlines()[1:]:
        name, text, label, split = line.split(",")
        if split != "test":
            continue
        words = tokenizer.encode(text)
        side = (pixels["size"], pixels["size"])
        picture = (
            Image.open(finished.data / "images" / f"{name}.png")
            .convert("RGB")
            .resize(side, Image.Resampling.BILINEAR)
        )
        values = np.asarray(picture, dtype=np.float32) * pixels["scale"]
        values = ((values - pixels["mean"]) / pixels["std"]).transpose(2, 0, 1)[None]
        fed = {
            "input_ids": np.array([words.ids]),
            "attention_mask": np.array([words.attention_mask]),
            "pixel_values": values.astype(np.float32),
        }
        (logits,) = session.run(["logits"], fed)
        right += card["classes"][int(logits.argmax())] == label
    assert 100 * right / SPLITS["test"] == pytest.approx(card["test"]["accuracy"][0])


def test_an_export_looks_at_no_test_data_that_the_study_has_not_looked_at(
    finished: Place, tmp_path: Path
) -> None:
    place = Place(tmp_path / "place")
    shutil.copytree(finished.folder, place.folder, symlinks=True)
    study = optuna.load_study(study_name="pareto-data-tiny", storage=place.url)
    tests = study.user_attrs["test"]
    study.set_user_attr("test", {number: tests[number] for number in tests if number != "0"})
    kept = place.kept()
    done = place.finish(place.command("export", "0"))
    assert done.returncode == 0, done.stderr
    card = json.loads((place.folder / "export-0" / "card.json").read_text(encoding="utf-8"))
    assert card["test"] is None and card["test_note"].startswith("no figures of test: ")
    assert card["test_note"] in done.stdout
    assert place.kept() == kept
    done = place.finish(place.command("export", "1"))
    card = json.loads((place.folder / "export-1" / "card.json").read_text(encoding="utf-8"))
    assert card["test"] == {name: v for name, v in tests["1"].items() if name != "right"}
    assert "right" not in card["valid"] and "no figures of test" not in done.stdout


def test_export_refuses_data_that_have_changed_since(finished: Place, tmp_path: Path) -> None:
    place = Place(tmp_path / "place")
    shutil.copytree(finished.folder, place.folder, symlinks=True)
    study = optuna.load_study(study_name="pareto-data-tiny", storage=place.url)
    study.set_user_attr("settings", {**study.user_attrs["settings"], "data": str(place.data)})
    label = place.data / "label.csv"
    whole = label.read_text(encoding="utf-8")
    label.write_text(whole.replace("a night", "a bright", 1), encoding="utf-8")
    done = place.finish(place.command("export", "0", "--out", str(tmp_path / "out")))
    assert done.returncode == 6
    assert "was made with another data" in done.stderr
    assert not (tmp_path / "out").exists()


def test_space_shows_encoders_decisions_and_the_published_designs(finished: Place) -> None:
    done = finished.finish(finished.command("space", "tiny.toml"))
    assert done.returncode == 0, done.stderr
    for words in ("tiny-bert", "vision_tap_1", "intermediate-tiny-vit"):
        assert words in done.stdout


def test_a_space_of_many_operators_is_shown_within_80_columns(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    show_space("fusions", (), (), (), "random")
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) == 80
    words = " ".join(lines).replace(",", " ").split()
    assert {*OPERATORS[:13], *TEXT_POOLINGS, *VISION_POOLINGS} <= {*words}


def test_data_check_counts_what_a_run_would_read(finished: Place) -> None:
    done = finished.finish(finished.command("data", "check", "data"))
    assert done.returncode == 0, done.stderr
    assert "One image and one text per sample, 2 classes." in done.stdout
    for split, count in SPLITS.items():
        assert any(split in line and str(count) in line for line in done.stdout.splitlines())


def test_paper_shows_the_published_designs_of_a_study_with_their_verdicts(
    finished: Place,
) -> None:
    done = finished.finish(finished.command("paper", "--storage", finished.url, "--json"))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    names = [design["name"] for design in found["designs"]]
    assert names[:3] == ["late-tiny-vit", "intermediate-tiny-vit", "early-tiny-vit"]
    assert names[3:] == ["text-only", "vision-only-tiny-vit"]
    assert all(design["verdict"]["split"] == "test" for design in found["designs"])
    report = json.loads(finished.finish(finished.command("report", "--json")).stdout)
    verdicts = {standing["name"]: standing["verdict"] for standing in report["standings"]}
    assert verdicts == {design["name"]: design["verdict"] for design in found["designs"][:3]}
    assert {caveat["name"] for caveat in found["caveats"]} == {
        "subset of test",
        "confounded training",
    }


def test_version_is_that_of_the_distribution() -> None:
    from importlib.metadata import version

    done = subprocess.run(
        [sys.executable, "-c", "from studies.cli.app import main; main()", "--version"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"fusion-nas {version('fusion-nas')}\n"
