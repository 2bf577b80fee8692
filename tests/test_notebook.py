"""The notebook in examples: it runs, and its stored outputs are those of this version."""

import re
from pathlib import Path

import pytest

nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")
NOTEBOOK = Path(__file__).parent.parent / "examples" / "notebook" / "selecting.ipynb"


def shown(notebook) -> list[str]:
    """What the cells print and show as text, without the numbers, which differ from one kind of hardware to another."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ()) if output.get("name") != "stderr"]
    texts = [output.get("text") or output["data"]["text/plain"] for output in outputs]
    return [re.sub(r"[-+]?\d+(\.\d+)?", "#", text) for text in texts if "scar_reason" not in text and "Counter" not in text]


@pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::DeprecationWarning")
def test_the_notebook_runs_and_shows_what_it_has_stored():
    stored = nbformat.read(NOTEBOOK, 4)
    notebook = nbformat.read(NOTEBOOK, 4)
    nbclient.NotebookClient(
        notebook, timeout=600, startup_timeout=300, resources={"metadata": {"path": str(NOTEBOOK.parent)}}
    ).execute()
    assert shown(notebook) == shown(stored)
    pages = [output["data"]["text/html"] for cell in stored.cells for output in cell.get("outputs", ()) if "data" in output]
    assert len(pages) == 5 and sum('<div class="scar-hf">' in "".join(page) for page in pages) == 4
    assert not [output for cell in notebook.cells for output in cell.get("outputs", ()) if output["output_type"] == "error"]
    assert "kept: 32 of 160 rows (20.0%)" in str(notebook.cells[5]["outputs"])
