"""The agent's command line: `serve` a host, run a `job` for it, `describe`, `cross-check`."""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from device_agent.agent import describe
from device_agent.board.power import print_rails
from device_agent.checks import ProtocolError
from device_agent.jobs.child import end_with
from device_agent.jobs.job import run_job
from device_agent.runtime import Unavailable
from device_agent.runtimes.tensorrt_rtx import CANNOT_LOAD, load_rtx, take
from device_agent.runtimes.trtexec import cross_check
from device_agent.session import IDLE_S, serve
from device_agent.wire.frames import send_bytes
from device_agent.wire.streams import take_streams


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    parser = _parser()
    asked = parser.parse_args(arguments)
    if asked.command == "serve":
        home = asked.home.expanduser()
        return serve(home, asked.max_upload_mb, asked.keep_mb, asked.idle_s)
    if asked.command == "rails":
        print_rails(asked.root, asked.labels)
        return 0
    if asked.command == "tensorrt-takes":
        return _tensorrt_takes(asked.files, asked.build)
    if asked.command == "cross-check":
        return _cross_check(asked.file, asked.trtexec)
    reader, writer = take_streams()
    if asked.command == "describe":
        if asked.for_agent:
            end_with(reader)
        info = describe(asked.max_upload_mb * 2**20)
        send_bytes(writer, json.dumps(info.as_json(), indent=2).encode() + b"\n")
        return 0
    try:
        run_job(asked.file, reader, writer)
    except ProtocolError as error:
        parser.exit(2, f"device_agent job: {error}\n")
    # Nothing that the runtime does on leaving may hold the agent up.
    sys.stderr.flush()
    os._exit(0)


def _cross_check(file: Path, tool: str) -> int:
    try:
        with TemporaryDirectory(prefix="cross-check-") as scratch:
            found = cross_check(file, Path(scratch), tool)
    except Unavailable as error:
        print(f"device_agent cross-check: {error}", file=sys.stderr)
        return 1
    print(json.dumps(found.as_json(), indent=2))
    return 0


def _tensorrt_takes(files: list[Path], build: bool) -> int:
    try:
        trt = load_rtx()
    except Unavailable as error:
        print(error, file=sys.stderr)
        return CANNOT_LOAD
    try:
        for file in files:
            print(json.dumps(take(trt, file, build).as_json()), flush=True)
    except Unavailable as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="device_agent", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    serving = commands.add_parser("serve", help="answer a host on standard input and output")
    serving.add_argument("--home", type=Path, required=True, help="folder of artifacts and results")
    describing = commands.add_parser("describe", help="print board and runtimes as JSON")
    describing.add_argument("--for-agent", action="store_true", help="end with standard input")
    for command in (serving, describing):
        command.add_argument("--max-upload-mb", type=int, default=4096, help="largest artifact")
    serving.add_argument("--keep-mb", type=int, default=8192, help="most artifacts in all")
    idle = "how long a host that asks nothing keeps the device while others wait"
    serving.add_argument("--idle-s", type=float, default=IDLE_S, help=idle)
    working = commands.add_parser("job", help="run one job; agents start this")
    working.add_argument("file", type=Path, help="JSON file that the agent wrote")
    sampling = commands.add_parser("rails", help="sample rails for a job; jobs start this")
    sampling.add_argument("root", type=Path, help="where the board's /sys stands")
    sampling.add_argument("labels", nargs="+", help="rails to add up")
    taking = commands.add_parser("tensorrt-takes", help="have NVIDIA's parser read ONNX files")
    taking.add_argument("files", type=Path, nargs="+", help="ONNX files with static shapes")
    taking.add_argument("--build", action="store_true", help="also build engines, without a GPU")
    checking = commands.add_parser("cross-check", help="time an ONNX file by NVIDIA's trtexec")
    checking.add_argument("file", type=Path, help="ONNX file with static shapes")
    checking.add_argument("--trtexec", default="trtexec", help="the tool, by name or path")
    return parser


if __name__ == "__main__":
    sys.exit(main())
