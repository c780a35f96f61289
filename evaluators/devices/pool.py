"""Several alike devices as one: every design is timed on one that is free."""

import hashlib
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from device_agent.board.description import DeviceInfo
from device_agent.bundle import zipapp
from device_agent.wire.request import MeasureRequest, MeasureResult
from evaluators.devices.client import DeviceClient, DeviceError, DeviceRefused
from evaluators.devices.ssh.host_key import HostKeyChanged, HostKeyUnknown

IDLE_S = 30.0
"""So long a device is kept for a next design where nobody waits for it."""
LOOK_EVERY_S = 1.0
SAME_BOARD_S = 60.0
"""So long the device that a job was sent to is waited for: it may have the result already."""
PATIENCE_S = 900.0
"""So long a device that was there before may be away, as when it starts anew."""
TRY_EVERY_S = 5.0
TURN_EVERY_S = 0.2


class DevicesDiffer(DeviceError):
    """Devices of one study, or one device and what it was before, are not alike."""


class DeviceAway(DeviceError):
    """A device that was there before did not come back in all the time it was waited for."""


class WrongAgent(DeviceError):
    """The agent on a device is not of this version."""


FOR_A_PERSON = (HostKeyChanged, HostKeyUnknown, DevicesDiffer, WrongAgent, DeviceRefused)
"""What does not pass by waiting. A log-in may be refused while a device starts."""


