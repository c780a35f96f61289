"""A database that restarts is waited for as long as a board: what is to be written waits too."""

import sys
import time
from collections.abc import Callable
from typing import TypeVar

from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

from search_space.redaction import redacted

T = TypeVar("T")
PATIENCE_S = 900.0
TRY_EVERY_S = 2.0


def patiently(call: Callable[[], T]) -> T:
    """Make a call on the storage, again and again while its server is away, for 15 minutes.

    Raises what the call raises for anything but a lost or refused connection, and that too when
    the time is over.
    """
    end_s, told = time.monotonic() + PATIENCE_S, False
    while True:
        try:
            found = call()
        except (StorageInternalError, DBAPIError) as error:
            if not _is_away(error) or time.monotonic() >= end_s:
                raise
            if not told:
                cause = error.__cause__ or error
                why = redacted((str(cause).strip().splitlines() or ["?"])[0])
                minutes = f"{PATIENCE_S / 60:g} minutes"
                print(f"the storage is away, waiting up to {minutes}: {why}", file=sys.stderr)
                told = True
        else:
            if told:
                print("the storage is back", file=sys.stderr)
            return found
        time.sleep(TRY_EVERY_S)


def _is_away(error: BaseException | None) -> bool:
    """Whether the server of a database broke off or refuses connections; SQLite has none."""
    while error is not None:
        if isinstance(error, DBAPIError):
            if "sqlite" in type(error.orig).__module__:
                return False
            if error.connection_invalidated:
                return True
            # No SQL statement: it failed when it connected.
            if isinstance(error, OperationalError | InterfaceError) and error.statement is None:
                return True
        error = error.__cause__ or error.__context__
    return False
