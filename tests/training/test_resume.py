"""Resuming an interrupted run, and what can prevent it."""

import dataclasses
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import pytest
from helpers import as_unprivileged_user, interruptible, tree, write_folder
from msgspec.structs import replace

import fmnist
from fmnist import curves
from fmnist.cli.train import explain_interruption, interruption_message
from fmnist.config import Config
from fmnist.errors import FmnistError
from fmnist.export.onnx import export_run
from fmnist.runs.environment import describe_environment, environment_changes
from fmnist.runs.run import open_run
from fmnist.training import train as training
from fmnist.training.checkpoints import newest_checkpoint
from fmnist.training.progress import ProgressBar

NUM_EPOCHS = 3
NUM_COMPLETED = 2
"""Epochs of the interrupted run."""
TRAIN = ("train", "--preset", "textbook", "--seed", 2)


class Interrupt(keras.callbacks.Callback):
    """Raise a KeyboardInterrupt in the middle of an epoch."""

    def __init__(self, epoch):
        super().__init__()
        self.epoch, self.current = epoch, -1

    def on_epoch_begin(self, epoch, logs=None):
        self.current = epoch

    def on_train_batch_end(self, batch, logs=None):
        if (self.current, batch) == (self.epoch, 3):
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def config(small_folder):
    return Config.from_preset("textbook", epochs=NUM_EPOCHS, seed=2, data=str(small_folder))


@pytest.fixture(scope="module")
def finished(config, small, tmp_path_factory):
    """A run that was not interrupted. Not to be changed."""
    return fmnist.train(config, dataset=small, folder=tmp_path_factory.mktemp("finished") / "run")


@pytest.fixture(scope="module")
def interrupted(config, small, tmp_path_factory):
    """The folder of the same run, interrupted in its third epoch. Not to be changed."""
    folder = tmp_path_factory.mktemp("interrupted") / "run"
    with pytest.raises(KeyboardInterrupt):
        fmnist.train(config, [Interrupt(NUM_COMPLETED)], dataset=small, folder=folder)
    return folder


@pytest.fixture
def folder(interrupted, tmp_path):
    """A copy of the interrupted run."""
    return shutil.copytree(interrupted, tmp_path / "run")


@pytest.fixture
def no_export(monkeypatch):
    """Omit the export, which takes longer than the training."""
    monkeypatch.setattr(training, "export", lambda *_: None)


def result(folder):
    """Return what has to be the same bit for bit."""
    run = open_run(folder)
    return run.weights_path.read_bytes(), [{**row, "seconds": None} for row in run.history()]


def snapshot(folder):
    """Return the content of a folder and the time of its last change, so that rewritten files are noticed too."""
    return tree(folder), folder.stat().st_mtime_ns


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def checkpoints_in(folder):
    return sorted(folder.glob("checkpoint-*"))


def fill_disk(monkeypatch, file, on_failure=lambda _: None):
    """Let the last step of writing a file fail as on a full disk.

    Args:
        monkeypatch: where to change `os.replace`.
        file: beginning of the name.
        on_failure: called with the path of the temporary file, before the error is raised.
    """
    os_replace = os.replace

    def fail(source, target):
        if Path(target).name.startswith(file):
            on_failure(Path(source))
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os_replace(source, target)

    monkeypatch.setattr(os, "replace", fail)


def test_interrupted_run_keeps_its_completed_epochs(interrupted):
    run = open_run(interrupted)
    assert run.status == "training"
    assert len(run.history()) == NUM_COMPLETED
    assert (run.folder / "curves.png").stat().st_size > 1000
    with pytest.raises(FmnistError, match=r"not finished; `fmnist export .*run` exports the epochs that it has"):
        fmnist.Classifier.load(run)


