"""docs/notebook.ipynb runs from its first cell to its last in a kernel of its own, and says what it
promises.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[1] / "docs" / "notebook.ipynb"
nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")


def test_it_is_kept_without_outputs():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert all(
        not cell.outputs and cell.execution_count is None
        for cell in notebook.cells
        if cell.cell_type == "code"
    )


@pytest.mark.slow
def test_it_runs_to_its_end(tmp_path, monkeypatch):
    for name in ("XLA_FLAGS", "TMPDIR"):
        # as on a user's machine: one device, optimised programs
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbclient.NotebookClient(
        notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    shown = [
        [(o.get("text") or o.data.get("text/plain", "")) for o in cell.outputs]
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]
    text = "\n".join(part for cell in shown for part in cell)
    # what is trained is in brackets
    assert "[chat blanc]" in text and "loss_weight [0 0 0 0 0 0 0 0 0 0 0 1]" in text
    assert any(
        "image/png" in o.get("data", {})
        for cell in notebook.cells
        if cell.cell_type == "code"
        for o in cell.outputs
    )
    scores = ast.literal_eval(shown[-2][-1])
    assert scores["exact_match"] >= 0.8 and scores["stopped"] == 1.0 and scores["rows_read"] == 30
    assert "Traceback" not in text and "absl" not in text
