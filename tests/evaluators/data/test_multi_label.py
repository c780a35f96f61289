"""Multi-label data: how they are written, what they hold, and how their faults are told."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from several import CLASSES, write_several

from evaluators.data import DataError, DataSet, load
from evaluators.data.answers import all_alike, answers_of, is_right, probabilities_of, targets_of
from evaluators.data.folds import fold
from evaluators.data.layouts.labels import read_labels
from evaluators.data.samples import SEVERAL, most_frequent_share

HEAD = "id,text,labels,mode\n"
GOOD = HEAD + "a,x,cat;dog,train\nb,y,,train\nc,z,dog,valid\nd,w,cat,test\n"


def problems(text: str, name: str = "label.csv", declared: str | None = None) -> list[str]:
    with pytest.raises(DataError) as caught:
        read_labels(text.encode(), name, declared=lambda: (declared and declared.encode()) or None)
    return list(caught.value.problems)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    folder = write_several(tmp_path_factory.mktemp("several") / "set")
    return load(folder, cache=folder.parent / "cache")


def test_a_cell_of_the_column_labels_holds_any_number_of_classes() -> None:
    found = read_labels(GOOD.encode())
    assert found.classes == ("cat", "dog")
    assert [entry.labels for entry in found.entries] == [(0, 1), (), (1,), (0,)]
    assert {entry.label for entry in found.entries} == {SEVERAL}


def test_spaces_about_a_class_make_no_other_class() -> None:
    spaced = GOOD.replace("cat;dog", " dog ; cat ")
    assert read_labels(spaced.encode()).entries == read_labels(GOOD.encode()).entries


def test_a_file_with_a_column_label_is_read_as_ever() -> None:
    """Though it has a column labels, or its classes have the separator in their names."""
    rows = ["a,x,u;v,cat;dog,train", "b,y,w,,train", "c,z,w,,valid", "d,z,w,,test"]
    text = "\n".join(["id,text,label,labels,mode", *rows]) + "\n"
    found = read_labels(text.encode(), declared=lambda: b"no JSON")
    assert found.classes == ("u;v", "w") and all(e.labels is None for e in found.entries)


def test_lists_of_json_lines_are_the_same_data(data: DataSet, tmp_path: Path) -> None:
    lines = load(write_several(tmp_path / "set", lines=True), cache=tmp_path / "cache")
    assert not (tmp_path / "set" / "label.csv").exists()
    assert lines.fingerprint == data.fingerprint and lines.classes == CLASSES


def test_json_lines_with_one_label_are_those_of_a_table() -> None:
    rows = [("a", "no", "train"), ("b", "yes", "train"), ("c", "no", "valid"), ("d", "no", "test")]
    table = "id,label,mode\n" + "".join(",".join(row) + "\n" for row in rows)
    lines = "\n".join(json.dumps(dict(zip(("id", "label", "mode"), r, strict=True))) for r in rows)
    one, other = read_labels(table.encode()), read_labels(lines.encode(), "label.jsonl")
    assert one.classes == other.classes
    assert [e.label for e in one.entries] == [e.label for e in other.entries]


def test_data_json_states_another_separator() -> None:
    text = GOOD.replace("cat;dog", "cat|dog")
    declared = b'{"label_separator": "|"}'
    assert read_labels(text.encode(), declared=lambda: declared).entries[0].labels == (0, 1)


def test_a_folder_with_another_separator_is_read_by_its_data_json(tmp_path: Path) -> None:
    folder = write_several(tmp_path / "set")
    label = folder / "label.csv"
    label.write_text(label.read_text("utf-8").replace(";", "+"), "utf-8")
    (folder / "data.json").write_text('{"label_separator": "+"}', "utf-8")
    assert load(folder, cache=tmp_path / "cache", modalities=("text",)).classes == CLASSES


BAD = {
    "a repeated class": ("a,x,cat;dog;cat,train", "row 2: labels has 'cat' 2 times"),
    "a class without a name": ("a,x,cat;;dog,train", "row 2: labels has a class without a name"),
    "classes that look alike": ("a,x,cat;Dog,train", "'Dog' (row 2), 'dog' (row 4)"),
    "a class of no train row": ("a,x,dog,train", "class 'cat' occurs in no train row"),
}


@pytest.mark.parametrize(("row", "said"), BAD.values(), ids=BAD)
def test_what_is_wrong_in_a_row_is_named(row: str, said: str) -> None:
    assert any(said in each for each in problems(GOOD.replace("a,x,cat;dog,train", row)))


def test_a_class_of_every_train_row_is_named() -> None:
    (said,) = problems(GOOD.replace("b,y,,train", "b,y,dog,train"))
    assert "class 'dog' occurs in every train row" in said


def test_one_class_alone_and_none_at_all_are_named() -> None:
    (alone,) = problems(GOOD.replace("dog", "cat").replace("cat;cat", "cat"))
    assert "column labels names 'cat' alone" in alone and "column label" in alone
    (none,) = problems(HEAD + "a,x,,train\nb,y,,valid\nc,z,,test\n")
    assert "no row has a class in column labels" in none


@pytest.mark.parametrize("mark", ["|", "/", "\t"])
def test_another_separator_is_named_with_its_declaration(mark: str) -> None:
    text = GOOD.replace("cat;dog", f"cat{mark}dog")
    said = " ".join(problems(text))
    assert "row 2" in said and json.dumps({"label_separator": mark}) in said
    kept = read_labels(
        text.replace("b,y,,", "b,y,cat,").replace("c,z,dog", f"c,z,cat{mark}dog").encode(),
        declared=lambda: b'{"label_separator": ";"}',
    )
    assert f"cat{mark}dog" in kept.classes, "one class of that name, where this is stated"


@pytest.mark.parametrize(
    "declared", ["[1]", "{", '{"label_separator": 3}', '{"label_separator": "and"}']
)
def test_a_data_json_that_cannot_be_meant_is_named(declared: str) -> None:
    assert "data.json" in problems(GOOD, declared=declared)[0]


BAD_LINES = {
    "not JSON": ('{"id": "a"', "row 1: not JSON"),
    "no object": ("[1]", "row 1: '[1]' is no object"),
    "a text for a list": ('{"id": "a", "labels": "cat", "mode": "train"}', "give a list of texts"),
    "a list for a text": (
        '{"id": ["a"], "labels": [], "mode": "train"}',
        "give a text or a number",
    ),
    "a truth for a class": ('{"id": "a", "labels": [true], "mode": "train"}', "labels is '[true]'"),
    "another field": ('{"id": "a"}\n{"id": "b", "mode": "train"}', "row 1: no field 'mode'"),
    "nothing": (" \n", "the file is empty"),
}


@pytest.mark.parametrize(("text", "said"), BAD_LINES.values(), ids=BAD_LINES)
def test_lines_that_are_no_rows_are_named(text: str, said: str) -> None:
    assert said in problems(text, "label.jsonl")[0]


def test_a_column_that_lacks_is_named_with_those_needed() -> None:
    assert "no column mode; needed are id, labels, mode" in problems("id,labels\na,cat\n")[0]


def test_a_data_set_counts_classes_and_sets_of_them(data: DataSet) -> None:
    assert data.multi_label and data.counts("train") == (24, 24, 24)
    assert most_frequent_share(data.split("train")) == 1 / 8, "of eight sets, each as often"
    assert "any number of 3 classes each (1.50 on average)" in data.note
    with pytest.raises(ValueError, match="multi-label"):
        data.majority("train")


def test_folds_hold_every_class(data: DataSet) -> None:
    for k in range(4):
        cut = fold(data, k, 4)
        assert cut.multi_label and min(cut.counts("test")) >= 6


def test_other_classes_of_a_sample_are_other_data(data: DataSet, tmp_path: Path) -> None:
    folder = write_several(tmp_path / "set")
    label = folder / "label.csv"
    text = label.read_text("utf-8")
    label.write_text(text.replace(",bright,train", ",bright;dog,train", 1), "utf-8")
    assert load(folder, cache=tmp_path / "cache").fingerprint != data.fingerprint


def test_a_sample_is_right_where_all_of_its_classes_are(data: DataSet) -> None:
    samples = data.split("valid")
    targets = targets_of(samples, 3)
    assert targets.shape == (24, 3) and targets.sum() == 36
    logits = np.where(targets == 1, 2.0, -2.0)
    assert is_right(logits, targets).all()
    logits[0, 0] *= -1
    assert is_right(logits, targets).sum() == 23
    both = np.stack([logits, -logits])
    assert is_right(both, targets).shape == (2, 24) and not is_right(both, targets)[1, 1:].any()
    assert all_alike(answers_of(np.ones((5, 3)), True)) and not all_alike(targets)


@given(st.lists(st.floats(-50, 50), min_size=1, max_size=6))
def test_a_class_is_given_where_it_is_more_likely_than_not(values: list[float]) -> None:
    logits = np.array([values])
    found = probabilities_of(logits, multi_label=True)
    assert found == pytest.approx(1 / (1 + np.exp(-logits)))
    clear = np.abs(logits) > 1e-9
    assert ((found > 0.5) == (answers_of(logits, True) == 1))[clear].all()
    assert probabilities_of(logits, multi_label=False).sum() == pytest.approx(1)
