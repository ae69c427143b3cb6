"""Training on a small part of the real data: what it leaves, what it repeats, what cannot stop it."""

import dataclasses
import json
import math
import os
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest

import fmnist
from fmnist import locks, plots
from fmnist.data import dataset as data
from fmnist.data import formats as idx
from fmnist.errors import FmnistError
from fmnist.export import onnx as export
from fmnist.models import networks as model
from fmnist.runs import run as runs
from fmnist.training import augment
from fmnist.training import photo_augment as photolike
from fmnist.training import train as training


@pytest.fixture
def quick(small_folder):
    """Textbook, one epoch, small data."""
    return fmnist.Config.from_preset("textbook", epochs=1, data=str(small_folder))


def test_a_finished_run_has_every_file(small_run):
    assert {path.name for path in small_run.folder.iterdir()} == {
        "config.json", "environment.json", "history.csv", "curves.png",
        "weights.safetensors", "model.onnx", "manifest.json",
    }  # fmt: skip
    assert small_run.is_finished
    assert small_run.environment()["data_sha256"] == fmnist.load(small_run.config.data).sha256
    manifest = small_run.manifest()
    for name in ("weights.safetensors", "model.onnx"):
        assert manifest["sha256"][name] == idx.sha256((small_run.folder / name).read_bytes())
    assert manifest["epochs_trained"] == 4


def test_it_learns(small_run):
    history = small_run.history()
    assert [row["epoch"] for row in history] == [1, 2, 3, 4]
    assert history[-1]["accuracy"] > history[0]["accuracy"] + 0.1
    assert history[-1]["loss"] < history[0]["loss"]
    for row in history:
        assert all(0 <= row[name] <= 1 for name in ("accuracy", "precision", "recall", "val_accuracy"))


def test_files_are_as_readable_as_any(small_run):
    """A temporary file belongs to its owner alone; what it becomes must not."""
    for path in small_run.folder.iterdir():
        assert path.stat().st_mode & 0o444 == 0o444, path


def test_the_same_seed_gives_the_same_weights(quick, small, tmp_path):
    hashes = []
    for number, seed in enumerate((5, 5, 6)):
        run = fmnist.train(dataclasses.replace(quick, seed=seed), dataset=small, folder=tmp_path / str(number))
        hashes.append(run.manifest()["sha256"]["weights.safetensors"])
    assert hashes[0] == hashes[1]
    assert hashes[0] != hashes[2]


def test_a_full_run_has_no_validation_and_says_that_it_is_not_calibrated(quick, small, tmp_path, caplog):
    run = fmnist.train(dataclasses.replace(quick, full=True), dataset=small, folder=tmp_path / "full")
    (row,) = run.history()
    assert row["val_accuracy"] is None
    assert row["accuracy"] is not None
    assert run.manifest()["calibrated_by"] is None
    assert "not calibrated" in caplog.text


def test_a_full_run_takes_its_temperature_from_the_split_run(quick, small, tmp_path):
    on_split = fmnist.train(quick, dataset=small, folder=tmp_path / "split")
    full = fmnist.train(dataclasses.replace(quick, full=True, seed=1), dataset=small, folder=tmp_path / "full")
    assert full.manifest()["calibrated_by"] == "split"
    assert full.manifest()["temperature"] == on_split.manifest()["temperature"]


SPOILT_TWINS = {
    "its environment is no JSON": lambda run: (run.folder / "environment.json").write_text("{"),
    "its graph is cut in half": lambda run: run.onnx_path.write_bytes(run.onnx_path.read_bytes()[:1000]),
    "its acceptance is gone": lambda run: rewrite(run, acceptance=None),
    "it was exported half-way": lambda run: rewrite(run, epochs_trained=0),
}


def rewrite(run, **changes):
    (run.folder / "manifest.json").write_text(json.dumps({**run.manifest(), **changes}))


