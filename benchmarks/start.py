"""CPU seconds of commands that do not train, as ratios to `optuna --help` in the same run.

    python benchmarks/start.py

Each command runs in turn with `optuna --help`, --repeats times; medians are compared.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests" / "support"), str(ROOT)]

from main_job import machine, show  # noqa: E402
from stored_study import stored_study  # noqa: E402

BIN = Path(sys.executable).parent


def cpu_seconds(command: list[str], folder: Path) -> float:
    """User and system seconds of one run of a command."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = os.environ | {"FUSION_NAS_HOME": str(folder / "home")}
    subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    repeats, out = given.repeats, given.out
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ours = str(BIN / "fusion-nas")
        commands = {
            "optuna --help": [str(BIN / "optuna"), "--help"],
            "device list": [ours, "device", "list"],
            "run --trials 0 (refused)": [ours, "run", "--trials", "0"],
            "report --json": [ours, "report", "--json", "--storage", stored_study(folder)],
        }
        taken: dict[str, list[float]] = {title: [] for title in commands}
        for _ in range(repeats + 1):  # the first run fills the disk cache
            for title, command in commands.items():
                taken[title].append(cpu_seconds(command, folder))
    medians = {title: statistics.median(values[1:]) for title, values in taken.items()}
    base = medians["optuna --help"]
    show(
        {
            "machine": machine(),
            "repeats": repeats,
            "cpu_s": {title: round(value, 2) for title, value in medians.items()},
            "ratio_to_optuna_help": {
                title: round(value / base, 2) for title, value in medians.items()
            },
        },
        out,
    )


if __name__ == "__main__":
    main()
