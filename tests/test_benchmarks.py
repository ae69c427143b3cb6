"""Every benchmark in its smallest form."""

import dataclasses
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from sklearn.exceptions import ConvergenceWarning

import fmnist
from fmnist.data.dataset import write_folder

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.mark.parametrize("script", [path.name for path in BENCHMARKS.glob("*.py")])
def test_benchmark_can_be_imported(script, monkeypatch):
    """Notices names that the package no longer has. The slow tests run each benchmark."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    module = runpy.run_path(str(BENCHMARKS / script))
    assert module["__doc__"]


def run_benchmark(script, *arguments, environment=None):
    """Run a benchmark as a process that has to succeed, and return the result that it wrote and printed."""
    command = [sys.executable, BENCHMARKS / script, *arguments, "--json"]
    done = subprocess.run([str(word) for word in command], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    if "--out" in arguments:
        assert result == json.loads(arguments[arguments.index("--out") + 1].read_text())
    return result


@pytest.mark.slow
def test_time_to_accuracy(small_folder, tmp_path):
    result = run_benchmark(
        "time_to_accuracy.py", "--preset", "textbook", "--seeds", "2", "--epochs", "1", "--int8",
        "--data", small_folder, "--study", tmp_path / "study", "--out", tmp_path / "result.json",
    )  # fmt: skip
    (row,) = result["results"]
    assert len([*tmp_path.glob("study/runs/textbook-seed-*/evaluation.json")]) == 2
    assert (row["preset"], row["seeds"]) == ("textbook", 2)
    assert len(result["textbook_epoch_seconds_all"]) >= 5
    assert row["textbook_epochs"] == pytest.approx(row["seconds_mean"] / result["textbook_epoch_seconds"])
    low, high = row["accuracy_interval_95"]
    assert low < row["accuracy_mean"] < high
    assert result["is_fashion_mnist"] is False
    assert 0 < row["flops_utilization"] < 1
    assert abs(row["accuracy_int8_mean"] - row["accuracy_mean"]) < 0.05
    assert 10_000 < row["int8_bytes_max"] < 100_000
    assert list(result["peak_flops_per_second"]) == ["float32"]


@pytest.mark.parametrize(("target", "seconds"), [(0.93, 20), (0.94, 30), (0.95, 90), (0.96, None)])
def test_seconds_to_target_are_those_of_the_fastest_preset(target, seconds, monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    from time_to_accuracy import seconds_to

    means = [(0.951, 100), (0.95, 90), (0.94, 30), (0.939, 20)]
    results = [{"accuracy_mean": accuracy, "seconds_mean": mean} for accuracy, mean in means]
    assert seconds_to(target, results) == seconds


WITHOUT_TENSORFLOW = """
import sys
from importlib.abc import MetaPathFinder

