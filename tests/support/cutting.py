"""Trials whose link is cut at random moments, and what is left of them."""

import hashlib
import json
import random
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from faulty import FaultyRuntime, network, processes_of, request
from sshd import Sshd

from device_agent.bundle import build_zipapp
from device_agent.wire.request import MeasureResult, Status, job_id_of
from evaluators.devices.client import DeviceClient
from evaluators.devices.pool import DevicePool
from evaluators.devices.registry import Device
from evaluators.devices.ssh.link import open_ssh_device
from evaluators.latency.evaluator import LatencyEvaluator, Runs

ELEMENTS = 2**20
SLOW_COMPILE_S, SLOW_RUN_S = 0.2, 0.01
GIVE_UP_S = 30.0


@dataclass
class Tally:
    """What was seen.

    Attributes:
        cuts_at: how often the link was cut in each stage of a trial.
        trials: how many there were.
        measured_once: trials that ended OK, and whose network was timed to the end once.
        orphans: processes that outlived their link by 30 s.
        corrupt_files: files on the device that are not what their names say.
        gone_after_s: for every cut, how long processes of the cut link lived on.
    """

    cuts_at: Counter[str] = field(default_factory=Counter)
    trials: int = 0
    measured_once: int = 0
    orphans: int = 0
    corrupt_files: int = 0
    gone_after_s: list[float] = field(default_factory=list)


class Board:
    """A device over SSH on this machine, whose runtime can be broken."""

    def __init__(self, sshd: Sshd, runtime: FaultyRuntime, home: Path) -> None:
        """Install the agent."""
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.sshd, self.runtime, self.home = sshd, runtime, home
        self.agent = build_zipapp(home / "agent")

    def open(self, **named: Any) -> DeviceClient:
        """Open it as a study does."""
        return open_ssh_device(self.device(), **named)

    def device(self) -> Device:
        """What a user has noted of it."""
        sshd = self.sshd
        return Device(
            "board",
            sshd.host,
            sshd.port,
            sshd.user,
            key_file=str(sshd.key_file),
            host_key=sshd.host_key,
            agent=str(self.agent),
            python=self.runtime.python,
        )

    def evaluator(self) -> LatencyEvaluator:
        """What asks it in a study; it has no builder, so that only `measured` may be asked."""
        locks = self.home.with_name("locks")
        pool = DevicePool({"board": self.open}, locks, lambda text: None, patience_s=GIVE_UP_S)
        return LatencyEvaluator(None, lambda: pool, Runs())  # type: ignore[arg-type]

    def corrupt_files(self) -> int:
        """Count the files that are not what their names say."""
        found = 0
        for artifact in (self.home / "artifacts").iterdir():
            found += hashlib.sha256(artifact.read_bytes()).hexdigest() != artifact.name
        for kept in (self.home / "results").iterdir():
            try:
                MeasureResult.from_json(json.loads(kept.read_text())["result"])
            except ValueError:
                found += 1
        return found

    def stage(self, artifact: Path, job: str) -> str:
        """Where the trial of a network stands."""
        sha256 = request(artifact, ELEMENTS).artifact_sha256
        if (self.home / "results" / job).exists():
            return "completed"
        if sha256 in self.runtime.events("run"):
            return "timing"
        if sha256 in self.runtime.events("compile"):
            return "building"
        if (self.home / "artifacts" / sha256).exists():
            return "uploaded"
        if (self.home / "incoming" / f"{sha256}.part").exists():
            return "uploading"
        return "before"


def measured(evaluator: LatencyEvaluator, artifact: Path, elements: int) -> tuple[Any, list[str]]:
    """Time a network as an evaluator does; also how it was interrupted, in words."""
    asked = request(artifact, elements)
    file = SimpleNamespace(path=artifact, sha256=asked.artifact_sha256)
    return evaluator._measure(file, asked)  # type: ignore[arg-type]


def cut_at_random(board: Board, folder: Path, trials: int, seed: int) -> Tally:
    """Cut the link of every trial once, at a moment drawn from the seed, every fifth twice."""
    draw, tally = random.Random(seed), Tally()
    evaluator = board.evaluator()
    for warm_up in (True, False):  # the first time is the device's first, the second is usual
        board.runtime.breaks(compile=SLOW_COMPILE_S, run=SLOW_RUN_S)
        artifact = network(folder / "usual.onnx", 10**6 + warm_up, ELEMENTS)
        start_s = time.monotonic()
        measured(evaluator, artifact, ELEMENTS)
        usual_s = time.monotonic() - start_s
    for number in range(1, trials + 1):
        artifact = network(folder / f"{number}.onnx", number, ELEMENTS)
        board.runtime.breaks(compile=SLOW_COMPILE_S, run=SLOW_RUN_S)
        moments_s = [draw.uniform(0.0, 1.2 * usual_s) for _ in range(1 + (number % 5 == 0))]
        cutter = threading.Thread(target=_cut, args=(board, artifact, moments_s, tally))
        cutter.start()
        evaluator.settle()
        result, _ = measured(evaluator, artifact, ELEMENTS)
        cutter.join()
        done = board.runtime.events("done")
        once = done == [request(artifact, ELEMENTS).artifact_sha256]
        tally.trials += 1
        tally.measured_once += once and result.status is Status.OK
        tally.corrupt_files += board.corrupt_files()
        artifact.unlink()
    evaluator.close()
    return tally


def _cut(board: Board, artifact: Path, moments_s: list[float], tally: Tally) -> None:
    job = job_id_of(request(artifact, ELEMENTS))
    for moment_s in moments_s:
        time.sleep(moment_s)
        before = processes_of(board.home)
        stage = board.stage(artifact, job)
        board.sshd.cut()
        cut_s = time.monotonic()
        left = set(before)
        while left and time.monotonic() - cut_s < GIVE_UP_S:
            left &= set(processes_of(board.home))
            time.sleep(0.005)
        tally.cuts_at[stage] += 1
        tally.gone_after_s.append(time.monotonic() - cut_s)
        tally.orphans += len(left)
