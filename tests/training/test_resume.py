"""Going on with a run that was cut off, and whatever can stand in the way."""

import dataclasses
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import keras
import pytest
from conftest import powerless

import fmnist
from fmnist import atomic, locks
from fmnist.data import formats as idx
from fmnist.errors import FmnistError
from fmnist.export import onnx as export
from fmnist.runs import environment
from fmnist.runs import run as runs
from fmnist.training import progress as live
from fmnist.training import train as training

NUM_EPOCHS = 3
CUT_AFTER = 2


class CutOff(keras.callbacks.Callback):
    """Press Ctrl-C in the middle of an epoch."""

    def __init__(self, epoch):
        super().__init__()
        self.epoch, self.now = epoch, -1

    def on_epoch_begin(self, epoch, logs=None):
        self.now = epoch

    def on_train_batch_end(self, batch, logs=None):
        if (self.now, batch) == (self.epoch, 3):
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def config(small_folder):
    return fmnist.Config.from_preset("textbook", epochs=NUM_EPOCHS, seed=2, data=str(small_folder))


@pytest.fixture(scope="module")
def whole(config, small, tmp_path_factory):
    """A run that nothing disturbed. Not to be changed."""
    return fmnist.train(config, dataset=small, folder=tmp_path_factory.mktemp("whole") / "run")


@pytest.fixture(scope="module")
def cut_off(config, small, tmp_path_factory):
    """The same, cut off in its third epoch. Not to be changed."""
    folder = tmp_path_factory.mktemp("cut") / "run"
    with pytest.raises(KeyboardInterrupt):
        fmnist.train(config, [CutOff(CUT_AFTER)], dataset=small, folder=folder)
    return folder


@pytest.fixture
def cut(cut_off, tmp_path):
    """A copy of the cut-off run that a test may change."""
    return shutil.copytree(cut_off, tmp_path / "run")


@pytest.fixture
def no_export(monkeypatch):
    """Leave out the export, which takes longer than all the training here."""
    monkeypatch.setattr(training.export, "finish", lambda *_: None)


def outcome(folder):
    """What must be the same, to the bit."""
    run = runs.open_run(folder)
    rows = [{**row, "seconds": None} for row in run.history()]
    return idx.sha256(run.weights_path.read_bytes()), rows


def tree(folder):
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


def halve(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def each_checkpoint(folder):
    return sorted(folder.glob("checkpoint-*"))


DAMAGES = {
    "nothing": (lambda _: None, ""),
    "the newest checkpoint is cut in half": (lambda folder: halve(each_checkpoint(folder)[-1]), "0002.safetensors is"),
    "a bit of the newest checkpoint is flipped": (lambda folder: flip(each_checkpoint(folder)[-1]), "SHA-256 differs"),
    "both checkpoints are cut in half": (
        lambda folder: [halve(path) for path in each_checkpoint(folder)], "no intact checkpoint: it starts from the",
    ),
    "the checkpoints are gone": (
        lambda folder: [path.unlink() for path in each_checkpoint(folder)], "no intact checkpoint: it starts from the",
    ),
    "the weights are cut in half": (lambda folder: halve(folder / "weights.safetensors"), ""),
    "the history is cut in half": (lambda folder: halve(folder / "history.csv"), ""),
    "the history is gone": (lambda folder: (folder / "history.csv").unlink(), ""),
    "the environment is cut in half": (lambda folder: halve(folder / "environment.json"), "it is written anew"),
    "half-written files lie about": (lambda folder: (folder / ".history.csv.0a1b2c3d").write_text("epo"), ""),
}  # fmt: skip


@pytest.mark.parametrize("case", DAMAGES)
def test_it_goes_on_to_the_same_end(cut, whole, small, no_export, caplog, case):
    damage, warning = DAMAGES[case]
    damage(cut)
    fmnist.resume(cut, dataset=small)
    assert outcome(cut) == outcome(whole.folder)
    assert warning in caplog.text if warning else not caplog.records
    assert {path.name for path in cut.iterdir()} <= {path.name for path in whole.folder.iterdir()}


def test_epochs_that_are_over_are_not_repeated(cut, small, no_export):
    epochs = []
    fmnist.resume(
        cut, [keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, _: epochs.append(epoch))], dataset=small
    )
    assert epochs == [CUT_AFTER]


