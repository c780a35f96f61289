"""The example notebook runs from an empty home."""

import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).resolve().parents[2] / "examples" / "first_front.ipynb"


FEWER_CLIPS = """\
from evaluators.data.synthetic.face_set import data_set
data_set.SIZES = {"train": (240, 12), "valid": (60, 4), "test": (60, 4)}"""
"""The built-in data at a tenth of their size: the notebook's code is run, not its figures."""


@pytest.mark.slow
def test_the_first_front_is_found_in_at_most_thirty_lines_of_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FUSION_NAS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert sum(len(cell.source.splitlines()) for cell in code) <= 30
    assert not any(cell.outputs for cell in code), "keep the notebook without outputs"
    notebook.cells.insert(0, nbformat.v4.new_code_cell(FEWER_CLIPS))
    NotebookClient(
        notebook, timeout=500, resources={"metadata": {"path": os.fspath(tmp_path)}}
    ).execute()
    plot = next(cell for cell in code if "plot_front" in cell.source).outputs[0]
    assert "application/vnd.plotly.v1+json" in plot.data
    table = next(cell for cell in code if "to_frame" in cell.source).outputs[0]
    assert "latency_ms" in table.data["text/html"]
    assert " ms, 95 % interval (" in code[-1].outputs[0].text
    assert (tmp_path / "first-front" / "card.json").is_file()
