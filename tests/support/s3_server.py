"""A real S3 server on the loopback for tests: moto's."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

START_S = 60.0
SECRET = "wJalrXUtnFEMI-secret"


def missing() -> str:
    """Return why no server can be started here; empty where one can."""
    absent = [name for name in ("moto", "flask", "flask_cors", "s3fs") if find_spec(name) is None]
    return f"no {' and no '.join(absent)} here: pip install 'fusion-nas[dev]'" if absent else ""


class S3Server:
    """The server, whose objects are in its memory. `environment` is for its clients."""

    def __init__(self, log: Path) -> None:
        """Start it, and return when it answers."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.environment = {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "tester",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        with open(log, "wb") as file:
            command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
            self._process = subprocess.Popen(command, stdout=file, stderr=file)
        until = time.monotonic() + START_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > until:
                self.stop()
                raise RuntimeError(f"no S3 server:\n{log.read_text()}")
            time.sleep(0.05)

    def make_bucket(self, name: str) -> None:
        """Make an empty bucket."""
        request = urllib.request.Request(f"{self.url}/{name}", method="PUT")
        urllib.request.urlopen(request, timeout=30).close()

    def objects(self, bucket: str) -> list[str]:
        """Keys of all objects of a bucket."""
        with urllib.request.urlopen(f"{self.url}/{bucket}?list-type=2", timeout=30) as answer:
            text = answer.read().decode()
        return [part.partition("</Key>")[0] for part in text.split("<Key>")[1:]]

    def replace(self, bucket: str, key: str, data: bytes) -> None:
        """Write an object, whatever it was."""
        request = urllib.request.Request(f"{self.url}/{bucket}/{key}", data=data, method="PUT")
        urllib.request.urlopen(request, timeout=30).close()

    def suspend(self) -> None:
        """Have nothing answered until `go_on`."""
        os.kill(self._process.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        """Answer again."""
        os.kill(self._process.pid, signal.SIGCONT)

    def stop(self) -> None:
        """End it; its objects are gone."""
        self._process.kill()
        self._process.wait()

    def _answers(self) -> bool:
        try:
            urllib.request.urlopen(self.url, timeout=5).close()
        except urllib.error.HTTPError:
            return True
        except OSError:
            return False
        return True


@contextmanager
def start_s3(log: Path) -> Iterator[S3Server]:
    """Give a server that runs, and end it."""
    server = S3Server(log)
    try:
        yield server
    finally:
        server.stop()
