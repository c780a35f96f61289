"""Where a study is stored unless told otherwise, and the error of a storage."""

import os
from pathlib import Path

from search_space.errors import STORAGE, FusionNasError


class StorageError(FusionNasError):
    """A storage cannot be opened, or holds another study; the text says what to do."""

    exit_code = STORAGE


def sqlite_url(storage: str | Path) -> str:
    """Return a storage's URL; a path is that of an SQLite file."""
    text = str(storage)
    return text if "://" in text else f"sqlite:///{Path(text).expanduser()}"


def default_url() -> str:
    """SQLite in the folder `runs` here."""
    return f"sqlite:///{os.path.join('runs', 'fusion-nas.db')}"


def absolute_url(url: str) -> str:
    """Return a storage's URL as every working directory understands it."""
    head, slashes, file = url.partition(":///")
    if not head.startswith("sqlite") or not file:
        return url
    path, mark, options = file.partition("?")
    return f"{head}{slashes}{Path(path).absolute()}{mark}{options}"
