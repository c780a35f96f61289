"""Storages under several workers: nothing lost, nothing asked twice, on SQLite and PostgreSQL."""

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import commands
import optuna
import pytest
from optuna.exceptions import StorageInternalError
from optuna.trial import TrialState
from postgres import Postgres, missing, start_postgres
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError
from tiny import Bench

from studies.infra.locations import StorageError
from studies.infra.optuna_private import turn_of_all_homes
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


def queue_once(url: str, names: int, workers: int = 4) -> Counter[str]:
    """Have workers of several homes queue the same names at the same moment; how often each is."""
    optuna.create_study(storage=open_storage(url), study_name="s")
    together = threading.Barrier(workers)

    def work(worker: str) -> None:
        study = optuna.load_study(study_name="s", storage=open_storage(url))
        together.wait()
        with turn_of_all_homes(study, "queueing", worker, lambda _: False, 60.0, 0.01):
            known = {t.user_attrs.get("name") for t in study.get_trials(deepcopy=False)}
            for name in {str(k) for k in range(names)} - known:
                study.enqueue_trial({}, user_attrs={"name": name})

    threads = [threading.Thread(target=work, args=(f"worker {k}",)) for k in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    study = optuna.load_study(study_name="s", storage=open_storage(url))
    assert "queueing" not in study.user_attrs
    return Counter(str(trial.user_attrs["name"]) for trial in study.trials)


def test_workers_of_several_homes_queue_a_design_once_on_sqlite(tmp_path: Path) -> None:
    found = queue_once(f"sqlite:///{tmp_path / 'studies.db'}", 6)
    assert found == {str(k): 1 for k in range(6)}


def test_workers_of_several_homes_queue_a_design_once_on_postgresql(postgres: str) -> None:
    assert queue_once(postgres, 6) == {str(k): 1 for k in range(6)}


@pytest.mark.parametrize(("known", "patience_s"), [(True, 600.0), (False, 0.05)])
def test_a_turn_of_a_worker_that_was_killed_is_passed_over(
    tmp_path: Path, known: bool, patience_s: float
) -> None:
    storage = open_storage(f"sqlite:///{tmp_path / 'studies.db'}")
    study = optuna.create_study(storage=storage, study_name="s")
    study.set_user_attr("queueing", "killed")
    dead = {"killed"} if known else set[str]()
    with turn_of_all_homes(study, "queueing", "own", dead.__contains__, patience_s, 0.01):
        held = optuna.load_study(study_name="s", storage=storage).user_attrs["queueing"]
        assert held == "own"
    assert "queueing" not in optuna.load_study(study_name="s", storage=storage).user_attrs


@pytest.fixture
def postgres(server: Postgres) -> str:
    return server.url


@pytest.fixture
def server() -> Iterator[Postgres]:
    if why := missing():
        pytest.skip(why)
    with start_postgres() as made:
        yield made


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
def test_a_server_that_stops_at_any_moment_changes_no_trial(
    tmp_path: Path, server: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the study is read, a trial asked for, its design written, its end told."""
    monkeypatch.setattr("studies.infra.patience.TRY_EVERY_S", 0.1)
    calm = Bench(tmp_path / "calm")
    calm.search.seed(calm.seeded)
    calm.search.run(8)
    bench = Bench(tmp_path / "bench", server.url)
    bench.search.seed(bench.seeded)
    bench.search.run(2)
    count, starting = 0, list[threading.Timer]()

    @event.listens_for(bench.storage.engine, "before_cursor_execute")
    def _on_statement(*_given: Any) -> None:
        nonlocal count
        count += 1
        if count % 53 == 0 and len(starting) < 8:  # a prime: other statements of each trial
            server.stop()
            starting.append(threading.Timer(0.3, server.start))
            starting[-1].start()

    bench.search.run(8)
    assert len(starting) == 8
    told = [(t.number, t.state, t.params, t.values) for t in bench.trials]
    assert told == [(t.number, t.state, t.params, t.values) for t in calm.trials]


@pytest.mark.slow
def test_three_workers_on_one_new_postgresql_lose_nothing(tmp_path: Path, postgres: str) -> None:
    check_workers(tmp_path / "bench", postgres)
