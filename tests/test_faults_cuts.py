"""Trials whose link is cut at random moments are measured exactly once, and nothing is left."""

from pathlib import Path

from cutting import Board, cut_at_random
from faulty import FaultyRuntime
from sshd import Sshd

TRIALS = 8
"""`benchmarks/cuts.py` makes a hundred."""
GONE_S = 10.0


def test_cuts_at_random_moments_lose_and_repeat_nothing(sshd: Sshd, tmp_path: Path) -> None:
    board = Board(sshd, FaultyRuntime(tmp_path / "python"), tmp_path / "board")
    tally = cut_at_random(board, tmp_path, TRIALS, seed=1)
    assert tally.trials == tally.measured_once == TRIALS
    assert sum(tally.cuts_at.values()) == len(tally.gone_after_s) == TRIALS + TRIALS // 5
    assert (tally.orphans, tally.corrupt_files) == (0, 0)
    assert max(tally.gone_after_s) < GONE_S
