"""Small Python programs run on a device before its agent is there, on nothing but its Python.

A program goes over standard input, so that no shell has to quote it, and its answer stands between
two random marks, so that nothing a noisy shell prints can be taken for it.
"""

import json
import secrets
import shlex
import time
from collections.abc import Sequence
from typing import Any

from device_agent.checks import ProtocolError
from device_agent.wire import frames as wire
from evaluators.devices.link import DeviceError, DeviceLost, DeviceTimeout
from evaluators.devices.ssh.connect import Link, start
from evaluators.devices.text import plain

RUNNER = "import sys; exec(sys.stdin.buffer.read(int(sys.argv[1])).decode())"
DEADLINE_S = 60.0
SLOWEST_BYTES_S = 50_000.0
MAX_SAID_BYTES = 2**20

PROBE = """
import os, sys
answer = [list(sys.version_info[:3]), sys.executable, os.path.expanduser("~")]
"""

STORE = """
import hashlib, os, sys
folder, name, sha256, length = arguments
final = os.path.join(folder, name)
part = "%s.part-%d" % (final, os.getpid())
try:
    os.makedirs(folder, mode=0o700, exist_ok=True)
    with open(part, "wb") as file:
        file.write(sys.stdin.buffer.read(length))
        file.flush()
        os.fsync(file.fileno())
    with open(part, "rb") as file:
        came = hashlib.sha256(file.read()).hexdigest()
    if came == sha256:
        os.replace(part, final)
        answer = ""
    else:
        answer = "what came has another SHA-256 than what was sent: repeat"
except OSError as error:
    answer = "%s: %s" % (folder, error.strerror or error)
finally:
    if os.path.exists(part):
        os.unlink(part)
"""

SWEEP = """
import os
folder, keep = arguments
answer = []
for name in sorted(os.listdir(folder)):
    if name.startswith("fusion-nas-agent-") and name != keep:
        os.unlink(os.path.join(folder, name))
        answer.append(name)
"""


MAKE_VENV = """
import os, subprocess, sys
folder, wanted = arguments
inner = os.path.join(folder, "bin", "python")
steps = [[sys.executable, "-m", "venv", "--system-site-packages", folder]]
steps.append([inner, "-m", "pip", "install", "--quiet", wanted])
answer = ""
for step in steps:
    done = subprocess.run(step, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        lines = done.stdout.strip().splitlines() or ["exit status %d" % done.returncode]
        answer = " / ".join(lines[-3:])[:1000]
        break
"""


class OnlyTheAgent(DeviceError):
    """The key that is let in may run the agent, and nothing else."""


class ProgramFailed(DeviceError):
    """The Python of this name is not there, or the program failed in it; the text says why."""


def run_program(
    link: Link,
    python: str,
    program: str,
    arguments: Sequence[object],
    content: bytes = b"",
    deadline_s: float = DEADLINE_S,
) -> Any:
    """Run one of the programs above and return its answer.

    Args:
        link: the connection; it stays open.
        python: the Python that runs it, by name or path.
        program: it reads `arguments` and, as standard input, `content`, and sets `answer`.
        arguments: values that JSON can hold.
        content: bytes for its standard input.
        deadline_s: how long it may take, besides the time for the content.

    Raises:
        OnlyTheAgent: the device ran its agent instead.
        ProgramFailed: it gave no answer, or one that is no JSON.
        DeviceLost, DeviceTimeout: the link broke, or the device fell silent.
    """
    mark = secrets.token_hex(16)
    given = json.dumps(json.dumps(list(arguments)))
    whole = f"import json\narguments = json.loads({given})\n{program}\n"
    whole += f"print()\nprint({mark!r} + json.dumps(answer) + {mark!r})\n"
    source = whole.encode()
    deadline_s += len(content) / SLOWEST_BYTES_S
    channel = start(link, shlex.join([python, "-I", "-c", RUNNER, str(len(source))]))
    channel.settimeout(deadline_s)
    try:
        said = _exchange(channel, source + content, time.monotonic() + deadline_s)
        between = said.split(mark.encode())
        if wire.MAGIC in said:
            raise OnlyTheAgent(f"{link.name}: the key that is let in may only run the agent")
        if len(between) != 3:
            raise ProgramFailed(f"{link.name}: {python} {_why(channel, said)}")
        return _answer(link, python, between[1])
    except TimeoutError as error:
        raise DeviceTimeout(f"{link.name}: {python} did not answer in {deadline_s:g} s") from error
    except (OSError, EOFError) as error:
        raise DeviceLost(f"{link.name}: the link broke: {error}") from error
    finally:
        channel.close()


def _answer(link: Link, python: str, text: bytes) -> Any:
    try:
        return wire.parse_json(text)
    except ProtocolError as error:
        raise ProgramFailed(f"{link.name}: {python} answered {plain(str(error))}") from error


def _exchange(channel: Any, given: bytes, end_s: float) -> bytes:
    """Write everything, end the input, and read until the program has ended."""
    try:
        channel.sendall(given)
        channel.shutdown_write()
    except OSError:
        pass  # It ended before it read all; what it said tells why.
    said = bytearray()
    while len(said) < MAX_SAID_BYTES and time.monotonic() < end_s:
        chunk = channel.recv(2**16)
        if not chunk:
            return bytes(said)
        said += chunk
        if wire.MAGIC in said:  # an agent, which would wait for its host
            return bytes(said)
    raise TimeoutError


def _why(channel: Any, said: bytes) -> str:
    channel.status_event.wait(2.0)
    channel.settimeout(2.0)
    try:
        printed = channel.recv_stderr(2**16)
    except TimeoutError:
        printed = b""
    if channel.exit_status == 127:
        return "is not there"
    lines = (printed.strip() or said.strip()).decode("utf-8", "replace").splitlines()
    return f"ran no program: it said {plain(lines[-1][:200])!r}" if lines else "ran no program"
