"""A process of its own for whatever loads a runtime, with a deadline and a sure end."""

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NoReturn

from device_agent.checks import ProtocolError
from device_agent.wire.frames import parse_json
from device_agent.wire.streams import HostGone

MAX_ANSWER_BYTES = 2**20
GRACE_S = 1.0
CRASHES = (signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGILL, signal.SIGFPE)


@dataclass(frozen=True)
class Ended:
    """How a child ended.

    Attributes:
        answer: what it wrote to standard output; empty when it was killed or failed.
        problem: what went wrong, in words; empty when it ended well.
        crashed: whether what it ran is to blame for its end: the runtime broke, or the kernel
            killed something because memory ran out, and it was killed.
    """

    answer: bytes
    problem: str
    crashed: bool = False


def run_child(
    command: Sequence[str], deadline_s: float, host: int | None, inherited: Sequence[int] = ()
) -> Ended:
    """Run a command in a session of its own; when this returns, its whole group was killed.

    Args:
        command: what to run; it answers with one JSON object and ends. Its standard error is this
            process's, its standard input ends when this process does.
        deadline_s: after which it is killed with all that it started.
        host: file descriptor that becomes readable when the host is gone, or None.
        inherited: file descriptors that the child gets too.

    Raises:
        HostGone: `host` became readable before the child had written all of its answer.
    """
    kills = _memory_kills()
    child = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
        bufsize=0,
        pass_fds=inherited,
    )
    assert child.stdin and child.stdout
    pipe, answer = child.stdout.fileno(), bytearray()
    try:
        if not _read_answer(pipe, answer, time.monotonic() + deadline_s, host):
            return Ended(
                b"", f"the deadline of {deadline_s:g} s passed, and it was killed: give it longer"
            )
        if len(answer) > MAX_ANSWER_BYTES:
            return Ended(b"", f"it answered over {MAX_ANSWER_BYTES} bytes and was killed")
        try:
            code = child.wait(timeout=GRACE_S)
        except subprocess.TimeoutExpired:
            code = 0  # It answered and closed; what it still does is of no interest.
        return Ended(bytes(answer), "") if code == 0 else _failed(code, kills)
    except HostGone:
        # A child that has answered takes a while to end. What is done is not lost for that.
        _kill_group(child)
        _read_answer(pipe, answer, time.monotonic() + GRACE_S, None)
        if not _is_whole(answer):
            raise
        return Ended(bytes(answer), "")
    finally:
        _kill_group(child)
        child.stdin.close()
        child.stdout.close()


def end_with(agent: BinaryIO) -> None:
    """See to it that this process, and whatever it starts, is killed when the agent ends.

    Call it before anything else runs here. A process of its own watches: a thread of this one
    would not get to run while a runtime holds the interpreter.

    Args:
        agent: a pipe whose other end the agent alone holds; it is closed here.
    """
    if os.getpgrp() != os.getpid():
        os.setpgid(0, 0)
    ends_with_this, _ = os.pipe()  # The other end stays open here, to the end.
    if os.fork() == 0:
        _watch(agent.fileno(), ends_with_this)
    os.close(ends_with_this)
    agent.close()


def own_command(*arguments: str) -> list[str]:
    """Return the command that runs this very agent, zipapp or source tree, with arguments."""
    top = Path(__file__).resolve().parents[2]
    if top.is_file():
        return [sys.executable, "-I", str(top), *arguments]
    start = (
        f"import sys; sys.path.insert(0, {str(top)!r}); import device_agent.__main__ as agent; "
        "sys.exit(agent.main())"
    )
    return [sys.executable, "-I", "-c", start, *arguments]


def _watch(agent: int, watched: int) -> NoReturn:
    """Kill this process's group when `agent` ends; leave when `watched` ends."""
    low, high = sorted((agent, watched))
    os.closerange(0, low)
    os.closerange(low + 1, high)
    os.closerange(high + 1, min(os.sysconf("SC_OPEN_MAX"), 2**16))
    poll = select.poll()
    for descriptor in (agent, watched):
        poll.register(descriptor, select.POLLIN)
    while True:
        ready = [descriptor for descriptor, _ in poll.poll()]
        if agent in ready and not os.read(agent, 4096):
            os.killpg(0, signal.SIGKILL)
        if watched in ready:
            os._exit(0)


def _read_answer(pipe: int, answer: bytearray, end_s: float, host: int | None) -> bool:
    """Read until the child closes `pipe` or writes too much; False when the deadline passed.

    Raises:
        HostGone: `host` became readable; `answer` holds what was read before.
    """
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    if host is not None:
        poll.register(host, select.POLLIN)
    while (left_s := end_s - time.monotonic()) > 0:
        ready = [fd for fd, _ in poll.poll(left_s * 1000)]
        if pipe in ready:
            chunk = os.read(pipe, 2**16)
            answer += chunk
            if not chunk or len(answer) > MAX_ANSWER_BYTES:
                return True
        elif host is not None and host in ready:
            raise HostGone("the host ended the link or spoke out of turn while a job ran")
    return False


def _is_whole(answer: bytearray) -> bool:
    """Return whether an answer was written to its end: of a JSON object no beginning is JSON."""
    try:
        parse_json(bytes(answer))
    except ProtocolError:
        return False
    return True


def _kill_group(child: "subprocess.Popen[bytes]") -> None:
    with suppress(ProcessLookupError):  # All of the group had ended.
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _failed(code: int, kills_before: int) -> Ended:
    if code > 0:
        return Ended(b"", f"the job's process failed with exit status {code}: see its log")
    name = signal.Signals(-code).name if -code in set(signal.Signals) else "unknown"
    killed = f"the job's process was killed by signal {-code} ({name})"
    if -code == signal.SIGKILL and _memory_kills() > kills_before:
        return Ended(b"", f"{killed}, as the device's memory ran out", crashed=True)
    return Ended(b"", f"{killed}: see its log", crashed=-code in CRASHES)


def _memory_kills(vmstat: Path = Path("/proc/vmstat")) -> int:
    """Return how many processes the kernel has killed because memory ran out; 0 if not told."""
    try:
        told = dict(line.split() for line in vmstat.read_text().splitlines())
        return int(told.get("oom_kill", 0))
    except (OSError, ValueError):
        return 0
