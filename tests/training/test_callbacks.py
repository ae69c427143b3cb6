"""Callbacks of Keras in a training: they work, or one line says why not."""

import csv

import keras
import numpy as np
import pytest
from helpers import linear
from msgspec.structs import replace

import fmnist
from fmnist.config import PRESETS
from fmnist.errors import FmnistError
from fmnist.runs.run import create_run
from fmnist.training.checks import check_callbacks

kinds = keras.callbacks

SCHEDULED = fmnist.Config.from_preset("fast", epochs=3, batch_size=32)
CONSTANT = fmnist.Config.from_preset("textbook", epochs=3, batch_size=32)
NEVER_BETTER = {"patience": 0, "min_delta": 100}


@pytest.fixture(scope="module")
def data():
    """Sixty images of two classes, bright or dark."""
    labels = np.arange(60) % 2
    images = np.random.default_rng(0).integers(0, 100, (60, 28, 28)) + 150 * labels[:, np.newaxis, np.newaxis]
    return fmnist.Dataset(images, labels, images[:4], labels[:4], ("dark", "bright"))


def own_parts():
    return {"network": linear, "optimizer": keras.optimizers.SGD(0.1)}


@pytest.mark.parametrize("parts", [{}, own_parts()], ids=["preset with a schedule", "own network at a constant rate"])
def test_callbacks_that_watch(parts, data, tmp_path, no_export):
    callbacks = [
        kinds.TensorBoard(tmp_path / "logs", histogram_freq=1),
        kinds.CSVLogger(tmp_path / "log.csv"),
        kinds.ModelCheckpoint(tmp_path / "{epoch}.keras"),
        kinds.ModelCheckpoint(tmp_path / "best.keras", "val_accuracy", save_best_only=True),
        kinds.ModelCheckpoint(tmp_path / "all.weights.h5", save_weights_only=True, save_freq=2),
        kinds.TerminateOnNaN(),
        kinds.EarlyStopping(**NEVER_BETTER),
    ]
    run = fmnist.train(SCHEDULED, callbacks, dataset=data, folder=tmp_path / "run", **parts)
    assert len(run.history()) == 2  # the first epoch is better than nothing, the second not by 100
    with open(tmp_path / "log.csv") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["val_loss"]) for row in rows] == pytest.approx([row["val_loss"] for row in run.history()])
    assert {path.name for path in tmp_path.iterdir()} == {
        "logs", "log.csv", "1.keras", "2.keras", "best.keras", "all.weights.h5", "run",
    }  # fmt: skip
    assert len(list(tmp_path.rglob("events.out.tfevents.*"))) == 2  # training and validation
    loaded = keras.models.load_model(tmp_path / "2.keras")
    assert loaded.predict(np.zeros((1, 28, 28, 1), np.float32), verbose=0).shape == (1, 2)


