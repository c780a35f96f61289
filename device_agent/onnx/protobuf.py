"""The wire format of protobuf, read against a table of what may stand where, and nothing else.

A parser that guesses may see another file than the runtime does. This one guesses nothing: a field
that the table does not name, that has another wire type, or that stands twice where one belongs,
ends the reading, and so does a file that would take unbounded time, memory or depth. Of long
fields only the place in the file is kept.
"""

import gc
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from mmap import mmap
from typing import Any, Literal, NamedTuple

MAX_DEPTH = 32
MAX_FIELDS = 300_000
SHORT_BYTES, SHORT_FIELDS = 2**20, 54_000
"""What a file of up to 1 MiB may hold: 5,000 nodes, as graphs have 9 to 11 fields a node. Designs
of two small encoders have 3,000 to 17,000 fields."""
BYTES_A_FIELD = 16
"""A longer file may hold one more for so many. Graphs have 18 to 22 a field, weights apart."""
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
_Field = tuple[Rule, str, Kind, bool, int]
"""A rule, its name, kind and `many`, and a wire type that it allows."""


def _fields_by_tag(tables: Tables) -> dict[str, dict[int, _Field]]:
    """The fields of each message by their tags, so that one look-up finds what is allowed."""
    return {
        kind: {
            number << 3 | wire_type: (rule, rule.name, rule.kind, rule.many, wire_type)
            for number, rule in table.items()
            for wire_type in WIRE_TYPES[rule.kind]
        }
        for kind, table in tables.items()
    }


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
        self._fields = _fields_by_tag(tables)
        self._tables = tables
        longer = max(0, len(data) - SHORT_BYTES)
        self._most = min(MAX_FIELDS, SHORT_FIELDS + longer // BYTES_A_FIELD)
        self._left = self._most

    def message(self, kind: str) -> Message:
        """Read the whole file as one message; raises `MalformedFile`."""
        whole = Span(0, len(self._data))
        with _garbage_collection_paused():
            return self._message(kind, whole, whole, 0)

    def numbers(self, spans: list[Span]) -> tuple[int, ...]:
        """Return the signed numbers that a field of kind `varints` holds."""
        found = []
        for at, end in spans:
            while at < end:
                self._left -= 1
                if self._left < 0:
                    raise self._too_many(at)
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
        # A hostile file may consist of fields alone, and each costs one pass of this loop.
        if depth > MAX_DEPTH:
            raise MalformedFile(f"byte {whole.start}: messages nested over {MAX_DEPTH} deep")
        made, fields = Message(whole, content), self._fields[kind]
        data, (at, end) = self._data, content
        while at < end:
            start = at
            self._left -= 1
            if self._left < 0:
                raise self._too_many(start)
            tag = data[at]
            if tag < 128:  # of one byte, as nearly all are
                at += 1
            else:
                tag, at = self._varint(at, end)
            field = fields.get(tag)
            if field is None:
                raise self._no_field(kind, tag, start)
            rule, name, value_kind, many, wire_type = field
            number = 0
            if wire_type == BYTES:
                number = data[at] if at < end else 128
                if number < 128:
                    at += 1
                else:
                    number, at = self._varint(at, end)
                after = at + number
            elif wire_type == VARINT:
                number, after = self._varint(at, end)
            else:
                after = at + (4 if wire_type == FIXED32 else 8)
            if after > end:
                more = f"ends {after - end} bytes after what holds it"
                raise MalformedFile(f"byte {start}: {kind}.{name} {more}")
            if value_kind == "message":
                if made.messages is _NONE:
                    made.messages = {}
                elif not many and name in made.messages:
                    raise _twice(kind, name, start)
                inner = self._message(rule.of, Span(start, after), Span(at, after), depth + 1)
                made.messages.setdefault(name, []).append(inner)
            elif value_kind == "text":
                if made.texts is _NONE:
                    made.texts = {}
                elif not many and name in made.texts:
                    raise _twice(kind, name, start)
                said = _text(data, at, after, start, kind, name)
                made.texts.setdefault(name, []).append(said)
            elif value_kind == "int":
                if made.ints is _NONE:
                    made.ints = {}
                elif not many and name in made.ints:
                    raise _twice(kind, name, start)
                made.ints[name] = _signed(number)
            else:
                value = Span(at, after)
                if made.spans is _NONE:
                    made.spans = {}
                elif not many and name in made.spans and value_kind in ("bytes", "float"):
                    raise _twice(kind, name, start)
                if wire_type == BYTES and value_kind != "bytes":
                    self._check_packed(rule, value, f"byte {start}: {kind}.{name}")
                made.spans.setdefault(name, []).append(value)
            at = after
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

    def _too_many(self, at: int) -> MalformedFile:
        return MalformedFile(f"byte {at}: over {self._most} fields in {len(self._data)} bytes")

    def _no_field(self, kind: str, tag: int, start: int) -> MalformedFile:
        rule = self._tables[kind].get(tag >> 3)
        if rule is None or tag > MAX_TAG:
            return MalformedFile(f"byte {start}: {kind} has no field {tag >> 3}")
        said = f"has wire type {tag & 7}, it is of kind {rule.kind}"
        return MalformedFile(f"byte {start}: {kind}.{rule.name} {said}")

    def _check_packed(self, rule: Rule, value: Span, where: str) -> None:
        size = {"varints": 1, "fixed32": 4, "fixed64": 8}[rule.kind]
        torn = value.size % size
        if rule.kind == "varints" and value.size:
            torn = self._data[value.end - 1] >= 128
        if torn:
            raise MalformedFile(f"{where} ends inside a number")


@contextmanager
def _garbage_collection_paused() -> Iterator[None]:
    """Messages have no cycles, and their number is bounded: collections cost a third of reading."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _signed(number: int) -> int:
    return number - 2**64 if number >> 63 else number


def _twice(kind: str, name: str, start: int) -> MalformedFile:
    return MalformedFile(f"byte {start}: {kind}.{name} stands twice")


def _text(data: Data, at: int, after: int, start: int, kind: str, name: str) -> str:
    if after - at > MAX_TEXT_BYTES:
        said = f"has {after - at} bytes of text, at most {MAX_TEXT_BYTES}"
        raise MalformedFile(f"byte {start}: {kind}.{name} {said}")
    try:
        return data[at:after].decode()
    except UnicodeDecodeError as error:
        raise MalformedFile(f"byte {start}: {kind}.{name} is no UTF-8: {error.reason}") from None