def test_no_temperature_is_taken_from_a_spoilt_run(quick, small, tmp_path):
    """Nor does it stand in the way of the export beside it."""
    on_split = fmnist.train(quick, dataset=small, folder=tmp_path / "split")
    full = fmnist.train(dataclasses.replace(quick, full=True), dataset=small, folder=tmp_path / "full")
    for spoil in SPOILT_TWINS.values():
        folder = tmp_path / "copies"
        twin, copy = (runs.open_run(shutil.copytree(run.folder, folder / run.folder.name)) for run in (on_split, full))
        assert export._twin_on_split(copy) == twin
        spoil(twin)
        assert export._twin_on_split(copy) is None
        shutil.rmtree(folder)


def test_an_evaluation_goes_with_the_graph_that_it_was_of(small_run, small, tmp_path):
    run = runs.open_run(shutil.copytree(small_run.folder, tmp_path / "run"))
    fmnist.evaluate(run)
    export.finish(run, small)
    assert (run.folder / "report.html").exists()
    rewrite(run, temperature=2.0)
    export.finish(run, small)
    assert not (run.folder / "report.html").exists()
    assert not (run.folder / "evaluation.json").exists()
    with locks.hold(run.folder), pytest.raises(FmnistError, match="is in use by another fmnist"):
        fmnist.evaluate(run)


def test_no_temperature_is_taken_from_a_run_on_other_data(quick, small, tmp_path, caplog):
    other = dataclasses.replace(small, sha256={**small.sha256, "t10k-labels-idx1-ubyte": "0" * 64})
    fmnist.train(quick, dataset=other, folder=tmp_path / "split")
    full = fmnist.train(dataclasses.replace(quick, full=True), dataset=small, folder=tmp_path / "full")
    assert full.manifest()["calibrated_by"] is None


def test_a_failing_plot_does_not_end_the_run(quick, small, tmp_path, monkeypatch, caplog):
    def fail(_):
        raise RuntimeError("no fonts today")

    monkeypatch.setattr(plots, "training_curves", fail)
    run = fmnist.train(quick, dataset=small, folder=tmp_path / "run")
    assert run.is_finished
    assert not (run.folder / "curves.png").exists()
    assert "no fonts today" in caplog.text


class Interrupt(keras.callbacks.Callback):
    """Press Ctrl-C in the middle of the second epoch."""

    def on_train_batch_end(self, batch, logs=None):
        if self.model.optimizer.iterations > 15:
            raise KeyboardInterrupt


def test_an_interrupted_run_keeps_its_last_epoch(small, small_folder, tmp_path):
    config = fmnist.Config.from_preset("fast", epochs=3, batch_size=64, data=str(small_folder))
    with pytest.raises(KeyboardInterrupt):
        fmnist.train(config, [Interrupt()], dataset=small, folder=tmp_path / "run")
    run = runs.open_run(tmp_path / "run")
    assert not run.is_finished
    assert len(run.history()) == 1
    assert (run.folder / "curves.png").stat().st_size > 1000
    with pytest.raises(FmnistError, match=r"not finished; `fmnist export .*run` makes a model"):
        fmnist.Classifier.load(run)

    from fmnist.export import onnx as export

    assert export.finish(run)["epochs_trained"] == 1
    assert fmnist.Classifier.load(run).predict(small.test_images).shape == (200, 10)