def test_a_run_that_was_exported_half_way_goes_on_all_the_same(cut, whole, small):
    assert export.finish(runs.open_run(cut), small)["epochs_trained"] == CUT_AFTER
    (cut / "evaluation.json").write_text("of the two epochs")
    run = fmnist.resume(cut, dataset=small)
    assert outcome(cut) == outcome(whole.folder)
    assert run.manifest()["epochs_trained"] == NUM_EPOCHS
    assert not (cut / "evaluation.json").exists()


def test_a_second_export_that_was_cut_off_is_finished_without_training(whole, small, tmp_path, monkeypatch):
    folder = shutil.copytree(whole.folder, tmp_path / "run")
    (folder / "model.onnx").write_bytes(b"of another export")
    monkeypatch.setattr(training, "fit", None)
    run = fmnist.resume(folder, dataset=small)
    assert run.is_complete
    assert fmnist.Classifier.load(run).predict(small.test_images).shape == (200, 10)


def test_a_finished_run_is_left_as_it_is(cli, whole):
    before = tree(whole.folder)
    code, out, err = cli("train", "--resume", whole.folder)
    assert (code, out, err) == (0, f"{whole.folder} is finished: nothing to do\n", "")
    document = json.loads(cli("train", "--resume", whole.folder, "--json")[1])
    assert (document["epochs"], document["run"]) == (NUM_EPOCHS, str(whole.folder))
    assert tree(whole.folder) == before


def test_the_command_line_goes_on_and_flags_that_agree_are_welcome(cli, cut, whole, small_folder):
    agreeing = ("--preset", "textbook", "--epochs", NUM_EPOCHS, "--seed", 2, "--data", small_folder)
    code, out, err = cli("train", "--resume", cut, *agreeing, "--json")
    assert code == 0
    assert json.loads(out)["val_accuracy"] == whole.history()[-1]["val_accuracy"]
    assert f"Resuming textbook into {cut}" in err
    assert "epoch 3/3" in err
    assert "epoch 2/3" not in err
    assert outcome(cut) == outcome(whole.folder)


CONTRADICTIONS = {
    "more epochs": (("--epochs", 5), "--epochs 5, but {} is planned for 3, which its learning rate follows; leave"),
    "fewer epochs": (("--epochs", 2), "--epochs 2, but {} is planned for 3"),
    "seed": (("--seed", 0), "--seed 0, but {} was begun with seed 2, and goes on as it was begun; leave --seed out"),
    "preset": (("--preset", "fast"), "--preset fast, but {} was begun with preset textbook"),
    "full": (("--full",), "--full True, but {} was begun with full False"),
    "data": (("--data", "/elsewhere"), "--data /elsewhere, but {} was begun with data /"),
}


@pytest.mark.parametrize("case", CONTRADICTIONS)
@pytest.mark.parametrize("is_finished", [False, True])
def test_flags_that_contradict_the_run_are_refused(cli, cut, whole, case, is_finished):
    flags, expected = CONTRADICTIONS[case]
    folder = whole.folder if is_finished else cut
    before = tree(folder)
    code, out, err = cli("train", "--resume", folder, *flags)
    assert (code, out) == (1, "")
    assert err.startswith(f"fmnist: error: {expected.format(folder)}")
    assert err.count("\n") == 1
    assert tree(folder) == before


def test_a_run_goes_on_in_its_own_folder(cli, cut):
    assert cli("train", "--resume", cut, "--run", "elsewhere")[0] == 2


