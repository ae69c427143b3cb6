"""Measure the latency and throughput of predictions: python benchmarks/inference.py --run RUN.

Compared are Keras' `predict` on the run's network (compiled, float32, single view, pixels scaled beforehand) and
`fmnist.Classifier` on the run's plain graph (a single view), and on its float and int8 graphs (all views). They take
turns, so that drift of a shared machine affects all of them, and each makes one untimed call before it is timed. The
inputs are training images; the times do not depend on their content.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image
from provenance import describe_provenance, write_result

import fmnist
from fmnist.data.dataset import normalize
from fmnist.inference.runtime import session_options
from fmnist.runs.environment import num_cpus
from fmnist.runs.folders import newest_finished_run
from fmnist.runs.run import Run, open_run
from fmnist.runs.schemas import GRAPH_FILE, INT8_FILE, PLAIN_FILE

RESULTS = Path(__file__).parent / "results"
BATCHES = (1, 10, 100, 1_000)
"""Images per call."""
CALLS = 10
"""Calls per turn, except with the largest batch. A 95th percentile needs many calls, and the first few after a pause
can take twice the time of the others (docs/log.md)."""
KERAS_BATCH_SIZES = (32, 100, 1_000)
"""The default of `predict`, that of `Classifier`, and all images at once. For each call the fastest one counts."""
NUM_ALL = 10_000
"""Images for the cost of all views: the number of Fashion-MNIST's test images."""
PAUSE = 0.02
"""Seconds before each turn, in which the threads of the one before go to sleep."""
LEVELS = ("ORT_DISABLE_ALL", "ORT_ENABLE_BASIC", "ORT_ENABLE_EXTENDED", "ORT_ENABLE_ALL")

Predict = Callable[[np.ndarray], Any]


@dataclass
class Measurement:
    """A function that predicts images, and the duration of each call."""

    labels: dict[str, Any]
    """Entries of the result's row besides the times."""
    predict: Predict
    images: np.ndarray
    num_calls: int = 1
    seconds: list[float] = field(default_factory=list)

    def take_turn(self) -> None:
        """Time further calls."""
        time.sleep(PAUSE)
        self.predict(self.images)
        for _ in range(self.num_calls):
            started = time.perf_counter()
            self.predict(self.images)
            self.seconds.append(time.perf_counter() - started)

    def row(self) -> dict[str, Any]:
        """Summarize the calls."""
        median = float(np.median(self.seconds))
        return {
            **self.labels,
            "calls": len(self.seconds),
            "median_ms": 1000 * median,
            "p95_ms": 1000 * float(np.percentile(self.seconds, 95)),
            "images_per_second": len(self.images) / median,
        }


def measure_in_turns(measurements: list[Measurement], num_rounds: int) -> list[dict[str, Any]]:
    """Give each measurement a turn in every round; return a row for each."""
    for _ in range(num_rounds):
        for measurement in measurements:
            measurement.take_turn()
    return [measurement.row() for measurement in measurements]


def classifier_functions(run: Run) -> dict[tuple[str, str], Predict]:
    """Return `Classifier.predict` for each graph and number of views."""
    return {
        ("float", "single"): fmnist.Classifier.load(run.folder / PLAIN_FILE).predict,
        ("float", "all"): fmnist.Classifier.load(run).predict,
        ("int8", "all"): fmnist.Classifier.load(run, int8=True).predict,
    }


def measure_batches(run: Run, images: np.ndarray, num_rounds: int) -> list[dict[str, Any]]:
    """Time Keras and `Classifier` with one to a thousand images per call."""
    network = fmnist.load_model(run)
    network.compile()
    measurements = []
    for batch in BATCHES:
        calls = CALLS if batch < max(BATCHES) else 1
        inputs = images[:batch]
        for size in KERAS_BATCH_SIZES:
            labels = {"runtime": "keras", "views": "single", "images": batch, "batch_size": size}
            keras_predict = partial(network.predict, batch_size=size, verbose=0)
            measurements.append(Measurement(labels, keras_predict, normalize(inputs), calls))
        for (graph, views), predict in classifier_functions(run).items():
            labels = {"runtime": f"onnx {graph}", "views": views, "images": batch}
            measurements.append(Measurement(labels, predict, inputs, calls))
    best: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in measure_in_turns(measurements, num_rounds):
        key = (row["runtime"], row["views"], row["images"])
        best[key] = min(row, best.get(key, row), key=lambda other: float(other["median_ms"]))
    return list(best.values())


def measure_views(run: Run, images: np.ndarray, num_rounds: int) -> list[dict[str, Any]]:
    """Time `Classifier` on all images, with a single view and with all."""
    measurements = [
        Measurement({"runtime": f"onnx {graph}", "views": views, "images": len(images)}, predict, images)
        for (graph, views), predict in classifier_functions(run).items()
    ]
    return measure_in_turns(measurements, num_rounds)


