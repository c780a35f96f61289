"""Temporary files of killed runs are removed at the next start, and nothing else is."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from studies.config.home import home
from studies.infra.home.leftovers import leftovers
from studies.infra.home.lock import LOCK, alone, release
from studies.infra.locations import StorageError

KEY = "0a" * 32
LEFT = (
    ".devices-abcdefgh",
    "weights/.tmp-a1b2c3_d",
    f"weights/{KEY}.4711.partial",
    f"trunks/.tmp-{'0f' * 16}",
    f"features/{KEY}/00000.12.partial",
    "parts/making-abcdefgh/part",
    "artifacts/building-abcdefgh/network.onnx",
    f"artifacts/{KEY}-01234567.onnx",
    "data/rendered/.tmp-rendered-v1-seed0-abcdefgh/Frames/1.jpg",
    "data/frames/middle-2/.tmp-abcdefgh",
    "device/agent-1/agent/.agent-abcdefgh",
)
STAY = (
    ".tmp-notes.txt",
    "weights/notes.partial",
    f"weights/{KEY}.safetensors",
    "artifacts/mine.onnx",
    "data/.tmp-x",
    "photos/.tmp-abcdefgh",
    f"features/{KEY}.aside-01234567/inside",
    "parts/making-music/song",
)
HOLD = "import fcntl, sys; f = open(sys.argv[1], 'a'); fcntl.flock(f, fcntl.LOCK_SH); \
print('held', flush=True); sys.stdin.read()"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home after a killed run; in its neighbourhood what looks like leftovers and is not."""
    for name in (*LEFT, *STAY):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("anything")
    monkeypatch.setenv("FUSION_NAS_HOME", str(tmp_path))
    yield tmp_path
    release()


@pytest.fixture
def other(place: Path) -> Iterator["subprocess.Popen[str]"]:
    """Another process that uses the home."""
    command = [sys.executable, "-c", HOLD, str(place / "in-use.lock")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as process:  # type: ignore[call-overload]
        assert process.stdout.readline() == "held\n"
        yield process


def test_the_next_start_removes_what_a_killed_run_left_and_nothing_else(place: Path) -> None:
    assert home() == place
    assert not [name for name in LEFT if (place / name).exists()]
    assert all((place / name).is_file() for name in STAY)


def test_leftovers_stay_while_another_process_uses_the_home(
    place: Path, other: "subprocess.Popen[str]"
) -> None:
    home()
    assert all((place / name).is_file() for name in LEFT)
    release()
    other.kill()
    other.wait()
    home()
    assert not list(leftovers(place))


def test_a_home_is_used_alone_only_where_no_other_process_uses_it(
    place: Path, other: "subprocess.Popen[str]"
) -> None:
    with pytest.raises(StorageError, match=f"in use .held by process {other.pid}"), alone(place):
        pytest.fail("it is not alone")
    other.kill()
    other.wait()
    with alone(place):
        command = [sys.executable, "-c", HOLD.replace("LOCK_SH", "LOCK_SH | fcntl.LOCK_NB")]
        tried = subprocess.run([*command, str(place / "in-use.lock")], capture_output=True)
        assert b"BlockingIOError" in tried.stderr


def test_a_home_that_does_not_exist_is_made_only_when_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FUSION_NAS_HOME", str(tmp_path / "new"))
    assert not home().exists()
    assert home(make=True).is_dir()
    release()


def test_a_directory_in_place_of_the_lock_file_is_named(place: Path) -> None:
    release()
    (place / LOCK).unlink(missing_ok=True)
    (place / LOCK).mkdir()
    with pytest.raises(StorageError, match=f"{LOCK} is a directory.*remove it"), alone(place):
        pass
