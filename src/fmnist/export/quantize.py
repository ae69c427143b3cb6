"""Quantization: from `model.onnx` to `model-int8.onnx`, the same complete graph with int8 convolutions."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from msgspec.structs import replace

from fmnist.data.dataset import Dataset, Split, evenly_spaced
from fmnist.documents import write_document
from fmnist.errors import FmnistError
from fmnist.files import lock_folder, sha256, write_atomic
from fmnist.inference.classifier import Classifier
from fmnist.runs.run import Run
from fmnist.runs.schemas import INT8_FILE, Int8Record, Manifest

# isort: split
from onnxruntime import quantization  # after the classifier has imported onnxruntime, without telemetry

NUM_CALIBRATION_IMAGES = 500
"""Training images, in every view, whose largest activations set the scales. Four times as many change nothing."""
NUM_COMPARED_IMAGES = 5_000
"""Training images on which the graphs are compared if a run has no validation split."""
BATCH_SIZE = 100
MIN_SAME_TOP1 = 0.9
"""Rounding changes the class of a few images in a thousand. Below this fraction the graph is broken."""


def quantize_run(run: Run, dataset: Dataset | None = None) -> Manifest:
    """Write `model-int8.onnx` of a finished run, then its hash and scores into the manifest.

    Weights become int8 with one scale per channel, activations uint8. The last layer stays in float32, because it is
    small. No test image is used.

    Args:
        run: a finished run.
        dataset: the run's data, if it is loaded already.

    Returns:
        The manifest, with an `Int8Record`.

    Raises:
        FmnistError: if the run is not finished, its graph or data is not found, another process uses the folder, or the
            quantized graph disagrees with the float32 graph.
    """
    with lock_folder(run.folder):
        manifest = run.manifest()
        content = run.read_graph(manifest=manifest)
        # Opening the graph checks it, before other packages parse it.
        original = Classifier(content, manifest.class_names, str(run.folder))
        split = run.split(dataset)
        indices = evenly_spaced(len(split.train_images), NUM_CALIBRATION_IMAGES)
        quantized = quantize(content, split.train_images[indices])
        record = compare(original, Classifier(quantized, manifest.class_names), split, len(quantized))
        if record.same_top1 < MIN_SAME_TOP1:
            raise FmnistError(
                f"the int8 graph predicts the same class as the float graph for {record.same_top1:.1%} of the "
                f"{record.compared_on} images; expected at least {MIN_SAME_TOP1:.0%}. model.onnx is intact; use that"
            )
        write_atomic(run.folder / INT8_FILE, quantized)
        manifest = replace(manifest, int8=record, sha256={**manifest.sha256, INT8_FILE: sha256(quantized)})
        write_document(run.manifest_path, manifest)
    return manifest


def quantize(content: bytes, images: np.ndarray) -> bytes:
    """Quantize the convolutions of a complete graph.

    Args:
        content: content of a `model.onnx`.
        images: (n, 28, 28) uint8, some hundreds, for the ranges of the activations.

    Returns:
        The content of the quantized graph, with the same inputs and outputs.
    """
    with tempfile.TemporaryDirectory(prefix="fmnist-") as scratch:
        plain, folded, quantized = (Path(scratch) / f"{name}.onnx" for name in ("plain", "folded", "quantized"))
        onnx.save(move_pooling_last(onnx.load_from_string(content)), plain)
        # Folds normalization into convolutions. Symbolic shapes would need SymPy, and are not needed here.
        quantization.quant_pre_process(plain, folded, skip_symbolic_shape=True)
        quantization.quantize_static(
            folded,
            quantized,
            CalibrationImages(images),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=["Conv", "MaxPool", "Relu"],
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
        )
        model = onnx.load(quantized)
    shorten_names(model)
    result: bytes = model.SerializeToString()
    return result


class CalibrationImages(quantization.CalibrationDataReader):
    """Images for the calibration, in batches."""

    def __init__(self, images: np.ndarray):
        self._batches: Iterator[np.ndarray] = (
            images[start : start + BATCH_SIZE] for start in range(0, len(images), BATCH_SIZE)
        )

    def get_next(self) -> dict[str, np.ndarray] | None:
        """Return the next inputs of the graph, or None after the last."""
        batch = next(self._batches, None)
        return None if batch is None else {"images": batch}


def move_pooling_last(model: onnx.ModelProto) -> onnx.ModelProto:
    """Move max pooling after normalization and ReLU, which then follow their convolution and can be folded into it.

    The result is the same, because the maximum commutes with increasing functions. Training pools first, because that
    is less work.

    Args:
        model: a model whose nodes are in topological order; it is changed.

    Returns:
        The same model.
    """
    nodes = list(model.graph.node)
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}

    def is_increasing(node: onnx.NodeProto) -> bool:
        has_positive_scale = node.op_type == "BatchNormalization" and bool((constants[node.input[1]] > 0).all())
        return has_positive_scale or node.op_type == "Relu"

    # Move the last pool first, so that no pool blocks an earlier one.
    for pool in [node for node in reversed(nodes) if node.op_type == "MaxPool"]:
        while len(users := [node for node in nodes if pool.output[0] in node.input]) == 1 and is_increasing(users[0]):
            (user,) = users
            before, between, after = pool.input[0], pool.output[0], user.output[0]
            user.input[0], user.output[0] = before, between
            pool.input[0], pool.output[0] = between, after
            nodes.remove(pool)
            nodes.insert(nodes.index(user) + 1, pool)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def shorten_names(model: onnx.ModelProto) -> None:
    """Number the tensors, and drop node names and shape annotations: names are a tenth of a small file."""
    kept = {value.name for value in (*model.graph.input, *model.graph.output)} | {""}
    produced = (name for node in model.graph.node for name in node.output)
    names = [name for name in (*(tensor.name for tensor in model.graph.initializer), *produced) if name not in kept]
    short = {name: f"t{number}" for number, name in enumerate(names)}
    for tensor in model.graph.initializer:
        tensor.name = short.get(tensor.name, tensor.name)
    for node in model.graph.node:
        node.input[:] = [short.get(name, name) for name in node.input]
        node.output[:] = [short.get(name, name) for name in node.output]
        node.ClearField("name")
        node.ClearField("doc_string")
    del model.graph.value_info[:]
    metadata = {entry.key: entry.value for entry in model.metadata_props if not entry.key.startswith("onnx.")}
    onnx.helper.set_model_props(model, metadata)


def compare(original: Classifier, quantized: Classifier, split: Split, num_bytes: int) -> Int8Record:
    """Compare the two graphs on validation images, or on training images if there are none."""
    has_validation = len(split.val_images) > 0
    indices = evenly_spaced(len(split.train_images), NUM_COMPARED_IMAGES)
    images = split.val_images if has_validation else split.train_images[indices]
    found, expected = (classifier.predict(images).argmax(axis=1) for classifier in (quantized, original))
    return Int8Record(
        bytes=num_bytes,
        compared_on="validation" if has_validation else "training",
        num_images=len(images),
        same_top1=float((found == expected).mean()),
        accuracy=float((found == split.val_labels).mean()) if has_validation else None,
        accuracy_float=float((expected == split.val_labels).mean()) if has_validation else None,
    )
