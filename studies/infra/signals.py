"""Ctrl-C and SIGTERM: they end a run as soon as nothing is half written."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_held = 0
_waiting = False


def take_interrupts(*signals: int) -> None:
    """Has these signals raise KeyboardInterrupt, in a `whole` step at its end.

    A process that was told to ignore one goes on ignoring it.
    """
    for each in signals:
        if signal.getsignal(each) is not signal.SIG_IGN:
            signal.signal(each, _interrupt)


@contextmanager
def interrupts_taken(*signals: int) -> Iterator[None]:
    """Take interrupts for the time of a block; elsewhere than in the main thread do nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {each: signal.getsignal(each) for each in signals}
    take_interrupts(*signals)
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


@contextmanager
def whole() -> Iterator[None]:
    """A step that an interrupt waits for; the second one does not wait.

    A transaction is such a step: one that is torn apart at any line can keep its connection, and
    with it the lock that everybody else, this process included, would wait for.
    """
    global _held, _waiting
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are handled in the main thread
        return
    _held += 1
    try:
        yield
    finally:
        _held -= 1
        if _waiting and not _held:
            _waiting = False
            raise KeyboardInterrupt


def _interrupt(_signal: int, _frame: Any) -> None:
    global _waiting
    if _held and not _waiting:
        _waiting = True
        return
    _waiting = False
    raise KeyboardInterrupt
