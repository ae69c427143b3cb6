"""The notebook: executed as written, the same cells as its source, and the network of the textbook preset."""

import copy
import importlib.util
import re
from pathlib import Path

import keras
import nbformat
import pytest
from helpers import write_folder

from fmnist.config import PRESETS
from fmnist.models.networks import build_network
from fmnist.models.weights import get_weights
from fmnist.training.train import make_optimizer

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def build_notebook():
    spec = importlib.util.spec_from_file_location("build_notebook", ROOT / "scripts" / "build_notebook.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def source(build_notebook):
    return build_notebook.read_source()


@pytest.fixture(scope="module")
def executed():
    return nbformat.read(ROOT / "notebooks" / "walkthrough.ipynb", as_version=4)


def test_executed_notebook_has_the_cells_of_its_source(source, executed):
    expected = [(cell.id, cell.cell_type, cell.source) for cell in source.cells]
    assert [(cell.id, cell.cell_type, cell.source) for cell in executed.cells] == expected


def test_executed_notebook_has_outputs_and_no_errors(executed):
    outputs = [output for cell in executed.cells for output in cell.get("outputs", [])]
    assert not [output for output in outputs if output.output_type == "error"]
    assert len([output for output in outputs if "image/png" in output.get("data", {})]) == 14
    texts = [output.text for output in outputs if output.output_type == "stream"]
    errors = [text for text in texts if text.startswith("Error: ")]
    assert [error.split(";")[0] for error in errors] == ["Error: no data folder a/folder/that/does/not/exist"]
    assert any(re.search(r"^10,000 test pictures: 9\d\.\d\d% right", text) for text in texts)


def test_every_figure_follows_a_text_that_describes_it(executed):
    for before, cell in zip(executed.cells, executed.cells[1:], strict=False):
        if cell.cell_type == "code" and any("image/png" in output.get("data", {}) for output in cell.outputs):
            assert before.cell_type == "markdown" or "summar" in cell.source or "transform" in before.source


def run_cells(source, *texts):
    """Run the cells that contain these texts, in a new namespace, and return its network."""
    namespace = {"keras": keras}
    for text in texts:
        (cell,) = [cell for cell in source.cells if cell.cell_type == "code" and text in cell.source]
        exec(cell.source, namespace)
    return namespace["network"]


def test_network_of_the_notebook_is_that_of_the_textbook_preset(source, capsys):
    network = run_cells(source, "keras.Sequential(", "network.compile(")
    preset = build_network(PRESETS["textbook"], 10, "float32")

    def describe(network):
        """The layers without their names and seeds."""
        return [
            (type(layer).__name__, re.sub(r"'(name|seed)': [^,}]*", "", str({**layer.get_config(), "name": ""})))
            for layer in network.layers
        ]

    assert describe(network) == describe(preset)
    assert network.count_params() == preset.count_params() == 34_826
    optimizer = make_optimizer(PRESETS["textbook"], num_steps=1)
    assert {**network.optimizer.get_config(), "name": ""} == {**optimizer.get_config(), "name": ""}
    assert network.loss == "categorical_crossentropy"
    for name, value in get_weights(preset).items():
        layer, variable = name.split("/")
        index = [preset_layer.name for preset_layer in preset.layers].index(layer)
        (found,) = [weight for weight in network.layers[index].weights if weight.name == variable]
        assert (keras.ops.convert_to_numpy(found) == value).all()
    assert capsys.readouterr().out


@pytest.mark.slow
def test_notebook_runs_on_a_small_data_set(
    build_notebook, source, small, small_folder, keras_home, tmp_path, monkeypatch
):
    write_folder(keras_home, (small.train_images, small.train_labels), (small.test_images, small.test_labels))
    monkeypatch.setenv("FMNIST_DATA", str(small_folder))
    notebook = build_notebook.execute(copy.deepcopy(source), tmp_path)
    assert all(cell.execution_count for cell in notebook.cells if cell.cell_type == "code")
    texts = [output.text for cell in notebook.cells for output in cell.get("outputs", []) if "text" in output]
    assert any(text.startswith("200 test pictures") for text in texts)
    assert len(list((tmp_path / "runs").glob("fast-*/report.html"))) == 1
