"""MELD as it is published comes through the same door as CMU-MOSI."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from clip_data import film, number_of
from PIL import Image

from evaluators.data import DataError, DataSet, check, load
from evaluators.data.layouts.known import MELD
from evaluators.data.layouts.meld import CLIP_FOLDERS, FILES
from evaluators.data.samples import SPLITS, Split

HEADER = (
    "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,"
    "StartTime,EndTime"
)
Row = tuple[int, int, str, str]
ROWS: dict[Split, list[Row]] = {
    "train": [
        (0, 0, "I can’t, he’s lost it", "negative"),
        (0, 1, "What?", "neutral"),
        (1, 0, "Oh—great!", "positive"),
    ],
    "valid": [(0, 0, "Hey!", "positive")],
    "test": [(0, 0, "Uhh…", "neutral"), (0, 1, "No.", "negative")],
}


def csv_text(rows: list[Row]) -> str:
    """The file as MELD has it: eleven columns, texts quoted."""
    lines = [
        f'{n},"{text}",Joey,joy,{sentiment},{dialogue},{utterance},1,2,"00:00:01,0","00:00:02,0"'
        for n, (dialogue, utterance, text, sentiment) in enumerate(rows, 1)
    ]
    return "\n".join([HEADER, *lines]) + "\n"


def in_controls(text: str) -> bytes:
    """UTF-8 in which code page 1252's characters are left as control characters."""
    return text.encode("cp1252").decode("latin-1").encode()


def meld(root: Path, rows: dict[Split, list[Row]] = ROWS, encoding: str = "utf-8") -> Path:
    """A folder in MELD's layout; the clip of utterance n has 5 + 2 n frames."""
    root.mkdir(parents=True)
    for split in SPLITS:
        text = csv_text(rows[split])
        data = in_controls(text) if encoding == "controls" else text.encode(encoding)
        (root / FILES[split]).write_bytes(data)
        for dialogue, utterance, *_ in rows[split]:
            name = f"dia{dialogue}_utt{utterance}.mp4"
            film(root / CLIP_FOLDERS[split] / name, 5 + 2 * utterance)
    return root


def loaded(root: Path) -> DataSet:
    """The few rows of these tests are not MELD's 13,708, which is a fault and accepted."""
    return load(root, cache=root.parent / "cache", accept_faults=True)


def picture(data: DataSet, n: int) -> Image.Image:
    return Image.open(data.samples[n].picture)


def test_the_three_files_become_three_splits_of_three_classes(tmp_path: Path) -> None:
    data = loaded(meld(tmp_path / "meld"))
    assert (data.kind, data.published) == ("meld", "MELD")
    assert data.classes == ("negative", "neutral", "positive")
    assert [sample.id for sample in data.samples] == [
        "train/dia0_utt0",
        "train/dia0_utt1",
        "train/dia1_utt0",
        "valid/dia0_utt0",
        "test/dia0_utt0",
        "test/dia0_utt1",
    ]
    assert [sample.label for sample in data.samples] == [0, 1, 2, 2, 1, 0]
    assert all(sample.score is None for sample in data.samples)
    assert [number_of(picture(data, n)) for n in range(6)] == [2, 3, 2, 2, 2, 3]


def test_dialogues_are_groups_of_their_split_alone(tmp_path: Path) -> None:
    data = loaded(meld(tmp_path / "meld"))
    assert [data.groups(split) for split in SPLITS] == [
        ("train/dia0", "train/dia1"),
        ("valid/dia0",),
        ("test/dia0",),
    ]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "cp1252", "controls"])
def test_texts_are_the_same_however_a_copy_spells_its_apostrophes(
    tmp_path: Path, encoding: str
) -> None:
    plain = loaded(meld(tmp_path / "plain"))
    assert plain.samples[0].text == "I can’t, he’s lost it"
    other = loaded(meld(tmp_path / "other", encoding=encoding))
    assert [s.text for s in other.samples] == [s.text for s in plain.samples]
    assert other.fingerprint == plain.fingerprint


def test_files_and_clips_may_lie_where_the_archives_unpack_to(tmp_path: Path) -> None:
    root = meld(tmp_path / "meld")
    first = loaded(root)
    for split, folder in zip(SPLITS, ("train", "dev", "test"), strict=True):
        (root / folder).mkdir()
        for name in (FILES[split], CLIP_FOLDERS[split]):
            shutil.move(root / name, root / folder / name)
    assert loaded(root).fingerprint == first.fingerprint


