"""Export: from trained weights to `model.onnx` and `manifest.json`. What is evaluated later is this file."""

import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import keras
import numpy as np
from msgspec.structs import replace

from fmnist.config import IDENTITY_VIEW, IMAGE_SIZE
from fmnist.data.dataset import Dataset, Split, evenly_spaced, write_folder
from fmnist.documents import write_document
from fmnist.errors import FmnistError, one_line
from fmnist.export.calibration import calibrate
from fmnist.export.graph import CompleteGraph
from fmnist.export.onnx_file import layer_that_fails, to_onnx
from fmnist.files import (
    LOCKED_FOLDER,
    MAX_MODEL_BYTES,
    lock_folder,
    read_bounded,
    remove_temporary_files,
    sha256,
    write_atomic,
)
from fmnist.inference.classifier import Classifier
from fmnist.models.custom import CustomParts
from fmnist.models.networks import build_network, keras_defaults
from fmnist.models.user_functions import NetworkFunction
from fmnist.models.weights import read_weights, set_weights
from fmnist.runs.history import History
from fmnist.runs.run import Run, remove_exports
from fmnist.runs.schemas import GRAPH_FILE, INT8_FILE, WEIGHTS_FILE, Agreement, Manifest

log = logging.getLogger("fmnist")

NUM_CHECKED_IMAGES = 1_000
"""Training images on which the exported graph has to agree with Keras."""
MAX_DIFFERENCE = 1e-4
"""Largest difference allowed between two probabilities. Another order of float32 sums changes them by about 1e-6."""
CLOCKS = ("train_seconds", "compile_seconds", "device_seconds")
"""Fields of the manifest that an export does not change."""
PREDICTION_FIELDS = ("class_names", "tta_views", "temperature", "epochs_trained")
"""Fields of the manifest that, with the weights, determine the predictions of a graph. The bytes of two graphs differ,
because Keras numbers the names in them."""


@dataclass(frozen=True, eq=False)
class TrainedNetwork:
    """What the export needs of a training."""

    weights: dict[str, np.ndarray]
    """As `fmnist.models.weights.get_weights` returns them."""
    history: History
    """A row for each completed epoch."""
    precision: str
    """`float32` or `bfloat16`: the precision that the network was trained in."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Of the training, by field of the manifest. Empty if it was interrupted."""


def export_run(run: Run, dataset: Dataset | None = None, network: NetworkFunction | str | None = None) -> Manifest:
    """Export a run from its folder: after an interruption, or again.

    Args:
        run: a run with weights. Of an unfinished run, those of its last completed epoch are exported.
        dataset: the run's data, if it is loaded already.
        network: for a run with a network of the user's own: the function that builds it, or its name.

    Returns:
        The manifest.

    Raises:
        FmnistError: if the run has no weights, its data is not found, another process uses the folder, or the exported
            graph disagrees with Keras.
    """
    parts = CustomParts.check(network)
    parts.compare(run.custom, run.folder)
    with lock_folder(run.folder) as lock:
        if keras.backend.backend() != "tensorflow":
            return _export_in_new_process(run, lock, dataset, parts=parts)
        dataset = dataset or run.load_data()
        return export(run, lock, read_trained(run, dataset), dataset, run.split(dataset), parts)


def check_exportable(network: keras.Model, class_names: Sequence[str]) -> None:
    """Export a user's network to a file in memory and compute it, before time is spent on its training.

    Args:
        network: with its initial weights. It is not changed.
        class_names: of the data set.

    Raises:
        FmnistError: if it cannot be exported, naming the layer if that is found.
    """
    graph = CompleteGraph(network, (IDENTITY_VIEW,), 1.0, len(class_names))
    images = np.zeros((2, IMAGE_SIZE, IMAGE_SIZE), np.uint8)
    try:
        graph(images)  # Keras exports a subclassed model only after it was called
        Classifier(to_onnx(graph, class_names), class_names, "the network").predict(images)
    except Exception as error:
        layer = layer_that_fails(network)
        place = f"its layer {layer.name} ({type(layer).__name__})" if layer else "one of its operations"
        raise FmnistError(
            f"the network cannot be exported to ONNX, which follows training: {place} cannot be converted; replace it "
            f"({one_line(error)})"
        ) from error


