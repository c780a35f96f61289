"""What asking for a trial and telling its result cost in a long study on PostgreSQL.

    python benchmarks/ask_tell.py [--trials 10000] [--workers 8] [--each 10] [--out FILE]

A study is run for a few trials with evaluations that cost nothing, and its rows are copied in the
database until it has as many trials as asked for. Then worker processes go on with it at once, each
with a home of its own, as on hosts of their own. Of each trial the loop (`Search`) is timed from
looking for work to the design, and from the design's result to the next look: median and 95th
percentile, in ms of wall time and of the worker's processor. The database's processor time over all
workers gives what one statement and one trial that is read cost it. Needs Debian's `postgresql`.
"""

import argparse
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import optuna
from main_job import machine, show
from sqlalchemy import create_engine, text
from trial_overhead import Free

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

from postgres import missing, start_postgres

from evaluators.store import EvaluationStore
from studies.infra.storage import open_storage, quiet_optuna
from studies.infra.workers import Workers
from studies.report.progress import Silent
from studies.results.objectives import Goals
from studies.samplers.registry import sampler_maker
from studies.search.loop import Search
from studies.search.trial_runner import Evaluators, SearchTargets, TrialRunner
from studies.simulation.parts import SPACE
from studies.study.identity import directions_of

NAME, FIRST = "asked", 50
TABLES = ("trial_values", "trial_params", "trial_user_attributes", "trial_system_attributes")


def search_on(url: str, folder: Path, sampler: str) -> tuple[Search, optuna.Study]:
    """A worker's search on the study, with a home of its own and evaluations that cost nothing."""
    storage = open_storage(url)
    study = optuna.create_study(
        storage=storage, study_name=NAME, directions=directions_of(Goals()), load_if_exists=True
    )
    latency: Any = Free("latency", "latency_ms", "ms")
    quality: Any = Free("quality", "accuracy", "%")
    store = EvaluationStore(folder / "evaluations.jsonl")
    runner = TrialRunner(study, SPACE, Evaluators(latency, quality, store), SearchTargets())
    workers = Workers(folder / "workers")
    return Search(runner, workers, Silent(), sampler_maker(sampler, 0, SPACE)), study


def grow(url: str, trials: int) -> None:
    """Copy the rows of the study's trials until there are so many."""
    engine = create_engine(url)
    with engine.begin() as connection:
        columns = {
            table: [
                row[0]
                for row in connection.execute(
                    text(
                        "SELECT column_name FROM information_schema.columns WHERE table_name = :t"
                    ),
                    {"t": table},
                )
            ]
            for table in ("trials", *TABLES)
        }
        own = [c for c in columns["trials"] if c not in ("trial_id", "number")]
        for copy in range(1, trials // FIRST):
            step = copy * FIRST
            connection.execute(
                text(
                    f"INSERT INTO trials (trial_id, number, {', '.join(own)}) "
                    f"SELECT trial_id + {step}, number + {step}, {', '.join(own)} FROM trials "
                    f"WHERE number < {FIRST}"
                )
            )
            for table in TABLES:
                key = next(c for c in columns[table] if c.endswith("_id") and c != "trial_id")
                rest = [c for c in columns[table] if c not in ("trial_id", key)]
                connection.execute(
                    text(
                        f"INSERT INTO {table} (trial_id, {', '.join(rest)}) "
                        f"SELECT t.trial_id + {step}, {', '.join('x.' + c for c in rest)} "
                        f"FROM {table} x JOIN trials t USING (trial_id) WHERE t.number < {FIRST}"
                    )
                )
        last = "SELECT max(trial_id) FROM trials"
        connection.execute(text(f"SELECT setval('trials_trial_id_seq', ({last}))"))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("ANALYZE"))
    engine.dispose()


def work(url: str, each: int, sampler: str, together: Any, found: Any) -> None:
    """One worker: its trials' costs, the first left out, for it reads the whole study."""
    quiet_optuna()
    with tempfile.TemporaryDirectory() as name:
        search, study = search_on(url, Path(name), sampler)
        begin = time.perf_counter()
        count = len(study.get_trials(deepcopy=False))
        first_s = time.perf_counter() - begin
        together.wait()
        times: list[tuple[float, float, float, float]] = []
        for _ in range(each + 1):
            looked = time.perf_counter(), time.process_time()
            trial = search._next(10**9)
            assert trial is not None
            there = time.perf_counter(), time.process_time()
            search._take(trial, 10**9)
            told = time.perf_counter(), time.process_time()
            asking = there[0] - looked[0], there[1] - looked[1]
            # Evaluations cost nothing: all of it is writing and telling.
            times.append((*asking, told[0] - there[0], told[1] - there[1]))
        found.put({"trials": count, "first_s": first_s, "times": times[1:]})


def processor_s(parent: int) -> float:
    """Processor seconds of a server and of its processes, also of those that have ended."""
    total, ticks = 0.0, os.sysconf("SC_CLK_TCK")
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = file.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(file.parent.name) == parent:
            total += sum(map(int, fields[11:15])) / ticks
        elif int(fields[1]) == parent:
            total += sum(map(int, fields[11:13])) / ticks
    return total


def spread(values: list[float]) -> dict[str, float]:
    """Median and 95th percentile, in ms."""
    at = sorted(values)[min(len(values) - 1, int(0.95 * len(values)))]
    return {"median": round(1000 * statistics.median(values), 1), "p95": round(1000 * at, 1)}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--each", type=int, default=10)
    parser.add_argument("--sampler", default="random")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    if why := missing():
        raise SystemExit(why)
    quiet_optuna()
    about = {"machine": machine(), "sampler": given.sampler, "workers": given.workers}
    context = multiprocessing.get_context("fork")
    with start_postgres() as server, tempfile.TemporaryDirectory() as name:
        search, _ = search_on(server.url, Path(name), given.sampler)
        search.run(FIRST)
        grow(server.url, given.trials)
        together, found = context.Barrier(given.workers + 1), context.Queue()
        taken = (server.url, given.each, given.sampler, together, found)
        workers = [context.Process(target=work, args=taken) for _ in range(given.workers)]
        for worker in workers:
            worker.start()
        together.wait()
        before = processor_s(server.process.pid)
        results = [found.get() for _ in workers]
        database_s = processor_s(server.process.pid) - before
        for worker in workers:
            worker.join()
    times = [each for result in results for each in result["times"]]
    asks = given.workers * (given.each + 1)
    columns = [list(column) for column in zip(*times, strict=True)]
    whole = [ask + tell for ask, _, tell, _ in times]
    processor = [ask + tell for _, ask, _, tell in times]
    show(
        {
            **about,
            "trials": results[0]["trials"],
            "first_reading_s": round(statistics.median(r["first_s"] for r in results), 2),
            "ask_ms": spread(columns[0]),
            "tell_ms": spread(columns[2]),
            "ask_and_tell_ms": spread(whole),
            "ask_and_tell_processor_ms": spread(processor),
            "database_processor_ms_a_trial": round(1000 * database_s / asks, 1),
        },
        given.out,
    )


if __name__ == "__main__":
    main()
