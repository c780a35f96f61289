"""What is wrong with a device, and how to mend it, before a study relies on it for days."""

import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from device_agent.board.description import DeviceInfo, DeviceState
from device_agent.board.power import WHOLE_BOARD
from device_agent.board.state import Board, BoardState
from device_agent.bundle import zipapp
from device_agent.wire.request import TimingProtocol
from evaluators.devices.client import DeviceClient, DeviceError
from evaluators.devices.recipes import is_jetson, way_out
from evaluators.devices.registry import Device
from evaluators.devices.ssh.connect import Link, connect
from evaluators.devices.ssh.host_key import HostKeyChanged, HostKeyUnknown
from evaluators.devices.ssh.link import SshTransport, agent_command
from evaluators.devices.ssh.login import LogInFailed
from evaluators.onnx.versions import IR_VERSION, OPSET

Level = Literal["ok", "warning", "problem"]
CUDA = "CUDAExecutionProvider"
OPTIONAL = ("openvino",)
_ALLOWED_CORES = TimingProtocol().others_cores

LEAST_MEMORY_MB, LITTLE_MEMORY_MB = 512, 2048
"""A full-size fused network in fp32 takes about 500 MB, and its compilation as much again."""
LEAST_DISK_MB, LITTLE_DISK_MB = 512, 4096
MOST_CLOCK_DIFFERENCE_S = 30.0
WATCH_S = 10.0
"""So long the idle device is watched for other programs and over-current events."""
OVER_CURRENT = "oc"
"""Start of the names of a Jetson's over-current counters."""
PROVIDERS = {"onnxruntime": "CPUExecutionProvider", "tensorrt": "GPU", "openvino": "CPU"}


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


def check_agent(
    client: DeviceClient,
    install: str,
    watch_s: float = WATCH_S,
    sleep: Callable[[float], object] = time.sleep,
) -> list[Finding]:
    """Look at a device through its agent. Raises DeviceError where that does not answer.

    Args:
        client: of the agent.
        install: the command that brings an agent of this version.
        watch_s: how long the device is watched while nothing is asked of it.
        sleep: waits.
    """
    info = client.hello()
    asked_s = time.time()
    state = client.state()
    heard_s = time.time()
    sleep(watch_s)
    later = client.state()
    return [
        _agent(info, install),
        _board(info.board),
        Finding("ok", "Python", info.python),
        *_runtimes(info, client.name),
        *_memory(info.board, state.board),
        _disk(state),
        _clock(state, asked_s, heard_s),
        *_speed(info.board, later.board),
        *_temperature(later.board),
        *_over_current(state, later),
        *_power(info.board, later),
        *_others(state, later),
    ]


def _agent(info: DeviceInfo, install: str) -> Finding:
    ours = hashlib.sha256(zipapp()).hexdigest()
    if info.agent_sha256 == ours:
        return Finding("ok", "agent", f"of this version ({ours[:16]})")
    there = (info.agent_sha256 or "its sources")[:16]
    return Finding("problem", "agent", f"of another version ({there}, here {ours[:16]})", install)


def _board(board: Board) -> Finding:
    """What it is, so that a person sees that the right one answers."""
    said = [board.model or board.machine or "model not reported"]
    said += list(board.gpus)
    if board.cores is not None:
        said.append(f"{board.cores} processor{'s' if board.cores > 1 else ''} on")
    if board.l4t is not None:
        said.append(f"L4T {board.l4t}" + (f" (JetPack {board.jetpack})" if board.jetpack else ""))
    return Finding("ok", "board", ", ".join(said))


