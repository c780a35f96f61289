"""Where a study is stored unless told otherwise, and the error of a storage."""

import os

from search_space.errors import STORAGE, FusionNasError


class StorageError(FusionNasError):
    """A storage cannot be opened, or holds another study; the text says what to do."""

    exit_code = STORAGE


def default_url() -> str:
    """SQLite in the folder `runs` here."""
    return f"sqlite:///{os.path.join('runs', 'fusion-nas.db')}"
