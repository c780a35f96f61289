"""Workers on a Dask cluster: placed by its scheduler, one study, nothing said of its password."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import distributed
import optuna
import pytest
from desk import one_line
from tiny import new_place

from studies.infra import dask_workers
from studies.infra.dask_workers import ClusterError, DaskWorkers, cluster
from studies.report.progress import Reporter


class Told:
    """A reporter that remembers."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.trials: list[tuple[int, int, str]] = []

    def trial(self, done: int, total: int, text: str) -> None:
        self.trials.append((done, total, text))

    def step(self, what: str, done: int, total: int) -> None: ...

    def line(self, text: str) -> None:
        self.lines.append(text)


def report_a_trial(url: str, reporter: Reporter) -> None:
    reporter.line(f"{len(url)} characters")
    reporter.trial(1, 2, "trial 0")


def fail(url: str, reporter: Reporter) -> None:
    raise ValueError(f"no database at {url}")


def die_once(file: Path, reporter: Reporter) -> None:
    if not file.exists():
        file.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    reporter.line("started again")


def work_without_end(folder: Path, reporter: Reporter) -> None:
    (folder / "begun").touch()
    try:
        while True:
            reporter.step("training", 0, 1)
            time.sleep(0.05)
    except KeyboardInterrupt:
        (folder / "left").touch()  # as a search that leaves its trial
        raise


@pytest.fixture(scope="module")
def client() -> Iterator[distributed.Client]:
    with cluster(None, 2, Told()) as made:
        yield made


def test_what_workers_report_comes_to_the_command(client: distributed.Client) -> None:
    told = Told()
    workers = DaskWorkers(client, partial(report_a_trial, "sqlite:///a"), 2, told)
    assert workers.join()
    until = time.monotonic() + 10
    while len(told.trials) < 2 and time.monotonic() < until:
        time.sleep(0.05)
    assert told.lines == ["11 characters"] * 2 and told.trials == [(1, 2, "trial 0")] * 2


def test_a_password_is_in_no_log_of_the_cluster_and_in_no_error(
    client: distributed.Client,
) -> None:
    told = Told()
    workers = DaskWorkers(client, partial(fail, "postgresql://me:tops3cret@host/db"), 1, told)
    with pytest.raises(
        ClusterError, match=r"no worker of the Dask cluster came to the end: .*host"
    ):
        workers.join()
    logs = str(client.get_worker_logs()) + str(client.get_scheduler_logs()) + "".join(told.lines)
    assert "no database at" in "".join(told.lines) and "tops3cret" not in logs


def test_a_task_whose_process_is_killed_is_started_again(
    client: distributed.Client, tmp_path: Path
) -> None:
    told = Told()
    assert DaskWorkers(client, partial(die_once, tmp_path / "died"), 1, told).join()
    assert (tmp_path / "died").exists()


def test_workers_that_are_stopped_leave_their_trials(
    client: distributed.Client, tmp_path: Path
) -> None:
    workers = DaskWorkers(client, partial(work_without_end, tmp_path), 1, Told())
    until = time.monotonic() + 30
    while not (tmp_path / "begun").exists() and time.monotonic() < until:
        time.sleep(0.05)
    workers.stop()
    assert (tmp_path / "left").exists()


@contextmanager
def scheduler_with(*worker_flags: str, workers: int = 1) -> Iterator[str]:
    """A scheduler on the loopback and workers of it, as `dask scheduler` and `dask worker`."""
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler"]
    command += ["--host", "127.0.0.1", "--port", "0", "--no-dashboard"]
    scheduler = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    started = [scheduler]
    assert scheduler.stderr is not None
    try:
        for line in scheduler.stderr:
            if "Scheduler at:" in line:
                address = line.split()[-1]
                break
        for _ in range(workers):
            flags = [address, "--no-dashboard", *worker_flags]
            command = [sys.executable, "-m", "distributed.cli.dask_worker", *flags]
            started.append(subprocess.Popen(command, stderr=subprocess.DEVNULL))
        yield address
    finally:
        for process in reversed(started):
            process.terminate()
            process.wait(30)
        scheduler.stderr.close()


def test_a_cluster_that_does_not_fit_is_refused() -> None:
    with (
        pytest.raises(ClusterError, match=r"--scheduler tcp://127.0.0.1:9: nothing answers"),
        cluster("tcp://127.0.0.1:9", 1, Told()),
    ):
        pass
    with scheduler_with("--nthreads", "4") as address:
        with distributed.Client(address, set_as_default=False) as client:
            client.wait_for_workers(1, timeout=60)
        with (
            pytest.raises(ClusterError, match="runs 4 tasks at a time") as refused,
            cluster(address, 1, Told()),
        ):
            pass
        assert "--nthreads 1" in refused.value.hint


def test_a_worker_of_another_version_is_named(
    client: distributed.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dask_workers, "version", lambda name: "9.9")
    with pytest.raises(ClusterError, match=r"has fusion-nas \S+, this host 9\.9"):
        dask_workers._check(client, "tcp://here")


def test_the_flag_scheduler_needs_the_engine_dask(tmp_path: Path) -> None:
    place = new_place(tmp_path / "place")
    alone = place.finish(place.run("--scheduler", "tcp://here:8786"))
    one_line(alone, 2, "--scheduler tcp://here:8786 without --engine dask")
    one_line(
        place.finish(place.run("--engine", "ray")), 2, "--engine 'ray': choose one of local, dask"
    )


@pytest.mark.slow
def test_a_study_runs_on_a_cluster(tmp_path: Path) -> None:
    place = new_place(tmp_path / "place")
    with scheduler_with("--nthreads", "1", "--nworkers", "2") as address:
        with distributed.Client(address, set_as_default=False) as client:
            client.wait_for_workers(2, timeout=60)
        flags = ("--engine", "dask", "--scheduler", address, "--workers", "2")
        done = place.finish(place.run(*flags, "--trials", "4", "--json"))
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["trials"]) == 4
    (name,) = optuna.study.get_all_study_names(place.url)
    trials = optuna.load_study(study_name=name, storage=place.url).get_trials()
    assert [trial.number for trial in trials] == list(range(4))
    workers = {trial.user_attrs["worker"] for trial in trials}
    assert len(workers) == 2, "each task is a worker of its own; the command itself trains nothing"
