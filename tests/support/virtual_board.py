"""A Jetson in namespaces: its `/sys`, `/proc` and `/etc`, a real SSH server, the host's programs.

The agent that is installed on it runs there as user `jetson` and reads the real paths. What is
wrong about it: the processor is the host's, so its instruction set and its speed are too, and
there is no GPU.
"""

import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import jetsons
import sshd
from jetsons import UNREADABLE, Jetson
from stand_in_tensorrt import STAND_IN_CUDART

SCRIPT = Path(__file__).with_suffix(".sh")
STAND_IN = Path(__file__).with_name("stand_in_tensorrt.py")
USER, USER_ID = "jetson", 1000
HIDDEN = ("/home", "/tmp")
"""Folders of the host that a board has for itself; the others that hide something are found."""
PYTHON310 = "FUSION_NAS_TESTS_PYTHON310"
"""Variable that names a Python 3.10 with onnxruntime, for boards whose JetPack brings 3.10."""
TRIAL = (
    "mount -t tmpfs tmpfs /run && mkdir /run/u /run/w /run/p"
    " && mount -t overlay overlay -o lowerdir=/etc,upperdir=/run/u,workdir=/run/w /etc"
    " && mount -t proc proc /run/p"
)


@cache
def missing() -> str:
    """Return why no board can be started here; empty where one can."""
    if why := sshd.missing():
        return why
    if os.getuid() != 0:
        return "virtual boards need namespaces and mounts: run their tests as root"
    if not shutil.which("unshare"):
        return "virtual boards need unshare of util-linux"
    command = ["unshare", "--mount", "--uts", "--pid", "--fork", "sh", "-c", TRIAL]
    tried = subprocess.run(command, capture_output=True, text=True)
    if tried.returncode:
        return f"no namespaces with mounts are allowed here: {tried.stderr.strip()}"
    return ""


@dataclass(frozen=True)
class Python:
    """An interpreter of the host that a board runs.

    Attributes:
        program: its path.
        prefix: where it is installed.
        library: its folder of modules.
        site: its folder of installed packages; a board has other ones there.
        packages: the folders of the host from which a board takes some of them.
    """

    program: str
    prefix: str
    library: str
    site: str
    packages: tuple[str, ...] = ()


LOCATE = """
import json, os, subprocess, sys
folders = []
try:
    import numpy, onnxruntime
    folders = sorted({os.path.dirname(os.path.dirname(m.__file__)) for m in (numpy, onnxruntime)})
except ImportError:
    pass
program = os.path.realpath(sys.executable)
ask = "import sysconfig as s; print(s.get_path('stdlib')); print(s.get_path('purelib'))"
paths = subprocess.check_output([program, "-I", "-c", ask], text=True).splitlines()
print(json.dumps([program, sys.base_prefix, *paths, folders]))
"""


@cache
def located(program: str) -> Python | None:
    """Ask a Python where it and onnxruntime are; None where it does not start."""
    done = subprocess.run([program, "-c", LOCATE], capture_output=True, text=True)
    if done.returncode:
        return None
    *found, folders = json.loads(done.stdout)
    python = Python(*found, packages=tuple(folders))
    assert Path(python.site).is_dir(), f"{python.program} has no folder {python.site}"
    return python


def python_of(board: Jetson) -> Python:
    """Return a Python with onnxruntime: 3.10 on JetPack 6 where one is named, else our own."""
    named = os.environ.get(PYTHON310)
    found = located(named if named and board.jetpack == "6" else sys.executable)
    assert found and found.packages, f"{named or sys.executable} has no onnxruntime"
    return found


def bare_python310() -> Python | None:
    """Return a Python 3.10 of this machine, without packages; None where there is none."""
    names = [shutil.which("python3.10"), *Path.home().glob(".pyenv/versions/3.10.*/bin/python3.10")]
    found = [located(str(name)) for name in names if name]
    return next((replace(one, packages=()) for one in found if one), None)


