"""The agent's command line: `serve` a host, run one `job` for an agent, `describe` the device."""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from device_agent.agent import describe, serve, take_streams
from device_agent.checks import ProtocolError
from device_agent.job import run_job
from device_agent.wire import send_bytes


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    parser = _parser()
    asked = parser.parse_args(arguments)
    if asked.command == "serve":
        return serve(asked.home.expanduser(), asked.max_upload_mb, asked.keep_mb)
    reader, writer = take_streams()
    if asked.command == "describe":
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="device_agent", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    serving = commands.add_parser("serve", help="answer a host on standard input and output")
    serving.add_argument("--home", type=Path, required=True, help="folder of artifacts and results")
    describing = commands.add_parser("describe", help="print board and runtimes as JSON")
    for command in (serving, describing):
        command.add_argument("--max-upload-mb", type=int, default=4096, help="largest artifact")
    serving.add_argument("--keep-mb", type=int, default=8192, help="most artifacts in all")
    working = commands.add_parser("job", help="run one job; agents start this")
    working.add_argument("file", type=Path, help="JSON file that the agent wrote")
    return parser


if __name__ == "__main__":
    sys.exit(main())
