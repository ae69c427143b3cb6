"""A process that has everything imported, and forks trainers to be killed: python crashing.py DATA.

Importing TensorFlow takes longer than all the training here, so one process does it and a fork of it, which is a
process of its own, trains by the real trainer. The fork comes before TensorFlow starts a thread.

Each line of stdin asks for one trainer: `{"run": FOLDER, "after": SECONDS}` kills it from outside after that time,
`{"run": FOLDER, "fault": [OPERATION, FILE, COUNT]}` has it kill itself at the given write, sync or renaming of a file
whose name begins so. With neither it comes to its end. The answer is `{"status": EXIT STATUS, "seconds": TIME}`.
"""

import io
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import keras

import fmnist
from fmnist.config import CENTRE, Config
from fmnist.data.dataset import Dataset
from fmnist.models import networks as model
from fmnist.models.layers import FusedBatchNormalization
from fmnist.training import train as training

CONFIG = Config.from_preset("fast", epochs=4, batch_size=64, views=(CENTRE,), cutmix=0.5, seed=7)
"""The trainer, the optimizer and the choice of images of `fast`, and the mixing of `best`."""


def network(num_classes: int) -> keras.Sequential:
    """As small as it can be with all that has a state: normalisation, dropout, a kernel for Muon, a bias for Adam."""
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            keras.layers.MaxPooling2D(2, name="pool"),
            keras.layers.Conv2D(8, 3, use_bias=False, name="conv"),
            FusedBatchNormalization(name="norm"),
            keras.layers.ReLU(name="relu"),
            keras.layers.Dropout(0.3, name="dropout"),
            keras.layers.GlobalMaxPooling2D(name="global_pool"),
            keras.layers.Dense(num_classes, name="head"),
            keras.layers.Softmax(dtype="float32", name="softmax"),
        ],
        name="crashing",
    )


def train(folder: Path, dataset: Dataset) -> None:
    """Begin a run, or go on with it."""
    if (folder / "config.json").exists():
        training.resume(folder, dataset=dataset)
    else:
        training.train(CONFIG, dataset=dataset, folder=folder)


class KillAt:
    """Have this process killed at the count-th time that an atomic write of a file comes to an operation."""

    def __init__(self, operation: str, file: str, count: int):
        self.operation, self.file, self.count = operation, file, count
        self.written, self.is_renamed = "", False
        self.open, self.fsync, self.replace = Path.open, os.fsync, os.replace

        def opened(path, *arguments, **options):
            return self.opened(path, *arguments, **options)

        Path.open, os.fsync, os.replace = opened, self.synced, self.replaced

    def meet(self, operation: str) -> bool:
        self.count -= operation == self.operation and self.written.startswith(f".{self.file}")
        return operation == self.operation and self.count == 0 and self.written.startswith(f".{self.file}")

    def opened(self, path, mode="r", *arguments, **options):
        if mode != "xb":
            return self.open(path, mode, *arguments, **options)
        self.written, self.is_renamed = path.name, False
        return Halving(io.FileIO(path, "xb")) if self.meet("write") else self.open(path, "xb")

    def synced(self, descriptor):
        if self.meet("sync the folder" if self.is_renamed else "sync"):
            die()
        self.fsync(descriptor)

    def replaced(self, *arguments):
        if self.meet("rename"):
            die()
        self.replace(*arguments)
        self.is_renamed = True


class Halving(io.BufferedWriter):
    """A file that gets half of what is written, as at a loss of power."""

    def write(self, content):
        super().write(content[: len(content) // 2])
        self.flush()
        die()


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    """Serve until stdin ends."""
    model.BUILDERS[CONFIG.network] = network
    dataset = fmnist.load(sys.argv[1])
    answers = os.fdopen(os.dup(1), "w")
    print(json.dumps({"threads": threading.active_count()}), file=answers, flush=True)
    for line in sys.stdin:
        wanted = json.loads(line)
        started = time.monotonic()
        child = os.fork()
        if child == 0:
            log = os.open(Path(wanted["run"]).with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(log, 1)
            os.dup2(log, 2)
            if fault := wanted.get("fault"):
                KillAt(*fault)
            try:
                train(Path(wanted["run"]), dataset)
            except BaseException as error:
                os.write(2, repr(error).encode())
                os._exit(1)
            os._exit(0)
        if (after := wanted.get("after")) is not None:
            time.sleep(after)
            os.kill(child, signal.SIGKILL)  # a zombie at worst: it is waited for below alone
        _, status = os.waitpid(child, 0)
        answer = {"status": os.waitstatus_to_exitcode(status), "seconds": time.monotonic() - started}
        print(json.dumps(answer), file=answers, flush=True)


main()
