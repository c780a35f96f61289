"""Training that gives way, so that this machine can time a design while others are trained."""

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
LOWEST = 19
"""Niceness: beside a process at 0 it gets 1.5 % of a core (Linux)."""
_THREADS = Path("/proc/self/task")


def can_give_way() -> bool:
    """Whether threads have priorities of their own here: on Linux they do."""
    return _THREADS.is_dir()


def at_first_priority(call: Callable[[], T]) -> Callable[[], T]:
    """The same call, made with the priority that this process began with.

    A child process takes on the priority of the thread that starts it, so one that is started by
    this call stays ahead of all that gives way. Ask for it before `give_way`.
    """
    launcher = _launcher()
    return lambda: launcher.submit(call).result()


def give_way() -> None:
    """Puts this process, but for calls at first priority, behind all others for good.

    Of the processor alone: memory and caches stay shared. Threads and processes that are started
    later inherit it. Needs no privilege; only a privileged process could undo it.
    """
    first = _launcher().submit(threading.get_native_id).result()
    for name in os.listdir(_THREADS):
        if int(name) != first:
            with suppress(ProcessLookupError):  # a thread may end meanwhile
                os.setpriority(os.PRIO_PROCESS, int(name), LOWEST)


@cache
def _launcher() -> ThreadPoolExecutor:
    """One thread, started at once: it keeps the priority that this process has now."""
    made = ThreadPoolExecutor(1, thread_name_prefix="first priority")
    made.submit(int).result()
    return made
