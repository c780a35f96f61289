"""Several alike devices as one: every design is timed on one that is free."""

import hashlib
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from device_agent.bundle import zipapp
from device_agent.device import DeviceInfo
from device_agent.protocol import MeasureRequest, MeasureResult
from evaluators.device_client import DeviceClient, DeviceError, DeviceRefused
from evaluators.ssh_connect import HostKeyChanged, HostKeyUnknown

IDLE_S = 30.0
"""So long a device is kept for a next design; then others get their turn, also during training."""
PATIENCE_S = 900.0
"""So long a device that was there before may be away, as when it starts anew."""
TRY_EVERY_S = 5.0
TURN_EVERY_S = 0.2


class DevicesDiffer(DeviceError):
    """Devices of one study, or one device and what it was before, are not alike."""


class WrongAgent(DeviceError):
    """The agent on a device is not of this version."""


FOR_A_PERSON = (HostKeyChanged, HostKeyUnknown, DevicesDiffer, WrongAgent, DeviceRefused)
"""What does not pass by waiting. A log-in may be refused while a device starts."""


class DevicePool:
    """Asks one of several alike devices at a time, as a `DeviceClient` asks one.

    Workers of one home take turns by a lock for each device; others wait for the device's own
    lease. A device is opened when it is needed and let go when it was idle for a while. One that
    is lost is tried again, and the others are used meanwhile.

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
            patience_s: how long a lost device is waited for, where no other can be had.

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
            rest = [name for name in self._openers if name != self.name]
            client = self._client or self._take([self.name, *rest], self._patience_s)
            try:
                return client.measure(artifact, request, job_id=job_id)
            except BaseException:
                self._let_go()
                raise
            finally:
                self._wait_for_idleness()

    def forget(self, artifacts: Iterable[str] = (), job_ids: Iterable[str] = ()) -> None:
        """`DeviceClient.forget`, on each device as soon as it is open."""
        with self._mutex:
            for artifacts_owed, jobs_owed in self._owed.values():
                artifacts_owed.update(artifacts)
                jobs_owed.update(job_ids)
            if self._client is None:
                with suppress(DeviceError):
                    self._open(self.name)  # opens nothing where another worker has it
            self._settle()
            self._wait_for_idleness()

    def close(self) -> None:
        """Let go of the device; it is opened again when it is needed."""
        with self._mutex:
            self._let_go()

    def _take(self, names: Iterable[str], patience_s: float) -> DeviceClient:
        """Open the first of these devices that is free and answers."""
        order = list(names)
        give_up = time.monotonic() + patience_s
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
                raise lost
            if lost is not None:
                self._waiting(f"device lost, trying again: {lost}")
            time.sleep(TURN_EVERY_S if lost is None else TRY_EVERY_S)

    def _open(self, name: str) -> DeviceClient | None:
        """The client of a device; None where another worker of this home has it."""
        try:
            self._locks[name].acquire(timeout=0)
        except Timeout:
            return None
        try:
            client = self._openers[name]()
            try:
                self._check(name, client.hello())
            except BaseException:
                client.close()
                raise
        except BaseException:
            self._locks[name].release()
            raise
        self.name, self._client = name, client
        self._settle()
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

    def _settle(self) -> None:
        """Have the open device forget what it should."""
        artifacts, jobs = self._owed[self.name]
        if self._client is not None and (artifacts or jobs):
            self._client.forget(artifacts, jobs)
            self._owed[self.name] = set(), set()

    def _let_go(self) -> None:
        if self._client is None:
            return
        client, self._client = self._client, None
        client.close()
        self._locks[self.name].release()

    def _wait_for_idleness(self) -> None:
        timer = threading.Timer(self._idle_s, self._end_idleness, [self._uses])
        timer.daemon = True
        timer.start()

    def _end_idleness(self, uses: int) -> None:
        with self._mutex:
            if uses == self._uses:
                self._let_go()
