"""docs/notebook.ipynb runs from its first cell to its last."""

import os
import re
from pathlib import Path

import nbformat
import pytest
from conftest import ROOT, TINY
from nbclient import NotebookClient

FILE = ROOT / "docs" / "notebook.ipynb"
SMALL = ["data.rows=60", *TINY, "trainer.max_steps=2", "sweep.baseline=none"]
"""What every trial of the notebook gets here, the first of them with made-up data only."""


def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    book = nbformat.read(FILE, as_version=4)
    for cell in book.cells:
        cell.source = re.sub(r"SETTINGS = .*", f"SETTINGS = {SMALL!r}", cell.source)
        cell.source = cell.source.replace("*SETTINGS, data=frame", "*SETTINGS[1:], data=frame")
    last = "import sys; print([name for name in ('torch', 'transformers') if name in sys.modules])"
    book.cells.append(nbformat.v4.new_code_cell(last))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    NotebookClient(book, timeout=280, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [out for cell in book.cells for out in cell.get("outputs", [])]
    shown = ["".join(map(str, (out.get("text", ""), out.get("data", "")))) for out in outputs]
    said = "\n".join(shown)
    assert "ranked by validation/log_loss" in said
    assert "step 2/2  loss" in said
    assert "\x1b" not in said
    assert "<caption" in said
    assert shown[-1] == "[]\n"
    assert not [out for out in outputs if out.get("name") == "stderr"]


def test_the_notebook_is_kept_without_names_of_a_machine() -> None:
    book = nbformat.read(FILE, as_version=4)
    nbformat.validate(book)
    text = FILE.read_text(encoding="utf-8")
    assert not re.search(r"/(home|root|tmp|work|Users)/", text)
    for link in re.findall(r"\]\(([^)#]+)\)", "\n".join(cell.source for cell in book.cells)):
        assert (FILE.parent / link).exists(), link
