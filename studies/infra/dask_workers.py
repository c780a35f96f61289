"""Workers of one command on a Dask cluster, whose scheduler places them."""

import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from typing import Any

from search_space.errors import USAGE, FusionNasError
from search_space.redaction import redacted
from studies.infra.worker_processes import Work
from studies.report.progress import Reporter

CONNECT_S = 10.0
LOOK_EVERY_S = 1.0
"""How often a worker asks whether its task was cancelled."""
STOPS_IN_S = 20.0
GPU = "GPU"
"""The resource that a Dask worker with a GPU of its own declares: `--resources GPU=1`."""


class ClusterError(FusionNasError):
    """A Dask cluster cannot be used, or no worker of it came to the end."""

    exit_code = USAGE


class DaskWorkers:
    """Tasks of a cluster that work on a study until they end by themselves."""

    def __init__(self, client: Any, work: Work, count: int, reporter: Reporter) -> None:
        """Submit `count` tasks. `work` is called in each, and has to be picklable."""
        self._client, self._reporter = client, reporter
        self._topic = f"fusion-nas-{uuid.uuid4().hex}"
        client.subscribe_topic(self._topic, self._report)
        task, resources = _Task(work, self._topic), _resources(client)
        self._futures = [
            client.submit(
                task, key=f"fusion-nas-worker-{number}-{self._topic}", resources=resources
            )
            for number in range(1, 1 + count)
        ]

    def _report(self, event: tuple[float, Any]) -> None:
        kind, *said = event[1]
        if kind == "trial":
            self._reporter.trial(*said)
        else:
            self._reporter.line(*said)

    def join(self) -> bool:
        """Wait for all tasks; return whether each ended well. One that did not has reported why.

        Raises ClusterError where none did.
        """
        failures = []
        for number, future in enumerate(self._futures, 1):
            try:
                failed = future.exception()
            except Exception as error:  # cancelled, or the scheduler is gone
                failed = error
            if failed is not None:
                failures.append(redacted(str(failed)) or type(failed).__name__)
                self._reporter.line(f"worker {number} of the cluster has ended: {failures[-1]}")
        if len(failures) == len(self._futures):
            raise ClusterError(
                f"no worker of the Dask cluster came to the end: {failures[-1]}",
                "the same command goes on from here",
            )
        return not failures

    def stop(self) -> None:
        """Cancel the tasks that still run; their trials are left to the next run."""
        with suppress(Exception):  # the scheduler may be gone
            self._client.cancel(self._futures, force=True)
            until = time.monotonic() + STOPS_IN_S
            while self._are_running() and time.monotonic() < until:
                time.sleep(0.1)

    def _are_running(self) -> bool:
        keys = {future.key for future in self._futures}
        at_work = self._client.run(_executing)
        return any(keys & set(executing) for executing in at_work.values())


class _Task:
    """What a Dask worker calls. It prints no arguments: they hold the storage's password."""

    def __init__(self, work: Work, topic: str) -> None:
        self._work, self._topic = work, topic

    def __repr__(self) -> str:
        return "worker of fusion-nas"

    def __call__(self) -> None:
        from distributed import get_worker

        worker = get_worker()
        try:
            self._work(_Sent(worker, worker.get_current_task(), self._topic))
        except _Cancelled:
            return
        except Exception as error:  # Dask logs it: without what it must not show
            said = redacted(" ".join(str(error).split())) or type(error).__name__
            raise ClusterError(said) from None


class _Cancelled(KeyboardInterrupt):
    """The task was cancelled: as an interrupt, it leaves its trial to others."""


class _Sent:
    """A task's reporter: what has to be seen goes to the client."""

    def __init__(self, worker: Any, key: str, topic: str) -> None:
        self._worker, self._key, self._topic = worker, key, topic
        self._looked_s = 0.0

    def trial(self, done: int, total: int, text: str) -> None:
        """Send it."""
        self._check()
        self._worker.log_event(self._topic, ("trial", done, total, text))

    def step(self, what: str, done: int, total: int) -> None:
        """Leave it out: a terminal shows the steps of one worker."""
        self._check()

    def line(self, text: str) -> None:
        """Send it."""
        self._check()
        self._worker.log_event(self._topic, ("line", text))

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


def _resources(client: Any) -> dict[str, float]:
    """What each task takes for itself: a GPU where Dask workers declare some."""
    workers = client.scheduler_info()["workers"].values()
    return {GPU: 1} if any(GPU in each["resources"] for each in workers) else {}


def _check(client: Any, address: str) -> None:
    """Raise ClusterError for a cluster without workers, of other versions, or of shared ones."""
    workers = client.scheduler_info()["workers"]
    if not workers:
        raise ClusterError(
            f"--scheduler {address}: it has no workers", f"start some: dask worker {address}"
        )
    for name, each in workers.items():
        if each["nthreads"] != 1:
            raise ClusterError(
                f"Dask worker {name} runs {each['nthreads']} tasks at a time",
                "start it with --nthreads 1, once for each core group or GPU",
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


@contextmanager
def cluster(address: str | None, count: int, reporter: Reporter) -> Iterator[Any]:
    """Connect to a scheduler, or start a cluster of `count` processes on this machine.

    Raises ClusterError where Dask is not installed, nothing answers, or workers do not fit.
    """
    try:
        import distributed
    except ImportError as error:
        raise ClusterError(
            "--engine dask: the package distributed is not installed",
            "pip install 'fusion-nas[dask]'",
        ) from error
    if address is None:
        with (
            distributed.LocalCluster(
                n_workers=count, threads_per_worker=1, host="127.0.0.1", dashboard_address=None
            ) as local,
            distributed.Client(local) as client,
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
        _check(client, address)
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
