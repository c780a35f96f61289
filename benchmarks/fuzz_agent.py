"""Feeds the agent's readers damaged input for a while: no crash, no hang, nothing slow.

Six readers take turns: of frames, of JSON, of requests, of results (the host's side), of ONNX files
with the guard behind it, and of the same files with the filling of weights. Each starts from valid
input, changes it at random, and keeps what ended in a way not seen before. A crash is any exception
but the one that the reader promises; a hang is an input that takes over ten seconds.

Reading and checking, where the interpreter is held, have a bound on their time: no input of up to
1 MiB takes over 0.2 s of the processor; filling weights is work that was asked for. Inputs for that
are pieces of a few bytes repeated up to 1 MiB, those of ONNX files within the messages that hold
them. An input that takes longer is read twice more, and the shortest time counts. Prints JSON and
exits with 1 after a crash, a hang or a slow input.

    python benchmarks/fuzz_agent.py [--minutes 5] [--seed 0] [--out FILE]
"""

import argparse
import io
import json
import platform
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import onnx

from device_agent.checks import ProtocolError
from device_agent.onnx.file import MalformedFile, parse_onnx
from device_agent.onnx.guard import check_network
from device_agent.onnx.synthesize_weights import Fill, fill_weights
from device_agent.timing.drift_reference import reference_onnx
from device_agent.wire import frames as wire
from device_agent.wire.request import MeasureRequest, TensorSpec
from device_agent.wire.result import MeasureResult, Status
from evaluators.onnx.builder import OnnxBuilder
from evaluators.onnx.stripped import strip_weights
from search_space.space.named import load_space

SLICE_S = 1.0
HANG_S = 10
MEMORY_BYTES = 6 * 2**30
MAX_INPUT_BYTES = 2**18
MAX_REPEATED_BYTES = 2**20
SLOW_S = 0.2
PIECES = (
    b'"\\', b'\\"', b'"', b"[]", b"{}", b"[],", b"{},", b"1,", b"1.0,", b"1e5,", b'"a",', b"9",
    b"-", b"true,",
    b'{"a":1},', b'{"a":{"b":1}},', b"[[[[]]]],", b" ", b"\\u0000", b"null,", b"\xff",
    b'"\\ud83d\\ude00",', b'"\\ud800",', b'"a":', b'"":{},', b"[", b"]", b"}{",
    b"-1.7976e308,",
)  # fmt: skip
AROUND = (
    (b"", b""), (b"[", b"0]"), (b'"', b'"'), (b'["', b'"]'), (b'{"kind":"a","x":[', b"0]}"),
    (b'{"kind":"a","x":"', b'"}'), (b'{"kind":"a",', b'"x":1}'),
)  # fmt: skip
NETWORK_PIECES = (
    b"\x0a\x00", b"\x2a\x00", b"\x6a\x00", b"\x0a\x05\x22\x03Neg", b"\x6a\x03\x0a\x01a",
    b"\x0a\x04\x2a\x02\x32\x00", b"\x0a\x06\x12\x01a\x22\x01A", b"\x08\x01", b"\x12\x01a",
)  # fmt: skip
"""Fields of a graph or a node: empty nodes, initializers, values, nodes with names or graphs."""
NETWORK_AROUND = (
    (7,), (7, 1), (7, 5), (7, 1, 5), (7, 5, 1), (7, 11, 2, 1, 2), (8,), (14,),
)  # fmt: skip
"""Numbers of the fields of messages that hold the pieces, the outermost first."""
MAX_FILLED_BYTES = 2**22
ODD_BYTES = (b"", b"\0", b"\x7f", b"\x80", b"\xff", b"\xff" * 9 + b"\x01", b"\xff" * 10, b"[" * 40)
ODD_NUMBERS = (0, 1, 127, 128, 2**31 - 1, 2**31, 2**32, 2**63 - 1, 2**63, 2**64 - 1, 2**64)
ODD_VALUES: tuple[object, ...] = (
    None, True, -1, 0, 2**53, 2**63, 10**400, -0.0, 1e308, "", "\0", "../x", "x" * 9000, "\ud800",
    [], [[]], {}, {"kind": 1}, 1.5, "1",
)  # fmt: skip


class Hang(BaseException):
    """An input took too long."""


