"""Leases on trials: the worker that runs one writes a heartbeat to the storage.

The times are those of the database, so neither the clock nor the name of a host matters, and
workers of other hosts, containers and homes can be told from dead ones. They are Optuna's
heartbeats, in its own table.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import optuna

from studies.infra.optuna_private import record_heartbeat

BEAT_S = 30.0
LEASE_S = 180.0
"""A trial without a sign of life for so long is taken over."""
ENDS_IN_S = 1.0


class LeaseLost(Exception):
    """Another worker took the trial over: this one stood still for longer than its lease."""


@contextmanager
def leased(trial: optuna.Trial, every_s: float = BEAT_S) -> Iterator[None]:
    """Show signs of life for a trial as long as the block runs."""
    over = threading.Event()

    def beat() -> None:
        while not over.wait(every_s):
            with suppress(Exception):  # the storage is away: whoever writes results waits for it
                record_heartbeat(trial.study, trial)

    thread = threading.Thread(target=beat, daemon=True, name=f"lease of trial {trial.number}")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(ENDS_IN_S)
