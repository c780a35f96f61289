"""Folds: every sample of train and valid judged once, no video on both sides, test in none."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from evaluators.data import DataError, DataSet, Sample
from evaluators.data.folds import fold, group_of, parts, pool
from evaluators.data.layouts.labels import read_labels

FOLDS = 5


def clips(videos: int, each: int, classes: int = 2) -> DataSet:
    """Videos of uneven length; the last ones are valid and test."""
    rng = np.random.default_rng(0)
    samples = []
    for video in range(videos):
        split = "test" if video % 5 == 4 else "valid" if video % 5 == 3 else "train"
        for k in range(int(rng.integers(2, 2 * each))):
            label = int(rng.integers(0, classes))
            name = f"v{video}/{k}"
            samples.append(Sample(name, f"v{video}", "words", label, None, split, Path(name)))  # type: ignore[arg-type]
    names = tuple(str(k) for k in range(classes))
    return DataSet("set", "mosi", names, tuple(samples), "", "f" * 64)


def mosi(shared: Path) -> DataSet:
    """The real labels and folds; pictures are not looked at."""
    found = read_labels((shared / "data" / "mosi" / "label.csv").read_bytes())
    samples = tuple(
        Sample(e.id, e.names[0], e.text, e.label, e.score, e.split, Path(e.id))
        for e in found.entries
    )
    return DataSet("mosi", "mosi", found.classes, samples, "", "m" * 64)


def check_folds(data: DataSet) -> None:
    made = [fold(data, k, FOLDS) for k in range(FOLDS)]
    kept = [s.id for s in data.samples if s.split != "test"]
    judged = [s.id for one in made for s in one.split("test")]
    assert sorted(judged) == sorted(kept)
    for one in made:
        assert [s.id for s in one.samples] == kept, "all of train and valid, in their order"
        sides = [{group_of(s) for s in one.split(n)} for n in ("train", "valid", "test")]  # type: ignore[arg-type]
        assert not sides[0] & sides[1] and not sides[0] & sides[2] and not sides[1] & sides[2]
        assert one.cut_from == one.contents == data.fingerprint
    assert len({one.fingerprint for one in made} | {data.fingerprint}) == FOLDS + 1
    assert made == [fold(data, k, FOLDS) for k in range(FOLDS)], "the same data are cut alike"


def test_every_sample_is_judged_once_by_folds_that_hold_none_of_its_video() -> None:
    check_folds(clips(40, 9))


def test_the_folds_of_mosi_are_of_one_size_and_one_share_of_classes(shared: Path) -> None:
    data = mosi(shared)
    check_folds(data)
    assert len(pool(data)) == 1513
    share = sum(s.label for s in pool(data)) / 1513
    for k in range(FOLDS):
        judged = fold(data, k, FOLDS).split("test")
        assert abs(len(judged) - 1513 / FOLDS) <= 12
        assert abs(sum(s.label for s in judged) / len(judged) - share) < 0.03


def test_the_samples_of_the_test_split_are_in_no_fold() -> None:
    data = clips(40, 9)
    test = {s.id for s in data.split("test")}
    assert test and not test & {s.id for k in range(FOLDS) for s in fold(data, k, FOLDS).samples}


def test_where_there_are_no_groups_identical_texts_stay_together() -> None:
    words = ["a cat", "A  cat ", "two dogs", "", ""]
    rows = [
        Sample(str(k), str(k), words[k % 5], k % 2, None, "train" if k % 7 else "valid", Path())
        for k in range(200)
    ]
    data = DataSet("set", "folder", ("a", "b"), tuple(rows), "", "f" * 64)
    part = parts(data, FOLDS)
    assert len({part[s.id] for s in rows if s.text.lower().split() == ["a", "cat"]}) == 1
    assert len({part[s.id] for s in rows if s.text == "two dogs"}) == 1
    assert len({part[s.id] for s in rows if not s.text}) > 1, "no text is no group"
    check_folds(data)


def test_a_video_is_its_own_group_whatever_is_said_in_it() -> None:
    data = clips(40, 9)
    assert len({group_of(s) for s in data.samples}) == 40


def test_sentences_of_nlvr_are_never_on_both_sides(shared: Path) -> None:
    found = read_labels((shared / "data" / "nlvr" / "label.csv").read_bytes())
    rows = tuple(
        Sample(e.id, e.id, e.text, e.label, None, e.split, Path(e.id)) for e in found.entries
    )
    data = DataSet("nlvr", "folder", found.classes, rows, "", "n" * 64)
    assert len({s.text for s in pool(data)}) < len(pool(data)) / 2, "or it would show nothing"
    check_folds(data)


def test_data_that_cannot_be_cut_are_refused_in_words() -> None:
    data = clips(5, 9)
    with pytest.raises(DataError, match=r"4 groups in train and valid.*leave out --cv"):
        fold(data, 0, FOLDS)
    rare = [replace(s, label=2 if s.group == "v0" else 0) for s in clips(40, 9, classes=3).samples]
    lone = replace(clips(40, 9, classes=3), samples=tuple(rare))
    with pytest.raises(DataError, match="no sample of class 1"):
        [fold(lone, k, FOLDS) for k in range(FOLDS)]
