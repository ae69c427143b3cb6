"""Shared fixtures: the real data, a small part of it, a run trained on that part; no network."""

import os
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from helpers import restored_log, write_folder

import fmnist
from fmnist.cli.main import main
from fmnist.data.download import keras_folder

# For processes that the tests start: a proxy on a port where nothing listens.
for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
    os.environ[name] = "http://127.0.0.1:9"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.pop("FMNIST_DATA", None)

EXPECTED_SKIPS: set[str] = {
    "tests/demo/test_page.py",  # without Chromium
    # without OpenVINO
    *(f"tests/export/test_onnx.py::test_graphs_are_read_by_openvino[{name}.onnx]" for name in ("model", "model-plain")),
}
"""Every test that may skip, by node id. One that skips and is not here fails the suite."""


def pytest_terminal_summary(terminalreporter, config):
    skipped = {report.nodeid for report in terminalreporter.stats.get("skipped", [])}
    config.unexpected_skips = skipped - EXPECTED_SKIPS
    if config.unexpected_skips:
        terminalreporter.section("unexpected skips", red=True)
        terminalreporter.write_line("\n".join(sorted(config.unexpected_skips)))


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session):
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None:  # one of several processes, which reports to another
        return
    skipped = {report.nodeid for report in reporter.stats.get("skipped", [])}
    if skipped - EXPECTED_SKIPS:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(scope="session")
def fashion():
    """Fashion-MNIST itself."""
    return fmnist.load()


@pytest.fixture(scope="session")
def small_folder(fashion, tmp_path_factory):
    """The first 120 training and 20 test images of every class, as a data set of the same format."""

    def first(images, labels, each):
        chosen = np.concatenate([np.flatnonzero(labels == label)[:each] for label in range(10)])
        return images[np.sort(chosen)], labels[np.sort(chosen)]

    train = first(fashion.train_images, fashion.train_labels, 120)
    test = first(fashion.test_images, fashion.test_labels, 20)
    return write_folder(tmp_path_factory.mktemp("data") / "small", train, test)


@pytest.fixture(scope="session")
def small(small_folder):
    """The data set of `small_folder`."""
    return fmnist.load(small_folder)


@pytest.fixture(scope="session")
def small_run(small, small_folder, tmp_path_factory):
    """A finished run of `fast`: four epochs on the small data set. Tests must not change it."""
    config = fmnist.Config.from_preset("fast", epochs=4, batch_size=64, flip=True, data=str(small_folder))
    return fmnist.train(config, dataset=small, folder=tmp_path_factory.mktemp("runs") / "small")


@pytest.fixture(scope="session")
def classifier(small_run):
    """The model of `small_run`."""
    return fmnist.Classifier.load(small_run)


@pytest.fixture
def copied_run(small_run, tmp_path):
    """A copy of `small_run` that a test may damage."""
    return fmnist.open_run(shutil.copytree(small_run.folder, tmp_path / "copied"))


@pytest.fixture
def keras_home(tmp_path, monkeypatch):
    """An empty Keras home. Returns the folder where Keras looks for the data set."""
    home = tmp_path / "keras-home"
    home.mkdir()
    monkeypatch.setenv("KERAS_HOME", str(home))
    return keras_folder()


@pytest.fixture
def cli(monkeypatch, capsys):
    """Run the command line in this process: arguments to exit code, stdout and stderr."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["fmnist", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", "200")
        with pytest.raises(SystemExit) as ending, restored_log():
            main()
        printed = capsys.readouterr()
        return int(ending.value.code or 0), printed.out, printed.err

    return run


@pytest.fixture
def open_folder():
    """A folder that every user may enter, unlike pytest's temporary folders; see `as_unprivileged_user`."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)
