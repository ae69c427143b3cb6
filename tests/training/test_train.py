"""Training on a small part of the real data: the files of a run, reproducibility, other backends and environments."""

import dataclasses
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from msgspec.structs import replace

import fmnist
from fmnist.config import PRESETS
from fmnist.data.dataset import evenly_spaced
from fmnist.errors import FmnistError
from fmnist.files import lock_folder, sha256
from fmnist.runs.run import open_run
from fmnist.training import train as training


@pytest.fixture
def config(small_folder):
    """Preset `textbook` with one epoch on the small data set."""
    return fmnist.Config.from_preset("textbook", epochs=1, data=str(small_folder))


def test_finished_run_has_all_files(small_run):
    assert {path.name for path in small_run.folder.iterdir()} == {
        "config.json", "environment.json", "history.csv", "curves.png",
        "weights.safetensors", "model.onnx", "manifest.json",
    }  # fmt: skip
    assert small_run.status == "finished"
    assert small_run.environment().data_sha256 == fmnist.load(small_run.config.data).sha256
    manifest = small_run.manifest()
    assert manifest.sha256 == {
        path.name: sha256(path.read_bytes()) for path in (small_run.weights_path, small_run.onnx_path)
    }
    assert manifest.epochs_trained == 4


def test_training_improves_the_metrics(small_run):
    history = small_run.history()
    assert [row["epoch"] for row in history] == [1, 2, 3, 4]
    assert history[-1]["accuracy"] > history[0]["accuracy"] + 0.1
    assert history[-1]["loss"] < history[0]["loss"]
    for row in history:
        assert all(0 <= row[name] <= 1 for name in ("accuracy", "precision", "recall", "val_accuracy"))


@pytest.mark.slow
def test_same_seed_gives_the_same_weights(config, small, tmp_path, no_export):
    first, same, other = (
        fmnist.train(replace(config, seed=seed), dataset=small, folder=tmp_path / str(number)).weights_path.read_bytes()
        for number, seed in enumerate((5, 5, 6))
    )
    assert first == same
    assert first != other


def test_full_training_has_no_validation(config, small, tmp_path, no_export):
    run = fmnist.train(replace(config, full=True), dataset=small, folder=tmp_path / "full")
    (row,) = run.history()
    assert row["val_accuracy"] is None
    assert row["accuracy"] is not None


@pytest.mark.parametrize("floatx", ["float16", "float64"])
def test_settings_of_keras_change_nothing(config, small, tmp_path, no_export, floatx):
    """An old keras.json names another type of numbers, or the other order of axes."""
    expected = fmnist.train(config, dataset=small, folder=tmp_path / "plain")
    keras.config.set_floatx(floatx)
    keras.config.set_image_data_format("channels_first")
    try:
        run = fmnist.train(config, dataset=small, folder=tmp_path / floatx)
        assert (keras.config.floatx(), keras.config.image_data_format()) == (floatx, "channels_first")
    finally:
        keras.config.set_floatx("float32")
        keras.config.set_image_data_format("channels_last")
    assert sha256(run.weights_path.read_bytes()) == sha256(expected.weights_path.read_bytes())


def test_a_preset_can_be_named(small, tmp_path, no_export, monkeypatch):
    monkeypatch.setitem(PRESETS, "quick", replace(PRESETS["textbook"], preset="quick", epochs=1))
    assert fmnist.train("quick", dataset=small, folder=tmp_path / "run").config.preset == "quick"
    with pytest.raises(FmnistError, match="unknown preset 'fats'; expected one of"):
        fmnist.train("fats", dataset=small)


WRONG_ARGUMENTS = {
    "settings": (lambda: fmnist.train({"preset": "fast"}), "the configuration is a value of type dict; expected the"),
    "no configuration": (lambda: fmnist.train(None), "the configuration is None; expected the name of a preset"),
    "a preset's number": (lambda: fmnist.Config.from_preset(["fast"]), r"unknown preset \['fast'\]; expected one of"),
    "two arrays": (lambda: fmnist.train("fast", dataset=(1, 2)), "dataset is a value of type tuple; expected a fmnist"),
    "an array": (lambda: fmnist.train("fast", dataset=np.zeros((2, 28, 28))), "dataset is a value of type ndarray"),
    "a folder's number": (lambda: fmnist.train("fast", folder=3), "folder is a value of type int; expected a path"),
    "evaluate a number": (lambda: fmnist.evaluate(3), "the run is a value of type int; expected a path"),
    "evaluate nothing": (lambda: fmnist.evaluate(None), "the run is None; expected a path"),
    "resume a number": (lambda: fmnist.resume(3), "the run is a value of type int"),
    "open a number": (lambda: fmnist.open_run(3), "the run is a value of type int"),
    "network of a number": (lambda: fmnist.load_model(3), "the run is a value of type int"),
    "classifier of a number": (lambda: fmnist.Classifier.load(3), "the run is a value of type int"),
    "load a number": (lambda: fmnist.load(3), "the path of the data is a value of type int"),
}


