"""Workers of one command on a Dask cluster, whose scheduler places them."""

import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from os import cpu_count
from typing import Any

from search_space.errors import USAGE, FusionNasError
from studies.infra.worker_processes import Work
from studies.report.progress import Reporter

CONNECT_S = 10.0
LOOK_EVERY_S = 1.0
"""How often a worker asks whether its task was cancelled, and the command whether tasks ended."""
STOPS_IN_S = 20.0
NO_WORKERS_S = 60.0
"""For which a cluster has no process before that is reported."""
RESTART_S = 60.0
"""Within which a killed process of a cluster of our own is back, or is started anew."""
REPLACE_EVERY_S = 5.0
REPORTS_IN_S = 10.0
"""Within which the last reports of a task that ended arrive."""
GPU = "GPU"
"""The resource that a Dask worker with a GPU of its own declares: `--resources GPU=1`."""
IGNORE_INTERRUPTS = "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n"
"""Run in each process of a cluster of our own: Ctrl-C is for the command, which cancels tasks."""


class ClusterError(FusionNasError):
    """A Dask cluster cannot be used."""

    exit_code = USAGE


class WorkerError(FusionNasError):
    """A worker of a Dask cluster did not come to the end; the exit code is that of its error."""

    exit_code = USAGE

    def __init__(self, message: str = "", hint: str = "", code: int | None = None) -> None:
        super().__init__(message, hint)
        if code is not None:
            self.exit_code = code  # type: ignore[misc]


class DaskWorkers:
    """Tasks of a cluster that work on a study until they end by themselves."""

    def __init__(self, client: Any, work: Work, count: int, reporter: Reporter) -> None:
        """Submit `count` tasks. `work` is called in each, and has to be picklable."""
        self._client, self._reporter = client, reporter
        self._received, self._arrival = 0, threading.Condition()
        self._topic = f"fusion-nas-{uuid.uuid4().hex}"
        client.subscribe_topic(self._topic, self._report)
        self._task, self._resources = _Task(work, self._topic), _resources(client)
        self._lives = [0] * count
        self._finished, self._finished_before = 0, [-1] * count
        self._futures = [self._submit(number) for number in range(count)]

    def _submit(self, number: int) -> Any:
        self._lives[number] += 1
        self._finished_before[number] = self._finished
        key = f"fusion-nas-worker-{number + 1}-{self._lives[number]}-{self._topic}"
        return self._client.submit(self._task, key=key, resources=self._resources)

    def start_lost_again(self) -> None:
        """Submit the tasks again that Dask gave up because their processes were killed.

        Dask starts such a task again three times. After that it is submitted again as long as a
        trial was finished since it was submitted last.
        """
        for number, future in enumerate(self._futures):
            progress = self._finished > self._finished_before[number]
            if future.status == "error" and progress and _was_killed(future.exception()):
                self._reporter.line(
                    f"worker {number + 1} of the cluster was killed several times: started again"
                )
                self._futures[number] = self._submit(number)

    def _report(self, event: tuple[float, Any]) -> None:
        kind, *report = event[1]
        if kind == "trial":
            self._finished += 1
            self._reporter.trial(*report)
        else:
            self._reporter.line(*report)
        with self._arrival:
            self._received += 1
            self._arrival.notify()

    def join(self, meanwhile: Callable[[], object] = lambda: None) -> None:
        """Wait for all tasks, calling `meanwhile` every second, and report those that failed.

        Processes that a cluster of this command's own has lost are started anew. Those of another
        cluster are waited for, which is reported. Raises WorkerError where all failed.
        """
        seen_s, replaced_s, waiting = time.monotonic(), 0.0, False
        while True:
            self.start_lost_again()
            if all(future.done() for future in self._futures):
                break
            now, present = time.monotonic(), len(_workers(self._client))
            if present:
                seen_s, waiting = now, False
            elif not waiting and now - seen_s >= NO_WORKERS_S:
                self._reporter.line(
                    f"the Dask cluster has had no workers for {NO_WORKERS_S:.0f} s; the run goes "
                    "on when it has some"
                )
                waiting = True
            own = self._client.cluster
            if own is not None and present < len(self._futures) and now >= replaced_s:
                # Dask forgets a process that was killed while it started, and never replaces it.
                own.scale(len(self._futures))
                replaced_s = now + REPLACE_EVERY_S
            meanwhile()
            time.sleep(LOOK_EVERY_S)
        sent, failures = 0, []
        for number, future in enumerate(self._futures, 1):
            try:
                sent += future.result()
            except Exception as error:
                failures.append(error)
                self._reporter.line(f"worker {number} of the cluster has ended: {error}")
        with self._arrival:
            self._arrival.wait_for(lambda: self._received >= sent, REPORTS_IN_S)
        if len(failures) == len(self._futures):
            raise WorkerError(
                f"no worker of the Dask cluster came to the end: {failures[-1]}",
                "the same command goes on from here",
                getattr(failures[-1], "exit_code", None),
            )

    def stop(self) -> None:
        """Cancel the tasks that still run; their trials are left to the next run."""
        with suppress(Exception):  # the scheduler may be gone
            self._client.cancel(self._futures, force=True)
            until = time.monotonic() + STOPS_IN_S
            while self._are_running() and time.monotonic() < until:
                time.sleep(0.1)
            self._client.unsubscribe_topic(self._topic)

    def _are_running(self) -> bool:
        keys = {future.key for future in self._futures}
        at_work = self._client.run(_executing)
        return any(keys & set(executing) for executing in at_work.values())


