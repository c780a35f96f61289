"""An export is whole or not there, and as accurate as its trial."""

import errno
from pathlib import Path

import pytest

from evaluators.onnx.artifacts import ParityError
from studies.trained.export import _check_accuracy
from studies.trained.export_folder import filled


def write(folder: Path, version: str, *more: str) -> None:
    with filled(folder) as made:
        for name in ("card.json", "network.onnx", *more):
            (made / name).write_text(version)


def contents(folder: Path) -> dict[str, str]:
    return {file.name: file.read_text() for file in folder.iterdir()}


def test_a_new_folder_appears_with_all_its_files(tmp_path: Path) -> None:
    write(tmp_path / "a" / "out", "1")
    assert contents(tmp_path / "a" / "out") == {"card.json": "1", "network.onnx": "1"}
    assert [file.name for file in (tmp_path / "a").iterdir()] == ["out"]


def test_an_earlier_export_is_replaced_and_files_of_others_stay(tmp_path: Path) -> None:
    write(tmp_path / "out", "1", "without-text.onnx")
    (tmp_path / "out" / "notes.txt").write_text("mine")
    write(tmp_path / "out", "2")
    assert contents(tmp_path / "out") == {
        "card.json": "2",
        "network.onnx": "2",
        "notes.txt": "mine",
    }


@pytest.mark.parametrize("earlier", [True, False])
def test_an_error_leaves_an_earlier_export_and_no_half_of_a_new_one(
    tmp_path: Path, earlier: bool
) -> None:
    if earlier:
        write(tmp_path / "out", "1")

    def broken_off() -> None:
        with filled(tmp_path / "out") as made:
            (made / "network.onnx").write_text("2")
            raise OSError(errno.ENOSPC, "No space left on device", str(made / "card.json"))

    with pytest.raises(OSError, match="No space left"):
        broken_off()
    if earlier:
        assert contents(tmp_path / "out") == {"card.json": "1", "network.onnx": "1"}
    else:
        assert not list(tmp_path.iterdir())


def test_files_are_moved_with_the_card_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "out", "1")

    def killed(temporary: Path, path: Path) -> None:
        if path.name == "card.json":
            raise KeyboardInterrupt
        temporary.replace(path)

    monkeypatch.setattr("studies.trained.export_folder.move_whole", killed)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "out", "2")
    assert contents(tmp_path / "out") == {"network.onnx": "2"}, "no card beside another network"


@pytest.mark.parametrize(
    ("judged", "stated", "samples", "fits"),
    [
        (80.0, 80.0, 1000, True),
        (78.5, 80.0, 1000, True),
        (77.5, 80.0, 1000, False),
        (82.5, 80.0, 1000, False),
        (75.0, 83.3, 12, True),
        (66.7, 83.3, 12, False),
    ],
)
def test_an_export_is_as_accurate_as_its_trial(
    judged: float, stated: float, samples: int, fits: bool
) -> None:
    if fits:
        _check_accuracy(7, judged, [stated, 0.0, 100.0], samples)
    else:
        with pytest.raises(ParityError, match=r"trial 7: .* nothing was written"):
            _check_accuracy(7, judged, [stated, 0.0, 100.0], samples)
