"""Runs that are killed with SIGKILL, again and again, and end as if nothing had happened."""

import itertools
import json
import logging
import random
import secrets
import subprocess
import sys
from pathlib import Path

import pytest

from fmnist.data import formats as idx
from fmnist.runs import run as runs

log = logging.getLogger(__name__)

NUM_KILLS = 25
FILES = (
    "config.json", "environment.json", "checkpoint-0001", "weights.safetensors", "checkpoint-0003", "history.csv",
    "curves.png", "model.onnx", "manifest.json",
)  # fmt: skip
OPERATIONS = ("write", "sync", "rename", "sync the folder")
AFTER_AN_EPOCH = {("weights.safetensors", "write"), ("history.csv", "write")}
"""These files are written when a run is taken up, and again when an epoch is over, which two of the kills wait for."""
KILLED = -9


class Trainers:
    """Processes that train, each to be killed or not; see crashing.py."""

    def __init__(self, data: Path):
        command = [sys.executable, Path(__file__).parent / "crashing.py", data]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert json.loads(self.process.stdout.readline()) == {"threads": 1}

    def run(self, folder: Path, **wanted) -> dict:
        self.process.stdin.write(json.dumps({"run": str(folder), **wanted}) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        assert answer["status"] in {0, KILLED}, folder.with_suffix(".log").read_text()
        return answer


@pytest.fixture(scope="module")
def trainers(small_folder):
    trainers = Trainers(small_folder)
    yield trainers
    trainers.process.stdin.close()
    trainers.process.stdout.close()
    assert trainers.process.wait(60) == 0


@pytest.fixture(scope="module")
def reference(trainers, tmp_path_factory):
    """What a run that nobody kills leaves, and how long it takes."""
    folder = tmp_path_factory.mktemp("reference") / "run"
    answer = trainers.run(folder)
    assert answer["status"] == 0
    return result(folder), answer["seconds"]


def result(folder: Path) -> dict:
    """What must be the same to the bit: weights, history but for the time, and that nothing is left lying about."""
    run = runs.open_run(folder)
    assert run.is_complete
    return {
        "weights": idx.sha256(run.weights_path.read_bytes()),
        "history": [{**row, "seconds": None} for row in run.history()],
        "files": sorted(path.name for path in folder.iterdir()),
    }


def test_a_run_killed_at_any_moment_ends_the_same(trainers, reference, tmp_path):
    expected, seconds = reference
    seed = secrets.randbelow(2**32)
    log.warning("moments drawn by seed %d, up to %.1f s", seed, seconds)
    moments = random.Random(seed)
    num_kills = num_runs = 0
    while num_kills < NUM_KILLS:
        num_runs += 1
        folder = tmp_path / f"run{num_runs}"
        while trainers.run(folder, after=moments.uniform(0, 0.9 * seconds))["status"] == KILLED:
            num_kills += 1
            if num_kills >= NUM_KILLS:
                trainers.run(folder)
                break
        assert result(folder) == expected, f"seed {seed}, kill {num_kills}"
    log.warning("%d kills in %d runs", num_kills, num_runs)


def test_a_run_killed_at_each_write_sync_and_renaming_ends_the_same(trainers, reference, tmp_path):
    folder = tmp_path / "run"
    for file, operation in itertools.product(FILES, OPERATIONS):
        count = 2 if (file, operation) in AFTER_AN_EPOCH else 1
        assert trainers.run(folder, fault=(operation, file, count))["status"] == KILLED, (operation, file)
    assert trainers.run(folder)["status"] == 0
    assert result(folder) == reference[0]
