"""Data on the command line: the check, faults that are accepted, and studies of text alone."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from clip_data import clips, mosi_rows, sounding
from tiny import SPACE, Place, new_place

from evaluators.data.synthetic.shape_set import shapes
from search_space import errors as codes
from studies.cli import app as cli
from studies.config.options import DataOptions, Preset
from studies.config.settings import Settings
from studies.study.context import load_space_of

Command = Callable[..., tuple[int, str, str]]
TINY = ("--data", "data", "--space", "tiny.toml", "--trunks", "frozen", "--threads", "1")
RUN = ("run", *TINY, "--seeds", "1", "--final-readings", "0")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return new_place(tmp_path / "place")


@pytest.fixture
def command(
    place: Place, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Command:
    """`fusion-nas` in this process, in the place: exit code, output, errors."""
    monkeypatch.chdir(place.folder)
    for name, value in place.environment().items():
        monkeypatch.setenv(name, value)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["fusion-nas", *arguments])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capfd.readouterr()
        return int(ended.value.code or 0), out, err

    return run


def test_the_check_says_that_good_data_pass(command: Command) -> None:
    code, out, err = command("data", "check", "data")
    assert code == 0, err
    assert "The data pass the check." in out and "fault" not in out
    assert all(split in out for split in ("train", "valid", "test"))


def test_the_check_puts_what_is_found_beside_what_is_known(place: Place, command: Command) -> None:
    clips(place.folder / "MOSI", mosi_rows())
    code, out, err = command("data", "check", "MOSI", "--text-only")
    assert code == 0, err
    for figure in ("1,284 / 1,284", "52 / 52", "379 / 379", "30 / 30", "277 / 277"):
        assert figure in out
    assert "CMU-MOSI as published" in out and out.count("!") == 1  # the legend's


def test_the_check_names_every_fault_in_a_row_of_its_own(place: Place, command: Command) -> None:
    rows = [(*row[:3], "valid") if row[0] == "03bSnISJMiM" else row for row in mosi_rows()]
    clips(place.folder / "MOSI", rows)
    code, out, err = command("data", "check", "MOSI", "--text-only", "--all")
    assert code == codes.DATA
    moved = sum(row[0] == "03bSnISJMiM" for row in rows)
    assert out.count("fault: label.csv row ") == moved > 20
    assert "51 / 52 !" in out and "fault: train videos: 51, where CMU-MOSI has 52" in out
    assert err.startswith(f"fusion-nas: MOSI: the data fail the check: {moved} rows in other")
    assert err.count("\n") == 1 and "--accept-faults" in err
    # Without --text-only, each row lacks its clip as well.
    code, out, err = command("data", "check", "MOSI")
    assert code == codes.DATA and "rows without a usable picture" in err
    assert out.count("\nfault: label.csv row ") == 10 and len(out.splitlines()) < 45
    assert f"and {moved - 10} more of the kind: --all prints them" in out
    lacking = int(re.search(r"([\d,]+) rows without a usable picture", err)[1].replace(",", ""))  # type: ignore[index]
    assert f"and {lacking - 10:,} more of the kind: --all prints them" in out
    assert "there is no folder Raw or Frames in it" in err


def test_the_check_looks_for_sounds_where_it_is_told_to(place: Place, command: Command) -> None:
    code, out, err = command("data", "check", "data", "--sound")
    assert code == codes.DATA and "rows without a usable sound" in err and err.count("\n") == 1
    assert "there is no folder sounds in it" in err and "leave sounds out with --modality" in err
    assert "fault: train00: label.csv row 2: no sounds/train00 with any of .wav, .flac" in out
    for name in [path.stem for path in (place.data / "images").iterdir()]:
        sounding(place.data / "sounds" / f"{name}.wav", seconds=0.2, codec="pcm_s16le")
    code, out, err = command("data", "check", "data", "--sound", "--text-only")
    assert code == 0 and "One sound and one text per sample" in out, err
    code, _, err = command("data", "check", "built-in:shapes", "--sound")
    assert code == codes.DATA and err.count("\n") == 1 and "has no sound" in err


def test_a_study_on_faulty_data_starts_only_when_told_to_and_says_so_everywhere(
    place: Place, command: Command
) -> None:
    (place.data / "images" / "train03.png").unlink()
    code, _, err = command(*RUN, "--trials", "1")
    assert code == codes.DATA and "train03: label.csv row 5" in err
    assert not (place.folder / "runs" / "fusion-nas.db").exists()
    told = ("--trials", "1", "--accept-faults", "--page", "page.html")
    code, out, err = command(*RUN, *told)
    assert code == 0, err
    summary = "1 row without a usable picture"
    assert summary in " ".join(out.split())
    assert summary in (place.folder / "page.html").read_text(encoding="utf-8")
    code, out, err = command("report", "--json")
    outcome = json.loads(out)
    assert summary in outcome["data"]["note"]
    assert summary in outcome["conditions"]["data check"]
    assert "train03: label.csv row 5" in outcome["conditions"]["data check"]
    assert any("--accept-faults" in caution for caution in outcome["cautions"])
    code, out, err = command("export", "0", "--out", "exported")
    assert code == 0, err
    assert summary in json.loads((place.folder / "exported" / "card.json").read_text())["data"]


def test_a_study_of_text_alone_needs_no_picture(place: Place, command: Command) -> None:
    shutil.rmtree(place.data / "images")
    code, _, err = command(*RUN, "--trials", "1")
    assert code == codes.DATA and "leave pictures out with --modality" in err
    code, out, err = command(*RUN, "--text-only", "--seed-paper", "--trials", "3", "--json")
    assert code == 0, err
    outcome = json.loads(out)
    first = outcome["trials"][0]
    assert first["name"] == "text-only" and first["state"] == "complete"
    assert outcome["data"]["note"].startswith("Texts alone, no pictures")
    assert len(outcome["trials"]) == 3 and not outcome["references"]
    assert not any(key.startswith("vision") for t in outcome["trials"] for key in t["params"])


def test_a_space_without_vision_encoders_is_one_of_text_alone(
    place: Place, command: Command
) -> None:
    space = SPACE[: SPACE.index("[[vision_encoder]]")].replace(
        'name = "tiny"', 'name = "texts"\nvision_encoder = []', 1
    )
    (place.folder / "tiny.toml").write_text(space)
    code, out, err = command("space", "tiny.toml")
    assert code == 0, err
    assert "text_tap_1" in out and "vision" not in out
    shutil.rmtree(place.data / "images")
    code, out, err = command(*RUN, "--trials", "1", "--json")
    assert code == 0, err
    assert [t["state"] for t in json.loads(out)["trials"]] == ["complete"]


def test_a_list_of_fused_designs_is_no_study_of_text_alone(command: Command) -> None:
    code, _, err = command(*RUN, "--text-only", "--study", "tokens")
    assert code == codes.USAGE and "study tokens compares designs of both modalities" in err


def test_a_study_of_the_built_in_shapes_says_what_they_are(
    place: Place, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shapes, "PICTURES", {"train": 30, "valid": 10, "test": 10})
    code, out, err = command("data", "check", "built-in:shapes")
    assert code == 0 and "say nothing about real data" in out, err
    told = ("--trials", "1", "--page", "page.html")
    code, out, err = command("run", "--data", "built-in:shapes", *RUN[3:], *told)
    assert code == 0, err
    said = "Synthetic data, drawn from a seed"
    assert said in " ".join(out.split())
    assert said in (place.folder / "page.html").read_text(encoding="utf-8")
    code, out, err = command("report", "--json")
    outcome = json.loads(out)
    assert outcome["study"] == "pareto-shapes-tiny" and said in outcome["data"]["note"]
    assert outcome["ceilings_percent"] == {"text": 50.0, "vision": 50.0, "both": 100.0}
    assert outcome["conditions"]["data"].startswith("built-in:shapes: 60 train, 20 valid, 20 test")
    code, out, err = command("export", "0", "--out", "exported")
    assert code == 0, err
    assert said in json.loads((place.folder / "exported" / "card.json").read_text())["data"]


def test_built_in_data_have_no_faults_to_accept_and_other_names_are_refused(
    command: Command,
) -> None:
    code, _, err = command("run", "--data", "built-in:shapes", "--accept-faults")
    assert code == codes.USAGE and "built-in data have no faults; leave it out" in err
    for arguments in (("run", "--data", "built-in:houses"), ("data", "check", "built-in:houses")):
        code, _, err = command(*arguments)
        assert code == codes.USAGE and err.count("\n") == 1
        assert "'built-in:houses': choose one of built-in:faces, built-in:shapes" in err


def test_the_demo_space_is_the_default_for_every_built_in_set() -> None:
    for data in (None, "built-in:faces", "built-in:shapes"):
        given = Settings(Preset("pareto"), data=DataOptions(data))
        assert load_space_of(given).name == "demo"


def classes_of(folder: Path, count: int) -> None:
    rows = ["id,text,label,mode"]
    for split in ("train", "valid", "test"):
        for k in range(count):
            rows.append(f"{split}{k},words,a class of number {k},{split}")
    folder.mkdir()
    (folder / "label.csv").write_text("\n".join(rows))


def test_the_check_of_many_classes_is_readable_at_80_columns(
    place: Place, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    classes_of(place.folder / "many", 12)
    code, out, err = command("data", "check", "many", "--text-only")
    assert code == 0, err
    assert max(map(len, out.split("Texts alone")[0].splitlines())) <= 80
    for k in range(12):
        (line,) = [line for line in out.splitlines() if f"a class of number {k} " in line]
        assert [cell.strip() for cell in line.split("│")[2:5]] == ["1", "1", "1"]


@pytest.mark.parametrize("columns", ["0", "1", "-5", "wide"])
def test_a_width_of_too_few_columns_prints_all_the_same(
    command: Command, monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    code, out, err = command("data", "check", "data")
    assert code == 0 and "The data pass the check." in out and "majority" in out, err


def test_names_that_look_like_markup_are_printed_as_they_are(
    place: Place, command: Command
) -> None:
    text = (place.folder / "tiny.toml").read_text().replace('name = "tiny', 'name = "[/b]:ok:tiny')
    (place.folder / "tiny.toml").write_text(text)
    code, out, err = command("space", "tiny.toml")
    assert code == 0 and "[/b]:ok:tiny" in out and "[/b]:ok:tiny-bert" in out, err
    label = place.data / "label.csv"
    label.write_text(label.read_text().replace("dark", "[/b]"))
    code, out, err = command("data", "check", "data")
    assert code == 0 and "[/b]" in out, err
