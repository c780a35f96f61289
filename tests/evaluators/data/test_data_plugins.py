"""Data sets of plugins: found by entry points, read and checked as any folder is."""

import json
import shutil
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock, Timeout
from plugin_packages import on_path, write_package
from tiny import write_data

import fusion_nas as fn
from evaluators.data import DataError, load
from evaluators.data.plugins import GROUP, folder_of, plugin_data_set, plugin_folder
from fusion_nas.datasets import PluginDataSet, Row
from fusion_nas.testing import check_data_set
from studies.cli.data import show_data
from studies.config.options import DataOptions
from studies.config.usage import UsageError

FAILING = {
    "breaks": ("raise OSError('no disk')", "breaks = breaks:D", "(OSError: no disk)"),
    "counts": ("D = 3", "counts = counts:D", "3 is not a subclass of fusion_nas.datasets.Plug"),
    "smells": (
        "from fusion_nas.datasets import PluginDataSet\n"
        "class D(PluginDataSet):\n    modalities = ('smell',)\n    def rows(self, folder): ...",
        "smells = smells:D",
        "D.modalities are not some of text, vision, audio",
    ),
}
CODE = '''\
import csv
from pathlib import Path

from fusion_nas.datasets import PluginDataSet, Row

SOURCE = Path({source!r})


class Pictures(PluginDataSet):
    """The pictures of a folder."""

    modalities = ("text", "vision")

    def rows(self, folder):
        with open(SOURCE / "label.csv", encoding="utf-8", newline="") as file:
            for each in csv.DictReader(file):
                image = SOURCE / "images" / (each["id"] + ".png")
                yield Row(each["id"], each["label"], each["mode"], each["text"], image)
'''


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("source") / "data")


@pytest.fixture(scope="module")
def pictures(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PluginDataSet]:
    """A plugin that works, beside others that do not."""
    folder = tmp_path_factory.mktemp("plugins")
    code = CODE.format(source=str(source))
    write_package(folder, "own-pictures", code, "pictures = own_pictures:Pictures", group=GROUP)
    for name, (broken, entry, _) in FAILING.items():
        write_package(folder, name, broken, entry, group=GROUP)
    with on_path(folder):
        yield plugin_data_set("pictures")
    for name in ("own-pictures", *FAILING):
        sys.modules.pop(name.replace("-", "_"), None)


@pytest.mark.parametrize("name", FAILING)
def test_a_plugin_that_fails_is_named_and_the_others_work(pictures: Any, name: str) -> None:
    (found,) = (each for each in fn.plugins() if each.package == name)
    assert FAILING[name][2] in found.failure
    assert DataOptions("pictures").plugin == "pictures"
    with pytest.raises(UsageError, match=f"--data {name!r} of the plugin {name} 1.0 cannot be"):
        DataOptions(name)


def test_its_rows_are_read_as_a_folder_of_the_same_contents_is(
    pictures: Any, source: Path, tmp_path: Path
) -> None:
    folder = plugin_folder("pictures", tmp_path)
    assert folder == plugin_folder("pictures", tmp_path) and folder.name == "pictures"
    found, own = (load(each, cache=tmp_path) for each in (folder, source))
    assert found.name == "pictures" and found.counts("train") == own.counts("train")
    first, same = found.samples[0], own.samples[0]
    assert first.image is not None and same.image is not None
    assert first.image.read_bytes() == same.image.read_bytes() and first.text == same.text


def test_the_command_that_checks_data_takes_its_name(
    pictures: Any, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    monkeypatch.setenv("FUSION_NAS_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    show_data("pictures", False)
    assert "The data pass the check." in capsys.readouterr().out


def test_a_name_that_no_plugin_has_is_refused(pictures: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"pictures, or install the plugin that has it"):
        DataOptions("photographs")


def test_a_folder_of_the_name_comes_first(pictures: Any, tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "pictures").mkdir()
    monkeypatch.chdir(tmp_path)
    assert DataOptions("pictures").plugin is None


class Given(PluginDataSet):
    """Gives the rows that it is made of."""

    modalities = ("text",)

    def __init__(self, rows: Iterable[Any]) -> None:
        self._rows = [*rows]

    def rows(self, folder: Path) -> Iterable[Row]:
        return self._rows


def good() -> list[Row]:
    return [
        Row(f"{split}{k}", "ab"[k % 2], split, f"text {split} {k}")  # type: ignore[arg-type]
        for split in ("train", "valid", "test")
        for k in range(4)
    ]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (3, "it gives a int, not a fusion_nas.datasets.Row"),
        (Row("x", 1, "train", "t"), "row 'x': label = 1 is not a text"),  # type: ignore[arg-type]
        (Row("x", ["a"], "train", "t"), "row 'x': label = ['a'] is not a text or a tuple of texts"),  # type: ignore[arg-type]
        (Row("x", ("a", 1), "train", "t"), "row 'x': label = ('a', 1) is not a text or a tuple"),  # type: ignore[arg-type]
        (
            Row("x", ("a",), "train", "t"),
            "the label of row 'train0' is a text, that of 'x' a tuple",
        ),
        (Row("../x", "a", "train", "t"), "row '../x': its id cannot be a file's name"),
        (Row("x", "a", "dev", "t"), "row 'x': split 'dev' is none of"),  # type: ignore[arg-type]
        (Row("x", "a", "train", "t", Path("no.png")), "row 'x': image no.png is not there"),
    ],
)
def test_a_row_that_is_none_is_named(tmp_path: Path, row: Any, words: str) -> None:
    with pytest.raises(DataError) as caught:
        folder_of(Given([*good(), row]), "given", tmp_path, "given")
    assert str(caught.value).startswith(f"given: {words}")


