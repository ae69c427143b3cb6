"""Each benchmark in its smallest form: untested means rotten."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


def test_time_to_accuracy(small_folder, tmp_path):
    command = [
        sys.executable, BENCHMARKS / "time_to_accuracy.py", "--preset", "textbook", "--seeds", "2", "--epochs", "1",
        "--data", small_folder, "--out", tmp_path / "result.json", "--json",
    ]  # fmt: skip
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout.splitlines()[-1])
    assert document == json.loads((tmp_path / "result.json").read_text())
    (row,) = document["results"]
    assert (row["preset"], row["seeds"]) == ("textbook", 2)
    assert len(document["yardstick_epochs"]) >= 5
    assert row["textbook_epochs"] == pytest.approx(row["seconds_mean"] / document["yardstick_seconds"])
    low, high = row["accuracy_interval_95"]
    assert low < row["accuracy_mean"] < high
    assert document["is_fashion_mnist"] is False
    assert 0 < row["peak_share"] < 1
    assert list(document["matrix_product_peak"]) == ["float32"]


def test_every_kept_result_names_its_commit_and_versions():
    results = list((BENCHMARKS / "results").glob("*.json"))
    assert results
    for path in results:
        document = json.loads(path.read_text())
        assert document["commit"] != "unknown", path
        assert document["versions"]["keras"], path
        assert document["processor"], path
