"""Workers on a Dask cluster: placed by its scheduler, one study, nothing said of its password."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import distributed
import endless
import optuna
import pytest
import sshd
from desk import Desk, one_line
from endless import report_the_gpu, work_without_end
from sshd import start_sshd
from tiny import Place, new_place

from studies.infra import dask_workers
from studies.infra.dask_workers import ClusterError, DaskWorkers, WorkerError, cluster
from studies.infra.locations import StorageError
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
    raise StorageError(f"no database at {url}", "start it")


def die_once(file: Path, reporter: Reporter) -> None:
    if not file.exists():
        file.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    reporter.line("started again")


@pytest.fixture(scope="module")
def client() -> Iterator[distributed.Client]:
    with cluster(None, 2, Told()) as made:
        yield made


def test_what_workers_report_comes_to_the_command(client: distributed.Client) -> None:
    told = Told()
    workers = DaskWorkers(client, partial(report_a_trial, "sqlite:///a"), 2, told)
    workers.join()
    assert told.lines == ["11 characters"] * 2 and told.trials == [(1, 2, "trial 0")] * 2


def test_a_password_is_in_no_log_of_the_cluster_and_in_no_error(
    client: distributed.Client,
) -> None:
    told = Told()
    workers = DaskWorkers(client, partial(fail, "postgresql://me:tops3cret@host/db"), 1, told)
    with pytest.raises(WorkerError, match=r"no worker .* came to the end: .*host") as raised:
        workers.join()
    assert raised.value.exit_code == StorageError.exit_code
    logs = str(client.get_worker_logs()) + str(client.get_scheduler_logs()) + "".join(told.lines)
    assert "no database at" in "".join(told.lines) and "tops3cret" not in logs


def test_a_task_whose_process_is_killed_is_started_again(
    client: distributed.Client, tmp_path: Path
) -> None:
    told = Told()
    DaskWorkers(client, partial(die_once, tmp_path / "died"), 1, told).join()
    assert (tmp_path / "died").exists()


def finish_a_trial_and_die(folder: Path, reporter: Reporter) -> None:
    if not (folder / "second").exists():
        (folder / ("second" if (folder / "first").exists() else "first")).touch()
        reporter.trial(1, 2, "trial 0")
        time.sleep(0.5)  # the report is on its way
        os.kill(os.getpid(), signal.SIGKILL)
    reporter.line("third life")


def die_always(reporter: Reporter) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_task_that_dask_gave_up_is_started_again_while_trials_finish(tmp_path: Path) -> None:
    told = Told()
    with cluster(None, 1, Told()) as client:
        client.cluster.scheduler.allowed_failures = 0
        DaskWorkers(client, partial(finish_a_trial_and_die, tmp_path), 1, told).join()
        assert sum("was killed several times: started again" in line for line in told.lines) == 2
        assert told.lines[-1] == "third life"
        with pytest.raises(WorkerError, match="no worker of the Dask cluster came to the end"):
            DaskWorkers(client, die_always, 1, told).join()


def test_a_process_that_a_cluster_of_its_own_has_lost_is_replaced() -> None:
    told = Told()
    with cluster(None, 1, Told()) as client:
        client.cluster.scale(0)
        DaskWorkers(client, partial(report_a_trial, "sqlite:///a"), 1, told).join()
    assert told.trials == [(1, 2, "trial 0")]


def test_the_workers_of_another_cluster_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dask_workers, "NO_WORKERS_S", 1.0)
    told = Told()
    options = {"threads_per_worker": 1, "memory_limit": None, "dashboard_address": None}
    with (
        distributed.LocalCluster(n_workers=0, **options) as local,
        distributed.Client(local.scheduler_address, set_as_default=False) as client,
    ):
        workers = DaskWorkers(client, partial(report_a_trial, "sqlite:///a"), 1, told)

        def scale_once_reported() -> None:
            if any("no workers for 1 s" in line for line in told.lines):
                local.scale(1)

        workers.join(scale_once_reported)
    assert told.trials == [(1, 2, "trial 0")]
    assert sum("no workers" in line for line in told.lines) == 1


def test_workers_that_are_stopped_leave_their_trials(
    client: distributed.Client, tmp_path: Path
) -> None:
    workers = DaskWorkers(client, partial(work_without_end, tmp_path), 1, Told())
    until = time.monotonic() + 30
    while not (tmp_path / "begun").exists() and time.monotonic() < until:
        time.sleep(0.05)
    workers.stop()
    assert (tmp_path / "left").exists()


def test_what_the_command_does_meanwhile_is_done_until_the_tasks_have_ended(
    client: distributed.Client, tmp_path: Path
) -> None:
    looks = 0
    workers = DaskWorkers(client, partial(work_without_end, tmp_path), 1, Told())

    def look() -> None:
        nonlocal looks
        looks += 1
        if looks == 3:
            workers.stop()

    with pytest.raises(WorkerError):  # a task that was cancelled came to no end
        workers.join(look)
    assert looks >= 3


@contextmanager
def scheduler_with(*worker_flags: str, env: Mapping[str, str] | None = None) -> Iterator[str]:
    """A scheduler on the loopback and workers of it, as `dask scheduler` and `dask worker`."""
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler"]
    command += ["--host", "127.0.0.1", "--port", "0", "--no-dashboard"]
    scheduler = subprocess.Popen(command, stderr=subprocess.PIPE, env=env, text=True)
    started = [scheduler]
    assert scheduler.stderr is not None
    try:
        for line in scheduler.stderr:
            if "Scheduler at:" in line:
                address = line.split()[-1]
                break
        started.append(worker_of(address, *worker_flags, env=env))
        yield address
    finally:
        for process in reversed(started):
            process.terminate()
            process.wait(30)
        scheduler.stderr.close()


def worker_of(
    address: str, *flags: str, env: Mapping[str, str] | None = None
) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "distributed.cli.dask_worker", address, "--no-dashboard"]
    return subprocess.Popen([*command, *flags], stderr=subprocess.DEVNULL, env=env, text=True)


def test_where_workers_have_gpus_each_task_takes_one_of_them() -> None:
    one = ("--nthreads", "1", "--memory-limit", "0")
    env = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([os.getcwd(), str(Path(endless.__file__).parent)]),
    }
    with scheduler_with(*one, env=env) as address:
        of_gpu = {**env, "CUDA_VISIBLE_DEVICES": "3"}
        with_gpu = worker_of(address, *one, "--resources", "GPU=1", env=of_gpu)
        try:
            with distributed.Client(address, set_as_default=False) as client:
                client.wait_for_workers(2, timeout=60)
                told = Told()
                DaskWorkers(client, report_the_gpu, 2, told).join()
        finally:
            with_gpu.terminate()
            with_gpu.wait(30)
    assert told.lines == ["GPU 3"] * 2, "one after the other, none on the worker without"


def test_a_cluster_that_does_not_fit_is_refused() -> None:
    with (
        pytest.raises(ClusterError, match=r"--scheduler tcp://127.0.0.1:9: nothing answers"),
        cluster("tcp://127.0.0.1:9", 1, Told()),
    ):
        pass
    refusals = {
        ("--nthreads", "4"): ("runs 4 tasks at a time", "--nthreads 1"),
        ("--nthreads", "1", "--memory-limit", "3GB"): ("takes 3.0 GB", "--memory-limit 0"),
    }
    for flags, (reason, hint) in refusals.items():
        with scheduler_with(*flags) as address:
            with distributed.Client(address, set_as_default=False) as client:
                client.wait_for_workers(1, timeout=60)
            with pytest.raises(ClusterError, match=reason) as refused, cluster(address, 1, Told()):
                pass
            assert hint in refused.value.hint


def test_a_worker_of_another_version_is_named(
    client: distributed.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dask_workers, "version", lambda name: "9.9")
    with pytest.raises(ClusterError, match=r"has fusion-nas \S+, this host 9\.9"):
        dask_workers._check(client, "tcp://here", 1, Told())


def test_flags_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    place = new_place(tmp_path / "place")
    alone = place.finish(place.run("--scheduler", "tcp://here:8786"))
    one_line(alone, 2, "--scheduler tcp://here:8786 without --engine dask")
    one_line(place.finish(place.run("--engine", "ray")), 2, "--engine 'ray': choose one of local")
    beside = place.finish(place.run("--engine", "dask", "--scheduler", "tcp://here:8786"))
    one_line(beside, 2, "--device local", "give a board, or leave --scheduler out")


def finished_trials(place: Place, total: int) -> list[optuna.trial.FrozenTrial]:
    (name,) = optuna.study.get_all_study_names(place.url)
    trials = optuna.load_study(study_name=name, storage=place.url).get_trials()
    assert [trial.number for trial in trials] == list(range(total))
    assert all(trial.state.is_finished() for trial in trials)
    return trials


def test_ctrl_c_on_a_cluster_of_its_own_leaves_trials_to_others(tmp_path: Path) -> None:
    running = subprocess.Popen(
        [sys.executable, endless.__file__, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": os.getcwd()},
        start_new_session=True,
        stderr=subprocess.DEVNULL,
    )
    until = time.monotonic() + 120
    while not (tmp_path / "begun").exists():
        assert running.poll() is None and time.monotonic() < until
        time.sleep(0.05)
    os.killpg(running.pid, signal.SIGINT)  # as a terminal does
    assert running.wait(60) != 0
    assert (tmp_path / "left").exists()


@pytest.mark.slow
@pytest.mark.skipif(bool(sshd.missing()), reason=sshd.missing())
def test_a_study_runs_on_a_scheduler_s_workers_with_a_board(tmp_path: Path) -> None:
    with start_sshd(tmp_path / "server") as server:
        desk = Desk(new_place(tmp_path / "place", COLUMNS="80"), server)
        desk.add()
        desk.install()
        place = desk.place
        one_each = ("--nthreads", "1", "--memory-limit", "0", "--nworkers", "2")
        with scheduler_with(*one_each, env=place.environment()) as address:
            with distributed.Client(address, set_as_default=False) as client:
                client.wait_for_workers(2, timeout=60)
            flags = ("--engine", "dask", "--scheduler", address, "--workers", "2")
            board = ("--device", "orin", "--timing", "shared")
            done = place.finish(place.run(*flags, *board, "--trials", "4", "--json"))
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["trials"]) == 4
    assert len({trial.user_attrs["worker"] for trial in finished_trials(place, 4)}) == 2