@dataclass
class Target:
    """One reader: what it is fed with, and what it may raise.

    `valid` is what it must take, `corpus` that and what else is worth changing; `outcomes` counts
    how inputs ended: taken, or refused by which lines of code.
    """

    name: str
    read: Callable[[bytes], None]
    promised: type[Exception]
    valid: list[bytes]
    corpus: list[bytes] = field(default_factory=list)
    is_timed: bool = True
    inputs: int = 0
    slowest_s: float = 0.0
    slowest_cpu_s: float = 0.0
    outcomes: dict[str, int] = field(default_factory=dict)
    failures: list[dict[str, str]] = field(default_factory=list)
    slow: list[dict[str, str]] = field(default_factory=list)

    def feed(self, data: bytes) -> None:
        """Read one input and note how it ended."""
        start, start_s = time.perf_counter(), time.process_time()
        signal.alarm(HANG_S)
        try:
            self.read(data)
            outcome = "taken"
        except self.promised as error:
            lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__)]
            outcome = f"{type(error).__name__} {lines}"
        except (Exception, Hang) as error:
            outcome = f"FAILED: {type(error).__name__}"
            shown = "".join(traceback.format_exception(error)[-4:])
            self.failures.append({"input": data[:4096].hex(), "traceback": shown})
        finally:
            signal.alarm(0)
        self.slowest_s = max(self.slowest_s, time.perf_counter() - start)
        taken_s = time.process_time() - start_s
        if self.is_timed and taken_s > SLOW_S:
            taken_s = min(taken_s, self._again_s(data), self._again_s(data))
        self.slowest_cpu_s = max(self.slowest_cpu_s, taken_s)
        if self.is_timed and taken_s > SLOW_S:
            said = f"{taken_s:.2f} s of the processor for {len(data)} bytes, {outcome}"
            self.slow.append({"input": data[:200].hex(), "took": said})
        self.inputs += 1
        if outcome not in self.outcomes and len(self.corpus) < 2000:
            self.corpus.append(data)
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1

    def _again_s(self, data: bytes) -> float:
        start_s = time.process_time()
        with suppress(Exception):
            self.read(data)
        return time.process_time() - start_s


def read_frames(data: bytes) -> None:
    """Read a stream of frames to its end, after its preamble where it has one."""
    stream = io.BytesIO(data)
    if wire.MAGIC in data:
        wire.skip_to_preamble(stream)
    while (frame := wire.receive(stream)) is not None:
        for _ in wire.payload(stream, frame.payload_bytes):
            pass
        if len(data) <= MAX_INPUT_BYTES:  # of longer input the time of parsing alone is measured
            wire.encode(frame.control)


def read_json(data: bytes) -> None:
    """Read one JSON text as a message's is read."""
    wire.parse_json(data)


def value_reader(kind: type[MeasureRequest] | type[MeasureResult]) -> Callable[[bytes], None]:
    """A reader of JSON values; what is taken must survive the trip."""

    def read(data: bytes) -> None:
        found = kind.from_json(wire.parse_json(data))
        again = wire.parse_json(json.dumps(found.as_json(), allow_nan=False).encode())
        assert kind.from_json(again) == found

    return read


def read_network(data: bytes) -> None:
    """Read an ONNX file and check it as one whose large weights may be missing."""
    check_network(parse_onnx(data), weights_seed=0)


def weights_reader(folder: Path) -> Callable[[bytes], None]:
    """A reader of ONNX files that fills what the guard lets pass, where that is not much."""

    def read(data: bytes) -> None:
        found = parse_onnx(data)
        check_network(found, weights_seed=0)
        if sum(tensor.elements for tensor in found.graph.initializers) > MAX_FILLED_BYTES:
            return
        sent, filled = folder / "sent", folder / "filled"
        sent.write_bytes(data)
        filled.unlink(missing_ok=True)
        fill_weights(sent, found, 0, filled)
        check_network(parse_onnx(filled.read_bytes()))

    return read


def changed(rng: random.Random, data: bytes, corpus: Sequence[bytes]) -> bytes:
    """Some bytes of an input flipped, set, cut out, doubled, or taken from another."""
    made = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        at = rng.randrange(len(made) + 1)
        size = min(len(made) - at, rng.choice((1, 1, 2, 4, 8, 64, 1000)))
        way = rng.randrange(7)
        if way == 0 and at < len(made):
            made[at] ^= 1 << rng.randrange(8)
        elif way == 1 and at < len(made):
            made[at] = rng.randrange(256)
        elif way == 2:
            del made[at : at + size]
        elif way == 3:
            made[at:at] = made[at : at + size] * rng.choice((1, 2, 50))
        elif way == 4:
            made[at : at + size] = rng.choice(ODD_BYTES)
        elif way == 5:
            number = rng.choice(ODD_NUMBERS)
            made[at : at + size] = rng.choice((varint(number), number.to_bytes(9, "big")[-8:]))
        else:
            other = rng.choice(corpus)
            start = rng.randrange(len(other) + 1)
            made[at : at + size] = other[start : start + rng.choice((4, 32, 512))]
    return bytes(made[:MAX_INPUT_BYTES])


