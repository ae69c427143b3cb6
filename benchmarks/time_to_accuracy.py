"""How long training takes and how good it gets, in textbook epochs: python benchmarks/time_to_accuracy.py.

The yardstick is the *textbook epoch*: plain `model.fit` of the `textbook` network on NumPy arrays, float32, batch 128,
accuracy, precision and recall, every training image, no validation. Seconds on a shared machine mean little; multiples
of a textbook epoch hold. The yardstick's epochs are interleaved with the timed runs, and its first one is discarded.

A timed run is `fmnist.train`, the function that the command line calls, with the data in memory: its clock includes
metrics, augmentation, tracing, plots and checkpoints; export and evaluation are timed apart.
The share of the peak is the run's arithmetic (`arithmetic.training_operations`) by its time, against the best rate of
matrix products of the same precision, measured before and after the runs. Every run reads the test images once.

With KERAS_BACKEND=jax all of it, the yardstick too, runs under JAX, on a GPU where JAX finds one (`make bench-gpu`).
There the seconds count; multiples of a textbook epoch do not compare with those under TensorFlow.
"""

import argparse
import math
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import arithmetic
import keras
import numpy as np
from provenance import keep, provenance
from scipy import stats

import fmnist
from fmnist.config import PRESETS
from fmnist.data import dataset as data
from fmnist.export import quantize as quantise
from fmnist.models import networks as model
from fmnist.runs import run as runs

RESULTS = Path(__file__).parent / "results"
MIN_YARDSTICK_EPOCHS = 5
TARGET = 0.94
TARGETS = (TARGET, 0.95, 0.96)
CONFIGURATIONS = {
    **PRESETS,
    # For a GPU: the recipe of `best` with six times the arithmetic an image and three times the epochs. It is meant to
    # reach 96.6 %, and has not been trained to its end yet (docs/log.md).
    "wide": replace(PRESETS["best"], preset="wide", network="whitened_wide", epochs=200),
}


class Yardstick:
    """The textbook network, and how long its epochs take."""

    def __init__(self, dataset: data.Dataset):
        num_classes = len(dataset.class_names)
        self.images = data.normalise(dataset.train_images)
        self.labels = data.one_hot(dataset.train_labels, num_classes)
        self.network = model.build(PRESETS["textbook"], num_classes, "float32")
        self.network.compile(
            optimizer="adam",
            loss="categorical_crossentropy",
            metrics=[
                "accuracy",
                keras.metrics.Precision(name="precision"),
                keras.metrics.Recall(name="recall"),
            ],
        )
        self.seconds: list[float] = []
        self._epoch()

    def _epoch(self) -> float:
        started = time.perf_counter()
        self.network.fit(self.images, self.labels, batch_size=PRESETS["textbook"].batch_size, epochs=1, verbose=0)
        return time.perf_counter() - started

    def measure(self, num_epochs: int = 1) -> None:
        """Time further epochs."""
        self.seconds += [self._epoch() for _ in range(num_epochs)]


def measure(
    preset: str, seeds: int, options: dict[str, Any], dataset: data.Dataset, yardstick: Yardstick, with_int8: bool
) -> list[Any]:
    """Train and score a preset for seeds 0, 1, ...; one record a run."""
    records = []
    for seed in range(seeds):
        config = replace(CONFIGURATIONS[preset], seed=seed, **options)
        with tempfile.TemporaryDirectory(prefix="fmnist-") as folder:
            started = time.perf_counter()
            run = fmnist.train(config, dataset=dataset, folder=folder)
            train_seconds = run.manifest()["train_seconds"]
            export_seconds = time.perf_counter() - started - train_seconds
            started = time.perf_counter()
            evaluation = fmnist.evaluate(run, seed=0)
            records.append(
                {
                    "seed": seed,
                    "accuracy": evaluation["accuracy"],
                    "accuracy_single_view": evaluation["accuracy_single_view"],
                    "precision": run.environment()["precision"],
                    "operations": arithmetic.training_operations(
                        run, fmnist.load_model(run), len(data.split(dataset, seed, config.full).train_images)
                    ),
                    "train_seconds": train_seconds,
                    "export_seconds": export_seconds,
                    "evaluate_seconds": time.perf_counter() - started,
                    **(measure_int8(run, dataset) if with_int8 else {}),
                }
            )
        yardstick.measure()
        print(f"{preset} seed {seed}: {records[-1]['accuracy']:.2%} in {train_seconds:.1f} s", file=sys.stderr)
    return records


def measure_int8(run: runs.Run, dataset: data.Dataset) -> dict[str, Any]:
    """Export a run's int8 graph, and score it on the same test images."""
    int8_bytes = quantise.finish(run, dataset)["int8"]["bytes"]
    answers = fmnist.Classifier.load(run, int8=True).predict(dataset.test_images)
    accuracy = float((answers.argmax(axis=1) == dataset.test_labels).mean())
    return {"int8_bytes": int8_bytes, "accuracy_int8": accuracy}


