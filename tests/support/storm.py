"""Workers of one study that are killed, stopped for longer than their lease, and moved to hosts.

Workers are forked from this process, which has imported everything and has no threads.
"""

import ctypes
import os
import random
import signal
import socket
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial, TrialState
from tiny import Bench

from studies.infra import leases, workers
from studies.infra.dask_workers import DaskWorkers, cluster
from studies.report.progress import Reporter
from studies.results.trial_record import TrialRecord
from studies.search import loop

LEASE_S, BEAT_S = 2.0, 0.3
"""Instead of three minutes and half a minute."""
STOPPED_S = 1.5 * LEASE_S
TRIAL_S = 0.25
WORKERS = 3
SEEDS = 40
AFTER_S = 0.5
"""Between two events, on average."""
LAST_S = 300.0
"""Within which the last workers come to the end."""
CLONE_NEWUTS = 0x04000000
ENDLESS = 1_000_000


@dataclass(frozen=True)
class Seeded:
    """A design to be tried under a name."""

    name: str
    genotype: Any
    adapted: str = ""


@dataclass(frozen=True)
class Storm:
    """What a storm left of a study.

    Attributes:
        kills, stops, moves: how many of each there were.
        trials: finished ones.
        taken_over: those of them that another worker began.
        given_up: trials whose workers ended in the middle of them three times.
        unfinished: trials that are running or waiting at the end.
        numbers_missing: of the numbers that follow each other.
        seeds: seeded designs, which have one finished trial each.
        seeds_lost, seeds_twice: those that have none, or more than one.
        tracebacks: of workers.
        codes: exit codes of the last workers.
    """

    kills: int
    stops: int
    moves: int
    trials: int
    taken_over: int
    given_up: int
    unfinished: int
    numbers_missing: int
    seeds: int
    seeds_lost: int
    seeds_twice: int
    tracebacks: int
    codes: list[int] = field(default_factory=list)

    @property
    def faults(self) -> int:
        """How much was lost, done twice or left over."""
        wrong = self.unfinished + self.numbers_missing + self.seeds_lost + self.seeds_twice
        return wrong + self.tracebacks + sum(map(bool, self.codes))

    def as_json(self) -> dict[str, Any]:
        """Return the fields by name, and the sum of faults."""
        return {**asdict(self), "faults": self.faults}


def storm(
    folder: Path,
    url: str,
    events: Sequence[str],
    seed: int = 0,
    count: int = WORKERS,
    seeds: int = SEEDS,
    every_s: float | None = None,
) -> Storm:
    """Drive a study with workers through events: `kill`, `stop` and `move`, in random order.

    `count` workers try `seeds` seeded designs. Events are `every_s` apart, by default at random.

    A worker that is killed is replaced; one that moves is replaced by one of another host name,
    with another home. Stopped ones are continued after one and a half leases. At the end as many
    workers drive the study to a total of 20 more trials.
    """
    rng = random.Random(seed)
    given = list(events)
    rng.shuffle(given)
    log = folder / "workers.log"
    folder.mkdir()
    _trials(folder / "home", url)  # makes the storage
    fork = partial(_fork, seeds=seeds)
    moves, running = 0, [fork(folder / "home", url, log, "", ENDLESS) for _ in range(count)]
    stopped: dict[int, float] = {}
    for event in given:
        time.sleep(every_s or rng.uniform(0.2, 2 * AFTER_S - 0.2))
        _let_go_on(stopped, at_least_one=len(stopped) == count)
        worker = rng.choice([each for each in running if each not in stopped])
        if event == "stop":
            os.kill(worker, signal.SIGSTOP)
            stopped[worker] = time.monotonic() + STOPPED_S
            continue
        _end(worker)
        home, host = folder / "home", ""
        if event == "move":
            moves += 1
            home, host = folder / f"home-{moves}", f"host-{moves}"
        running[running.index(worker)] = fork(home, url, log, host, ENDLESS)
    while stopped:
        _let_go_on(stopped, at_least_one=True)
    time.sleep(1.0)  # who went on finds that its trial was taken over
    for worker in running:
        _end(worker)
    trials, _ = _trials(folder / "home", url)
    begun = sum(trial.state is not TrialState.FAIL for trial in trials)
    last = [fork(folder / "home", url, log, "", begun + 20) for _ in range(count)]
    codes = _joined(last)
    counts = Counter(given)
    return _found(folder, url, counts, log.read_text(errors="replace"), codes, seeds)


def storm_on_dask(
    folder: Path,
    url: str,
    kills: int,
    seed: int = 0,
    count: int = WORKERS,
    seeds: int = SEEDS,
    every_s: float = AFTER_S,
) -> Storm:
    """Drive a study on a Dask cluster of this machine, whose processes are killed.

    Each `every_s` the process of one Dask worker is killed that has begun a trial, if there is
    one; Dask starts it again. A process that is killed while it starts is left out: Dask may not
    start another one. At the end the workers drive the study to a total of 20 more trials.
    """
    import psutil

    rng, log = random.Random(seed), folder / "workers.log"
    folder.mkdir()
    log.touch()
    _trials(folder / "home", url)
    reporter, killed = _Logged(log), 0
    with cluster(None, count, reporter) as client:
        submit = partial(DaskWorkers, client, count=count, reporter=reporter)
        work = partial(_dask_work, folder / "home", url, seeds, log)
        endless = submit(partial(work, ENDLESS))
        while killed < kills:
            time.sleep(every_s)
            endless.start_lost_again()
            alive = [
                each for each in psutil.Process().children() if _at_work(log, each.pid).exists()
            ]
            if alive:
                process = rng.choice(alive)
                _at_work(log, process.pid).unlink()
                process.kill()
                killed += 1
        endless.stop()
        trials, _ = _trials(folder / "home", url)
        begun = sum(trial.state is not TrialState.FAIL for trial in trials)
        submit(partial(work, begun + 20)).join()
    counts = Counter({"kill": killed})
    return _found(folder, url, counts, log.read_text(errors="replace"), [], seeds)


