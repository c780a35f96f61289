"""A PostgreSQL server for one test or benchmark."""

import os
import pwd
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

from studies.infra.locations import StorageError
from studies.infra.storage import open_storage


class Postgres:
    """A server on a Unix socket, run by no superuser; `url` is that of an empty database."""

    def __init__(self, start: Callable[[], subprocess.Popen[bytes]], url: str) -> None:
        self._start, self.url = start, url
        self.process = start()

    def start(self) -> None:
        self.process = self._start()

    def stop(self) -> None:
        self.process.send_signal(signal.SIGINT)  # do not wait for open connections
        self.process.wait(60)


def missing() -> str:
    """Why no server can be started here; empty where one can."""
    if find_spec("psycopg") is None:
        return "psycopg, PostgreSQL's driver, is not installed"
    if not _programs():
        return "no PostgreSQL server under /usr/lib/postgresql"
    if os.geteuid() == 0:
        try:
            pwd.getpwnam("nobody")
        except KeyError:
            return "PostgreSQL does not run as root, and there is no user nobody"
    return ""


def _programs() -> list[Path]:
    return sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))


@contextmanager
def start_postgres() -> Iterator[Postgres]:
    """Start a server with an empty database, and stop it at the end."""
    programs, user = _programs()[-1].parent, {}
    # Unix sockets have short names, and pytest's folders are closed to others.
    folder = Path("/tmp") / f"pg-{os.getpid()}"
    folder.mkdir(mode=0o700)
    if os.geteuid() == 0:
        user = {"user": "nobody"}
        shutil.chown(folder, "nobody")
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": folder}
    options = ["-D", folder / "db", "-k", folder, "-c", "listen_addresses=", "-c", "fsync=off"]
    try:
        subprocess.run(
            [programs / "initdb", "-D", folder / "db", "-U", "tester", "-A", "trust", "--no-sync"],
            check=True,
            **quiet,
            **user,
        )
        made = Postgres(
            lambda: subprocess.Popen([programs / "postgres", *options], **quiet, **user),
            f"postgresql+psycopg://tester@/studies?host={folder}",
        )
        try:
            _make_database(folder)
            yield made
        finally:
            made.stop()
    finally:
        shutil.rmtree(folder)


def _make_database(folder: Path) -> None:
    """Wait until the server answers, then make the database `studies`."""
    import psycopg

    url = f"postgresql+psycopg://tester@/postgres?host={folder}"
    for _ in range(200):
        with suppress(StorageError):
            open_storage(url).remove_session()  # type: ignore[attr-defined]
            break
        time.sleep(0.05)
    with psycopg.connect(f"host={folder} user=tester dbname=postgres", autocommit=True) as server:
        server.execute("CREATE DATABASE studies")
