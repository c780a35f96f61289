"""Everything that can be given wrong: one line that names it and the way out, the right exit
code, no traceback, and nothing lost."""

import os
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import optuna
import pytest
import torch
from safetensors.torch import save
from sentence_pieces import write_encoder
from tiny import SPACE, Place, finished_place

from evaluators.cached_files import write_cached
from evaluators.evaluation import NotFiniteError
from evaluators.latency.evaluator import LatencyEvaluator, MeasureError
from evaluators.quality.evaluator import QualityEvaluator
from search_space import errors as codes
from studies.cli import app as cli
from studies.config.options import DataOptions
from studies.config.usage import UsageError
from studies.infra.locations import StorageError, store_url

TINY = ("--data", "data", "--space", "tiny.toml", "--trunks", "frozen", "--threads", "1")
RUN = ("run", *TINY, "--seeds", "1", "--final-readings", "0")


@dataclass(frozen=True)
class Said:
    """What a command came to."""

    code: int
    out: str
    err: str


Command = Callable[..., Said]


@pytest.fixture
def finished(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return finished_place(tmp_path_factory.getbasetemp())


@pytest.fixture
def place(tmp_path: Path, finished: Place) -> Place:
    """A copy of the finished study's place."""
    shutil.copytree(finished.folder, tmp_path / "place", symlinks=True)
    return Place(tmp_path / "place")


@pytest.fixture
def command(
    place: Place, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Command:
    """`fusion-nas` in this process, in the place."""
    monkeypatch.chdir(place.folder)
    for name, value in place.environment().items():
        monkeypatch.setenv(name, value)

    def run(*arguments: str) -> Said:
        monkeypatch.setattr(sys, "argv", ["fusion-nas", *arguments])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capfd.readouterr()
        record(arguments, Said(int(ended.value.code or 0), out, err))
        return Said(int(ended.value.code or 0), out, err)

    return run


def record(arguments: tuple[str, ...], said: Said) -> None:
    """Writes what was said to the file that FUSION_NAS_SAID names, for people to read."""
    if file := os.environ.get("FUSION_NAS_SAID"):
        with open(file, "a", encoding="utf-8") as kept:
            print(f"$ fusion-nas {' '.join(arguments)}\n[{said.code}] {said.err}", file=kept)


def one_line(said: Said, code: int, *words: str) -> None:
    assert said.code == code, said
    assert said.err.startswith("fusion-nas: "), said
    assert said.err.count("\n") == 1, said
    assert "Traceback" not in said.err
    for word in words:
        assert word in said.err, (word, said.err)


BAD_FLAGS = [
    (("--study", "nosuch"), ("no study 'nosuch'", "choose ", "pareto")),
    (("--space", "nosuch"), ("'nosuch'", "choose demo or fusion-1152 or fusions or paper")),
    (("--data", "nowhere"), ("--data nowhere", "label.csv")),
    (("--trials", "0"), ("--trials 0", "give 1 or more")),
    (("--trials", "x"), ("--trials", "'x'", "--help")),
    (("--latency-limit", "-1"), ("--latency-limit -1.0", "above 0")),
    (("--latency-limit", "nan"), ("--latency-limit nan", "above 0")),
    (("--reuse", "image=1.5"), ("--reuse 'image=1.5'", "from 0 to 1, as image=0.8")),
    (("--reuse", "image=-0.1"), ("--reuse 'image=-0.1'", "from 0 to 1")),
    (("--reuse", "text=nan"), ("--reuse 'text=nan'", "from 0 to 1, as text=0.8")),
    (("--reuse", "image"), ("--reuse 'image'", "as image=0.8")),
    (("--reuse", "vision=0.8"), ("--reuse 'vision=0.8'", "give image, text or sound")),
    (("--reuse", "image=0.8", "--reuse", "image=0.5"), ("image is given twice", "leave one out")),
    (("--reuse", "sound=0.5"), ("--reuse sound=0.5: no design of", "reads audio")),
    (("--reuse", "image=0.5", "--deferred-timing"), ("--reuse image=0.5 with --deferred-timing",)),
    (("--reuse", "image=0.5", "--time-missing"), ("with --time-missing", "leave one of them out")),
    (("--reuse", "image=0.5", "--objective", "memory"), ("peak memory is that of one graph",)),
    (("--reuse", "image=0.5", "--rewrites", "own-length"), ("fixed shapes", "--rewrites all")),
    (("--latency-limit", "inf"), ("--latency-limit inf", "above 0")),
    (("--seed", "-1"), ("--seed -1", "0 to 4294967295")),
    (("--seed", "100000000000000000000"), ("--seed 100000000000000000000", "0 to 4294967295")),
    (("--seeds", "0"), ("--seeds 0", "1 to 100")),
    (("--seed", "4294967295", "--seeds", "2"), ("--seeds 2", "smaller --seed")),
    (("--threads", "-1"), ("--threads -1", "0 (the runtime's choice) to 1024")),
    (("--threads", "5000"), ("--threads 5000", "0 (the runtime's choice) to 1024")),
    (("--sampler", "x"), ("--sampler 'x'", "tpe, ehvi, gp, nsga2, random")),
    (("--sampler", "tpe", "--deferred-timing"), ("--sampler tpe with --deferred-timing", "ehvi")),
    (("--timing", "x"), ("--timing 'x'", "auto, alone, shared")),
    (("--trunks", "x"), ("--trunks 'x'", "auto, frozen, text-tuned, tuned, by-stage")),
    (("--image-merging", "-1"), ("--image-merging -1", "0 (no merging) or more")),
    (("--image-merging", "2", "--image-merging", "2"), ("--image-merging: a number is given",)),
    (("--lora-rank", "-1"), ("--lora-rank -1", "0 (no adapters) or more")),
    (("--lora-rank", "4", "--lora-rank", "4"), ("--lora-rank: a rank is given twice",)),
    (("--lora-rank", "17"), ("lora_rank = [17]", "of tiny-bert are 16", "ranks up to 16")),
    (("--lora-rank", "4", "--trunks", "whole"), ("--trunks whole with adapters", "leave one out")),
    (("--text-only", "--vision-encoder", "x"), ("--text-only", "--vision-encoder x", "one of")),
    (("--weights", "x"), ("--weights 'x'", "pretrained, random")),
    (("--device", "x"), ("--device 'x'", "local")),
    (("--nonsense",), ("--nonsense", "--help")),
    (("--text-encoder", "./nowhere"), ("./nowhere", "no such folder")),
    (("--vision-encoder", "timm/nosuch"), ("'nosuch'", "timm")),
    (("--page", "data"), ("--page data", "name a file")),
    (("--page", "tiny.toml/page.html"), ("--page tiny.toml/page.html", "name another file")),
]


@pytest.mark.parametrize(("flags", "words"), BAD_FLAGS, ids=[" ".join(f) for f, _ in BAD_FLAGS])
def test_a_flag_that_cannot_be_meant(
    command: Command, flags: tuple[str, ...], words: tuple[str, ...]
) -> None:
    one_line(command(*RUN, *flags), codes.USAGE, *words)


def test_compile_where_there_is_no_card_to_compile_for(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    one_line(command(*RUN, "--compile"), codes.USAGE, "--compile", "no CUDA GPU", "leave it out")


def test_accepting_faults_of_data_that_have_none(command: Command) -> None:
    said = command("run", "--space", "tiny.toml", "--accept-faults")
    one_line(said, codes.USAGE, "--accept-faults without --data", "leave it out")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("trials = ", ("not TOML",)),
        ('title = "t"\ntrials = true\n', ("seed is missing", "trials = True is not int")),
        ("colour = 3\n", ("colour is not a setting",)),
    ],
)
def test_a_malformed_preset(
    command: Command, place: Place, text: str, words: tuple[str, ...]
) -> None:
    (place.folder / "mine.toml").write_text(text)
    one_line(command(*RUN, "--study", "mine.toml"), codes.USAGE, "mine.toml", *words)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name = ", ("not TOML",)),
        (SPACE.replace("widths = [0, 16]", "widths = [16, 0]"), ("widths = [16, 0]", "rising")),
        (SPACE.replace('"gated"', '"glued"'), ("operators: 'glued' is none of",)),
    ],
)
def test_a_malformed_space(
    command: Command, place: Place, text: str, words: tuple[str, ...]
) -> None:
    (place.folder / "tiny.toml").write_text(text)
    one_line(command(*RUN), codes.USAGE, "tiny.toml", *words)


