"""How quickly a trained model answers: python benchmarks/inference.py --run RUN.

The ways to ask are Keras' `predict` on the run's network (compiled, float32, single view, pixels scaled beforehand) and
`fmnist.Classifier` on the run's float and int8 graphs, in a single view and in all. They take turns, so that drift of a
shared machine hits all alike, and each has answered once, untimed, before its clock starts. Training images are asked
about; nothing here depends on what they show.
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
from provenance import keep, provenance

import fmnist
from fmnist.data import dataset as data
from fmnist.inference.classifier import session_options
from fmnist.models import networks as model
from fmnist.runs import environment
from fmnist.runs import run as runs

RESULTS = Path(__file__).parent / "results"
BATCHES = (1, 10, 100, 1_000)
"""Images a call."""
CALLS = 10
"""Calls a turn, except of the largest: for a 95th percentile worth the name, and because the first few after a pause
may take twice the time of the others (docs/log.md)."""
KERAS_BATCH_SIZES = (32, 100, 1_000)
"""The default of `predict`, the classifier's own, and all at once: for each call the quickest counts."""
NUM_ALL = 10_000
"""Images for the cost of the views: as many as there are test images."""
PAUSE = 0.02
"""Seconds before each way's turn, in which the threads of the one before fall asleep."""
LEVELS = ("ORT_DISABLE_ALL", "ORT_ENABLE_BASIC", "ORT_ENABLE_EXTENDED", "ORT_ENABLE_ALL")

Ask = Callable[[np.ndarray], Any]


@dataclass
class Timed:
    """A way to ask, a number of images, and how long each call took."""

    labels: dict[str, Any]
    """What the row of the result says besides the times."""
    ask: Ask
    images: np.ndarray
    num_calls: int = 1
    seconds: list[float] = field(default_factory=list)

    def take_turn(self) -> None:
        """Time further calls."""
        time.sleep(PAUSE)
        self.ask(self.images)
        for _ in range(self.num_calls):
            started = time.perf_counter()
            self.ask(self.images)
            self.seconds.append(time.perf_counter() - started)

    def row(self) -> dict[str, Any]:
        """Sum up the calls."""
        median = float(np.median(self.seconds))
        return {
            **self.labels,
            "calls": len(self.seconds),
            "median_ms": 1000 * median,
            "p95_ms": 1000 * float(np.percentile(self.seconds, 95)),
            "images_per_second": len(self.images) / median,
        }


def take_turns(timed: list[Timed], num_rounds: int) -> list[dict[str, Any]]:
    """Let each have its turn in every round; one row for each."""
    for _ in range(num_rounds):
        for one in timed:
            one.take_turn()
    return [one.row() for one in timed]


def classifier_ways(run: runs.Run) -> dict[tuple[str, str], Ask]:
    """Give the shipped ways, by graph and views."""
    graphs = {"float": fmnist.Classifier.load(run), "int8": fmnist.Classifier.load(run, int8=True)}
    views = {"single": True, "all": False}
    return {
        (graph, name): partial(classifier.predict, single_view=single_view)
        for graph, classifier in graphs.items()
        for name, single_view in views.items()
    }


def measure_ways(run: runs.Run, images: np.ndarray, num_rounds: int) -> list[dict[str, Any]]:
    """Time Keras and the shipped ways, from one image to a thousand."""
    network = model.load_model(run)
    network.compile()
    timed = []
    for batch in BATCHES:
        calls = CALLS if batch < max(BATCHES) else 1
        asked = images[:batch]
        for size in KERAS_BATCH_SIZES:
            labels = {"way": "keras", "views": "single", "images": batch, "batch_size": size}
            predict = partial(network.predict, batch_size=size, verbose=0)
            timed.append(Timed(labels, predict, data.normalise(asked), calls))
        for (graph, views), ask in classifier_ways(run).items():
            timed.append(Timed({"way": f"onnx {graph}", "views": views, "images": batch}, ask, asked, calls))
    best: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in take_turns(timed, num_rounds):
        key = (row["way"], row["views"], row["images"])
        best[key] = min(row, best.get(key, row), key=lambda other: float(other["median_ms"]))
    return list(best.values())


def measure_views(run: runs.Run, images: np.ndarray, num_rounds: int) -> list[dict[str, Any]]:
    """Time as many images as the test has, in a single view and in all."""
    timed = [
        Timed({"way": f"onnx {graph}", "views": views, "images": len(images)}, ask, images)
        for (graph, views), ask in classifier_ways(run).items()
    ]
    return take_turns(timed, num_rounds)


