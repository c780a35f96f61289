"""A database that stops while workers use it."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from postgres import Postgres, missing, start_postgres
from sqlalchemy import event
from tiny import Bench

STOPS = 8


@pytest.fixture
def server() -> Iterator[Postgres]:
    if why := missing():
        pytest.skip(why)
    with start_postgres() as made:
        yield made


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
        if count % 53 == 0 and len(starting) < STOPS:  # no divisor of the statements of a trial
            server.stop()
            starting.append(threading.Timer(0.3, server.start))
            starting[-1].start()

    bench.search.run(8)
    assert len(starting) == STOPS
    told = [(t.number, t.state, t.params, t.values) for t in bench.trials]
    assert told == [(t.number, t.state, t.params, t.values) for t in calm.trials]
