"""A user's place with a board beside it, for tests: the commands about devices, run as users do."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from sshd import Sshd
from tiny import Place

Done = subprocess.CompletedProcess[str]


@dataclass(frozen=True)
class Desk:
    """The place, and the SSH server that stands for the board."""

    place: Place
    server: Sshd

    @property
    def url(self) -> str:
        return f"ssh://{self.server.user}@{self.server.host}:{self.server.port}"

    def device(self, *arguments: str) -> Done:
        return self.place.finish(self.place.command("device", *arguments))

    def add(self, name: str = "orin") -> None:
        done = self.device("add", name, self.url, "--key", str(self.server.key_file))
        assert done.returncode == 0, done.stderr
        assert self.device("trust", name, "--yes").returncode == 0

    def install(self, name: str = "orin", python: str = sys.executable) -> Done:
        done = self.device("install", name, "--python", python)
        assert done.returncode == 0, done.stderr
        return done

    def agents(self) -> list[Path]:
        return sorted((self.server.home / ".fusion-nas" / "agent").iterdir())


def one_line(done: Done, code: int, *words: str) -> None:
    assert done.returncode == code, done
    assert done.stderr.startswith("fusion-nas: ") and done.stderr.count("\n") == 1, done.stderr
    for word in words:
        assert word in done.stderr, (word, done.stderr)
