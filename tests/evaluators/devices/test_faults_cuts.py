"""Trials whose link is cut at random moments are measured exactly once, and nothing is left."""

import threading
from pathlib import Path

import pytest
from cutting import ELEMENTS, Board, cut_at_random, measured
from faulty import FaultyRuntime, network
from sshd import Sshd

from device_agent.wire.request import Status

TRIALS = 8
"""`benchmarks/cuts.py` makes a hundred."""
GONE_S = 10.0


@pytest.mark.slow
def test_cuts_at_random_moments_lose_and_repeat_nothing(sshd: Sshd, tmp_path: Path) -> None:
    board = Board(sshd, FaultyRuntime(tmp_path / "python"), tmp_path / "board")
    tally = cut_at_random(board, tmp_path, TRIALS, seed=1)
    assert tally.trials == tally.measured_once == TRIALS
    assert sum(tally.cuts_at.values()) == len(tally.gone_after_s) == TRIALS + TRIALS // 5
    assert (tally.orphans, tally.corrupt_files) == (0, 0)
    assert max(tally.gone_after_s) < GONE_S


def test_a_cut_between_a_jobs_answer_and_its_end_repeats_nothing(
    sshd: Sshd, tmp_path: Path
) -> None:
    board = Board(sshd, FaultyRuntime(tmp_path / "python"), tmp_path / "board")
    evaluator = board.evaluator()
    board.runtime.breaks(times=1, done=600)
    artifact = network(tmp_path / "network.onnx", size=ELEMENTS)

    def cut_when_done() -> None:
        board.runtime.wait_for("done")
        sshd.cut()

    cutter = threading.Thread(target=cut_when_done)
    cutter.start()
    result, interruptions = measured(evaluator, artifact, ELEMENTS)
    cutter.join()
    evaluator.close()
    assert (result.status, len(interruptions)) == (Status.OK, 1)
    assert len(board.runtime.events("done")) == 1
