"""Simulated time for code that blocks: SimPy keeps the clock, a greenlet stands for each worker.

SimPy's processes are generators; the code that schedules trials calls, waits and returns. Each
worker therefore runs in a greenlet of one thread, which hands the event that it waits for to a
SimPy process and goes on when that event occurs. What runs when depends on the events alone.
"""

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any

import simpy
from greenlet import getcurrent, greenlet


class Engine:
    """A simulated clock and the workers that wait on it."""

    def __init__(self) -> None:
        self.environment = simpy.Environment()
        self._hub = getcurrent()
        self.before_waiting: Callable[[], None] = lambda: None
        """Called in a worker each time before simulated time passes for it."""

    @property
    def now_s(self) -> float:
        """Seconds since the start."""
        return float(self.environment.now)

    @property
    def current(self) -> greenlet:
        """The worker that runs."""
        return getcurrent()

    def start(self, work: Callable[[], None]) -> None:
        """Have a worker do this from now on. What it raises ends the simulation."""
        self.environment.process(self._drive(greenlet(work)))

    def run(self, until: simpy.Event | None = None) -> None:
        """Let time pass until an event, or until every worker has ended."""
        self.environment.run(until)

    def wait(self, event: simpy.Event) -> None:
        """Stop the worker that runs until an event has occurred."""
        if getcurrent() is self._hub:
            raise RuntimeError("only a worker that was started here can wait in simulated time")
        self._hub.switch(event)

    def sleep(self, seconds: float) -> None:
        """Let simulated time pass for the worker that runs."""
        self.before_waiting()
        if seconds > 0:
            self.wait(self.environment.timeout(seconds))

    def _drive(self, worker: greenlet) -> Generator[simpy.Event, Any, None]:
        event = worker.switch()
        while not worker.dead:
            yield event
            event = worker.switch()


class Station:
    """Alike servers with one queue: who comes first is served first, by the first that is free.

    Attributes:
        servers: how many there are.
        waited_s: seconds that were waited for a server so far.
        uses: how often one was used.
    """

    def __init__(self, engine: Engine, servers: int) -> None:
        self.servers = servers
        self.waited_s, self.uses = 0.0, 0
        self._engine = engine
        self._resource = simpy.Resource(engine.environment, capacity=servers)
        self._busy, self._busy_s, self._since_s = 0, 0.0, 0.0

    @contextmanager
    def held(self) -> Iterator[None]:
        """Wait for a server, and have it while the block runs."""
        self._engine.before_waiting()
        with self._resource.request() as turn:
            begun_s = self._engine.now_s
            self._engine.wait(turn)
            self.waited_s += self._engine.now_s - begun_s
            self.uses += 1
            self._change(1)
            try:
                yield
                self._engine.before_waiting()
            finally:
                self._change(-1)

    def use(self, seconds: float) -> None:
        """Wait for a server, and use it for so long."""
        with self.held():
            self._engine.sleep(seconds)

    def busy_s(self) -> float:
        """Seconds that its servers were held so far, added up."""
        self._change(0)
        return self._busy_s

    def _change(self, servers: int) -> None:
        now_s = self._engine.now_s
        self._busy_s += self._busy * (now_s - self._since_s)
        self._since_s = now_s
        self._busy += servers
