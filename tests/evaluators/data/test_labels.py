"""What a label.csv may hold, and how all of its faults are told at once."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path
from unicodedata import normalize

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluators.data.errors import DataError
from evaluators.data.layouts.entries import Labels
from evaluators.data.layouts.labels import read_labels

SHARED = Path(os.environ.get("FUSION_NAS_SHARED") or Path(__file__).parents[3] / ".." / "shared")
MOSI = SHARED / "data" / "mosi" / "label.csv"

CLIPS = "video_id,clip_id,text,label,annotation,mode\n"
GOOD_CLIPS = (
    CLIPS + "v1,1,bad,-1.0,Negative,train\nv1,2,good,1,Positive,train\n"
    "v2,1,so so,0,Neutral,valid\nv3,1,fine,.4,Positive,test\n"
)
FOLDER = "id,text,label,mode\n"
GOOD_FOLDER = FOLDER + "a,x,no,train\nb,y,yes,train\nc,z,no,valid\nd,w,yes,test\n"


def problems(text: str | bytes) -> tuple[str, ...]:
    with pytest.raises(DataError) as caught:
        read_labels(text.encode() if isinstance(text, str) else text)
    return caught.value.problems


def as_csv(rows: list[tuple[str, ...]]) -> bytes:
    out = io.StringIO(newline="")
    csv.writer(out).writerows(rows)
    return out.getvalue().encode()


def test_clips_have_two_classes_and_zero_is_non_negative() -> None:
    labels = read_labels(GOOD_CLIPS.encode())
    assert labels.layout == "clips"
    assert labels.classes == ("negative", "non-negative")
    assert [entry.label for entry in labels.entries] == [0, 1, 1, 1]
    assert [entry.score for entry in labels.entries] == [-1.0, 1.0, 0.0, 0.4]
    assert [entry.id for entry in labels.entries] == ["v1/1", "v1/2", "v2/1", "v3/1"]


def test_the_classes_of_a_folder_are_its_sorted_labels() -> None:
    labels = read_labels(GOOD_FOLDER.encode())
    assert (labels.layout, labels.classes) == ("folder", ("no", "yes"))
    assert [entry.label for entry in labels.entries] == [0, 1, 0, 1]
    assert all(entry.score is None for entry in labels.entries)


def test_space_around_a_label_makes_no_class_of_its_own() -> None:
    plain = read_labels(GOOD_FOLDER.encode())
    spaced = GOOD_FOLDER.replace("yes", "yes ").replace("z,no", "z,\u00a0 no\t")
    assert read_labels(spaced.encode()) == plain


def test_labels_that_differ_in_case_alone_are_one_problem_each() -> None:
    rows = "e,v,Yes,train\nf,u,YES,train\ng,t,Yes,valid\nh,s,maybe,train\n"
    assert problems(GOOD_FOLDER + rows) == (
        "label.csv: labels 'yes' (row 3), 'Yes' (row 6), 'YES' (row 7) differ in upper and lower "
        "case alone; spell them alike, or give other names",
    )
    assert len(problems(GOOD_FOLDER + rows + "i,r,No,train\n")) == 2


def test_a_byte_order_mark_and_windows_line_ends_are_fine() -> None:
    plain = read_labels(GOOD_FOLDER.encode())
    assert read_labels(b"\xef\xbb\xbf" + GOOD_FOLDER.replace("\n", "\r\n").encode()) == plain


def test_ids_are_strings() -> None:
    text = FOLDER + "0012,x,no,train\n-7,y,yes,train\n1e3,z,no,valid\n12,w,yes,test\n"
    assert [e.id for e in read_labels(text.encode()).entries] == ["0012", "-7", "1e3", "12"]


def test_quoted_texts_keep_commas_quotes_and_line_breaks_and_count_as_one_row() -> None:
    text = FOLDER + 'a,"one, ""two""\nthree",no,train\nb,,yes,train\nc,z,no,valid\nd,w,yes,tst\n'
    assert problems(text) == (
        "label.csv row 5: mode 'tst' is unknown; use train, valid or test",
        "label.csv: no row has mode test; all of train, valid and test are needed",
    )
    entries = read_labels(text.replace("tst", "test").encode()).entries
    assert [entry.text for entry in entries[:2]] == ['one, "two"\nthree', ""]


def test_all_problems_of_a_file_are_told_at_once() -> None:
    text = (
        CLIPS + "v1,1,a,happy,Positive,train\nv1,2,b,3.5,Positive,train\nv1,3,c,nan,Neutral,dev\n"
        "v1,2,again,1,Positive,valid\nv2,1,d,1,Positive,test\n../v3,1,e,1,Positive,test\n"
        "/etc,1,f,1,Positive,test\nv4,..,g,1,Positive,test\nv5,,h,1,Positive,test\nv6,1,i\n"
    )
    found = problems(text)
    for part in (
        "label.csv row 2: label 'happy' is not a number in -3..3; correct it or remove the row",
        "label.csv row 3: label '3.5' is not a number in -3..3; correct it or remove the row",
        "label.csv row 4: label 'nan' is not a number in -3..3; correct it or remove the row",
        "label.csv row 4: mode 'dev' is unknown; use train, valid or test",
        "label.csv row 5: id 'v1/2' is already in row 3; remove or rename one",
        "label.csv row 7: video_id '../v3' leads out of its folder; use a plain file name",
        "label.csv row 8: video_id '/etc' leads out of its folder; use a plain file name",
        "label.csv row 9: clip_id '..' leads out of its folder; use a plain file name",
        "label.csv row 10: clip_id '' is empty; give the row an id",
        "label.csv row 11: 3 fields where the header has 6; quote texts that contain a comma",
    ):
        assert part in found
    assert len(found) == 10


def test_the_error_is_one_block_that_names_the_file_and_the_count() -> None:
    rows = "".join(f"v,{n},x,bad,,train\n" for n in range(30))
    with pytest.raises(DataError) as caught:
        read_labels((GOOD_CLIPS + rows).encode())
    lines = str(caught.value).splitlines()
    assert lines[0] == "label.csv: 30 problems"
    assert len(lines) == 22 and lines[-1] == "  and 10 more"
    assert len(caught.value.problems) == 30


def test_missing_columns_are_named_with_those_present() -> None:
    (found,) = problems("video_id,clip,text,label\nv,1,x,1\n")
    assert "no column clip_id, mode" in found
    assert "'video_id', 'clip', 'text', 'label'" in found


def test_a_column_that_occurs_twice_is_a_problem() -> None:
    assert (
        "column 'label' occurs 2 times" in problems("id,text,label,label,mode\na,b,c,d,train\n")[0]
    )


def test_bytes_that_are_not_utf8_are_told_by_line_and_offset() -> None:
    bad = GOOD_FOLDER.encode().replace(b"x,no", b"caf\xe9,no").replace(b"w,yes", b"\xff,yes")
    first = bad.index(b"\xe9")
    found = problems(bad)
    assert found[0].startswith(f"label.csv line 2, byte {first}: 0xe9 is not UTF-8")
    assert found[1].startswith(f"label.csv line 5, byte {bad.index(bytes([255]))}: 0xff")
    assert "UTF-16" in problems(GOOD_FOLDER.encode("utf-16"))[0]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "the file is empty"),
        (" \n\n", "the file is empty"),
        (FOLDER, "there are no usable rows"),
        (GOOD_FOLDER.replace("valid", "test"), "no row has mode valid"),
        (GOOD_FOLDER.replace("yes", "no"), "all rows have label 'no'"),
        (GOOD_FOLDER.replace("b,y,yes", "b,y,no"), "class 'yes' occurs in no train row"),
        (GOOD_FOLDER.replace("b,y,yes", "b,y, "), "label ' ' is empty"),
        (GOOD_FOLDER.replace("b,y", 'b,"y'), "unexpected end of data"),
        (GOOD_FOLDER.replace("b,y", "x/../b,y"), "leads out of its folder"),
        (GOOD_FOLDER.replace("b,y", "C:b,y"), "leads out of its folder"),
        (GOOD_FOLDER.replace("b,y", "b\\c,y"), "leads out of its folder"),
        (GOOD_FOLDER.replace("b,y", "b\0c,y"), "control characters"),
        (GOOD_FOLDER.replace("b,y", "b" * 201 + ",y"), "longer than 200 bytes"),
        (GOOD_FOLDER.replace("b,y", "b," + "y" * 200_000), "field larger than field limit"),
    ],
)
def test_bad_files_are_refused(text: str, told: str) -> None:
    assert any(told in problem for problem in problems(text))


COMPOSED, DECOMPOSED = "caf\u00e9", "cafe\u0301"


@pytest.mark.parametrize(
    ("one", "other", "told"),
    [
        ("1", "1.0", "are one number"),
        ("01", "1", "are one number"),
        ("-0", "0", "are one number"),
        (COMPOSED, DECOMPOSED, r"'caf\xe9' (row 2), 'cafe\u0301' (row 3) look alike"),
        ("yes", "yes\u200b", "look alike"),
        ("a b", "a\u00a0b", "look alike"),
        ("\ufb01t", "fit", "alike"),
        ("Yes", "yes", "differ in upper and lower case alone"),
    ],
)
def test_labels_alike_to_the_eye_are_refused(one: str, other: str, told: str) -> None:
    labels = [one, other, "else", "else", "else"]
    modes = ["train", "train", "train", "valid", "test"]
    rows = [
        (f"p{k}", "words", label, mode)
        for k, (label, mode) in enumerate(zip(labels, modes, strict=True))
    ]
    found = problems(as_csv([("id", "text", "label", "mode"), *rows]).decode())
    assert any(told in problem for problem in found), found


def test_numbers_that_differ_are_classes() -> None:
    rows = [("a", "t", "1", "train"), ("b", "t", "-1", "train"), ("c", "t", "1", "valid"),
            ("d", "t", "1.5", "train"), ("e", "t", "1", "test")]  # fmt: skip
    read = read_labels(as_csv([("id", "text", "label", "mode"), *rows]))
    assert read.classes == ("-1", "1", "1.5")


@pytest.mark.parametrize("other", ["a ", " a", DECOMPOSED])
def test_ids_that_name_one_file_are_duplicates(other: str) -> None:
    first = COMPOSED if other == DECOMPOSED else "a"
    text = GOOD_FOLDER + f"{first},w,no,train\n{other},w,yes,train\n"
    assert any("is already in row" in problem for problem in problems(text))


def test_a_path_into_the_folder_of_images_is_the_name_of_its_file() -> None:
    rows = [("images/a.png", "t", "no", "train"), ("./images/b.png", "t", "yes", "train"),
            ("images\\c.png", "t", "no", "valid"), ("d", "t", "no", "test")]  # fmt: skip
    read = read_labels(as_csv([("id", "text", "label", "mode"), *rows]))
    assert [entry.id for entry in read.entries] == ["a.png", "b.png", "c.png", "d"]
    for path in ("x/images/a", "images/../a", "images/x/a"):
        text = GOOD_FOLDER.replace("b,y", f"{path},y")
        assert any("leads out of its folder" in problem for problem in problems(text))


SAFE = st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="/\\:")
TEXTS = st.text(st.characters(exclude_categories=("Cs",)), max_size=60)


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(
        st.text(SAFE, min_size=1, max_size=30).filter(lambda s: s.strip() and s not in (".", "..")),
        TEXTS,
        min_size=4,
        max_size=12,
    ).filter(lambda found: len({normalize("NFC", name.strip()) for name in found}) == len(found))
)
def test_any_ids_and_texts_survive_the_round_trip(texts: dict[str, str]) -> None:
    modes = ["train", "train", "valid", "test"] * 3
    labels = ["no", "yes"] * 6
    rows = [(i, t, labels[n], modes[n]) for n, (i, t) in enumerate(texts.items())]
    read = read_labels(as_csv([("id", "text", "label", "mode"), *rows]))
    assert [(e.id, e.text, read.classes[e.label], e.split) for e in read.entries] == rows


@settings(max_examples=150, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=300),
        st.binary(max_size=100).map(lambda data: GOOD_FOLDER.encode() + data),
        st.binary(max_size=100).map(lambda data: CLIPS.encode() + data),
        st.text(max_size=100).map(lambda text: (GOOD_CLIPS + text).encode("utf-8", "ignore")),
        st.text('",\n\r\0;a1', max_size=60).map(lambda text: (FOLDER + text).encode()),
    )
)
def test_arbitrary_bytes_give_labels_or_a_data_error(data: bytes) -> None:
    try:
        assert isinstance(read_labels(data), Labels)
    except DataError as error:
        assert error.problems and str(error)


@pytest.mark.skipif(not MOSI.is_file(), reason=f"no CMU-MOSI labels at {MOSI}")
def test_cmu_mosi_has_its_published_counts() -> None:
    entries = read_labels(MOSI.read_bytes()).entries
    clips, videos, signs = {}, {}, {}
    for split in ("train", "valid", "test"):
        part = [entry for entry in entries if entry.split == split]
        scores = [entry.score for entry in part if entry.score is not None]
        clips[split] = len(part)
        videos[split] = {entry.names[0] for entry in part}
        signs[split] = (sum(s < 0 for s in scores), scores.count(0.0), sum(s > 0 for s in scores))
    assert clips == {"train": 1284, "valid": 229, "test": 686}
    assert [len(found) for found in videos.values()] == [52, 10, 31]
    assert len(set().union(*videos.values())) == 93
    assert signs == {"train": (552, 53, 679), "valid": (92, 13, 124), "test": (379, 30, 277)}
