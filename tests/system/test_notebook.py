"""The example notebook runs from an empty home."""

import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).resolve().parents[2] / "examples" / "first_front.ipynb"


@pytest.mark.slow
@pytest.mark.timeout(840)  # below faulthandler_timeout, which ends the whole worker
def test_the_first_front_is_found_in_at_most_thirty_lines_of_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FUSION_NAS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert sum(len(cell.source.splitlines()) for cell in code) <= 30
    assert not any(cell.outputs for cell in code), "keep the notebook without outputs"
    NotebookClient(
        notebook, timeout=780, resources={"metadata": {"path": os.fspath(tmp_path)}}
    ).execute()
    plot = next(cell for cell in code if "plot_front" in cell.source).outputs[0]
    assert "application/vnd.plotly.v1+json" in plot.data
    table = next(cell for cell in code if "to_frame" in cell.source).outputs[0]
    assert "latency_ms" in table.data["text/html"]
    assert " ms, 95 % interval (" in code[-1].outputs[0].text
    assert (tmp_path / "first-front" / "card.json").is_file()