@pytest.mark.parametrize("case", WRONG_ARGUMENTS)
def test_arguments_of_another_type_are_one_line(case, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    call, expected = WRONG_ARGUMENTS[case]
    with pytest.raises(FmnistError, match=expected) as caught:
        call()
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_finished_run_is_evaluated_with_suitable_arguments_only(small_run):
    for arguments, expected in (
        ({"dataset": (1, 2)}, "dataset is a value of type tuple"),
        ({"seed": -1}, "seed is -1; expected a whole number from 0"),
        ({"seed": "x"}, "seed is 'x'"),
    ):
        with pytest.raises(FmnistError, match=expected):
            fmnist.evaluate(small_run, **arguments)


@pytest.mark.parametrize("event", ["on_train_begin", "on_epoch_begin", "on_train_batch_end", "on_epoch_end"])
def test_a_callback_that_fails_leaves_no_run_without_an_epoch(config, small, tmp_path, event):
    def fail(*_, **__):
        raise KeyError("mine")

    (tmp_path / "there").mkdir()
    callback = keras.callbacks.LambdaCallback()
    setattr(callback, event, fail)
    for folder in ("new", "there"):
        with pytest.raises(KeyError, match="mine"):
            fmnist.train(config, [callback], dataset=small, folder=tmp_path / folder)
    if event == "on_epoch_end":  # the epoch can be resumed
        assert open_run(tmp_path / "new").checkpoint_paths()
    else:
        assert [path.name for path in tmp_path.rglob("*")] == ["there"]


@pytest.mark.parametrize(("verbose", "is_shown"), [(True, True), (False, False), (None, False)])
def test_progress_is_shown_where_a_person_watches(config, small, tmp_path, no_export, verbose, is_shown, capsys):
    fmnist.train(config, dataset=small, folder=tmp_path / "run", verbose=verbose)
    assert capsys.readouterr().err.startswith("epoch 1/1  loss") == is_shown


def test_folder_that_is_not_empty_is_refused(config, small, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FmnistError, match="is not empty; expected a new folder"):
        fmnist.train(config, dataset=small, folder=tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.slow
def test_training_needs_less_than_two_and_a_half_gigabytes(fashion, tmp_path):
    """The process trains on the whole data set and exports. Memory does not increase with the number of epochs."""
    script = (
        "import resource, subprocess, sys\n"
        "subprocess.run([sys.executable, '-m', 'fmnist', *sys.argv[1:]], check=True, capture_output=True)\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    command = [sys.executable, "-c", script, "train", "--epochs", "1", "--run", str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert fashion.is_fashion_mnist
    assert 500_000 < int(done.stdout) < 2_500_000  # kB


@pytest.mark.slow
def test_tensorboard_logs_and_curves_without_a_display(small_folder, tmp_path):
    """The process has no display, and the environment names a Matplotlib backend that needs one."""
    environment = {**os.environ, "MPLBACKEND": "TkAgg"}
    environment.pop("DISPLAY", None)
    command = [
        sys.executable, "-m", "fmnist", "train", "--preset", "textbook", "--epochs", "1", "--data", str(small_folder),
        "--run", str(tmp_path / "run"), "--tensorboard", "--json",
    ]  # fmt: skip
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "curves.png").exists()
    assert list((tmp_path / "run" / "tensorboard").rglob("events.out.tfevents.*"))


@pytest.mark.slow
def test_jax_trains_and_tensorflow_exports(small_folder, tmp_path):
    """A process has one backend, so the export is done by another process."""
    command = [
        sys.executable, "-m", "fmnist", "train", "--backend", "jax", "--epochs", "4", "--data", str(small_folder),
        "--run", str(tmp_path / "run"),
    ]  # fmt: skip
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Exported" not in done.stderr
    run = open_run(tmp_path / "run")
    assert run.environment().backend == "jax"
    assert run.history()[-1]["accuracy"] > run.history()[0]["accuracy"]
    assert run.manifest().train_seconds > 0
    assert fmnist.load_model(run).count_params() == run.manifest().parameters


def test_full_training_on_sorted_data_whitens_on_images_of_all_classes(config, small, tmp_path, monkeypatch):
    order = np.argsort(small.train_labels, kind="stable")
    images = small.train_images[order]
    dataset = dataclasses.replace(small, train_images=images, train_labels=small.train_labels[order])
    used = []
    monkeypatch.setattr(training, "NUM_WHITENING_IMAGES", 100)
    monkeypatch.setattr(training, "fit_whitening", lambda _, images: used.append(images))
    monkeypatch.setattr(training, "export", lambda *_: None)
    fmnist.train(replace(config, full=True), dataset=dataset, folder=tmp_path / "run")
    assert (used[0] == images[evenly_spaced(len(images), 100)]).all()


def test_the_lock_is_held_from_start_to_export(config, small, tmp_path, monkeypatch):
    attempts = []

    def export(run, *_):
        with pytest.raises(FmnistError, match="is in use by another fmnist process"), lock_folder(run.folder):
            pass
        attempts.append(run.folder.name)

    monkeypatch.setattr(training, "export", export)
    run = fmnist.train(config, dataset=small, folder=tmp_path / "run")
    fmnist.resume(run, dataset=small)  # exports only
    assert attempts == ["run", "run"]


def imbalanced(small):
    """The small data set with two classes, of which one has a tenth of the images."""
    is_kept = (small.train_labels == 0) | ((small.train_labels == 6) & (np.arange(len(small.train_labels)) % 12 == 0))
    is_tested = np.isin(small.test_labels, (0, 6))
    return fmnist.Dataset(
        small.train_images[is_kept], small.train_labels[is_kept] == 6, small.test_images[is_tested],
        small.test_labels[is_tested] == 6, ("T-shirt", "Shirt"),
    )  # fmt: skip


def test_training_resolves_what_depends_on_data_and_device(small, tmp_path, monkeypatch):
    """Its images are not Fashion-MNIST, but are taken for it here."""
    monkeypatch.setattr(type(small), "is_fashion_mnist", True)
    monkeypatch.setattr(training, "is_on_gpu", lambda: True)
    monkeypatch.setattr(training, "fit", lambda run, *_: pytest.fail(str(run.config.batch_size)))
    with pytest.raises(pytest.fail.Exception, match="1000"):
        fmnist.train(fmnist.Config.from_preset("fast"), dataset=small, folder=tmp_path / "run")


def test_imbalance_is_a_warning_and_class_weights_raise_the_recall_of_the_rare_class(small, tmp_path, caplog):
    dataset = imbalanced(small)
    config = fmnist.Config.from_preset("fast", epochs=8, batch_size=16, precision="float32")
    recalls = []
    for class_weights in (False, True):
        run = fmnist.train(
            replace(config, class_weights=class_weights), dataset=dataset, folder=tmp_path / str(class_weights)
        )
        assert run.config.flip is False
        validation = run.manifest().validation
        assert 0 <= validation.recall_macro <= 1
        recalls.append(fmnist.evaluate(run, dataset=dataset)["recall_macro"])
    rare = int((dataset.train_labels == 1).sum())
    message = f"T-shirt has 120 training images and Shirt has {rare}: judge the network by the mean recall"
    assert [message in record.getMessage() for record in caplog.records if "judge" in record.getMessage()] == [True] * 2
    assert caplog.text.count("--class-weights") == 1
    assert recalls[1] > recalls[0]


def test_a_step_is_traced_once(small, tmp_path, no_export):
    traced = []

    class Counting(keras.layers.Layer):
        def call(self, inputs, training=False):
            if training:
                traced.append(inputs.shape)
            return inputs

    def network(num_classes):
        stack = [Counting(), keras.layers.Flatten(), keras.layers.Dense(num_classes, activation="softmax")]
        return keras.Sequential([keras.Input((28, 28, 1)), *stack])

    fmnist.train("fast", network=network, dataset=small, folder=tmp_path / "run")
    assert len(traced) == 1