RESTART = "has no intact checkpoint: training starts from the beginning"
DAMAGES = {
    "no damage": (lambda _: None, ""),
    "newest checkpoint truncated": (lambda folder: truncate(checkpoints_in(folder)[-1]), "0002.safetensors is damaged"),
    "bit of newest checkpoint flipped": (lambda folder: flip_a_bit(checkpoints_in(folder)[-1]), "SHA-256 differs"),
    "both checkpoints truncated": (lambda folder: [truncate(path) for path in checkpoints_in(folder)], RESTART),
    "checkpoints missing": (lambda folder: [path.unlink() for path in checkpoints_in(folder)], RESTART),
    "weights truncated": (lambda folder: truncate(folder / "weights.safetensors"), ""),
    "history truncated": (lambda folder: truncate(folder / "history.csv"), ""),
    "history missing": (lambda folder: (folder / "history.csv").unlink(), ""),
    "environment truncated": (lambda folder: truncate(folder / "environment.json"), "it is written again"),
    "temporary file left": (lambda folder: (folder / ".history.csv.0a1b2c3d").write_text("epo"), ""),
}


@pytest.mark.parametrize("case", DAMAGES)
def test_resumed_run_has_the_result_of_an_uninterrupted_run(folder, finished, small, no_export, caplog, case):
    damage, warning = DAMAGES[case]
    damage(folder)
    fmnist.resume(folder, dataset=small)
    assert result(folder) == result(finished.folder)
    assert warning in caplog.text if warning else not caplog.records
    assert {path.name for path in folder.iterdir()} <= {path.name for path in finished.folder.iterdir()}


def test_completed_epochs_are_not_repeated(folder, small, no_export):
    epochs = []
    record = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, _: epochs.append(epoch))
    fmnist.resume(folder, [record], dataset=small)
    assert epochs == [NUM_COMPLETED]


def test_run_exported_before_its_last_epoch_can_be_resumed(folder, finished, small):
    run = open_run(folder)
    assert export_run(run, small).epochs_trained == NUM_COMPLETED
    assert run.status == "training"
    assert fmnist.Classifier.load(run).predict(small.test_images).shape == (200, 10)
    (folder / "evaluation.json").write_text("of two epochs")
    fmnist.resume(folder, dataset=small)
    assert run.status == "finished"
    assert run.manifest().epochs_trained == NUM_EPOCHS
    assert result(folder) == result(finished.folder)
    assert not (folder / "evaluation.json").exists()


def test_interrupted_second_export_is_repeated_without_training(finished, small, tmp_path, monkeypatch):
    folder = shutil.copytree(finished.folder, tmp_path / "run")
    (folder / "model.onnx").write_bytes(b"of another export")
    monkeypatch.setattr(training, "fit", None)
    run = fmnist.resume(folder, dataset=small)
    assert run.status == "finished"
    assert fmnist.Classifier.load(run).predict(small.test_images).shape == (200, 10)


def test_run_that_another_process_finishes_meanwhile_is_not_trained_again(finished, small, tmp_path, monkeypatch):
    """The other process exports while this one loads the data."""
    folder = shutil.copytree(finished.folder, tmp_path / "run")
    (folder / "manifest.json").unlink()

    def data_to_resume(_):
        shutil.copy(finished.manifest_path, folder)
        return small

    monkeypatch.setattr(training, "data_to_resume", data_to_resume)
    monkeypatch.setattr(training, "fit", None)
    assert fmnist.resume(folder).status == "finished"


def test_finished_run_is_not_changed(cli, finished):
    before = snapshot(finished.folder)
    expected = f"{finished.folder} is finished: nothing to do\n"
    assert cli("train", "--resume", finished.folder) == (0, expected, "")
    document = json.loads(cli("train", "--resume", finished.folder, "--json")[1])
    assert (document["epochs"], document["run"]) == (NUM_EPOCHS, str(finished.folder))
    assert snapshot(finished.folder) == before


