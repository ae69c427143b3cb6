"""What several tests share: the real data, a small part of it, a run trained on that part, no network."""

import contextlib
import gzip
import logging
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

import fmnist
from fmnist.cli import main
from fmnist.data import download as sources
from fmnist.data.dataset import CLASS_NAMES
from fmnist.runs import run as runs

# For processes that the tests start: whatever honours a proxy is led to a port where nobody listens.
for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
    os.environ[name] = "http://127.0.0.1:9"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.pop("FMNIST_DATA", None)

EXPECTED_SKIPS: set[str] = {"tests/demo/test_page.py"}
"""Every test that may skip, by node id. One that skips and is not here fails the suite."""


def pytest_terminal_summary(terminalreporter, config):
    skipped = {report.nodeid for report in terminalreporter.stats.get("skipped", [])}
    config.unexpected_skips = skipped - EXPECTED_SKIPS
    if config.unexpected_skips:
        terminalreporter.section("skips that nobody expected", red=True)
        terminalreporter.write_line("\n".join(sorted(config.unexpected_skips)))


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session):
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = {report.nodeid for report in reporter.stats.get("skipped", [])}
    if skipped - EXPECTED_SKIPS:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def write_idx(path: Path, array: np.ndarray) -> None:
    """Write images (n, 28, 28) or labels (n,) as a gzipped IDX file."""
    magic = 0x00000800 + array.ndim
    header = b"".join(int(number).to_bytes(4, "big") for number in (magic, *array.shape))
    content = header + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(content, 1, mtime=0) if path.suffix == ".gz" else content)


def write_folder(folder: Path, train, test, class_names=CLASS_NAMES) -> Path:
    """Write a data set in the format of Fashion-MNIST; `train` and `test` are pairs of images and labels."""
    folder.mkdir(parents=True, exist_ok=True)
    for part, (images, labels) in (("train", train), ("t10k", test)):
        write_idx(folder / f"{part}-images-idx3-ubyte.gz", images)
        write_idx(folder / f"{part}-labels-idx1-ubyte.gz", labels)
    if class_names:
        (folder / "labels.txt").write_text("\n".join(class_names))
    return folder


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
    """A finished run of `fast`, cut short: four epochs on the small data set. Not to be changed."""
    config = fmnist.Config.from_preset("fast", epochs=4, batch_size=64, data=str(small_folder))
    return fmnist.train(config, dataset=small, folder=tmp_path_factory.mktemp("runs") / "small")


@pytest.fixture(scope="session")
def classifier(small_run):
    """The model of `small_run`."""
    return fmnist.Classifier.load(small_run)


@pytest.fixture
def copied_run(small_run, tmp_path):
    """A copy of `small_run` that a test may damage."""
    import shutil

    return runs.open_run(shutil.copytree(small_run.folder, tmp_path / "copied"))


@pytest.fixture
def keras_home(tmp_path, monkeypatch):
    """A Keras home of one's own, empty. Gives the folder where Keras looks for the data set."""
    home = tmp_path / "keras-home"
    home.mkdir()
    monkeypatch.setenv("KERAS_HOME", str(home))
    return sources.keras_folder()


@contextlib.contextmanager
def untouched_log():
    """Leave the log as it was: the command line gives it a handler, whose stream ends with the test."""
    log = logging.getLogger("fmnist")
    handlers, level = log.handlers, log.level
    try:
        yield
    finally:
        log.handlers = handlers
        log.setLevel(level)


@pytest.fixture
def cli(monkeypatch, capsys):
    """Run the command line in this process: arguments to exit code, stdout and stderr."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["fmnist", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", "200")
        with pytest.raises(SystemExit) as ending, untouched_log():
            main()
        printed = capsys.readouterr()
        return int(ending.value.code or 0), printed.out, printed.err

    return run


@pytest.fixture
def open_folder():
    """A folder that every user may enter, which pytest's own is not; see `powerless`."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@contextlib.contextmanager
def powerless():
    """Act as a user without rights, so that permissions bite even where the tests run as root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def tree(folder):
    """Everything in a folder, by name: what it is and what it holds."""
    return {
        str(path.relative_to(folder)): f"-> {os.readlink(path)}"
        if path.is_symlink()
        else path.read_bytes()
        if path.is_file()
        else path.lstat().st_mode
        for path in sorted(folder.rglob("*"))
    }
