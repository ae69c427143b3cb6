"""Training on a small part of the real data: what it leaves, what it repeats, what cannot stop it."""

import dataclasses
import os
import subprocess
import sys

import keras
import numpy as np
import pytest

import fmnist
from fmnist import idx, model, plots, runs, training
from fmnist.errors import FmnistError


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
    assert manifest["epochs_trained"] == 3


def test_it_learns(small_run):
    history = small_run.history()
    assert [row["epoch"] for row in history] == [1, 2, 3]
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
        if self.model.optimizer.iterations > 25:
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

    from fmnist import export

    assert export.finish(run)["epochs_trained"] == 1
    assert fmnist.Classifier.load(run).predict(small.test_images).shape == (200, 10)


def test_a_folder_in_use_is_refused(quick, small, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FmnistError, match="is not empty"):
        fmnist.train(quick, dataset=small, folder=tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_an_epoch_covers_every_image_once_and_follows_its_number(small):
    config = fmnist.Config.from_preset("fast", batch_size=64)
    batches = training.Batches(small.train_images, np.arange(len(small.train_images)), config.batch_size)
    seeding = training.SeedEpoch(batches, config)
    seeding.set_model(model.textbook(10))
    epochs = {}
    for epoch in (0, 1, 0):
        seeding.on_epoch_begin(epoch)
        images, labels = (
            np.concatenate(parts) for parts in zip(*(batches[i] for i in range(len(batches))), strict=True)
        )
        assert images.shape == (1_200, 28, 28, 1)
        assert sorted(labels) == list(range(1_200))
        again = epochs.setdefault(epoch, (images, labels))
        assert (images == again[0]).all()
        assert (labels == again[1]).all()
    assert not (epochs[0][1] == epochs[1][1]).all()


def test_the_rate_climbs_and_falls():
    rates = [float(training.Triangle(0.4, 100, 0.2)(step)) for step in range(100)]
    assert max(rates) == pytest.approx(0.4, rel=0.05)
    assert np.argmax(rates) in (18, 19, 20)
    assert 0 < rates[0] < 0.03
    assert 0 < rates[-1] < 0.01
    assert (np.diff(rates[:19]) > 0).all()
    assert (np.diff(rates[21:]) < 0).all()


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
    script = (
        "import fmnist, keras\n"
        "assert keras.backend.backend() == 'jax'\n"
        f"config = fmnist.Config.from_preset('textbook', epochs=2, data={str(small_folder)!r})\n"
        f"run = fmnist.train(config, folder={str(tmp_path / 'run')!r})\n"
        "print(run.environment()['backend'], run.history()[-1]['accuracy'] > run.history()[0]['accuracy'])\n"
    )
    environment = {**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["jax", "True"]
    run = runs.open_run(tmp_path / "run")
    assert run.manifest()["train_seconds"] > 0
    network = model.load_model(run)
    assert network.count_params() == run.manifest()["parameters"]