def test_an_encoder_folder_without_weights(command: Command, place: Place) -> None:
    folder = place.folder / "bert"
    folder.mkdir()
    one_line(command(*RUN, "--text-encoder", "./bert"), codes.ENCODER, "./bert", "config.json")
    config = '{"model_type": "bert", "hidden_size": 16, "num_hidden_layers": 2,'
    config += ' "num_attention_heads": 2, "intermediate_size": 32, "vocab_size": 64}'
    (folder / "config.json").write_text(config)
    one_line(command(*RUN, "--text-encoder", "./bert", "--name", "new"), codes.ENCODER, "bert")


def test_an_encoder_that_has_no_form_in_onnx(command: Command, place: Place) -> None:
    write_encoder(place.folder / "fnet", "fnet")  # of Fourier transforms
    said = command(*RUN, "--text-encoder", "./fnet", "--name", "new", "--trials", "1")
    one_line(said, codes.ENCODER, "fnet", "cannot be written as ONNX", "choose another encoder")
    assert "graph(" not in said.out


def test_a_hub_id_that_is_not_in_the_cache(command: Command) -> None:
    said = command(*RUN, "--text-encoder", "nobody/nothing")
    one_line(said, codes.ENCODER, "nobody/nothing", "cache")


BAD_LABELS = {
    "missing columns": ("id,text\n1,a\n", ("no column label, mode",)),
    "empty": ("", ("the file is empty",)),
    "many": (
        "id,text,label,mode\na,x,dark,train\na,x,,train\nb,x,dark,often\n",
        ("row 3: id 'a' is already in row 2", "row 3: label", "row 4: mode 'often'"),
    ),
    "broken UTF-8": ("id,text,label,mode\na,\udcff,dark,train\n", ("UTF-8",)),
}


