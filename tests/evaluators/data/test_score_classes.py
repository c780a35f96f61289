"""Scores become classes as CMU-MOSI's Acc-7 has them, and classes that are numbers their values."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluators.data import DataError, DataSet, load
from evaluators.data.score_classes import SEVEN, class_values, seven_classes, targets

SCORES = (-3.0, -2.4, -1.5, -1.0, -0.5, 0.0, 0.5, 1.2, 1.5, 2.4, 3.0)


def scored(folder: Path, scores: tuple[float, ...] = SCORES) -> DataSet:
    rows = ["video_id,clip_id,text,label,mode"]
    for split in ("train", "valid", "test"):
        rows += [f"{split}{k},1,a text {k},{score},{split}" for k, score in enumerate(scores)]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "label.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return load(folder, cache=folder / "cache", modalities=("text",))


def test_scores_are_rounded_to_seven_classes_and_stay_beside_them(tmp_path: Path) -> None:
    two = scored(tmp_path)
    seven = seven_classes(two)
    assert seven.classes == SEVEN == ("-3", "-2", "-1", "0", "1", "2", "3")
    named = [seven.classes[each.label] for each in seven.split("train")]
    assert named == ["-3", "-2", "-2", "-1", "0", "0", "0", "1", "2", "2", "3"]
    assert [each.score for each in seven.split("train")] == list(SCORES)
    assert seven.fingerprint != two.fingerprint and "rounded" in seven.note
    assert "non-negative" not in seven.note


def test_a_class_without_training_samples_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="rounds to -3, 3; leave it out"):
        seven_classes(scored(tmp_path, (-2.0, -1.0, 0.0, 1.0, 2.0)))


def test_targets_are_scores_or_the_numbers_that_classes_are(tmp_path: Path) -> None:
    two = scored(tmp_path)
    found = targets(seven_classes(two), "valid")
    assert found is not None and found.tolist() == list(SCORES)
    assert targets(two, "valid") is None


@given(st.lists(st.integers(-9, 9), min_size=2, max_size=9, unique=True))
def test_classes_that_are_numbers_have_their_values(numbers: list[int]) -> None:
    values = class_values(tuple(map(str, numbers)))
    assert values is not None and values.tolist() == numbers
    assert class_values((*map(str, numbers), "many")) is None
