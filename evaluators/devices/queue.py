"""Who holds each board and who waits for it, asked of all boards at once."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any, Literal

from evaluators.devices.client import DeviceClient
from evaluators.devices.link import DeviceError, DeviceRefused
from evaluators.devices.registry import Device
from evaluators.devices.ssh.link import open_ssh_device

MOST_AT_ONCE = 16
ASK_S = 20.0
"""So long an agent may take to answer."""

QueueState = Literal["free", "busy", "unreachable", "unknown"]


@dataclass(frozen=True)
class BoardQueue:
    """One board and the clients that want it.

    Attributes:
        name: of the board.
        tags: of the board.
        state: `free`, `busy`, `unreachable` where it could not be asked, or `unknown` where its
            agent does not tell.
        holder: the client that has it; None where nobody has, or it is not known.
        busy_s: for how many seconds the client has had it.
        waiting: clients that wait for it, the next one first.
        reason: why its state is not known; empty where it is.
    """

    name: str
    tags: tuple[str, ...]
    state: QueueState
    holder: str | None = None
    busy_s: float | None = None
    waiting: tuple[str, ...] = ()
    reason: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return the fields as plain JSON values."""
        return asdict(self) | {"tags": list(self.tags), "waiting": list(self.waiting)}

    def lines(self) -> Iterator[tuple[str, str]]:
        """Yield (name or empty, text): the state, then a line for each client that waits."""
        if self.reason:
            yield self.name, f"{self.state}: {self.reason}"
            return
        if self.state == "free":
            yield self.name, "free"
        else:
            yield self.name, f"busy for {_duration(self.busy_s or 0.0)}: held by {self.holder}"
        for k, client in enumerate(self.waiting, 1):
            yield "", f"{k}. {client}"


def queues(
    boards: Sequence[Device], open_device: Callable[[Device], DeviceClient] | None = None
) -> tuple[BoardQueue, ...]:
    """Ask every board for its queue; nobody's turn is waited for or taken.

    Args:
        boards: the boards; the answers are in their order.
        open_device: how one is opened; None for over SSH.
    """
    opened = open_device or _open
    with ThreadPoolExecutor(max_workers=MOST_AT_ONCE) as pool:
        return tuple(pool.map(lambda board: _queue(board, opened), boards))


def _open(board: Device) -> DeviceClient:
    return open_ssh_device(board, call_deadline_s=ASK_S)


def _queue(board: Device, open_device: Callable[[Device], DeviceClient]) -> BoardQueue:
    try:
        with open_device(board) as client:
            found = client.queue()
    except DeviceError as error:
        reason = " ".join(str(error).split())
        answered = isinstance(error, DeviceRefused)
        unknown: QueueState = "unknown" if answered else "unreachable"
        return BoardQueue(board.name, board.tags, unknown, reason=reason)
    state: QueueState = "free" if found.holder is None else "busy"
    return BoardQueue(board.name, board.tags, state, found.holder, found.busy_s, found.waiting)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
