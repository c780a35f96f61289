"""What hosts share: found by key, verified by checksum, and never lost with the store."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from damage import DAMAGE
from s3_server import SECRET, S3Server, missing, start_s3

from evaluators import shared_store
from evaluators.cached_files import is_whole
from evaluators.evaluation import Evaluation, Measure
from evaluators.features.store import FeatureStore, FeatureWriter
from evaluators.shared_store import MARKER, SharedStore, SharedStoreError
from evaluators.store import EvaluationStore

KEY, OTHER = "a" * 64, "b" * 64


def found(key: str, value: float = 1.0, unstable: str = "") -> Evaluation:
    measure = Measure("latency_ms", value, "ms", "lower")
    return Evaluation(key, "latency", (measure,), unstable=unstable)


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    if why := missing():
        pytest.skip(why)
    with start_s3(tmp_path_factory.mktemp("s3") / "log") as server:
        server.make_bucket("lab")
        yield server


@pytest.fixture(params=["folder", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty store, of each kind."""
    if request.param == "folder":
        return f"file://{tmp_path / 'store'}"
    server: S3Server = request.getfixturevalue("s3")
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    return f"s3://lab/{tmp_path.name}"


class Home:
    """A home on its own, with a connection to the store."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.store = SharedStore(url, folder / "store")
        self.evaluations = EvaluationStore(folder / "evaluations.jsonl", self.store)

    def waiting(self) -> list[Path]:
        return sorted((self.folder / "store").glob("*/*.json"))


@pytest.fixture
def here(tmp_path: Path, url: str) -> Home:
    return Home(tmp_path / "here", url)


@pytest.fixture
def there(tmp_path: Path, url: str, here: Home) -> Home:
    return Home(tmp_path / "there", url)


def test_an_evaluation_of_one_home_is_known_in_another(here: Home, there: Home) -> None:
    assert there.evaluations.get(KEY) is None
    here.evaluations.put(found(KEY))
    assert there.evaluations.get(KEY) == found(KEY)
    kept = EvaluationStore(there.folder / "evaluations.jsonl")
    assert kept.get(KEY) == found(KEY), "it stays where the store is not at hand"


def test_the_first_evaluation_of_a_key_stays(here: Home, there: Home, tmp_path: Path) -> None:
    here.evaluations.put(found(KEY, 1.0))
    there.evaluations.put(found(KEY, 2.0))
    assert json.loads(here.store.get("evaluations", KEY) or b"")["measures"][0]["value"] == 1.0


def test_an_unstable_reading_is_not_shared(here: Home, there: Home) -> None:
    here.evaluations.put(found(KEY, unstable="halves 30 % apart"))
    assert there.store.get("evaluations", KEY) is None


def test_a_file_is_shared_with_its_checksum(here: Home, there: Home) -> None:
    file, copy = here.folder / "trained", there.folder / "weights" / "trained"
    file.write_bytes(b"weights" * 1000)
    here.store.send("weights", KEY, file)
    assert there.store.fetch("weights", KEY, copy)
    assert copy.read_bytes() == file.read_bytes() and is_whole(copy)
    assert not there.store.fetch("weights", OTHER, copy.with_name("other"))
    assert not list(copy.parent.glob(".tmp-*"))


def test_features_of_one_home_are_whole_in_another(here: Home, there: Home) -> None:
    def features(home: Home) -> FeatureStore:
        return FeatureStore(home.folder / "features" / KEY, {"trunk": "t"}, 6)

    made, copy = features(here), features(there)
    rows = torch.arange(24.0).reshape(6, 4)
    made.folder.mkdir(parents=True)
    FeatureWriter(made, shard_bytes=32).put(torch.arange(6), {"mean": rows})
    made.send(here.store)
    copy.fetch(there.store)
    assert copy.missing() == [] and torch.equal(copy.read(["mean"])["mean"].whole(), rows)
    other = FeatureStore(there.folder / "features" / KEY, {"trunk": "another"}, 6)
    other.fetch(there.store)
    assert other.missing() == [range(6)], "of another trunk, whatever the key says"


def place_of(home: Home, kind: str) -> str:
    fs, root = home.store._fs, home.store._root
    (place,) = [path for path in fs.find(root) if f"/{kind}/" in path]
    return str(place)


@pytest.mark.parametrize("cut", [0, 20, -1], ids=["empty", "short", "one byte less"])
def test_a_record_that_is_not_as_it_was_written_is_named_and_made_again(
    here: Home, there: Home, cut: int, caplog: pytest.LogCaptureFixture
) -> None:
    here.evaluations.put(found(KEY))
    place, fs = place_of(here, "evaluations"), here.store._fs
    fs.pipe_file(place, fs.cat_file(place)[:cut])
    assert there.evaluations.get(KEY) is None
    (line,) = [r.getMessage() for r in caplog.records if KEY in r.getMessage()]
    assert "its checksum differs" in line and "removed; what it held is made again" in line
    there.evaluations.put(found(KEY, 3.0))
    assert Home(there.folder / "third", here.store.shown).evaluations.get(KEY) == found(KEY, 3.0)


def test_a_corrupted_file_is_named_and_made_again(
    here: Home, there: Home, caplog: pytest.LogCaptureFixture
) -> None:
    file, copy = here.folder / "trained", there.folder / "trained"
    file.write_bytes(b"weights" * 1000)
    here.store.send("weights", KEY, file)
    place, fs = place_of(here, "blobs"), here.store._fs
    damaged = bytearray(fs.cat_file(place))
    damaged[5000] ^= 1
    fs.pipe_file(place, bytes(damaged))
    assert not there.store.fetch("weights", KEY, copy) and not copy.exists()
    assert any("/blobs/" in r.getMessage() for r in caplog.records)
    copy.write_bytes(b"another training")
    there.store.send("weights", KEY, copy)
    file.unlink()
    assert here.store.fetch("weights", KEY, file) and file.read_bytes() == b"another training"


def test_a_record_whose_file_is_gone_is_made_again(here: Home, there: Home) -> None:
    file, copy = here.folder / "trained", there.folder / "trained"
    file.write_bytes(b"weights")
    here.store.send("weights", KEY, file)
    here.store._fs.rm_file(place_of(here, "blobs"))
    assert not there.store.fetch("weights", KEY, copy)
    there.store.send("weights", KEY, file)
    assert there.store.fetch("weights", KEY, copy)


# -- stores that are away


def lose(home: Home) -> Path:
    """A file instead of the folder of a home's store; the folder is given to be put back."""
    folder = Path(home.store._root)
    aside = folder.rename(folder.with_name("aside"))
    folder.write_text("no folder")
    return aside


