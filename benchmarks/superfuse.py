"""What the study `superfuse` takes from an empty home, and what comes out of it.

    python benchmarks/superfuse.py --out benchmarks/results/DATE-superfuse.json
    python benchmarks/superfuse.py -- --data DIR --text-encoder DIR --vision-encoder DIR --width 64

What follows `--` is for `fusion-nas run --study superfuse` (a `--study` there comes in its place).
`--home DIR` keeps what is trained there, so a run that was cut off goes on; its wall seconds are
then those of the last part. cpu_s is what the whole command took of all cores, alone or not.

noise_share_percent: what the three curves of 20 factors took of what clean trainings took; of the
whole study, at 1,024 pairs, and, for one curve, the cell with the most.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from main_job import machine, show

REFERENCE = 1024
CURVES = 3


def share(cells: list[dict[str, Any]]) -> float:
    """Percent of the clean trainings' processor time that the noise curves took."""
    noise, clean = (sum(c[key] for c in cells) for key in ("noise_cpu_s", "train_cpu_s"))
    return round(100 * noise / clean, 2)


def trimmed(outcome: dict[str, Any]) -> dict[str, Any]:
    """The outcome with noise at the sizes that the page shows, and no single seeds."""
    largest = max(cell["size"] for cell in outcome["cells"])
    for cell in outcome["cells"]:
        del cell["best_epoch_by_seed"]
        if cell["size"] not in (REFERENCE, largest):
            del cell["noise_percent"]
    return outcome


def rounded(value: Any) -> Any:
    """The same with four digits after the point."""
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, dict):
        return {key: rounded(each) for key, each in value.items()}
    return [rounded(each) for each in value] if isinstance(value, list) else value


def main() -> None:
    """Run the study and print what it took."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--home", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("flags", nargs="*", help="for fusion-nas run, after --")
    args = parser.parse_args()
    about = machine()
    program = str(Path(sys.executable).with_name("fusion-nas"))
    with tempfile.TemporaryDirectory() as folder:
        home = args.home.resolve() if args.home else Path(folder) / "home"
        started = time.monotonic()
        done = subprocess.run(
            [program, "run", "--study", "superfuse", "--json", *args.flags],
            cwd=folder,
            env=os.environ | {"FUSION_NAS_HOME": str(home)},
            stdout=subprocess.PIPE,
            check=True,
        )
        seconds = time.monotonic() - started
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    about["load_after"] = os.getloadavg()[0]
    outcome = json.loads(done.stdout)
    cells = outcome["cells"]
    result = {
        "wall_s": round(seconds, 1),
        "cpu_s": round(used.ru_utime + used.ru_stime, 1),
        "noise_share_percent": {
            "study": share(cells),
            "at_1024": share([cell for cell in cells if cell["size"] == REFERENCE]),
            "one_curve_of_the_worst_cell": round(max(share([c]) for c in cells) / CURVES, 2),
        },
        **rounded(trimmed(outcome)),
        "machine": about,
    }
    show(result, args.out)


if __name__ == "__main__":
    main()
