"""Nothing half sent is ever kept in the agent's home, and names cannot lead out of it."""

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from device_agent.checks import ProtocolError
from device_agent.storage.store import Store, StoreError
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
