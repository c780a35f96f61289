"""No name that comes over the wire, and no link that lies in the home, leads out of the home."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from device_agent.jobs.child import own_command
from device_agent.storage.store import Store
from device_agent.wire import frames as wire
from device_agent.wire.request import MeasureRequest, TensorSpec, TimingProtocol
from device_agent.wire.result import MeasureResult, Status
from evaluators.devices.client import LocalTransport

CONTENT = b"network" * 100
SHA = hashlib.sha256(CONTENT).hexdigest()
OTHER = hashlib.sha256(b"other").hexdigest()
QUICK = TimingProtocol(warmup_max_s=0.1, warmup_min_s=0.0, min_time_s=0.0, max_time_s=0.5)
REQUEST = MeasureRequest(SHA, (TensorSpec("x", "float32", (4,)),), timing=QUICK, deadline_s=30.0)
CANARY = "canary"
PATHS = {
    "up": "../x", "far up": f"../../../{CANARY}", "absolute": "/etc/passwd", "here": ".",
    "parent": "..", "nothing": "", "home": "~/x", "folder": "a/b", "backslash": "..\\x",
    "NUL": "x\0y", "NUL alone": "\0", "shell": f"$(touch {CANARY})", "long": "x" * 100_000,
    "long path": "../" * 5000 + "x", "line end": SHA + "\n", "upper case": SHA.upper(),
    "digits and a path": SHA[:-5] + "/../x", "NUL after digits": SHA[:-1] + "\0",
    "right to left": "\u202ecod.x", "option": "--help",
}  # fmt: skip


class Talk:
    """An agent, and a host that says whatever it likes."""

    def __init__(self, home: Path) -> None:
        self.transport = LocalTransport(own_command("serve", "--home", str(home)))
        wire.skip_to_preamble(self.transport.reader)

    def raw(self, data: bytes) -> dict[str, Any] | None:
        """Send bytes as they are; return the answer, None at the end of the stream."""
        wire.send_bytes(self.transport.writer, data)
        frame = wire.receive(self.transport.reader)
        return None if frame is None else frame.control

    def ask(self, control: Mapping[str, object], payload: bytes = b"") -> dict[str, Any]:
        """Send a message; return the answer."""
        text = json.dumps(control).encode()
        answer = self.raw(wire.HEADER.pack(len(text), len(payload)) + text + payload)
        assert answer is not None, self.transport.stderr_tail()
        return answer


@contextmanager
def talking(home: Path, greet: bool = True) -> Iterator[Talk]:
    """A talk that has said hello."""
    talk = Talk(home)
    try:
        if greet:
            hello = {"kind": "hello", "versions": list(wire.VERSIONS), "client": "a test"}
            assert talk.ask(hello)["kind"] == "hello"
        yield talk
    finally:
        talk.transport.close()


class Place:
    """A folder with a home in it, and beside the home a file that must stay as it is."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "within" / "home"
        self.canary = folder / CANARY
        self.canary.write_text("sings")
        self.folder = folder

    def check(self) -> None:
        """See that nothing was made or changed outside the home."""
        found = {path.relative_to(self.folder) for path in self.folder.rglob("*")}
        outside = {path for path in found if path.parts[:2] != ("within", "home")}
        assert outside == {Path(CANARY), Path("within")}
        assert self.canary.read_text() == "sings"

    def files(self) -> list[str]:
        """The files of the home, but those of the queue."""
        found = (path.relative_to(self.home) for path in self.home.rglob("*") if not path.is_dir())
        return sorted(str(path) for path in found if path.parts[0] not in ("lock", "queue"))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Place, Talk]]:
    place = Place(tmp_path_factory.mktemp("paths"))
    place.home.parent.mkdir()
    with talking(place.home) as talk:
        put = {"kind": "put", "sha256": SHA, "length": len(CONTENT)}
        assert talk.ask(put, CONTENT)["kind"] == "stored"
        yield place, talk


