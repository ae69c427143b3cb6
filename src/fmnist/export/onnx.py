"""From trained weights to `model.onnx` and `manifest.json`: what is scored is what is shipped."""

import contextlib
import io
import logging
import os
import subprocess
import sys
import tempfile
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx

from fmnist import atomic, locks, metrics
from fmnist.config import View
from fmnist.data import dataset as data
from fmnist.data import formats as idx
from fmnist.errors import FmnistError
from fmnist.inference.classifier import Classifier
from fmnist.inference.rejection import Acceptance
from fmnist.models import networks as model
from fmnist.runs import run as runs

log = logging.getLogger("fmnist")
ops = keras.ops

NUM_CHECKED = 1_000
"""Images on which the exported graph has to agree with Keras."""
MAX_DIFFERENCE = 1e-4
"""Largest gap allowed between two probabilities: float32 sums in another order differ by some 1e-6."""
BATCH_SIZE = 100
NUM_FITTED = 10_000
"""Training images by which the acceptance score learns where the classes lie: a thousand a class."""
DECIDING = ("class_names", "views", "temperature", "epochs_trained")
"""What, with the weights, the answers of a graph follow from. Its bytes say less: Keras numbers the names in them."""
TINY = 1e-30
"""Keeps the logarithm finite where a probability has underflowed."""


def finish(run: runs.Run, dataset: data.Dataset | None = None, train_seconds: float | None = None) -> dict[str, Any]:
    """Write the ONNX graph of a run and then, last of all, its manifest.

    The float32 network with the trained weights is wrapped so that the graph is complete: `images`, uint8
    (n, 28, 28), in; `probabilities` (averaged over the views, calibrated), `probabilities_single_view` and
    `features` out. The file is compared with Keras on 1,000 training images before it is accepted.

    Args:
        run: a run with weights; if it was cut off, those of its last finished epoch.
        dataset: the run's data, if it is in memory already.
        train_seconds: how long training took, for the manifest; None takes the sum of its epochs.

    Returns:
        The manifest.

    Raises:
        FmnistError: if the run has no weights, its data is not at hand, another process works on it, or the exported
            graph disagrees.
    """
    if keras.backend.backend() != "tensorflow":
        return _finish_in_fresh_process(run, train_seconds)
    with locks.hold(run.folder):
        return _finish(run, dataset, train_seconds)


def _finish(run: runs.Run, dataset: data.Dataset | None, train_seconds: float | None) -> dict[str, Any]:
    environment = run.environment()
    dataset = dataset or run.load_data()
    runs.refuse_other_data(run, dataset, environment["data_sha256"])
    parts = data.split(dataset, run.config.seed, run.config.full)
    network = model.load_model(run)
    if not all(np.isfinite(values).all() for values in model.get_weights(network).values()):
        raise FmnistError(f"the weights of {run.folder} are not finite: training diverged; lower the learning rate")
    calibration = _calibrate(run, network, parts)

    graph = CompleteGraph(network, run.config.views, calibration["temperature"])
    images = parts.train_images[data.spread(len(parts.train_images), NUM_CHECKED)]
    expected = _answers(graph, images)
    content = _to_onnx(graph)
    agreement = _check_agreement(content, dataset.class_names, images, expected)
    original = model.build(run.config, len(dataset.class_names), environment["precision"])
    model.set_weights(original, model.read_weights(run), run.weights_path)
    as_trained = _answers(CompleteGraph(original, run.config.views, calibration["temperature"]), images)
    agreement["max_difference_from_training_precision"] = float(np.abs(as_trained - expected).max())

    history = run.history()
    before = run.manifest() if run.is_finished else {}
    manifest = {
        "format_version": runs.FORMAT_VERSION,
        "class_names": list(dataset.class_names),
        "views": [list(view) for view in run.config.views],
        **calibration,
        "epochs_trained": len(history),
        "parameters": network.count_params(),
        "train_seconds": train_seconds or before.get("train_seconds") or sum(row["seconds"] or 0 for row in history),
        "agreement": agreement,
        "sha256": {
            "weights.safetensors": idx.sha256(run.weights_path.read_bytes()),
            "model.onnx": idx.sha256(content),
        },
    }
    if before and any(before[name] != manifest[name] for name in DECIDING):
        # An evaluation of the graph before would be taken for one of this.
        runs.unfinish(run)
    atomic.remove_leftovers(run.folder)
    atomic.write(run.onnx_path, content)
    atomic.write_json(run.folder / "manifest.json", manifest)
    return manifest


