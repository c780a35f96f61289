"""What is left of trials whose SSH link is cut at random moments.

    python benchmarks/cuts.py --trials 100

Starts an SSH server on the loopback (Debian's `openssh-server`), and an agent whose ONNX Runtime is
slowed down so that every stage of a trial is hit. Every trial is cut once, every fifth twice, at
moments drawn from the seed. Prints one JSON object; `--out FILE` keeps it.
"""

import argparse
import os
import platform
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Any

sys.path[:0] = [
    str(Path(__file__).parents[1] / "tests" / "support"),
    str(Path(__file__).parents[1]),
]

from cutting import Board, cut_at_random  # noqa: E402
from faulty import FaultyRuntime  # noqa: E402
from main_job import show  # noqa: E402
from sshd import missing, start_sshd  # noqa: E402


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    packages = ("onnxruntime", "paramiko")
    shown = subprocess.run(["ssh", "-V"], capture_output=True, text=True, check=True)
    return {
        "cores": os.cpu_count(),
        "load_before": os.getloadavg()[0],
        "python": platform.python_version(),
        "openssh": shown.stderr.split(",")[0],
        **{package: metadata.version(package) for package in packages},
    }


def main() -> None:
    """Cut, and print what is left."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if why := missing():
        sys.exit(why)
    about = machine()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        runtime = FaultyRuntime(folder / "python")
        with start_sshd(folder / "sshd") as server:
            board = Board(server, runtime, folder / "board")
            tally = cut_at_random(board, folder, args.trials, args.seed)
    result = {
        "trials": tally.trials,
        "cuts": len(tally.gone_after_s),
        "cuts_at": dict(tally.cuts_at.most_common()),
        "measured_exactly_once": tally.measured_once,
        "orphans": tally.orphans,
        "corrupt_files": tally.corrupt_files,
        "processes_gone_after_s": {
            "median": round(median(tally.gone_after_s), 3),
            "longest": round(max(tally.gone_after_s), 3),
        },
        "seed": args.seed,
        "machine": about,
    }
    show(result, args.out)


if __name__ == "__main__":
    main()