def read_trained(run: Run, dataset: Dataset) -> TrainedNetwork:
    """Read what an earlier process has trained.

    Args:
        run: a run with weights.
        dataset: the data, which must be the run's.

    Raises:
        FmnistError: if a file is missing or damaged, or the run was trained on other data.
    """
    environment = run.environment()
    run.check_data(dataset, environment.data_sha256)
    return TrainedNetwork(read_weights(run), run.history(), environment.precision)


@keras_defaults()
def export(
    run: Run,
    lock: int | None,
    trained: TrainedNetwork,
    dataset: Dataset,
    split: Split,
    parts: CustomParts | None = None,
) -> Manifest:
    """Calibrate a trained network, write its ONNX graph and then, last of all, the manifest.

    The float32 network is wrapped so that the graph is complete: `images`, uint8 (n, 28, 28), in; `probabilities`
    (averaged over the views, calibrated), `probabilities_single_view`, `features` and perhaps `none_probability` out.
    The file is compared with Keras on 1,000 training images before it is accepted.

    Args:
        run: the trained run, with its weights file.
        lock: the lock of its folder, from `lock_folder`.
        trained: the network.
        dataset: the run's data.
        split: the same, split as the run does.
        parts: with the network, if that is the user's own.

    Returns:
        The manifest.

    Raises:
        FmnistError: if the weights are not finite, or the exported graph disagrees with Keras.
    """
    if keras.backend.backend() != "tensorflow":
        return _export_in_new_process(run, lock, dataset, trained.seconds, parts)
    function = parts.network if parts else None
    if not all(np.isfinite(values).all() for values in trained.weights.values()):
        raise FmnistError(f"the weights of {run.folder} are not finite: training diverged; lower the learning rate")
    num_classes = len(dataset.class_names)
    num_outputs = run.config.num_outputs(num_classes)
    network, as_trained = (
        build_network(run.config, num_outputs, precision, function) for precision in ("float32", trained.precision)
    )
    for each in (network, as_trained):
        set_weights(each, trained.weights, run.weights_path)
    calibration = calibrate(run, network, split, dataset)
    graph, graph_as_trained = (
        CompleteGraph(each, run.config.tta_views, calibration.temperature, num_classes)
        for each in (network, as_trained)
    )
    checked = split.train_images[evenly_spaced(len(split.train_images), NUM_CHECKED_IMAGES)]
    # Keras exports a subclassed model only after it was called.
    expected, as_trained_probabilities = (
        each.numpy_outputs(checked)["probabilities"] for each in (graph, graph_as_trained)
    )
    content = to_onnx(graph, dataset.class_names)
    found = Classifier(content, dataset.class_names).predict(checked)
    agreement = check_agreement(found, expected, float(np.abs(as_trained_probabilities - expected).max()))

    previous = run.manifest() if run.manifest_path.is_file() else None
    kept_seconds = {name: getattr(previous, name) for name in CLOCKS} if previous else {}
    hashes = {
        WEIGHTS_FILE: sha256(read_bounded(run.weights_path, MAX_MODEL_BYTES, "train again")),
        GRAPH_FILE: sha256(content),
    }
    manifest = Manifest(
        class_names=dataset.class_names,
        tta_views=run.config.tta_views,
        temperature=calibration.temperature,
        calibrated_by=calibration.calibrated_by,
        validation=calibration.validation,
        rejection_rule=calibration.rejection_rule,
        epochs_trained=len(trained.history),
        parameters=network.count_params(),
        agreement=agreement,
        sha256=hashes,
        **{"train_seconds": sum(row["seconds"] or 0 for row in trained.history), **kept_seconds, **trained.seconds},
    )
    if previous and _predicts_the_same(previous, manifest):
        kept = {name: digest for name, digest in previous.sha256.items() if name == INT8_FILE}
        manifest = replace(manifest, int8=previous.int8, sha256={**hashes, **kept})
    else:
        # An evaluation or int8 graph of the previous graph would be taken for one of this graph.
        remove_exports(run)
    remove_temporary_files(run.folder)
    write_atomic(run.onnx_path, content)
    write_document(run.manifest_path, manifest)
    return manifest