def test_other_data_for_a_finished_run_is_refused(cli, finished, small, small_folder, tmp_path):
    assert cli("train", "--resume", finished.folder, "--data", small_folder)[0] == 0
    other = write_folder(
        tmp_path / "other", (small.test_images, small.test_labels), (small.test_images, small.test_labels)
    )
    code, out, err = cli("train", "--resume", finished.folder, "--data", other)
    assert (code, out) == (1, "")
    assert "is not the data that" in err
    with pytest.raises(FmnistError, match="is not the data that"):
        fmnist.resume(finished, dataset=fmnist.load(other))


def test_command_line_resumes_and_accepts_the_settings_of_the_run(cli, folder, finished, small_folder):
    settings = ("--epochs", NUM_EPOCHS, "--data", small_folder)
    code, out, err = cli(*TRAIN, *settings, "--resume", folder, "--json")
    assert code == 0
    assert json.loads(out)["val_accuracy"] == finished.manifest().validation.accuracy
    assert f"Resuming textbook in {folder}" in err
    assert "epoch 3/3" in err
    assert "epoch 2/3" not in err
    assert result(folder) == result(finished.folder)


CONTRADICTIONS = {
    "more epochs": (("--epochs", 5), "--epochs 5, but {} is planned for 3 epochs; omit --epochs"),
    "fewer epochs": (("--epochs", 2), "--epochs 2, but {} is planned for 3 epochs"),
    "seed": (("--seed", 0), "--seed 0, but {} was started with seed 2; omit --seed, or train into a new folder"),
    "preset": (("--preset", "fast"), "--preset fast, but {} was started with preset textbook"),
    "full": (("--full",), "--full, but {} was started with full False"),
    "flip": (("--flip",), "--flip, but {} was started with flip False; omit --flip, or train"),
    "class weights": (("--class-weights",), "--class-weights, but {} was started with class_weights False; omit"),
}


@pytest.mark.parametrize("case", CONTRADICTIONS)
@pytest.mark.parametrize("is_finished", [False, True])
def test_options_that_contradict_the_run_are_refused(cli, folder, finished, case, is_finished):
    options, expected = CONTRADICTIONS[case]
    folder = finished.folder if is_finished else folder
    before = snapshot(folder)
    code, out, err = cli("train", "--resume", folder, *options)
    assert (code, out) == (1, "")
    assert err.startswith(f"fmnist: error: {expected.format(folder)}")
    assert err.count("\n") == 1
    assert snapshot(folder) == before


def test_run_cannot_be_resumed_in_another_folder(cli, folder):
    assert cli("train", "--resume", folder, "--run", "elsewhere")[0] == 2


NO_RUNS = {
    "no folder": (lambda _: None, "no run folder {}; `fmnist train` creates one"),
    "empty folder": (lambda folder: folder.mkdir(), "{} is empty; expected a run folder"),
    "killed before its configuration was written": (
        lambda folder: (folder.mkdir(), (folder / ".config.json.0a1b2c3d").write_text("{")),
        "{} is not a run folder: it has no config.json",
    ),
    "configuration truncated": (
        lambda folder: (folder.mkdir(), (folder / "config.json").write_text('{"format')),
        "config.json is damaged",
    ),
}


@pytest.mark.parametrize("case", NO_RUNS)
def test_folder_without_a_run_is_refused(cli, tmp_path, case):
    make, expected = NO_RUNS[case]
    make(tmp_path / "run")
    code, _, err = cli("train", "--resume", tmp_path / "run")
    assert code == 1
    assert expected.format(tmp_path / "run") in err
    assert err.count("\n") == 1


def test_folder_with_only_temporary_files_can_be_trained_into(config, small, tmp_path, no_export):
    (tmp_path / ".config.json.0a1b2c3d").write_text("{")
    run = fmnist.train(replace(config, epochs=1), dataset=small, folder=tmp_path)
    assert not list(run.folder.glob(".*"))