class CompleteGraph(keras.Model):
    """From stored pixels to final answers, around a network that takes scaled images and gives probabilities.

    The inputs are `images`, uint8 (n, 28, 28), and `num_views`, how many of the views to average over: the file gives
    it a value, so that nobody has to. The outputs, all float32, are `probabilities` and `probabilities_single_view`,
    (n, classes), and `features`, (n, what the last layer sees of the first view).
    """

    def __init__(self, network: keras.Sequential, views: tuple[View, ...], temperature: float):
        """Wrap a network.

        Args:
            network: takes (n, 28, 28, 1) float32 in [0, 1]; its last layers, from `head` on, give probabilities.
            views: to average the log-probabilities over; the first is the single view.
            temperature: divides the averaged log-probabilities.
        """
        super().__init__()
        head = [layer.name for layer in network.layers].index("head")
        self.body = keras.Sequential([keras.Input((28, 28, 1)), *network.layers[:head]])
        self.ending = keras.Sequential([keras.Input(self.body.output_shape[1:]), *network.layers[head:]])
        self.reach = max(abs(step) for _, *steps in views for step in steps)
        self.rows, self.columns = map(np.stack, zip(*(_places(view, self.reach) for view in views), strict=True))
        self.temperature = temperature

    def call(self, images: Any, num_views: Any) -> dict[str, Any]:
        """Answer for images, each seen in the first `num_views` views; at least in one, and at most in all."""
        num_views = ops.clip(num_views, 1, len(self.rows))
        padded = ops.pad(images, ((0, 0), (self.reach, self.reach), (self.reach, self.reach)))
        # Bytes are gathered, and only for the views that are wanted: to make all in float32 took a quarter of the time
        # that an int8 graph took for a single view (docs/log.md).
        rows, columns = (ops.convert_to_tensor(places)[:num_views] for places in (self.rows, self.columns))
        places = ops.expand_dims(rows, 2) * padded.shape[2] + ops.expand_dims(columns, 1)
        seen = ops.take(ops.reshape(padded, (-1, padded.shape[1] * padded.shape[2])), places, axis=1)
        scaled = ops.reshape(ops.cast(seen, "float32") / 255, (-1, *images.shape[1:], 1))
        features = ops.cast(self.body(scaled), "float32")
        answers = ops.cast(self.ending(features), "float32")
        by_view = ops.log(ops.reshape(answers, (-1, num_views, answers.shape[-1])) + TINY)
        return {
            "probabilities": ops.softmax(ops.mean(by_view, axis=1) / self.temperature),
            "probabilities_single_view": ops.softmax(by_view[:, 0] / self.temperature),
            "features": ops.reshape(features, (-1, num_views, features.shape[-1]))[:, 0],
        }


def _places(view: View, reach: int) -> tuple[np.ndarray, np.ndarray]:
    """Say which rows and columns of an image, padded by `reach` on each side, a view shows.

    Returns:
        (28,) and (28,) int32.
    """
    mirrored, rows, columns = view
    pixels = np.arange(idx.IMAGE_SIZE, dtype=np.int32)
    seen_columns = reach - columns + pixels
    return reach - rows + pixels, idx.IMAGE_SIZE + 2 * reach - 1 - seen_columns if mirrored else seen_columns


def _answers(graph: CompleteGraph, images: np.ndarray) -> np.ndarray:
    return _outputs(graph, images, len(graph.rows))["probabilities"]


def _outputs(graph: CompleteGraph, images: np.ndarray, num_views: int) -> dict[str, np.ndarray]:
    starts = range(0, len(images), BATCH_SIZE)
    batches = [graph(images[start : start + BATCH_SIZE], np.array(num_views)) for start in starts]
    return {name: np.concatenate([ops.convert_to_numpy(batch[name]) for batch in batches]) for name in batches[0]}