def repeated(rng: random.Random, target: Target) -> bytes:
    """A piece repeated up to 1 MiB: what takes more than linear time shows in it."""
    if target.name == "networks":
        piece = b"".join(rng.choices(NETWORK_PIECES, k=rng.choice((1, 1, 1, 2, 3))))
        text = piece * ((MAX_REPEATED_BYTES - 64) // len(piece))
        for number in reversed(rng.choice(NETWORK_AROUND)):
            text = varint(number << 3 | 2) + varint(len(text)) + text
        return text
    if rng.random() < 0.5:
        piece = b"".join(rng.choices(PIECES, k=rng.choice((1, 1, 2, 3))))
    else:
        other = rng.choice(target.valid)
        start = rng.randrange(len(other))
        piece = other[start : start + rng.choice((1, 2, 8, 64, 512))]
    before, after = rng.choice(AROUND)
    room = rng.choice((MAX_REPEATED_BYTES, 2**16)) - len(before) - len(after) - wire.HEADER.size
    text = before + piece * (room // len(piece)) + after
    return wire.HEADER.pack(len(text), 0) + text if target.name == "frames" else text


def changed_value(rng: random.Random, value: Any) -> Any:
    """A JSON value with one part of it replaced, left out or doubled."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        name = rng.choice([*value])
        made = {**value, name: changed_value(rng, value[name])}
        if rng.random() < 0.1:
            made[rng.choice(("extra", "", "\0", "kind"))] = made.pop(name)
        return made
    if isinstance(value, list) and value and rng.random() < 0.9:
        at = rng.randrange(len(value))
        part = [changed_value(rng, value[at])] * rng.choice((0, 1, 1, 2, 300))
        return value[:at] + part + value[at + 1 :]
    if isinstance(value, (int, float)) and not isinstance(value, bool) and rng.random() < 0.5:
        with suppress(OverflowError):
            return rng.choice((-value, value + 1, value * 1e6, value // 3, float(value)))
    return rng.choice(ODD_VALUES)


def next_input(rng: random.Random, target: Target) -> bytes:
    """A changed input, rather a short one; half of those that are JSON are changed as values."""
    start = target.valid if rng.random() < 0.5 else target.corpus
    data = min(rng.choices(start, k=6), key=len)
    if target.name in ("json", "requests", "results") and rng.random() < 0.5:
        with suppress(ValueError, RecursionError):
            value = json.loads(data)
            for _ in range(rng.choice((1, 1, 2, 3))):
                value = changed_value(rng, value)
            return json.dumps(value).encode()[:MAX_INPUT_BYTES]
    return changed(rng, data, target.corpus)


def varint(number: int) -> bytes:
    """A protobuf number, as long as it takes."""
    made = bytearray()
    while number > 127:
        made.append(number & 127 | 128)
        number >>= 7
    return bytes([*made, number])


def small_network() -> bytes:
    """A network of a few nodes with a subgraph, metadata, and tensors of several kinds."""
    helper = onnx.helper
    x, y, flag = (helper.make_tensor_value_info(*end) for end in
                  (("x", 1, [2, 4]), ("y", 1, [2, 4]), ("flag", 9, [])))  # fmt: skip
    inner = helper.make_graph([helper.make_node("Neg", ["h"], ["z"])], "b", [],
                              [helper.make_tensor_value_info("z", 1, None)])  # fmt: skip
    nodes = [
        helper.make_node("Constant", [], ["c"], value=helper.make_tensor("", 1, [1], [0.5])),
        helper.make_node("Gemm", ["x", "w", "c"], ["h"], alpha=0.5, name="product"),
        helper.make_node("If", ["flag"], ["g"], then_branch=inner, else_branch=inner),
        helper.make_node("Unsqueeze", ["g", "axes"], ["u"]),
        helper.make_node("Reshape", ["u", "shape"], ["y"]),
    ]
    held = [
        onnx.TensorProto(name="w", data_type=1, dims=[4, 4], doc_string=str(Fill(-0.5, 0.5))),
        onnx.TensorProto(name="q", data_type=3, dims=[3], doc_string=str(Fill(-127, 127))),
        helper.make_tensor("axes", 7, [1], [0]),
        helper.make_tensor("shape", 7, [2], b"\2" + bytes(7) + b"\4" + bytes(7), raw=True),
    ]
    graph = helper.make_graph(nodes, "g", [x, flag], [y], held, value_info=[x])
    made = helper.make_model(graph, ir_version=8)
    helper.set_model_props(made, {"onnx.infer": "onnxruntime.quant"})
    return bytes(made.SerializeToString())


def networks(folder: Path) -> list[bytes]:
    """A small one, the drift reference, and a design of the demo space without its weights."""
    space = load_space("demo")
    encoders = {spec.name: spec for spec in space.encoders}
    builder = OnnxBuilder(encoders, space.shapes, 2, folder)
    genotype = space.sample(random.Random(0))
    found = [small_network(), reference_onnx()]
    for precision in ("fp32", "int8"):
        sample = type(genotype).from_json({**genotype.as_json(), "precision": precision})
        found.append(strip_weights(builder.build(sample)).path.read_bytes())
    return found


def targets(folder: Path) -> list[Target]:
    """The readers with valid input for each."""
    specs = (
        TensorSpec("ids", "int64", (1, 64), high=30_522),
        TensorSpec("image", "float32", (1, 3, 8, 8), fill="normal"),
    )
    request = MeasureRequest("0123456789abcdef" * 4, specs, weights_seed=0)
    asked = json.dumps(request.as_json()).encode()
    measure = {"kind": "measure", "job_id": "0" * 64, "request": request.as_json()}
    frames = [
        wire.MAGIC + wire.encode({"kind": "hello", "versions": [2, 2], "client": "fuzz"}),
        wire.encode({"kind": "have", "sha256s": ["0" * 64]}) + wire.encode(measure),
        wire.encode({"kind": "put", "sha256": "0" * 64, "length": 5}, 5) + b"12345",
    ]
    results = [json.dumps(MeasureResult(Status.ERROR, "lost").as_json()).encode()]
    files = networks(folder)
    fill = weights_reader(folder)
    return [
        Target("frames", read_frames, ProtocolError, frames),
        Target("requests", value_reader(MeasureRequest), ProtocolError, [asked]),
        Target("results", value_reader(MeasureResult), ProtocolError, results),
        Target("json", read_json, ProtocolError, [asked, *results]),
        Target("networks", read_network, MalformedFile, files),
        Target("weights", fill, MalformedFile, files, is_timed=False),
    ]


def report(found: Sequence[Target], minutes: float, seed: int) -> dict[str, Any]:
    """What was fed and how it ended."""
    return {
        "minutes": minutes,
        "seed": seed,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "crashes_and_hangs": sum(len(target.failures) for target in found),
        "slow": sum(len(target.slow) for target in found),
        "readers": {
            target.name: {
                "inputs": target.inputs,
                "taken": target.outcomes.get("taken", 0),
                "ways_to_end": len(target.outcomes),
                "slowest_ms": round(target.slowest_s * 1000, 1),
                "slowest_cpu_ms": round(target.slowest_cpu_s * 1000, 1),
                "failures": target.failures[:10],
                "slow": target.slow[:10],
            }
            for target in found
        },
    }


def main() -> int:
    """Fuzz for the asked time and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="file for the JSON, instead of standard output")
    asked = parser.parse_args()
    rng = random.Random(asked.seed)

    def hang(number: int, frame: FrameType | None) -> None:
        raise Hang(f"over {HANG_S} s")

    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        fed = targets(Path(folder))
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
        signal.signal(signal.SIGALRM, hang)
        for target in fed:
            target.corpus += target.valid
            for data in target.valid:
                target.feed(data)
            if set(target.outcomes) != {"taken"}:
                print(f"{target.name}: valid input is refused: {target.outcomes}", file=sys.stderr)
                return 2
        end_s = time.monotonic() + 60 * asked.minutes
        while time.monotonic() < end_s:
            for target in fed:
                slice_end_s = min(time.monotonic() + SLICE_S, end_s)
                while time.monotonic() < slice_end_s:
                    repeats = target.is_timed and rng.random() < 0.05
                    target.feed(repeated(rng, target) if repeats else next_input(rng, target))
    found = report(fed, asked.minutes, asked.seed)
    text = json.dumps(found, indent=2)
    if asked.out:
        asked.out.write_text(text + "\n", encoding="utf-8")
    else:
        print(text)
    return 1 if found["crashes_and_hangs"] or found["slow"] else 0


if __name__ == "__main__":
    sys.exit(main())
