"""The notebook: executed as it is written, equal to its source, and its network is the preset."""

import copy
import importlib.util
import re
from pathlib import Path

import keras
import nbformat
import pytest
from conftest import write_folder

from fmnist.config import PRESETS
from fmnist.models import networks as model
from fmnist.training import train as training

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"


@pytest.fixture(scope="module")
def build():
    spec = importlib.util.spec_from_file_location("build", NOTEBOOKS.parent / "scripts" / "build_notebook.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def source(build):
    return build.read_source()


@pytest.fixture(scope="module")
def executed():
    return nbformat.read(NOTEBOOKS / "walkthrough.ipynb", as_version=4)


def test_the_executed_notebook_has_the_cells_of_its_source(source, executed):
    expected = [(cell.id, cell.cell_type, cell.source) for cell in source.cells]
    assert [(cell.id, cell.cell_type, cell.source) for cell in executed.cells] == expected


def test_the_executed_notebook_was_run_and_without_errors(executed):
    outputs = [output for cell in executed.cells for output in cell.get("outputs", [])]
    assert not [output for output in outputs if output.output_type == "error"]
    assert len([output for output in outputs if "image/png" in output.get("data", {})]) == 14
    texts = [output.text for output in outputs if output.output_type == "stream"]
    errors = [text for text in texts if text.startswith("Error: ")]
    assert [error.split(";")[0] for error in errors] == ["Error: no data folder a/folder/that/does/not/exist"]
    assert any(re.search(r"^10,000 test pictures: 9\d\.\d\d% right", text) for text in texts)


def test_its_figures_are_described_by_the_text_around_them(executed):
    for before, cell in zip(executed.cells, executed.cells[1:], strict=False):
        if cell.cell_type == "code" and any("image/png" in output.get("data", {}) for output in cell.outputs):
            assert before.cell_type == "markdown" or "summar" in cell.source or "transform" in before.source


def run_cells(source, *beginnings):
    """Run the cells that contain these texts, in a namespace of their own."""
    namespace = {"keras": keras}
    for text in beginnings:
        (cell,) = [cell for cell in source.cells if cell.cell_type == "code" and text in cell.source]
        exec(cell.source, namespace)
    return namespace["network"]


def test_the_network_written_out_is_the_textbook_preset(source, capsys):
    written_out = run_cells(source, "keras.Sequential(", "network.compile(")
    preset = model.build(PRESETS["textbook"], 10, "float32")

    def described(network):
        return [
            (
                type(layer).__name__,
                {name: value for name, value in layer.get_config().items() if name != "name"},
            )
            for layer in network.layers
        ]

    assert described(written_out) == described(preset)
    assert written_out.count_params() == preset.count_params() == 34_826
    optimizer = training.make_optimizer(PRESETS["textbook"], num_steps=1)
    assert {**written_out.optimizer.get_config(), "name": ""} == {**optimizer.get_config(), "name": ""}
    assert written_out.loss == "categorical_crossentropy"
    for name, value in model.get_weights(preset).items():
        layer, variable = name.split("/")
        index = [one.name for one in preset.layers].index(layer)
        (found,) = [one for one in written_out.layers[index].weights if one.name == variable]
        assert (keras.ops.convert_to_numpy(found) == value).all()
    assert capsys.readouterr().out


def test_it_runs_from_top_to_bottom(build, source, small, small_folder, keras_home, tmp_path, monkeypatch):
    """In its smoke form: every cell as it is, over a small part of the data."""
    write_folder(keras_home, (small.train_images, small.train_labels), (small.test_images, small.test_labels))
    monkeypatch.setenv("FMNIST_DATA", str(small_folder))
    notebook = build.execute(copy.deepcopy(source), tmp_path)
    assert all(cell.execution_count for cell in notebook.cells if cell.cell_type == "code")
    texts = [output.text for cell in notebook.cells for output in cell.get("outputs", []) if "text" in output]
    assert any(text.startswith("200 test pictures") for text in texts)
    assert len(list((tmp_path / "runs").glob("fast-*/report.html"))) == 1
