"""The data of a run is known by its hash: it is found wherever it is, and other data is refused."""

import dataclasses
import errno
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from msgspec.structs import replace

import fmnist
from fmnist.data import download
from fmnist.data.dataset import write_folder
from fmnist.errors import FmnistError
from fmnist.export.onnx import export_run
from fmnist.runs import data as run_data
from fmnist.runs.run import Run, open_run


@pytest.fixture
def moved(copied_run, small_folder, tmp_path):
    """A run whose recorded folder is gone, and the folder where its data is now."""
    change_config(copied_run, data=str(tmp_path / "gone"))
    return open_run(copied_run.folder), shutil.copytree(small_folder, tmp_path / "new")


def change_config(run, **changes):
    path = run.folder / "config.json"
    document = json.loads(path.read_text())
    document["config"].update(changes)
    path.write_text(json.dumps(document))


def test_data_is_found_at_the_given_path_or_in_the_environment(moved, cli, monkeypatch):
    run, folder = moved
    with pytest.raises(FmnistError, match=r"no data folder .*gone"):
        fmnist.evaluate(run)
    assert cli("evaluate", run.folder, "--data", folder)[0] == 0
    assert cli("export", run.folder, "--data", folder)[0] == 0
    code, _, err = cli("export", run.folder)
    assert code == 1
    assert "no data folder" in err
    monkeypatch.setenv("FMNIST_DATA", str(folder))
    assert fmnist.evaluate(run)["num_images"] == 200
    assert export_run(run).epochs_trained == 4


def test_data_is_the_same_in_another_container(moved, small, tmp_path):
    run, _ = moved
    np.savez(
        tmp_path / "data.npz", x_train=small.train_images, y_train=small.train_labels.astype(np.int64),
        x_test=small.test_images, y_test=small.test_labels,
    )  # fmt: skip
    found = run.load_data(tmp_path / "data.npz")
    assert found.sha256 == small.sha256
    assert found.class_names == small.class_names, "the names on record, because the file has none"


def test_fashion_mnist_is_found_by_its_hash_wherever_load_finds_it(copied_run, fashion, monkeypatch):
    path = copied_run.folder / "environment.json"
    environment = copied_run.environment()
    names = [f"Name {index}" for index in range(10)]
    path.write_text(json.dumps(replace(environment, data_sha256=download.FILES, class_names=names).to_json()))
    monkeypatch.setattr(run_data, "load_from", lambda place: fashion if place is None else small_error())
    change_config(copied_run, data="/nowhere")
    assert open_run(copied_run.folder).load_data().class_names == tuple(names)


def small_error():
    raise FmnistError("no data folder")


def test_what_was_tried_is_listed(moved, tmp_path, monkeypatch):
    run, folder = moved
    (folder / "t10k-labels-idx1-ubyte.gz").unlink()
    monkeypatch.setenv("FMNIST_DATA", str(folder))
    with pytest.raises(
        FmnistError, match=r"was not found: no data folder .*gone.*; .*t10k-labels.* is missing"
    ) as caught:
        run.load_data()
    assert "\n" not in str(caught.value)
    assert "--data or FMNIST_DATA" in str(caught.value)


@pytest.mark.parametrize(
    "path",
    [r"\\host\share", "//host/share", r"\\?\UNC\host\share", r"\??\UNC\host\share", r"/\host\share", r"\\.\pipe\x"],
)
def test_a_path_on_another_computer_is_not_opened(copied_run, monkeypatch, path):
    opened = []
    monkeypatch.setattr(run_data, "load_from", opened.append)
    change_config(copied_run, data=path)
    run = open_run(copied_run.folder)
    assert run_data.recorded_path(run) is None
    with pytest.raises(FmnistError, match=r"was not found: it was on another computer \("):
        run.load_data()
    assert opened == []


def test_data_on_another_computer_is_not_replaced_by_fashion_mnist(copied_run, monkeypatch):
    monkeypatch.setattr(run_data, "load_from", lambda _: pytest.fail("loaded"))
    change_config(copied_run, data=r"\\host\share")
    (copied_run.folder / "environment.json").unlink()
    with pytest.raises(FmnistError, match=r"is on another computer \(\\\\host\\share\); copy it"):
        run_data.data_to_resume(open_run(copied_run.folder))


