"""Folders become data sets, or errors that tell what to do."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evaluators.data import DataError, DataSet, load, read_image
from evaluators.training.config import named_protocol
from evaluators.training.plan import TrainingPlan
from search_space.design.encoder import spec_for

SHARED = Path(os.environ.get("FUSION_NAS_SHARED") or Path(__file__).parents[3] / ".." / "shared")

MODES = ["train"] * 120 + ["valid"] * 40 + ["test"] * 40


def picture(path: Path, shade: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 6), (shade % 256, 90, 40)).save(path)


def folder(root: Path, modes: list[str] = MODES) -> Path:
    rows = [f"{n:04d},text {n},{('no', 'yes')[n % 2]},{mode}" for n, mode in enumerate(modes)]
    root.mkdir(parents=True, exist_ok=True)
    (root / "label.csv").write_text("\n".join(["id,text,label,mode", *rows]))
    for n in range(len(modes)):
        picture(root / "images" / f"{n:04d}.png", n)
    return root


def loaded(root: Path, accept_faults: bool = False) -> DataSet:
    return load(root, cache=root.parent / "cache", accept_faults=accept_faults)


def test_a_folder_becomes_samples_in_the_order_of_its_file(tmp_path: Path) -> None:
    data = loaded(folder(tmp_path / "set"))
    assert (data.name, data.kind, data.classes) == ("set", "folder", ("no", "yes"))
    assert [len(data.split(name)) for name in ("train", "valid", "test")] == [120, 40, 40]
    first = data.samples[0]
    assert (first.id, first.group, first.text, first.label) == ("0000", "0000", "text 0", 0)
    assert first.image.is_absolute() and read_image(first.image, 4).shape == (3, 4, 4)
    assert data.counts("train") == (60, 60) and data.majority("train") == (0, 0.5)
    assert data.ceilings is None and not data.dropped
    assert pickle.loads(pickle.dumps(data)) == data


def sharing(root: Path, rows: list[str]) -> Path:
    """A folder of two pictures, `a` and `b`, with a column that says whose text a row is."""
    root.mkdir(parents=True)
    others = ["v,b,other,yes,valid", "t,c,third,no,test"]
    lines = ["id,image,text,label,mode", *rows, *others]
    (root / "label.csv").write_text("\n".join(lines), encoding="utf-8")
    for shade, name in enumerate("abc"):
        picture(root / "images" / f"{name}.png", 50 * shade)
    return root


def test_several_texts_may_be_about_one_picture(tmp_path: Path) -> None:
    root = sharing(tmp_path / "set", ["1,a,red,yes,train", "2,a,green,no,train"])
    first, second, *_ = loaded(root).samples
    assert (first.id, second.id, first.group, second.group) == ("1", "2", "a", "a")
    assert first.picture == second.picture == root / "images" / "a.png"


def test_a_shared_picture_in_two_splits_is_a_fault(tmp_path: Path) -> None:
    rows = ["1,a,red,yes,train", "2,a,green,no,train", "3,a,blue,no,test"]
    with pytest.raises(DataError, match="1 row in another split than its video or picture") as told:
        loaded(sharing(tmp_path / "set", rows))
    assert "3 is in test, and its picture a in 2 splits (rows: 2 in train, 1 in test)" in str(
        told.value
    )


@pytest.mark.parametrize(
    ("image", "said"),
    [("../a", "leads out of its folder"), ("", "is empty"), ("d", "no images/d with any of")],
)
def test_a_picture_that_cannot_be_meant_is_named_with_its_row(
    tmp_path: Path, image: str, said: str
) -> None:
    rows = ["1,a,red,yes,train", f"2,{image},green,no,train"]
    with pytest.raises(DataError, match=r"label\.csv row 3") as told:
        loaded(sharing(tmp_path / "set", rows))
    assert said in str(told.value)


def test_the_label_file_itself_can_be_named(tmp_path: Path) -> None:
    root = folder(tmp_path / "set")
    assert loaded(root).samples == load(root / "label.csv", cache=tmp_path / "cache").samples


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".png", ".webp", ".bmp", ".JPG"])
def test_images_may_be_of_any_usual_kind(tmp_path: Path, suffix: str) -> None:
    root = folder(tmp_path / "set", ["train", "train", "valid", "test"])
    (root / "images" / "0000.png").unlink()
    picture(root / "images" / f"0000{suffix}")
    assert loaded(root).samples[0].image.name == f"0000{suffix}"


def test_rows_without_a_picture_are_a_fault_each_and_left_out_where_that_is_accepted(
    tmp_path: Path,
) -> None:
    root = folder(tmp_path / "set")
    (root / "images" / "0003.png").unlink()
    (root / "images" / "0150.png").write_bytes(b"not a picture")
    with pytest.raises(DataError) as caught:
        loaded(root)
    first, *rows, advice = str(caught.value).splitlines()
    assert first == (
        f"{root}: the data fail the check: 2 rows without a usable picture (200 rows in all)"
    )
    assert [row.split(":")[:2] for row in rows] == [
        ["  0003", " label.csv row 5"],
        ["  0150", " label.csv row 152"],
    ]
    assert "no images/0003 with any of" in rows[0] and "not a readable image" in rows[1]
    assert "--accept-faults" in advice
    data = loaded(root, accept_faults=True)
    assert len(data.samples) == 198 and [item.id for item in data.dropped] == ["0003", "0150"]
    assert [fault.kind for fault in data.faults] == ["picture", "picture"]
    assert "2 of 200 rows left out" in data.note
    assert "The data fail the check and were used all the same: 2 rows without" in data.note


def test_data_that_pass_have_no_faults_and_the_same_fingerprint_either_way(tmp_path: Path) -> None:
    root = folder(tmp_path / "set")
    assert loaded(root) == loaded(root, accept_faults=True)
    assert not loaded(root).faults and "fail" not in loaded(root).note


def test_faults_are_part_of_the_fingerprint(tmp_path: Path) -> None:
    root = folder(tmp_path / "set")
    (root / "images" / "0003.png").unlink()
    faulty = loaded(root, accept_faults=True)
    labels = (root / "label.csv").read_text().splitlines()
    (root / "label.csv").write_text("\n".join(labels[:4] + labels[5:]))
    clean = loaded(root)
    assert clean.samples == faulty.samples and clean.fingerprint != faulty.fingerprint


def test_nothing_left_is_an_error_even_where_faults_are_accepted(tmp_path: Path) -> None:
    root = folder(tmp_path / "set")
    for number in range(120, 160):
        (root / "images" / f"{number:04d}.png").unlink()
    with pytest.raises(DataError, match="no usable sample is left in valid"):
        loaded(root, accept_faults=True)
    shutil.rmtree(root / "images")
    with pytest.raises(DataError, match=r"there is no folder images in it; .* with --modality"):
        loaded(root)


def test_a_class_without_any_usable_training_picture_is_an_error(tmp_path: Path) -> None:
    root = folder(tmp_path / "set")
    for number in range(0, 120, 2):
        (root / "images" / f"{number:04d}.png").unlink()
    with pytest.raises(DataError, match="no usable sample of class 'no' is left in train"):
        loaded(root, accept_faults=True)


def test_unknown_modalities_are_refused(tmp_path: Path) -> None:
    for wrong in ((), ("sound",), ("text", "video")):
        with pytest.raises(ValueError, match="give some of text, vision, audio"):
            load(tmp_path, cache=tmp_path, modalities=wrong)  # type: ignore[arg-type]


def test_texts_alone_need_no_picture_and_look_for_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = folder(tmp_path / "set")
    both = loaded(root)
    shutil.rmtree(root / "images")
    monkeypatch.setattr("evaluators.data.media.pictures.Pictures.find", None)
    texts = load(root, cache=tmp_path / "cache", modalities=("text",))
    assert [replace(sample, image=None) for sample in both.samples] == list(texts.samples)
    assert texts.modalities == ("text",) and both.modalities == ("text", "vision")
    assert texts.fingerprint != both.fingerprint
    assert not texts.faults and texts.note.startswith("Texts alone, no pictures")
    with pytest.raises(DataError, match=r"0000: the data were read without pictures"):
        _ = texts.samples[0].picture


def test_fingerprints_without_sound_are_what_they_were_before_sound_was_read(
    tmp_path: Path,
) -> None:
    """Everything that was kept of such data is found under them."""
    root = tmp_path / "set"
    sharing(root, ["1,a,red,yes,train", "2,a,green,no,train"])
    for shade, name in enumerate("abc"):
        (root / "images" / f"{name}.png").unlink()
        Image.new("RGB", (2, 2), (50 * shade, 90, 40)).save(root / "images" / f"{name}.bmp")
    texts = load(root, cache=tmp_path / "cache", modalities=("text",))
    assert (loaded(root).fingerprint[:16], texts.fingerprint[:16]) == (
        "f6d347bcfb531330",
        "99e3329ee4df9c74",
    )


def test_places_without_labels_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no such folder"):
        loaded(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"there is no label\.csv in it"):
        loaded(tmp_path)


def test_the_fingerprint_follows_content_and_not_place(tmp_path: Path) -> None:
    root = folder(tmp_path / "set")
    first = loaded(root).fingerprint
    moved = shutil.copytree(root, tmp_path / "elsewhere" / "moved")
    assert loaded(root).fingerprint == first == loaded(moved).fingerprint
    seen = {first}
    labels = (root / "label.csv").read_text()
    for old, new in (("text 7,", "text 8,"), ("text 7,yes", "text 7,no"), ("0199,", "0200,")):
        shutil.copy(root / "images" / "0199.png", root / "images" / "0200.png")
        (root / "label.csv").write_text(labels.replace(old, new))
        seen.add(loaded(root).fingerprint)
    (root / "label.csv").write_text(labels)
    picture(root / "images" / "0009.png", 77)
    seen.add(loaded(root).fingerprint)
    assert len(seen) == 5


def test_a_second_load_reads_no_unchanged_picture_but_sees_a_changed_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = folder(tmp_path / "set")
    for path in (root / "images").iterdir():
        os.utime(path, (1_000_000, 1_000_000))
    first = loaded(root)
    looked: list[Path] = []
    monkeypatch.setattr("evaluators.data.media.pictures.check_image", looked.append)
    assert loaded(root) == first and not looked
    picture(root / "images" / "0009.png", 77)
    assert loaded(root).fingerprint != first.fingerprint
    assert [path.name for path in looked] == ["0009.png"]


def test_a_damaged_index_costs_time_and_nothing_else(tmp_path: Path) -> None:
    root = folder(tmp_path / "set")
    for path in (root / "images").iterdir():
        os.utime(path, (1_000_000, 1_000_000))
    first = loaded(root)
    (index,) = (tmp_path / "cache" / "index").glob("*.json")
    whole = index.read_text()
    key = next(iter(json.loads(whole)["files"].values()))[2]
    altered = whole.replace(key, key[::-1]).encode()
    for content in (b"", b"[]", b'{"version": 1, "files": {"a": 3}}', b"\xff", altered):
        index.write_bytes(content)
        assert loaded(root) == first


def test_progress_is_told_after_each_row(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    root = folder(tmp_path / "set", ["train", "train", "valid", "test"])
    load(root, cache=tmp_path / "cache", progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]


@pytest.mark.parametrize(
    ("name", "counts", "classes"),
    [
        ("tweets", [2100, 450, 450], ("negative", "neutral", "positive")),
        ("nlvr", [2082, 441, 444], ("false", "true")),
    ],
)
def test_real_folders_load_whole(
    tmp_path: Path, name: str, counts: list[int], classes: tuple[str, ...]
) -> None:
    root = SHARED / "data" / name
    if not root.is_dir():
        pytest.skip(f"no data at {root}")
    data = load(root, cache=tmp_path)
    assert [len(data.split(split)) for split in ("train", "valid", "test")] == counts
    assert data.classes == classes and data.kind == "folder"
    assert read_image(data.samples[0].image, 16).dtype == np.uint8


@pytest.mark.parametrize(
    ("name", "on_disk"),
    [
        ("p0.png", "p0.png"),
        ("p0.jpg", "p0.jpg"),
        ("images/p0.png", "p0.png"),
        ("p0", "p0.Png"),
        ("p0.PNG", "p0.png"),
        ("p0 ", "p0.png"),
        ("caf\u00e9", "cafe\u0301.png"),
        ("cafe\u0301", "caf\u00e9.png"),
        ("v1.2", "v1.2.png"),
    ],
)
def test_pictures_are_found_as_people_name_them(tmp_path: Path, name: str, on_disk: str) -> None:
    root = tmp_path / "set"
    rows = [f"{name},t,no,train", "q,t,yes,train", "r,t,no,valid", "s,t,yes,test"]
    for each in ("q", "r", "s"):
        picture(root / "images" / f"{each}.png", 7)
    Image.new("RGB", (8, 6)).save(root / "images" / on_disk, "JPEG" if "jpg" in on_disk else "PNG")
    (root / "label.csv").write_text("\n".join(["id,text,label,mode", *rows]))
    data = loaded(root)
    assert data.samples[0].picture.name == on_disk
    assert data.samples[0].id == name.removeprefix("images/")


def test_clips_are_found_in_another_unicode_form_and_case(tmp_path: Path) -> None:
    from evaluators.data.files import FileIndex
    from evaluators.data.layouts.entries import Entry
    from evaluators.data.media.pictures import Pictures

    root = tmp_path / "set"
    clip = root / "Raw" / "cafe\u0301" / "1.MP4"
    clip.parent.mkdir(parents=True)
    clip.write_bytes(b"film")
    finder = Pictures(root, "clips", tmp_path / "cache", FileIndex(tmp_path / "cache", root))
    entry = Entry("label.csv", 2, ("caf\u00e9", "1"), "caf\u00e9", "t", 0, 0.0, "train")
    assert finder._clip(entry) == clip


def test_a_git_lfs_pointer_is_named_in_place_of_labels_and_pictures(tmp_path: Path) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 99\n"
    root = folder(tmp_path / "set", ["train", "train", "valid", "test"])
    (root / "images" / "0000.png").write_text(pointer)
    with pytest.raises(DataError, match="Git-LFS pointer: run `git lfs pull`"):
        loaded(root)
    (root / "label.csv").write_text(pointer)
    with pytest.raises(DataError, match=r"label.csv is a Git-LFS pointer"):
        loaded(root)


def without_texts(root: Path) -> Path:
    """The folder of `folder`, its label file without a column of texts."""
    folder(root)
    lines = (root / "label.csv").read_text().splitlines()
    rows = [line.split(",") for line in lines]
    (root / "label.csv").write_text("\n".join(f"{a},{c},{d}" for a, _, c, d in rows))
    return root


def test_pictures_need_no_texts(tmp_path: Path) -> None:
    root = without_texts(tmp_path / "set")
    data = load(root, cache=tmp_path / "cache", modalities=("vision",))
    assert data.modalities == ("vision",) and {sample.text for sample in data.samples} == {""}
    assert data.note.startswith("One image per sample, 2 classes")
    with pytest.raises(DataError, match="no column text; add one, or name what is to be read"):
        loaded(root)


def test_texts_that_are_all_alike_are_noticed_and_not_trained_on(tmp_path: Path) -> None:
    root = folder(tmp_path / "set")
    assert loaded(root).uninformative == ()
    lines = (root / "label.csv").read_text().splitlines()
    rows = [line.split(",") for line in lines[1:]]
    (root / "label.csv").write_text(
        "\n".join([lines[0], *(f"{a},a digit,{c},{d}" for a, _, c, d in rows)])
    )
    data = loaded(root)
    assert data.uninformative == ("text",)
    assert data.note.endswith("; all texts are alike and say nothing of the class.")
    spec = spec_for("text", "bert-base-uncased", "random")
    plan = TrainingPlan(replace(named_protocol("fair", 0), trunks="tuned"), {}, {})
    assert plan.is_tuned(spec)
    assert not replace(plan, uninformative=data.uninformative).is_tuned(spec)
