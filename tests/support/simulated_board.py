"""A board whose clock and run times are given."""

from collections.abc import Callable, Iterable
from itertools import chain, repeat

from device_agent.board.state import BoardState
from device_agent.timing.loop import Timed, Timing, time_runs
from device_agent.wire.request import TimingProtocol


class Board:
    """A clock and what runs on it: run `n` of the network takes `takes_ms(n)`, of the anchor
    `anchor_ms(n)`. `order` tells what ran, `N` or `A`; `states` are what the board tells of itself
    each time it is asked, the last one for ever; other programs keep `others` processors busy.
    """

    def __init__(
        self,
        takes_ms: Callable[[int], float],
        drift_reference_ms: Callable[[int], float] = lambda run: 1.0,
        states: Iterable[BoardState] = (BoardState(),),
        others: float | None = 0.0,
    ) -> None:
        self.now_ns = 0
        self._ran: list[str] = []
        self.runs = self._references = 0
        self._others = others
        self._takes_ms, self._anchor_ms = takes_ms, drift_reference_ms
        given = list(states)
        self._states = chain(given, repeat(given[-1]))

    @property
    def order(self) -> str:
        return "".join(self._ran)

    def run_once(self) -> None:
        self.now_ns += round(self._takes_ms(self.runs) * 1e6)
        self._ran.append("N")
        self.runs += 1

    def run_drift_reference(self) -> None:
        self.now_ns += round(self._anchor_ms(self._references) * 1e6)
        self._ran.append("A")
        self._references += 1

    def time(self, protocol: TimingProtocol) -> Timing:
        timed = Timed(
            self.run_once, self.run_drift_reference, lambda: next(self._states), self.others_s
        )
        return time_runs(timed, protocol, lambda: self.now_ns)

    def others_s(self) -> float | None:
        return None if self._others is None else 7.0 + self._others * self.now_ns / 1e9
