"""What is wrong with a device, and how to mend it, before a study relies on it for days."""

import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from device_agent.board.description import DeviceInfo, DeviceState, RuntimeInfo
from device_agent.board.state import Board, BoardState
from device_agent.bundle import zipapp
from evaluators.devices.client import DeviceClient, DeviceError
from evaluators.devices.registry import Device
from evaluators.devices.ssh.connect import Link, connect
from evaluators.devices.ssh.host_key import HostKeyChanged, HostKeyUnknown
from evaluators.devices.ssh.link import SshTransport, agent_command
from evaluators.devices.ssh.login import LogInFailed
from evaluators.onnx.versions import IR_VERSION, OPSET

Level = Literal["ok", "warning", "problem"]

LEAST_MEMORY_MB, LITTLE_MEMORY_MB = 512, 2048
"""A full-size fused network in fp32 takes about 500 MB, and its compilation as much again."""
LEAST_DISK_MB, LITTLE_DISK_MB = 512, 4096
MOST_CLOCK_DIFFERENCE_S = 30.0
BUSY_SHARE = 0.25
"""Load per core from which others are seen to work on the device."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        level: `ok`, `warning` (readings may suffer) or `problem` (no study can run).
        what: what was looked at.
        value: what was found.
        way_out: what to do; empty where nothing has to be done.
    """

    level: Level
    what: str
    value: str
    way_out: str = ""


def check_ssh(device: Device, waiting: Callable[[str], None] | None = None) -> list[Finding]:
    """Look at everything of a device over SSH, as far as it lets itself be looked at.

    Raises HostKeyChanged, for that is no finding among others.
    """
    where = f"{device.host} port {device.port}"
    reached = Finding("ok", "reachable", where)
    try:
        link = connect(device)
    except HostKeyUnknown as error:
        return [reached, Finding("problem", "host key", *_parted(error))]
    except LogInFailed as error:
        known = Finding("ok", "host key", "the one that was trusted")
        return [reached, known, Finding("problem", "log-in", *_parted(error))]
    except HostKeyChanged:
        raise
    except DeviceError as error:
        return [Finding("problem", "reachable", *_parted(error))]
    found = [
        reached,
        Finding("ok", "host key", "the one that was trusted"),
        Finding("ok", "log-in", f"{device.user}, by {link.public_key.split()[0]} key"),
    ]
    return [*found, *_check_over(link, device, waiting)]


def _check_over(link: Link, device: Device, waiting: Callable[[str], None] | None) -> list[Finding]:
    install = f"fusion-nas device install {device.name}"
    try:
        transport = SshTransport(link, agent_command(device))
        with DeviceClient(transport, name=device.name, waiting=waiting) as client:
            return check_agent(client, install)
    except DeviceError as error:
        said = " ".join(str(error).split())
        return [Finding("problem", "agent", said, install)]


def check_agent(client: DeviceClient, install: str) -> list[Finding]:
    """Look at a device through its agent. Raises DeviceError where that does not answer.

    Args:
        client: of the agent.
        install: the command that brings an agent of this version.
    """
    info = client.hello()
    asked_s = time.time()
    state = client.state()
    heard_s = time.time()
    return [
        _agent(info, install),
        Finding("ok", "Python", info.python),
        *_runtimes(info.runtimes),
        *_memory(info.board, state.board),
        _disk(state),
        _clock(state, asked_s, heard_s),
        *_speed(info.board, state.board),
    ]


def _agent(info: DeviceInfo, install: str) -> Finding:
    ours = hashlib.sha256(zipapp()).hexdigest()
    if info.agent_sha256 == ours:
        return Finding("ok", "agent", f"of this version ({ours[:16]})")
    there = (info.agent_sha256 or "its sources")[:16]
    return Finding("problem", "agent", f"of another version ({there}, here {ours[:16]})", install)


