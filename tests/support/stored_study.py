"""A study that version 0.1.0 stored, and what `report --json` printed of it then.

It has six trials on the built-in data, and was made before the modules moved into inner packages.
"""

import gzip
import sqlite3
from contextlib import closing
from pathlib import Path

_FOLDER = Path(__file__).parent / "stored"
REPORT = gzip.decompress((_FOLDER / "0.1.0.json.gz").read_bytes()).decode()


def stored_study(folder: Path) -> str:
    """Return the URL of a storage in `folder` that holds the study."""
    dump = gzip.decompress((_FOLDER / "0.1.0.sql.gz").read_bytes()).decode()
    with closing(sqlite3.connect(folder / "study.db")) as database:
        database.executescript(dump)
    return f"sqlite:///{folder / 'study.db'}"
