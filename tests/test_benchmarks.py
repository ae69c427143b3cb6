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
        "--int8", "--data", small_folder, "--out", tmp_path / "result.json", "--json",
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
    assert abs(row["accuracy_int8_mean"] - row["accuracy_mean"]) < 0.05
    assert 10_000 < row["int8_bytes_max"] < 100_000
    assert list(document["matrix_product_peak"]) == ["float32"]


def test_inference(copied_run, small, tmp_path):
    from fmnist import quantise

    quantise.finish(copied_run, small)
    command = [
        sys.executable, BENCHMARKS / "inference.py", "--run", copied_run.folder, "--rounds", "1",
        "--out", tmp_path / "result.json", "--json",
    ]  # fmt: skip
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout.splitlines()[-1])
    assert document == json.loads((tmp_path / "result.json").read_text())
    asked = {(row["way"], row["views"], row["images"]) for row in document["results"]}
    ways = {
        ("keras", "single"),
        *((f"onnx {graph}", views) for graph in ("float", "int8") for views in ("single", "all")),
    }
    assert asked == {(*way, images) for way in ways for images in (1, 10, 100, 1_000)}
    for row in document["results"]:
        assert row["images_per_second"] == pytest.approx(1_000 * row["images"] / row["median_ms"])
        assert row["calls"] == (10 if row["images"] == 1 else 1)
    speed = {
        row["way"]: row["images_per_second"]
        for row in document["results"]
        if (row["views"], row["images"]) == ("single", 1_000)
    }
    assert document["times_keras"]["onnx int8"] == pytest.approx(speed["onnx int8"] / speed["keras"])
    seconds = {(row["way"], row["views"]): row["median_ms"] / 1_000 for row in document["views"]}
    assert {row["images"] for row in document["views"]} == {len(small.train_images)}
    assert document["views_add_seconds"]["onnx float"] == pytest.approx(
        seconds["onnx float", "all"] - seconds["onnx float", "single"]
    )
    shipped = [row for row in document["settings"] if not row["spinning"] and row["level"] == "ORT_ENABLE_ALL"]
    assert {row["way"] for row in shipped} == {"onnx float", "onnx int8"}
    assert [row["process"] for row in document["cold_starts"]][-1] == "fmnist predict"
    assert document["bytes"]["model-int8.onnx"] == document["int8"]["bytes"]
    assert document["commit"]
    assert document["processor"]


def test_crash(small_folder, tmp_path):
    command = [
        sys.executable, BENCHMARKS / "crash.py", "--kills", "1", "--preset", "textbook", "--epochs", "2", "--seed", "1",
        "--data", small_folder, "--out", tmp_path / "result.json", "--json",
    ]  # fmt: skip
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout.splitlines()[-1])
    assert document == json.loads((tmp_path / "result.json").read_text())
    assert (document["kills"], document["lost"], document["all_identical"]) == (1, 0, True)
    assert sum(len(chain["kills"]) for chain in document["chains"]) == 1


def test_every_kept_result_names_its_commit_and_versions():
    results = list((BENCHMARKS / "results").glob("*.json"))
    assert results
    for path in results:
        document = json.loads(path.read_text())
        assert document["commit"] != "unknown", path
        assert document["versions"]["keras"], path
        assert document["processor"], path


def test_serving(small_run, tmp_path):
    command = [
        sys.executable, BENCHMARKS / "serving.py", "--clients", "20", "--seconds", "3", "--run", small_run.folder,
        "--out", tmp_path / "result.json", "--json",
    ]  # fmt: skip
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    document = json.loads(done.stdout.splitlines()[-1])
    assert document == json.loads((tmp_path / "result.json").read_text())
    assert set(document["answers"]) <= {"200", "503"}
    assert document["answers"]["200"] > 20
    assert (document["wrong"], document["failures"], document["pictures"]) == (0, 0, 20)
    assert document["latency_ms_p50"] <= document["latency_ms_p95"]
    assert 50 < document["memory_mb"]["end"] <= document["memory_mb_peak"]
