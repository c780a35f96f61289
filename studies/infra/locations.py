"""Where a study is stored unless told otherwise."""

import os


def default_url() -> str:
    """SQLite in the folder `runs` here."""
    return f"sqlite:///{os.path.join('runs', 'fusion-nas.db')}"