def summarise(
    preset: str, records: list[dict[str, Any]], epoch_seconds: float, peaks: dict[str, float]
) -> dict[str, Any]:
    """Sum up the runs of a preset.

    Args:
        preset: its name in `CONFIGURATIONS`.
        records: what `measure` gave.
        epoch_seconds: the yardstick, seconds a textbook epoch.
        peaks: by precision, operations a second.
    """
    accuracy = np.array([record["accuracy"] for record in records])
    seconds = np.array([record["train_seconds"] for record in records])
    mean, count = float(accuracy.mean()), len(accuracy)
    spread = float(accuracy.std(ddof=1)) if count > 1 else None
    error = spread / math.sqrt(count) if spread else None
    half = float(stats.t.ppf(0.975, count - 1)) * error if error else None
    return {
        "preset": preset,
        "seeds": count,
        "accuracy_mean": mean,
        "accuracy_sd": spread,
        "accuracy_interval_95": [mean - half, mean + half] if half else None,
        # one-sided: how likely so high a mean is if the true one is below 94 %; small speaks for "at least 94 %"
        "p_value_below_94": float(stats.t.sf((mean - TARGET) / error, count - 1)) if error else None,
        "accuracy_min": float(accuracy.min()),
        "single_view_mean": float(np.mean([record["accuracy_single_view"] for record in records])),
        "seconds_mean": float(seconds.mean()),
        "seconds_max": float(seconds.max()),
        "textbook_epochs": float(seconds.mean()) / epoch_seconds,
        "peak_share": records[0]["operations"] / float(seconds.mean()) / peaks[records[0]["precision"]],
        **summarise_int8(records),
        "runs": records,
    }


def summarise_int8(records: list[dict[str, Any]]) -> dict[str, Any]:
    """Sum up the int8 graphs of a preset, if they were measured."""
    if "accuracy_int8" not in records[0]:
        return {}
    return {
        "int8_bytes_max": max(record["int8_bytes"] for record in records),
        "accuracy_int8_mean": float(np.mean([record["accuracy_int8"] for record in records])),
    }


def seconds_to(target: float, results: list[dict[str, Any]]) -> float | None:
    """Give the mean seconds of the quickest preset whose mean accuracy reaches a target; None if there is none."""
    return min((row["seconds_mean"] for row in results if row["accuracy_mean"] >= target), default=None)


def main() -> None:
    """Measure, print a table for people and, with --json, one document as the last line of stdout."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--preset", nargs="+", choices=CONFIGURATIONS, default=["fast"])
    parser.add_argument("--seeds", type=int, default=3, help="runs of each preset, seeds 0, 1, ...")
    parser.add_argument("--full", action="store_true", help="train on all training images")
    parser.add_argument("--int8", action="store_true", help="export and score the int8 graph of every run as well")
    parser.add_argument("--epochs", type=int, help="instead of each preset's own")
    parser.add_argument("--data", type=Path, help="another data set of the same format")
    parser.add_argument("--out", type=Path, default=RESULTS / "time_to_accuracy.json")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()

    made_by = provenance()
    dataset = fmnist.load(arguments.data)
    options = {"full": arguments.full, "data": str(arguments.data.absolute()) if arguments.data else None}
    if arguments.epochs:
        options["epochs"] = arguments.epochs
    precisions = {model.choose_precision(CONFIGURATIONS[preset].precision) for preset in arguments.preset}
    before = {precision: arithmetic.matrix_product_peak(precision) for precision in precisions}
    yardstick = Yardstick(dataset)
    yardstick.measure()
    measured = {
        preset: measure(preset, arguments.seeds, options, dataset, yardstick, arguments.int8)
        for preset in arguments.preset
    }
    yardstick.measure(max(0, MIN_YARDSTICK_EPOCHS - len(yardstick.seconds)))
    epoch_seconds = float(np.median(yardstick.seconds))
    peaks = {precision: max(before[precision], arithmetic.matrix_product_peak(precision)) for precision in precisions}
    results = [summarise(preset, records, epoch_seconds, peaks) for preset, records in measured.items()]
    document = {
        "results": results,
        "seconds_to": {f"{target:.0%}": seconds_to(target, results) for target in TARGETS},
        "matrix_product_peak": peaks,
        "yardstick_seconds": epoch_seconds,
        "yardstick_seconds_min": min(yardstick.seconds),
        "yardstick_epochs": yardstick.seconds,
        "full": arguments.full,
        "is_fashion_mnist": dataset.is_fashion_mnist,
        "backend": keras.backend.backend(),
        "device": model.device_name(),
        **made_by,
    }
    print(
        f"textbook epoch: median {epoch_seconds:.2f} s, {min(yardstick.seconds):.2f} to "
        f"{max(yardstick.seconds):.2f} s over {len(yardstick.seconds)}"
    )
    for row in document["results"]:
        spread = f" (sd {row['accuracy_sd']:.2%})" if row["accuracy_sd"] is not None else ""
        print(
            f"{row['preset']}: {row['accuracy_mean']:.2%}{spread}, single view {row['single_view_mean']:.2%}, "
            f"{row['seconds_mean']:.1f} s = {row['textbook_epochs']:.1f} textbook epochs, "
            f"{row['peak_share']:.0%} of the peak, n = {row['seeds']}"
        )
    for target, seconds in document["seconds_to"].items():
        print(f"{target}: {f'{seconds:.1f} s' if seconds else 'not reached'}")
    keep(document, arguments.out, arguments.json)


if __name__ == "__main__":
    main()
