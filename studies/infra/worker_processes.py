"""More workers of one command: while the device times one design, others are built and trained."""

import multiprocessing as mp
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait

from search_space.redaction import redacted
from studies.infra.priority import at_first_priority
from studies.infra.signals import take_interrupts
from studies.report.progress import Reporter

Work = Callable[[Reporter], None]

STOPS_IN_S = 20.0
"""So long a worker may take to end by itself; its trial is taken over either way."""


class MoreWorkers:
    """Processes of their own that work on the study of this one, until they end by themselves."""

    def __init__(self, work: Work, count: int, reporter: Reporter) -> None:
        """Starts them. `work` is called in each, and has to be picklable."""
        context = mp.get_context("spawn")  # torch and its threads do not survive a fork
        self._reporter = reporter
        self._processes = {}
        for number in range(2, 2 + count):
            ours, theirs = context.Pipe(duplex=False)
            process = context.Process(target=_work, args=(work, theirs), name=f"worker {number}")
            at_first_priority(process.start)()  # its agent is its child
            theirs.close()
            self._processes[ours] = process
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        """Tells what the others tell, until each has ended."""
        left = set(self._processes)
        while left:
            for ready in wait(list(left)):
                assert isinstance(ready, Connection)
                try:
                    kind, *said = ready.recv()
                except EOFError:
                    left.discard(ready)
                    continue
                if kind == "trial":
                    self._reporter.trial(*said)
                else:
                    self._reporter.line(*said)

    def join(self) -> bool:
        """Waits for all of them; whether each ended well. One that did not has said why."""
        for process in self._processes.values():
            process.join()
        self._listener.join()
        for process in self._processes.values():
            if process.exitcode is not None and process.exitcode < 0:
                self._reporter.line(f"{process.name} was ended by signal {-process.exitcode}")
        return all(process.exitcode == 0 for process in self._processes.values())

    def stop(self) -> None:
        """Interrupts those that still work; their trials are left to the next run."""
        for process in self._processes.values():
            if process.is_alive():
                process.terminate()
        for process in self._processes.values():
            process.join(STOPS_IN_S)
            process.kill()  # does nothing to one that has ended
            process.join()


@contextmanager
def more_workers(work: Work, count: int, reporter: Reporter) -> Iterator[MoreWorkers]:
    """So many workers beside this one, stopped at the end where they have not ended."""
    workers = MoreWorkers(work, count, reporter)
    try:
        yield workers
    finally:
        workers.stop()


class _Told:
    """A worker's reporter: what has to be seen goes to the process that has the terminal."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    def trial(self, done: int, total: int, text: str) -> None:
        self._pipe.send(("trial", done, total, text))

    def step(self, what: str, done: int, total: int) -> None:
        """Left out: a terminal shows the steps of one worker."""

    def line(self, text: str) -> None:
        self._pipe.send(("line", text))


def _work(work: Work, pipe: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first worker gets it too, and stops us
    take_interrupts(signal.SIGTERM)
    threading.Thread(target=_end_with_the_first, daemon=True).start()
    told, name = _Told(pipe), mp.current_process().name
    try:
        work(told)
    except KeyboardInterrupt:
        raise SystemExit(1) from None
    except Exception as error:
        said = redacted(" ".join(str(error).split())) or type(error).__name__
        told.line(f"{name} has ended: {said}")
        raise SystemExit(1) from error


def _end_with_the_first() -> None:
    """A worker whose first one is killed would go on unseen."""
    first = mp.parent_process()
    assert first is not None
    first.join()
    os.kill(os.getpid(), signal.SIGTERM)