def test_a_folder_in_use_is_refused(quick, small, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FmnistError, match="is not empty"):
        fmnist.train(quick, dataset=small, folder=tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.fixture
def preparing(small):
    """The preparation of the epochs of `fast` on the small data set, with labels that tell the images apart."""
    config = fmnist.Config.from_preset("fast", batch_size=64)
    callback = training.PrepareEpoch(small.train_images, np.arange(len(small.train_images)), small.class_names, config)
    callback.set_model(model.textbook(10))
    return callback


def visited(preparing, epoch):
    preparing.on_epoch_begin(epoch)
    batches = preparing.batches
    parts = [batches[index] for index in range(len(batches))]
    return tuple(np.concatenate(arrays) for arrays in zip(*parts, strict=True))


def test_the_first_two_epochs_of_fast_go_through_every_image_once(preparing):
    first = visited(preparing, 0)
    preparing.losses[preparing.visited] = 9.0
    second = visited(preparing, 1)
    assert first[0].shape == (600, 28, 28, 1)
    assert sorted([*first[1], *second[1]]) == list(range(1_200))


def test_an_epoch_can_be_made_again(preparing):
    epochs = [visited(preparing, epoch) for epoch in (1, 0, 1)]
    for once, again in zip(epochs[0], epochs[2], strict=True):
        assert (once == again).all()


def test_then_come_the_images_that_were_hardest_when_last_seen(preparing):
    losses = np.random.default_rng(0).permutation(1_200).astype(np.float32)
    preparing.losses[:] = losses
    hardest = set(np.flatnonzero(losses >= 600))
    first, again = (visited(preparing, epoch)[1] for epoch in (2, 3))
    assert set(first) == set(again) == hardest
    assert list(first) != list(again)


def test_dropout_is_reseeded_with_the_epoch(small):
    config = fmnist.Config.from_preset("textbook", seed=3)
    network = model.build(config, 10, "float32")
    callback = training.PrepareEpoch(small.train_images, np.eye(10)[small.train_labels], small.class_names, config)
    callback.set_model(network)
    callback.on_epoch_begin(5)
    (layer,) = [layer for layer in network.layers if layer.name == "dropout"]
    state = keras.ops.convert_to_numpy(layer.seed_generator.state)
    assert (state == augment.dropout_seed(3, 5, network.layers.index(layer))).all()


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("last_batch", [math.inf, 3])
def test_the_loss_of_every_image_gone_through_is_kept(full, last_batch, small):
    """Without dropout and at a rate of zero the network stays what it is, so that they can be computed afterwards.

    A callback may end the second epoch early: the images that it did not come to still count as never gone through.
    """
    config = fmnist.Config.from_preset("textbook", batch_size=64, visited=0.5, full=full)
    network = model.build(config, 10, "float32")
    network.get_layer("dropout").rate = 0.0
    parts = data.split(small, config.seed, config.full)
    labels = data.one_hot(parts.train_labels, 10)
    preparing = training.PrepareEpoch(parts.train_images, labels, small.class_names, config)
    network.compile(keras.optimizers.SGD(0.0), "categorical_crossentropy", metrics=[preparing.recorder])
    validation = None if full else training.Batches(parts.val_images, data.one_hot(parts.val_labels, 10), 50)

    class StopEarly(keras.callbacks.Callback):
        epoch = 0

        def on_epoch_begin(self, epoch, logs=None):
            self.epoch = epoch

        def on_train_batch_end(self, batch, logs=None):
            self.model.stop_training = self.epoch == 1 and batch == last_batch

    network.fit(
        preparing.batches,
        shuffle=False,
        epochs=2,
        callbacks=[preparing, StopEarly()],
        validation_data=validation,
        verbose=0,
    )

    answers = network.predict(data.normalise(parts.train_images), verbose=0)
    expected = keras.ops.convert_to_numpy(keras.losses.categorical_crossentropy(labels, answers))
    if math.isfinite(last_batch):
        expected[preparing.visited[(last_batch + 1) * config.batch_size :]] = np.inf
    np.testing.assert_allclose(preparing.losses, expected, rtol=1e-4)


def test_jax_also_goes_through_the_images_that_were_prepared():
    """The test above in a process of its own, since a process has one backend."""
    # Keras 3.15 and NumPy 2 disagree about `__array__` on JAX.
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "ignore::DeprecationWarning"]
    command += [f"{__file__}::{test_the_loss_of_every_image_gone_through_is_kept.__name__}"]
    environment = {**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "4 passed" in done.stdout


def test_a_mixed_image_is_as_hard_as_its_answer_is_far_from_the_mixture():
    recorder = training.RecordedCrossEntropy(3)
    labels = np.array([[0.75, 0.25], [0.75, 0.25], [1, 0]], np.float32)
    answers = np.array([[0.75, 0.25], [0.5, 0.5], [0.5, 0.5]], np.float32)
    recorder.update_state(labels, answers)
    further = 0.75 * np.log(0.75 / 0.5) + 0.25 * np.log(0.25 / 0.5)
    np.testing.assert_allclose(recorder.recorded(), [0, further, np.log(2)], atol=1e-6)


def test_cutmix_mixes_what_an_epoch_goes_through(small):
    config = fmnist.Config.from_preset("best", seed=3)
    preparing = training.PrepareEpoch(
        small.train_images, data.one_hot(small.train_labels, 10), small.class_names, config
    )
    preparing.set_model(model.build(config, 10, "float32"))
    preparing.on_epoch_begin(2)
    is_mixed = preparing.batches.labels.max(axis=1) < 1
    assert is_mixed.mean() == pytest.approx(config.cutmix * 0.9, abs=0.1)  # some get one of their own class
    np.testing.assert_allclose(preparing.batches.labels.sum(axis=1), 1, rtol=1e-5)


def test_disturbed_images_are_mixed_as_they_are(small):
    """What `photo` does to an image needs its class; so it comes first."""
    config = fmnist.Config.from_preset("photo", seed=3, cutmix=1.0)
    preparing = training.PrepareEpoch(
        small.train_images, data.one_hot(small.train_labels, 10), small.class_names, config
    )
    preparing.set_model(model.build(config, 10, "float32"))
    preparing.on_epoch_begin(2)
    disturbed = photolike.disturb(
        augment.augment(preparing.images, preparing.visited, 3, 2, config.flip, config.shift),
        preparing.labels[preparing.visited], small.class_names, 3, 2,
    )  # fmt: skip
    images, labels = augment.cutmix(*disturbed, 1.0, 3, 2)
    assert (preparing.batches.images == images).all()
    assert (preparing.batches.labels == labels).all()


def test_recording_outlives_more_images_than_there_is_room_for():
    recorder = training.RecordedCrossEntropy(3)
    answers = np.full((5, 2), 0.5, np.float32)
    recorder.update_state(np.eye(2, dtype=np.float32)[[0, 1, 0, 1, 0]], answers)
    np.testing.assert_allclose(recorder.recorded(), np.log(2), rtol=1e-6)
    assert float(recorder.result()) == pytest.approx(np.log(2))


def test_training_stays_under_two_and_a_half_gigabytes(fashion, tmp_path):
    """The whole process, on the whole data set, export included; more epochs take no more."""
    script = (
        "import resource, subprocess, sys\n"
        "subprocess.run([sys.executable, '-m', 'fmnist', *sys.argv[1:]], check=True, capture_output=True)\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    command = [sys.executable, "-c", script, "train", "--epochs", "1", "--run", str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert fashion.is_fashion_mnist
    assert 500_000 < int(done.stdout) < 2_500_000  # in kB


def test_tensorboard_and_a_headless_backend(small_folder, tmp_path):
    """As a user runs it: a process without a display, told to use a windowed backend."""
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


def test_jax_trains_the_same_code(small_folder, tmp_path):
    """In a process of its own, since a process has one backend; the export is done by TensorFlow."""
    command = [
        sys.executable, "-m", "fmnist", "train", "--backend", "jax", "--epochs", "4", "--data", str(small_folder),
        "--run", str(tmp_path / "run"),
    ]  # fmt: skip
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Exported" not in done.stderr
    run = runs.open_run(tmp_path / "run")
    assert run.environment()["backend"] == "jax"
    assert run.history()[-1]["accuracy"] > run.history()[0]["accuracy"]
    assert run.manifest()["train_seconds"] > 0
    network = model.load_model(run)
    assert network.count_params() == run.manifest()["parameters"]
