"""Storages under several workers: nothing lost, nothing asked twice, on SQLite and PostgreSQL."""

import os
import pwd
import shutil
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import commands
import optuna
import pytest
from optuna.exceptions import StorageInternalError
from optuna.trial import TrialState
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError
from tiny import Bench

from studies.infra.locations import StorageError
from studies.infra.signals import take_interrupts, whole
from studies.infra.storage import open_storage
from studies.results.trial_record import TrialRecord

WORKERS, TOTAL = 3, 12


def test_sqlite_is_opened_with_a_log_and_writers_that_queue(tmp_path: Path) -> None:
    storage = open_storage(f"sqlite:///{tmp_path / 'studies.db'}")
    said: list[str] = []
    with storage.engine.connect() as connection:  # type: ignore[attr-defined]
        raw = connection.connection.driver_connection
        assert raw.isolation_level is None
        assert raw.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert raw.execute("PRAGMA busy_timeout").fetchone() == (60_000,)
        raw.set_trace_callback(said.append)
    optuna.create_study(storage=storage).ask()
    begun = [line for line in said if line.startswith("BEGIN")]
    assert begun and set(begun) == {"BEGIN IMMEDIATE"}


def test_a_reader_is_not_held_up_by_a_writer(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    optuna.create_study(storage=open_storage(url), study_name="s")
    writer = open_storage(url)
    with writer.engine.begin() as connection:  # type: ignore[attr-defined]
        connection.exec_driver_sql("UPDATE studies SET study_name = 't'")
        import sqlite3

        with sqlite3.connect(tmp_path / "studies.db", timeout=0.1) as reader:
            assert reader.execute("SELECT study_name FROM studies").fetchall() == [("s",)]


@pytest.mark.parametrize("times", [1, 2])
def test_an_interrupt_waits_for_the_transaction_and_a_second_one_does_not(
    tmp_path: Path, times: int
) -> None:
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    storage, other = open_storage(url), open_storage(url)
    study = optuna.create_study(storage=storage, study_name="s")
    trial = study.ask()
    torn: list[int] = []

    def interrupt(*_: object) -> None:
        for _time in range(times - len(torn)):
            torn.append(1)
            signal.raise_signal(signal.SIGUSR1)

    before = signal.getsignal(signal.SIGUSR1)
    take_interrupts(signal.SIGUSR1)
    event.listen(storage.engine, "before_cursor_execute", interrupt)  # type: ignore[attr-defined]
    try:
        with pytest.raises(KeyboardInterrupt):
            trial.set_user_attr("written", "whole")
    finally:
        signal.signal(signal.SIGUSR1, before)
    seen = optuna.load_study(study_name="s", storage=other)
    assert seen.trials[0].user_attrs == ({"written": "whole"} if times == 1 else {})
    if times == 1:
        seen.set_user_attr("by", "another")  # raises where the lock was left behind


def test_an_ignored_interrupt_stays_ignored_and_a_thread_is_not_held() -> None:
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        take_interrupts(signal.SIGUSR1)
        signal.raise_signal(signal.SIGUSR1)
        take_interrupts(signal.SIGINT)
        held, done = threading.Event(), threading.Event()

        def hold() -> None:
            with whole():
                held.set()
                done.wait()

        thread = threading.Thread(target=hold)
        thread.start()
        held.wait()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        done.set()
        thread.join()
    finally:
        signal.signal(signal.SIGUSR1, before)
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.mark.parametrize("url", ["fusion.db", "nonsense://x", "sqlite:////dev/null/x/studies.db"])
def test_a_storage_that_cannot_be_opened_is_named_with_a_way_out(url: str) -> None:
    with pytest.raises(StorageError) as raised:
        open_storage(url)
    assert url in str(raised.value)
    assert "\n" not in str(raised.value)
    assert "--storage" in str(raised.value) or "write sqlite:///" in str(raised.value)


@pytest.mark.parametrize(
    "rest",
    [
        "tester:S3cr3t!x@localhost:1/studies",
        "tester:S3cr3t@x@localhost:1/studies",
        "tester:S3cr3t/x@localhost:1/studies",
        "tester:S3cr3t x@localhost:1/studies",
        "tester:S3cr3t!x@localhost:port/studies",
        "tester:S3cr3t!x@localhost:1/studies?bogus=1",
        "localhost:1/studies?user=tester&password=S3cr3t!x",
    ],
)
@pytest.mark.parametrize("scheme", ["postgresql+psycopg", "mysql+nodriver", "nonsense", "sqlite"])
def test_no_error_of_a_storage_holds_its_password(scheme: str, rest: str) -> None:
    with pytest.raises(StorageError) as raised:
        open_storage(f"{scheme}://{rest}")
    assert "S3cr3t" not in str(raised.value) and "***" in str(raised.value)


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///", "sqlite:///:memory:"])
def test_a_storage_in_memory_is_refused_by_name(url: str) -> None:
    with pytest.raises(StorageError, match=r"in memory.*write sqlite:///FILE\.db") as raised:
        open_storage(url)
    assert str(raised.value).startswith(f"storage {url}: ")


def check_workers(folder: Path, url: str) -> None:
    """Three processes that make, seed and drive one study at once."""
    folder.mkdir()
    given = (str(folder), url, str(TOTAL))
    workers = [
        commands.start(given, folder, os.environ, call="tiny:main_work") for _ in range(WORKERS)
    ]
    try:
        until = time.monotonic() + 90
        while len(list(folder.glob("ready-*"))) < WORKERS and time.monotonic() < until:
            fallen = [w for w in workers if w.poll() is not None]
            assert not fallen, [w.communicate()[1] for w in fallen]
            time.sleep(0.02)
        (folder / "go").touch()
        for worker in workers:
            _, errors = worker.communicate(timeout=90)
            assert worker.returncode == 0, errors
    finally:
        for worker in workers:  # one that fell leaves the others waiting for their start
            worker.kill()
            worker.communicate()
    bench = Bench(folder, url)
    assert [t.number for t in bench.trials] == list(range(TOTAL))
    assert {t.state for t in bench.trials} <= {TrialState.COMPLETE, TrialState.PRUNED}
    names = Counter(name for t in bench.trials if (name := TrialRecord.of(t).name))
    assert names == Counter(s.name for s in bench.seeded)
    drawn = [tuple(t.params.items()) for t in bench.trials]
    assert len(set(drawn)) == TOTAL, "workers that start together draw apart"


@pytest.mark.slow
def test_three_workers_on_one_new_sqlite_file_lose_nothing(tmp_path: Path) -> None:
    check_workers(tmp_path / "bench", f"sqlite:///{tmp_path / 'studies.db'}")


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


@pytest.fixture
def postgres(server: Postgres) -> str:
    return server.url


@pytest.fixture
def server() -> Iterator[Postgres]:
    pytest.importorskip("psycopg", reason="psycopg, PostgreSQL's driver, is not installed")
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if not found:
        pytest.skip("no PostgreSQL server under /usr/lib/postgresql")
    programs, user = found[-1].parent, {}
    # Unix sockets have short names, and pytest's folders are closed to others.
    folder = Path("/tmp") / f"pg-{os.getpid()}"
    folder.mkdir(mode=0o700)
    if os.geteuid() == 0:
        try:
            user = {"user": pwd.getpwnam("nobody").pw_name}
        except KeyError:
            pytest.skip("PostgreSQL does not run as root, and there is no user nobody")
        shutil.chown(folder, "nobody")
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": folder}
    subprocess.run(
        [programs / "initdb", "-D", folder / "db", "-U", "tester", "-A", "trust", "--no-sync"],
        check=True,
        **quiet,
        **user,
    )
    options = ["-D", folder / "db", "-k", folder, "-c", "listen_addresses=", "-c", "fsync=off"]
    made = Postgres(
        lambda: subprocess.Popen([programs / "postgres", *options], **quiet, **user),
        f"postgresql+psycopg://tester@/studies?host={folder}",
    )
    try:
        url = f"postgresql+psycopg://tester@/postgres?host={folder}"
        for _ in range(200):
            with suppress(StorageError):
                open_storage(url).remove_session()  # type: ignore[attr-defined]
                break
            time.sleep(0.05)
        import psycopg

        with psycopg.connect(f"host={folder} user=tester dbname=postgres", autocommit=True) as c:
            c.execute("CREATE DATABASE studies")
        yield made
    finally:
        made.stop()
        shutil.rmtree(folder)


@pytest.mark.slow
def test_a_database_that_restarts_in_a_trial_is_waited_for_and_every_result_is_there_once(
    server: Postgres,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("studies.infra.patience.TRY_EVERY_S", 0.1)
    bench, restarts = Bench(tmp_path / "bench", server.url), list[threading.Timer]()

    def restart() -> None:
        if len(bench.trials) == 2 and not restarts:
            server.stop()
            restarts.append(threading.Timer(1.0, server.start))
            restarts[0].start()

    bench.latency.fails = restart
    bench.search.run(4)
    restarts[0].join()
    assert [t.number for t in bench.trials] == list(range(4))
    assert all(t.state.is_finished() for t in bench.trials)
    assert len(bench.quality.trained) == 4
    said = capsys.readouterr().err
    assert said.count("the storage is away, waiting up to 15 minutes") == 1
    assert said.count("the storage is back") == 1
    server.stop()
    monkeypatch.setattr("studies.infra.patience.PATIENCE_S", 0.5)
    with pytest.raises((DBAPIError, StorageInternalError)):
        bench.search.run(5)
    server.start()


@pytest.mark.slow
def test_three_workers_on_one_new_postgresql_lose_nothing(tmp_path: Path, postgres: str) -> None:
    check_workers(tmp_path / "bench", postgres)