class DevicePool:
    """Asks one of several alike devices at a time, as a `DeviceClient` asks one.

    Workers of one home take turns by a lock for each device; others wait for the device's own
    lease. A device is opened when it is needed. It is let go when it was idle for a while, or
    after each measurement where another worker waits, which is then the next to have it. One
    that is lost is tried again, and the others are used meanwhile.

    Attributes:
        name: of the device that was used last.
    """

    def __init__(
        self,
        openers: Mapping[str, Callable[[], DeviceClient]],
        locks: Path,
        waiting: Callable[[str], None],
        idle_s: float = IDLE_S,
        patience_s: float = PATIENCE_S,
    ) -> None:
        """Look at all the devices once.

        Args:
            openers: how to open each, by its name; at least one.
            locks: folder of the locks, shared by all workers of a home.
            waiting: told what is waited for.
            idle_s: how long an idle device is kept.
            patience_s: how long a lost device is waited for, where no other is available.

        Raises:
            DevicesDiffer: they are not alike.
            WrongAgent: an agent is not of this version.
            DeviceError: one cannot be asked.
        """
        self._openers, self._waiting = dict(openers), waiting
        self.name = next(iter(openers))
        self._idle_s, self._patience_s = idle_s, patience_s
        locks.mkdir(parents=True, exist_ok=True)
        # A lock is taken by one thread and let go by another, the one that looks for idleness.
        self._locks = {n: FileLock(locks / f"{n}.lock", thread_local=False) for n in openers}
        # Who waits for a device holds this one: no other may take the device first.
        self._nexts = {n: FileLock(locks / f"{n}.next.lock", thread_local=False) for n in openers}
        self._sent: dict[str, str] = {}
        self._agent_sha256 = hashlib.sha256(zipapp()).hexdigest()
        self._mutex = threading.RLock()
        self._client: DeviceClient | None = None
        self._uses = 0
        self._info: DeviceInfo | None = None
        self._owed: dict[str, tuple[set[str], set[str]]] = {n: (set(), set()) for n in openers}
        for name in reversed(self._openers):  # the first is the one that stays open
            self._let_go()
            self._take([name], patience_s=0.0)
        self._wait_for_idleness()

    def hello(self) -> DeviceInfo:
        """Return what the device that was used last says of itself; the others are alike."""
        assert self._info is not None
        return self._info

    def measure(
        self, artifact: Path, request: MeasureRequest, *, job_id: str | None = None
    ) -> MeasureResult:
        """`DeviceClient.measure` on a device that is free, the last one first."""
        with self._mutex:
            self._uses += 1
            client = self._client_for(job_id)
            if job_id is not None:
                self._sent[job_id] = self.name
            try:
                result = client.measure(artifact, request, job_id=job_id)
            except BaseException:
                self._let_go()
                raise
            if job_id is not None:
                del self._sent[job_id]
            if self._is_waited_for(self.name):
                self._let_go()
            self._wait_for_idleness()
            return result

    def forget(self, artifacts: Iterable[str] = (), job_ids: Iterable[str] = ()) -> None:
        """`DeviceClient.forget`, on each device as soon as it is open."""
        with self._mutex:
            for artifacts_owed, jobs_owed in self._owed.values():
                artifacts_owed.update(artifacts)
                jobs_owed.update(job_ids)
            if self._client is None:
                try:
                    with suppress(DeviceError):
                        self._open(self.name)  # opens nothing where another worker has it
                finally:
                    self._wait_no_more()
            try:
                if self._client is not None:
                    self._settle(self.name, self._client)
            except BaseException:
                self._let_go()
                raise
            self._wait_for_idleness()

    def close(self) -> None:
        """Let go of the device; it is opened again when it is needed."""
        with self._mutex:
            self._let_go()

    def _client_for(self, job_id: str | None) -> DeviceClient:
        """Of the device that a job was sent to before; else the open one, or one that is free."""
        sent_to = self._sent.get(job_id or "", self.name)
        if self._client is not None and self.name == sent_to:
            return self._client
        self._let_go()
        if job_id in self._sent and len(self._openers) > 1:
            try:
                return self._take([sent_to], SAME_BOARD_S)
            except FOR_A_PERSON:
                raise
            except DeviceError as error:
                self._waiting(f"{sent_to} stays away, its design goes to another board: {error}")
        rest = [name for name in self._openers if name != sent_to]
        return self._take([sent_to, *rest], self._patience_s)

    def _take(self, names: Iterable[str], patience_s: float) -> DeviceClient:
        """Open the first of these devices that is free and answers."""
        try:
            return self._taken(list(names), patience_s)
        finally:
            self._wait_no_more()

    def _taken(self, order: list[str], patience_s: float) -> DeviceClient:
        give_up = time.monotonic() + patience_s
        told = False
        while True:
            lost: DeviceError | None = None
            busy = False
            for name in order:
                try:
                    client = self._open(name)
                except FOR_A_PERSON:
                    raise
                except DeviceError as error:
                    lost = error
                    continue
                if client is not None:
                    return client
                busy = True
            if lost is not None and not busy and time.monotonic() >= give_up:
                raise _given_up(lost, patience_s) from lost
            if lost is not None:
                self._waiting(f"device lost, trying again: {lost}")
            elif not told:
                self._waiting(f"waiting for {' or '.join(order)}: another run here has it")
                told = True
            time.sleep(TURN_EVERY_S if lost is None else TRY_EVERY_S)

    def _open(self, name: str) -> DeviceClient | None:
        """The client of a device; None where another worker of this home has it, or is next."""
        if not _held(self._nexts[name]) or not _held(self._locks[name]):
            return None
        self._nexts[name].release()
        try:
            client = self._openers[name]()
            try:
                self._check(name, client.hello())
                self._settle(name, client)
            except BaseException:
                client.close()
                raise
        except BaseException:
            self._locks[name].release()
            raise
        self.name, self._client = name, client
        return client

    def _check(self, name: str, info: DeviceInfo) -> None:
        if info.agent_sha256 != self._agent_sha256:
            raise WrongAgent(
                f"{name}: the agent there is of another version: `fusion-nas device install {name}`"
            )
        if self._info is not None and (differences := self._info.differences(info)):
            raise DevicesDiffer(
                f"{name} is not what {', '.join(self._openers)} began this run as: "
                f"{'; '.join(differences)}: readings of unlike devices are not compared; bring "
                "them in line, or make a study for each"
            )
        self._info = info

    def _settle(self, name: str, client: DeviceClient) -> None:
        """Have an open device forget what it should."""
        artifacts, jobs = self._owed[name]
        if artifacts or jobs:
            client.forget(artifacts, jobs)
            self._owed[name] = set(), set()

    def _let_go(self) -> None:
        if self._client is None:
            return
        client, self._client = self._client, None
        client.close()
        self._locks[self.name].release()

    def _is_waited_for(self, name: str) -> bool:
        if not _held(self._nexts[name]):
            return True
        self._nexts[name].release()
        return False

    def _wait_no_more(self) -> None:
        for lock in self._nexts.values():
            lock.release()  # does nothing where it is not held

    def _wait_for_idleness(self) -> None:
        self._look_later(self._uses, time.monotonic() + self._idle_s)

    def _look_later(self, uses: int, end_s: float) -> None:
        wait_s = max(0.0, min(LOOK_EVERY_S, end_s - time.monotonic()))
        timer = threading.Timer(wait_s, self._look, [uses, end_s])
        timer.daemon = True
        timer.start()

    def _look(self, uses: int, end_s: float) -> None:
        """Let go of the device where it was idle for long, or is waited for; else look again."""
        with self._mutex:
            if uses != self._uses or self._client is None:
                return
            if time.monotonic() >= end_s or self._is_waited_for(self.name):
                self._let_go()
            else:
                self._look_later(uses, end_s)


def _held(lock: FileLock) -> bool:
    """Whether this lock is held here, if need be from now on."""
    if not lock.is_locked:
        with suppress(Timeout):
            lock.acquire(timeout=0)
    return lock.is_locked


def _given_up(lost: DeviceError, patience_s: float) -> DeviceError:
    """What to raise for a device that is not there: at the first look, just what went wrong."""
    if patience_s == 0.0:
        return lost
    away = f"no device came back in {patience_s:g} s: look at it and its network"
    return DeviceAway(f"{away}; the last try: {lost}")
