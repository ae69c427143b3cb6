"""Measure training time and test accuracy, in textbook epochs: python benchmarks/time_to_accuracy.py.

A *textbook epoch* is the unit of time: plain `model.fit` of the `textbook` network on NumPy arrays, float32, batch 128,
with accuracy, precision and recall, on all training images, without validation. Seconds on a shared machine mean
little; multiples of a textbook epoch are comparable. Textbook epochs are timed between the measured runs. The first one
is discarded.

The measured runs are a study (docs/study.md): each is a process of its own, on all processors. Its time is that of
`fmnist.train` with the data in memory, which includes metrics, augmentation, tracing, plots and checkpoints, and not
imports, export and evaluation. With `--study`, the same command continues after a kill, and the time of a resumed run
is the sum of its epochs. The FLOPs utilization is the FLOPs of the run (`flops.training_flops`) per second, divided by
the highest rate of matrix products in the same precision, measured before and after the runs. Every run reads the test
images once.
"""

import argparse
import json
import math
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import flops
import keras
import numpy as np
from provenance import describe_provenance, write_result
from scipy import stats

import fmnist
from fmnist.cli.study import watch
from fmnist.config import PRESETS
from fmnist.data.dataset import Dataset, normalize
from fmnist.errors import FmnistError
from fmnist.export.quantize import quantize_run
from fmnist.files import lock_folder
from fmnist.models.devices import choose_precision, device_name
from fmnist.models.networks import build_network
from fmnist.runs.environment import num_cpus
from fmnist.runs.run import INT8_FILE, Run
from fmnist.studies.plan import PlannedRun, StudyPlan, freeze_plan, make_plan, planned_runs
from fmnist.studies.study import run_study
from fmnist.training.epochs import one_hot

RESULTS = Path(__file__).parent / "results"
MIN_TEXTBOOK_EPOCHS = 5
TARGET = 0.94
TARGETS = (TARGET, 0.95, 0.96)


class TextbookEpochTimer:
    """The textbook network, and the duration of its epochs."""

    def __init__(self, dataset: Dataset):
        num_classes = len(dataset.class_names)
        self.images = normalize(dataset.train_images)
        self.labels = one_hot(dataset.train_labels, num_classes)
        self.network = build_network(PRESETS["textbook"], num_classes, "float32")
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
        self._train_epoch()

    def _train_epoch(self) -> float:
        started = time.perf_counter()
        self.network.fit(self.images, self.labels, batch_size=PRESETS["textbook"].batch_size, epochs=1, verbose=0)
        return time.perf_counter() - started

    def measure(self, num_epochs: int = 1) -> None:
        """Time further epochs."""
        self.seconds += [self._train_epoch() for _ in range(num_epochs)]


def run_planned(folder: Path, plan: StudyPlan, timer: TextbookEpochTimer) -> None:
    """Do the runs of a study one after another, and time a textbook epoch after each.

    Raises:
        FmnistError: if a run failed.
    """

    def rounds() -> Iterator[list[PlannedRun]]:
        for each in planned_runs(folder, plan):
            yield [each]
            timer.measure()

    with lock_folder(folder), ThreadPoolExecutor(1) as executor, watch() as on_change:
        state = run_study(plan, rounds(), executor, True, on_change)
    if failed := [f"{each.planned.name}: {each.error}" for each in state.runs if each.error]:
        raise FmnistError("; ".join(failed))


def read_record(planned: PlannedRun, dataset: Dataset, with_int8: bool) -> dict[str, Any]:
    """Return the record of a run, which is finished and evaluated.

    Args:
        planned: the run.
        dataset: its data.
        with_int8: export and evaluate the int8 graph too.
    """
    run = fmnist.open_run(planned.folder)
    evaluation = json.loads((run.folder / "evaluation.json").read_text())
    num_images = len(run.split(dataset).train_images)
    return {
        "seed": planned.config.seed,
        "accuracy": evaluation["accuracy"],
        "accuracy_single_view": evaluation["accuracy_single_view"],
        "precision": run.environment().precision,
        "training_flops": flops.training_flops(run, fmnist.load_model(run), num_images),
        "train_seconds": run.manifest().train_seconds,
        **(measure_int8(run, dataset) if with_int8 else {}),
    }


def measure_int8(run: Run, dataset: Dataset) -> dict[str, Any]:
    """Export the int8 graph of a run, and evaluate it on the same test images."""
    quantize_run(run, dataset)
    probabilities = fmnist.Classifier.load(run, int8=True).predict(dataset.test_images)
    accuracy = float((probabilities.argmax(axis=1) == dataset.test_labels).mean())
    return {"int8_bytes": (run.folder / INT8_FILE).stat().st_size, "accuracy_int8": accuracy}


