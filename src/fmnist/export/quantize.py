"""From `model.onnx` to `model-int8.onnx`: the same complete graph, its convolutions in bytes."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnxruntime import quantization

from fmnist import atomic, locks
from fmnist.data import dataset as data
from fmnist.data import formats as idx
from fmnist.errors import FmnistError
from fmnist.inference.classifier import Classifier
from fmnist.runs import run as runs

NUM_CALIBRATION_IMAGES = 500
"""Training images, in every view, whose largest activations set the scales. Four times as many change nothing."""
NUM_COMPARED_IMAGES = 5_000
"""Training images to compare the graphs on where a run has no validation part."""
BATCH_SIZE = 100
MIN_SAME_TOP1 = 0.9
"""A graph that answers differently more often than this allows is broken, and not merely rounded."""


def finish(run: runs.Run, dataset: data.Dataset | None = None) -> dict[str, Any]:
    """Write `model-int8.onnx` of a finished run, and then its name and its record into the manifest.

    Weights become int8 with a scale for each channel, activations uint8. The head stays in float32: it is small.
    No test image is looked at.

    Args:
        run: a finished run.
        dataset: the run's data, if it is in memory already.

    Returns:
        The manifest; `int8` in it has `bytes` and, over validation images, or training images if the run had no
        validation part (`compared_on` says which), `num_images`, `same_top1` (share of images with the same answer
        from both graphs), `accuracy` and `accuracy_float` (None on training images, where they would mislead).

    Raises:
        FmnistError: if the run is not finished, its graph or data is not at hand, another process works on it, or the
            new graph disagrees.
    """
    with locks.hold(run.folder):
        # Refuses a graph that is more than a model, before other packages take it apart.
        original = Classifier.load(run)
        manifest = run.manifest()
        dataset = dataset or run.load_data()
        parts = data.split(dataset, run.config.seed, run.config.full)
        chosen = data.spread(len(parts.train_images), NUM_CALIBRATION_IMAGES)
        content = quantise(run.read_onnx(), parts.train_images[chosen])
        record = {"bytes": len(content), **_compare(original, Classifier(content, original.class_names), parts)}
        if record["same_top1"] < MIN_SAME_TOP1:
            raise FmnistError(
                f"the int8 graph gives the same answer as the float one on {record['same_top1']:.1%} of the "
                f"{record['compared_on']} images; expected at least {MIN_SAME_TOP1:.0%}. model.onnx is intact; use that"
            )
        atomic.write(run.folder / runs.INT8_FILE, content)
        hashes = {**manifest["sha256"], runs.INT8_FILE: idx.sha256(content)}
        manifest = {**manifest, "int8": record, "sha256": hashes}
        atomic.write_json(run.folder / "manifest.json", manifest)
    return manifest


def quantise(content: bytes, images: np.ndarray) -> bytes:
    """Quantise the convolutions of a complete graph.

    Args:
        content: of a `model.onnx`.
        images: (n, 28, 28) uint8, some hundreds, to calibrate with.

    Returns:
        The quantised graph. It has the same inputs and outputs.
    """
    # Else it warns, for every session that calibration opens, that num_views is an input with a value: so it is meant.
    onnxruntime.set_default_logger_severity(3)
    with tempfile.TemporaryDirectory(prefix="fmnist-") as scratch:
        plain, folded, quantised = (Path(scratch) / f"{name}.onnx" for name in ("plain", "folded", "quantised"))
        onnx.save(pool_last(onnx.load_from_string(content)), plain)
        # Folds normalisations into convolutions. Symbolic shapes need SymPy, and nothing here needs them.
        quantization.quant_pre_process(plain, folded, skip_symbolic_shape=True)
        quantization.quantize_static(
            folded,
            quantised,
            Batches(images),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=["Conv", "MaxPool", "Relu"],
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
        )
        shortened = onnx.load(quantised)
    shorten(shortened)
    result: bytes = shortened.SerializeToString()
    return result


class Batches(quantization.CalibrationDataReader):
    """Feed images to the calibration, batch by batch."""

    def __init__(self, images: np.ndarray):
        self._batches: Iterator[np.ndarray] = (
            images[start : start + BATCH_SIZE] for start in range(0, len(images), BATCH_SIZE)
        )

    def get_next(self) -> dict[str, np.ndarray] | None:
        """Give the next inputs of the graph; None after the last."""
        batch = next(self._batches, None)
        return None if batch is None else {"images": batch}


def pool_last(model: onnx.ModelProto) -> onnx.ModelProto:
    """Move max pooling behind normalisation and ReLU, so that these stand beside their convolution and fold into it.

    The result is the same, since the largest of some values stays the largest under a rising function. Training
    pools first, which is less work.

    Args:
        model: whose nodes are in order; it is changed.

    Returns:
        The same model.
    """
    nodes = list(model.graph.node)
    scales = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}

    def rises(node: onnx.NodeProto) -> bool:
        positive = node.op_type == "BatchNormalization" and bool((scales[node.input[1]] > 0).all())
        return positive or node.op_type == "Relu"

    # Backwards, so that a pool passes all that follows it before an earlier one catches up.
    for pool in [node for node in reversed(nodes) if node.op_type == "MaxPool"]:
        while len(users := [node for node in nodes if pool.output[0] in node.input]) == 1 and rises(users[0]):
            (user,) = users
            before, between, after = pool.input[0], pool.output[0], user.output[0]
            user.input[0], user.output[0] = before, between
            pool.input[0], pool.output[0] = between, after
            nodes.remove(pool)
            nodes.insert(nodes.index(user) + 1, pool)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def shorten(model: onnx.ModelProto) -> None:
    """Number the tensors, and drop the names of nodes and the notes of shapes: a tenth of a small file is names."""
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
    del model.metadata_props[:]


def _compare(original: Classifier, quantised: Classifier, parts: data.Split) -> dict[str, Any]:
    has_validation = len(parts.val_images) > 0
    chosen = data.spread(len(parts.train_images), NUM_COMPARED_IMAGES)
    images = parts.val_images if has_validation else parts.train_images[chosen]
    found, expected = (asked.predict(images).argmax(axis=1) for asked in (quantised, original))
    return {
        "compared_on": "validation" if has_validation else "training",
        "num_images": len(images),
        "same_top1": float((found == expected).mean()),
        "accuracy": float((found == parts.val_labels).mean()) if has_validation else None,
        "accuracy_float": float((expected == parts.val_labels).mean()) if has_validation else None,
    }
