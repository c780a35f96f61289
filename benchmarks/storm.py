"""Studies whose three workers are killed, stopped and moved, on SQLite and on PostgreSQL.

Workers are killed (SIGKILL), stopped for one and a half leases (SIGSTOP, SIGCONT), and replaced by
workers of another host name (a UTS namespace; needs root) with another home, in random order.
Training and timing are stand-ins; storages, leases, locks and processes are real. Leases last 2 s
instead of three minutes. Prints JSON; exits with 1 if a seeded design has not exactly one finished
trial, a trial is left running, a number is missing, or a worker printed a traceback.

    python benchmarks/storm.py [--kills 60] [--stops 20] [--moves 10] [--storage sqlite]
        [--seed 0] [--out FILE]
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
from storm import storm  # noqa: E402


def main() -> int:
    """Run a storm on each storage."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--stops", type=int, default=20)
    parser.add_argument("--moves", type=int, default=10)
    parser.add_argument("--storage", choices=("sqlite", "postgresql"), action="append")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="file for the JSON, instead of standard output")
    asked = parser.parse_args()
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
            done = storm(folder / name, url, events, asked.seed)
            found[name] = {**done.as_json(), "seconds": round(time.monotonic() - start_s, 1)}
            for line in (folder / name / "workers.log").read_text().splitlines():
                if "Traceback" in line or "Error" in line:
                    print(f"{name}: {line}", file=sys.stderr)
    result = {"python": platform.python_version(), "seed": asked.seed, "storages": found}
    text = json.dumps(result, indent=2)
    if asked.out:
        asked.out.write_text(text + "\n", encoding="utf-8")
    else:
        print(text)
    return int(any(each["faults"] for each in found.values()))


if __name__ == "__main__":
    sys.exit(main())
