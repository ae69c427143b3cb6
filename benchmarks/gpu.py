"""Time training on a GPU under JAX: make bench-gpu, or KERAS_BACKEND=jax python benchmarks/gpu.py.

Three clocks, in seconds:
- `train`: what `fmnist.train` takes, with the data in memory and without the export: building the network, compilation,
  augmentation, metrics, curves and checkpoints included;
- `compile`: compiling the programs of the epochs, which is part of it;
- `device`: running these programs, from their start until their results are there.

The first run of a configuration is cold: the programs of its epochs are in no cache. Later configurations reuse what
the process has compiled for building networks. All other runs are warm, in the same process: their programs come from a
cache, which is empty at the beginning. The accuracy is that of the graph that would be exported, in float32 under JAX:
the export itself needs TensorFlow. Every run reads the test images once. The result file is written after each run. No
run is started that is expected to end after `--seconds`.
"""

import argparse
import atexit
import json
import math
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

if __name__ == "__main__":
    os.environ["KERAS_BACKEND"] = "jax"
    programs = os.environ["FMNIST_PROGRAM_CACHE"] = tempfile.mkdtemp(prefix="fmnist-programs-")
    atexit.register(shutil.rmtree, programs, ignore_errors=True)
    for name in ("JAX_COMPILATION_CACHE_DIR", "JAX_ENABLE_COMPILATION_CACHE"):
        os.environ.pop(name, None)

import jax
import keras
import numpy as np
from msgspec.structs import replace
from provenance import BUNDLED_COMMIT, describe_provenance, write_result

import fmnist
from fmnist.config import BATCH_SIZE, PRESETS, Config
from fmnist.data.dataset import Dataset, split_dataset
from fmnist.export.graph import CompleteGraph
from fmnist.models import layers, networks
from fmnist.models.custom import CustomParts
from fmnist.models.devices import device_name, is_on_gpu
from fmnist.models.weights import set_weights
from fmnist.runs.run import create_run
from fmnist.training import checkpoints, train

RESULT = Path(__file__).parent / "results" / "gpu.json"
BUNDLED_DATA = BUNDLED_COMMIT.parent / "data"
PREDICTION_BATCH = 500
CLOCKS = ("train_seconds", "compile_seconds", "device_seconds")

FORMER: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "whitening by convolution": lambda: patch.object(networks, "SummedConv2D", keras.layers.Conv2D),
    "max pooling by JAX": lambda: patch.object(networks, "WindowMaxPooling2D", keras.layers.MaxPooling2D),
    "moments in two passes": lambda: patch.object(layers, "batch_moments", two_pass_moments),
}
"""Each part of the arithmetic as it was before it was written for a GPU."""


def two_pass_moments(inputs: Any) -> tuple[Any, Any]:
    """Return mean and variance as Keras computes them."""
    return keras.ops.moments(keras.ops.cast(inputs, "float32"), axes=(0, 1, 2))


class Benchmark:
    """The measurements so far, and their file."""

    def __init__(self, dataset: Dataset, result: dict[str, Any], out: Path, seconds: float):
        self.dataset, self.result, self.out = dataset, result, out
        self.end = time.perf_counter() + seconds
        self.first_runs: list[float] = []
        """Seconds of the first run of each configuration so far, with compilation and prediction."""

    def measure(self, name: str, config: Config, seeds: int, former: AbstractContextManager[Any] | None = None) -> None:
        """Train a configuration with seeds 0, 1, ..., and add its summary to the result."""
        records: list[dict[str, Any]] = []
        graph: CompleteGraph | None = None
        with former or nullcontext():
            for seed in range(seeds):
                longest = max((each["all_seconds"] for each in records[1:] or records), default=0.0)
                expected = longest if records else max(self.first_runs, default=0.0)
                if time.perf_counter() + expected > self.end:
                    print(f"{name}: stopped after {seed} of {seeds} runs, the time is over", file=sys.stderr)
                    break
                record, graph = self._run(replace(config, seed=seed), graph)
                records.append(record)
                self.first_runs += [record["all_seconds"]] if seed == 0 else []
                self.result["results"][name] = {"seeds_planned": seeds, **summarize(records)}
                write_result(self.result, self.out, as_json=False)
                print(f"{name}, seed {seed}: {format_record(record)}", file=sys.stderr)

    def _run(self, config: Config, graph: CompleteGraph | None) -> tuple[dict[str, Any], CompleteGraph]:
        """Train once as `fmnist.train` does but for the export, and read the test images.

        Args:
            config: what to train.
            graph: of another seed, which is compiled already.

        Returns:
            The record of the run, and the graph.
        """
        dataset = self.dataset
        began = time.perf_counter()
        with tempfile.TemporaryDirectory(prefix="fmnist-") as folder:
            started = time.perf_counter()
            config = config.resolve(is_fashion_mnist=True, on_gpu=True)
            split = split_dataset(dataset, config.seed, config.full)
            trained = train.fit(create_run(config, Path(folder) / "run"), dataset, split, None, CustomParts())
            train_seconds = time.perf_counter() - started
        if graph is None:  # not before the training, whose clock counts the building of a network
            num_classes = len(dataset.class_names)
            network = networks.build_network(config, num_classes, "float32")
            graph = CompleteGraph(network, config.tta_views, 1.0, num_classes)
        set_weights(graph.network, trained.weights, Path("the run"))
        with jax.default_matmul_precision("highest"):  # float32, as ONNX Runtime computes; a GPU would take less
            outputs = graph.predict(dataset.test_images, batch_size=PREDICTION_BATCH, verbose=0)
        accuracy, single_view = (
            float((outputs[name].argmax(axis=1) == dataset.test_labels).mean())
            for name in ("probabilities", "probabilities_single_view")
        )
        record = {
            "seed": config.seed,
            "accuracy": accuracy,
            "accuracy_single_view": single_view,
            "precision": trained.precision,
            "train_seconds": train_seconds,
            **trained.seconds,
            "epoch_seconds": [row["seconds"] for row in trained.history],
            "all_seconds": time.perf_counter() - began,
        }
        return record, graph