def test_changed_environment_is_logged_and_recorded(folder, finished, small, no_export, caplog):
    recorded = open_run(folder).environment()
    before = replace(recorded, threads=64, versions={**recorded.versions, "numpy": "2.1.0"}, platform="other")
    (folder / "environment.json").write_text(json.dumps(before.to_json()))
    fmnist.resume(folder, dataset=small)
    (message,) = [record.message for record in caplog.records]
    assert f"threads is {recorded.threads} (was 64)" in message
    assert f"numpy is {recorded.versions['numpy']} (was 2.1.0)" in message
    assert "platform" not in message
    assert open_run(folder).environment() == replace(recorded, previous=before)
    assert result(folder) == result(finished.folder)


def test_environment_changes(monkeypatch):
    before = describe_environment("tensorflow", "float32", {})
    before = replace(before, settings={}, versions={"keras": "3.15", "jax": "0.10"})
    assert environment_changes(before, replace(before, platform="other")) == []
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    now = replace(describe_environment("tensorflow", "bfloat16", {}), versions={"keras": "4.0", "new": "1"})
    assert sorted(environment_changes(before, now)) == [
        "TF_ENABLE_ONEDNN_OPTS is 0 (was missing)", "jax is missing (was 0.10)", "keras is 4.0 (was 3.15)",
        "new is 1 (was missing)", "precision is bfloat16 (was float32)",
    ]  # fmt: skip


def kill_during_export(folder, finished, small):
    """Leave all epochs, no checkpoint and no graph."""
    shutil.rmtree(folder)
    shutil.copytree(finished.folder, folder)
    for name in ("manifest.json", "model.onnx"):
        (folder / name).unlink()


STAGES = {
    "interrupted in training": lambda folder, finished, small: None,
    "exported before its last epoch": lambda folder, finished, small: export_run(open_run(folder), small),
    "killed during export": kill_during_export,
}


@pytest.mark.parametrize("stage", STAGES)
def test_other_data_is_refused(folder, finished, small, stage):
    STAGES[stage](folder, finished, small)
    before = snapshot(folder)
    other = dataclasses.replace(small, test_labels=small.test_labels[::-1])
    with pytest.raises(FmnistError, match="is not the data that"):
        fmnist.resume(folder, dataset=other)
    assert snapshot(folder) == before


def test_damaged_weights_of_a_finished_run_are_not_exported(finished, small, tmp_path):
    folder = shutil.copytree(finished.folder, tmp_path / "run")
    flip_a_bit(folder / "weights.safetensors")
    before = snapshot(folder)
    with pytest.raises(FmnistError, match=r"weights.safetensors is damaged or not the file that its manifest names"):
        fmnist.resume(folder, dataset=small)
    assert snapshot(folder) == before


def test_run_with_a_model_and_nothing_to_resume_from_is_not_changed(finished, small, tmp_path):
    folder = shutil.copytree(finished.folder, tmp_path / "run")
    (folder / "weights.safetensors").unlink()
    before = snapshot(folder)
    with pytest.raises(FmnistError, match="has a model but neither weights nor checkpoints to resume from"):
        fmnist.resume(folder, dataset=small)
    assert snapshot(folder) == before


