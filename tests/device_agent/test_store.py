"""Nothing half sent is ever kept in the agent's home, and names cannot lead out of it."""

import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from device_agent.checks import ProtocolError
from device_agent.storage.store import NOTE, Store, StoreError
from device_agent.wire.frames import TornFrame

CONTENT = b"network" * 1000
SHA = hashlib.sha256(CONTENT).hexdigest()
JOB = hashlib.sha256(b"job").hexdigest()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def store(home: Path) -> Store:
    return Store(home, keep_mb=1)


def files(home: Path) -> list[str]:
    return sorted(path.name for path in home.rglob("*") if not path.is_dir())


def test_an_artifact_is_there_once_all_of_it_came(store: Store, home: Path) -> None:
    assert store.artifact(SHA) is None
    store.receive(SHA, len(CONTENT), iter([CONTENT[:10], CONTENT[10:]]))
    path = store.artifact(SHA)
    assert path is not None and path.read_bytes() == CONTENT
    assert files(home) == [SHA]


def test_the_home_is_for_its_owner_only(store: Store, home: Path) -> None:
    folders = (home, *(path for path in home.iterdir() if path.is_dir()))
    assert {stat.S_IMODE(path.stat().st_mode) for path in folders} == {0o700}


@pytest.mark.parametrize(
    ("content", "code"),
    [(b"X" + CONTENT[1:], "wrong-sha256"), (CONTENT[:-1], "wrong-length"), (b"", "wrong-length")],
)
def test_an_upload_that_is_not_what_was_announced_leaves_nothing(
    store: Store, home: Path, content: bytes, code: str
) -> None:
    with pytest.raises(StoreError, match="send it again") as refused:
        store.receive(SHA, len(CONTENT), iter([content]))
    assert refused.value.code == code
    assert files(home) == []


def test_a_link_that_ends_in_an_upload_leaves_nothing(store: Store, home: Path) -> None:
    def torn() -> Iterator[bytes]:
        yield CONTENT[:10]
        raise TornFrame("the link ended")

    with pytest.raises(TornFrame):
        store.receive(SHA, len(CONTENT), torn())
    assert files(home) == []


def test_a_full_disk_is_called_so_leaves_nothing_and_the_stream_whole(
    store: Store, home: Path
) -> None:
    (home / "incoming" / f"{SHA}.part").symlink_to("/dev/full")
    chunks = iter([CONTENT, CONTENT])
    with pytest.raises(StoreError, match=r"No space left.*MB are free: make room") as refused:
        store.receive(SHA, 2 * len(CONTENT), chunks)
    assert refused.value.code == "disk-full"
    assert next(chunks, None) is None
    assert files(home) == []


@pytest.mark.parametrize("name", ["../lock", "/etc/passwd", "..", "", SHA.upper(), SHA + "/"])
def test_names_that_look_like_paths_are_refused(store: Store, home: Path, name: str) -> None:
    with pytest.raises(ProtocolError, match="hexadecimal"):
        store.artifact(name)
    with pytest.raises(ProtocolError, match="hexadecimal"):
        store.receive(name, 1, iter([b"x"]))
    with pytest.raises(ProtocolError, match="hexadecimal"):
        store.save_result(name, {})
    with pytest.raises(ProtocolError, match="hexadecimal"):
        store.load_result(name)
    with pytest.raises(ProtocolError, match="hexadecimal"):
        store.forget([name], [])
    assert files(home) == []


def test_the_longest_unused_artifacts_make_room_for_new_ones(store: Store, home: Path) -> None:
    contents = [bytes([number]) * 400_000 for number in range(3)]
    names = [hashlib.sha256(content).hexdigest() for content in contents]
    for age, (name, content) in enumerate(zip(names[:2], contents[:2], strict=True)):
        store.receive(name, len(content), iter([content]))
        os.utime(home / "artifacts" / name, (age, age))
    assert store.artifact(names[0]) is not None
    store.receive(names[2], len(contents[2]), iter([contents[2]]))
    assert files(home) == sorted([names[0], names[2]])