def test_rows_without_a_declared_modality_are_refused(tmp_path: Path) -> None:
    class Seen(Given):
        modalities = ("text", "vision")

    with pytest.raises(DataError, match="it has no image, and the data set declares vision"):
        folder_of(Seen(good()), "given", tmp_path, "given")


def test_what_a_killed_process_left_is_removed_when_the_folder_is_written(tmp_path: Path) -> None:
    folder = folder_of(Given(good()), "given", tmp_path, "given")
    shutil.rmtree(folder)
    (folder.parent / ".writing-abc" / "images").mkdir(parents=True)
    assert folder_of(Given(good()), "given", tmp_path, "given") == folder
    assert [each.name for each in folder.parent.iterdir()] == ["given"]


def test_tuples_of_classes_make_multi_label_data(tmp_path: Path) -> None:
    sets = [("a",), ("b; c", "a"), (), ("b; c",)]
    rows = [Row(row.id, sets[k % 4], row.split, row.text) for k, row in enumerate(good())]
    data_set = Given(rows)
    check_data_set(data_set)
    folder = folder_of(data_set, "given", tmp_path, "given")
    found = load(folder, cache=tmp_path / "cache", modalities=("text",))
    assert found.classes == ("a", "b; c") and found.multi_label
    assert [sample.labels for sample in found.samples[:4]] == [(0,), (0, 1), (), (1,)]


def test_the_checks_accept_a_data_set_that_works(pictures: Any) -> None:
    check_data_set(pictures)
    check_data_set(Given(good()))


class Wandering(Given):
    """Gives other texts each time."""

    def rows(self, folder: Path) -> Iterable[Row]:
        self._rows = [Row(r.id, r.label, r.split, r.text + "!") for r in self._rows]
        return self._rows


@pytest.mark.parametrize(
    ("data_set", "words"),
    [
        (Given(each for each in good() if each.split != "test"), "no row has mode test"),
        (Given([*good(), good()[0]]), "rows 1 and 13 have the same id 'train0'"),
        (Given([]), "Given: it has no rows"),
        (Given([*good(), Row("x", "a", "train")]), "sample x has no text, and text is declared"),
        (Given(Row(r.id, r.label, r.split, "alike") for r in good()), "text is alike in all"),
        (Wandering(good()), "Wandering: its fingerprint is another one when it is made again"),
    ],
)
def test_the_checks_name_each_kind_of_fault(data_set: PluginDataSet, words: str) -> None:
    with pytest.raises(AssertionError) as caught:
        check_data_set(data_set)
    assert words in str(caught.value)


def test_equal_ids_of_rows_with_sounds_are_refused(tmp_path: Path) -> None:
    class Heard(Given):
        modalities = ("text", "audio")

    sound = tmp_path / "tone.wav"
    sound.touch()
    rows = [Row(r.id, r.label, r.split, r.text, sound=sound) for r in good()]
    repeated = Heard([*rows, rows[0]])
    with pytest.raises(DataError, match="heard: rows 1 and 13 have the same id 'train0'"):
        folder_of(repeated, "heard", tmp_path, "heard")
    with pytest.raises(AssertionError, match="Heard: rows 1 and 13 have the same id 'train0'"):
        check_data_set(repeated)


def test_one_process_at_a_time_asks_for_the_rows(tmp_path: Path) -> None:
    class Locked(Given):
        def rows(self, folder: Path) -> Iterable[Row]:
            with pytest.raises(Timeout):
                FileLock(tmp_path / "given.lock").acquire(timeout=0)
            return super().rows(folder)

    folder_of(Locked(good()), "given", tmp_path, "given")


def test_a_picture_that_rows_share_is_one_group(source: Path, tmp_path: Path) -> None:
    picture = next((source / "images").iterdir())

    class Shared(Given):
        modalities = ("text", "vision")

    rows = [Row(r.id, r.label, r.split, r.text, picture) for r in good()]
    folder = folder_of(Shared(rows), "given", tmp_path, "given")
    with pytest.raises(DataError) as caught:
        load(folder, cache=tmp_path)
    assert "split" in json.dumps(caught.value.problems)  # one picture in three splits