class _Marked:
    """A reporter that makes a file once a trial has begun."""

    def __init__(self, reporter: Reporter, file: Path) -> None:
        self._reporter, self._file = reporter, file
        self.trial, self.line = reporter.trial, reporter.line

    def step(self, what: str, done: int, total: int) -> None:
        if not self._file.exists():
            self._file.touch()
        self._reporter.step(what, done, total)


def _at_work(log: Path, process: int) -> Path:
    return log.with_name(f"at-work-{process}")


class _Logged:
    """A reporter that writes lines to a file."""

    def __init__(self, log: Path) -> None:
        self._log = log

    def trial(self, done: int, total: int, text: str) -> None: ...

    def step(self, what: str, done: int, total: int) -> None: ...

    def line(self, text: str) -> None:
        with self._log.open("a") as file:
            file.write(f"{text}\n")


def _dask_work(home: Path, url: str, seeds: int, log: Path, total: int, reporter: Reporter) -> None:
    """One task of a Dask worker."""
    try:
        _work(home, url, total, seeds, _Marked(reporter, _at_work(log, os.getpid())))
    except Exception:
        with log.open("a") as file:
            traceback.print_exc(file=file)
        raise


def _let_go_on(stopped: dict[int, float], at_least_one: bool) -> None:
    """Continue the workers that were stopped for long enough; with `at_least_one`, wait for one."""
    if at_least_one:
        time.sleep(max(0.0, min(stopped.values()) - time.monotonic()))
    for worker, until_s in list(stopped.items()):
        if until_s <= time.monotonic():
            os.kill(worker, signal.SIGCONT)
            del stopped[worker]


def _found(
    folder: Path, url: str, counts: Counter[str], log: str, codes: list[int], count: int
) -> Storm:
    trials, seeds = _trials(folder / "home", url, count)
    done = [t for t in trials if t.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    names = Counter(name for t in done if (name := TrialRecord.of(t).name))
    return Storm(
        kills=counts["kill"],
        stops=counts["stop"],
        moves=counts["move"],
        trials=len(done),
        taken_over=sum((TrialRecord.of(t).attempts or 1) > 1 for t in done),
        given_up=sum(t.state is TrialState.FAIL for t in trials),
        unfinished=sum(not t.state.is_finished() for t in trials),
        numbers_missing=len(set(range(len(trials))) - {t.number for t in trials}),
        seeds=len(seeds),
        seeds_lost=sum(names[name] == 0 for name in seeds),
        seeds_twice=sum(names[name] > 1 for name in seeds),
        tracebacks=log.count("Traceback"),
        codes=codes,
    )


def _trials(home: Path, url: str, seeds: int = SEEDS) -> tuple[list[FrozenTrial], list[str]]:
    """All trials, and the names of the seeded designs; no connection stays open for a fork."""
    bench = Bench(home, url)
    found = bench.trials, [seed.name for seed in seeds_of(bench, seeds)]
    bench.workers.close()
    bench.storage.remove_session()
    bench.storage.engine.dispose()
    return found


def seeds_of(bench: Bench, seeds: int = SEEDS) -> list[Seeded]:
    """The same designs in every worker."""
    rng = random.Random(1)
    return [Seeded(f"seed {k}", bench.space.sample(rng)) for k in range(seeds)]


def _fork(home: Path, url: str, log: Path, host: str, total: int, seeds: int) -> int:
    worker = os.fork()
    if worker:
        return worker
    code = 1
    try:
        sys.stderr = sys.stdout = open(log, "a", buffering=1)  # noqa: SIM115
        if host:
            rename_host(host)
        _work(home, url, total, seeds)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def rename_host(name: str) -> None:
    """Give this process a host name of its own. Raises OSError where it may not."""
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWUTS):
        raise OSError(ctypes.get_errno(), "no host name of its own")
    socket.sethostname(name)


def _work(home: Path, url: str, total: int, seeds: int, reporter: Reporter | None = None) -> None:
    leases.LEASE_S = workers.LEASE_S = loop.LEASE_S = LEASE_S
    beating = partial(leases.leased, every_s=BEAT_S)
    workers.Workers.leased = staticmethod(beating)  # type: ignore[assignment]
    loop.LOOK_EVERY_S = 0.2
    loop.ASKING_AT_MOST = timedelta(seconds=LEASE_S)
    bench = Bench(home, url)
    if reporter is not None:
        told: Any = reporter
        bench.told = told
        bench.search = bench.new_search(bench.workers)
    slow = bench.quality.percent

    def percent(genotype: Any) -> float:
        time.sleep(random.uniform(0.2, 1.8) * TRIAL_S)
        return slow(genotype)

    bench.quality.percent = percent
    bench.search.seed(seeds_of(bench, seeds))
    bench.search.run(total)
    bench.workers.close()


def _end(worker: int) -> None:
    os.kill(worker, signal.SIGKILL)
    os.waitpid(worker, 0)


def _joined(last: Iterable[int]) -> list[int]:
    """Exit codes of the last workers; those that take too long are killed."""
    until_s, codes = time.monotonic() + LAST_S, []
    for worker in last:
        done, status = os.waitpid(worker, os.WNOHANG)
        while not done and time.monotonic() < until_s:
            time.sleep(0.1)
            done, status = os.waitpid(worker, os.WNOHANG)
        if not done:
            os.kill(worker, signal.SIGKILL)
            _, status = os.waitpid(worker, 0)
        codes.append(os.waitstatus_to_exitcode(status))
    return codes
