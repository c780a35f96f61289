"""The wire format of protobuf, read against a table of what may stand where, and nothing else.

A parser that guesses may see another file than the runtime does. This one guesses nothing: a field
that the table does not name, that has another wire type, or that stands twice where one belongs,
ends the reading, and so does a file that would take unbounded time, memory or depth. Of long
fields only the place in the file is kept.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from mmap import mmap
from typing import Any, Literal, NamedTuple

MAX_DEPTH = 32
MAX_FIELDS = 300_000
FEWEST_FIELDS = 60_000
"""What any file may hold, however short: a network of 1,000 nodes has about 10,000."""
BYTES_A_FIELD = 32
"""A longer file may hold one more for so many bytes, so that reading takes time in proportion."""
MAX_TEXT_BYTES = 2**16
MAX_TAG = 2**32 - 1

Data = bytes | mmap
Kind = Literal["int", "float", "text", "bytes", "varints", "fixed32", "fixed64", "message"]

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
WIRE_TYPES: Mapping[Kind, tuple[int, ...]] = {
    "int": (VARINT,),
    "float": (FIXED32,),
    "text": (BYTES,),
    "bytes": (BYTES,),
    "message": (BYTES,),
    "varints": (VARINT, BYTES),
    "fixed32": (FIXED32, BYTES),
    "fixed64": (FIXED64, BYTES),
}
_CONTINUED = bytes(range(128, 256))
_CHUNK_BYTES = 2**20


class MalformedFile(ValueError):
    """A file that is not what it must be; the text says what is wrong and where."""


class Span(NamedTuple):
    """Where bytes lie in the file: from `start` up to, not with, `end`."""

    start: int
    end: int

    @property
    def size(self) -> int:
        """Number of bytes."""
        return self.end - self.start


@dataclass(frozen=True)
class Rule:
    """What one field of a message may be.

    Attributes:
        name: of the field.
        kind: `int` is one varint, signed; `float` one number, `varints`, `fixed32` and `fixed64`
            any of them, packed or not, and `bytes` a field whose place alone is kept.
        many: whether it may stand more than once; `varints`, `fixed32`, `fixed64` may in any case.
        of: for a message, the name of its table.
    """

    name: str
    kind: Kind
    many: bool = False
    of: str = ""


Tables = Mapping[str, Mapping[int, Rule]]


_NONE: dict[str, Any] = {}
"""Fields of a message that has none of a kind; never written to."""


class Message:
    """One message: its fields by name, each a list in the order of the file.

    Attributes:
        whole: the whole field, from its tag; of the outermost message the whole file.
        content: the message itself.
    """

    # No dataclass: a file may hold tens of thousands, whose making would take most of the time.
    __slots__ = ("content", "ints", "messages", "spans", "texts", "whole")

    def __init__(self, whole: Span, content: Span) -> None:
        """Keep where it lies; its fields follow."""
        self.whole, self.content = whole, content
        self.ints: dict[str, int] = _NONE
        self.texts: dict[str, list[str]] = _NONE
        self.spans: dict[str, list[Span]] = _NONE
        self.messages: dict[str, list[Message]] = _NONE

    def text(self, name: str) -> str:
        """Return a text field, or `""` where it does not stand."""
        return self.texts.get(name, [""])[0]


class Reading:
    """One pass over a file.

    Args:
        data: the file.
        tables: for every kind of message its fields by number.
    """

    def __init__(self, data: Data, tables: Tables) -> None:
        """Keep the arguments."""
        self._data = data
        self._tables = tables
        self._most = min(MAX_FIELDS, FEWEST_FIELDS + len(data) // BYTES_A_FIELD)
        self._left = self._most

    def message(self, kind: str) -> Message:
        """Read the whole file as one message; raises `MalformedFile`."""
        whole = Span(0, len(self._data))
        return self._message(kind, whole, whole, 0)

    def numbers(self, spans: list[Span]) -> tuple[int, ...]:
        """Return the signed numbers that a field of kind `varints` holds."""
        found = []
        for at, end in spans:
            while at < end:
                self._count(at)
                number, at = self._varint(at, end)
                found.append(_signed(number))
        return tuple(found)

    def count_varints(self, spans: list[Span]) -> int:
        """Return how many numbers a field of kind `varints` holds, without reading them."""
        count = 0
        for start, end in spans:
            for at in range(start, end, _CHUNK_BYTES):
                chunk = self._data[at : min(at + _CHUNK_BYTES, end)]
                count += len(chunk.translate(None, _CONTINUED))
        return count

    def _message(self, kind: str, whole: Span, content: Span, depth: int) -> Message:
        if depth > MAX_DEPTH:
            raise MalformedFile(f"byte {whole.start}: messages nested over {MAX_DEPTH} deep")
        made, table = Message(whole, content), self._tables[kind]
        data, (at, end) = self._data, content
        while at < end:
            start = at
            self._count(start)
            tag = data[at]
            if tag < 128:  # of one byte, as nearly all are
                at += 1
            else:
                tag, at = self._varint(at, end)
            rule = table.get(tag >> 3)
            if rule is None or tag > MAX_TAG:
                raise MalformedFile(f"byte {start}: {kind} has no field {tag >> 3}")
            wire_type = tag & 7
            if wire_type not in WIRE_TYPES[rule.kind]:
                where = f"byte {start}: {kind}.{rule.name}"
                raise MalformedFile(f"{where} has wire type {wire_type}, it is of kind {rule.kind}")
            if wire_type == VARINT:
                number, after = self._varint(at, end)
                value = Span(at, after)
            elif wire_type == BYTES:
                size = data[at] if at < end else 128
                if size < 128:
                    at += 1
                else:
                    size, at = self._varint(at, end)
                number, value = size, Span(at, at + size)
            else:
                number, value = 0, Span(at, at + (4 if wire_type == FIXED32 else 8))
            if value.end > end:
                more = f"ends {value.end - end} bytes after what holds it"
                raise MalformedFile(f"byte {start}: {kind}.{rule.name} {more}")
            at = value.end
            if rule.kind == "int":
                self._once(rule, made.ints, start, kind)
                if made.ints is _NONE:
                    made.ints = {}
                made.ints[rule.name] = _signed(number)
            elif rule.kind == "text":
                self._once(rule, made.texts, start, kind)
                said = _text(data, value, f"byte {start}: {kind}.{rule.name}")
                if made.texts is _NONE:
                    made.texts = {}
                made.texts.setdefault(rule.name, []).append(said)
            elif rule.kind == "message":
                self._once(rule, made.messages, start, kind)
                inner = self._message(rule.of, Span(start, at), value, depth + 1)
                if made.messages is _NONE:
                    made.messages = {}
                made.messages.setdefault(rule.name, []).append(inner)
            else:
                if rule.kind in ("bytes", "float"):
                    self._once(rule, made.spans, start, kind)
                elif wire_type == BYTES:
                    self._check_packed(rule, value, f"byte {start}: {kind}.{rule.name}")
                if made.spans is _NONE:
                    made.spans = {}
                made.spans.setdefault(rule.name, []).append(value)
        return made

    def _varint(self, at: int, end: int) -> tuple[int, int]:
        """Return the number at `at`, under 2**64, and where it ends."""
        number = shift = 0
        start, data = at, self._data
        while at < end:
            byte = data[at]
            at += 1
            number |= (byte & 127) << shift
            if byte < 128:
                if number >> 64:
                    raise MalformedFile(f"byte {start}: a number of over 64 bits")
                return number, at
            shift += 7
            if shift == 70:
                raise MalformedFile(f"byte {start}: a number of over 10 bytes")
        raise MalformedFile(f"byte {start}: the file or a field ends inside a number")

    def _count(self, at: int) -> None:
        self._left -= 1
        if self._left < 0:
            raise MalformedFile(f"byte {at}: over {self._most} fields in {len(self._data)} bytes")

    def _once(self, rule: Rule, found: Mapping[str, object], start: int, kind: str) -> None:
        if not rule.many and rule.name in found:
            raise MalformedFile(f"byte {start}: {kind}.{rule.name} stands twice")

    def _check_packed(self, rule: Rule, value: Span, where: str) -> None:
        size = {"varints": 1, "fixed32": 4, "fixed64": 8}[rule.kind]
        torn = value.size % size
        if rule.kind == "varints" and value.size:
            torn = self._data[value.end - 1] >= 128
        if torn:
            raise MalformedFile(f"{where} ends inside a number")


def _signed(number: int) -> int:
    return number - 2**64 if number >> 63 else number


def _text(data: Data, span: Span, where: str) -> str:
    if span.size > MAX_TEXT_BYTES:
        raise MalformedFile(f"{where} has {span.size} bytes of text, at most {MAX_TEXT_BYTES}")
    try:
        return data[span.start : span.end].decode()
    except UnicodeDecodeError as error:
        raise MalformedFile(f"{where} is no UTF-8: {error.reason}") from None