@pytest.fixture
def at_folder(tmp_path: Path) -> Home:
    return Home(tmp_path / "here", str(tmp_path / "store"))


def test_what_a_lost_store_lacks_is_uploaded_once_it_answers(
    at_folder: Home,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    aside, home = lose(at_folder), at_folder
    file = home.folder / "trained"
    file.write_bytes(b"weights")
    home.evaluations.put(found(KEY))
    home.store.send("weights", KEY, file)
    assert home.evaluations.get(KEY) == found(KEY) and home.evaluations.get(OTHER) is None
    (said,) = [r.getMessage() for r in caplog.records]
    assert "cannot be used" in said and "uploaded later" in said, "it is said once"
    assert len(home.waiting()) == 2
    os.unlink(home.store._root)
    aside.rename(home.store._root)
    monkeypatch.setattr(shared_store, "RETRY_S", 0.0)
    assert home.evaluations.get(OTHER) is None, "which asks the store again"
    assert home.waiting() == [] and "answers again" in caplog.records[-1].getMessage()
    other = Home(tmp_path / "there", home.store._root)
    assert other.evaluations.get(KEY) == found(KEY)
    assert other.store.fetch("weights", KEY, tmp_path / "copy")


def test_what_waits_at_the_end_is_told_and_uploaded_by_the_next_command(
    at_folder: Home, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    aside = lose(at_folder)
    at_folder.evaluations.put(found(KEY))
    at_folder.store.close()
    assert "not uploaded yet: 1, in" in caplog.records[-1].getMessage()
    os.unlink(at_folder.store._root)
    aside.rename(at_folder.store._root)
    again = Home(at_folder.folder, at_folder.store._root)
    assert again.waiting() == [] and again.store.get("evaluations", KEY) is not None


@pytest.mark.parametrize("harm", sorted(set(DAMAGE) - {"removed"}))
def test_what_was_damaged_while_it_waited_is_named_and_not_uploaded(
    at_folder: Home, caplog: pytest.LogCaptureFixture, harm: str
) -> None:
    aside = lose(at_folder)
    at_folder.evaluations.put(found(KEY))
    (waiting,) = at_folder.waiting()
    DAMAGE[harm](waiting)
    os.unlink(at_folder.store._root)
    aside.rename(at_folder.store._root)
    at_folder.store.close()
    assert str(waiting) in caplog.records[-1].getMessage()
    assert at_folder.waiting() == [] and at_folder.store.get("evaluations", KEY) is None


def test_a_file_that_was_removed_while_it_waited_is_passed_over(at_folder: Home) -> None:
    aside, file = lose(at_folder), at_folder.folder / "trained"
    file.write_bytes(b"weights")
    at_folder.store.send("weights", KEY, file)
    file.write_bytes(b"altered")
    os.unlink(at_folder.store._root)
    aside.rename(at_folder.store._root)
    at_folder.store.close()
    assert at_folder.waiting() == [] and at_folder.store.get("weights", KEY) is None


def test_an_s3_server_that_is_lost_is_told_and_nothing_else_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if why := missing():
        pytest.skip(why)
    with start_s3(tmp_path / "log") as server:
        server.make_bucket("lab")
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        home = Home(tmp_path / "here", "s3://lab/studies")
        server.stop()
        home.evaluations.put(found(KEY))
        assert home.evaluations.get(KEY) == found(KEY) and len(home.waiting()) == 1
        text = caplog.text + home.waiting()[0].read_text()
        assert "s3://lab/studies cannot be used" in text and SECRET not in text
        with pytest.raises(SharedStoreError, match=r"--store s3://lab/studies: cannot be used"):
            SharedStore("s3://lab/studies", tmp_path / "other")


def test_a_bucket_that_is_not_there_is_an_error(
    s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SharedStoreError, match=r"--store s3://nowhere/x: cannot be used"):
        SharedStore("s3://nowhere/x", tmp_path)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("nosuch://host/x", "no URL of a store"),
        ("s3://KEY:topsecret@lab/x", "a URL of s3 holds no credentials"),
        ("sftp://me:topsecret@127.0.0.1:1/x", "no URL of a store"),
    ],
)
def test_a_url_that_cannot_be_used_is_named_without_its_password(
    url: str, said: str, tmp_path: Path
) -> None:
    with pytest.raises(SharedStoreError, match=said) as raised:
        SharedStore(url, tmp_path)
    assert "topsecret" not in f"{raised.value} {raised.value.hint}"


def test_a_package_that_is_missing_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "fsspec", None)
    with pytest.raises(SharedStoreError, match="fsspec is not installed") as raised:
        SharedStore(str(tmp_path / "store"), tmp_path)
    assert raised.value.hint == "pip install 'fusion-nas[store]'"


def test_a_store_of_another_format_is_refused(at_folder: Home, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "here")
    (Path(at_folder.store._root) / MARKER).write_text('{"format": 99}')
    with pytest.raises(SharedStoreError, match="has format 99, this version knows 1"):
        SharedStore(at_folder.store._root, tmp_path / "here")
