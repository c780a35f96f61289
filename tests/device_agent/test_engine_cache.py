"""An engine is compiled once: kept whole or not at all, and given back for exactly its key."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from damage import DAMAGE

from device_agent.storage.engine_cache import Engine, EngineCache
from device_agent.storage.store import NOTE

KEY = {"onnx": "0" * 64, "tensorrt": "10.3.0", "cuda_driver": 12060, "tf32": False, "l4t": None}
ENGINE = Engine(b"compiled" * 1000, 12.5)
WRITER = """
import sys
from pathlib import Path
from device_agent.storage.engine_cache import Engine, EngineCache
cache = EngineCache(Path(sys.argv[1]))
print("ready", flush=True)
while True:
    for k in range(8):
        cache.put({"onnx": str(k)}, Engine(bytes([k]) * 3_000_000, float(k)))
"""


def test_what_was_kept_is_given_back_to_another_agent_with_what_it_took(tmp_path: Path) -> None:
    EngineCache(tmp_path / "engines").put(KEY, ENGINE)
    assert EngineCache(tmp_path / "engines").get(KEY) == ENGINE
    assert (tmp_path / "engines").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    "other",
    [{"onnx": "1" * 64}, {"tensorrt": "10.3.1"}, {"cuda_driver": 12070}, {"tf32": True},
     {"l4t": "R36.4.3"}, {"more": 1}],
)  # fmt: skip
def test_an_engine_of_another_key_is_not_given(tmp_path: Path, other: dict[str, Any]) -> None:
    cache = EngineCache(tmp_path)
    cache.put(KEY, ENGINE)
    assert cache.get({**KEY, **other}) is None
    assert cache.get(KEY) == ENGINE


def test_the_key_is_compared_whole_and_not_by_its_name_alone(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path)
    cache.put(KEY, ENGINE)
    (notes,) = tmp_path.glob("*.json")
    notes.write_text(notes.read_text().replace("10.3.0", "10.3.9"))
    assert cache.get(KEY) is None


@pytest.mark.parametrize("suffix", ["engine", "json"])
@pytest.mark.parametrize("harm", DAMAGE)
def test_a_damaged_engine_is_not_given_and_is_compiled_again_with_a_line(
    tmp_path: Path, suffix: str, harm: str, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = EngineCache(tmp_path)
    cache.put(KEY, ENGINE)
    (file,) = tmp_path.glob(f"*.{suffix}")
    DAMAGE[harm](file)
    assert cache.get(KEY) is None
    said = f"{NOTE}engine {file.stem[:16]} is compiled again\n"
    assert capsys.readouterr().err == ("" if harm == "removed" else said)
    cache.put(KEY, ENGINE)
    assert cache.get(KEY) == ENGINE


def test_a_folder_in_place_of_another_engine_makes_room_for_a_new_one(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path, keep_bytes=len(ENGINE.content))
    cache.put(KEY, ENGINE)
    (file,) = tmp_path.glob("*.engine")
    DAMAGE["a directory"](file)
    other = {**KEY, "onnx": "1" * 64}
    cache.put(other, ENGINE)
    assert cache.get(other) == ENGINE and not file.exists()


def test_an_agent_killed_at_any_moment_leaves_whole_engines_or_none(tmp_path: Path) -> None:
    for k in range(12):
        child = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout and child.stdout.readline() == "ready\n"
        time.sleep(0.013 * k)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        child.stdout.close()
        cache = EngineCache(tmp_path)
        assert not list(tmp_path.glob(".*")), "what was half written is swept out"
        for number in range(8):
            found = cache.get({"onnx": str(number)})
            assert found in (None, Engine(bytes([number]) * 3_000_000, float(number)))
    assert list(tmp_path.glob("*.engine"))


def test_the_longest_unused_go_first_when_room_runs_out(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path, keep_bytes=250)
    for k in range(2):
        cache.put({"onnx": str(k)}, Engine(bytes(100), 1.0))
        (new,) = (one for one in tmp_path.glob("*.engine") if one.stat().st_mtime > 100)
        os.utime(new, (k, k))
    assert cache.get({"onnx": "0"}) is not None, "it has been used just now"
    cache.put({"onnx": "2"}, Engine(bytes(100), 1.0))
    assert [cache.get({"onnx": str(k)}) is not None for k in range(3)] == [True, False, True]
