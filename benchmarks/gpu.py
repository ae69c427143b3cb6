"""Time training on a GPU under JAX: make bench-gpu, or KERAS_BACKEND=jax python benchmarks/gpu.py.

Three clocks, in seconds:
- `train`: what `fmnist.train` takes, with the data in memory and without the export: building the network, compilation,
  augmentation, metrics, curves and checkpoints included;
- `compile`: compiling the programs of the epochs, which is part of it;
- `device`: running these programs, from their start until their results are there.

The first run of a configuration is cold: its programs are in no cache. All others are warm: their programs come from a
cache that is emptied before the benchmark. The accuracy is that of the graph that would be exported, in float32 under
JAX: the export itself needs TensorFlow. Every run reads the test images once. The result file is written after each
run. No run is started that would end after `--seconds`.
"""

import argparse
import json
import math
import os
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
    os.environ["FMNIST_PROGRAM_CACHE"] = tempfile.mkdtemp(prefix="fmnist-programs-")

import jax
import keras
import numpy as np
from msgspec.structs import replace
from provenance import describe_provenance, write_result

import fmnist
from fmnist.config import PRESETS, Config
from fmnist.data.dataset import Dataset, split_dataset
from fmnist.export.graph import CompleteGraph
from fmnist.models import layers, muon, networks
from fmnist.models.custom import CustomParts
from fmnist.models.devices import device_name
from fmnist.models.weights import set_weights
from fmnist.runs.run import create_run
from fmnist.training import train

RESULT = Path(__file__).parent / "results" / "gpu.json"
BUNDLED_DATA = Path(__file__).parents[1] / "build" / "gpu" / "data"
PREDICTION_BATCH = 500
CLOCKS = ("train_seconds", "compile_seconds", "device_seconds")

FORMER: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "max pooling by JAX": lambda: patch.object(networks, "StridedMaxPooling2D", keras.layers.MaxPooling2D),
    "moments in two passes": lambda: patch.object(layers, "batch_moments", two_pass_moments),
    "Newton-Schulz in float32": lambda: patch.object(muon, "is_on_gpu", lambda: False),
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

    def measure(self, name: str, config: Config, seeds: int, former: AbstractContextManager[Any] | None = None) -> None:
        """Train a configuration with seeds 0, 1, ..., and add its summary to the result."""
        records: list[dict[str, Any]] = []
        with former or nullcontext():
            graph = self._graph(config)
            for seed in range(seeds):
                # The longest run so far tells how long the next one can take.
                if time.perf_counter() + max((each["all_seconds"] for each in records), default=0) > self.end:
                    print(f"{name}: stopped after {seed} of {seeds} runs, the time is over", file=sys.stderr)
                    break
                records.append(self._run(replace(config, seed=seed), graph))
                self.result["results"][name] = {"seeds_planned": seeds, **summarize(records)}
                write_result(self.result, self.out, as_json=False)
                print(f"{name}, seed {seed}: {format_record(records[-1])}", file=sys.stderr)

    def _graph(self, config: Config) -> CompleteGraph:
        num_classes = len(self.dataset.class_names)
        network = networks.build_network(config, num_classes, "float32")
        return CompleteGraph(network, config.for_data(True).tta_views, 1.0, num_classes)

    def _run(self, config: Config, graph: CompleteGraph) -> dict[str, Any]:
        """Train once as `fmnist.train` does but for the export, and read the test images."""
        dataset = self.dataset
        began = time.perf_counter()
        with tempfile.TemporaryDirectory(prefix="fmnist-") as folder:
            started = time.perf_counter()
            config = config.for_data(is_fashion_mnist=True)
            split = split_dataset(dataset, config.seed, config.full)
            trained = train.fit(create_run(config, Path(folder) / "run"), dataset, split, None, CustomParts())
            train_seconds = time.perf_counter() - started
        set_weights(graph.network, trained.weights, Path("the run"))
        with jax.default_matmul_precision("highest"):  # float32, as ONNX Runtime computes; a GPU would take less
            outputs = graph.predict(dataset.test_images, batch_size=PREDICTION_BATCH, verbose=0)
        accuracy, single_view = (
            float((outputs[name].argmax(axis=1) == dataset.test_labels).mean())
            for name in ("probabilities", "probabilities_single_view")
        )
        return {
            "seed": config.seed,
            "accuracy": accuracy,
            "accuracy_single_view": single_view,
            "precision": trained.precision,
            "train_seconds": train_seconds,
            **trained.seconds,
            "epoch_seconds": [row["seconds"] for row in trained.history],
            "all_seconds": time.perf_counter() - began,
        }


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
    """Measure `fast` and `best`, then `fast` with each part of the arithmetic as it was, and with larger batches."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--fast-seeds", type=int, default=20)
    parser.add_argument("--best-seeds", type=int, default=5)
    parser.add_argument("--variant-seeds", type=int, default=3, help="runs of each variant of `fast`")
    parser.add_argument("--seconds", type=float, default=450, help="for everything but the imports")
    parser.add_argument("--epochs", type=int, help="instead of the presets' numbers")
    parser.add_argument("--batch-size", type=int, help="instead of the presets' numbers")
    parser.add_argument("--data", type=Path, default=BUNDLED_DATA if BUNDLED_DATA.is_dir() else None)
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()

    dataset = fmnist.load(arguments.data)
    result = {
        "results": {},
        "is_fashion_mnist": dataset.is_fashion_mnist,
        "device": device_name(),
        "num_devices": jax.device_count(),
        **describe_provenance(),
    }
    benchmark = Benchmark(dataset, result, arguments.out, arguments.seconds)
    given = {"epochs": arguments.epochs, "batch_size": arguments.batch_size}
    changes: dict[str, Any] = {"full": True} | {name: value for name, value in given.items() if value}
    fast, best = (replace(PRESETS[name], **changes) for name in ("fast", "best"))
    # Elsewhere than on a GPU this is a rehearsal, of the same programs.
    patch.object(train, "is_on_gpu", lambda: True).start()
    benchmark.measure("fast", fast, arguments.fast_seeds)
    benchmark.measure("best", best, arguments.best_seeds)
    benchmark.measure("fast, batches of 1000", replace(fast, batch_size=1_000), arguments.variant_seeds)
    benchmark.measure("best, batches of 1000", replace(best, batch_size=1_000), min(1, arguments.variant_seeds))
    for name, former in FORMER.items():
        benchmark.measure(f"fast, {name}", fast, arguments.variant_seeds, former())
    print_table(result)
    if arguments.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
