"""Studies that earlier versions stored are opened, and give the figures that they gave then."""

from pathlib import Path

import pytest
from stored_study import REPORT, stored_study
from typer.testing import CliRunner

from studies.cli.app import app


def test_a_study_of_version_0_1_0_gives_the_same_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FUSION_NAS_HOME", str(tmp_path / "home"))
    page = tmp_path / "page.html"
    flags = ["--storage", stored_study(tmp_path), "--page", str(page), "--json"]
    done = CliRunner().invoke(app, ["report", *flags])
    assert done.exit_code == 0, done.output
    assert done.stdout == REPORT
    assert "early-small-xcit" in page.read_text(encoding="utf-8")
