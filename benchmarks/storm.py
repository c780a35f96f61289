"""Studies whose workers are killed, stopped and moved, on SQLite, on PostgreSQL and with Dask.

Workers are killed (SIGKILL), stopped for one and a half leases (SIGSTOP, SIGCONT), and replaced by
workers of another host name (a UTS namespace; needs root) with another home, in random order.
Training and timing are stand-ins; storages, leases, locks and processes are real. Leases last 2 s
instead of three minutes. With --dask the workers are those of a Dask cluster of this machine; their
processes are killed, and neither stopped nor moved. Prints JSON; exits with 1 if a seeded design
has not exactly one finished trial, a trial is left running, a number is missing, or a worker
printed a traceback.

    python benchmarks/storm.py [--kills 60] [--stops 20] [--moves 10] [--storage sqlite] [--dask]
        [--workers 3] [--seeds 40] [--every SECONDS] [--seed 0] [--out FILE]
"""

import argparse
import json
import platform
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests" / "support"), str(ROOT)]

from postgres import missing, start_postgres  # noqa: E402
from storm import AFTER_S, SEEDS, WORKERS, storm, storm_on_dask  # noqa: E402


def main() -> int:
    """Run a storm on each storage."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--stops", type=int, default=20)
    parser.add_argument("--moves", type=int, default=10)
    parser.add_argument("--storage", choices=("sqlite", "postgresql"), action="append")
    parser.add_argument("--dask", action="store_true")
    parser.add_argument("--workers", type=int, default=WORKERS)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--every", type=float, help="seconds between events; else at random")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="file for the JSON, instead of standard output")
    asked = parser.parse_args()
    if asked.dask and asked.stops + asked.moves:
        parser.error("--dask: give --stops 0 --moves 0")
    events = ["kill"] * asked.kills + ["stop"] * asked.stops + ["move"] * asked.moves
    found = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="storm-")))
        urls = {"sqlite": f"sqlite:///{folder / 'studies.db'}"}
        if asked.storage == ["sqlite"]:
            pass
        elif why := missing():
            print(f"PostgreSQL is left out: {why}", file=sys.stderr)
        else:
            urls["postgresql"] = stack.enter_context(start_postgres()).url
        for name in asked.storage or [*urls]:
            url = urls[name]
            start_s = time.monotonic()
            size = (asked.seed, asked.workers, asked.seeds)
            if asked.dask:
                every_s = asked.every or AFTER_S
                done = storm_on_dask(folder / name, url, asked.kills, *size, every_s)
            else:
                done = storm(folder / name, url, events, *size, asked.every)
            found[name] = {**done.as_json(), "seconds": round(time.monotonic() - start_s, 1)}
            for line in (folder / name / "workers.log").read_text().splitlines():
                if "Traceback" in line or "Error" in line:
                    print(f"{name}: {line}", file=sys.stderr)
    about = {
        "python": platform.python_version(),
        "seed": asked.seed,
        "workers": asked.workers,
        "every_s": asked.every,
        "engine": "dask" if asked.dask else "local",
    }
    result = {**about, "storages": found}
    text = json.dumps(result, indent=2)
    if asked.out:
        asked.out.write_text(text + "\n", encoding="utf-8")
    else:
        print(text)
    return int(any(each["faults"] for each in found.values()))


if __name__ == "__main__":
    sys.exit(main())
