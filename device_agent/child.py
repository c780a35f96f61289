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

MAX_ANSWER_BYTES = 2**20
GRACE_S = 1.0


class HostGone(Exception):
    """The host ended the link, or spoke out of turn, while a child ran; the child is gone."""


@dataclass(frozen=True)
class Ended:
    """How a child ended.

    Attributes:
        answer: what it wrote to standard output; empty when it was killed or failed.
        problem: what went wrong, in words; empty when it ended well.
    """

    answer: bytes
    problem: str


def run_child(command: Sequence[str], deadline_s: float, host: int | None) -> Ended:
    """Run a command in a session of its own; when this returns, its whole group was killed.

    Args:
        command: what to run; its standard error is this process's, its standard input ends when
            this process does.
        deadline_s: after which it is killed with all that it started.
        host: file descriptor that becomes readable when the host is gone, or None.

    Raises:
        HostGone: `host` became readable.
    """
    child = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True, bufsize=0
    )
    assert child.stdin and child.stdout
    end_s = time.monotonic() + deadline_s
    try:
        answer = _read_answer(child.stdout.fileno(), end_s, host)
        if answer is None:
            return Ended(
                b"", f"the deadline of {deadline_s:g} s passed, and it was killed: give it longer"
            )
        if len(answer) > MAX_ANSWER_BYTES:
            return Ended(b"", f"it answered over {MAX_ANSWER_BYTES} bytes and was killed")
        try:
            code = child.wait(timeout=GRACE_S)
        except subprocess.TimeoutExpired:
            code = 0  # It answered and closed; what it still does is of no interest.
        return Ended(answer, "") if code == 0 else Ended(b"", _how(code))
    finally:
        _kill_group(child)
        child.stdin.close()
        child.stdout.close()


def own_command(*arguments: str) -> list[str]:
    """Return the command that runs this very agent, zipapp or source tree, with arguments."""
    top = Path(__file__).resolve().parent.parent
    if top.is_file():
        return [sys.executable, "-I", str(top), *arguments]
    start = (
        f"import sys; sys.path.insert(0, {str(top)!r}); import device_agent.__main__ as agent; "
        "sys.exit(agent.main())"
    )
    return [sys.executable, "-I", "-c", start, *arguments]


def _read_answer(pipe: int, end_s: float, host: int | None) -> bytes | None:
    """Read until the child closes `pipe` or writes too much; None when the deadline passed."""
    answer = b""
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    if host is not None:
        poll.register(host, select.POLLIN)
    while (left_s := end_s - time.monotonic()) > 0:
        ready = [fd for fd, _ in poll.poll(left_s * 1000)]
        if host is not None and host in ready:
            raise HostGone("the host ended the link or spoke out of turn while a job ran")
        if pipe in ready:
            chunk = os.read(pipe, 2**16)
            answer += chunk
            if not chunk or len(answer) > MAX_ANSWER_BYTES:
                return answer
    return None


def _kill_group(child: "subprocess.Popen[bytes]") -> None:
    with suppress(ProcessLookupError):  # All of the group had ended.
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _how(code: int) -> str:
    if code > 0:
        return f"the job's process failed with exit status {code}: see its log"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else "unknown"
    hint = "; the kernel does so when memory runs out" if -code == signal.SIGKILL else ""
    return f"the job's process was killed by signal {-code} ({name}){hint}: see its log"
