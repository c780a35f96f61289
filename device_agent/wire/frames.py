"""The bytes between host and agent: one preamble, then frames of control JSON and payload.

A frame is a header of 12 bytes (length of the JSON as u32, length of the payload as u64, both big
endian), the JSON object in UTF-8 with a text `kind`, then the payload. The agent speaks first, with
the preamble, so that the host can skip what a login shell prints before; then the host asks and
the agent answers, one frame each, in turn, `hello` first:

| asked | answered |
|---|---|
| `hello` versions, client | `waiting` holder, place: any number of them; `hello` version, info |
| `have` sha256s | `missing` sha256s |
| `put` sha256, length, with the file as payload | `stored` sha256 |
| `measure` job_id, request | `result` job_id, result, fetched |
| `result` job_id | `result` job_id, result or null, fetched |
| `state` | `state` state |
| `forget` sha256s, job_ids | `forgotten` |
| `queue`, before `hello` alone | `queue` holder or null, busy_s or null, waiting |
| `bye` | `bye`, and the agent ends |

In place of any answer may stand `error` code, message. Names are 64 hexadecimal digits, never
paths. One client at a time has the device, from its `hello` on: the others wait in the order they
came; `queue` tells who they are and waits for nobody. While others wait, one that asks nothing for
a minute, or for 2 s after a job, or asks for a second job, or has had the device for 15 minutes
without a job, gets the error `gave-way` and is let go. Every message has one deadline as a whole,
however its bytes are spread over time: a minute, and for a file as long as it takes at 125 kB/s.
"""

import json
import math
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from device_agent.checks import ProtocolError, check_text

MAGIC = b"\x93fusion-nas agent\r\n\x1a\n"
VERSIONS = (3, 3)
HEADER = struct.Struct("!IQ")
MAX_SKIPPED_BYTES = 64 * 1024
MAX_JSON_BYTES = 2**20
MAX_JSON_DEPTH = 32
MAX_JSON_CONTAINERS = 2**14
MAX_JSON_VALUES = 150_000
"""A mebibyte of result holds some 75,000 samples, each with the number of its block."""
MAX_JSON_DIGITS = 400
"""Of one number: Python before 3.11 reads whole numbers in quadratic time."""
CHUNK_BYTES = 2**20

_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)', re.DOTALL)
"""A string, or what is left of the text after a quote that is never closed: one scan in all."""
_LONG_NUMBER = re.compile(rb"(?<![0-9])[0-9]{%d}" % (MAX_JSON_DIGITS + 1))
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_BRACKET = re.compile(rb"[\[\]{}]")


class TornFrame(ProtocolError):
    """The stream ended inside a frame or before the preamble."""


class Reader(Protocol):
    """A stream that gives at most `size` bytes, and none at its end."""

    def read(self, size: int, /) -> bytes | None:
        """Return 1 to `size` bytes, or `b""` at the end of the stream."""


class Writer(Protocol):
    """A stream that takes bytes, perhaps not all of them at once."""

    def write(self, data: bytes | memoryview, /) -> int | None:
        """Take some of the bytes and return how many; None stands for all."""

    def flush(self) -> None:
        """Send what was taken."""


@dataclass(frozen=True)
class Frame:
    """A control message, and how many bytes of payload follow it in the stream."""

    control: dict[str, Any]
    payload_bytes: int = 0

    @property
    def kind(self) -> str:
        """What the message is."""
        return str(self.control["kind"])


def skip_to_preamble(stream: Reader) -> bytes:
    """Read up to and with the preamble; return what stood before it.

    Raises:
        TornFrame: the stream ended, or gave more than 64 KiB, without a preamble.
    """
    seen = bytearray()
    while not seen.endswith(MAGIC):
        byte = stream.read(1)
        if not byte or len(seen) >= MAX_SKIPPED_BYTES + len(MAGIC):
            ended = "ended" if not byte else f"gave over {MAX_SKIPPED_BYTES} bytes"
            said = f"it began with {bytes(seen[:300])!r}" if seen else "it said nothing"
            raise TornFrame(f"the stream {ended} before an agent spoke; {said}")
        seen += byte
    return bytes(seen[: -len(MAGIC)])


