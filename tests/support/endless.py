"""Tasks for Dask workers, and a command that has one done which goes on until it is cancelled."""

import os
import signal
import sys
import time
from functools import partial
from pathlib import Path

from studies.infra.dask_workers import cluster, dask_workers
from studies.infra.signals import take_interrupts
from studies.report.progress import Reporter, Silent


def work_without_end(folder: Path, reporter: Reporter, every_s: float = 0.05) -> None:
    (folder / "begun").touch()
    try:
        while True:
            reporter.step("training", 0, 1)
            time.sleep(every_s)
    except KeyboardInterrupt:
        (folder / "left").touch()  # as a search that leaves its trial
        raise


def report_the_gpu(reporter: Reporter) -> None:
    """Report which GPUs this process may use."""
    reporter.line(f"GPU {os.environ.get('CUDA_VISIBLE_DEVICES', 'none')}")


if __name__ == "__main__":
    take_interrupts(signal.SIGINT)
    # As a training that reports seldom; Dask ends processes that get an interrupt after 4 s.
    endless = partial(work_without_end, Path(sys.argv[1]), every_s=6.0)
    with cluster(None, 1, Silent()) as made, dask_workers(made, endless, 1, Silent()) as workers:
        workers.join()