def _calibrate(run: runs.Run, network: keras.Sequential, parts: data.Split) -> dict[str, Any]:
    """Fit temperature and acceptance on validation images; without any, take them from a run on the split.

    Where the classes lie is learnt from training images in either case; the scale and the threshold are what
    needs images that the network has not seen.
    """
    graph = CompleteGraph(network, run.config.views, temperature=1.0)
    fitted = data.spread(len(parts.train_images), NUM_FITTED)
    known = _outputs(graph, parts.train_images[fitted], num_views=1)["features"]
    acceptance = Acceptance.fit(known, parts.train_labels[fitted])
    if len(parts.val_images):
        outputs = _outputs(graph, parts.val_images, len(graph.rows))
        log_probabilities = np.log(outputs["probabilities"] + TINY)
        temperature = metrics.temperature(log_probabilities, parts.val_labels)
        acceptance = acceptance.calibrated(metrics.softmax(log_probabilities / temperature), outputs["features"])
        validation = {
            "num_images": len(parts.val_images),
            "accuracy": float((log_probabilities.argmax(axis=1) == parts.val_labels).mean()),
            "cross_entropy": metrics.cross_entropy(log_probabilities / temperature, parts.val_labels),
        }
        return _calibration(temperature, run.name, validation, acceptance)
    twin = _twin_on_split(run)
    if twin is None:
        log.warning(
            "probabilities are not calibrated: a run on all training images takes its temperature and its threshold "
            "from a finished run of the same settings on the split, and %s has none; train one without --full, then "
            "`fmnist export %s`",
            run.folder.absolute().parent,
            run.folder,
        )
        return _calibration(1.0, None, None, None)
    manifest = twin.manifest()
    theirs = Acceptance.from_json(manifest["acceptance"])
    acceptance = replace(acceptance, low=theirs.low, scale=theirs.scale, threshold=theirs.threshold)
    return _calibration(float(manifest["temperature"]), twin.name, None, acceptance)


def _calibration(
    temperature: float, calibrated_by: str | None, validation: dict[str, Any] | None, acceptance: Acceptance | None
) -> dict[str, Any]:
    """Lay out what the manifest says of it."""
    return {
        "temperature": temperature,
        "calibrated_by": calibrated_by,
        "validation": validation,
        "acceptance": acceptance.to_json() if acceptance else None,
        "acceptance_threshold": acceptance.threshold if acceptance else None,
    }


def _twin_on_split(run: runs.Run) -> runs.Run | None:
    def settings(other: runs.Run) -> dict[str, Any]:
        return {**other.config.to_json(), "full": None, "seed": None}

    def is_twin(other: runs.Run) -> bool:
        if other.config.full or settings(other) != settings(run) or not other.is_complete:
            return False
        try:
            Acceptance.from_json(other.manifest()["acceptance"])
            return other.environment()["data_sha256"] == run.environment()["data_sha256"]
        except (FmnistError, KeyError, TypeError, ValueError):
            return False

    twins = [other for other in runs.finished_runs(run.folder.absolute().parent) if is_twin(other)]
    return max(twins, key=lambda other: other.created, default=None)


def _to_onnx(graph: CompleteGraph) -> bytes:
    signature = [
        keras.InputSpec("uint8", (None, 28, 28), name="images"),
        keras.InputSpec("int32", (), name="num_views"),
    ]
    with tempfile.TemporaryDirectory(prefix="fmnist-") as scratch, warnings.catch_warnings():
        # Keras asks NumPy for a name that NumPy has given up.
        warnings.filterwarnings("ignore", message=".*np.object", category=FutureWarning)
        path = Path(scratch) / "model.onnx"
        with contextlib.redirect_stdout(io.StringIO()):
            graph.export(path, format="onnx", verbose=False, input_signature=signature)
        exported = onnx.load(path)
    # An input with an initial value need not be given.
    exported.graph.initializer.append(onnx.numpy_helper.from_array(np.array(len(graph.rows), np.int32), "num_views"))
    content: bytes = exported.SerializeToString()
    return content


def _check_agreement(
    content: bytes, class_names: tuple[str, ...], images: np.ndarray, expected: np.ndarray
) -> dict[str, Any]:
    found = Classifier(content, class_names).predict(images)
    difference = float(np.abs(found - expected).max())
    same_top1 = bool((found.argmax(axis=1) == expected.argmax(axis=1)).all())
    if not (difference <= MAX_DIFFERENCE and same_top1):
        raise FmnistError(
            f"the exported graph disagrees with Keras by {difference:.1e} on {len(images)} images; expected at most "
            f"{MAX_DIFFERENCE:.0e} and the same answers. The weights are intact; this is a fault to report"
        )
    return {"num_images": len(images), "max_difference": difference, "same_top1": same_top1}


def _finish_in_fresh_process(run: runs.Run, train_seconds: float | None) -> dict[str, Any]:
    """Only TensorFlow writes ONNX, and a process has one backend."""
    command = [sys.executable, "-m", "fmnist", "export", str(run.folder.absolute()), "--json"]
    environment = {**os.environ, "KERAS_BACKEND": "tensorflow"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise FmnistError(f"export of {run.folder} on TensorFlow failed: {(done.stderr.splitlines() or [''])[-1]}")
    for line in done.stderr.splitlines():
        if line.startswith("fmnist: "):
            log.warning(line.removeprefix("fmnist: "))
    if train_seconds is not None:
        with locks.hold(run.folder):
            atomic.write_json(run.folder / "manifest.json", {**run.manifest(), "train_seconds": train_seconds})
    return run.manifest()