def _runtimes(info: DeviceInfo, device: str) -> Iterator[Finding]:
    """One that is missing is a problem only where none is there: nobody needs all of them.

    Of a runtime that is not installed and that few need nothing is said.
    """
    usable = [runtime for runtime in info.runtimes if not runtime.problem]
    for runtime in info.runtimes:
        if runtime.problem:
            if runtime.name in OPTIONAL and usable:
                continue
            said, _ = _parted(runtime.problem)
            hint = way_out(runtime.name, PROVIDERS.get(runtime.name, ""), info, device)
            yield Finding("warning" if usable else "problem", runtime.name, said, hint)
            continue
        if (
            runtime.name == "onnxruntime"
            and is_jetson(info.board)
            and CUDA not in runtime.providers
        ):
            value = f"{runtime.version} has no {CUDA}: --runtime cuda cannot be used"
            yield Finding("warning", "CUDA", value, way_out("onnxruntime", CUDA, info, device))
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
        yield Finding("warning", "memory", "not reported", "look at it with `free -m` there")
        return
    value = f"{free} MB available" + (f" of {whole} MB" if whole is not None else "")
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
    jetson = is_jetson(board)
    if jetson and board.power_mode is None:
        yield Finding("warning", "power mode", "not reported", "sudo nvpmodel -q prints it there")
    elif board.power_mode is not None:
        full = _is_fastest(board.power_mode, board.fastest_mode)
        level: Level = "ok" if full else "warning"
        yield Finding(level, "power mode", board.power_mode, "" if full else _faster(board))
    if state.governor is not None:
        steady = state.governor == "performance"
        pin = "sudo cpupower frequency-set -g performance"
        hint = "" if steady else "sudo jetson_clocks" if jetson else pin
        yield Finding("ok" if steady else "warning", "governor", state.governor, hint)
    low = _below_their_limits(state) if jetson else []
    if low:
        yield Finding("warning", "clocks", "; ".join(low), "sudo jetson_clocks")
    if state.throttled_by:
        held = f"throttled by {', '.join(state.throttled_by)}"
        yield Finding("warning", "throttling", held, "cool the board, or take a lower power mode")


def _temperature(state: BoardState) -> Iterator[Finding]:
    if state.temperatures_c:
        zone, degrees = max(state.temperatures_c, key=lambda pair: pair[1])
        yield Finding("ok", "temperature", f"{degrees:.1f} C at {zone}, the hottest zone")


def _power(board: Board, state: DeviceState) -> Iterator[Finding]:
    """What the rails tell, and whether energy can be measured by them."""
    rails, silent = state.board.rails_w, state.unreadable_rails
    if not rails and not silent and not is_jetson(board):
        return
    told = [f"{rail} {watt:.2f} W" for rail, watt in rails]
    told += [f"{rail} cannot be read" for rail in silent]
    look = "look at the power monitors in /sys/class/hwmon there"
    if not rails or any(rail in WHOLE_BOARD for rail in silent):
        told.append("energy cannot be measured")
    elif silent:
        told.append("energy is measured without it")
    else:
        yield Finding("ok", "power", "; ".join(told))
        return
    yield Finding("warning", "power", "; ".join(told), look)


def _is_fastest(mode: str, fastest: str | None) -> bool:
    """Whether a power mode is the one without limits; a number alone does not tell."""
    number, _, name = mode.partition(" ")
    if fastest is None:
        return "MAXN" in name
    return number.removeprefix("pmode:").lstrip("0") == fastest.split()[0].lstrip("0")


def _faster(board: Board) -> str:
    unless = "unless this mode is the one you mean to measure"
    if board.fastest_mode is None:
        return f"/etc/nvpmodel.conf there names the modes: take the fastest, {unless}"
    number, _, name = board.fastest_mode.partition(" ")
    return f"sudo nvpmodel -m {number} is {name} (it may ask for a restart), {unless}"


def _over_current(before: DeviceState, after: DeviceState) -> Iterator[Finding]:
    """Over-current events take speed away under load: a study on such a board refuses readings."""
    counted = dict(before.board.throttle_events)
    events = {n: c for n, c in after.board.throttle_events if n.startswith(OVER_CURRENT)}
    if not events:
        return
    said = ", ".join(
        f"{name.removesuffix('_event_cnt')} {count:.0f} since the start of the board, "
        f"{count - counted.get(name, count):.0f} in {after.unix_s - before.unix_s:.0f} s"
        for name, count in events.items()
        if count
    )
    lower = "a lower power mode (sudo nvpmodel -p --verbose lists them)"
    hint = f"give the board a stronger supply, or take {lower}: readings with events are refused"
    level: Level = "warning" if said else "ok"
    yield Finding(level, "over-current", said or "no event", hint if said else "")


def _others(before: DeviceState, after: DeviceState) -> Iterator[Finding]:
    """What other programs take, by the rule that refuses readings of a board."""
    passed_s = after.unix_s - before.unix_s
    if before.others_s is None or after.others_s is None or passed_s <= 0:
        yield Finding("warning", "other programs", "not reported", "look at them with `top` there")
        return
    cores, allowed = max(0.0, after.others_s - before.others_s) / passed_s, _ALLOWED_CORES
    said = f"{cores:.2f} processors busy over {passed_s:.0f} s, {allowed:g} are allowed"
    level: Level = "warning" if cores > allowed else "ok"
    hint = "end what else runs there: readings are refused" if cores > allowed else ""
    yield Finding(level, "other programs", said, hint)


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