def measure_settings(run: runs.Run, images: np.ndarray, num_rounds: int) -> list[dict[str, Any]]:
    """Time sessions with other threads, waiting and graph levels than the classifier's own, single view."""
    all_threads = environment.num_processors()
    settings = [(threads, False, level) for threads in sorted({1, all_threads}) for level in LEVELS]
    settings.append((all_threads, True, "ORT_ENABLE_ALL"))
    timed = []
    for graph, file in (("float", "model.onnx"), ("int8", runs.INT8_FILE)):
        content = run.read_onnx(file)
        for threads, spinning, level in settings:
            options = session_options()
            options.intra_op_num_threads = threads
            options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spinning)))
            options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
            session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
            labels = {"way": f"onnx {graph}", "threads": threads, "spinning": spinning, "level": level}
            timed.append(Timed({**labels, "images": len(images)}, partial(ask_session, session), images, CALLS))
    return take_turns(timed, num_rounds)


def ask_session(session: onnxruntime.InferenceSession, images: np.ndarray) -> Any:
    """Ask for a single view."""
    return session.run(["probabilities"], {"images": images, "num_views": np.array(1, np.int32)})


def measure_cold_starts(run: runs.Run, image: np.ndarray, num_rounds: int) -> list[dict[str, Any]]:
    """Time whole processes: from the shell to the answer, and what of it are imports."""
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

        timed = [
            Timed({"process": name}, partial(start, command), image[np.newaxis]) for name, command in commands.items()
        ]
        rows = take_turns(timed, num_rounds)
    return [{name: value for name, value in row.items() if name != "images_per_second"} for row in rows]


def summarise(ways: list[dict[str, Any]], views: list[dict[str, Any]]) -> dict[str, Any]:
    """Work out how many times Keras' throughput the graphs have, single view, and what the views cost."""
    speed = {
        row["way"]: row["images_per_second"]
        for row in ways
        if (row["views"], row["images"]) == ("single", max(BATCHES))
    }
    seconds = {(row["way"], row["views"]): row["median_ms"] / 1000 for row in views}
    graphs = ("onnx float", "onnx int8")
    return {
        "times_keras": {graph: speed[graph] / speed["keras"] for graph in graphs},
        "views_add_seconds": {graph: seconds[graph, "all"] - seconds[graph, "single"] for graph in graphs},
    }


def main() -> None:
    """Measure, print tables for people and, with --json, one document as the last line of stdout."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--run", type=Path, help="a finished run with an int8 graph; the newest, if not named")
    parser.add_argument("--rounds", type=int, default=20, help="turns of each way")
    parser.add_argument("--out", type=Path, default=RESULTS / "inference.json")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()

    made_by = provenance()
    run = runs.open_run(arguments.run) if arguments.run else runs.newest_finished()
    manifest, images = run.manifest(), run.load_data().train_images[:NUM_ALL]
    few = max(1, arguments.rounds // 4)
    ways = measure_ways(run, images, arguments.rounds)
    views = measure_views(run, images, few)
    document = {
        "results": ways,
        **summarise(ways, views),
        "views": views,
        "settings": measure_settings(run, images[:100], arguments.rounds),
        "cold_starts": measure_cold_starts(run, images[0], max(1, arguments.rounds // 2)),
        "preset": run.config.preset,
        "parameters": manifest["parameters"],
        "num_views": len(manifest["views"]),
        "bytes": {file: (run.folder / file).stat().st_size for file in ("model.onnx", runs.INT8_FILE)},
        "int8": manifest["int8"],
        **made_by,
    }
    print_tables(document)
    keep(document, arguments.out, arguments.json)


def print_tables(document: dict[str, Any]) -> None:
    """Print what was measured, for people."""
    for row in document["results"]:
        print(
            f"{row['way']:10} {row['views']:>6} view  {row['images']:5} images: median {row['median_ms']:8.2f} ms, "
            f"p95 {row['p95_ms']:8.2f} ms, {row['images_per_second']:8.0f} images/s, n = {row['calls']}"
        )
    for row in document["settings"]:
        waiting = "spin" if row["spinning"] else "sleep"
        print(
            f"{row['way']:10} {row['threads']} threads that {waiting:5} {row['level']:20} "
            f"{row['images_per_second']:8.0f} images/s, {row['images']} a call, n = {row['calls']}"
        )
    for row in document["cold_starts"]:
        print(f"{row['process']:26} median {row['median_ms']:6.0f} ms, p95 {row['p95_ms']:6.0f} ms, n = {row['calls']}")
    for graph, times in document["times_keras"].items():
        added, num_all = document["views_add_seconds"][graph], document["views"][0]["images"]
        print(
            f"{graph}: {times:.1f} times Keras' predict, single view, {max(BATCHES):,} images; "
            f"{document['num_views']} views add {added:.2f} s to {num_all:,} images"
        )


if __name__ == "__main__":
    main()
