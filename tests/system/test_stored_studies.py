"""Studies that earlier versions stored are opened, and give the figures that they gave then.

`0.1.0.sql.gz` is the dump of a study of six trials on the built-in data, made before the modules
moved into inner packages; `0.1.0.json.gz` is what `report --json` printed of it then.
"""

import gzip
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner

from studies.cli.app import app

STORED = Path(__file__).parents[1] / "support" / "stored"


def test_a_study_of_version_0_1_0_gives_the_same_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FUSION_NAS_HOME", str(tmp_path / "home"))
    dump = gzip.decompress((STORED / "0.1.0.sql.gz").read_bytes()).decode()
    with closing(sqlite3.connect(tmp_path / "study.db")) as database:
        database.executescript(dump)
    page = tmp_path / "page.html"
    storage = f"sqlite:///{tmp_path / 'study.db'}"
    done = CliRunner().invoke(app, ["report", "--storage", storage, "--page", str(page), "--json"])
    assert done.exit_code == 0, done.output
    assert done.stdout == gzip.decompress((STORED / "0.1.0.json.gz").read_bytes()).decode()
    assert "early-small-xcit" in page.read_text(encoding="utf-8")
