"""The faces set is MOSI's size, the same from the same seed, and as hard as it says."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from damage import DAMAGE

from evaluators.data import (
    SPLITS,
    DataSet,
    faces_data,
    faces_folder,
    load,
    measured_ceilings,
    read_image,
)
from evaluators.data.generative import scenes
from evaluators.data.generative.scenes import Words
from evaluators.data.synthetic.face_set import data_set as rendering
from evaluators.data.synthetic.face_set import vocabulary
from evaluators.data.synthetic.face_set.sentences import sentence

SMALL = {"train": (60, 3), "valid": (20, 2), "test": (30, 2)}
GOOD = {*vocabulary.GOOD_ADJECTIVES, *vocabulary.GOOD_VERBS, *vocabulary.GOOD_NOUNS}
BAD = {*vocabulary.BAD_ADJECTIVES, *vocabulary.BAD_VERBS, *vocabulary.BAD_NOUNS}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.getbasetemp()
    # Parallel test processes share one faces set: it is made under a lock.
    return (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "rendered-cache"


@pytest.fixture(scope="module")
def data(cache: Path) -> DataSet:
    return faces_data(cache)


def test_it_has_cmu_mosis_sizes_and_no_speaker_in_two_splits(data: DataSet) -> None:
    assert [len(data.split(split)) for split in SPLITS] == [1284, 229, 686]
    assert [len(data.groups(split)) for split in SPLITS] == [52, 10, 31]
    assert len({sample.group for sample in data.samples}) == 93
    assert data.classes == ("negative", "non-negative") and not data.dropped


def test_it_says_that_it_is_not_cmu_mosi(data: DataSet, cache: Path) -> None:
    assert data.kind == "faces" and "not CMU-MOSI's" in data.note
    assert load(faces_folder(cache), cache=cache) == data


def test_every_sample_has_a_score_of_its_class_and_a_picture(data: DataSet) -> None:
    for sample in data.samples:
        assert sample.score is not None and -3 <= sample.score <= 3
        assert sample.label == int(sample.score >= 0)
    assert read_image(data.samples[0].image, 96).std() > 10
    assert any(sample.score == 0 for sample in data.samples)


def test_its_labels_carry_mosis_annotations(cache: Path, data: DataSet) -> None:
    with open(faces_folder(cache) / "label.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    signs = {"Negative": -1, "Neutral": 0, "Positive": 1}
    assert all(np.sign(float(row["label"])) == signs[row["annotation"]] for row in rows)


def test_the_table_adds_up_to_one() -> None:
    assert sum(chance for chance, _ in scenes.outcomes()) == 1


def test_the_ceilings_follow_from_the_shares_of_the_kinds_of_scenes(data: DataSet) -> None:
    # Right without noise: text knows agree + words and guesses the rest; vision likewise.
    text = 0.31 + 0.43 + (0.11 / 2 + 0.03)
    vision = (0.31 + 0.11) + (0.43 / 2 + 0.03) + 0.6 * 0.12
    noisy = {"text": text * 0.9 + 0.05, "vision": vision * 0.9 + 0.05, "both": 0.95}
    assert data.ceilings == pytest.approx(noisy, abs=1e-12)
    assert data.ceilings["both"] > data.ceilings["text"] + 0.1 > data.ceilings["vision"] + 0.1


@pytest.mark.parametrize("split", SPLITS)
def test_the_stated_ceilings_are_what_the_best_decisions_reach(
    data: DataSet, cache: Path, split: str
) -> None:
    measured = measured_ceilings(faces_folder(cache), split)  # type: ignore[arg-type]
    assert data.ceilings is not None and set(measured) == set(data.ceilings)
    for name, share in measured.items():
        assert share.low <= data.ceilings[name] <= share.high
        assert abs(share.value - data.ceilings[name]) < 5 / share.count + 0.005


def test_neither_classes_nor_splits_are_lopsided(data: DataSet) -> None:
    for split in SPLITS:
        assert data.majority(split)[1] < 0.53


def test_sentences_say_what_they_are_meant_to(data: DataSet) -> None:
    rng = np.random.default_rng(3)
    for polarity in (-1, 0, 1):
        for strength in (1, 2, 3) if polarity else (0,):
            for _ in range(100):
                text = sentence(Words(polarity, strength), rng)
                assert 5 <= len(text.split()) <= 20
                assert read_polarity(text) == polarity, text


def read_polarity(text: str) -> int:
    """The polarity on which all telling clauses of a sentence agree; 0 if none tells."""
    found = set()
    for clause in text.split(" and "):
        words = clause.split()
        sign = sum(word in GOOD for word in words) - sum(word in BAD for word in words)
        found.add(-sign if {"not", "never"} & set(words) else sign)
    (polarity,) = found - {0} or {0}
    return polarity


def test_texts_vary_and_share_their_sentiment_words_over_the_splits(data: DataSet) -> None:
    words = {
        split: Counter(" ".join(s.text for s in data.split(split)).split()) for split in SPLITS
    }
    assert len(words["train"]) > 250
    assert len({sample.text for sample in data.samples}) > 0.98 * len(data.samples)
    assert min(words["train"][word] for word in GOOD | BAD) >= 5
    negated = sum(bool({"not", "never"} & set(s.text.split())) for s in data.samples)
    assert 0.12 < negated / len(data.samples) < 0.18
    assert words["train"]["um"] > 10


def small(cache: Path, monkeypatch: pytest.MonkeyPatch, seed: int = 0) -> DataSet:
    monkeypatch.setattr(rendering, "SIZES", SMALL)
    return faces_data(cache, seed)


def test_the_same_seed_draws_the_same_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = small(tmp_path / "a", monkeypatch)
    assert small(tmp_path / "b", monkeypatch).fingerprint == first.fingerprint
    assert small(tmp_path / "a", monkeypatch, seed=1).fingerprint != first.fingerprint
    with pytest.raises(ValueError, match="seed -1 is negative"):
        faces_data(tmp_path, -1)


@pytest.mark.parametrize(
    ("name", "harm"),
    [
        ("label.csv", "byte flipped"),
        ("Frames/speaker001/1.jpg", "tail zeroed"),
        ("Frames/speaker001/1.jpg", "a directory"),
        ("checksums.sha256", "emptied"),
        ("checksums.sha256", "removed"),
    ],
)
def test_a_set_with_a_damaged_file_is_drawn_again_with_a_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    name: str,
    harm: str,
) -> None:
    data = small(tmp_path, monkeypatch)
    folder = faces_folder(tmp_path)
    whole = (folder / name).read_bytes()
    DAMAGE[harm](folder / name)
    assert faces_data(tmp_path) == data
    assert (folder / name).read_bytes() == whole
    said = "used as it is" if (name, harm) == ("checksums.sha256", "removed") else "drawn again"
    assert caplog.text.count(said) == 1


def test_an_interrupted_drawing_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(rendering, "draw_face", interrupted)
        with pytest.raises(KeyboardInterrupt):
            small(tmp_path, monkeypatch)
    assert not [path for path in (tmp_path / "rendered").iterdir() if path.is_dir()]
    assert len(small(tmp_path, monkeypatch).samples) == 110


TWIN = """
import sys, time
from pathlib import Path
from evaluators.data.synthetic.face_set import data_set as rendering
rendering.SIZES = {"train": (30, 2), "valid": (10, 1), "test": (10, 1)}
write = rendering._write
def slowly(folder, seed):
    with open(sys.argv[1] + "/made", "a") as log:
        log.write("made ")
    time.sleep(0.5)
    write(folder, seed)
rendering._write = slowly
print(rendering.faces_data(Path(sys.argv[1])).fingerprint)
"""


def test_two_processes_at_once_make_it_once(tmp_path: Path) -> None:
    root = str(Path(__file__).parents[3])
    command = [sys.executable, "-c", TWIN, str(tmp_path)]
    twins = [
        subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    told = {twin.communicate(timeout=60)[0] for twin in twins}
    assert len(told) == 1 and len(told.pop().strip()) == 64
    assert (tmp_path / "made").read_text() == "made "


def test_the_package_starts_without_its_heavy_parts() -> None:
    check = (
        "import sys, evaluators.data; "
        "print([m for m in ('PIL', 'av', 'torch', 'optuna', 'transformers') if m in sys.modules])"
    )
    root = str(Path(__file__).parents[3])
    told = subprocess.run([sys.executable, "-c", check], cwd=root, capture_output=True, text=True)
    assert told.stdout.strip() == "[]", told.stderr
