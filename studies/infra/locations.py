"""Where a study is stored unless told otherwise, and the error of a storage."""

import os
from pathlib import Path

from search_space.errors import STORAGE, FusionNasError


class StorageError(FusionNasError):
    """A storage cannot be opened, or holds another study; the text says what to do."""

    exit_code = STORAGE


JOURNAL = "journal:"
"""Before the path of Optuna's journal, as a storage."""


def journal_path(url: str) -> Path | None:
    """Return the file of a journal, of `journal:PATH` or `journal:///PATH`; None for other URLs."""
    if not url.startswith(JOURNAL):
        return None
    path = url.removeprefix(JOURNAL)
    return Path(path.removeprefix("///") if path.startswith("///") else path).expanduser()


def sqlite_url(storage: str | Path) -> str:
    """Return a storage's URL; a path is that of an SQLite file."""
    text = str(storage)
    is_url = "://" in text or text.startswith(JOURNAL)
    return text if is_url else f"sqlite:///{Path(text).expanduser()}"


def store_url(given: str | None) -> str | None:
    """Return the URL of the shared store: what is given, else FUSION_NAS_STORE; None for none.

    A path becomes absolute. Raises StorageError for an empty text.
    """
    if given is not None and not given.strip():
        raise StorageError(f"--store {given!r}: give a folder or a URL, or leave it out")
    text = given or os.environ.get("FUSION_NAS_STORE")
    return str(Path(text).expanduser().absolute()) if text and "://" not in text else text or None


def default_url() -> str:
    """SQLite in the folder `runs` here."""
    return f"sqlite:///{os.path.join('runs', 'fusion-nas.db')}"


def absolute_url(url: str) -> str:
    """Return a storage's URL as every working directory understands it."""
    if (journal := journal_path(url)) is not None:
        return f"{JOURNAL}{journal.absolute()}"
    head, slashes, file = url.partition(":///")
    if not head.startswith("sqlite") or not file:
        return url
    path, mark, options = file.partition("?")
    return f"{head}{slashes}{Path(path).absolute()}{mark}{options}"
