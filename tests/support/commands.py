"""Commands in processes of their own, forked from one that has imported the toolkit once.

Importing PyTorch and the libraries of encoders takes longer than most commands of the tests do.
The server imports them and runs nothing of them, so its forks are as good as new interpreters:
they have their own working directory, environment, output and exit code.
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
from pathlib import Path
from typing import NoReturn

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
        tempfile.TemporaryFile("w+", encoding="utf-8") as out,
        tempfile.TemporaryFile("w+", encoding="utf-8") as err,
        socket.socket(socket.AF_UNIX) as connection,
    ):
        connection.connect(_server())
        asked = {"arguments": command[3:], "folder": str(folder), "env": dict(env)}
        socket.send_fds(connection, [b"."], [out.fileno(), err.fileno()])
        connection.sendall(json.dumps(asked).encode() + b"\n")
        answers = connection.makefile("r", encoding="utf-8")
        process = int(answers.readline())
        try:
            connection.settimeout(timeout_s)
            code = int(answers.readline())
        except BaseException as error:
            os.kill(process, signal.SIGKILL)
            if isinstance(error, TimeoutError):
                raise subprocess.TimeoutExpired(command, timeout_s) from error
            raise
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess(command, code, out.read(), err.read())


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
    command = os.fork()
    if command == 0:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(out, 1)
        os.dup2(err, 2)
        connection.close()
        os.chdir(asked["folder"])
        os.environ.clear()
        os.environ.update(asked["env"])
        sys.argv[1:] = asked["arguments"]
        os._exit(_main())
    connection.sendall(f"{command}\n".encode())
    code = os.waitstatus_to_exitcode(os.waitpid(command, 0)[1])
    with suppress(BrokenPipeError):
        connection.sendall(f"{code}\n".encode())
    os._exit(0)


def _main() -> int:
    """Run `fusion-nas` and what it registered to run at its end."""
    from studies.cli.app import main

    code = 1
    try:
        main()
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 0
    except BaseException:
        traceback.print_exc()
    finally:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    return code
