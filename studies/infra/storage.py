"""Optuna storages, opened so that several workers and a crash do them no harm."""

import time
import warnings
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage, RDBStorage
from sqlalchemy import Engine, event, make_url
from sqlalchemy.exc import SQLAlchemyError

from search_space.redaction import redacted, redacted_url
from studies.infra.journal.storage import Journal
from studies.infra.locations import StorageError, journal_path
from studies.infra.patience import patiently
from studies.infra.signals import whole

BUSY_TIMEOUT_S = 60
ATTEMPTS = 8
MADE_TWICE = ("already exists", "locked", "UNIQUE constraint", "duplicate key", "concurrently")
"""What databases say when two workers make the same new storage at the same moment."""

IN_MEMORY = ("", ":memory:")
"""Where SQLite's URLs name no file."""


class _WholeSteps(RDBStorage):
    """Optuna's storage: an interrupt waits for each of its methods, and each for the server."""


class _WholeJournal(Journal):
    """A journal: an interrupt waits for each of its methods."""


def _whole(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def step(*args: Any, **kwargs: Any) -> Any:
        tries = 0

        def once() -> Any:
            nonlocal tries
            tries += 1
            try:
                with whole():
                    return method(*args, **kwargs)
            except UpdateFinishedTrialError:
                # The server went away after it had taken the end of the trial.
                if tries == 1 or method.__name__ != "set_trial_state_values":
                    raise
                return True

        return patiently(once)

    return step


for _name in BaseStorage.__dict__:
    if not _name.startswith("_"):
        setattr(_WholeSteps, _name, _whole(getattr(RDBStorage, _name)))
        setattr(_WholeJournal, _name, _whole(getattr(Journal, _name)))
for _name in ("_get_trials", "_create_new_trial", "_set_trial_param"):
    # Optuna's cache of a database calls these, and none of the public methods they stand behind.
    setattr(_WholeSteps, _name, _whole(getattr(RDBStorage, _name)))


def open_storage(url: str) -> BaseStorage:
    """The Optuna storage at a URL, as Optuna writes them. Raises StorageError."""
    shown = redacted_url(url)
    if (path := journal_path(url)) is not None:
        try:
            return _WholeJournal(path)
        except OSError as error:
            raise StorageError(
                f"storage {shown}: cannot be opened ({error.strerror or error}); "
                "repair it, or give another --storage"
            ) from error
    if "://" not in url:
        raise StorageError(
            f"storage {shown!r}: not a URL; write sqlite:///FILE.db, journal:FILE.log or "
            "postgresql://USER@HOST/NAME"
        )
    sqlite = url.startswith("sqlite")
    if sqlite:
        if url.partition("://")[2].partition("?")[0].strip("/") in IN_MEMORY:
            raise StorageError(
                f"storage {shown}: this is SQLite in memory, and a study must outlive its command; "
                "write sqlite:///FILE.db"
            )
        _make_folder(url)
    else:
        _check_url(url)
    options: dict[str, Any] = (
        {"connect_args": {"timeout": BUSY_TIMEOUT_S}} if sqlite else {"pool_pre_ping": True}
    )
    for attempt in range(1, ATTEMPTS + 1):
        try:
            storage = _WholeSteps(url, engine_kwargs=options)
            if sqlite:
                _serialise_writers(storage.engine)
            return storage
        except (SQLAlchemyError, ImportError, RuntimeError, ValueError) as error:
            if attempt < ATTEMPTS and any(words in str(error) for words in MADE_TWICE):
                time.sleep(0.1 * attempt)
                continue
            raise StorageError(
                f"storage {shown}: cannot be opened ({first_line(error)}); "
                "repair it, or give another --storage"
            ) from error
    raise AssertionError("unreachable")


def _check_url(url: str) -> None:
    """Raise StorageError for a URL whose password would be read as part of the host or the port.

    SQLAlchemy and the drivers would print that part.
    """
    try:
        host = make_url(url).host or ""
    except (SQLAlchemyError, ValueError):
        host = None
    if host is None or "@" in host:
        raise StorageError(
            f"storage {redacted_url(url)}: not a URL of a database; write "
            "postgresql://USER@HOST:PORT/NAME, where @ : / ? # % and spaces in a user or password "
            "are written as %40 %3A %2F %3F %23 %25 %20"
        )


def _make_folder(url: str) -> None:
    path = url.partition(":///")[2]
    try:
        Path(path).expanduser().parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(
            f"storage {redacted_url(url)}: no folder for it ({error.strerror}); "
            "give another --storage"
        ) from error


def _serialise_writers(engine: Engine) -> None:
    """Writers queue from the start of a transaction instead of failing in the middle of it.

    pysqlite opens transactions late and upgrades read locks; two workers that both do so lose
    trials. With WAL, readers (the dashboard) are never in the way.
    """

    @event.listens_for(engine, "connect")
    def _on_connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None
        connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_S * 1000}")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")

    @event.listens_for(engine, "begin")
    def _on_begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    engine.dispose()


def first_line(error: BaseException) -> str:
    """The first line of what an error says; databases append their statements and links."""
    return redacted((str(error).strip().splitlines() or [type(error).__name__])[0])


def quiet_optuna() -> None:
    """Optuna's log lines and warnings would stand between ours."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