@pytest.mark.parametrize(("text", "words"), BAD_LABELS.values(), ids=BAD_LABELS)
def test_labels_that_are_wrong_are_all_told_at_once(
    command: Command, place: Place, text: str, words: tuple[str, ...]
) -> None:
    file = place.data / "label.csv"
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    said = command(*RUN)
    assert said.code == codes.DATA and "Traceback" not in said.err
    first, *_ = said.err.splitlines()
    assert re.fullmatch(r"fusion-nas: label\.csv: \d+ problems?", first), first
    for word in words:
        assert word in said.err
    assert command("data", "check", "data").err == said.err


@pytest.mark.parametrize("kind", ["missing", "broken"])
def test_a_picture_that_cannot_be_read(command: Command, place: Place, kind: str) -> None:
    picture = place.data / "images" / "train03.png"
    picture.unlink() if kind == "missing" else picture.write_bytes(b"no picture")
    said = command(*RUN)
    assert said.code == codes.DATA and "Traceback" not in said.err
    first, *_ = said.err.splitlines()
    assert "the data fail the check: 1 row without a usable picture (64 rows in all)" in first
    assert "train03: label.csv row 5" in said.err and "--accept-faults" in said.err


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("runs/x.db", ("'runs/x.db'", "not a URL", "sqlite:///")),
        ("sqlite:///data", ("sqlite:///data", "--storage")),
        ("sqlite:///tiny.toml", ("sqlite:///tiny.toml", "not a database")),
        ("sqlite:///tiny.toml/x.db", ("tiny.toml/x.db", "no folder for it", "--storage")),
        ("nonsense://x", ("nonsense://x", "--storage")),
    ],
)
def test_a_storage_that_cannot_be_opened(
    command: Command, url: str, words: tuple[str, ...]
) -> None:
    one_line(command(*RUN, "--storage", url), codes.STORAGE, *words)


@pytest.mark.parametrize("trials", [0, 1])
def test_a_study_that_others_made_is_left_alone(
    command: Command, place: Place, trials: int
) -> None:
    study = optuna.create_study(storage=place.url, study_name="theirs")
    for _ in range(trials):
        study.ask()
    said = command(*RUN, "--name", "theirs")
    one_line(said, codes.STORAGE, "'theirs'", "not made by fusion-nas", "--name")
    one_line(command("report", "--name", "theirs"), codes.STORAGE, "'theirs'", "--name")
    again = optuna.load_study(study_name="theirs", storage=place.url)
    assert len(again.trials) == trials and not again.user_attrs


NAMED = ("--name", "pareto-data-tiny", "--trials", "6")


