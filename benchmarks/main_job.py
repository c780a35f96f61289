"""How long the main job takes from an empty home, and what comes out of it.

    python benchmarks/main_job.py demo
    python benchmarks/main_job.py tweets --shared ../shared

Prints one JSON object; `--out FILE` keeps it. Everything is made anew in a temporary home: data,
tuned trunks, features, evaluations. Seconds are wall clock of the whole command.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import Any


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    packages = ("torch", "onnxruntime", "optuna", "transformers", "timm")
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "load_before": os.getloadavg()[0],
        "python": platform.python_version(),
        **{package: metadata.version(package) for package in packages},
    }


def show(result: dict[str, Any], out: Path | None) -> None:
    """Prints a result, and keeps it where a file is given."""
    text = json.dumps(result, indent=2)
    print(text)
    if out:
        out.write_text(text + "\n", encoding="utf-8")


def command(job: str, shared: Path) -> list[str]:
    """The command line of one job."""
    program = str(Path(sys.executable).with_name("fusion-nas"))
    run = [program, "run", "--study", "pareto", "--seed-paper", "--trials", "24", "--json"]
    if job == "demo":
        return run
    return [
        *run,
        *("--data", str(shared / "data" / "tweets")),
        *("--text-encoder", str(shared / "weights" / "all-MiniLM-L6-v2")),
        *("--vision-encoder", str(shared / "weights" / "mobilenet_v2_1.0_224")),
    ]


def best_of(outcome: dict[str, Any]) -> dict[str, Any]:
    """The most accurate design of the front, chosen on validation."""
    rows = {row["number"]: row for row in outcome["trials"]}
    front = [rows[number] for number in outcome["front"]]
    best = max(front, key=lambda row: row["valid_accuracy_percent"]["value"])
    shown = ("number", "name", "design", "latency_ms")
    accuracies = ("valid_accuracy_percent", "test_accuracy_percent")
    return {key: best[key] for key in (*shown, *accuracies)}


def main() -> None:
    """Run one job and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("job", choices=("demo", "tweets"))
    parser.add_argument("--shared", type=Path, default=Path(__file__).parents[2] / "shared")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    about = machine()
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"FUSION_NAS_HOME": str(Path(folder) / "home")}
        started = time.monotonic()
        done = subprocess.run(
            command(args.job, args.shared.resolve()),
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            check=True,
        )
        seconds = time.monotonic() - started
    outcome = json.loads(done.stdout)
    result = {
        "job": args.job,
        "wall_s": round(seconds, 1),
        "trials": len(outcome["trials"]),
        "front": outcome["front"],
        "most_accurate": best_of(outcome),
        "majority_percent": outcome["majority_percent"],
        "machine": about,
    }
    show(result, args.out)


if __name__ == "__main__":
    main()
