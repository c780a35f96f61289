"""A graph is compiled once, however often it is proposed and whenever the command is killed."""

from pathlib import Path

import pytest
from killed import MOMENTS, run_killed


@pytest.mark.slow
def test_compilations_are_as_many_as_graphs_whatever_moment_the_command_is_killed_at(
    tmp_path: Path,
) -> None:
    found = run_killed(tmp_path, 10, 2, MOMENTS)
    assert found.kills == len(MOMENTS) and found.trials == 10
    assert found.trials > found.designs > found.graphs
    assert found.compiled == found.files == found.graphs
    assert found.cut == 0
