"""Execute the scripts in notebooks/ and write each as a notebook beside it: python scripts/build_notebook.py [NAME.py].

Cell ids are fixed, and neither times nor start-up messages are kept, so two builds differ only in their results.
"""

import argparse
import base64
import io
import time
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from PIL import Image

METADATA = nbformat.from_dict(
    {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
)
FOLDER = Path(__file__).parents[1] / "notebooks"
TIMEOUT = 1_800
"""Seconds for a single cell."""


def read_source(script: Path) -> nbformat.NotebookNode:
    """Read a script as a notebook without outputs."""
    notebook = jupytext.read(script)
    notebook.metadata = METADATA
    for number, cell in enumerate(notebook.cells, start=1):
        cell.id = f"cell-{number:02}"
        cell.metadata = {}
    return notebook


def execute(notebook: nbformat.NotebookNode, folder: Path) -> nbformat.NotebookNode:
    """Run every cell in a folder.

    Raises:
        nbclient.exceptions.CellExecutionError: if a cell raises an error.
    """
    NotebookClient(notebook, timeout=TIMEOUT, record_timing=False, resources={"metadata": {"path": folder}}).execute()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            # What TensorFlow and the package's log write to stderr depends on the machine.
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    notebook.metadata = METADATA
    return notebook


def shrink_figures(notebook: nbformat.NotebookNode) -> None:
    """Reduce every figure to a palette of 256 colors: a third of the size, without a visible difference."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                picture = Image.open(io.BytesIO(base64.b64decode(output.data["image/png"])))
                smaller = io.BytesIO()
                picture.convert("RGB").quantize(256).save(smaller, "PNG", optimize=True)
                output.data["image/png"] = base64.b64encode(smaller.getvalue()).decode()


def build(script: Path) -> None:
    """Build the notebook of a script, and print how long it took."""
    started = time.perf_counter()
    notebook = execute(read_source(script), FOLDER)
    shrink_figures(notebook)
    nbformat.validate(notebook)
    target = script.with_suffix(".ipynb")
    nbformat.write(notebook, target)
    print(f"{target} in {time.perf_counter() - started:.0f} s, {target.stat().st_size / 1000:.0f} kB")


def main() -> None:
    """Build all notebooks, or those of the scripts that are named."""
    names = sorted(path.name for path in FOLDER.glob("*.py"))
    parser = argparse.ArgumentParser(description="Execute the scripts in notebooks/ and write the notebooks.")
    parser.add_argument("script", nargs="*", type=lambda text: Path(text).name, help="default: " + ", ".join(names))
    chosen = parser.parse_args().script or names
    if unknown := [name for name in chosen if name not in names]:
        parser.error(f"no script {unknown[0]} in {FOLDER}; there are {', '.join(names)}")
    for name in chosen:
        build(FOLDER / name)


if __name__ == "__main__":
    main()
