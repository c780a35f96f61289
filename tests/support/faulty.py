"""A Python whose ONNX Runtime is the real one, but breaks on purpose and keeps a log of it."""

import hashlib
import json
import subprocess
import sys
import time
import venv
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

from device_agent.bundle import build_zipapp
from device_agent.wire.request import MeasureRequest, TensorSpec, TimingProtocol
from evaluators.devices.client import DeviceClient, LocalTransport

MARK = "to be broken"
QUICK = TimingProtocol(
    warmup_min_runs=1, warmup_min_s=0.0, warmup_max_s=10.0, min_repeats=6, max_repeats=12,
    min_time_s=0.0, max_time_s=1.0, interval_share=100.0, block_tolerance=100.0,
    reference_tolerance=100.0, reference_runs=3, others_cores=1e6, watch_board=False, retries=0,
    steady_runs=1, steady_tolerance=1.0,
)  # fmt: skip
"""Trusts every reading, on a busy machine too: one that is not trusted is taken again."""

WRAPPER = """
import ctypes, hashlib, importlib, json, os, signal, sys, time

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.remove(HERE)
del sys.modules["onnxruntime"]
real = importlib.import_module("onnxruntime")
sys.path.insert(0, HERE)


def log(event, name):
    line = json.dumps([event, os.getpid(), name]) + "\\n"
    file = os.open(os.path.join(HERE, "events"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(file, line.encode())
    os.close(file)


def break_at(event, name):
    log(event, name)
    with open(os.path.join(HERE, "faults.json")) as file:
        faults = json.load(file)
    fault, times = faults.get(event, (None, 0))
    if fault is None:
        return
    with open(os.path.join(HERE, "events")) as file:
        so_far = sum(json.loads(line)[0] == event for line in file)
    if so_far > times:
        return
    if fault == "sleep":
        time.sleep(600)
    elif fault == "hold the interpreter":
        ctypes.PyDLL(None).sleep(600)
    elif fault == "read address 0":
        ctypes.string_at(0)
    elif fault == "ask for memory":
        kept = []
        while True:
            kept.append(bytes(2**32))  # never touched, so no memory is really taken
    elif fault == "take memory":
        kept = []
        while True:
            kept.append(os.urandom(1) * 2**24)
    elif fault == "be killed":
        os.kill(os.getpid(), signal.SIGKILL)
    elif fault == "say hostile things":
        sys.stderr.write("\\x1b]0;mine\\x07\\x1b[31m<script>alert(1)</script>\\n")
        raise RuntimeError("\\x1b[2J<b>gone</b>\\x00")
    else:
        time.sleep(float(fault))


break_at("load", "")


class InferenceSession(real.InferenceSession):
    def __init__(self, model, *others, **named):
        content = model if isinstance(model, bytes) else open(model, "rb").read()
        self._name = hashlib.sha256(content).hexdigest() if MARK.encode() in content else ""
        if self._name:
            break_at("compile", self._name)
            leave = os._exit
            os._exit = lambda code: (break_at("done", self._name), leave(code))
        super().__init__(model, *others, **named)

    def run(self, *given):
        if self._name:
            break_at("run", self._name)
        return super().run(*given)


real.InferenceSession = InferenceSession
"""


class FaultyRuntime:
    """A Python of its own below a folder; agents that it runs break as they are told.

    Attributes:
        python: its path.
    """

    def __init__(self, folder: Path, mark: str = MARK) -> None:
        """Make the Python; nothing breaks yet. Networks that hold `mark` can be broken."""
        venv.EnvBuilder(symlinks=True).create(folder)
        self.python = str(folder / "bin" / "python")
        (self._site,) = folder.glob("lib/python*/site-packages")
        package = self._site / "onnxruntime"
        package.mkdir()
        (package / "__init__.py").write_text(f"MARK = {mark!r}\n{WRAPPER}")
        real = {str(Path(str(module.__file__)).parents[1]) for module in (np, onnxruntime)}
        (self._site / "real.pth").write_text("\n".join(sorted(real)) + "\n")
        self.breaks()

    def breaks(self, times: int = 10**9, **faults: Any) -> None:
        """Break at `load`, `compile`, `run` or `done` so many times; a number sleeps.

        `done` is when a job has answered and is about to end.
        """
        (self._site / "events").unlink(missing_ok=True)
        given = {event: (fault, times) for event, fault in faults.items()}
        (self._site / "faults.json").write_text(json.dumps(given))

    def events(self, event: str) -> list[str]:
        """Return the SHA-256 of the network of each such event: `compile`, `run` or `done`."""
        try:
            lines = (self._site / "events").read_text().splitlines()
        except FileNotFoundError:
            return []
        return [name for what, _, name in map(json.loads, lines) if what == event]

    def wait_for(self, event: str, count: int = 1) -> None:
        """Return when there are so many of these events."""
        assert within(30.0, lambda: len(self.events(event)) >= count), f"no {event} came"


def network(path: Path, number: int = 0, size: int = 4) -> Path:
    """Write `y = x + w` over float32 [size] with weights drawn from `number`; it can be broken."""
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    x, y = (helper.make_tensor_value_info(name, kind, [size]) for name in "xy")
    weights = np.random.default_rng(number).random(size, dtype="float32")
    w = helper.make_tensor("w", kind, [size], weights.tobytes(), raw=True)
    graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], MARK, [x], [y], [w])
    versions = [helper.make_opsetid("", 17)]
    made = helper.make_model(graph, opset_imports=versions, ir_version=8)
    path.write_bytes(made.SerializeToString())
    return path


def request(artifact: Path, size: int = 4, **changes: Any) -> MeasureRequest:
    """Ask for a network of `network` to be timed."""
    sha256 = hashlib.sha256(artifact.read_bytes()).hexdigest()
    x = TensorSpec("x", "float32", (size,), low=-1.0, high=1.0)
    given = {"timing": QUICK, "deadline_s": 60.0, **changes}
    return MeasureRequest(sha256, (x,), **given)


def open_agent(command: Sequence[str], **named: Any) -> DeviceClient:
    """Start an agent by a command of one's own."""
    return DeviceClient(LocalTransport(command), **named)


def processes_of(folder: Path) -> list[int]:
    """Return the processes that run and have this folder in their command line."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            ended = (entry / "stat").read_text().rpartition(")")[2].split()[0] in "ZX"
            if not ended and bytes(folder) in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def agents_of(home: Path) -> list[int]:
    """Return the agents that serve a host in this home."""
    found = []
    for pid in processes_of(home):
        command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        if command[1] == b"-I" and command[3] == b"serve":
            found.append(pid)
    return found


def within(seconds: float, holds: Callable[[], object]) -> bool:
    """Return whether something came to hold in so many seconds."""
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def serving(home: Path, python: str, *options: str) -> list[str]:
    """Return the command of an agent with options of its own."""
    home.mkdir(mode=0o700, exist_ok=True)
    agent = build_zipapp(home / "agent")
    return [python, "-I", str(agent), "serve", "--home", str(home), *options]


@contextmanager
def run_host(code: str, *arguments: object) -> Iterator["subprocess.Popen[str]"]:
    """Run a host of its own: Python that sees the rooms and the helpers of the tests."""
    root = str(Path(__file__).parents[2])
    seen = [root, *(folder for folder in sys.path if folder.startswith(root))]
    start = f"import sys; sys.path[:0] = {seen!r}\n"
    command = [sys.executable, "-c", start + code, *map(str, arguments)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as host:
        try:
            yield host
        finally:
            host.kill()
