"""What other programs take of the processors is told by the kernel, or not at all."""

import multiprocessing
import time
from pathlib import Path

import pytest

from device_agent.board.cpu_contention import others_s


def stat(root: Path, text: str) -> Path:
    (root / "proc").mkdir()
    (root / "proc/stat").write_text(text)
    return root


def test_rest_and_waiting_for_disks_are_no_work(tmp_path: Path) -> None:
    work = stat(tmp_path, "cpu  100000 200 300 999999 999999 40 50 60 0 0\ncpu0 1 2 3 4\n")
    told = others_s(work)
    assert told is not None
    assert told + time.process_time() == pytest.approx(1006.5, abs=0.5)


@pytest.mark.parametrize("text", ["", "cpu  1 2 3\n", "cpu a b c d e f g h i j\n", "intr 1\n"])
def test_a_system_that_does_not_tell_is_not_guessed(tmp_path: Path, text: str) -> None:
    assert others_s(stat(tmp_path, text)) is None
    assert others_s(tmp_path / "nowhere") is None


def test_work_of_another_process_is_counted_and_own_work_is_not() -> None:
    if others_s() is None:
        pytest.skip("this system has no /proc/stat")
    other = multiprocessing.get_context("spawn").Process(target=_work_s, args=(0.5,))
    before = others_s()
    other.start()
    other.join(60)
    after = others_s()
    assert before is not None and after is not None
    assert after - before > 0.4


def _work_s(seconds: float) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass
