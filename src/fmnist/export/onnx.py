"""Export: from trained weights to `model.onnx` and `manifest.json`. What is evaluated later is this file."""

import contextlib
import io
import logging
import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import keras
import numpy as np
import onnx
from msgspec.structs import replace

from fmnist.config import IMAGE_SIZE
from fmnist.data.dataset import Dataset, Split, evenly_spaced, load_from
from fmnist.documents import write_document
from fmnist.errors import FmnistError
from fmnist.export.calibration import calibrate
from fmnist.export.graph import CompleteGraph
from fmnist.files import MAX_MODEL_BYTES, lock_folder, read_bounded, remove_temporary_files, sha256, write_atomic
from fmnist.inference.classifier import Classifier
from fmnist.models.networks import build_network
from fmnist.models.weights import read_weights, set_weights
from fmnist.runs.history import History
from fmnist.runs.run import Run, remove_exports
from fmnist.runs.schemas import Agreement, Manifest

log = logging.getLogger("fmnist")

NUM_CHECKED_IMAGES = 1_000
"""Training images on which the exported graph has to agree with Keras."""
MAX_DIFFERENCE = 1e-4
"""Largest difference allowed between two probabilities. Another order of float32 sums changes them by about 1e-6."""
DECIDING_FIELDS = ("class_names", "tta_views", "temperature", "epochs_trained")
"""Fields of the manifest that, with the weights, determine the predictions of a graph. Its bytes say less: Keras
numbers the names in them."""

Weights = dict[str, np.ndarray]


def export_run(run: Run, dataset: Dataset | None = None) -> Manifest:
    """Export a run from its folder: after an interruption, or again.

    Args:
        run: a run with weights. Of an unfinished run, those of its last completed epoch are exported.
        dataset: the run's data, if it is loaded already.

    Returns:
        The manifest.

    Raises:
        FmnistError: if the run has no weights, its data is not found, another process uses the folder, or the exported
            graph disagrees with Keras.
    """
    if keras.backend.backend() != "tensorflow":
        return _export_in_new_process(run)
    with lock_folder(run.folder):
        environment = run.environment()
        dataset = dataset or load_from(run.config.data)
        run.check_data(dataset, environment.data_sha256)
        weights, images = read_weights(run), run.split(dataset)
        return _export(run, weights, run.history(), dataset, images, environment.precision, None)


def export_weights(
    run: Run,
    weights: Weights,
    history: History,
    dataset: Dataset,
    images: Split,
    precision: str,
    train_seconds: float | None = None,
) -> Manifest:
    """Calibrate a network that this process has just trained, write its ONNX graph and then, last of all, the manifest.

    The float32 network is wrapped so that the graph is complete: `images`, uint8 (n, 28, 28), in; `probabilities`
    (averaged over the views, calibrated), `probabilities_single_view` and `features` out. The file is compared with
    Keras on 1,000 training images before it is accepted.

    Args:
        run: the trained run, with its weights file.
        weights: as `fmnist.models.weights.get_weights` returns them.
        history: a row for each completed epoch.
        dataset: the run's data.
        images: the same, split as the run does.
        precision: the precision that the network was trained in.
        train_seconds: duration of the training. None sums up the epochs.

    Returns:
        The manifest.

    Raises:
        FmnistError: if the weights are not finite, another process uses the folder, or the exported graph disagrees
            with Keras.
    """
    if keras.backend.backend() != "tensorflow":
        return _export_in_new_process(run, train_seconds)
    with lock_folder(run.folder):
        return _export(run, weights, history, dataset, images, precision, train_seconds)


def _export(
    run: Run,
    weights: Weights,
    history: History,
    dataset: Dataset,
    images: Split,
    precision: str,
    train_seconds: float | None,
) -> Manifest:
    if not all(np.isfinite(values).all() for values in weights.values()):
        raise FmnistError(f"the weights of {run.folder} are not finite: training diverged; lower the learning rate")
    network, as_trained = (
        build_network(run.config, len(dataset.class_names), dtype) for dtype in ("float32", precision)
    )
    for each in (network, as_trained):
        set_weights(each, weights, run.weights_path)
    calibration = calibrate(run, network, images, dataset.sha256)
    graph, graph_as_trained = (
        CompleteGraph(each, run.config.tta_views, calibration.temperature) for each in (network, as_trained)
    )
    checked = images.train_images[evenly_spaced(len(images.train_images), NUM_CHECKED_IMAGES)]
    # Keras exports a subclassed model only after it was called.
    expected, as_trained_probabilities = (
        each.numpy_outputs(checked)["probabilities"] for each in (graph, graph_as_trained)
    )
    content = to_onnx(graph)
    found = Classifier(content, dataset.class_names).predict(checked)
    agreement = check_agreement(found, expected, float(np.abs(as_trained_probabilities - expected).max()))

    previous = run.manifest() if run.manifest_path.is_file() else None
    previous_seconds = previous.train_seconds if previous else None
    manifest = Manifest(
        class_names=dataset.class_names,
        tta_views=run.config.tta_views,
        temperature=calibration.temperature,
        calibrated_by=calibration.calibrated_by,
        validation=calibration.validation,
        rejection_rule=calibration.rejection_rule,
        epochs_trained=len(history),
        parameters=network.count_params(),
        train_seconds=train_seconds or previous_seconds or sum(row["seconds"] or 0 for row in history),
        agreement=agreement,
        sha256={
            "weights.safetensors": sha256(read_bounded(run.weights_path, MAX_MODEL_BYTES, "train again")),
            "model.onnx": sha256(content),
        },
    )
    if previous and any(getattr(previous, name) != getattr(manifest, name) for name in DECIDING_FIELDS):
        # An evaluation of the previous graph would be taken for one of this graph.
        remove_exports(run)
    remove_temporary_files(run.folder)
    write_atomic(run.onnx_path, content)
    write_document(run.manifest_path, manifest)
    return manifest


def to_onnx(graph: CompleteGraph) -> bytes:
    """Convert a complete graph to the content of an ONNX file."""
    signature = [
        keras.InputSpec("uint8", (None, IMAGE_SIZE, IMAGE_SIZE), name="images"),
        keras.InputSpec("int32", (), name="num_views"),
    ]
    with tempfile.TemporaryDirectory(prefix="fmnist-") as scratch, warnings.catch_warnings():
        # Keras uses a name that NumPy deprecates.
        warnings.filterwarnings("ignore", message=".*np.object", category=FutureWarning)
        path = Path(scratch) / "model.onnx"
        with contextlib.redirect_stdout(io.StringIO()):
            graph.export(path, format="onnx", verbose=False, input_signature=signature)
        exported = onnx.load(path)
    # An initializer makes an input optional.
    exported.graph.initializer.append(onnx.numpy_helper.from_array(np.array(len(graph.rows), np.int32), "num_views"))
    content: bytes = exported.SerializeToString()
    return content


def check_agreement(found: np.ndarray, expected: np.ndarray, difference_as_trained: float) -> Agreement:
    """Compare the probabilities of the exported graph with those of Keras.

    Args:
        found: (n, classes), by ONNX Runtime.
        expected: (n, classes), by Keras in float32.
        difference_as_trained: largest difference between Keras in float32 and in the precision of training.

    Raises:
        FmnistError: if they differ by more than `MAX_DIFFERENCE`, or in the class of an image.
    """
    difference = float(np.abs(found - expected).max())
    same_top1 = bool((found.argmax(axis=1) == expected.argmax(axis=1)).all())
    if not (difference <= MAX_DIFFERENCE and same_top1):
        raise FmnistError(
            f"the exported graph disagrees with Keras by {difference:.1e} on {len(found)} images; expected at most "
            f"{MAX_DIFFERENCE:.0e} and the same classes. The weights are intact; please report this as a bug"
        )
    return Agreement(
        num_images=len(found),
        max_difference=difference,
        same_top1=same_top1,
        max_difference_from_training_precision=difference_as_trained,
    )


def _export_in_new_process(run: Run, train_seconds: float | None = None) -> Manifest:
    """Export a run under TensorFlow, the only backend that exports ONNX. A process has one backend.

    Raises:
        FmnistError: if the export fails.
    """
    command = [sys.executable, "-m", "fmnist", "export", str(run.folder.absolute()), "--json"]
    environment = {**os.environ, "KERAS_BACKEND": "tensorflow"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise FmnistError(f"export of {run.folder} on TensorFlow failed: {(done.stderr.splitlines() or [''])[-1]}")
    for line in done.stderr.splitlines():
        if line.startswith("fmnist: "):
            log.warning(line.removeprefix("fmnist: "))
    manifest = run.manifest()
    if train_seconds is not None:
        manifest = replace(manifest, train_seconds=train_seconds)
        with lock_folder(run.folder):
            write_document(run.manifest_path, manifest)
    return manifest
