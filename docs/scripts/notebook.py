"""Execute the tutorial's notebook in the current folder; `--write` keeps its outputs in the file.

python docs/scripts/notebook.py [--epochs 1] [--write]
"""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[1] / "tutorials" / "first-light-detector.ipynb"


def execute(epochs: int | None, folder: Path) -> nbformat.NotebookNode:
    """Return the executed notebook.

    Args:
        epochs: Replaces the value of the cell tagged `parameters`; None keeps it.
        folder: Working folder of the kernel.

    Raises:
        nbclient.exceptions.CellExecutionError: If a cell fails.
    """
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    if epochs is not None:
        (cell,) = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
        cell.source, replaced = re.subn(r"EPOCHS = \d+", f"EPOCHS = {epochs}", cell.source)
        assert replaced == 1
    os.environ["YOLO_VERBOSE"] = "false"  # only what the cells print: no paths and no progress bars
    return NotebookClient(notebook, timeout=1800, resources={"metadata": {"path": str(folder)}}).execute()


def main() -> None:
    """Execute the notebook and print or keep its outputs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    notebook = execute(given.epochs, Path.cwd())
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # times of day
        print(*(output.get("text", "") for output in cell.get("outputs", [])), sep="", end="")
    if given.write:
        nbformat.write(notebook, NOTEBOOK)


if __name__ == "__main__":
    main()