@pytest.mark.parametrize(
    ("flags", "what"),
    [
        (("--seed", "1"), "training protocol or seed"),
        (("--latency-limit", "5"), "latency limit"),
        (("--threads", "2"), "threads"),
        (("--timing", "alone"), "timing"),
        (("--space", "other.toml"), "space"),
        ((), "data"),
    ],
)
def test_a_study_made_under_other_conditions_is_left_alone_and_told_which(
    command: Command, place: Place, flags: tuple[str, ...], what: str
) -> None:
    other = SPACE.replace("widths = [0, 16]", "widths = [0, 8, 16]")
    (place.folder / "other.toml").write_text(other)
    if not flags:
        label = place.data / "label.csv"
        label.write_text(label.read_text().replace("a night", "a bright", 1))
    # Do not copy the file: recent trials may be in its write-ahead log only.
    count = "SELECT count(*) FROM trials"
    with sqlite3.connect(place.folder / "runs" / "fusion-nas.db") as db:
        before = db.execute(count).fetchall()
    said = command(*RUN, *NAMED, *flags)
    *_, last = said.err.splitlines()
    assert said.code == codes.STORAGE
    assert f"was made with another {what}: repeat its command" in last
    with sqlite3.connect(place.folder / "runs" / "fusion-nas.db") as db:
        assert db.execute(count).fetchall() == before


def test_a_report_or_an_export_without_a_study(command: Command, place: Place) -> None:
    url = "sqlite:///runs/none.db"
    one_line(command("report", "--storage", url), codes.STORAGE, url, "run a study first")
    one_line(command("export", "0", "--storage", url), codes.STORAGE, url, "run a study first")
    one_line(command("report", "--name", "x"), codes.USAGE, "no study 'x'", "pareto-data-tiny")
    assert not (place.folder / "runs" / "none.db").exists()


def test_a_trial_that_cannot_be_exported(command: Command, place: Place) -> None:
    one_line(command("export", "99"), codes.USAGE, "no trial 99", "0 to 4")
    done = command(*RUN, "--latency-limit", "0.0001", "--trials", "1", "--name", "slow")
    assert done.code == 0
    said = command("export", "0", "--name", "slow")
    one_line(said, codes.USAGE, "trial 0 has no trained network", "over the latency limit", "front")
    said = command("export", "0", "--name", "pareto-data-tiny", "--out", "tiny.toml")
    one_line(said, codes.USAGE, "--out tiny.toml", "name a folder")


def test_a_report_whose_page_cannot_be_written(command: Command) -> None:
    one_line(command("report", "--page", "data"), codes.USAGE, "--page data", "name a file")


def test_the_page_of_a_study_is_tried_before_the_study_runs(command: Command, place: Place) -> None:
    shutil.rmtree(place.folder / "runs")
    (place.folder / "runs").write_text("no folder")
    kept = len(place.kept())
    said = command(*RUN, "--storage", "sqlite:///new.db", "--trials", "9")
    one_line(said, codes.USAGE, "--page runs/pareto.html", "name another file with")
    (place.folder / "runs").unlink()
    said = command(*RUN, "--storage", "sqlite:///new.db", "--name", "n" * 300)
    one_line(said, codes.USAGE, "--page runs/nnn", "File name too long", "name another file with")
    assert len(place.kept()) == kept and not (place.folder / "new.db").exists()
    done = command(*RUN, "--storage", "sqlite:///new.db", "--trials", "1", "--name", "n" * 245)
    # On a busy machine the one reading may be unstable; the page is written all the same.
    assert (
        done.code in (0, codes.DEVICE) and (place.folder / "runs" / f"{'n' * 245}.html").is_file()
    )


@pytest.mark.parametrize("out", ["tiny.toml/out", "o" * 300, "/proc/out"])
def test_the_folder_of_an_export_is_tried_before_anything_is_loaded(
    command: Command, place: Place, out: str
) -> None:
    if out.startswith("/proc") and not Path("/proc/self").exists():
        pytest.skip("there is no /proc here")
    shutil.rmtree(place.data)  # loading would stumble over this
    said = command("export", "0", "--out", out)
    one_line(said, codes.USAGE, f"--out {out}", "name another folder with --out")


def last_line(said: Said, code: int, *words: str) -> None:
    """Of a run that had begun: its own lines, then one about the error."""
    assert said.code == code, said
    *before, last = said.err.splitlines()
    assert not before, said.err
    assert last.startswith("fusion-nas: ")
    for word in words:
        assert word in last, (word, last)