def with_name(field: str, name: str) -> tuple[dict[str, Any], bytes]:
    """A message with a name in one of the fields that name files, and its payload."""
    kind, _, key = field.partition(".")
    messages: dict[str, dict[str, Any]] = {
        "have": {"sha256s": [SHA]},
        "put": {"sha256": SHA, "length": len(CONTENT)},
        "measure": {"job_id": OTHER, "request": REQUEST.as_json()},
        "result": {"job_id": OTHER},
        "forget": {"sha256s": [], "job_ids": []},
    }
    control = {"kind": kind, **messages[kind]}
    if key == "artifact_sha256":
        control["request"] = {**control["request"], key: name}
    else:
        control[key] = [name] if key.endswith("s") else name
    return control, CONTENT if kind == "put" else b""


@pytest.mark.parametrize("what", PATHS)
@pytest.mark.parametrize(
    "field",
    [
        "have.sha256s", "put.sha256", "measure.job_id", "measure.artifact_sha256",
        "result.job_id", "forget.sha256s", "forget.job_ids",
    ],
)  # fmt: skip
def test_a_name_of_a_file_is_a_digest_or_refused(
    shared: tuple[Place, Talk], field: str, what: str
) -> None:
    place, talk = shared
    control, payload = with_name(field, PATHS[what])
    answer = talk.ask(control, payload)
    assert (answer["kind"], answer["code"]) == ("error", "bad-message")
    assert "hexadecimal" in answer["message"] and len(answer["message"]) < 300
    assert talk.ask({"kind": "have", "sha256s": [SHA]}) == {"kind": "missing", "sha256s": []}
    assert place.files() == [f"artifacts/{SHA}"]
    place.check()


@pytest.mark.parametrize("what", PATHS)
@pytest.mark.parametrize("field", ["kind", "dtype", "fill", "a field of its own"])
def test_a_path_where_a_word_is_asked_for_is_refused(
    shared: tuple[Place, Talk], field: str, what: str
) -> None:
    place, talk = shared
    control, _ = with_name("measure.job_id", OTHER)
    if field == "kind":
        control["kind"] = PATHS[what]
    elif field == "a field of its own":
        control["request"][PATHS[what]] = PATHS[what]
    else:
        control["request"]["inputs"][0][field] = PATHS[what]
    text = json.dumps(control).encode()
    if field == "kind" and not 1 <= len(PATHS[what]) <= 32:
        with pytest.raises(wire.ProtocolError, match="the kind of a message"):
            wire.parse(text)
        return
    answer = talk.ask(control)
    assert (answer["kind"], answer["code"]) == ("error", "bad-message")
    place.check()


@pytest.mark.parametrize("what", ["up", "absolute", "shell", "NUL"])
@pytest.mark.parametrize("field", ["runtime", "provider", "input"])
def test_a_path_as_a_name_of_a_runtime_or_an_input_opens_nothing(
    shared: tuple[Place, Talk], field: str, what: str
) -> None:
    place, talk = shared
    control, _ = with_name("measure.job_id", hashlib.sha256(what.encode()).hexdigest())
    if field == "input":
        control["request"]["inputs"][0]["name"] = PATHS[what]
    else:
        control["request"][field] = PATHS[what]
    answer = talk.ask(control)
    if answer["kind"] == "result":
        result = MeasureResult.from_json(answer["result"])
        assert result.status is Status.ERROR and result.reason
        talk.ask({"kind": "forget", "sha256s": [], "job_ids": [control["job_id"]]})
    else:
        assert answer["code"] == "bad-message"
    assert place.files() == [f"artifacts/{SHA}"]
    place.check()


@pytest.mark.parametrize("what", PATHS)
def test_a_path_as_the_name_of_a_client_opens_nothing(
    shared: tuple[Place, Talk], what: str
) -> None:
    place, talk = shared
    hello = {"kind": "hello", "versions": ["../x", 2], "client": PATHS[what]}
    assert talk.ask(hello)["code"] == "bad-message"
    place.check()


@pytest.mark.parametrize("what", ["up", "absolute", "NUL", "right to left"])
def test_a_client_with_a_path_for_a_name_is_served(place: Place, what: str) -> None:
    place.home.parent.mkdir()
    with talking(place.home, greet=False) as talk:
        hello = {"kind": "hello", "versions": list(wire.VERSIONS), "client": PATHS[what]}
        assert talk.ask(hello)["kind"] == "hello"
    place.check()


