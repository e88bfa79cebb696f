"""The tutorial runs, from its first cell to its last, in a kernel of its own."""

import os
from pathlib import Path

import pytest

TUTORIAL = Path(__file__).parents[1] / "docs/tutorial.ipynb"


@pytest.mark.filterwarnings("ignore::RuntimeWarning:zmq", "ignore::DeprecationWarning:jupyter_client")
def test_the_tutorial_runs():
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(TUTORIAL, as_version=4)
    client = NotebookClient(notebook, timeout=None, kernel_name="python3")
    client.execute(env=os.environ | {"OMP_NUM_THREADS": "1"}, cwd=str(TUTORIAL.parent))
    pictures = [
        output for cell in notebook.cells for output in cell.get("outputs", []) if "image/png" in output.get("data", {})
    ]
    assert len(pictures) == 8


def test_the_tutorial_as_it_is_kept_is_small_and_names_no_machine():
    text = TUTORIAL.read_text()
    assert len(text) < 1_000_000
    assert not any(place in text for place in ("site-packages", "/home/", "/tmp/", "/root/"))