def _was_killed(error: BaseException | None) -> bool:
    """Whether Dask gave up a task because the process that ran it ended again and again."""
    from distributed import KilledWorker

    return isinstance(error, KilledWorker)


class _Task:
    """What a Dask worker calls. It prints no arguments: they hold the storage's password."""

    def __init__(self, work: Work, topic: str) -> None:
        self._work, self._topic = work, topic

    def __repr__(self) -> str:
        return "worker of fusion-nas"

    def __call__(self) -> int:
        """Work to the end, and return how many reports were sent."""
        from distributed import get_worker

        worker = get_worker()
        reporter = _Sent(worker, worker.get_current_task(), self._topic)
        try:
            self._work(reporter)
        except _Cancelled:
            pass
        except Exception as error:
            # Dask logs and pickles it: without arguments and causes, which may hold a password.
            text = " ".join(str(error).split()) or type(error).__name__
            raise WorkerError(text, code=getattr(error, "exit_code", None)) from None
        return reporter.sent


class _Cancelled(KeyboardInterrupt):
    """The task was cancelled: as after an interrupt, its trial is left to others."""


class _Sent:
    """A task's reporter: what has to be seen goes to the client."""

    def __init__(self, worker: Any, key: str, topic: str) -> None:
        self._worker, self._key, self._topic = worker, key, topic
        self._looked_s, self.sent = 0.0, 0

    def trial(self, done: int, total: int, text: str) -> None:
        """Send it."""
        self._send("trial", done, total, text)

    def step(self, what: str, done: int, total: int) -> None:
        """Leave it out: a terminal shows the steps of one worker."""
        self._check()

    def line(self, text: str) -> None:
        """Send it."""
        self._send("line", text)

    def _send(self, *report: object) -> None:
        self._check()
        self._worker.log_event(self._topic, report)
        self.sent += 1

    def _check(self) -> None:
        """Raise _Cancelled where the client cancelled the task or is gone."""
        if time.monotonic() - self._looked_s < LOOK_EVERY_S:
            return
        self._looked_s = time.monotonic()
        task = self._worker.state.tasks.get(self._key)
        if task is None or task.state == "cancelled":
            raise _Cancelled


def _executing(dask_worker: Any) -> list[str]:
    """The keys of a Dask worker's running tasks; called there."""
    return [task.key for task in dask_worker.state.executing | dask_worker.state.long_running]


