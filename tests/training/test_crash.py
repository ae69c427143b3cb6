"""Runs that are killed with SIGKILL repeatedly have the same result as a run that is not."""

import itertools
import json
import logging
import random
import secrets
import subprocess
import sys
from pathlib import Path

import pytest

from fmnist.runs.run import open_run

log = logging.getLogger(__name__)

NUM_KILLS = 25
NUM_CUSTOM_KILLS = 10
FILES = (
    "config.json", "environment.json", "checkpoint-0001", "weights.safetensors", "checkpoint-0003", "history.csv",
    "curves.png", "model.onnx", "manifest.json",
)  # fmt: skip
OPERATIONS = ("write", "sync", "rename", "sync the folder")
AFTER_AN_EPOCH = {("weights.safetensors", "write"), ("history.csv", "write")}
"""A resumed run writes these files when it starts and after each epoch. Two of the kills are at the second write."""
KILLED = -9


class Trainer:
    """Starts trainings, and kills them on request; see crashing.py."""

    def __init__(self, data: Path):
        command = [sys.executable, Path(__file__).parent / "crashing.py", data]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert json.loads(self.process.stdout.readline()) == {"threads": 1}

    def train(self, folder: Path, **options) -> dict:
        """Start or resume a run, and wait until its process has ended. Options as in crashing.py."""
        self.process.stdin.write(json.dumps({"run": str(folder), **options}) + "\n")
        self.process.stdin.flush()
        result = json.loads(self.process.stdout.readline())
        assert result["status"] in {0, KILLED}, folder.with_suffix(".log").read_text()
        return result


@pytest.fixture(scope="module")
def trainer(small_folder):
    trainer = Trainer(small_folder)
    yield trainer
    trainer.process.stdin.close()
    trainer.process.stdout.close()
    assert trainer.process.wait(60) == 0


@pytest.fixture(scope="module")
def reference(trainer, tmp_path_factory):
    """The content of a run that was not killed, and its duration in seconds."""
    return train_undisturbed(trainer, tmp_path_factory.mktemp("reference") / "run")


def train_undisturbed(trainer: Trainer, folder: Path, **options) -> tuple[dict, float]:
    """Train without a kill. Return the content of the run and its duration in seconds."""
    result = trainer.train(folder, **options)
    assert result["status"] == 0
    return content(folder), result["seconds"]


def content(folder: Path) -> dict:
    """Return what has to be the same: the weights bit for bit, the history without durations, the names of files."""
    run = open_run(folder)
    assert run.status == "finished"
    return {
        "weights": run.weights_path.read_bytes(),
        "history": [{**row, "seconds": None} for row in run.history()],
        "files": sorted(path.name for path in folder.iterdir()),
    }


def test_run_killed_once_has_the_same_result(trainer, reference, tmp_path):
    folder = tmp_path / "run"
    assert trainer.train(folder, fault=("rename", "checkpoint-0003", 1))["status"] == KILLED
    assert trainer.train(folder)["status"] == 0
    assert content(folder) == reference[0]


@pytest.mark.slow
def test_run_killed_at_random_times_has_the_same_result(trainer, reference, tmp_path):
    kill_at_random_times(trainer, reference, tmp_path, NUM_KILLS)


@pytest.mark.slow
def test_own_network_killed_at_random_times_has_the_same_result(trainer, tmp_path):
    reference = train_undisturbed(trainer, tmp_path / "reference", is_custom=True)
    kill_at_random_times(trainer, reference, tmp_path, NUM_CUSTOM_KILLS, is_custom=True)


def kill_at_random_times(
    trainer: Trainer, reference: tuple[dict, float], tmp_path: Path, max_kills: int, **options
) -> None:
    """Kill, resume and compare, until there were so many kills."""
    expected, seconds = reference
    seed = secrets.randbelow(2**32)
    log.warning("times drawn with seed %d, up to %.1f s", seed, seconds)
    times = random.Random(seed)
    num_kills = num_runs = 0
    while num_kills < max_kills:
        num_runs += 1
        folder = tmp_path / f"run{num_runs}"
        while trainer.train(folder, after=times.uniform(0, 0.9 * seconds), **options)["status"] == KILLED:
            num_kills += 1
            if num_kills >= max_kills:
                trainer.train(folder, **options)
                break
        assert content(folder) == expected, f"seed {seed}, kill {num_kills}"
    log.warning("%d kills in %d runs", num_kills, num_runs)


@pytest.mark.slow
def test_run_killed_at_each_write_sync_and_rename_has_the_same_result(trainer, reference, tmp_path):
    folder = tmp_path / "run"
    for file, operation in itertools.product(FILES, OPERATIONS):
        count = 2 if (file, operation) in AFTER_AN_EPOCH else 1
        assert trainer.train(folder, fault=(operation, file, count))["status"] == KILLED, (operation, file)
    assert trainer.train(folder)["status"] == 0
    assert content(folder) == reference[0]