def _runtimes(runtimes: tuple[RuntimeInfo, ...]) -> Iterator[Finding]:
    """One that is missing is a problem only where none is there: nobody needs all of them."""
    usable = [runtime for runtime in runtimes if not runtime.problem]
    for runtime in runtimes:
        if runtime.problem:
            said, way_out = _parted(runtime.problem)
            yield Finding("warning" if usable else "problem", runtime.name, said, way_out)
            continue
        value = f"{runtime.version}, {', '.join(runtime.providers) or 'no providers named'}"
        opset, ir = runtime.onnx_opset_max, runtime.onnx_ir_max
        too_old = [
            f"{what} up to {has}, {need} is needed"
            for what, has, need in (("opset", opset, OPSET), ("ONNX IR", ir, IR_VERSION))
            if has is not None and has < need
        ]
        if too_old:
            newer = f"install a newer {runtime.name} for the agent's Python there"
            yield Finding("problem", runtime.name, f"{value}; {', '.join(too_old)}", newer)
        else:
            known = f", opset up to {opset}" if opset is not None else ""
            yield Finding("ok", runtime.name, f"{value}{known}")


def _memory(board: Board, state: BoardState) -> Iterator[Finding]:
    free, whole = state.available_memory_mb, board.memory_mb
    if free is None:
        yield Finding("warning", "memory", "not told", "look at it with `free -m` there")
        return
    value = f"{free} MB can be had" + (f" of {whole} MB" if whole is not None else "")
    level = _level(free, LEAST_MEMORY_MB, LITTLE_MEMORY_MB)
    yield Finding(level, "memory", value, "" if level == "ok" else "end other programs there")


def _disk(state: DeviceState) -> Finding:
    level = _level(state.home_free_mb, LEAST_DISK_MB, LITTLE_DISK_MB)
    way_out = "" if level == "ok" else "make room on the disk of ~/.fusion-nas there"
    return Finding(level, "disk", f"{state.home_free_mb} MB are free", way_out)


def _clock(state: DeviceState, asked_s: float, heard_s: float) -> Finding:
    """Neither trust in a log's times nor TLS on the device survives a clock that is off."""
    outside = max(asked_s - state.unix_s, state.unix_s - heard_s, 0.0)
    if outside < MOST_CLOCK_DIFFERENCE_S:
        return Finding("ok", "clock", f"within {MOST_CLOCK_DIFFERENCE_S:g} s of this machine's")
    side = "behind" if state.unix_s < asked_s else "ahead of"
    said = f"{outside:.0f} s {side} this machine's; readings do not depend on it"
    return Finding("warning", "clock", said, "sudo timedatectl set-ntp true")


def _speed(board: Board, state: BoardState) -> Iterator[Finding]:
    """What makes readings slower, or change from one to the next."""
    jetson = board.l4t is not None or "jetson" in (board.model or "").lower()
    if jetson and board.power_mode is None:
        yield Finding("warning", "power mode", "not told", "sudo nvpmodel -q tells it there")
    elif board.power_mode is not None:
        full = "MAXN" in board.power_mode or board.power_mode.split()[0] == "pmode:0000"
        hint = "sudo nvpmodel -m 0, unless this mode is the one you mean to measure"
        level: Level = "ok" if full else "warning"
        yield Finding(level, "power mode", board.power_mode, "" if full else hint)
    if state.governor is not None:
        steady = state.governor == "performance"
        pin = "sudo cpupower frequency-set -g performance"
        hint = "" if steady else "sudo jetson_clocks" if jetson else pin
        yield Finding("ok" if steady else "warning", "governor", state.governor, hint)
    low = _below_their_limits(state) if jetson else []
    if low:
        yield Finding("warning", "clocks", "; ".join(low), "sudo jetson_clocks")
    if state.throttled_by:
        held = f"held down by {', '.join(state.throttled_by)}"
        yield Finding("warning", "throttling", held, "cool the board, or take a lower power mode")
    if state.load_1m is not None and state.load_1m > BUSY_SHARE * (board.cores or 1):
        said = f"{state.load_1m:g} in the last minute on {board.cores} cores"
        yield Finding("warning", "load", said, "end what else runs there: it is in every reading")


def _below_their_limits(state: BoardState) -> list[str]:
    limits = dict(state.clock_limits_mhz)
    return [
        f"{name} at {now:.0f} of {limits[name]:.0f} MHz"
        for name, now in state.clocks_mhz
        if name in limits and now < 0.99 * limits[name]
    ]


def _level(value: int, least: int, little: int) -> Level:
    return "problem" if value < least else "warning" if value < little else "ok"


def _parted(error: Exception | str) -> tuple[str, str]:
    """What is wrong and what to do, parted at the last colon of an error in our style."""
    said = " ".join(str(error).split())
    wrong, _, way_out = said.rpartition(": ")
    return (wrong, way_out) if wrong else (said, "")
