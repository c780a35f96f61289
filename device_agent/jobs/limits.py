"""What the process of a job may not do, whatever the network or the runtime make it try."""

import ctypes
import os
import resource
import sys
from pathlib import Path

PR_SET_NO_NEW_PRIVS = 38
MAX_FILE_BYTES = 8 * 2**30
"""Filled weights and a runtime's scratch files and engines stay far below it."""
MAX_OPEN_FILES = 1024
MEMORY_SHARE = 0.9
"""Of the board's memory: the rest is the system's and the agent's."""


def limit_process(root: Path = Path("/")) -> None:
    """Limit this process and all that it starts; raising a limit again is not possible.

    No core file, no file over 8 GiB, 1024 open files, no new privileges (so no setuid program is of
    use), and no more private memory than nine tenths of the board's. A network that asks for more
    then fails to get memory, in words, instead of driving the board into swapping.

    Memory is bound by RLIMIT_DATA, not by RLIMIT_AS: CUDA reserves hundreds of gigabytes of
    addresses that it never fills, which only the latter counts. What a graphics card that shares
    the system's memory is given is counted by neither.

    Args:
        root: where the board's `/proc` stands.
    """
    bounds = {
        "RLIMIT_CORE": 0,
        "RLIMIT_FSIZE": MAX_FILE_BYTES,
        "RLIMIT_NOFILE": MAX_OPEN_FILES,
    }
    memory_bytes = _memory_bytes(root)
    if memory_bytes is not None:
        bounds["RLIMIT_DATA"] = int(memory_bytes * MEMORY_SHARE)
    for name, most in bounds.items():
        number = getattr(resource, name)
        held = resource.getrlimit(number)[1]
        bound = most if held == resource.RLIM_INFINITY else min(most, held)
        resource.setrlimit(number, (bound, bound))
    _refuse_new_privileges()


def _memory_bytes(root: Path) -> int | None:
    try:
        lines = (root / "proc" / "meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemTotal:"))
    except (OSError, ValueError, IndexError, StopIteration):
        print("job: the board does not report its memory; no limit is set", file=sys.stderr)
        return None


def _refuse_new_privileges() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        said = os.strerror(ctypes.get_errno())
        print(f"job: the kernel lets it gain privileges: {said}", file=sys.stderr)
