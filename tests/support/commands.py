"""Commands in processes of their own, forked from one that has imported the toolkit once.

Importing PyTorch and the libraries of encoders takes longer than most commands of the tests do.
The server imports them and runs nothing of them, so its forks are as good as new interpreters:
they have their own working directory, environment, PYTHONPATH, output and exit code.
"""

import atexit
import gc
import importlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import IO, NoReturn

COMMAND = "studies.cli.app:main"
TIMING = "FUSION_NAS_TESTS_TIMING"
"""Variable of a command's environment: with `brief` its readings on this machine are short ones,
as those in turns, which other work on the machine hardly ever makes unstable. Worker processes are
new interpreters and know nothing of it."""
PRELOADED = (
    "studies.cli.app",
    "studies.cli.study",
    "studies.study.run",
    "studies.trained.export",
    "torch.onnx",
    "transformers.models.auto.modeling_auto",
    "onnx",
    "onnxruntime",
    "alembic.command",
    "sqlalchemy.dialects.sqlite",
    "sqlalchemy.orm",
    "plotly.graph_objs._bar",
    "plotly.graph_objs._figure",
    "plotly.graph_objs._scatter",
    "plotly.io",
    "pydantic.main",
    "torch.distributed.tensor",
    "torchvision.transforms",
    "transformers.modeling_utils",
    "transformers.models.bert.modeling_bert",
    "transformers.models.vit.modeling_vit",
    "optuna",
    "optuna_dashboard",
    "plotly.graph_objects",
    "sklearn.ensemble",
    "paramiko",
    "jinja2",
)


def finish(
    command: Sequence[str], folder: Path, env: Mapping[str, str], timeout_s: float
) -> subprocess.CompletedProcess[str]:
    """Run `fusion-nas` with the arguments after `-c PROGRAM` of `command`, as subprocess.run.

    Raises:
        subprocess.TimeoutExpired: it was killed after `timeout_s`.
    """
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="backslashreplace") as out,
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="backslashreplace") as err,
    ):
        started = _begin(command[3:], folder, env, COMMAND, (out.fileno(), err.fileno()))
        try:
            code = started.wait(timeout_s)
        except BaseException:
            started.kill()
            raise
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess(command, code, out.read(), err.read())


def start(
    arguments: Sequence[str], folder: Path, env: Mapping[str, str], call: str = COMMAND
) -> "Started":
    """Start a command in a process group of its own, as subprocess.Popen with pipes does.

    Args:
        arguments: of the command, without its name.
        folder: its working directory.
        env: its whole environment.
        call: the function that it calls, as MODULE:NAME, which finds its arguments in sys.argv.
    """
    (out, out_end), (err, err_end) = os.pipe(), os.pipe()
    try:
        started = _begin(arguments, folder, env, call, (out_end, err_end))
    finally:
        os.close(out_end)
        os.close(err_end)
    started.stdout, started.stderr = (
        os.fdopen(each, encoding="utf-8", errors="backslashreplace") for each in (out, err)
    )
    return started