def measure_settings(run: Run, images: np.ndarray, num_rounds: int) -> list[dict[str, Any]]:
    """Time sessions with other threads, spinning and graph levels than those of `Classifier`."""
    all_threads = num_cpus()
    settings = [(threads, False, level) for threads in sorted({1, all_threads}) for level in LEVELS]
    settings.append((all_threads, True, "ORT_ENABLE_ALL"))
    measurements = []
    for graph, file in (("plain", PLAIN_FILE), ("float", GRAPH_FILE), ("int8", INT8_FILE)):
        content = (run.folder / file).read_bytes()
        for threads, spinning, level in settings:
            options = session_options()
            options.intra_op_num_threads = threads
            options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spinning)))
            options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
            session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
            labels = {"runtime": f"onnx {graph}", "threads": threads, "spinning": spinning, "level": level}
            predict = partial(predict_probabilities, session)
            measurements.append(Measurement({**labels, "images": len(images)}, predict, images, CALLS))
    return measure_in_turns(measurements, num_rounds)


def predict_probabilities(session: onnxruntime.InferenceSession, images: np.ndarray) -> Any:
    """Compute the probabilities of images with a bare session."""
    return session.run(["probabilities"], {"images": images})


def measure_cold_starts(run: Run, image: np.ndarray, num_rounds: int) -> list[dict[str, Any]]:
    """Time whole processes: `fmnist predict` and, for comparison, imports alone."""
    with tempfile.TemporaryDirectory(prefix="fmnist-") as folder:
        picture = Path(folder) / "picture.png"
        Image.fromarray(image).save(picture)
        commands = {
            "python alone": ["-c", "pass"],
            "import fmnist.inference.classifier": ["-c", "import fmnist.inference.classifier"],
            "import keras": ["-c", "import keras"],
            "fmnist predict": ["-m", "fmnist", "predict", str(picture), "--model", str(run.folder)],
        }

        def start(command: list[str], _: np.ndarray) -> None:
            subprocess.run([sys.executable, *command], check=True, capture_output=True)

        measurements = [
            Measurement({"process": name}, partial(start, command), image[np.newaxis])
            for name, command in commands.items()
        ]
        rows = measure_in_turns(measurements, num_rounds)
    return [{name: value for name, value in row.items() if name != "images_per_second"} for row in rows]


def summarize(batches: list[dict[str, Any]], views: list[dict[str, Any]]) -> dict[str, Any]:
    """Compute the speedup of the plain graph over Keras, and the seconds that all views add to it.

    Args:
        batches: as `measure_batches` returns them.
        views: as `measure_views` returns them.
    """
    speed = {
        row["runtime"]: row["images_per_second"]
        for row in batches
        if (row["views"], row["images"]) == ("single", max(BATCHES))
    }
    seconds = {(row["runtime"], row["views"]): row["median_ms"] / 1000 for row in views}
    single = seconds["onnx float", "single"]
    return {
        "speedup_over_keras": speed["onnx float"] / speed["keras"],
        "tta_added_seconds": {graph: seconds[graph, "all"] - single for graph in ("onnx float", "onnx int8")},
    }


def main() -> None:
    """Measure, print tables and, with --json, the result as the last line of stdout."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--run", type=Path, help="a finished run with int8 and plain graphs; the newest by default")
    parser.add_argument("--rounds", type=int, default=20, help="turns of each measurement")
    parser.add_argument("--out", type=Path, default=RESULTS / "inference.json")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()

    provenance = describe_provenance()
    run = open_run(arguments.run) if arguments.run else newest_finished_run()
    manifest, images = run.manifest(), run.load_data().train_images[:NUM_ALL]
    batches = measure_batches(run, images, arguments.rounds)
    views = measure_views(run, images, max(1, arguments.rounds // 4))
    result = {
        "results": batches,
        **summarize(batches, views),
        "views": views,
        "settings": measure_settings(run, images[:100], arguments.rounds),
        "cold_starts": measure_cold_starts(run, images[0], max(1, arguments.rounds // 2)),
        "preset": run.config.preset,
        "parameters": manifest.parameters,
        "num_views": len(manifest.tta_views),
        "bytes": {file: (run.folder / file).stat().st_size for file in (GRAPH_FILE, INT8_FILE, PLAIN_FILE)},
        "int8": manifest.to_json()["int8"],
        **provenance,
    }
    print_tables(result)
    write_result(result, arguments.out, arguments.json)


def print_tables(result: dict[str, Any]) -> None:
    """Print the measurements as tables."""
    for row in result["results"]:
        print(
            f"{row['runtime']:10} {row['views']:>6} view  {row['images']:5} images: median {row['median_ms']:8.2f} ms, "
            f"p95 {row['p95_ms']:8.2f} ms, {row['images_per_second']:8.0f} images/s, n = {row['calls']}"
        )
    for row in result["settings"]:
        waiting = "spin" if row["spinning"] else "sleep"
        print(
            f"{row['runtime']:10} {row['threads']} threads that {waiting:5} {row['level']:20} "
            f"{row['images_per_second']:8.0f} images/s, {row['images']} per call, n = {row['calls']}"
        )
    for row in result["cold_starts"]:
        print(f"{row['process']:34} median {row['median_ms']:6.0f} ms, p95 {row['p95_ms']:6.0f} ms, n = {row['calls']}")
    num_all = result["views"][0]["images"]
    print(f"single view: {result['speedup_over_keras']:.1f} times Keras' predict, {max(BATCHES):,} images")
    for graph, added in result["tta_added_seconds"].items():
        print(f"{graph}: {result['num_views']} views add {added:.2f} s to {num_all:,} images")


if __name__ == "__main__":
    main()
