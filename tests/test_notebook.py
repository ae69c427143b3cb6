"""The notebooks: executed as written, with the cells of their sources.

`1-build` needs few packages and explains missing data; `2-look-inside` shows what each trick of `fast` brings.
"""

import ast
import copy
import importlib.util
import json
import os
import re
import sys
from pathlib import Path

import keras
import nbformat
import pytest
from helpers import write_folder

from fmnist.config import PRESETS
from fmnist.models.networks import build_network

ROOT = Path(__file__).parent.parent
SCRIPTS = sorted((ROOT / "notebooks").glob("*.py"))
NAMES = [path.stem for path in SCRIPTS]
BUILD_FIGURES = 15
LOOK_INSIDE_FIGURES = 12


@pytest.fixture(scope="module")
def build_notebook():
    spec = importlib.util.spec_from_file_location("build_notebook", ROOT / "scripts" / "build_notebook.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def sources(build_notebook):
    return {path.stem: build_notebook.read_source(path) for path in SCRIPTS}


@pytest.fixture(scope="module")
def executed():
    return {path.stem: nbformat.read(path.with_suffix(".ipynb"), as_version=4) for path in SCRIPTS}


def outputs_of(notebook):
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def texts_of(notebook):
    return [output.text for output in outputs_of(notebook) if output.output_type == "stream"]


def figures_of(notebook):
    return [output for output in outputs_of(notebook) if "image/png" in output.get("data", {})]


@pytest.mark.parametrize("name", NAMES)
def test_executed_notebook_has_the_cells_of_its_source(sources, executed, name):
    expected = [(cell.id, cell.cell_type, cell.source) for cell in sources[name].cells]
    assert [(cell.id, cell.cell_type, cell.source) for cell in executed[name].cells] == expected


@pytest.mark.parametrize("name", NAMES)
def test_executed_notebook_is_complete_and_the_same_on_every_machine(executed, name):
    cells = [cell for cell in executed[name].cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert not any(cell.metadata for cell in cells)
    outputs = outputs_of(executed[name])
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
    assert not re.search(r"/(root|home|tmp|Users)/", "".join(texts_of(executed[name])))


def test_outputs_of_look_inside(executed):
    texts = "".join(texts_of(executed["2-look-inside"]))
    assert len(figures_of(executed["2-look-inside"])) == LOOK_INSIDE_FIGURES
    assert "Error" not in texts
    assert re.search(r"^10,000 test images, accuracy 9[34]\.\d\d%", texts, re.MULTILINE)
    assert "accepted: False" in texts
    ablation = json.loads((ROOT / "benchmarks" / "results" / "ablation.json").read_text())
    for trick in ablation["tricks"]:
        low, high = trick["gain_interval_95"]
        assert f"{trick['gain_mean']:+10.2f}  ({low:+.2f} to {high:+.2f})" in texts


def test_outputs_of_build(executed):
    texts = "".join(texts_of(executed["1-build"]))
    assert len(figures_of(executed["1-build"])) == BUILD_FIGURES
    assert len(re.findall("^Error: ValueError: ", texts, re.MULTILINE)) == 2
    assert re.search(r"^test accuracy +0\.(89|90|91)", texts, re.MULTILINE)
    assert len(re.findall(r"^\S.* precision +\d+\.\d%   recall +\d+\.\d%$", texts, re.MULTILINE)) == 10


@pytest.mark.parametrize("name", NAMES)
def test_every_figure_follows_a_text_that_describes_it(executed, name):
    for before, cell in zip(executed[name].cells, executed[name].cells[1:], strict=False):
        if cell.cell_type == "code" and any("image/png" in output.get("data", {}) for output in cell.outputs):
            assert before.cell_type == "markdown" or "summar" in cell.source or "transform" in before.source


def test_build_imports_keras_matplotlib_numpy_and_the_standard_library_only(sources):
    code = "\n".join(cell.source for cell in sources["1-build"].cells if cell.cell_type == "code")
    nodes = list(ast.walk(ast.parse(code)))  # which also refuses magic commands
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in nodes if isinstance(node, ast.ImportFrom)]
    roots = {name.split(".")[0] for name in names}
    assert roots - sys.stdlib_module_names == {"keras", "matplotlib", "numpy"}
    assert not {"importlib", "subprocess"} & roots
    assert not [node for node in nodes if isinstance(node, ast.Name) and node.id in {"__import__", "get_ipython"}]


def test_build_has_six_exercises_with_results(sources):
    text = sources["1-build"].cells[-1].source
    assert len(re.findall(r"^\d\. \*\*.*\*Result: .+\*$", text, re.MULTILINE)) == 6


def test_build_says_what_to_do_without_data(sources, keras_home, capsys):
    cells = sources["1-build"].cells
    (cell,) = [cell for cell in cells if cell.source.startswith('if "x_train" in globals()')]
    assert "load_data()" in cells[cells.index(cell) - 2].source
    exec(cell.source, {"os": os, "Path": Path})
    printed = capsys.readouterr().out
    assert str(keras_home) in printed
    assert all(word in printed for word in ("Kaggle", "apt install dataset-fashion-mnist", "https://", "NameError"))


def test_building_takes_the_names_of_scripts(build_notebook, monkeypatch, capsys):
    built = []
    monkeypatch.setattr(build_notebook, "build", lambda script: built.append(script.name))
    for arguments in ([], ["1-build.py"], ["notebooks/2-look-inside.py"]):
        monkeypatch.setattr(sys, "argv", ["build_notebook.py", *arguments])
        build_notebook.main()
    assert built == [*[path.name for path in SCRIPTS], "1-build.py", "2-look-inside.py"]
    monkeypatch.setattr(sys, "argv", ["build_notebook.py", "other.py"])
    with pytest.raises(SystemExit):
        build_notebook.main()
    assert "no script other.py" in capsys.readouterr().err


def test_network_of_build_is_that_of_the_textbook_preset(sources, capsys):
    (cell,) = [cell for cell in sources["1-build"].cells if "def build_cnn" in cell.source]
    namespace = {"keras": keras}
    exec(cell.source, namespace)
    preset = build_network(PRESETS["textbook"], 10, "float32")

    def describe(network):
        """The layers without their names and seeds."""
        layers = [(type(layer).__name__, {**layer.get_config(), "name": ""}) for layer in network.layers]
        return [(kind, re.sub(r"'(name|seed)': [^,}]*", "", str(config))) for kind, config in layers]

    assert describe(namespace["network"]) == describe(preset)
    assert namespace["network"].count_params() == preset.count_params() == 34_826
    assert capsys.readouterr().out


@pytest.fixture
def small_in_keras_home(small, keras_home):
    """The small data set where Keras looks for Fashion-MNIST."""
    write_folder(keras_home, (small.train_images, small.train_labels), (small.test_images, small.test_labels))


@pytest.mark.slow
def test_look_inside_runs_on_a_small_data_set(build_notebook, sources, small_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("FMNIST_DATA", str(small_folder))
    for name in ("docs", "benchmarks"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "notebooks").mkdir()
    notebook = build_notebook.execute(copy.deepcopy(sources["2-look-inside"]), tmp_path / "notebooks")
    assert all(cell.execution_count for cell in notebook.cells if cell.cell_type == "code")
    assert any(text.startswith("200 test images") for text in texts_of(notebook))
    assert len(figures_of(notebook)) == LOOK_INSIDE_FIGURES
    assert len(list((tmp_path / "notebooks" / "runs").glob("fast-*/report.html"))) == 1


@pytest.mark.slow
def test_build_runs_on_a_small_data_set(build_notebook, sources, small_in_keras_home, tmp_path):
    notebook = build_notebook.execute(copy.deepcopy(sources["1-build"]), tmp_path)
    assert all(cell.execution_count for cell in notebook.cells if cell.cell_type == "code")
    assert "1,200 training images and 200 test images are loaded.\n" in texts_of(notebook)
    assert len(figures_of(notebook)) == BUILD_FIGURES
