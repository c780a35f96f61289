"""Cached files are verified by the checksum beside them, whatever has happened to either."""

import errno
import os
import subprocess
from pathlib import Path

import pytest
import torch
from damage import DAMAGE
from torch import nn

from evaluators.cached_files import (
    checksum_file,
    fault_of,
    folder_faults,
    is_whole,
    move_cached,
    remove_cached,
    verify_copy,
    write_cached,
    write_sums,
)
from evaluators.features.trunk_weights import WeightsError, load_prefix, save_state

CONTENT = bytes(range(256)) * 64


def test_the_checksum_is_one_that_sha256sum_verifies(tmp_path: Path) -> None:
    write_cached(tmp_path / "one.bin", CONTENT)
    (tmp_path / "made").write_bytes(CONTENT)
    move_cached(tmp_path / "made", tmp_path / "two.bin")
    for name in ("one.bin", "two.bin"):
        assert is_whole(tmp_path / name)
        verified = subprocess.run(["sha256sum", "-c", f"{name}.sha256"], cwd=tmp_path)
        assert verified.returncode == 0
    assert {file.name for file in tmp_path.iterdir()} == {
        "one.bin", "one.bin.sha256", "two.bin", "two.bin.sha256",
    }  # fmt: skip


@pytest.mark.parametrize("harm", DAMAGE)
@pytest.mark.parametrize("which", ["the file", "its checksum"])
def test_no_damage_to_a_file_or_its_checksum_passes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, harm: str, which: str
) -> None:
    file = tmp_path / "one.bin"
    write_cached(file, CONTENT)
    assert is_whole(file)
    DAMAGE[harm](file if which == "the file" else checksum_file(file))
    assert not is_whole(file)
    missing = which == "the file" and harm == "removed"
    assert ("made again" in caplog.text) != missing, "what is not there is nothing to report"
    write_cached(file, CONTENT)
    assert is_whole(file) and file.read_bytes() == CONTENT


def test_a_folder_in_place_of_a_file_is_set_aside_and_not_lost(tmp_path: Path) -> None:
    (tmp_path / "one.bin").mkdir()
    (tmp_path / "one.bin" / "somebody's").write_text("work")
    write_cached(tmp_path / "one.bin", CONTENT)
    (aside,) = tmp_path.glob("one.bin.aside-*")
    assert (aside / "somebody's").read_text() == "work" and is_whole(tmp_path / "one.bin")


def test_a_file_that_nothing_verifies_is_not_whole(tmp_path: Path) -> None:
    (tmp_path / "old.bin").write_bytes(CONTENT)
    assert "no checksum" in (fault_of(tmp_path / "old.bin") or "")
    assert fault_of(tmp_path / "none.bin") == ""


def test_a_write_that_breaks_off_leaves_no_file_that_passes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "one.bin"
    write_cached(file, b"before")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("evaluators.cached_files.os.fsync", full)
        with pytest.raises(OSError, match="No space left") as told:
            write_cached(file, CONTENT)
        assert told.value.filename == str(file)
    assert not is_whole(file) and not list(tmp_path.glob(".tmp-*"))


def test_a_removed_file_leaves_no_checksum(tmp_path: Path) -> None:
    write_cached(tmp_path / "one.bin", CONTENT)
    remove_cached(tmp_path / "one.bin")
    remove_cached(tmp_path / "one.bin")
    assert not list(tmp_path.iterdir())


def test_a_copy_with_another_content_is_an_error(tmp_path: Path) -> None:
    write_cached(tmp_path / "one.bin", CONTENT)
    digest = checksum_file(tmp_path / "one.bin").read_text().split()[0]
    (tmp_path / "copy").write_bytes(CONTENT)
    verify_copy(tmp_path / "copy", digest)
    assert is_whole(tmp_path / "copy")
    (tmp_path / "copy").write_bytes(CONTENT[1:])
    with pytest.raises(OSError, match="not as it was written"):
        verify_copy(tmp_path / "copy", digest)


def test_files_of_a_folder_are_verified_and_those_added_since_are_not(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    (folder / "inner").mkdir(parents=True)
    for name in ("a", "inner/b"):
        (folder / name).write_text(name)
    assert folder_faults(folder) is None
    write_sums(folder)
    (folder / "added").write_text("later")
    assert folder_faults(folder) == []
    (folder / "inner" / "b").write_text("c")
    (folder / "a").unlink()
    assert folder_faults(folder) == ["a", "inner/b"]
    assert subprocess.run(["sha256sum", "-c", "checksums.sha256"], cwd=folder).returncode == 1


@pytest.mark.parametrize("harm", DAMAGE)
def test_damaged_weights_are_never_loaded(tmp_path: Path, harm: str) -> None:
    network = nn.Linear(64, 64)
    save_state(network, tmp_path / "w.safetensors")
    DAMAGE[harm](tmp_path / "w.safetensors")
    with pytest.raises((WeightsError, FileNotFoundError)):
        load_prefix(nn.Linear(64, 64), tmp_path / "w.safetensors")
    save_state(network, tmp_path / "w.safetensors")
    loaded = nn.Linear(64, 64)
    load_prefix(loaded, tmp_path / "w.safetensors")
    assert torch.equal(loaded.weight, network.weight)


def test_what_is_no_regular_file_is_never_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="is no regular file") as raised:
        write_cached(tmp_path / "pipe", CONTENT)
    assert raised.value.filename == str(tmp_path / "pipe")
    assert (tmp_path / "pipe").is_fifo()
    assert {file.name for file in tmp_path.iterdir()} == {"pipe", "pipe.sha256"}