def test_an_artifact_larger_than_the_home_may_be_is_refused(store: Store, home: Path) -> None:
    store.receive(SHA, len(CONTENT), iter([CONTENT]))
    with pytest.raises(StoreError, match="this agent takes 1048576"):
        store.receive(JOB, 2**21, iter([]))
    assert files(home) == [SHA]


DAMAGE: dict[str, Callable[[Path], object]] = {
    "byte flipped": lambda path: path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + CONTENT[1:]),
    "tail zeroed": lambda path: path.write_bytes(path.read_bytes()[:100] + bytes(6900)),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "emptied": lambda path: path.write_bytes(b""),
    "a link": lambda path: (path.unlink(), path.symlink_to("/etc/passwd")),
    "a folder": lambda path: (path.unlink(), path.mkdir(), (path / "x").touch()),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_artifact_is_missing_and_can_be_sent_again(
    store: Store, home: Path, damage: Callable[[Path], object], capsys: pytest.CaptureFixture[str]
) -> None:
    store.receive(SHA, len(CONTENT), iter([CONTENT]))
    damage(home / "artifacts" / SHA)
    assert store.artifact(SHA) is None
    assert capsys.readouterr().err.startswith(f"{NOTE}artifact {SHA[:16]} is not what was sent")
    store.receive(SHA, len(CONTENT), iter([CONTENT]))
    path = store.artifact(SHA)
    assert path is not None and path.read_bytes() == CONTENT
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text.replace(b"0.024854", b"8.024854"),
        lambda text: text.replace(b'"sha256"', b'"sia256"').replace(b"0.02", b"8.02"),
        lambda text: text[:-20],
        lambda text: b"[" * 100_000,
        lambda text: b"",
        lambda text: b"\0" * len(text),
    ],
    ids=["a figure", "two places", "torn", "brackets", "emptied", "zeroed"],
)
def test_a_damaged_result_is_none(
    store: Store,
    home: Path,
    damage: Callable[[bytes], bytes],
    capsys: pytest.CaptureFixture[str],
) -> None:
    store.save_result(JOB, {"median_ms": 0.024854})
    file = home / "results" / JOB
    file.write_bytes(damage(file.read_bytes()))
    found = store.load_result(JOB)
    # A name that is no checksum's is refused by whoever reads the fields.
    assert found is None or set(found) - {"median_ms"}
    assert found is not None or capsys.readouterr().err.startswith(f"{NOTE}the result of job")
    assert found is not None or not file.exists()


def test_a_result_of_an_earlier_version_is_read(store: Store, home: Path) -> None:
    (home / "results" / JOB).write_text('{"median_ms": 1.5}')
    assert store.load_result(JOB) == {"median_ms": 1.5}


def test_results_are_kept_by_name_and_torn_ones_are_nothing(store: Store, home: Path) -> None:
    assert store.load_result(JOB) is None
    store.save_result(JOB, {"median_ms": 1.5})
    assert store.load_result(JOB) == {"median_ms": 1.5}
    (home / "results" / JOB).write_bytes(b'{"median_ms": 1.')
    assert store.load_result(JOB) is None


def test_what_is_forgotten_is_gone_and_what_was_not_there_is_no_matter(
    store: Store, home: Path
) -> None:
    store.receive(SHA, len(CONTENT), iter([CONTENT]))
    store.save_result(JOB, {})
    store.forget([SHA, JOB], [JOB, SHA])
    assert files(home) == []


def test_what_a_killed_agent_left_half_done_is_swept_out(store: Store, home: Path) -> None:
    (home / "incoming" / f"{SHA}.part").write_bytes(b"half")
    (home / "incoming" / "job").mkdir()
    (home / "incoming" / "job" / "job.json").write_text("{}")
    store.receive(SHA, len(CONTENT), iter([CONTENT]))
    store.sweep()
    assert list((home / "incoming").iterdir()) == []
    assert files(home) == [SHA]


def test_a_job_gets_an_empty_folder_whatever_the_one_before_left(store: Store, home: Path) -> None:
    (home / "incoming" / "job" / "deep").mkdir(parents=True)
    with store.scratch() as scratch:
        assert list(scratch.iterdir()) == []
        (scratch / "nodes.json").write_text("{}")
    assert list((home / "incoming").iterdir()) == []
