"""Data that can be read but are not what they should be: every fault is named."""

from __future__ import annotations

import ast
import os
import pickle
from pathlib import Path

import pytest
from clip_data import Row, clips, mosi_rows

import evaluators.data
from evaluators.data import DataError, DataSet, check, load
from evaluators.data.layouts.known import MOSI

SHARED = Path(os.environ.get("FUSION_NAS_SHARED") or Path(__file__).parents[3] / ".." / "shared")
MOSI_FOLDER = SHARED / "data" / "mosi"

GOOD: tuple[Row, ...] = (
    ("a", 1, -1.0, "train"),
    ("a", 2, 2.0, "train"),
    ("b", 1, 0.0, "valid"),
    ("c", 1, 1.0, "test"),
)


def texts(root: Path, accept_faults: bool = False) -> DataSet:
    return load(root, cache=root / "cache", modalities=("text",), accept_faults=accept_faults)


def faults(root: Path) -> list[str]:
    return [fault.text for fault in check(root, cache=root, modalities=("text",)).faults]


def test_a_video_in_two_splits_is_named_row_by_row(tmp_path: Path) -> None:
    root = clips(tmp_path, [*GOOD, ("a", 3, 1.0, "test"), ("a", 4, 1.0, "valid")])
    assert faults(root) == [
        "label.csv row 6: a/3 is in test, and its video a in 3 splits "
        "(rows: 2 in train, 1 in valid, 1 in test)",
        "label.csv row 7: a/4 is in valid, and its video a in 3 splits "
        "(rows: 2 in train, 1 in valid, 1 in test)",
    ]
    with pytest.raises(DataError, match="2 rows in other splits than their video"):
        texts(root)
    data = texts(root, accept_faults=True)
    assert len(data.samples) == 6 and [fault.kind for fault in data.faults] == ["two splits"] * 2
    assert "fail the check and were used all the same: 2 rows in other splits" in data.note


def test_a_label_out_of_range_is_never_accepted(tmp_path: Path) -> None:
    root = clips(tmp_path, [*GOOD, ("a", 3, 3.2, "train")])
    with pytest.raises(
        DataError, match=r"label\.csv row 6: label '3\.2' is not a number in -3\.\.3"
    ):
        texts(root, accept_faults=True)


def test_the_known_facts_of_cmu_mosi_agree_with_each_other() -> None:
    for split, counts in MOSI.counts.items():
        assert list(MOSI.folds.values()).count(split) == counts["videos"]
        assert counts["negative"] + counts["zero"] + counts["positive"] == counts["samples"]
    assert len(MOSI.folds) == 93


def test_cmu_mosi_with_its_counts_and_folds_passes(tmp_path: Path) -> None:
    data = texts(clips(tmp_path, mosi_rows()))
    assert data.published == "CMU-MOSI" and not data.faults


def test_cmu_mosi_with_a_row_too_few_says_which_count_is_off(tmp_path: Path) -> None:
    rows = mosi_rows()
    assert rows[0][2:] == (-1.0, "train")
    root = clips(tmp_path, rows[1:])
    assert faults(root) == [
        "train samples: 1,283, where CMU-MOSI has 1,284",
        "train negative: 551, where CMU-MOSI has 552",
    ]


def test_a_part_of_cmu_mosi_needs_to_be_accepted(tmp_path: Path) -> None:
    few = [row for row in mosi_rows() if row[0] in ("03bSnISJMiM", "WKA5OygbEKI", "c7UH_rxdZv4")]
    root = clips(tmp_path, few)
    found = faults(root)
    assert "train videos: 1, where CMU-MOSI has 52" in found
    assert all(", where CMU-MOSI has" in fault for fault in found)
    with pytest.raises(DataError, match="15 counts that are not as published"):
        texts(root)
    assert len(texts(root, accept_faults=True).samples) == len(few)


def test_rows_against_the_standard_folds_are_named_one_by_one(tmp_path: Path) -> None:
    rows = [(*row[:3], "valid") if row[0] == "03bSnISJMiM" else row for row in mosi_rows()]
    moved = [number for number, row in enumerate(rows, 2) if row[0] == "03bSnISJMiM"]
    named = [fault for fault in faults(clips(tmp_path, rows)) if "standard folds" in fault]
    assert len(named) == len(moved) > 20
    assert named[0] == (
        f"label.csv row {moved[0]}: 03bSnISJMiM/{rows[moved[0] - 2][1]} is in valid; "
        "CMU-MOSI's standard folds have 03bSnISJMiM in train"
    )


def test_a_video_that_cmu_mosi_does_not_have_is_named(tmp_path: Path) -> None:
    found = faults(clips(tmp_path, [*mosi_rows(), ("other", 1, 1.0, "train")]))
    assert found[0] == "label.csv row 2201: other/1: CMU-MOSI has no video other"
    assert "train videos: 53, where CMU-MOSI has 52" in found


def test_other_data_in_the_same_layout_are_not_held_against_cmu_mosi(tmp_path: Path) -> None:
    own = [(f"video{n}", 1, (-1) ** n * 1.0, "train") for n in range(5)]
    mixed = [*GOOD, *own, ("03bSnISJMiM", 1, 1.0, "test")]
    for rows in (GOOD, mixed):
        data = texts(clips(tmp_path, rows))
        assert not data.published and not data.faults


@pytest.mark.skipif(not MOSI_FOLDER.is_dir(), reason=f"no CMU-MOSI at {MOSI_FOLDER}")
def test_the_real_labels_of_cmu_mosi_pass_all_checks(tmp_path: Path) -> None:
    found = check(MOSI_FOLDER, cache=tmp_path, modalities=("text",))
    assert found.known is MOSI and not found.faults
    assert len(found.tallies) == 15
    assert all(tally.found == tally.known for tally in found.tallies)
    data = load(MOSI_FOLDER, cache=tmp_path, modalities=("text",))
    assert [len(data.split(s)) for s in ("train", "valid", "test")] == [1284, 229, 686]
    assert [len(data.groups(s)) for s in ("train", "valid", "test")] == [52, 10, 31]
    assert data.majority("test") == (0, 379 / 686)
    assert not list(tmp_path.iterdir())


class Trap:
    """Unpickling this makes a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.file),)


@pytest.mark.parametrize("name", ["unaligned_50.pkl", "label.csv"])
def test_a_pickle_is_refused_in_words_and_never_loaded(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    with pytest.raises(DataError, match="a pickle is never loaded") as caught:
        load(tmp_path / name, cache=tmp_path)
    assert name in str(caught.value) and "label.csv" in str(caught.value)
    with pytest.raises(DataError, match="a pickle is never loaded"):
        load(tmp_path, cache=tmp_path)
    assert not (tmp_path / "sprung").exists()


def test_nothing_that_reads_data_can_unpickle() -> None:
    banned = {"pickle", "cPickle", "dill", "shelve", "marshal", "joblib", "pandas", "torch"}
    seen = 0
    for file in Path(evaluators.data.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {name.split(".")[0] for name in names} & banned, file
            seen += len(names)
            if isinstance(node, ast.keyword):
                assert node.arg != "allow_pickle", file
    assert seen > 50