def encode(control: Mapping[str, object], payload_bytes: int = 0) -> bytes:
    """Return the head of a frame: all but its payload.

    Raises:
        ProtocolError: the message is too large or deep, or holds NaN or an infinity.
    """
    try:
        text = json.dumps(control, allow_nan=False, separators=(",", ":")).encode()
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"a message of kind {control.get('kind')!r}: {error}") from None
    parse(text)
    return HEADER.pack(len(text), payload_bytes) + text


def parse(text: bytes) -> dict[str, Any]:
    """Return the control message that this JSON text is.

    Raises:
        ProtocolError: it is not what `parse_json` takes, or no object with a text `kind`.
    """
    control = parse_json(text)
    if not isinstance(control, dict):
        raise ProtocolError("a message that is no JSON object: give one with its kind")
    check_text("the kind of a message", control.get("kind"), 32)
    return control


def parse_json(text: bytes) -> object:
    """Return the value that this JSON text is.

    Raises:
        ProtocolError: it is too large or deep, not JSON, or holds NaN, an infinity, a name twice or
            text that is not Unicode.
    """
    _check_size(text)
    try:
        found: object = json.loads(
            text.decode(), parse_constant=_finite, parse_float=_finite, object_pairs_hook=_once
        )
        if _SURROGATE.search(text):
            json.dumps(found, ensure_ascii=False).encode()  # Raises for half a pair.
    except ValueError as error:
        raise ProtocolError(f"bytes that are not valid JSON: {error}") from None
    return found


def _check_size(text: bytes) -> None:
    """Refuse what would take long to parse, in time that is linear in the text.

    The interpreter is held while JSON is parsed: no deadline of another thread would end it.
    """
    if len(text) > MAX_JSON_BYTES:
        raise ProtocolError(f"JSON of {len(text)} bytes: at most {MAX_JSON_BYTES} are taken")
    bare = _STRING.sub(b"", text)
    depth = 0
    for count, bracket in enumerate(_BRACKET.finditer(bare)):
        depth += 1 if bracket.group() in b"[{" else -1
        if depth > MAX_JSON_DEPTH:
            raise ProtocolError(f"JSON nested over {MAX_JSON_DEPTH} deep: write it flatter")
        if count > 2 * MAX_JSON_CONTAINERS:
            raise ProtocolError(f"JSON of over {MAX_JSON_CONTAINERS} objects and arrays")
    if bare.count(b",") > MAX_JSON_VALUES:
        raise ProtocolError(f"JSON of over {MAX_JSON_VALUES} values")
    if _LONG_NUMBER.search(bare):
        raise ProtocolError(f"JSON with a number of over {MAX_JSON_DIGITS} digits")


def send(stream: Writer, control: Mapping[str, object], payload_bytes: int = 0) -> None:
    """Write the head of a frame; the caller writes the payload after it with `send_bytes`."""
    send_bytes(stream, encode(control, payload_bytes))


def send_bytes(stream: Writer, data: bytes) -> None:
    """Write all the bytes and send them."""
    rest = memoryview(data)
    while rest:
        taken = stream.write(rest)
        rest = rest[len(rest) if taken is None else taken :]
    stream.flush()


def receive(stream: Reader) -> Frame | None:
    """Read the head of the next frame, or None where the stream ended between two.

    Raises:
        TornFrame: the stream ended inside.
        ProtocolError: the frame is not valid; nothing after it can be read.
    """
    first = stream.read(1)
    if not first:
        return None
    json_bytes, payload_bytes = HEADER.unpack(first + read_exactly(stream, HEADER.size - 1))
    if json_bytes > MAX_JSON_BYTES:
        raise ProtocolError(f"a message of {json_bytes} bytes: at most {MAX_JSON_BYTES} are taken")
    return Frame(parse(read_exactly(stream, json_bytes)), payload_bytes)


def read_exactly(stream: Reader, size: int) -> bytes:
    """Read `size` bytes; raises `TornFrame` where the stream ends before."""
    return b"".join(payload(stream, size))


def payload(stream: Reader, size: int) -> Iterator[bytes]:
    """Give `size` bytes in pieces of at most 1 MiB; raises `TornFrame` at an early end."""
    left = size
    while left:
        chunk = stream.read(min(left, CHUNK_BYTES))
        if not chunk:
            raise TornFrame(f"the stream ended with {left} of {size} bytes still to come")
        left -= len(chunk)
        yield chunk


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:40]} is not a finite number")
    return number


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice in one object")
    return found