def test_a_prefixed_test_clip_stands_in_for_one_without(tmp_path: Path) -> None:
    root = meld(tmp_path / "meld")
    first = loaded(root)
    folder = root / "output_repeated_splits_test"
    film(folder / "final_videos_testdia0_utt0.mp4", 11)
    assert loaded(root).fingerprint == first.fingerprint
    (folder / "dia0_utt0.mp4").unlink()
    data = loaded(root)
    assert data.samples[4].id == "test/dia0_utt0" and number_of(picture(data, 4)) == 5


def test_texts_alone_need_no_clip(tmp_path: Path) -> None:
    root = meld(tmp_path / "meld")
    for folder in CLIP_FOLDERS.values():
        shutil.rmtree(root / folder)
    data = load(root, cache=tmp_path, modalities=("text",), accept_faults=True)
    assert len(data.samples) == 6 and not data.dropped


def test_the_counts_are_held_against_those_published(tmp_path: Path) -> None:
    root = meld(tmp_path / "meld")
    found = check(root, cache=tmp_path / "cache")
    assert found.known is MELD
    assert [fault.text for fault in found.faults] == [
        "train samples: 3, where MELD has 9,989",
        "valid samples: 1, where MELD has 1,109",
        "test samples: 2, where MELD has 2,610",
    ]
    with pytest.raises(DataError, match="3 counts that are not as published"):
        load(root, cache=tmp_path / "cache")


def test_a_row_whose_clip_no_copy_has_is_left_out_and_is_no_fault(tmp_path: Path) -> None:
    rows = {**ROWS, "train": [*ROWS["train"], (125, 3, "Hm", "neutral"), (125, 4, "So", "neutral")]}
    root = meld(tmp_path / "meld", rows)
    for n in (3, 4):
        (root / "train_splits" / f"dia125_utt{n}.mp4").write_bytes(b"broken")
    data = loaded(root)
    assert [item.id for item in data.dropped] == ["train/dia125_utt3", "train/dia125_utt4"]
    pictures = [fault.text for fault in data.faults if fault.kind == "picture"]
    assert len(pictures) == 1 and pictures[0].startswith("train/dia125_utt4: train_sent_emo.csv")
    assert "2 of 8 rows left out" in data.note
    assert "train/dia125_utt3: its published clip cannot be decoded" in data.note


def test_what_is_wrong_in_the_files_is_told_at_once_and_never_accepted(tmp_path: Path) -> None:
    rows = {
        **ROWS,
        "train": [*ROWS["train"], (0, 1, "again", "neutral"), (2, 0, "x", "happy")],
    }
    root = meld(tmp_path / "meld", rows)
    dev = (root / "dev_sent_emo.csv").read_text().replace(",0,0,", ",zero,0,")
    (root / "dev_sent_emo.csv").write_text(dev)
    (root / "test_sent_emo.csv").unlink()
    with pytest.raises(DataError) as caught:
        loaded(root)
    assert set(caught.value.problems) == {
        "test_sent_emo.csv: there is no such file; train_sent_emo.csv, dev_sent_emo.csv, "
        "test_sent_emo.csv are all needed",
        "train_sent_emo.csv row 6: Sentiment 'happy' is none of negative, neutral, positive; "
        "correct it",
        "dev_sent_emo.csv row 2: Dialogue_ID 'zero' is not a whole number; correct it or remove "
        "the row",
        "train_sent_emo.csv row 5: id 'train/dia0_utt1' is already in row 3; remove or rename one",
    }


def test_a_file_of_its_own_names_the_folder(tmp_path: Path) -> None:
    root = meld(tmp_path / "meld")
    assert loaded(root / "dev_sent_emo.csv").fingerprint == loaded(root).fingerprint


@pytest.mark.parametrize("text", ["", HEADER, "a,b\n1,2\n", HEADER + "\n1,2\n", "\x81\x00"])
def test_bad_files_are_refused(tmp_path: Path, text: str) -> None:
    root = meld(tmp_path / "meld")
    (root / "train_sent_emo.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=r"train_sent_emo\.csv"):
        loaded(root)
