"""A store that several hosts share, on anything that fsspec opens: a folder, S3, SFTP and others.

    KIND/ab/KEY.json    what is known under a content key, with its SHA-256
    blobs/ab/SHA256     a file, named by its SHA-256

A record is written after the blobs that it names, and the first of a key stays. What is not as it
was written is reported, removed and made again by whoever needs it. A store that is lost while it
is used is reported once. What would have been uploaded waits in the home, and is uploaded once the
store answers again, at the end, or by the next command.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

from filelock import Timeout

from device_agent.storage.store import remove
from evaluators.cached_files import ALTERED, move_cached, move_whole, sha256_of, write_whole
from search_space.errors import STORAGE, FusionNasError
from search_space.locks import NamedLock
from search_space.redaction import redacted, redacted_url

MARKER, FORMAT = "fusion-nas-store.json", 1
RETRY_S = 30.0
"""How long a store that was lost is left alone."""
WHOLE_WRITES = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "memory")
"""Protocols that show an object once it is written whole. Elsewhere it is renamed to its place."""
BLOBS = "blobs"
S3_PATIENCE = {"connect_timeout": 10, "read_timeout": 60, "retries": {"max_attempts": 2}}
"""botocore's settings where fsspec's configuration has none: a trial does not wait for long."""

_log = logging.getLogger("fusion_nas.cache")
_Found = TypeVar("_Found")


class SharedStoreError(FusionNasError):
    """A shared store cannot be used."""

    exit_code = STORAGE


@dataclass(frozen=True)
class _Item:
    """A record on its way to the store. files: paths of its blobs, by SHA-256."""

    kind: str
    key: str
    body: str
    files: Mapping[str, str] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """Return what is written to the home, with its checksum."""
        text = json.dumps(asdict(self))
        digest = hashlib.sha256(text.encode()).hexdigest()
        return json.dumps({"sha256": digest, "item": text}).encode()

    @classmethod
    def from_file(cls, path: Path) -> _Item | None:
        """Return what was written; None where it is not as it was."""
        try:
            found = json.loads(path.read_bytes())
            text = found["item"]
            if hashlib.sha256(text.encode()).hexdigest() != found["sha256"]:
                return None
            return cls(**json.loads(text))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None


class SharedStore:
    """Content-keyed records and files, read and written by any number of hosts."""

    def __init__(self, url: str, spool: Path) -> None:
        """Open the store, and upload what waits for it in `spool`.

        Args:
            url: as fsspec takes it; without `://` the path of a folder. Credentials belong in the
                environment or in the files of the service's own tools.
            spool: a folder of this home.

        Raises:
            SharedStoreError: The URL names no file system, its package is missing, or the store
                cannot be read and written.
        """
        self.shown = redacted_url(url)
        self._fs, self._root = _opened(url, self.shown)
        protocol = self._fs.protocol
        names = (protocol,) if isinstance(protocol, str) else protocol
        self._writes_whole = any(name in WHOLE_WRITES for name in names)
        identity = hashlib.sha256(self.shown.encode()).hexdigest()[:16]
        self._spool = spool / identity
        self._away_since: float | None = None
        try:
            self._spool.mkdir(parents=True, exist_ok=True)
            self._check_marker()
        except SharedStoreError:
            raise
        except Exception as error:  # every service has errors of its own
            raise SharedStoreError(
                f"--store {self.shown}: cannot be used ({_words(error)})",
                "check the URL, the network and the credentials, or leave --store out",
            ) from error
        self._upload_waiting()

    def get(self, kind: str, key: str) -> bytes | None:
        """Return the body of a record; None where there is none, or the store is away."""
        place = self._record(kind, key)
        found = self._asked(lambda: self._read(place))
        if found is None:
            return None
        try:
            record = json.loads(found)
            body = record["body"].encode()
            if hashlib.sha256(body).hexdigest() == record["sha256"]:
                return bytes(body)
        except (ValueError, KeyError, TypeError, AttributeError):
            pass
        self._remove(place)
        return None

    def put(
        self, kind: str, key: str, body: bytes, files: Mapping[str, Path] | None = None
    ) -> None:
        """Upload a record and the files that it names by SHA-256; a key that is there stays.

        Where the store is away they are uploaded later. Raises OSError where the home has no room.
        """
        paths = {digest: str(path.absolute()) for digest, path in (files or {}).items()}
        item = _Item(kind, key, body.decode(), paths)
        if self._asked(lambda: self._upload(item)) is None:
            write_whole(self._waiting(item), item.to_bytes())

    def fetch(self, kind: str, key: str, path: Path) -> bool:
        """Download the one file of a record to `path`, with its checksum beside it.

        Returns whether it is there now.
        """
        body = self.get(kind, key)
        if body is None:
            return False
        try:
            digest = str(json.loads(body)["sha256"])
        except (ValueError, KeyError, TypeError):
            return False
        if self.fetch_blob(digest, path, move_cached):
            return True
        self.forget(kind, key)
        return False

    def send(self, kind: str, key: str, path: Path) -> None:
        """Upload a file as the one of its record; the opposite of `fetch`."""
        digest = sha256_of(path)
        body = json.dumps({"sha256": digest, "bytes": path.stat().st_size}).encode()
        self.put(kind, key, body, {digest: path})

    def fetch_blob(
        self, digest: str, path: Path, move: Callable[[Path, Path], None] = move_whole
    ) -> bool:
        """Download a blob and verify it; `move` brings it to its place. Return whether it did."""
        place = self._blob(digest)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.parent / f".tmp-{uuid4().hex}"

        def download() -> bool:
            try:
                self._fs.get_file(place, str(part))
                return True
            except FileNotFoundError:
                return False

        try:
            if not self._asked(download):
                return False
            if sha256_of(part) != digest:
                self._remove(place)
                return False
            move(part, path)
            return True
        finally:
            part.unlink(missing_ok=True)

    def forget(self, kind: str, key: str) -> None:
        """Remove a record whose files are not whole, as far as that is allowed."""
        if self._away_since is None:
            with suppress(Exception):
                self._fs.rm_file(self._record(kind, key))

    def close(self) -> None:
        """Upload what waits, and say what still does."""
        self._away_since = None  # asked once more, however recently it was lost
        self._upload_waiting()
        left = len(list(self._spool.glob("*.json")))
        if left:
            _log.warning(
                "%s: not uploaded yet: %d, in %s; the next command with this --store does so",
                self.shown,
                left,
                self._spool,
            )

    def _record(self, kind: str, key: str) -> str:
        return f"{self._root}/{kind}/{key[:2]}/{key}.json"

    def _blob(self, digest: str) -> str:
        return f"{self._root}/{BLOBS}/{digest[:2]}/{digest}"

    def _waiting(self, item: _Item) -> Path:
        return self._spool / f"{item.kind}-{item.key}.json"

    def _check_marker(self) -> None:
        place = f"{self._root}/{MARKER}"
        found = self._read(place)
        if found is None:
            self._write(place, json.dumps({"format": FORMAT}).encode())
            found = self._read(place)
        try:
            said = json.loads(found or b"")["format"]
        except (ValueError, KeyError, TypeError):
            said = None
        if said != FORMAT:
            raise SharedStoreError(
                f"--store {self.shown}: its {MARKER} has format {said}, "
                f"this version knows {FORMAT}",
                "give another URL",
            )

    def _asked(self, step: Callable[[], _Found]) -> _Found | None:
        """What a step of the store gives; None, which is reported once, where it is away."""
        if self._away_since is not None and time.monotonic() - self._away_since < RETRY_S:
            return None
        was_away = self._away_since is not None
        try:
            found = step()
        except Exception as error:  # every service has errors of its own
            if not was_away:
                _log.warning(
                    "%s cannot be used (%s): what is new waits in this home and is uploaded later",
                    self.shown,
                    _words(error),
                )
            self._away_since = time.monotonic()
            return None
        if was_away:
            self._away_since = None
            _log.warning("%s answers again", self.shown)
            self._upload_waiting()
        return found

    def _upload_waiting(self) -> None:
        """Upload what waits in the home, each once; another worker may be doing so."""
        if not any(self._spool.glob("*.json")):
            return
        lock = NamedLock(f"{self._spool}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return
        try:
            for waiting in sorted(self._spool.glob("*.json")):
                item = _Item.from_file(waiting)
                if item is None:
                    _log.warning("%s %s: removed, not uploaded", waiting, ALTERED)
                elif self._asked(partial(self._upload, item)) is None:
                    return
                remove(waiting)
        finally:
            lock.release()

    def _upload(self, item: _Item) -> bool:
        """Upload an item; False where it is there, or its files are not as they were."""
        place = self._record(item.kind, item.key)
        if self._fs.exists(place):
            return False
        for digest, path in item.files.items():
            blob = self._blob(digest)
            if self._fs.exists(blob):
                continue
            try:
                if sha256_of(Path(path)) != digest:
                    return False
            except FileNotFoundError:  # removed since, to make room
                return False
            self._placed(blob, partial(self._fs.put_file, path))
        record = {"sha256": hashlib.sha256(item.body.encode()).hexdigest(), "body": item.body}
        self._write(place, json.dumps(record).encode())
        return True

    def _read(self, place: str) -> bytes | None:
        try:
            found: bytes = self._fs.cat_file(place)
            return found
        except FileNotFoundError:
            return None

    def _write(self, place: str, data: bytes) -> None:
        self._placed(place, lambda to: self._fs.pipe_file(to, data))

    def _placed(self, place: str, write: Callable[[str], object]) -> None:
        """Have an object written so that no reader sees a part of it."""
        if self._writes_whole:
            write(place)
            return
        part = f"{place}.{uuid4().hex}.part"
        self._fs.makedirs(place.rpartition("/")[0], exist_ok=True)
        try:
            write(part)
            self._fs.mv(part, place)
        except BaseException:
            with suppress(Exception):
                self._fs.rm_file(part)
            raise

    def _remove(self, place: str) -> None:
        """Report an object that is not as it was written, and remove it where that is allowed."""
        remedy = "removed; what it held is made again"
        try:
            self._fs.rm_file(place)
        except Exception:  # a store that may only be read
            remedy = "ignored; what it held is made again"
        shown = f"{self.shown.rstrip('/')}{place.removeprefix(self._root)}"
        _log.warning("%s %s: %s", shown, ALTERED, remedy)


def _opened(url: str, shown: str) -> tuple[Any, str]:
    """The file system of a URL and the path in it. Raises SharedStoreError."""
    install = "pip install 'fusion-nas[store]'"
    try:
        import fsspec.config
        import fsspec.core
    except ImportError as error:
        raise SharedStoreError(
            f"--store {shown}: the package fsspec is not installed", install
        ) from error
    protocol = url.partition("://")[0] if "://" in url else "file"
    if protocol in WHOLE_WRITES and "@" in url:
        raise SharedStoreError(
            f"--store {shown}: a URL of {protocol} holds no credentials",
            "give them as the service's own tools take them: for S3 AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or ~/.aws/credentials",
        )
    options: dict[str, Any] = {"skip_instance_cache": True}  # the environment may have changed
    if protocol in ("s3", "s3a") and "config_kwargs" not in fsspec.config.conf.get(protocol, {}):
        options["config_kwargs"] = S3_PATIENCE
    place = url if "://" in url else str(Path(url).absolute())
    try:
        fs, root = fsspec.core.url_to_fs(place, **options)
    except ImportError as error:
        raise SharedStoreError(
            f"--store {shown}: {_words(error)}", f"{install}, or the package that it names"
        ) from error
    except Exception as error:
        raise SharedStoreError(
            f"--store {shown}: no URL of a store ({_words(error)})",
            "give a folder, s3://BUCKET/PATH, or another URL that fsspec opens",
        ) from error
    return fs, str(root).rstrip("/")


def _words(error: BaseException) -> str:
    """What an error says in a line, without passwords."""
    return redacted(" ".join(str(error).split()) or type(error).__name__)