@pytest.mark.parametrize(
    ("callback", "rates"),
    [
        (kinds.LearningRateScheduler(lambda epoch, _: 0.5**epoch), [1, 0.5, 0.25]),
        (kinds.ReduceLROnPlateau(factor=0.5, **NEVER_BETTER), [0.1, 0.1, 0.05]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_callbacks_that_set_a_constant_rate(callback, rates, data, tmp_path, no_export):
    run = fmnist.train(SCHEDULED, [callback], dataset=data, folder=tmp_path / "run", **own_parts())
    assert [row["learning_rate"] for row in run.history()] == pytest.approx(rates)


def test_what_a_resume_does_to_the_state_of_callbacks(data, tmp_path, no_export):
    """The learning rate is in the checkpoint; what a callback counts is not."""

    def plateau():
        return kinds.ReduceLROnPlateau(factor=0.5, **NEVER_BETTER)

    def stop(epoch, _):
        if epoch == 2:
            raise KeyboardInterrupt

    config, folder = replace(SCHEDULED, epochs=5), tmp_path / "run"
    table = kinds.CSVLogger(tmp_path / "log.csv")
    callbacks = [plateau(), table, kinds.LambdaCallback(on_epoch_end=stop)]
    with pytest.raises(KeyboardInterrupt):
        fmnist.train(config, callbacks, dataset=data, folder=folder, **own_parts())
    table.csv_file.close()  # Keras leaves it open
    callbacks = [plateau(), kinds.CSVLogger(tmp_path / "log.csv", append=True)]
    run = fmnist.resume(folder, callbacks, dataset=data, **own_parts())
    # Without the interruption: 0.1, 0.1, 0.05, 0.025, 0.0125. A checkpoint is written before the callbacks are called.
    assert [row["learning_rate"] for row in run.history()] == pytest.approx([0.1, 0.1, 0.05, 0.05, 0.05])
    with open(tmp_path / "log.csv") as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["0", "1", "2", "3", "4"]


def test_a_loss_that_is_no_number_ends_the_training(data, tmp_path, capsys):
    def nan(labels, probabilities):
        return float("nan") * keras.ops.mean(probabilities)

    with pytest.raises(FmnistError, match="not finite: training diverged; lower the learning rate"):
        fmnist.train(
            SCHEDULED, [kinds.TerminateOnNaN()], dataset=data, folder=tmp_path / "run", network=linear, loss=nan
        )
    assert len(fmnist.open_run(tmp_path / "run").history()) == 1


FULL = replace(CONSTANT, full=True)
REFUSED = {
    "one": (
        SCHEDULED,
        kinds.EarlyStopping(),
        "callbacks is .* EarlyStopping; expected a list of .*: put it into a list",
    ),
    "nothing": (SCHEDULED, None, "callbacks is None; expected a list of Keras callbacks"),
    "a class": (SCHEDULED, [kinds.EarlyStopping], r"EarlyStopping is a class; expected .*EarlyStopping\("),
    "a function": (SCHEDULED, [print], "a callback is .*; expected .*, as keras.callbacks.LambdaCallback"),
    "a name": (SCHEDULED, ["EarlyStopping"], "a callback is a value of type str; expected a keras.callbacks.Callback"),
    "moving averages": (CONSTANT, [kinds.SwapEMAWeights()], "SwapEMAWeights exchanges the weights .*; omit it"),
    "backup": (CONSTANT, [kinds.BackupAndRestore("backup")], "BackupAndRestore .*; omit it, .* fmnist.resume"),
    "best weights": (
        CONSTANT,
        [kinds.EarlyStopping(restore_best_weights=True)],
        r"EarlyStopping with restore_best_weights=True .*; omit .*ModelCheckpoint\(save_best_only=True\)",
    ),
    "a rate beside a schedule": (
        SCHEDULED,
        [kinds.LearningRateScheduler(abs)],
        "LearningRateScheduler sets the learning rate, but that of this run follows a schedule; omit",
    ),
    "a plateau beside a schedule": (SCHEDULED, [kinds.ReduceLROnPlateau()], "ReduceLROnPlateau sets .* schedule"),
    "stop by validation": (
        FULL,
        [kinds.EarlyStopping()],
        r"EarlyStopping monitors val_loss, .*; monitor loss, or omit",
    ),
    "plateau of validation": (
        FULL,
        [kinds.ReduceLROnPlateau("val_accuracy")],
        "ReduceLROnPlateau .*; monitor accuracy",
    ),
    "best by validation": (FULL, [kinds.ModelCheckpoint("a.keras", save_best_only=True)], "ModelCheckpoint monitors"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_work_is_refused_before_anything_is_created(case, data, tmp_path):
    config, callbacks, expected = REFUSED[case]
    with pytest.raises(FmnistError, match=expected) as caught:
        fmnist.train(config, callbacks, dataset=data, folder=tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_what_monitors_no_validation_is_not_refused():
    check_callbacks(
        FULL, [kinds.EarlyStopping("loss"), kinds.ReduceLROnPlateau("loss"), kinds.ModelCheckpoint("a.keras")]
    )
    check_callbacks(CONSTANT, [kinds.EarlyStopping(), kinds.ReduceLROnPlateau()])


def test_callbacks_are_also_checked_when_a_run_is_resumed(data, tmp_path):
    run = create_run(PRESETS["fast"], tmp_path / "run")
    with pytest.raises(FmnistError, match="LearningRateScheduler sets the learning rate"):
        fmnist.resume(run, [kinds.LearningRateScheduler(abs)], dataset=data)


class MeasureF1(keras.callbacks.Callback):
    """Add a value of the user's own to the logs."""

    def on_epoch_end(self, epoch, logs=None):
        logs["val_f1"] = 0.5


def test_what_an_own_callback_measures_can_be_monitored(data, tmp_path, no_export):
    stop = kinds.EarlyStopping("val_f1", mode="max", patience=0)
    run = fmnist.train(CONSTANT, [MeasureF1(), stop], dataset=data, folder=tmp_path / "run")
    assert len(run.history()) == 2
    with pytest.raises(FmnistError, match="EarlyStopping monitors val_f1, which training does not measure"):
        fmnist.train(CONSTANT, [stop], dataset=data, folder=tmp_path / "other")
