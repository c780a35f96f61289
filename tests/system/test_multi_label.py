"""Multi-label data from the folder to a prediction, and what refuses them."""

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from desk import one_line
from quick_evaluators import QUICK, demo, quality
from several import CLASSES, write_several
from tiny import Place, write_space

import fusion_nas
from evaluators.data import load
from evaluators.data.samples import most_frequent_share
from search_space import errors as codes
from studies.report.json_output import as_json
from studies.report.page import render
from studies.results.study_outcome import outcome_of
from studies.trained.export_files import predictor_of

DIGITS = {"even": {0, 2, 4, 6, 8}, ">=5": {5, 6, 7, 8, 9}, "prime": {2, 3, 5, 7}}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A folder with a finished study of two trials of multi-label data."""
    made = Place(tmp_path_factory.mktemp("several"))
    write_several(made.data)
    write_space(made.folder / "tiny.toml")
    done = made.finish_stable(made.run("--trials", "2", "--seed-paper", "--objective", "micro-f1"))
    assert done.returncode == 0, done.stderr
    assert "any number of classes bright, cat, dog" in done.stderr + done.stdout
    return made


@pytest.fixture(scope="module")
def exported(place: Place) -> Path:
    done = place.finish(place.command("export", "0", "--out", "design"))
    assert done.returncode == 0, done.stderr
    return place.folder / "design"


def study_of(place: Place) -> optuna.Study:
    return optuna.load_study(study_name=None, storage=place.url)


def test_a_study_tells_subset_accuracy_and_scores_of_sets(place: Place) -> None:
    outcome = outcome_of(study_of(place))
    assert outcome.multi_label and outcome.majority == (12.5, 12.5)
    told = as_json(outcome)
    assert told["multi_label"] and told["objectives"] == ["accuracy", "latency", "micro-f1"]
    for row in (*(told["trials"][n] for n in told["front"]), *told["references"]):
        scores = row["test_set_scores_percent"]
        assert set(scores) == {"micro_f1", "macro_f1", "mean_average_precision"}
        assert all(
            0 <= each["low"] <= each["value"] <= each["high"] <= 100 for each in scores.values()
        )


def test_the_page_names_what_accuracy_is(place: Place) -> None:
    page = render(outcome_of(study_of(place)))
    for words in ("most frequent set of classes", "majority set", "subset accuracy", "micro-F1"):
        assert words in page, words
    assert "majority class" not in page


def test_the_report_shows_the_scores_of_the_front(place: Place) -> None:
    done = place.finish(place.command("report"))
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stdout.split())
    assert "micro-F1" in said and "mean average precision" in said and "Majority set: 12.5" in said


def test_data_check_counts_the_samples_of_each_class(place: Place) -> None:
    done = place.finish(place.command("data", "check", str(place.data)))
    assert done.returncode == 0 and "majority set %" in done.stdout
    assert "any number of 3 classes each (1.50 on average)" in " ".join(done.stdout.split())


def test_an_exported_folder_gives_each_class_its_probability(place: Place, exported: Path) -> None:
    card = json.loads((exported / "card.json").read_text("utf-8"))
    assert card["multi_label"] == {"threshold": 0.5} and card["classes"] == list(CLASSES)
    readme = (exported / "README.md").read_text("utf-8")
    assert "any number of bright, cat, dog" in readme and "subset accuracy" in readme
    network = predictor_of(exported).Network(exported)
    design = fusion_nas.load(place.folder / "runs" / "fusion-nas.db").trials[0]
    for name in ("test00", "test03", "test07"):
        (text,) = (r["text"] for r in rows_of(place.data) if r["id"] == name)
        image = place.data / "images" / f"{name}.png"
        found = network.predict(text=text, image=image)
        (own,) = predicted(place, design, [text], [image])
        assert np.abs(own - list(found.values())).max() < 1e-4
        assert set(network.chosen(found)) == {c for c, p in found.items() if p > 0.5}


def rows_of(folder: Path) -> list[dict[str, str]]:
    with open(folder / "label.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def predicted(place: Place, design: Any, texts: list[str], images: list[Path]) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FUSION_NAS_HOME", str(place.home))
        patch.chdir(place.folder)
        found = design.predict(texts, images)
        names = design.predict_classes(texts, images)
    assert names == [
        tuple(c for c, p in zip(CLASSES, row, strict=True) if p > 0.5) for row in found
    ]
    return found


def test_predict_py_marks_the_classes_of_an_input(exported: Path) -> None:
    given = ["--text", "cat yard", "--image", "example.png"]

    def run(*more: str) -> str:
        command = [sys.executable, "-B", "predict.py", *more]
        return subprocess.run(
            command, cwd=exported, check=True, capture_output=True, text=True
        ).stdout

    told = json.loads(run(*given, "--json"))
    above = [name for name, p in told["probabilities"].items() if p > 0.5]
    assert told["classes"] == above
    assert sorted(line.split()[0] for line in run(*given).splitlines() if "*" in line) == above
    assert "files as exported" in run("--check")


REFUSED = {
    "cascade": (("cascade",), "choose one design"),
    "paper": (("paper", "--data", "data"), "give data with a column label"),
    "paper of the study": (("paper", "--storage", "sqlite:///runs/fusion-nas.db"), "report"),
}


@pytest.mark.parametrize(("words", "out"), REFUSED.values(), ids=REFUSED)
def test_what_needs_one_class_says_so(place: Place, words: tuple[str, ...], out: str) -> None:
    if words[:2] == ("paper", "--data"):
        words = (*words, "--space", "tiny.toml", "--trunks", "frozen")
    done = place.finish(place.command(*words))
    one_line(done, codes.USAGE, "multi-label", out)


@pytest.mark.parametrize("objective", ["mae", "correlation"])
def test_objectives_of_scores_are_refused(place: Place, objective: str) -> None:
    done = place.finish(place.run("--objective", objective, "--name", "other"))
    one_line(done, codes.USAGE, f"{objective}: these data are multi-label", "micro-f1")


def test_score_classes_and_superfuse_are_refused(place: Place) -> None:
    done = place.finish(place.run("--score-classes", "7", "--name", "other"))
    assert done.returncode == codes.DATA and "--score-classes 7 needs scores" in done.stderr
    flags = ("--study", "superfuse", "--data", "data", "--space", "tiny.toml")
    done = place.finish(place.command("run", *flags))
    one_line(done, codes.USAGE, "study superfuse needs one class per sample", "column label")


def test_digits_have_properties(shared: Path, tmp_path: Path) -> None:
    """Of real pictures: a digit is even, 5 or more and prime, or none of these, as 1 is."""
    source = shared / "data" / "avdigits"
    if not (source / "label.csv").is_file():
        pytest.skip(f"{source} is not there")
    rows = rows_of(source)
    splits = ("train", "valid", "test")
    taken = [row for split in splits for row in [r for r in rows if r["mode"] == split][::15]]
    (tmp_path / "digits" / "images").mkdir(parents=True)
    lines = []
    for row in taken:
        labels = [name for name, digits in DIGITS.items() if int(row["label"]) in digits]
        lines.append(json.dumps({"id": row["id"], "labels": labels, "mode": row["mode"]}))
        picture = Path("images", f"{row['id']}.png")
        (tmp_path / "digits" / picture).symlink_to(source / picture)
    (tmp_path / "digits" / "label.jsonl").write_text("\n".join(lines), "utf-8")
    data = load(tmp_path / "digits", cache=tmp_path / "cache", modalities=("vision",))
    assert set(data.classes) == set(DIGITS) and data.multi_label
    judged = quality(data, tmp_path / "home", QUICK)
    picture_alone = judged.trainer.plan.unimodal(demo().encoder("small-xcit"))
    found = judged.evaluate(picture_alone)
    assert found["accuracy"].high is not None
    assert 0 < most_frequent_share(data.split("valid")) < 1