def test_an_onnx_that_differs_from_torch(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    from evaluators.onnx import builder as onnx_builder

    run_onnx, run_joined = onnx_builder.run_onnx, onnx_builder.run_joined
    monkeypatch.setattr(onnx_builder, "run_onnx", lambda path, rows: run_onnx(path, rows) + 0.1)
    monkeypatch.setattr(onnx_builder, "run_joined", lambda made, rows: run_joined(made, rows) + 0.1)
    said = command("export", "0", "--out", "out")
    last_line(said, codes.NUMBERS, "its ONNX differs from torch by 1.00e-01")
    assert not Path("out").exists()
    said = command(*RUN, "--trials", "20", "--seed", "3", "--name", "new")
    last_line(said, codes.NUMBERS, "3 trials in a row failed", "differs from torch", "same command")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("evaluator", "error", "code"),
    [
        (LatencyEvaluator, MeasureError("the board is hot"), codes.DEVICE),
        (LatencyEvaluator, NotFiniteError("latency_ms = nan ms"), codes.NUMBERS),
        (QualityEvaluator, NotFiniteError("accuracy = nan %"), codes.NUMBERS),
    ],
)
def test_an_evaluator_that_fails_three_times_in_a_row(
    command: Command,
    place: Place,
    monkeypatch: pytest.MonkeyPatch,
    evaluator: type,
    error: Exception,
    code: int,
) -> None:
    def fail(*_: object) -> None:
        raise error

    with monkeypatch.context() as broken:
        broken.setattr(evaluator, "evaluate", fail)
        said = command(*RUN, "--trials", "30", "--name", "pareto-data-tiny")
    last_line(said, code, "3 trials in a row failed", str(error), "same command")
    mended = command(*RUN, "--trials", "6", "--name", "pareto-data-tiny")
    assert mended.code == 0, mended.err