NO_RUNS = {
    "nothing there": (lambda _: None, "no run folder {}; `fmnist train` makes one"),
    "an empty folder": (lambda folder: folder.mkdir(), "{} is empty"),
    "killed before its settings were written": (
        lambda folder: (folder.mkdir(), (folder / ".config.json.0a1b2c3d").write_text("{")), "{} is not the folder of",
    ),
    "settings cut in half": (
        lambda folder: (folder.mkdir(), (folder / "config.json").write_text('{"format')), "config.json is damaged",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", NO_RUNS)
def test_what_is_no_run_is_named(cli, tmp_path, case):
    make, expected = NO_RUNS[case]
    make(tmp_path / "run")
    code, _, err = cli("train", "--resume", tmp_path / "run")
    assert code == 1
    assert expected.format(tmp_path / "run") in err
    assert err.count("\n") == 1


def test_a_folder_where_a_run_was_killed_before_it_began_can_be_used(config, small, tmp_path, no_export):
    (tmp_path / ".config.json.0a1b2c3d").write_text("{")
    run = fmnist.train(dataclasses.replace(config, epochs=1), dataset=small, folder=tmp_path)
    assert not list(run.folder.glob(".*"))


def test_a_changed_environment_is_named_and_kept_and_training_goes_on(cut, whole, small, no_export, caplog):
    path = cut / "environment.json"
    recorded = json.loads(path.read_text())
    before = {**recorded, "threads": 64, "versions": {**recorded["versions"], "numpy": "2.1.0"}, "platform": "other"}
    path.write_text(json.dumps(before))
    fmnist.resume(cut, dataset=small)
    (message,) = [record.message for record in caplog.records]
    assert f"threads is {recorded['threads']} and was 64" in message
    assert f"numpy is {recorded['versions']['numpy']} and was 2.1.0" in message
    assert "platform" not in message
    assert json.loads(path.read_text()) == {**recorded, "before": before}
    assert outcome(cut) == outcome(whole.folder)


def test_differences_of_environments():
    before = {**environment.describe(), "backend": "tensorflow", "precision": "float32"}
    assert environment.differences(before, before) == []
    now = {**before, "precision": "bfloat16", "versions": {"keras": "4.0", "new": "1"}}
    assert environment.differences({**before, "versions": {"keras": "3.15", "jax": "0.10"}}, now) == [
        "precision is bfloat16 and was float32", "keras is 4.0 and was 3.15", "jax is gone and was 0.10",
        "new is 1 and was not there",
    ]  # fmt: skip


def test_settings_of_tensorflow_belong_to_the_environment(monkeypatch):
    before = {**environment.describe(), "backend": "tensorflow", "precision": "float32"}
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    now = {**environment.describe(), "backend": "tensorflow", "precision": "float32"}
    assert environment.differences(before, now) == ["TF_ENABLE_ONEDNN_OPTS is 0 and was not there"]


def without_export(folder, whole):
    """Killed in its export: all its epochs, no checkpoint, no graph."""
    shutil.rmtree(folder)
    shutil.copytree(whole.folder, folder)
    for name in ("manifest.json", "model.onnx"):
        (folder / name).unlink()


STAGES = {
    "between two epochs": lambda folder, whole, small: None,
    "exported half-way": lambda folder, whole, small: export.finish(runs.open_run(folder), small),
    "killed in its export": lambda folder, whole, small: without_export(folder, whole),
}


@pytest.mark.parametrize("stage", STAGES)
def test_other_data_is_refused(cut, whole, small, stage):
    STAGES[stage](cut, whole, small)
    before = tree(cut)
    other = dataclasses.replace(small, sha256={**small.sha256, "t10k-labels-idx1-ubyte": "0" * 64})
    with pytest.raises(FmnistError, match="is not the data that"):
        fmnist.resume(cut, dataset=other)
    assert tree(cut) == before


def test_spoilt_weights_of_a_finished_run_are_not_exported_anew(whole, small, tmp_path):
    folder = shutil.copytree(whole.folder, tmp_path / "run")
    flip(folder / "weights.safetensors")
    before = tree(folder)
    with pytest.raises(FmnistError, match=r"weights.safetensors is damaged or not the file that its manifest names"):
        fmnist.resume(folder, dataset=small)
    assert tree(folder) == before


def test_a_run_that_a_callback_ended_early_goes_on(config, whole, small, tmp_path, no_export):
    class StopEarly(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = epoch + 1 == CUT_AFTER

    run = fmnist.train(config, [StopEarly()], dataset=small, folder=tmp_path / "run")
    assert len(run.history()) == CUT_AFTER
    assert len(each_checkpoint(run.folder)) == CUT_AFTER
    fmnist.resume(run, dataset=small)
    assert outcome(run.folder) == outcome(whole.folder)


def test_two_at_once_are_refused(config, small, tmp_path):
    folder = tmp_path / "run"
    refused = []

    def meddle(*_):
        for attempt in (
            lambda: fmnist.train(config, dataset=small, folder=folder),
            lambda: fmnist.resume(folder, dataset=small),
            lambda: export.finish(runs.open_run(folder), small),
        ):
            with pytest.raises(FmnistError, match="is in use by another fmnist; wait until that has ended"):
                attempt()
            refused.append(attempt)

    monkey = keras.callbacks.LambdaCallback(on_epoch_begin=meddle)
    assert fmnist.train(dataclasses.replace(config, epochs=1), [monkey], dataset=small, folder=folder).is_complete
    assert len(refused) == 3


def test_a_lock_dies_with_its_process(cut, cli):
    script = (
        "import pathlib, sys, time\nfrom fmnist import locks\n"
        "with locks.hold(pathlib.Path(sys.argv[1])):\n    print('held', flush=True)\n    time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", script, cut], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        before = tree(cut)
        code, _, err = cli("train", "--resume", cut)
        assert code == 1
        assert f"{cut} is in use by another fmnist" in err.splitlines()[-1]
        assert tree(cut) == before
        holder.kill()
    with locks.hold(cut):
        pass


def test_a_file_system_without_locks_is_no_hindrance(tmp_path, monkeypatch, caplog):
    import fcntl

    def refuse(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with locks.hold(tmp_path):
        pass
    assert f"{tmp_path} cannot be locked" in caplog.text


FULL_AT = ("checkpoint-0001", "checkpoint-0003", "weights.safetensors", "history.csv", "model.onnx", "manifest.json")


@pytest.mark.parametrize("file", FULL_AT)
def test_a_full_disk_loses_nothing(cli, cut_off, whole, small_folder, tmp_path, monkeypatch, file):
    """Beginning, going on, and once there is room again."""
    folder = tmp_path / "run"
    begin = (
        "train",
        "--preset",
        "textbook",
        "--epochs",
        NUM_EPOCHS,
        "--seed",
        2,
        "--data",
        small_folder,
        "--run",
        folder,
    )
    if file != "checkpoint-0001":
        shutil.copytree(cut_off, folder)
        begin = ("train", "--resume", folder)
    real = atomic.write
    last = {}

    def full(path, content):
        if path.name.startswith(file):
            last.update({path.name: path.read_bytes() for path in folder.iterdir()})
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        real(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(atomic, "write", full)
        code, out, err = cli(*begin)
    assert (code, out) == (1, "")
    complaint = err.splitlines()[-1]
    assert complaint.startswith(f"fmnist: error: {folder}/{file}")
    assert complaint.endswith(
        f"no space left on the disk; free some and try again; `fmnist train --resume {folder}` goes on"
    )
    assert "Traceback" not in err
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == last
    assert cli("train", "--resume", folder)[0] == 0
    assert outcome(folder) == outcome(whole.folder)


def test_a_figure_that_finds_no_room_is_no_hindrance(cut, whole, small, no_export, monkeypatch, caplog):
    real = atomic.write

    def full(path, content):
        if path.name == "curves.png":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        real(path, content)

    monkeypatch.setattr(atomic, "write", full)
    fmnist.resume(cut, dataset=small)
    assert "curves.png could not be drawn, training goes on" in caplog.text
    assert outcome(cut) == outcome(whole.folder)


def test_a_limit_on_files_that_the_system_sets(whole, small_folder, tmp_path):
    """A whole process that really cannot write as much as it wants to."""
    folder = tmp_path / "run"
    script = (
        "import resource, sys\nresource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))\n"
        "from fmnist.__main__ import main\nmain()"
    )
    arguments = [
        "train", "--preset", "textbook", "--epochs", NUM_EPOCHS, "--seed", 2, "--data", small_folder, "--run", folder,
    ]  # fmt: skip
    command = [str(word) for word in (sys.executable, "-c", script, *arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "checkpoint-0001.safetensors: the file may not grow that large here" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "environment.json"]
    fmnist.resume(folder)
    assert outcome(folder) == outcome(whole.folder)


def test_a_folder_that_vanishes_is_named(cli, cut, monkeypatch):
    def vanish(*_):
        shutil.rmtree(cut)

    monkeypatch.setattr(live.ProgressBar, "on_epoch_begin", vanish)
    code, out, err = cli("train", "--resume", cut)
    assert (code, out) == (1, "")
    assert f"{cut}/checkpoint-0003.safetensors: no such file or folder" in err.splitlines()[-1]
    assert "Traceback" not in err
    assert not cut.exists()
    assert "no run folder" in cli("train", "--resume", cut)[2]


def test_a_run_that_may_not_be_written_stays_as_it_is(cli, cut_off, whole, open_folder, small_folder):
    folder = shutil.copytree(cut_off, open_folder / "run")
    data = shutil.copytree(small_folder, open_folder / "data")
    document = json.loads((folder / "config.json").read_text())
    document["config"]["data"] = str(data)
    (folder / "config.json").write_text(json.dumps(document))
    for path in each_checkpoint(folder):
        path.unlink()  # they belong to the settings of before
    before = tree(folder)
    with powerless():
        code, _, err = cli("train", "--resume", folder)
    assert code == 1
    assert "permission denied; choose a folder of your own or change its permissions" in err.splitlines()[-1]
    assert tree(folder) == before


SIGNALS = {signal.SIGINT: 130, signal.SIGTERM: 143}


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_ends_it_at_the_step_and_says_how_to_go_on(number, small_folder, tmp_path):
    folder = tmp_path / "run"
    command = [
        sys.executable, "-m", "fmnist", "train", "--preset", "textbook", "--epochs", "20", "--data", str(small_folder),
        "--run", str(folder),
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while not (folder / "curves.png").exists():
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(number)
        sent = time.monotonic()
        _, err = process.communicate(timeout=60)
    assert process.returncode == SIGNALS[number], err
    # 5 s, on a machine whose processors are not wanted by more than they can serve
    assert time.monotonic() - sent < 5 * max(1, os.getloadavg()[0] / environment.num_processors())
    num_epochs = len(runs.open_run(folder).history())
    assert f"Interrupted after {num_epochs} epochs. `fmnist train --resume {folder}` goes on to the result of" in err
    assert "Traceback" not in err
    assert not (folder / "manifest.json").exists()
    assert fmnist.resume(folder).is_complete


STOPS = {
    "before anything of the program is loaded": ("typer", ["--help"]),
    "in the middle of loading it": ("rich.table", ["--help"]),
    "while a command loads what it needs": ("fmnist.inference.classifier", ["predict", "picture.png"]),
    "while Keras is loaded": ("keras", ["train", "--run", "run"]),
}


@pytest.mark.parametrize("case", STOPS)
def test_ctrl_c_at_the_start_shows_no_traceback(small_folder, tmp_path, case):
    module, arguments = STOPS[case]
    script = (
        "import os, signal, sys\n"
        "class Press:\n"
        "    def find_spec(self, name, *_):\n"
        f"        if name == {module!r}:\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Press())\n"
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
