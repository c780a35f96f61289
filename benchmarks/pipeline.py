"""What several workers of one command save: while a board times a design, others are trained.

    python benchmarks/pipeline.py --trials 12 --repeats 3

The board is an SSH server on the loopback (Debian's `openssh-server`) that has a core of this
machine to itself; everything else has another one, so two cores are needed and nothing else should
run on them. The built-in data and space, trunks tuned beforehand, --timing alone; each pass has a
copy of the same home, in which nothing was timed or trained yet. With several workers each trains
with its share of one core, so what is saved is the board's time and nothing else. Prints one JSON
object; `--out FILE` keeps it.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path[:0] = [
    str(Path(__file__).parents[1] / "tests" / "support"),
    str(Path(__file__).parents[1]),
]

from main_job import machine, show  # noqa: E402
from sshd import Sshd, missing, start_sshd  # noqa: E402

PROGRAM = str(Path(sys.executable).with_name("fusion-nas"))


def fusion_nas(home: Path, *arguments: str) -> str:
    """What a command says on its standard output."""
    env = {**os.environ, "FUSION_NAS_HOME": str(home), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [PROGRAM, *arguments], env=env, cwd=home, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(done.stderr)
    return done.stdout


def prepared(home: Path, server: Sshd) -> None:
    """A home that knows the board, with data drawn and trunks tuned; one design was tried."""
    home.mkdir(parents=True)
    url = f"ssh://{server.user}@{server.host}:{server.port}"
    fusion_nas(home, "device", "add", "board", url, "--key", str(server.key_file))
    fusion_nas(home, "device", "trust", "board", "--yes")
    fusion_nas(home, "device", "install", "board", "--python", sys.executable)
    study(home, 1, 1)
    for kept in ("evaluations.jsonl", "runs"):
        path = home / kept
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def study(home: Path, trials: int, workers: int) -> dict[str, Any]:
    """One study on the board, as its JSON."""
    flags = ("--device", "board", "--trials", str(trials), "--workers", str(workers))
    told: dict[str, Any] = json.loads(fusion_nas(home, "run", *flags, "--json"))
    return told


def stages_s(home: Path) -> dict[str, float]:
    """Seconds in which designs were trained, all together."""
    lines = (home / "evaluations.jsonl").read_text("utf-8").splitlines()
    kept = [json.loads(json.loads(line)["evaluation"]) for line in lines]
    return {
        "training_s": sum(k["details"]["seconds"] for k in kept if k["kind"] == "quality"),
    }


def main() -> None:
    """Time passes in turn, and print what came of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    if why := missing():
        sys.exit(why)
    about = machine()
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        sys.exit("the board needs a core of its own: give this script two")
    passes: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.sched_setaffinity(0, {cores[1]})
        with start_sshd(folder / "sshd") as server:
            os.sched_setaffinity(0, {cores[0]})
            prepared(folder / "home", server)
            for repeat in range(given.repeats):
                for workers in (1, given.workers):
                    home = folder / f"pass-{repeat}-{workers}"
                    shutil.copytree(folder / "home", home)
                    begun = time.perf_counter()
                    told = study(home, given.trials, workers)
                    wall = time.perf_counter() - begun
                    passes.append(
                        {"workers": workers, "wall_s": round(wall, 1)}
                        | {"trials": len(told["trials"]), **stages_s(home)}
                    )
                    print(passes[-1], file=sys.stderr, flush=True)
    wall = {
        workers: statistics.median(p["wall_s"] for p in passes if p["workers"] == workers)
        for workers in (1, given.workers)
    }
    result = {
        "trials": given.trials,
        "passes": passes,
        "median_wall_s": {str(workers): seconds for workers, seconds in wall.items()},
        "times_faster": round(wall[1] / wall[given.workers], 2),
        "machine": about,
    }
    show(result, given.out)


if __name__ == "__main__":
    main()
