"""What commands print on virtual Jetsons: a check as the board is found, a check after its advice
was followed, and a study, for people to read.

The boards are namespaces with the files of a Jetson, a real SSH server and the processor of this
machine: see `tests/support/virtual_board.py`. Readings are short, and say nothing about a Jetson.
Needs root. With `FUSION_NAS_TESTS_PYTHON310` naming a Python 3.10 with onnxruntime, boards with
JetPack 6 run that one.

    python benchmarks/virtual_boards.py --out FILE.md
"""

import argparse
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import wrap

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests" / "support"), str(ROOT)]

from desk import Desk  # noqa: E402
from jetsons import JETSONS  # noqa: E402
from tiny import new_place  # noqa: E402
from virtual_board import VirtualBoard, missing, start_board  # noqa: E402

INTRODUCTION = """\
# Commands on virtual Jetsons

Printed by commands on boards that are simulated by namespaces: the files of
`/sys`, `/proc` and `/etc` are those of the board that is named, the SSH server
is real, and the processor is that of an x86-64 machine. No figure of latency
says anything about a Jetson. The data are 64 drawn pictures with texts. Made by
`benchmarks/virtual_boards.py`; folders of the user are shortened to `~`, and
lines are wrapped as by a terminal of 80 columns.
"""


def main() -> int:
    """Start the boards, run the commands and write what they print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="a .md file")
    asked = parser.parse_args()
    if why := missing():
        print(f"virtual_boards.py: {why}", file=sys.stderr)
        return 2
    with TemporaryDirectory(prefix="boards-") as folder, ExitStack() as stack:
        starts = [start_board(Path(folder) / board.kind, board) for board in JETSONS]
        with ThreadPoolExecutor() as threads:
            boards = list(threads.map(stack.enter_context, starts))
        place = new_place(Path(folder) / "place", COLUMNS="80")
        desks = {each.jetson.kind: Desk(place, each) for each in boards}  # type: ignore[arg-type]
        text = "\n".join([INTRODUCTION, *sections(desks)])
        asked.out.write_text(text.replace(folder, "~"), encoding="utf-8")
    return 0


def sections(desks: dict[str, Desk]) -> Iterator[str]:
    """Yield the sections of the file."""
    place = next(iter(desks.values())).place
    for kind, desk in desks.items():
        desk.add(kind)
        done = desk.device("install", kind)
        assert done.returncode == 0, done.stderr
    found = checks(desks)
    for desk in desks.values():
        board = desk.server
        assert isinstance(board, VirtualBoard)
        board.advised(f"sudo nvpmodel -m {board.jetson.fastest}")
        board.advised("sudo jetson_clocks")
    after = checks(desks)
    for kind, desk in desks.items():
        board = desk.server
        assert isinstance(board, VirtualBoard)
        yield f"## {board.jetson.model}\n"
        yield block(f"fusion-nas device check {kind}", found[kind])
        yield f"After `sudo nvpmodel -m {board.jetson.fastest}` and `sudo jetson_clocks`:\n"
        yield block(f"fusion-nas device check {kind}", after[kind])
        words = f"--device {kind} --timing shared --objective energy --trials 2"
        storage = f"sqlite:///{place.folder / kind}.db"
        done = place.finish(place.run(*words.split(), "--storage", storage))
        assert done.returncode == 0, done.stderr
        yield block(f"fusion-nas run {words}", done.stderr + "\n" + done.stdout)
    yield "## All of them\n"
    yield block("fusion-nas device list", next(iter(desks.values())).device("list").stdout)


def checks(desks: dict[str, Desk]) -> dict[str, str]:
    """Return what `device check` prints, run on all boards at once."""
    place = next(iter(desks.values())).place
    running = {kind: place.start(place.command("device", "check", kind)) for kind in desks}
    return {kind: "".join(each.communicate(120)) for kind, each in running.items()}


def block(command: str, printed: str) -> str:
    """Return a command and what it printed as Markdown."""
    wrapped = (
        wrap(line, 80) or [""] if len(line) > 80 else [line] for line in printed.splitlines()
    )
    lines = "\n".join(line.rstrip() for each in wrapped for line in each).strip("\n")
    return f"```text\n$ {command}\n{lines}\n```\n"


if __name__ == "__main__":
    sys.exit(main())
