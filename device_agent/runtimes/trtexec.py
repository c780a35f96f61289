"""NVIDIA's own tool beside ours: `trtexec` times the same file, for a person to compare.

What it times by default changed between TensorRT 10 and 11 (typing, CUDA graphs, copies), so every
flag that matters is given. Its samples are read from the file that `--exportTimes` writes: a list
of objects with `computeMs`, `h2dMs`, `d2hMs` and `latencyMs`, the sum of the three.
"""

import json
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from device_agent.runtime import Unavailable
from device_agent.runtimes.tensorrt_build import OPTIMIZATION_LEVEL, WORKSPACE_BYTES

VERSION = re.compile(r"\[TensorRT v(\d+)\]")
SAME_BUILD = (
    f"--memPoolSize=workspace:{WORKSPACE_BYTES // 2**20}",
    f"--builderOptimizationLevel={OPTIMIZATION_LEVEL}",
    "--noTF32",
)
SAME_RUN = ("--infStreams=1", "--avgRuns=1", "--warmUp=2000", "--duration=5", "--iterations=30")
FLAGS: Mapping[int, Sequence[str]] = {
    # Weakly typed unless told; copies are timed and CUDA graphs are not used unless told.
    10: ("--stronglyTyped",),
    # Always strongly typed; copies are left out and CUDA graphs are used unless told.
    11: ("--includeDataTransfers", "--noCudaGraph"),
}
DEADLINE_S = 3600.0


@dataclass(frozen=True)
class CrossCheck:
    """What `trtexec` says of a network.

    Attributes:
        version: of TensorRT, as the tool prints it: 100300 is 10.3.0.
        compute_ms: median time on the device; beside it stands our `device_ms`.
        latency_ms: median of copies and compute; ours adds what the host spends on starting them.
        samples: how many runs these are of.
        command: what was run.
    """

    version: int
    compute_ms: float
    latency_ms: float
    samples: int
    command: tuple[str, ...]

    def as_json(self) -> dict[str, object]:
        """Return a JSON object for a person's file."""
        return {**asdict(self), "command": list(self.command)}


def cross_check(model: Path, scratch: Path, tool: str = "trtexec") -> CrossCheck:
    """Compile and time an ONNX file with static shapes by `trtexec`.

    Raises:
        Unavailable: the tool is not there, is of an unknown version, or failed.
    """
    version = _version(_run((tool, "--help")))
    times = scratch / "times.json"
    command = trtexec_command(tool, version // 10_000, model, times)
    _run(command)
    try:
        return read_times(times, version, command)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Unavailable(f"{tool} wrote no times that can be read: {error}") from error


def trtexec_command(tool: str, major: int, model: Path, times: Path) -> tuple[str, ...]:
    """Return the command that times as our runtime does; raises `Unavailable` for other majors."""
    if major not in FLAGS:
        known = " and ".join(map(str, FLAGS))
        raise Unavailable(f"{tool} of TensorRT {major}: the flags of {known} are known here")
    ends = (f"--onnx={model}", f"--exportTimes={times}")
    return (tool, *ends, *SAME_BUILD, *SAME_RUN, *FLAGS[major])


def read_times(file: Path, version: int, command: Sequence[str]) -> CrossCheck:
    """Read what `--exportTimes` wrote; raises ValueError or KeyError where it is something else."""
    runs = json.loads(file.read_bytes())
    if not isinstance(runs, list) or not runs:
        raise ValueError(f"{file.name} holds no list of runs")
    compute_ms = median(float(run["computeMs"]) for run in runs)
    latency_ms = median(float(run["latencyMs"]) for run in runs)
    return CrossCheck(version, compute_ms, latency_ms, len(runs), tuple(command))


def _version(said: str) -> int:
    found = VERSION.search(said)
    if found is None:
        raise Unavailable(f"trtexec did not say its version: {said[:200]!r}")
    return int(found.group(1))


def _run(command: Sequence[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S)
    except (OSError, subprocess.SubprocessError) as error:
        hint = "it lies in /usr/src/tensorrt/bin on a JetPack: give its path with --trtexec"
        raise Unavailable(f"{command[0]} cannot be run: {error}: {hint}") from error
    if done.returncode != 0:
        said = " ".join((done.stdout + done.stderr).split())[-1000:]
        raise Unavailable(f"{command[0]} failed with exit status {done.returncode}: {said}")
    return done.stdout + done.stderr
