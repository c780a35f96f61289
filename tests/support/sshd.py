"""A real OpenSSH server on the loopback, with keys, port and home of its own, for tests."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PATHS = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"))
START_S = 15.0
END_S = 5.0


def missing() -> str:
    """Return why no server can be started here; empty where one can."""
    programs = [name for name in ("sshd", "ssh-keygen") if not shutil.which(name, path=PATHS)]
    if not sys.platform.startswith("linux"):
        return "the SSH server of the tests is found and cut by /proc: run them on Linux"
    if programs:
        return f"no {' and no '.join(programs)} on this machine: apt-get install openssh-server"
    return ""


class Sshd:
    """The server; `start_sshd` makes one.

    Attributes:
        host: address it listens on.
        port: its port, the same after a restart.
        user: who may log in: the user of this process.
        key_file: private key of a client that may.
        home: what `~` is there and where SFTP begins; its `.bashrc` is read where the user's
            shell is bash.
        authorized_keys: the file of keys that may log in; it is read at every log-in.
        log_file: what the server printed.
    """

    def __init__(self, folder: Path, options: tuple[str, ...] = ()) -> None:
        """Make keys and folders below `folder`; see `start_sshd`."""
        self.host = "127.0.0.1"
        self.port = _free_port()
        self.user = pwd.getpwuid(os.getuid()).pw_name
        self.home = folder / "home"
        self.key_file = folder / "client_key"
        self.authorized_keys = folder / "authorized_keys"
        self.log_file = folder / "sshd.log"
        self._config = folder / "sshd_config"
        self._host_key_file = folder / "host_key"
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self._begun: set[tuple[int, str]] = set()
        self.home.mkdir(parents=True, mode=0o700)
        _make_key(self.key_file)
        _make_key(self._host_key_file)
        self.authorized_keys.write_text(self.key_file.with_suffix(".pub").read_text())

    @property
    def host_key(self) -> str:
        """The public host key: its type and its base64, one space between."""
        return " ".join(self._host_key_file.with_suffix(".pub").read_text().split()[:2])

    @property
    def log(self) -> str:
        """What the server has printed so far."""
        return self.log_file.read_text(errors="replace")

    def start(self) -> None:
        """Start it, and return when it takes connections; raises `RuntimeError` with its log."""
        self._config.write_text("\n".join(self._lines()) + "\n")
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        program = shutil.which("sshd", path=PATHS)
        assert program, missing()
        with open(self.log_file, "ab") as log:
            self._process = subprocess.Popen(
                [program, "-D", "-e", "-f", str(self._config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        if not _within(START_S, self._listens):
            self.stop()
            raise RuntimeError(f"sshd did not start:\n{self.log}")

    def stop(self) -> None:
        """End the server, every link, and whatever a link started and left behind."""
        if self._process is None:
            return
        self.cut()
        self._process.kill()
        self._process.wait()
        self._process = None
        _within(END_S, lambda: not any(map(_runs, self._begun)))
        for pid, _ in filter(_runs, self._begun):
            _kill(pid)
        self._begun.clear()

    def restart(self) -> None:
        """Break every link, and take new ones on the same port."""
        self.stop()
        self.start()

    def change_host_key(self) -> None:
        """Restart as a machine with another host key."""
        self.stop()
        for file in (self._host_key_file, self._host_key_file.with_suffix(".pub")):
            file.unlink()
        _make_key(self._host_key_file)
        self.start()

    def links(self) -> list[int]:
        """Return the processes of the server that serve a connection."""
        if self._process is None:
            return []
        begun = _descendants(self._process.pid)
        return [pid for pid, _ in begun if _name(pid).startswith("sshd")]

    def cut(self) -> None:
        """Break every open link at once; the server goes on, and takes new ones."""
        if self._process is not None:
            self._begun.update(_descendants(self._process.pid))
        for pid in self.links():
            _kill(pid)

    def _lines(self) -> list[str]:
        return [
            *self._options,
            f"ListenAddress {self.host}",
            f"Port {self.port}",
            f"HostKey {self._host_key_file}",
            f"AuthorizedKeysFile {self.authorized_keys}",
            "PidFile none",
            "StrictModes no",
            "UsePAM no",
            "PasswordAuthentication no",
            "KbdInteractiveAuthentication no",
            "PermitRootLogin prohibit-password",
            "MaxStartups 100",
            "MaxSessions 100",
            "LogLevel VERBOSE",
            f"Subsystem sftp internal-sftp -d {self.home}",
            f"SetEnv HOME={self.home}",
        ]

    def _listens(self) -> bool:
        if self._process is None or self._process.poll() is not None:
            return False
        try:
            with socket.create_connection((self.host, self.port), 1.0) as link:
                return link.recv(4) == b"SSH-"
        except OSError:
            return False


@contextmanager
def start_sshd(folder: Path, *options: str) -> Iterator[Sshd]:
    """Give a server that runs, with all its files below `folder`; nothing of it is left after.

    Args:
        folder: made where missing; may hold no space.
        options: more lines for its configuration, which win over the ones it has anyway.

    Raises:
        RuntimeError: it did not start; the text holds its log.
    """
    server = Sshd(folder, options)
    try:
        server.start()
        yield server
    finally:
        server.stop()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _make_key(file: Path) -> None:
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", str(file)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


def _stat(pid: int) -> list[str]:
    """Return the fields of a process after its name: state, parent, ...; none when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def _descendants(root: int) -> list[tuple[int, str]]:
    """Return what a process started, and what those started, each with the time of its start."""
    stats = {int(path.name): _stat(int(path.name)) for path in Path("/proc").glob("[0-9]*")}
    found, parents = [], {root}
    while parents:
        young = {pid for pid, stat in stats.items() if stat and int(stat[1]) in parents}
        found += [(pid, stats[pid][19]) for pid in young]
        parents = young
    return found


def _runs(process: tuple[int, str]) -> bool:
    stat = _stat(process[0])
    return bool(stat) and stat[19] == process[1] and stat[0] not in "ZX"


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _within(seconds: float, holds: Callable[[], bool]) -> bool:
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True