def summarize(
    preset: str, records: list[dict[str, Any]], epoch_seconds: float, peaks: dict[str, float]
) -> dict[str, Any]:
    """Summarize the runs of a preset.

    Args:
        preset: a key of `PRESETS`.
        records: as `read_record` returns them.
        epoch_seconds: duration of a textbook epoch.
        peaks: precision to the machine's highest rate, in FLOPs per second.
    """
    accuracy = np.array([record["accuracy"] for record in records])
    seconds = np.array([record["train_seconds"] for record in records])
    mean, count = float(accuracy.mean()), len(accuracy)
    sd = float(accuracy.std(ddof=1)) if count > 1 else None
    standard_error = sd / math.sqrt(count) if sd else None
    half_width = float(stats.t.ppf(0.975, count - 1)) * standard_error if standard_error else None
    return {
        "preset": preset,
        "seeds": count,
        "accuracy_mean": mean,
        "accuracy_sd": sd,
        "accuracy_interval_95": [mean - half_width, mean + half_width] if half_width else None,
        # One-sided t-test of "the true mean is below 94 %". A small value is evidence for at least 94 %.
        "p_value_below_94": float(stats.t.sf((mean - TARGET) / standard_error, count - 1)) if standard_error else None,
        "accuracy_min": float(accuracy.min()),
        "single_view_mean": float(np.mean([record["accuracy_single_view"] for record in records])),
        "seconds_mean": float(seconds.mean()),
        "seconds_max": float(seconds.max()),
        "textbook_epochs": float(seconds.mean()) / epoch_seconds,
        "flops_utilization": records[0]["training_flops"] / float(seconds.mean()) / peaks[records[0]["precision"]],
        **summarize_int8(records),
        "runs": records,
    }


def summarize_int8(records: list[dict[str, Any]]) -> dict[str, Any]:
    """Summarize the int8 graphs of a preset. Returns no entries if they were not measured."""
    if "accuracy_int8" not in records[0]:
        return {}
    return {
        "int8_bytes_max": max(record["int8_bytes"] for record in records),
        "accuracy_int8_mean": float(np.mean([record["accuracy_int8"] for record in records])),
    }


def seconds_to(target: float, results: list[dict[str, Any]]) -> float | None:
    """Return the mean seconds of the fastest preset whose mean accuracy reaches a target. None if there is none."""
    return min((row["seconds_mean"] for row in results if row["accuracy_mean"] >= target), default=None)


def main() -> None:
    """Measure, print a table and, with --json, the result as the last line of stdout."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--preset", nargs="+", choices=PRESETS, default=["fast"])
    parser.add_argument("--seeds", type=int, default=3, help="runs of each preset, seeds 0, 1, ...")
    parser.add_argument("--full", action="store_true", help="train on all training images")
    parser.add_argument("--int8", action="store_true", help="also export and evaluate the int8 graph of every run")
    parser.add_argument("--epochs", type=int, help="instead of the preset's number")
    parser.add_argument("--data", type=Path, help="another data set of the same format")
    parser.add_argument("--study", type=Path, help="folder to keep the runs in")
    parser.add_argument("--out", type=Path, default=RESULTS / "time_to_accuracy.json")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()

    provenance = describe_provenance()
    dataset = fmnist.load(arguments.data)
    changes = {"full": arguments.full} | ({"epochs": arguments.epochs} if arguments.epochs else {})
    precisions = {choose_precision(PRESETS[preset].precision) for preset in arguments.preset}
    peaks_before = {precision: flops.peak_flops_per_second(precision) for precision in precisions}
    timer = TextbookEpochTimer(dataset)
    timer.measure()
    with tempfile.TemporaryDirectory(prefix="fmnist-") as scratch:
        folder = arguments.study or Path(scratch) / "study"
        cores, backend = num_cpus(), keras.backend.backend()
        plan = make_plan(arguments.preset, {}, arguments.seeds, cores, backend, dataset, **changes)
        plan = freeze_plan(folder, plan)  # the versions are those of the first time
        run_planned(folder, plan, timer)
        records: dict[str, list[dict[str, Any]]] = {preset: [] for preset in arguments.preset}
        for planned in planned_runs(folder, plan):
            records[planned.configuration].append(read_record(planned, dataset, arguments.int8))
    timer.measure(max(0, MIN_TEXTBOOK_EPOCHS - len(timer.seconds)))
    epoch_seconds = float(np.median(timer.seconds))
    peaks = {precision: max(peak, flops.peak_flops_per_second(precision)) for precision, peak in peaks_before.items()}
    results = [summarize(preset, rows, epoch_seconds, peaks) for preset, rows in records.items()]
    result = {
        "results": results,
        "seconds_to": {f"{target:.0%}": seconds_to(target, results) for target in TARGETS},
        "peak_flops_per_second": peaks,
        "textbook_epoch_seconds": epoch_seconds,
        "textbook_epoch_seconds_min": min(timer.seconds),
        "textbook_epoch_seconds_all": timer.seconds,
        "full": arguments.full,
        "is_fashion_mnist": dataset.is_fashion_mnist,
        "backend": keras.backend.backend(),
        "device": device_name(),
        **provenance,
    }
    print_table(result)
    write_result(result, arguments.out, arguments.json)


def print_table(result: dict[str, Any]) -> None:
    """Print the result as a table."""
    epoch_seconds = result["textbook_epoch_seconds_all"]
    print(
        f"textbook epoch: median {result['textbook_epoch_seconds']:.2f} s, {min(epoch_seconds):.2f} to "
        f"{max(epoch_seconds):.2f} s over {len(epoch_seconds)}"
    )
    for row in result["results"]:
        sd = f" (sd {row['accuracy_sd']:.2%})" if row["accuracy_sd"] is not None else ""
        print(
            f"{row['preset']}: {row['accuracy_mean']:.2%}{sd}, single view {row['single_view_mean']:.2%}, "
            f"{row['seconds_mean']:.1f} s = {row['textbook_epochs']:.1f} textbook epochs, "
            f"FLOPs utilization {row['flops_utilization']:.0%}, n = {row['seeds']}"
        )
    for target, seconds in result["seconds_to"].items():
        print(f"{target}: {f'{seconds:.1f} s' if seconds else 'not reached'}")


if __name__ == "__main__":
    main()