# -- frames that are too much


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (wire.HEADER.pack(2**32 - 1, 0), "at most 1048576"),
        (wire.HEADER.pack(wire.MAX_JSON_BYTES + 1, 0), "at most 1048576"),
        (wire.HEADER.pack(500_000, 0) + b"[" * 500_000, "nested over 32 deep"),
        (wire.HEADER.pack(500_000, 0) + b'{"a":' * 100_000, "nested over 32 deep"),
        (wire.HEADER.pack(4, 0) + b"\xff\xfe\0\0", "not valid JSON"),
        (wire.HEADER.pack(19, 0) + b'{"kind": "\\ud800x"}', "surrogates not allowed"),
    ],
)
def test_a_frame_that_is_too_much_is_refused_and_the_link_ended(
    place: Place, data: bytes, words: str
) -> None:
    place.home.parent.mkdir()
    with talking(place.home) as talk:
        answer = talk.raw(data)
        assert answer is not None and answer["code"] == "bad-frame" and words in answer["message"]
        assert wire.receive(talk.transport.reader) is None
    place.check()


def test_an_upload_over_the_cap_is_refused_before_it_is_kept(place: Place) -> None:
    place.home.parent.mkdir()
    with talking(place.home) as talk:
        answer = talk.ask({"kind": "put", "sha256": SHA, "length": 2**50}, CONTENT)
        assert (answer["kind"], answer["code"]) == ("error", "bad-message")
        more = talk.ask({"kind": "put", "sha256": SHA, "length": 7}, CONTENT)
        assert more["code"] == "wrong-length"
        assert place.files() == []


# -- links in the home


@pytest.fixture
def home(place: Place) -> Path:
    Store(place.home, keep_mb=1)
    return place.home


@pytest.fixture
def store(home: Path) -> Store:
    return Store(home, keep_mb=1)


def test_a_link_in_place_of_an_artifact_is_no_artifact(
    store: Store, place: Place, home: Path
) -> None:
    link = home / "artifacts" / SHA
    for target in (place.canary, home / "gone", place.folder, Path("/dev/zero")):
        link.symlink_to(target)
        before_ns = place.canary.stat().st_mtime_ns
        assert store.artifact(SHA) is None
        assert place.canary.stat().st_mtime_ns == before_ns
        store.receive(SHA, len(CONTENT), iter([CONTENT]))
        assert not link.is_symlink() and link.read_bytes() == CONTENT
        store.forget([SHA], [])
    place.check()


def test_a_link_that_is_forgotten_takes_nothing_along(
    store: Store, place: Place, home: Path
) -> None:
    for folder in ("artifacts", "results"):
        (home / folder / SHA).symlink_to(place.canary)
    store.forget([SHA], [SHA])
    assert place.files() == []
    place.check()


def test_a_link_in_place_of_a_result_is_no_result(store: Store, place: Place, home: Path) -> None:
    secret = place.folder / CANARY
    secret.write_text('{"secret": 1}')
    (home / "results" / SHA).symlink_to(secret)
    assert store.load_result(SHA) is None
    store.save_result(SHA, {"fine": 1})
    assert store.load_result(SHA) == {"fine": 1} and secret.read_text() == '{"secret": 1}'
    (home / "results" / OTHER).mkdir()
    assert store.load_result(OTHER) is None


def test_links_and_folders_that_were_left_are_swept_out_and_not_followed(
    store: Store, place: Place, home: Path
) -> None:
    (place.folder / "full").mkdir()
    (place.folder / "full" / "precious").touch()
    for name, target in (("job", place.folder / "full"), ("a.part", place.canary), ("b", "gone")):
        (home / "incoming" / name).symlink_to(target)
    (home / "incoming" / "folder").mkdir()
    (home / "incoming" / "folder" / "link").symlink_to(place.folder / "full")
    store.sweep()
    assert list((home / "incoming").iterdir()) == []
    assert (place.folder / "full" / "precious").exists()
    assert place.canary.read_text() == "sings"


def test_a_link_among_the_artifacts_does_not_keep_room_from_being_made(
    store: Store, place: Place, home: Path
) -> None:
    (home / "artifacts" / "dangling").symlink_to("nowhere")
    content = os.urandom(900_000)
    for data in (content, content[::-1]):
        name = hashlib.sha256(data).hexdigest()
        store.receive(name, len(data), iter([data]))
    assert place.files() == [f"artifacts/{name}"]
