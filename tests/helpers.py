"""Functions that several tests share."""

import contextlib
import gzip
import logging
import os
import sys
from pathlib import Path

import numpy as np

from fmnist.data.dataset import CLASS_NAMES


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


@contextlib.contextmanager
def restored_log():
    """Restore the log handlers: the command line sets one, whose stream ends with the test."""
    log = logging.getLogger("fmnist")
    handlers, level = log.handlers, log.level
    try:
        yield
    finally:
        log.handlers = handlers
        log.setLevel(level)


@contextlib.contextmanager
def as_unprivileged_user():
    """Run as an unprivileged user, so that permissions apply even if the tests run as root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def tree(folder):
    """Return the type or content of everything in a folder, by name."""
    return {
        str(path.relative_to(folder)): f"-> {os.readlink(path)}"
        if path.is_symlink()
        else path.read_bytes()
        if path.is_file()
        else path.lstat().st_mode
        for path in sorted(folder.rglob("*"))
    }


def interruptible(command):
    """Return the command to start a process that Ctrl-C can end, even if the tests run in the background.

    A shell starts what runs in the background with SIGINT ignored, and child processes inherit that.
    """
    script = "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execv(sys.argv[1], sys.argv[1:])"
    return [str(word) for word in (sys.executable, "-c", script, *command)]


def linear(num_classes):
    """Build the smallest network, as a user would."""
    import keras  # takes seconds

    layers = keras.layers
    return keras.Sequential(
        [keras.Input((28, 28, 1)), layers.Flatten(), layers.Dense(num_classes, activation="softmax")]
    )