@pytest.mark.slow
def test_tuned_weights_of_another_network(command: Command, place: Place) -> None:
    tuned = (*RUN, "--trunks", "text-tuned", "--name", "tuned")
    assert command(*tuned, "--trials", "1").code == 0
    for file in (place.home / "trunks").glob("*.safetensors"):
        write_cached(file, save({"x": torch.zeros(1)}))  # whole, with its checksum
    shutil.rmtree(place.home / "features")
    said = command(*tuned, "--trials", "9")
    last_line(said, codes.STORAGE, "trunks", "weights of another network", "remove it")
    for file in (place.home / "trunks").glob("*.safetensors"):
        file.unlink()
    assert command(*tuned, "--trials", "2").code == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Path:
    """A file system of 3 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("a small file system cannot be mounted here")
    return folder


@pytest.fixture
def full_home(place: Place, small_disk: Path):  # type: ignore[no-untyped-def]
    shutil.rmtree(place.home)
    place.home.symlink_to(small_disk)
    yield small_disk
    subprocess.run(["umount", "-l", str(small_disk)], check=True)


@pytest.mark.slow
def test_a_home_on_a_full_disk(command: Command, full_home: Path) -> None:
    said = command(*RUN, "--trials", "9")
    last_line(said, codes.DISK_FULL, "make room, and the same command goes on from here")


@pytest.mark.slow
def test_a_storage_on_a_full_disk(command: Command, small_disk: Path, place: Place) -> None:
    try:
        url = f"sqlite:///{small_disk}/runs.db"
        done = command(*RUN, "--trials", "1", "--storage", url)
        assert done.code == 0, done.err
        with open(small_disk / "filler", "wb", buffering=0) as filler:
            while True:
                try:
                    if not filler.write(b"x" * 1024):
                        break
                except OSError:
                    break
        said = command(*RUN, "--trials", "9", "--storage", url)
        last_line(said, codes.DISK_FULL, "make room, and the same command goes on from here")
        (small_disk / "filler").unlink()
        assert command(*RUN, "--trials", "3", "--storage", url).code == 0
    finally:
        subprocess.run(["umount", "-l", str(small_disk)], check=True)


@pytest.mark.slow
def test_a_log_file_on_a_full_disk(command: Command, small_disk: Path) -> None:
    try:
        with suppress(OSError), open(small_disk / "filler", "wb", buffering=0) as filler:
            while filler.write(b"x" * 4096):
                pass
        said = command(*RUN, "--trials", "6", "--log-file", str(small_disk / "run.log"))
        last_line(said, codes.DISK_FULL, "run.log", "make room")
        assert "Logging error" not in said.err
    finally:
        subprocess.run(["umount", "-l", str(small_disk)], check=True)


@pytest.mark.parametrize(
    "arguments",
    [(*RUN, "--name"), ("export", "0", "--out"), ("report", "--page"), (*RUN, "--log-file")],
    ids=lambda arguments: arguments[-1],
)
def test_an_argument_that_is_not_utf_8(command: Command, arguments: tuple[str, ...]) -> None:
    said = command(*arguments, os.fsdecode(b"\xffx"))
    one_line(said, codes.USAGE, r"\xffx", "this argument is not UTF-8")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("run", "--data", ""), "--data: its value is empty; give one, or leave --data out"),
        (("report", "--storage", " "), "--storage: its value is empty"),
        (("report", "--name="), "--name: its value is empty"),
        (("export", ""), "an argument is empty; give a value, or leave it out"),
    ],
)
def test_an_empty_argument_is_not_taken_for_none(
    command: Command, arguments: tuple[str, ...], said: str
) -> None:
    """As of a shell variable that is not set."""
    one_line(command(*arguments), codes.USAGE, said)


@pytest.mark.parametrize("name", ["", ".", "folder"])
def test_a_journal_that_is_a_folder(command: Command, tmp_path: Path, name: str) -> None:
    path = f"journal:{tmp_path if name == 'folder' else name}"
    said = command("run", "--storage", path, "--space", "demo")
    one_line(said, codes.STORAGE, f"storage {path}: cannot be opened (Is a directory)")


def test_empty_texts_of_the_python_interface_are_not_taken_for_none() -> None:
    with pytest.raises(UsageError, match="--data '': give a folder, or leave --data out"):
        DataOptions(source="")
    with pytest.raises(StorageError, match="--store ' ': give a folder or a URL"):
        store_url(" ")


def test_a_home_that_cannot_be_made(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUSION_NAS_HOME", "tiny.toml/home")
    one_line(command(*RUN), codes.STORAGE, "tiny.toml/home", "FUSION_NAS_HOME")
    if Path("/proc/self").exists():  # where nothing can be made, whoever asks
        monkeypatch.setenv("FUSION_NAS_HOME", "/proc/home")
        one_line(command(*RUN), codes.STORAGE, "/proc/home", "FUSION_NAS_HOME")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("paper", "--tokens", "4"), ("--tokens 4", "16 to 512")),
        (("paper", "--weights", "x"), ("--weights 'x'",)),
        (("paper", "--threads", "5000"), ("--threads 5000", "to 1024")),
        (("paper", "--space", "demo", "--tokens", "512"), ("small-bert takes 16 to 64",)),
        (("dashboard", "--port", "99999"), ("--port 99999", "1 to 65535")),
        (("dashboard", "--port", "-5"), ("--port -5", "1 to 65535")),
        (("export", "abc"), ("'trial'", "('abc' was given)", "--help")),
        (("export", "--name", "x", "1.5"), ("'trial'", "('1.5' was given)", "--help")),
        (("export",), ("Missing argument 'trial'; --help",)),
        (("space", "nosuch"), ("'nosuch'", "demo or fusion-1152 or fusions or paper")),
        (("space", "--weights", "x"), ("--weights 'x'",)),
        (("data", "check", "nowhere"), ("nowhere",)),
        (("nonsense",), ("'nonsense'", "--help")),
    ],
)
def test_other_commands_given_wrong(
    command: Command, arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    one_line(command(*arguments), codes.USAGE, *words)


SECRET = "postgresql+psycopg://tester:S3cr3t@localhost:1/studies"


@pytest.mark.parametrize(
    "arguments",
    [
        RUN,
        ("report",),
        ("export", "0", "--out", "out"),
        ("stress", "0"),
        ("paper", "--name", "x"),
        ("dashboard",),
    ],
    ids=lambda arguments: arguments[0],
)
def test_no_command_prints_the_password_of_a_storage(
    command: Command, arguments: tuple[str, ...]
) -> None:
    said = command(*arguments, "--storage", SECRET)
    one_line(said, codes.STORAGE, "postgresql+psycopg://tester:***@localhost:1/studies")
    assert "S3cr3t" not in said.out + said.err