class Missing(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"tensorflow", "tf2onnx", "sklearn", "cv2"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
"""


@pytest.mark.slow
def test_gpu_benchmark_is_rehearsed_on_a_cpu_without_tensorflow(small, tmp_path):
    few = dataclasses.replace(small, train_images=small.train_images[:120], train_labels=small.train_labels[:120])
    data = tmp_path / "data"
    write_folder(few, data)
    (tmp_path / "sitecustomize.py").write_text(WITHOUT_TENSORFLOW)
    result = run_benchmark(
        "gpu.py", "--data", data, "--fast-seeds", "2", "--best-seeds", "2", "--variant-seeds", "1", "--epochs", "1",
        "--batch-size", "24", "--rehearse", "--out", tmp_path / "result.json",
        environment={**os.environ, "PYTHONPATH": str(tmp_path), "JAX_PLATFORMS": "cpu"},
    )  # fmt: skip
    assert result == json.loads((tmp_path / "result.json").read_text())
    assert len(result["results"]) == 6
    for row in result["results"].values():
        assert row["seeds"] == row["seeds_planned"]
        assert 0 < row["accuracy_mean"] <= 1
        for run in row["runs"]:
            assert run["train_seconds"] > run["compile_seconds"] + run["device_seconds"] > 0
    for name in ("fast", "best"):
        row = result["results"][name]
        assert row["warm"]["compile_seconds"]["mean"] < row["cold"]["compile_seconds"]


def test_a_benchmark_on_a_gpu_ends_in_time(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import gpu

    now = [0.0]
    monkeypatch.setattr(gpu.time, "perf_counter", lambda: now[0])
    benchmark = gpu.Benchmark(None, {"results": {}}, tmp_path / "result.json", seconds=25)

    def run(config, graph):
        now[0] += 10
        return {"accuracy": 0.9, "accuracy_single_view": 0.8, "all_seconds": 10, **dict.fromkeys(gpu.CLOCKS, 1.0)}, None

    monkeypatch.setattr(benchmark, "_run", run)
    benchmark.measure("fast", fmnist.Config.from_preset("fast"), 5)
    row = json.loads((tmp_path / "result.json").read_text())["results"]["fast"]
    assert (row["seeds"], row["seeds_planned"]) == (2, 5)
    benchmark.measure("best", fmnist.Config.from_preset("best"), 1)  # would take as long as the first run of `fast`
    assert list(benchmark.result["results"]) == ["fast"]


@pytest.mark.slow
def test_ablation(small_folder, tmp_path):
    result = run_benchmark(
        "ablation.py", "--tricks", "whitening", "tta", "--seeds", "2", "--epochs", "1", "--data", small_folder,
        "--out", tmp_path / "result.json",
    )  # fmt: skip
    assert {row["trick"] for row in result["tricks"]} == {"whitening", "tta"}
    for row in result["tricks"]:
        gains = [100 * (a - b) for a, b in zip(result["accuracies"], row["accuracies"], strict=True)]
        assert row["gain_mean"] == pytest.approx(sum(gains) / 2)
        low, high = row["gain_interval_95"]
        assert low <= row["gain_mean"] <= high
    assert len(result["accuracies"]) == 2


@pytest.mark.slow
def test_inference(copied_run, small, tmp_path):
    from fmnist.export.plain import export_plain
    from fmnist.export.quantize import quantize_run

    quantize_run(copied_run, small)
    export_plain(copied_run)
    result = run_benchmark(
        "inference.py", "--run", copied_run.folder, "--rounds", "1", "--out", tmp_path / "result.json"
    )
    measured = {(row["runtime"], row["views"], row["images"]) for row in result["results"]}
    runtimes = {("keras", "single"), ("onnx float", "single"), ("onnx float", "all"), ("onnx int8", "all")}
    assert measured == {(*runtime, images) for runtime in runtimes for images in (1, 10, 100, 1_000)}
    for row in result["results"]:
        assert row["images_per_second"] == pytest.approx(1_000 * row["images"] / row["median_ms"])
        assert row["calls"] == (1 if row["images"] == 1_000 else 10)
    speed = {
        row["runtime"]: row["images_per_second"]
        for row in result["results"]
        if (row["views"], row["images"]) == ("single", 1_000)
    }
    assert result["speedup_over_keras"] == pytest.approx(speed["onnx float"] / speed["keras"])
    seconds = {(row["runtime"], row["views"]): row["median_ms"] / 1_000 for row in result["views"]}
    assert {row["images"] for row in result["views"]} == {len(small.train_images)}
    assert result["tta_added_seconds"]["onnx float"] == pytest.approx(
        seconds["onnx float", "all"] - seconds["onnx float", "single"]
    )
    as_shipped = [row for row in result["settings"] if row["spinning"] and row["level"] == "ORT_ENABLE_ALL"]
    assert {row["runtime"] for row in as_shipped} == {"onnx plain", "onnx float", "onnx int8"}
    assert [row["process"] for row in result["cold_starts"]][-1] == "fmnist predict"
    assert result["bytes"]["model-int8.onnx"] == result["int8"]["bytes"]
    assert result["commit"]
    assert result["processor"]


@pytest.mark.slow
def test_crash(small_folder, tmp_path):
    result = run_benchmark(
        "crash.py", "--kills", "1", "--preset", "textbook", "--epochs", "2", "--seed", "1", "--data", small_folder,
        "--out", tmp_path / "result.json",
    )  # fmt: skip
    assert (result["num_kills"], result["num_lost"], result["all_identical"]) == (1, 0, True)
    assert sum(len(run["kills"]) for run in result["runs"]) == 1


@pytest.mark.slow
def test_predict_parts(tmp_path):
    result = run_benchmark(
        "predict_parts.py", "--pictures", "6500", "--kills", "1", "--jobs", "1", "--out", tmp_path / "result.json"
    )
    (row,) = result["results"]
    assert (row["num_answered_once"], row["num_lost"], row["is_identical"]) == (6500, 0, True)
    assert row["num_repeated_pictures"] <= 1_000


@pytest.fixture
def photos(tmp_path):
    """Ten dark rectangles on a light background, labeled trousers, and four ellipses, labeled hats."""
    folder = tmp_path / "photos"
    folder.mkdir()
    lines = ["file,category,accepted_classes"]
    for number in range(14):
        picture = Image.new("RGB", (90, 120), (230, 220, 200 + number))
        draw = ImageDraw.Draw(picture)
        shape, category, classes = (draw.rectangle, "pants", "1 3") if number < 10 else (draw.ellipse, "hat", "")
        shape((30, 10, 60, 110), fill=(20, 30, 40 + number))
        picture.save(folder / f"{number:03}.png")
        lines.append(f"{number:03}.png,{category},{classes}")
    (folder / "labels.csv").write_text("\n".join(lines))
    return folder


def fail_photos(*arguments):
    """Run the benchmark of photos, which has to fail, and return stderr."""
    command = [sys.executable, BENCHMARKS / "photos.py", *arguments]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    return done.stderr


@pytest.mark.slow
def test_photos(small_run, photos, tmp_path):
    result = run_benchmark("photos.py", photos, "--model", small_run.folder, "--out", tmp_path / "result.json")
    assert (result["num_photos"], result["num_in_scope"], result["clean"]) == (14, 10, "test")
    classifier = fmnist.Classifier.load(small_run)
    predictions = [classifier.classify(photos / f"{number:03}.png") for number in range(14)]
    in_scope, out_of_scope = predictions[:10], predictions[10:]
    num_correct = sum(prediction.class_index in (1, 3) for prediction in in_scope)
    assert result["macro_accuracy"] == result["accuracy"] == pytest.approx(num_correct / 10)
    pairs = [
        (a.confidence > b.confidence) + 0.5 * (a.confidence == b.confidence) for a in in_scope for b in out_of_scope
    ]
    assert result["out_of_scope_auroc"] == pytest.approx(sum(pairs) / len(pairs))
    assert result["coverage"] == pytest.approx(sum(prediction.accepted for prediction in in_scope) / 10)
    for name in ("clean_accuracy", "clean_accepted", "digits_accepted", "noise_auroc", "negatives_auroc", "ece"):
        assert 0 <= result[name] <= 1
    low, high = result["intervals_95"]["macro_accuracy"]
    assert low <= result["macro_accuracy"] <= high


def test_photos_of_training_use_validation_images(small_run, photos):
    result = run_benchmark("photos.py", photos, "--model", small_run.folder, "--part", "train")
    assert result["clean"] == "validation"


def test_photos_report_an_empty_part(small_run, photos):
    (photos / "labels.csv").write_text("file,category,accepted_classes\n")
    message = fail_photos(photos, "--model", small_run.folder, "--part", "held-out")
    assert "has no photos in its part held-out" in message


def test_photos_report_missing_labels_in_one_line(small_run, tmp_path):
    message = fail_photos(tmp_path, "--model", small_run.folder)
    assert message.count("\n") == 1
    assert "labels.csv is missing" in message


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_matrix_products_are_timed_in_both_precisions(precision, monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    from flops import matmul_flops_per_second

    assert matmul_flops_per_second(64, precision) > 0


def test_every_kept_result_has_commit_and_versions():
    results = list((BENCHMARKS / "results").rglob("*.json"))
    assert results
    for path in results:
        result = json.loads(path.read_text())
        assert re.fullmatch("[0-9a-f]{12}", result["commit"]), path
        assert result["versions"]["keras"], path
        assert result["processor"], path


@pytest.mark.slow
def test_serving(small_run, tmp_path):
    result = run_benchmark(
        "serving.py", "--clients", "20", "--seconds", "3", "--run", small_run.folder, "--out", tmp_path / "result.json"
    )
    assert result["passed"]
    assert set(result["responses"]) <= {"200", "503"}
    assert result["responses"]["200"] > 20
    assert (result["wrong"], result["failures"], result["pictures"]) == (0, 0, 20)
    assert result["latency_ms_p50"] <= result["latency_ms_p95"]
    assert 50 < result["memory_mb"]["end"] <= result["memory_mb_peak"]


def test_leaderboard(small_folder, tmp_path, monkeypatch):
    """Trained and scored on a subset; then the page is built from that result and those of the presets."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.syspath_prepend(BENCHMARKS.parent / "scripts")
    import build_leaderboard
    import leaderboard

    arguments = ["logistic-regression", "--data", small_folder, "--out", tmp_path / "leaderboard"]
    monkeypatch.setattr(sys, "argv", ["leaderboard.py", *map(str, arguments)])
    with pytest.warns(ConvergenceWarning):
        leaderboard.main()
    path = tmp_path / "leaderboard" / "logistic-regression.json"
    result = json.loads(path.read_text())
    assert (result["title"], result["parameters"], result["n"]) == ("scikit-learn LogisticRegression", 7_850, 1)
    assert result["command"] == "python benchmarks/leaderboard.py logistic-regression"
    assert result["score"]["num_images"] == 200
    assert result["score"]["accuracy"] > 0.7
    assert result["textbook_epochs"] == pytest.approx(
        result["train_seconds"] / min(result["textbook_epoch_seconds_all"])
    )
    assert result["commit"]
    assert result["processor"]

    with pytest.raises(SystemExit, match="is a result on other data than Fashion-MNIST"):
        build_leaderboard.read_results(tmp_path)
    for number in range(10):
        changed = {**result, "is_fashion_mnist": True, "title": f"model {number}", "epochs_changed": number == 9}
        changed["score"] = {**result["score"], "accuracy": 0.8 + number / 100}
        path.with_name(f"{number}.json").write_text(json.dumps(changed))
    path.unlink()
    shutil.copy(BENCHMARKS / "results" / "time_to_accuracy.json", tmp_path)
    rows = build_leaderboard.read_results(tmp_path)
    page = build_leaderboard.build_page(rows)
    lines = [line for line in page.splitlines() if line.startswith("| ")][1:]
    assert [line.split(" | ")[0] for line in lines] == [
        "| fmnist, preset `fast`", "| model 9, None epochs", *(f"| model {number}" for number in range(8, 0, -1))
    ]  # fmt: skip
    assert " | 94.17 % | 93.69 to 94.61 | 10 | 247,308 | 5.3 | `fmnist train --preset fast --full` |" in lines[0]
    assert "at most 10 rows: model 0 (80.00 %)." in page


def test_leaderboard_is_built_from_the_kept_results(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS.parent / "scripts")
    import build_leaderboard

    page = build_leaderboard.build_page(build_leaderboard.read_results(build_leaderboard.RESULTS))
    assert build_leaderboard.PAGE.read_text(encoding="utf-8") == page


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("keras-convnet", 34_826), ("tensorflow-dense", 101_770), ("pytorch-mlp", 669_706), ("resnet20", 270_810)],
)
def test_networks_of_the_leaderboard_have_the_published_size(name, parameters, small, monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import leaderboard

    chosen = np.arange(0, 1_200, 40)
    few = dataclasses.replace(small, train_images=small.train_images[chosen], train_labels=small.train_labels[chosen])
    trained = leaderboard.ENTRIES[name].train(few, 1, 0)
    assert (trained.parameters, trained.epochs) == (parameters, 1)
    assert trained.predict(small.test_images[:7]).shape == (7, 10)


def test_augmentation_of_the_leaderboard_cuts_and_mirrors(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    from leaderboard import augment

    image = np.zeros((28, 28), np.uint8)
    image[14, 5] = 9
    images = augment(np.repeat(image[None], 500, axis=0), np.random.default_rng(0))
    _, rows, columns = np.nonzero(images)
    assert len(rows) == 500
    assert {*rows} == {*range(10, 19)}
    assert {*columns} == {*range(1, 10), *range(18, 27)}


@pytest.mark.slow
def test_study_on_a_cluster_survives_kills(small_folder, tmp_path):
    result = run_benchmark(
        "study_kills.py", "--kills", "4", "--runs", "1", "--pause", "6", "--data", small_folder,
        "--out", tmp_path / "result.json",
    )  # fmt: skip
    assert result["kills"] == dict.fromkeys(("run", "worker", "study", "scheduler"), 1)
    assert result["same_weights_and_results"] is True
