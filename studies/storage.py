"""Optuna storages, opened so that several workers and a crash do them no harm."""

import os
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage, RDBStorage
from sqlalchemy import Engine, event
from sqlalchemy.exc import SQLAlchemyError

BUSY_TIMEOUT_S = 60


class StorageError(Exception):
    """A storage cannot be opened, or holds another study; the text says what to do."""


def open_storage(url: str) -> BaseStorage:
    """The Optuna storage at a URL, as Optuna writes them. Raises StorageError."""
    if "://" not in url:
        raise StorageError(
            f"storage {url!r}: not a URL; write sqlite:///FILE.db or postgresql://USER@HOST/NAME"
        )
    sqlite = url.startswith("sqlite")
    if sqlite:
        _make_folder(url)
    options: dict[str, Any] = (
        {"connect_args": {"timeout": BUSY_TIMEOUT_S}} if sqlite else {"pool_pre_ping": True}
    )
    try:
        storage = RDBStorage(url, engine_kwargs=options)
        if sqlite:
            _serialise_writers(storage.engine)
    except (SQLAlchemyError, ImportError, RuntimeError, ValueError) as error:
        raise StorageError(f"storage {url}: cannot be opened ({_first_line(error)})") from error
    return storage


def _make_folder(url: str) -> None:
    path = url.partition(":///")[2]
    if path and path != ":memory:":
        try:
            Path(path).expanduser().parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"storage {url}: no folder for it ({error.strerror})") from error


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


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def default_url() -> str:
    """SQLite in the folder `runs` here."""
    return f"sqlite:///{os.path.join('runs', 'fusion-nas.db')}"


def quiet_optuna() -> None:
    """Optuna's log lines would stand between ours."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