class VirtualBoard:
    """A board; `start_board` makes one. It has what the tests ask of `sshd.Sshd`.

    Attributes:
        jetson: its description.
        host, port: where its SSH server listens, the same after a reboot.
        user: who may log in.
        key_file: private key of a client that may.
        home: the user's home there, as seen from here.
        mode: number of its power mode.
        boot_id: another one after every start.
    """

    def __init__(self, folder: Path, jetson: Jetson, python: Python) -> None:
        """Make keys, home and system below `folder`; see `start_board`."""
        self.jetson, self.host, self.port, self.user = jetson, "127.0.0.1", sshd._free_port(), USER
        self.mode, self.boot_id = jetson.mode, ""
        self.key_file, self.log_file = folder / "client_key", folder / "sshd.log"
        self._work = folder / "board"
        self._own = self._work / "own"
        self.home = self._work / "home"
        self._process: subprocess.Popen[bytes] | None = None
        self._pinned = False
        for name in ("home", "kernel", "proc", "site", "sys", *_layers("own"), *_layers("scratch")):
            (self._work / name).mkdir(parents=True)
        sshd._make_key(self.key_file)
        (self._own / "etc" / "ssh").mkdir()
        self._host_key_file = self._own / "etc" / "ssh" / "ssh_host_ed25519_key"
        sshd._make_key(self._host_key_file)
        self._make_user()
        self._make_python(python)

    @property
    def host_key(self) -> str:
        """The public host key: its type and its base64, one space between."""
        return " ".join(self._host_key_file.with_suffix(".pub").read_text().split()[:2])

    @property
    def log(self) -> str:
        """What the SSH server has printed so far."""
        return self.log_file.read_text(errors="replace")

    def start(self) -> None:
        """Start it as after power-on; raises `RuntimeError` with the log where it does not."""
        self.boot_id, self._pinned = str(uuid.uuid4()), False
        self._write_file("kernel/boot_id", f"{self.boot_id}\n")
        self._write_file("kernel/osrelease", f"{self.jetson.kernel}\n")
        self._write_system()
        program = shutil.which("sshd", path=sshd.PATHS)
        assert program, missing()
        command = ["unshare", "--mount", "--uts", "--pid", "--fork", "--kill-child"]
        with open(self.log_file, "ab") as log:
            self._process = subprocess.Popen(
                [*command, str(SCRIPT), str(self._work), program],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        if not sshd._within(sshd.START_S, self._listens):
            self.stop()
            raise RuntimeError(f"the board did not start:\n{self.log}")

    def stop(self) -> None:
        """Take its power away: every process of it ends."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def reboot(self) -> None:
        """Start it again: the power mode stays, pinned clocks and counters of events do not."""
        self.stop()
        self.start()

    def set_power_mode(self, number: int) -> None:
        """What `sudo nvpmodel -m NUMBER` does."""
        self.mode = number
        self._write_system()

    def pin_clocks(self) -> None:
        """What `sudo jetson_clocks` does."""
        self._pinned = True
        self._write_system()

    def advised(self, command: str) -> None:
        """Run a command that a check advises: `sudo nvpmodel -m NUMBER` or `sudo jetson_clocks`."""
        match command.split():
            case ["sudo", "nvpmodel", "-m", number]:
                self.set_power_mode(int(number))
            case ["sudo", "jetson_clocks"]:
                self.pin_clocks()
            case _:
                raise AssertionError(f"nobody can run {command!r} on a virtual board")

    def install_tensorrt(self) -> None:
        """What `sudo apt install nvidia-jetpack` brings, as far as the agent uses it."""
        cuda = Path(f"/proc/{self._pids()[0]}/root/usr/local/cuda/lib64")
        cuda.mkdir(parents=True, exist_ok=True)
        compile_it = ["cc", "-shared", "-fPIC", "-x", "c", "-", "-o", str(cuda / "libcudart.so")]
        subprocess.run(compile_it, input=STAND_IN_CUDART, text=True, check=True)
        (self._work / "site" / "tensorrt.py").write_text(STAND_IN.read_text())
        self._link_packages("onnx", "google", "ml_dtypes", "typing_extensions.py")

    def over_current(self, counter: str, events: int) -> None:
        """Let the supply monitor count so many events more."""
        (file,) = (self._work / "sys/class/hwmon").glob(f"hwmon*/{counter}_event_cnt")
        self._replace(file, f"{int(file.read_text()) + events}\n")

    def throttle(self, device: str, state: int) -> None:
        """Let a cooling device take clocks away; 0 gives them back."""
        self._replace(self._cooling(device) / "cur_state", f"{state}\n")

    def break_rail(self, label: str) -> None:
        """Let the current of a rail be unreadable until the board starts again."""
        for file in (self._work / "sys/class/hwmon").glob("hwmon*/*label"):
            if file.read_text().strip() == label:
                channel = file.name.removesuffix("_label").removeprefix("in")
                channel = channel if channel.isdigit() else "1"
                for name in (f"curr{channel}_input", "power1_input"):
                    if (file.parent / name).exists():
                        self._replace(file.parent / name, UNREADABLE)
                return
        raise AssertionError(f"no rail {label}")

    def write_wrapper(self, name: str, *lines: str) -> str:
        """Write a script into the user's home that runs its Python, and return its path there."""
        file = self.home / name
        file.write_text("\n".join(("#!/bin/sh", *lines, 'exec python3 "$@"', "")))
        file.chmod(0o755)
        os.chown(file, USER_ID, USER_ID)
        return f"/home/{USER}/{name}"

    def run(self, command: str) -> str:
        """Run a command in a shell there, by OpenSSH, and return what it prints."""
        options = ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR")
        client = ["ssh", "-F", "none", "-i", str(self.key_file), "-p", str(self.port)]
        client += [word for option in options for word in ("-o", option)]
        done = subprocess.run(
            [*client, f"{self.user}@{self.host}", command], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def commands(self) -> list[str]:
        """Return the command lines of what runs there."""
        found = []
        for pid in self._pids():
            with suppress(OSError):
                found.append(Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " "))
        return found

    def _cooling(self, device: str) -> Path:
        types = (self._work / "sys/class/thermal").glob("cooling_device*/type")
        return next(file.parent for file in types if file.read_text().strip() == device)

    def _write_system(self) -> None:
        """Write what the board tells after a start, or a change of its mode or clocks."""
        found = jetsons.files(self.jetson, self.mode, self._pinned)
        if self._process is None:
            shutil.rmtree(self._work / "sys")
            (self._work / "sys").mkdir()
        else:  # Events and temperatures go on.
            found = {name: said for name, said in found.items() if _is_set(name)}
            for cluster in (self._work / jetsons.CPU / "cpufreq").glob("policy*"):
                if f"{jetsons.CPU}/cpufreq/{cluster.name}/scaling_max_freq" not in found:
                    shutil.rmtree(cluster)
        for name, said in found.items():
            if name.startswith(("sys", "proc")):
                self._write_file(name, said)
            elif self._process is None:
                self._write_file(f"own/{name}", said)
            else:  # An overlay that is mounted is changed from inside.
                self._replace(Path(f"/proc/{self._pids()[0]}/root") / name, said)

    def _write_file(self, name: str, said: str) -> None:
        file = self._work / name
        file.parent.mkdir(parents=True, exist_ok=True)
        self._replace(file, said)

    def _pids(self) -> list[int]:
        """Its processes by their number here, the first one first."""
        assert self._process is not None, "the board is off"
        return sorted(pid for pid, _ in sshd._descendants(self._process.pid))

    def _replace(self, file: Path, said: str) -> None:
        """Change a file as a whole: the board may be reading it."""
        part = file.with_name(f".{file.name}.part")
        if said == UNREADABLE:
            part.symlink_to("/run/board/proc/self/mem")  # reading address 0 is an I/O error
        else:
            part.write_text(said)
        part.replace(file)

    def _make_user(self) -> None:
        etc = self._own / "etc"
        lines = {
            "passwd": f"{USER}:x:{USER_ID}:{USER_ID}::/home/{USER}:/bin/sh",
            "group": f"{USER}:x:{USER_ID}:",
            "shadow": f"{USER}:*:19000::::::",
        }
        for name, line in lines.items():
            others = [
                each
                for each in (Path("/etc") / name).read_text().splitlines()
                if each.partition(":")[0] != USER
                and not (name == "passwd" and each.split(":")[2] == str(USER_ID))
            ]
            (etc / name).write_text("\n".join([*others, line, ""]))
        (etc / "shadow").chmod(0o600)
        (etc / "ssh" / "sshd_config").write_text("\n".join(self._config()) + "\n")
        self._write_file("hostname", f"{self.jetson.kind}\n")
        keys = self.home / ".ssh" / "authorized_keys"
        keys.parent.mkdir(mode=0o700)
        keys.write_text(self.key_file.with_suffix(".pub").read_text())
        for path in (self.home, keys.parent, keys):
            os.chown(path, USER_ID, USER_ID)

    def _config(self) -> list[str]:
        return [
            f"ListenAddress {self.host}",
            f"Port {self.port}",
            "HostKey /etc/ssh/ssh_host_ed25519_key",
            "PidFile none",
            "StrictModes no",
            "UsePAM no",
            "PasswordAuthentication no",
            "KbdInteractiveAuthentication no",
            "MaxStartups 100",
            "MaxSessions 100",
            "PrintMotd no",
            "SetEnv PATH=/usr/local/bin:/usr/bin:/bin",
        ]

    def _make_python(self, python: Python) -> None:
        """Make `/usr/local/bin/python3` there, which sees numpy and onnxruntime and no more."""
        folder = self._own / "usr" / "local" / "bin"
        folder.mkdir()
        (folder / "python3").symlink_to(python.program)
        library = Path(python.library)
        if python.prefix != "/usr/local":
            # Else a virtual environment made with it looks for the library beside /usr/local/bin.
            (folder.parent / "lib").mkdir()
            (folder.parent / "lib" / library.name).symlink_to(library)
        for cuda in Path("/usr/local").glob("cuda?*"):  # of the host
            (folder.parent / cuda.name).touch()
        (folder.parent / "cuda" / "lib64").mkdir(parents=True)
        self._packages = python.packages
        self._link_packages("numpy", "numpy.libs", "onnxruntime")
        self._write_file("packages", f"{python.site}\n")
        self._write_file("own/etc/pip.conf", "[global]\nno-index = true\n")
        hidden, shown = set(HIDDEN), []
        for folder in dict.fromkeys((python.prefix, *python.packages)):
            path = Path(folder).resolve()
            closed = [one for one in reversed(path.parents) if (one.stat().st_mode & 0o5) != 0o5]
            hidden |= {str(closed[0])} if closed else set()
            shown.append(str(path))
        shown = [each for each in shown if any(Path(each).is_relative_to(one) for one in hidden)]
        self._write_file("shown", "".join(f"{each}\n" for each in shown))
        self._write_file("hidden", "".join(f"{each}\n" for each in sorted(hidden)))

    def _link_packages(self, *names: str) -> None:
        """Let its Python see packages of the host's."""
        for folder in self._packages:
            for name in names:
                if (Path(folder) / name).exists():
                    (self._work / "site" / name).symlink_to(Path(folder, name).resolve())

    def _listens(self) -> bool:
        return self._process is not None and sshd.Sshd._listens(self)  # type: ignore[arg-type]


def _layers(name: str) -> tuple[str, ...]:
    return tuple(f"{name}/{folder}" for folder in ("etc", "var", "usr/local"))


def _is_set(name: str) -> bool:
    """Whether a file changes with power mode and clocks."""
    return any(part in name for part in ("cpufreq", "/online", "devfreq", "nvpmodel/status"))


@contextmanager
def start_board(
    folder: Path, jetson: Jetson, python: Python | None = None
) -> Iterator[VirtualBoard]:
    """Give a board that runs, with all its files below `folder`; nothing of it runs after.

    Args:
        folder: on a real disk.
        jetson: which board.
        python: its only Python, as `/usr/local/bin/python3`; see `python_of`.

    Raises:
        RuntimeError: it did not start; the text holds its log.
    """
    board = VirtualBoard(folder, jetson, python or python_of(jetson))
    try:
        board.start()
        yield board
    finally:
        board.stop()