def _predicts_the_same(previous: Manifest, manifest: Manifest) -> bool:
    """Check whether two graphs make the same predictions."""
    return previous.sha256[WEIGHTS_FILE] == manifest.sha256[WEIGHTS_FILE] and all(
        getattr(previous, name) == getattr(manifest, name) for name in PREDICTION_FIELDS
    )


def check_agreement(found: np.ndarray, expected: np.ndarray, difference_as_trained: float) -> Agreement:
    """Compare the probabilities of the exported graph with those of Keras.

    Args:
        found: (n, classes), by ONNX Runtime.
        expected: (n, classes), by Keras in float32.
        difference_as_trained: largest difference between Keras in float32 and in the precision of training.

    Raises:
        FmnistError: if they differ by more than `MAX_DIFFERENCE`. Below that, the class of an image can differ only
            where two probabilities are nearly equal, which is no error.
    """
    difference = float(np.abs(found - expected).max())
    if not difference <= MAX_DIFFERENCE:  # also if it is NaN
        raise FmnistError(
            f"the exported graph disagrees with Keras by {difference:.1e} on {len(found)} images; expected at most "
            f"{MAX_DIFFERENCE:.0e}. The weights are intact; please report this as a bug"
        )
    return Agreement(
        num_images=len(found),
        max_difference=difference,
        same_top1=bool((found.argmax(axis=1) == expected.argmax(axis=1)).all()),
        max_difference_from_training_precision=difference_as_trained,
    )


def check_reference(parts: CustomParts) -> None:
    """Raise an `FmnistError` if the process that exports could not build the network that this one has in memory."""
    if parts.network and not parts.reference:
        raise FmnistError(
            f"another process, on TensorFlow, exports what {keras.backend.backend()} has trained, and builds the "
            'network anew; write its function into a file, and name it: network="file.py:function"'
        )


def _export_in_new_process(
    run: Run,
    lock: int | None,
    dataset: Dataset | None,
    seconds: Mapping[str, float] | None = None,
    parts: CustomParts | None = None,
) -> Manifest:
    """Export a run under TensorFlow, the only backend that exports ONNX. A process has one backend.

    The new process shares the lock of the folder. It finds the data by FMNIST_DATA; data in memory is written to a
    temporary folder.

    Raises:
        FmnistError: if the export fails.
    """
    command = [sys.executable, "-m", "fmnist", "export", str(run.folder.absolute()), "--json"]
    if parts and parts.network:
        check_reference(parts)
        command += ["--network", str(parts.reference)]
    environment = {**os.environ, "KERAS_BACKEND": "tensorflow", LOCKED_FOLDER: str(run.folder.absolute())}
    inherited = () if lock is None else (lock,)
    with tempfile.TemporaryDirectory(prefix="fmnist-") as scratch:
        if dataset and not dataset.is_fashion_mnist:
            if dataset.path is None:
                write_folder(dataset, Path(scratch))
            environment["FMNIST_DATA"] = dataset.path or scratch
        done = subprocess.run(command, env=environment, pass_fds=inherited, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise FmnistError(f"export of {run.folder} on TensorFlow failed: {(done.stderr.splitlines() or [''])[-1]}")
    for line in done.stderr.splitlines():
        if line.startswith("fmnist: "):
            log.warning(line.removeprefix("fmnist: "))
    manifest = run.manifest()
    if seconds:
        manifest = replace(manifest, **seconds)
        write_document(run.manifest_path, manifest)
    return manifest