def summarize(records: list[dict[str, Any]]) -> dict[str, Any]:
    """Summarize the runs of a configuration: the first one is cold, the others are warm."""
    accuracy = [record["accuracy"] for record in records]
    cold, *warm = records
    return {
        "seeds": len(records),
        "accuracy_mean": float(np.mean(accuracy)),
        "accuracy_sd": float(np.std(accuracy, ddof=1)) if len(accuracy) > 1 else None,
        "accuracy_min": min(accuracy),
        "single_view_mean": float(np.mean([record["accuracy_single_view"] for record in records])),
        "cold": {clock: cold[clock] for clock in CLOCKS},
        "warm": {
            clock: {
                "mean": float(np.mean([record[clock] for record in warm])),
                "min": min(record[clock] for record in warm),
                "max": max(record[clock] for record in warm),
            }
            for clock in CLOCKS
        }
        if warm
        else None,
        "runs": records,
    }


def format_record(record: dict[str, Any]) -> str:
    """Format the accuracy and the clocks of a run."""
    clocks = ", ".join(f"{clock.removesuffix('_seconds')} {record[clock]:.3f} s" for clock in CLOCKS)
    return f"{record['accuracy']:.2%}, {clocks}"


def print_table(result: dict[str, Any]) -> None:
    """Print the result as a table."""
    print(f"{result['device']}, JAX {result['versions'].get('jax')}, n = number of seeds, seconds")
    print(f"{'':34}{'n':>4}{'accuracy':>10}{'sd':>7}{'train cold':>12}{'warm':>8}{'compile':>9}{'device':>9}")
    for name, row in result["results"].items():
        warm = (
            {clock: row["warm"][clock]["mean"] for clock in CLOCKS} if row["warm"] else dict.fromkeys(CLOCKS, math.nan)
        )
        sd = f"{row['accuracy_sd']:.2%}" if row["accuracy_sd"] is not None else "-"
        print(
            f"{name:34}{row['seeds']:>4}{row['accuracy_mean']:>10.2%}{sd:>7}{row['cold']['train_seconds']:>12.2f}"
            f"{warm['train_seconds']:>8.2f}{row['cold']['compile_seconds']:>9.2f}{warm['device_seconds']:>9.3f}"
        )


def main() -> None:
    """Measure `fast` and `best`, then `fast` with smaller batches, and with each part of the arithmetic as it was."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--fast-seeds", type=int, default=20)
    parser.add_argument("--best-seeds", type=int, default=5)
    parser.add_argument("--variant-seeds", type=int, default=3, help="runs of each variant of `fast`")
    parser.add_argument("--seconds", type=float, default=450, help="for everything but the imports")
    parser.add_argument("--epochs", type=int, help="instead of the presets' numbers")
    parser.add_argument("--batch-size", type=int, help="instead of the presets' numbers")
    parser.add_argument("--data", type=Path, default=BUNDLED_DATA if BUNDLED_DATA.is_dir() else None)
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--rehearse", action="store_true", help="on a CPU, with any data")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()

    dataset = fmnist.load(arguments.data)
    if not arguments.rehearse and not (is_on_gpu() and dataset.is_fashion_mnist):
        raise SystemExit(
            f"JAX has {jax.devices()}, and the data is {dataset}; expected a GPU and Fashion-MNIST. --rehearse goes "
            "through all parts elsewhere"
        )
    result = {
        "results": {},
        "is_fashion_mnist": dataset.is_fashion_mnist,
        "device": device_name(),
        "num_devices": jax.device_count(),
        **describe_provenance(),
    }
    # A tree that travels without its history, or with an older one, is that of the bundle.
    if arguments.data == BUNDLED_DATA and result["commit"].endswith("-dirty"):
        result["commit"] = BUNDLED_COMMIT.read_text().strip()
    benchmark = Benchmark(dataset, result, arguments.out, arguments.seconds)
    given = {"epochs": arguments.epochs, "batch_size": arguments.batch_size}
    changes: dict[str, Any] = {"full": True} | {name: value for name, value in given.items() if value}
    fast, best = (replace(PRESETS[name], **changes) for name in ("fast", "best"))
    if arguments.rehearse:
        for module in (train, checkpoints):
            patch.object(module, "is_on_gpu", lambda: True).start()
    try:
        benchmark.measure("fast", fast, arguments.fast_seeds)
        benchmark.measure("best", best, arguments.best_seeds)
        benchmark.measure("fast, batches of 512", replace(fast, batch_size=BATCH_SIZE), arguments.variant_seeds)
        for name, former in FORMER.items():
            benchmark.measure(f"fast, {name}", fast, arguments.variant_seeds, former())
    finally:
        print_table(result)
    if arguments.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
