"""Fork training processes that are killed: python crashing.py DATA.

Importing TensorFlow takes longer than the training here. So this process imports it once, and each fork of it is a
separate process that trains with the package's own code. It forks before TensorFlow starts a thread.

Each line of stdin requests a training: `{"run": FOLDER, "after": SECONDS}` kills it from outside after that time,
`{"run": FOLDER, "fault": [OPERATION, FILE, COUNT]}` lets it kill itself at the COUNT-th write, sync or rename of a file
whose name begins with FILE. Without either, it trains to the end. `"is_custom": true` trains a residual network, an
optimizer of Keras and an augmentation as a user would pass them. Each line of stdout is a result:
`{"status": EXIT STATUS, "seconds": TIME}`.
"""

import io
import json
import os
import random
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np

import fmnist
from fmnist.config import IDENTITY_VIEW, Config
from fmnist.data.dataset import Dataset
from fmnist.models.layers import FusedBatchNormalization
from fmnist.models.networks import NETWORKS, draw_seed, glorot
from fmnist.training import train as training

CONFIG = Config.from_preset("fast", epochs=4, batch_size=64, tta_views=(IDENTITY_VIEW,), cutmix=0.5, seed=7)
"""The optimizer and the hard examples of `fast`, and the CutMix of `best`."""


def small_network(num_classes: int, rng: random.Random) -> keras.Sequential:
    """Build a small network with everything that has a state.

    These are normalization, dropout, a kernel for Muon and a bias for Adam.
    """
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            keras.layers.MaxPooling2D(2, name="pool"),
            keras.layers.Conv2D(8, 3, use_bias=False, kernel_initializer=glorot(rng), name="conv"),
            FusedBatchNormalization(name="norm"),
            keras.layers.ReLU(name="relu"),
            keras.layers.Dropout(0.3, seed=draw_seed(rng), name="dropout"),
            keras.layers.GlobalMaxPooling2D(name="global_pool"),
            keras.layers.Dense(num_classes, kernel_initializer=glorot(rng), name="head"),
            keras.layers.Softmax(dtype="float32", name="softmax"),
        ],
        name="crashing",
    )


def residual_network(num_classes: int) -> keras.Model:
    """Build a network as a user would: layers without names or seeds, random ones among them."""
    layers = keras.layers
    images = keras.Input((28, 28, 1))
    values = layers.Conv2D(8, 3, strides=2, use_bias=False)(layers.RandomTranslation(0.1, 0.1)(images))
    for _ in range(2):
        inner = layers.ReLU()(layers.BatchNormalization()(values))
        values = layers.Add()([values, layers.Conv2D(8, 3, padding="same", use_bias=False)(inner)])
    values = layers.Dropout(0.3)(layers.GlobalAveragePooling2D()(values))
    return keras.Model(images, layers.Dense(num_classes, activation="softmax")(values))


def erase(images: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Set some rows of each image to 0."""
    starts = rng.integers(0, 28, (len(images), 1, 1))
    rows = np.arange(28)[:, np.newaxis]
    return np.where((rows >= starts) & (rows < starts + 6), 0, images).astype(np.uint8)


def custom_parts() -> dict[str, Any]:
    """Return a network, an optimizer and an augmentation."""
    decay = keras.optimizers.schedules.CosineDecay(0.1, 80)
    optimizer = keras.optimizers.SGD(decay, momentum=0.9, nesterov=True)
    return {"network": residual_network, "optimizer": optimizer, "augment": erase}


def train(folder: Path, dataset: Dataset, is_custom: bool) -> None:
    """Start a run, or resume it."""
    parts = custom_parts() if is_custom else {}
    if (folder / "config.json").exists():
        training.resume(folder, dataset=dataset, **parts)
    else:
        training.train(CONFIG, dataset=dataset, folder=folder, **parts)


class Fault:
    """Kill this process when an atomic write of a file reaches an operation for the COUNT-th time."""

    def __init__(self, operation: str, file: str, count: int):
        self.operation, self.file, self.count = operation, file, count
        self.current_file, self.is_renamed = "", False
        self.path_open, self.os_fsync, self.os_replace = Path.open, os.fsync, os.replace

        def path_open(path, *arguments, **options):
            return self.open(path, *arguments, **options)

        Path.open, os.fsync, os.replace = path_open, self.fsync, self.replace

    def is_reached(self, operation: str) -> bool:
        if operation != self.operation or not self.current_file.startswith(f".{self.file}"):
            return False
        self.count -= 1
        return self.count == 0

    def open(self, path, mode="r", *arguments, **options):
        if mode != "xb":
            return self.path_open(path, mode, *arguments, **options)
        self.current_file, self.is_renamed = path.name, False
        return Halving(io.FileIO(path, "xb")) if self.is_reached("write") else self.path_open(path, "xb")

    def fsync(self, descriptor):
        if self.is_reached("sync the folder" if self.is_renamed else "sync"):
            die()
        self.os_fsync(descriptor)

    def replace(self, *arguments):
        if self.is_reached("rename"):
            die()
        self.os_replace(*arguments)
        self.is_renamed = True


class Halving(io.BufferedWriter):
    """A file that gets only half of its content, as in a power failure."""

    def write(self, content):
        super().write(content[: len(content) // 2])
        self.flush()
        die()


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    """Process requests until stdin ends."""
    NETWORKS[CONFIG.network] = NETWORKS["crashing"] = small_network  # by both names, a preset's
    dataset = fmnist.load(sys.argv[1])
    results = os.fdopen(os.dup(1), "w")
    print(json.dumps({"threads": threading.active_count()}), file=results, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        started = time.monotonic()
        child = os.fork()
        if child == 0:
            log = os.open(Path(request["run"]).with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(log, 1)
            os.dup2(log, 2)
            if fault := request.get("fault"):
                Fault(*fault)
            try:
                train(Path(request["run"]), dataset, request.get("is_custom", False))
            except BaseException as error:
                os.write(2, repr(error).encode())
                os._exit(1)
            os._exit(0)
        if (after := request.get("after")) is not None:
            time.sleep(after)
            # The process id is still that of the child, because only the call below waits for it.
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        result = {"status": os.waitstatus_to_exitcode(status), "seconds": time.monotonic() - started}
        print(json.dumps(result), file=results, flush=True)


main()