def test_run_that_a_callback_stopped_can_be_resumed(config, finished, small, tmp_path, no_export):
    class StopEarly(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = epoch + 1 == NUM_COMPLETED

    run = fmnist.train(config, [StopEarly()], dataset=small, folder=tmp_path / "run")
    assert len(run.history()) == NUM_COMPLETED
    assert len(checkpoints_in(run.folder)) == NUM_COMPLETED
    fmnist.resume(run, dataset=small)
    assert result(run.folder) == result(finished.folder)


def test_folder_of_a_running_training_is_locked(config, small, tmp_path, no_export):
    folder = tmp_path / "run"
    refused = []

    def use_the_folder(*_):
        for attempt in (
            lambda: fmnist.train(config, dataset=small, folder=folder),
            lambda: fmnist.resume(folder, dataset=small),
            lambda: export_run(open_run(folder), small),
            lambda: fmnist.evaluate(folder),
        ):
            with pytest.raises(FmnistError, match="is in use by another fmnist process; wait until it has ended"):
                attempt()
            refused.append(attempt)

    callback = keras.callbacks.LambdaCallback(on_epoch_begin=use_the_folder)
    run = fmnist.train(replace(config, epochs=1), [callback], dataset=small, folder=folder)
    assert run.status == "trained"
    assert len(refused) == 4


FULL_AT = ("checkpoint-0001", "weights.safetensors", "history.csv", "model.onnx", "manifest.json")


@pytest.mark.parametrize("file", ["checkpoint-0003", *(pytest.param(file, marks=pytest.mark.slow) for file in FULL_AT)])
def test_full_disk_loses_nothing(cli, interrupted, finished, small_folder, tmp_path, monkeypatch, file):
    """A new training fails at the first checkpoint, a resumed one at each other file. Both can be resumed."""
    folder = tmp_path / "run"
    command = (*TRAIN, "--epochs", NUM_EPOCHS, "--data", small_folder, "--run", folder)
    if file != "checkpoint-0001":
        shutil.copytree(interrupted, folder)
        command = ("train", "--resume", folder)
    before = {}

    def record(temporary_file):
        before.update({name: content for name, content in tree(folder).items() if name != temporary_file.name})

    with monkeypatch.context() as patch:
        fill_disk(patch, file, record)
        code, out, err = cli(*command)
    assert (code, out) == (1, "")
    message = err.splitlines()[-1]
    assert message.startswith(f"fmnist: error: {folder}/{file}")
    assert message.endswith(
        f"no space left on the disk; free some and try again; `fmnist train --resume {folder}` resumes training"
    )
    assert "Traceback" not in err
    assert tree(folder) == before
    assert cli("train", "--resume", folder)[0] == 0
    assert result(folder) == result(finished.folder)


def fail_to_draw(monkeypatch):
    def fail(*_):
        raise RuntimeError("no fonts")

    monkeypatch.setattr(curves, "training_curves", fail)


FIGURE_FAILURES = {
    "full disk": (lambda monkeypatch: fill_disk(monkeypatch, "curves.png"), "no space left on the disk"),
    "drawing fails": (fail_to_draw, "RuntimeError: no fonts"),
}


@pytest.mark.parametrize("case", FIGURE_FAILURES)
def test_training_continues_without_its_figure(folder, finished, small, no_export, monkeypatch, caplog, case):
    break_figure, expected = FIGURE_FAILURES[case]
    (folder / "curves.png").unlink()
    break_figure(monkeypatch)
    fmnist.resume(folder, dataset=small)
    assert "curves.png could not be drawn" in caplog.text
    assert expected in caplog.text
    assert not (folder / "curves.png").exists()
    assert result(folder) == result(finished.folder)


@pytest.mark.slow
def test_limit_of_the_system_on_file_sizes(finished, small_folder, tmp_path):
    """The operating system refuses to write the first checkpoint of another process."""
    folder = tmp_path / "run"
    script = (
        "import resource, sys\nresource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))\n"
        "from fmnist.__main__ import main\nmain()"
    )
    arguments = [*TRAIN, "--epochs", NUM_EPOCHS, "--data", small_folder, "--run", folder]
    command = [str(word) for word in (sys.executable, "-c", script, *arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "checkpoint-0001.safetensors: the file may not grow that large here" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "environment.json"]
    fmnist.resume(folder)
    assert result(folder) == result(finished.folder)


def test_folder_that_is_removed_during_training(cli, folder, monkeypatch):
    monkeypatch.setattr(ProgressBar, "on_epoch_begin", lambda *_: shutil.rmtree(folder))
    code, out, err = cli("train", "--resume", folder)
    assert (code, out) == (1, "")
    assert f"{folder}/checkpoint-0003.safetensors: no such file or folder" in err.splitlines()[-1]
    assert "Traceback" not in err
    assert not folder.exists()
    assert "no run folder" in cli("train", "--resume", folder)[2]


def test_run_without_write_permission_is_not_changed(cli, interrupted, open_folder, small_folder):
    folder = shutil.copytree(interrupted, open_folder / "run")
    data = shutil.copytree(small_folder, open_folder / "data")
    document = json.loads((folder / "config.json").read_text())
    document["config"]["data"] = str(data)
    (folder / "config.json").write_text(json.dumps(document))
    for path in checkpoints_in(folder):
        path.unlink()  # they belong to the previous configuration
    folder.chmod(0o555)
    before = snapshot(folder)
    with as_unprivileged_user():
        code, _, err = cli("train", "--resume", folder)
    assert code == 1
    assert "permission denied; choose a folder of your own or change its permissions" in err.splitlines()[-1]
    assert snapshot(folder) == before


SIGNALS = {signal.SIGINT: 130, signal.SIGTERM: 143}


@pytest.mark.slow
@pytest.mark.parametrize("number", SIGNALS)
def test_signal_ends_training_at_once_and_the_message_names_the_next_command(number, small_folder, tmp_path):
    folder = tmp_path / "run"
    command = [
        sys.executable, "-m", "fmnist", "train", "--preset", "textbook", "--epochs", "500", "--data", str(small_folder),
        "--run", str(folder),
    ]  # fmt: skip
    process = subprocess.Popen(
        interruptible(command), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )  # fmt: skip
    with process:
        while not (folder / "history.csv").exists():
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(number)
        _, err = process.communicate()
    assert process.returncode == SIGNALS[number], err
    run = open_run(folder)
    num_epochs = len(run.history())
    epochs = "1 epoch" if num_epochs == 1 else f"{num_epochs} epochs"
    assert f"Interrupted after {epochs}; `fmnist train --resume {folder}` resumes it, `fmnist export {folder}`" in err
    assert num_epochs < 500
    assert "Traceback" not in err
    assert run.status == "training"
    assert len(newest_checkpoint(run).history) == num_epochs


def test_tensorboard_logs_are_not_written_through_a_link(cli, folder, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (folder / "tensorboard").symlink_to(tmp_path / "elsewhere")
    code, _, err = cli("train", "--resume", folder, "--tensorboard")
    assert code == 1
    assert f"{folder}/tensorboard is a symbolic link" in err
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_sigterm_is_handled_like_ctrl_c(interrupted, capsys):
    with pytest.raises(SystemExit) as caught, explain_interruption(interrupted):
        signal.raise_signal(signal.SIGTERM)
    assert caught.value.code == 143
    assert f"Interrupted after {NUM_COMPLETED} epochs" in capsys.readouterr().err


def test_interruption_message(small_run, interrupted, tmp_path):
    assert interruption_message(tmp_path) == f"Interrupted before the run started: nothing in {tmp_path} to resume."
    folder = shutil.copytree(interrupted, tmp_path / "my run")
    assert interruption_message(folder) == (
        f"Interrupted after {NUM_COMPLETED} epochs; `fmnist train --resume '{folder}'` resumes it, "
        f"`fmnist export '{folder}'` exports it as it is."
    )
    (folder / "history.csv").unlink()
    assert interruption_message(folder).startswith("Interrupted before the first epoch was completed; `fmnist train")


STARTUP_STAGES = {
    "before the command line is imported": ("typer", ["--help"]),
    "while the command line is imported": ("rich.table", ["--help"]),
    "while a command imports what it needs": ("fmnist.inference.classifier", ["predict", "picture.png"]),
    "while Keras is imported": ("keras.src", ["train", "--run", "run"]),
}


@pytest.mark.parametrize("case", STARTUP_STAGES)
def test_interrupt_during_startup_shows_no_traceback(small_folder, tmp_path, case):
    module, arguments = STARTUP_STAGES[case]
    script = (
        "import os, signal, sys\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "class Interrupt:\n"
        "    def find_spec(self, name, *_):\n"
        f"        if name == {module!r}:\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Interrupt())\n"
        "from fmnist.__main__ import main\n"
        "main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        env={**os.environ, "FMNIST_DATA": str(small_folder)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 130, done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= 1
