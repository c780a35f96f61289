"""Work done by background threads before its result is asked for, and the time spent waiting."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")


def made_ahead(
    make: Callable[[Item], Made], items: Iterable[Item], ahead: int, workers: int = 1
) -> Iterator[Made]:
    """`make` of each item, in order; background threads are up to `ahead` items early.

    With `ahead` 0 each is made when it is asked for, in the caller's thread. Raises what `make`
    raises, in its item's turn.
    """
    if ahead < 1:
        yield from map(make, items)
        return
    pool = ThreadPoolExecutor(workers)
    waiting: deque[Future[Made]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(make, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


class Waited(Generic[Item]):
    """Passes items on and counts the seconds that their reader waited for them.

    A card may still be busy meanwhile, so its own idle time is at most this.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.seconds = 0.0
        self._clock = clock

    def over(self, items: Iterable[Item]) -> Iterator[Item]:
        """The items, timed."""
        source = iter(items)
        while True:
            started = self._clock()
            try:
                item = next(source)
            except StopIteration:
                return
            finally:
                self.seconds += self._clock() - started
            yield item
