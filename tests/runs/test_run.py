"""Opening runs whose files are missing or incomplete: every use works, or fails with one line."""

import json
import shutil

import pytest
from safetensors.numpy import load_file, save_file

import fmnist
from fmnist.cli.train import training_summary
from fmnist.errors import FmnistError
from fmnist.export.calibration import find_calibration_run
from fmnist.models.weights import load_model

DOCUMENTS = {"config.json": "config", "environment.json": None, "manifest.json": None}
USES = {
    "status": lambda run: run.status,
    "environment": lambda run: run.environment(),
    "history": lambda run: run.history(),
    "classifier": fmnist.Classifier.load,
    "network": load_model,
    "summary": training_summary,
    "calibration": lambda run: find_calibration_run(run, {}),
}


def use_all(folder):
    """Use a run in every way; return the messages of the errors. Any other exception fails the test."""
    messages = []
    for use in USES.values():
        try:
            use(fmnist.open_run(folder))
        except FmnistError as error:
            messages.append(str(error))
    return messages


def test_a_complete_run_can_be_used(small_run):
    assert use_all(small_run.folder) == []


@pytest.mark.parametrize(
    "name", ["config.json", "environment.json", "history.csv", "manifest.json", "model.onnx", "weights.safetensors"]
)
@pytest.mark.parametrize("content", [None, b"", b"\0" * 100])
def test_a_missing_or_empty_file_is_named_in_one_line(copied_run, name, content):
    path = copied_run.folder / name
    path.unlink() if content is None else path.write_bytes(content)
    messages = use_all(copied_run.folder)
    assert messages
    for message in messages:
        assert "\n" not in message
        assert str(copied_run.folder) in message


def fields(document, path=()):
    """Every field of a document, as a path of keys."""
    for name, value in document.items():
        yield (*path, name)
        if isinstance(value, dict):
            yield from fields(value, (*path, name))


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_missing_or_null_field_is_one_line(copied_run, name):
    path = copied_run.folder / name
    original = json.loads(path.read_text())
    for keys in fields(original):
        for change in ("remove", "null"):
            document = json.loads(path.read_text())
            parent = document
            for key in keys[:-1]:
                parent = parent[key]
            if change == "remove":
                del parent[keys[-1]]
            else:
                parent[keys[-1]] = None
            path.write_text(json.dumps(document))
            assert all("\n" not in message for message in use_all(copied_run.folder)), keys
            path.write_text(json.dumps(original))


def test_weights_without_an_array_are_one_line(copied_run):
    (copied_run.folder / "manifest.json").unlink()
    original = load_file(copied_run.weights_path)
    for name in original:
        save_file({other: values for other, values in original.items() if other != name}, copied_run.weights_path)
        with pytest.raises(FmnistError, match=r"does not fit the network|holds no weights"):
            load_model(copied_run)


def test_resuming_a_finished_run_without_its_history_is_one_line(cli, small_run, tmp_path):
    folder = shutil.copytree(small_run.folder, tmp_path / "my run")
    (folder / "history.csv").unlink()
    code, _, err = cli("train", "--resume", folder)
    assert code == 1
    assert err == f"fmnist: error: {folder}/history.csv is missing; restore it, or train again into a new folder\n"