def test_a_place_that_the_system_cannot_read_is_not_the_end(moved, small, monkeypatch):
    run, folder = moved

    def load_from(place):
        if place == run.config.data:
            raise OSError(errno.ESTALE, "Stale file handle", place)
        return load(place)

    load = run_data.load_from
    monkeypatch.setattr(run_data, "load_from", load_from)
    with pytest.raises(FmnistError, match=r"was not found: .*Stale file handle"):
        run.load_data()
    monkeypatch.setenv("FMNIST_DATA", str(folder))
    assert run.load_data().sha256 == small.sha256


@pytest.mark.parametrize("path", ["/data", r"C:\data", "data", r"\data", None])
def test_a_path_on_this_computer_is_opened(small_run, path):
    run = Run(small_run.folder, replace(small_run.config, data=path), small_run.created)
    assert run_data.recorded_path(run) == path


def test_an_interrupted_run_is_resumed_with_its_data_elsewhere(small, small_folder, tmp_path, cli):
    class StopError(Exception):
        pass

    import keras

    class Interrupt(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                raise StopError

    folder = shutil.copytree(small_folder, tmp_path / "old")
    config = fmnist.Config.from_preset("textbook", epochs=2, data=str(folder))
    with pytest.raises(StopError):
        fmnist.train(config, [Interrupt()], folder=tmp_path / "run")
    folder.rename(tmp_path / "new")
    (tmp_path / "new" / "labels.txt").write_text("\n".join(map(str, range(10))))
    code, _, err = cli("train", "--resume", tmp_path / "run", "--data", tmp_path / "new", "--flip")
    assert "--flip, but" in err
    code, _, err = cli("train", "--resume", tmp_path / "run", "--data", tmp_path / "new")
    assert code == 0, err
    run = open_run(tmp_path / "run")
    assert run.status == "finished"
    assert run.manifest().class_names == small.class_names
    assert run.config.data == str(folder)


@pytest.fixture(scope="module")
def trained_in_memory(small, tmp_path_factory):
    """A run on arrays that were never in a file."""
    dataset = fmnist.Dataset(
        small.train_images.reshape(-1, 784), small.train_labels.astype(np.int64), small.test_images, small.test_labels,
        small.class_names,
    )  # fmt: skip
    config = fmnist.Config.from_preset("textbook", epochs=1)
    return dataset, fmnist.train(config, dataset=dataset, folder=tmp_path_factory.mktemp("runs") / "memory")


def test_a_data_set_in_memory_is_trained_on_and_evaluated(trained_in_memory, small, tmp_path):
    dataset, run = trained_in_memory
    assert run.config.data is None
    assert run.environment().data_sha256 == small.sha256
    assert fmnist.evaluate(run, dataset=dataset)["num_images"] == 200
    with pytest.raises(
        FmnistError, match=r"was not found: it was in memory\. .*; in Python, pass the data itself as dataset="
    ):
        fmnist.evaluate(run)
    write_folder(dataset, tmp_path / "data")
    assert run.load_data(tmp_path / "data").sha256 == small.sha256


def test_other_data_in_memory_is_refused(trained_in_memory, small):
    _, run = trained_in_memory
    other = dataclasses.replace(small, test_labels=small.test_labels[::-1])
    with pytest.raises(FmnistError, match=r"is not the data that .* was trained on"):
        fmnist.evaluate(run, dataset=other)


def test_changed_arrays_have_another_hash(small):
    assert dataclasses.replace(small, train_images=small.train_images[::-1]).sha256 != small.sha256
    assert dataclasses.replace(small, class_names=small.class_names[::-1]).sha256 == small.sha256


@pytest.mark.slow
def test_a_data_set_in_memory_is_exported_after_training_on_jax(small_folder, tmp_path):
    """The export is done by another process, which gets the data in a temporary folder."""
    script = (
        "import dataclasses, sys, fmnist\n"
        "data = dataclasses.replace(fmnist.load(sys.argv[1]), path=None)\n"
        "run = fmnist.train(fmnist.Config.from_preset('textbook', epochs=1), dataset=data, folder=sys.argv[2])\n"
        "print(fmnist.evaluate(run, dataset=data)['num_images'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, small_folder, tmp_path / "run"],
        env={**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == "200"