class Started:
    """A command at work, with the names of subprocess.Popen."""

    stdout: IO[str]
    stderr: IO[str]

    def __init__(self, args: Sequence[str], connection: socket.socket) -> None:
        self.args, self.returncode = args, None
        self._readers: list[threading.Thread] = []
        self._said = ["", ""]
        self._connection = connection
        self._answers = connection.makefile("r", encoding="utf-8")
        self.pid = int(self._answers.readline())

    returncode: int | None

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit code. Raises subprocess.TimeoutExpired after `timeout` seconds."""
        if self.returncode is None:
            if not select.select([self._connection], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
            self.returncode = int(self._answers.readline())
            self._answers.close()
            self._connection.close()
        return self.returncode

    def poll(self) -> int | None:
        """Return the exit code, or None while it runs."""
        with suppress(subprocess.TimeoutExpired):
            self.wait(0.0)
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Return what it writes to its end, again whenever asked. Raises as `wait` does.

        Its streams are read to their end here; nothing else is to close them before.
        """
        if not self._readers:
            for place, stream in enumerate((self.stdout, self.stderr)):
                if stream.closed:
                    raise ValueError("its output was closed before it was read")
                self._readers.append(
                    threading.Thread(target=self._read, args=(place, stream), daemon=True)
                )
            for reader in self._readers:
                reader.start()
        self.wait(timeout)
        for reader in self._readers:
            reader.join(timeout)
            if reader.is_alive():
                raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        return self._said[0], self._said[1]

    def _read(self, place: int, stream: IO[str]) -> None:
        with stream:
            self._said[place] = stream.read()

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _begin(
    arguments: Sequence[str],
    folder: Path,
    env: Mapping[str, str],
    call: str,
    streams: tuple[int, int],
) -> Started:
    """Ask the server for a process that writes to these streams."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(_server())
    asked = {"arguments": [*arguments], "folder": str(folder), "env": dict(env), "call": call}
    socket.send_fds(connection, [b"."], list(streams))
    connection.sendall(json.dumps(asked).encode() + b"\n")
    return Started(arguments, connection)


_servers: dict[str, "subprocess.Popen[bytes]"] = {}


def _server() -> str:
    """Return the address of this process's server, started by the first who asks.

    It ends when this process does, however that ends: the pipe of its stdin is closed then.
    """
    if not _servers:
        address = str(Path(tempfile.mkdtemp(prefix="fusion-nas-commands-")) / "socket")
        here = str(Path(__file__).parent)
        program = f"import sys; sys.path.append({here!r}); from commands import serve; serve()"
        server = subprocess.Popen(
            [sys.executable, "-c", program, address],
            env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert server.stdout is not None
        assert server.stdout.readline() == b"ready\n", "the server of commands did not start"
        _servers[address] = server
    return next(iter(_servers))


def serve() -> None:
    """Import what commands import, then fork one process for each that is asked for."""
    from search_space.encoders.libraries import import_timm, import_transformers

    import_timm()
    import_transformers()
    for name in PRELOADED:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # a collection in a fork would copy all that it looks at
    assert threading.active_count() == 1, "a fork has no thread but its own"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(sys.argv[1])
        listening.listen()
        os.write(1, b"ready\n")
        while 0 not in select.select([listening, 0], [], [])[0]:
            connection, _ = listening.accept()
            with connection, suppress(ChildProcessError):
                if os.fork() == 0:
                    listening.close()
                    _attend(connection)
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
    shutil.rmtree(Path(sys.argv[1]).parent)


def _attend(connection: socket.socket) -> NoReturn:
    """Run the command that a connection asks for in a fork, and answer with its exit code."""
    _, (out, err), _, _ = socket.recv_fds(connection, 1, 2)
    asked = json.loads(connection.makefile("r", encoding="utf-8").readline())
    begun, begins = os.pipe()
    command = os.fork()
    if command == 0:
        os.setsid()  # before anybody knows its number, who may kill its group
        os.write(begins, b".")
        os.close(begun)
        os.close(begins)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(out, 1)
        os.dup2(err, 2)
        connection.close()
        os.chdir(asked["folder"])
        os.environ.clear()
        os.environ.update(asked["env"])
        added = [each for each in asked["env"].get("PYTHONPATH", "").split(os.pathsep) if each]
        sys.path[:0] = [each for each in added if each not in sys.path]
        sys.argv[1:] = asked["arguments"]
        if asked["env"].get(TIMING) == "brief" and "--workers" not in asked["arguments"]:
            time_briefly()
        os._exit(_main(asked["call"]))
    os.close(begins)
    os.read(begun, 1)
    connection.sendall(f"{command}\n".encode())
    code = os.waitstatus_to_exitcode(os.waitpid(command, 0)[1])
    with suppress(BrokenPipeError):
        connection.sendall(f"{code}\n".encode())
    os._exit(0)


def time_briefly() -> None:
    """Shorten the readings of studies on this machine in this process; those of `time` stay.

    The pass that measures energy, on a board that has rails, is shortened too.
    """
    from device_agent.wire.request import MeasureRequest
    from evaluators.latency import evaluator
    from studies.study import context

    context.LOCAL_TIMING = evaluator.brief(evaluator.LOCAL_TIMING)
    evaluator.MeasureRequest = partial(MeasureRequest, energy_s=0.3)  # type: ignore


def _main(call: str) -> int:
    """Call a function, and what it registered to run at its end."""
    module, _, name = call.partition(":")
    code = 1
    try:
        getattr(importlib.import_module(module), name)()
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    return code
