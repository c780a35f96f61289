"""What host and agent say to each other arrives whole, or is refused in words."""

import io
import json
import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agent.checks import ProtocolError
from device_agent.wire import frames as wire

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)  # fmt: skip
messages = st.builds(
    lambda kind, rest: {**rest, "kind": kind},
    st.text(min_size=1, max_size=32),
    st.dictionaries(st.text(), values, max_size=5),
)


class Dribble:
    """A stream that gives a few bytes at a time, as links do."""

    def __init__(self, content: bytes, sizes: list[int]) -> None:
        self._stream = io.BytesIO(content)
        self._sizes = sizes

    def read(self, size: int) -> bytes:
        most = self._sizes.pop() if self._sizes else size
        return self._stream.read(min(size, most))


def framed(text: bytes, payload_bytes: int = 0) -> io.BytesIO:
    return io.BytesIO(wire.HEADER.pack(len(text), payload_bytes) + text)


@given(messages, st.binary(), st.lists(st.integers(1, 5), max_size=40))
def test_what_is_sent_is_received_however_the_link_cuts_it(
    control: dict[str, object], payload: bytes, sizes: list[int]
) -> None:
    stream = Dribble(wire.encode(control, len(payload)) + payload, sizes)
    frame = wire.receive(stream)
    assert frame == wire.Frame(control, len(payload))
    assert b"".join(wire.payload(stream, len(payload))) == payload
    assert wire.receive(stream) is None


@given(st.binary(max_size=300).filter(lambda noise: wire.MAGIC not in noise), messages)
def test_a_noisy_shell_before_the_preamble_is_skipped(
    noise: bytes, control: dict[str, object]
) -> None:
    stream = io.BytesIO(noise + wire.MAGIC + wire.encode(control))
    assert wire.skip_to_preamble(stream) == noise
    frame = wire.receive(stream)
    assert frame is not None and frame.control == control


def test_noise_without_end_is_given_up_and_shown() -> None:
    with pytest.raises(wire.TornFrame, match=r"65536 bytes.*Welcome"):
        wire.skip_to_preamble(io.BytesIO(b"Welcome! " + b"\n" * 200_000 + wire.MAGIC))
    with pytest.raises(wire.TornFrame, match=r"ended before an agent spoke.*command not found"):
        wire.skip_to_preamble(io.BytesIO(b"sh: python3: command not found"))


@given(messages, st.binary(min_size=1, max_size=50), st.data())
def test_a_link_that_ends_inside_a_frame_is_noticed(
    control: dict[str, object], payload: bytes, data: st.DataObject
) -> None:
    whole = wire.encode(control, len(payload)) + payload
    stream = io.BytesIO(whole[: data.draw(st.integers(1, len(whole) - 1))])
    with pytest.raises(wire.TornFrame):
        frame = wire.receive(stream)
        assert frame is not None
        list(wire.payload(stream, frame.payload_bytes))


@given(st.binary(max_size=200))
def test_arbitrary_bytes_never_give_anything_but_a_protocol_error(noise: bytes) -> None:
    try:
        wire.receive(io.BytesIO(noise))
        wire.parse(noise)
    except ProtocolError:
        pass


def test_a_message_over_a_mebibyte_is_refused_before_it_is_read() -> None:
    with pytest.raises(ProtocolError, match="at most 1048576"):
        wire.receive(io.BytesIO(struct.pack("!IQ", 2**32 - 1, 0)))
    with pytest.raises(ProtocolError, match="at most 1048576"):
        wire.encode({"kind": "put", "name": "x" * 2**20})


@pytest.mark.parametrize(
    "bomb", [b"[" * 500_000, b'{"a":' * 100_000, b'{"kind":"a","b":' + b"[" * 40]
)
def test_a_depth_bomb_is_refused_without_recursing(bomb: bytes) -> None:
    with pytest.raises(ProtocolError, match="nested over 32 deep"):
        wire.receive(framed(bomb))
    deep: object = 0
    for _ in range(40):
        deep = [deep]
    with pytest.raises(ProtocolError, match="nested over 32 deep"):
        wire.encode({"kind": "a", "deep": deep})


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (b'"' + b'\\"' * 500_000, "not valid JSON"),
        (b'"\\' * 300_000, "not valid JSON"),
        (b"[" + b"[]," * 20_000 + b"0]", "over 16384 objects and arrays"),
        (b'{"a":' + b"{}," * 300_000, "over 16384 objects and arrays"),
        (b"[" + b"1," * 200_000 + b"0]", "over 150000 values"),
        (b"9" * 401, "a number of over 400 digits"),
        (b"[0." + b"0" * 500_000 + b"1]", "a number of over 400 digits"),
    ],
    ids=["escaped quotes", "open strings", "arrays", "objects", "values", "whole", "fraction"],
)
def test_text_that_would_take_long_to_parse_is_refused(text: bytes, named: str) -> None:
    with pytest.raises(ProtocolError, match=named):
        wire.parse_json(text)


def test_brackets_inside_text_are_not_depth() -> None:
    control = {"kind": "a", "text": '\\"[{' * 100, "numbers": "9," * 200_000}
    assert wire.parse(json.dumps(control).encode()) == control


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_are_not_finite_cannot_arrive(word: str) -> None:
    with pytest.raises(ProtocolError, match="not a finite number"):
        wire.receive(framed(b'{"kind":"a","x":%s}' % word.encode()))


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_cannot_be_sent(number: float) -> None:
    with pytest.raises(ProtocolError, match="not JSON compliant"):
        wire.encode({"kind": "a", "x": [number]})


@pytest.mark.parametrize(
    "text",
    [
        b"[]",
        b"{}",
        b'{"kind":"\\ud800"}',
        b'{"kind":3}',
        b'{"kind":""}',
        b'{"kind":"a","kind":"b"}',
        b"\xff",
        b'{"kind"',
    ],
)
def test_what_is_no_message_is_refused(text: bytes) -> None:
    with pytest.raises(ProtocolError):
        wire.receive(framed(text))
