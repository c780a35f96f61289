"""Whether a device compiles each graph of a study once, also after `kill -9`.

    python benchmarks/compile_events.py --trials 40 --kills 20

Runs a study of a tiny space on an agent on this machine, in which several designs have one graph,
and kills the command at moments drawn from the seed, while it starts, between trials and in them;
started again it goes on. The agent's ONNX Runtime is slowed down, so that many kills come while it
compiles. Counts, on the agent's side, what was compiled, and apart what was being compiled when the
command was killed, which has to be compiled again. Prints one JSON object; `--out FILE` keeps it.
"""

import argparse
import random
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

sys.path[:0] = [
    str(Path(__file__).parents[1] / "tests" / "support"),
    str(Path(__file__).parents[1]),
]

from killed import run_killed  # noqa: E402
from main_job import machine, show  # noqa: E402

SLOW_COMPILE_S = 0.5
LAYERS = 5
"""Of each encoder: 25 graphs."""


def main() -> None:
    """Kill, and print what was compiled."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    about, draw = machine(), random.Random(args.seed)
    moments = [round(draw.uniform(0.0, 2.0), 3) for _ in range(args.kills)]
    with tempfile.TemporaryDirectory() as folder:
        found = run_killed(Path(folder), args.trials, LAYERS, moments, compile=SLOW_COMPILE_S)
    whole = found.compiled - found.cut
    result = {
        **asdict(found),
        "compiled_whole": whole,
        "compiled_whole_beyond_once_a_graph": whole - found.files,
        "seed": args.seed,
        "machine": about,
    }
    show(result, args.out)


if __name__ == "__main__":
    main()
