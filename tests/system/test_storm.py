"""Workers that are killed, stopped and moved to other hosts lose nothing and do nothing twice."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from postgres import missing

STORM = Path(__file__).parents[2] / "benchmarks" / "storm.py"


@pytest.mark.slow
@pytest.mark.parametrize("storage", ["sqlite", "postgresql"])
def test_a_study_survives_a_storm(storage: str) -> None:
    if storage == "postgresql" and (why := missing()):
        pytest.skip(why)
    moves = "2" if os.geteuid() == 0 else "0"  # another host name needs a namespace
    given = ["--kills", "6", "--stops", "3", "--moves", moves, "--storage", storage]
    done = subprocess.run([sys.executable, str(STORM), *given], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (found,) = json.loads(done.stdout)["storages"].values()
    assert (found["kills"], found["stops"], found["moves"]) == (6, 3, int(moves))
    assert found["faults"] == 0 and found["trials"] >= found["seeds"]