def _version() -> str:
    """Version of this package; called on each Dask worker."""
    return version("fusion-nas")


def share_of_cores(processes: int) -> int:
    """Threads for one of so many processes that share a host; called on that host."""
    return max(1, (cpu_count() or 1) // processes)


def most_on_a_host(client: Any) -> int:
    """How many workers of a cluster share one host at most."""
    hosts = Counter(each["host"] for each in _workers(client).values())
    return max(hosts.values(), default=1)


def _workers(client: Any) -> dict[str, Any]:
    found: dict[str, Any] = client.scheduler_info(n_workers=-1)["workers"]
    return found


def _resources(client: Any) -> dict[str, float]:
    """What each task takes for itself: a GPU where Dask workers declare some."""
    return {GPU: 1} if any(GPU in each["resources"] for each in _workers(client).values()) else {}


def _check(client: Any, address: str, count: int, reporter: Reporter) -> None:
    """Raise ClusterError for a cluster without workers, of other versions, or of shared ones."""
    workers = _workers(client)
    if not workers:
        raise ClusterError(
            f"--scheduler {address}: it has no workers",
            f"start some: dask worker {address} --nthreads 1 --memory-limit 0",
        )
    for name, each in workers.items():
        if each["nthreads"] != 1:
            raise ClusterError(
                f"Dask worker {name} runs {each['nthreads']} tasks at a time",
                "start it with --nthreads 1, once for each process that is to train",
            )
        if each["memory_limit"]:
            raise ClusterError(
                f"Dask worker {name} is killed when it takes {each['memory_limit'] / 1e9:.1f} GB, "
                "in the middle of a training",
                "start it with --memory-limit 0",
            )
    own = _version()
    try:
        found = client.run(_version)
    except Exception as error:
        raise ClusterError(
            f"--scheduler {address}: a worker cannot import fusion-nas ({type(error).__name__})",
            f"install version {own} where the Dask workers run",
        ) from error
    for name, other in found.items():
        if other != own:
            raise ClusterError(
                f"Dask worker {name} has fusion-nas {other}, this host {own}",
                "install the same version on both",
            )
    if count > len(workers):
        reporter.line(
            f"--workers {count}: the cluster has {len(workers)}; the others begin when it has more"
        )


@contextmanager
def cluster(address: str | None, count: int, reporter: Reporter) -> Iterator[Any]:
    """Connect to a scheduler, or start a cluster of `count` processes on this machine.

    The latter talks by TLS with certificates of its own, so that no other user can connect to it.

    Raises ClusterError where Dask is not installed, nothing answers, or workers do not fit.
    """
    try:
        import dask
        import distributed
    except ImportError as error:
        raise ClusterError(
            "--engine dask: the package distributed is not installed",
            "pip install 'fusion-nas[dask]'",
        ) from error
    if address is None:
        with (
            dask.config.set({"distributed.deploy.lost-worker-timeout": RESTART_S}),
            distributed.LocalCluster(
                n_workers=count,
                threads_per_worker=1,
                memory_limit=None,
                host="tls://127.0.0.1",
                security=True,
                dashboard_address=None,
                preload=[IGNORE_INTERRUPTS],
            ) as local,
            distributed.Client(local, set_as_default=False) as client,
        ):
            yield client
        return
    try:
        client = distributed.Client(address, timeout=CONNECT_S, set_as_default=False)
    except (OSError, ValueError) as error:
        raise ClusterError(
            f"--scheduler {address}: nothing answers there",
            "start it with `dask scheduler`, and give the address that it prints",
        ) from error
    with client:
        _check(client, address, count, reporter)
        if client.dashboard_link:
            reporter.line(f"Dask dashboard: {client.dashboard_link}")
        yield client


@contextmanager
def dask_workers(client: Any, work: Work, count: int, reporter: Reporter) -> Iterator[DaskWorkers]:
    """So many workers on a cluster, stopped at the end where they have not ended."""
    workers = DaskWorkers(client, work, count, reporter)
    try:
        yield workers
    finally:
        workers.stop()
