"""Score anybody's model on the test images, by the measures of `evaluate`."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fmnist.data.dataset import CLASS_NAMES, Dataset, check_is_dataset, check_trainable, load, split_dataset
from fmnist.errors import FmnistError, one_line, type_of
from fmnist.evaluation.answers import Answers, Model, check_order, compute_results, read_answers
from fmnist.evaluation.evaluate import NUM_MISTAKES, describe_predictions, find_mistakes
from fmnist.evaluation.find_format import FoundFormat, find_format
from fmnist.inference.input_format import LAYOUTS, SCALINGS, list_formats
from fmnist.inference.onnx_model import OnnxModel
from fmnist.metrics import calibration_bins, classification_metrics, expected_calibration_error, fit_temperature
from fmnist.runs.environment import cpu_name, num_cpus

log = logging.getLogger("fmnist")

BATCH_SIZE = 500
"""Images per call of a function."""
GRAPH_BATCH_SIZE = 100
"""Images per call of a graph: it can average over many views of each, as those of `fmnist export` do."""
TOO_GOOD = 0.975
"""Accuracy on Fashion-MNIST that no honest single model is known to reach. The best whose training can be checked has
96.59 % at its last epoch, after 1,001 epochs (github.com/Liang-yc/fn_playground)."""
SPLIT_SEED = 0
"""Of the validation images on which the temperature is fitted."""
LABELS_LACK = ("keras_precision", "keras_recall", "calibration", "ece")
"""Metrics that need probabilities."""

Predict = Callable[[np.ndarray], Any]


def score(
    predict: Predict | str | Path,
    dataset: Dataset | None = None,
    *,
    scaling: str | None = None,
    layout: str | None = None,
    class_order: Sequence[int | str] | None = None,
) -> dict[str, Any]:
    """Score any model on every test image.

    What kind of results the model returns, the input format of an ONNX file, and the order of the classes are found out
    on training images.

    Args:
        predict: a function from images, (n, 28, 28) uint8 from 0 to 255, to probabilities or logits, (n, classes), or
            labels, (n,) class indices. It is called with at most 500 images. Or the path of an ONNX file with one
            input, which can have another shape, dtype and range.
        dataset: the data; None is `load()`.
        scaling: of the pixels, for a model that does not take 0 to 255: `0..1`, `-1..1`, `fashion-mnist` or `mnist`
            (mean and standard deviation of these data sets), `per-image`; dark garments on a bright ground: `255..0`,
            `1..0`, `1..-1`. None is found out for an ONNX file, and checked for a function.
        layout: shape of an image: `28x28`, `28x28x1`, `1x28x28` or `784`. None is treated as for `scaling`.
        class_order: index or name of the class that each column, or label, means. None is the order of the data set.

    Returns:
        Plain values: `model`, `sha256` and `bytes` (of an ONNX file), `output` (`probabilities`, `logits` or `labels`),
        `input` (`layout`, `scaling`, `dtype`, `train_accuracy` and `num_train_images` by which they were found or
        checked, `num_tried`, and `alternatives` that are nearly as good), `class_order`, `class_names`,
        `is_fashion_mnist`, `data_sha256`, the metrics of `metrics.classification_metrics`, `temperature`,
        `temperature_fitted_on`, `val_accuracy`, `ece_calibrated`, `mistakes` as in `evaluate`, `images_per_second`,
        `processor`, `threads` and `warning`. What labels alone do not tell is None.

    Raises:
        FmnistError: if the model fails, its results are none of the three kinds for this data, its classes are in
            another order, or no input format fits.
    """
    check_is_dataset(dataset)
    dataset = dataset or load()
    check_trainable(dataset)
    class_names = dataset.class_names
    order = _read_order(class_order, class_names)
    for name, value, known in (("scaling", scaling, SCALINGS), ("layout", layout, LAYOUTS)):
        if value is not None and value not in known:
            raise FmnistError(f"{name} is {value!r}; expected one of {', '.join(known)}")
    graph = _open_graph(predict, len(class_names))
    model = _as_model(predict, graph)
    found = find_format(model, dataset, scaling, layout)
    assert found.best.answers
    kind = found.best.answers.kind
    check_order(found.best.answers.reordered(order), found.labels, class_names, model.name, order)

    def answer(images: np.ndarray) -> tuple[Answers, list[float]]:
        results, speeds = compute_results(model, found.best.input_format, images)
        return read_answers(results, class_names, model.name, kind).reordered(order), speeds

    answers, speeds = answer(dataset.test_images)
    result = {
        "model": model.name,
        "sha256": graph.sha256 if graph else None,
        "bytes": graph.num_bytes if graph else None,
        "output": kind,
        "input": _describe_input(found),
        "class_order": order.tolist(),
        "class_names": list(class_names),
        "is_fashion_mnist": dataset.is_fashion_mnist,
        "data_sha256": dataset.sha256,
        **_measure(answers, dataset),
        **_calibrate(answers, answer, dataset),
        "mistakes": _most_confident_mistakes(answers, dataset),
        "images_per_second": float(np.median(speeds)),
        "processor": cpu_name(),
        "threads": num_cpus(),
    }
    return {**result, "warning": _warn(result, found)}


def _open_graph(predict: Predict | str | Path, num_classes: int) -> OnnxModel | None:
    """Open an ONNX file; return None for a function."""
    if callable(predict):
        return None
    if not isinstance(predict, str | Path):
        hint = "; pass its method predict_proba or predict" if hasattr(predict, "predict") else ""
        raise FmnistError(f"predict is {type_of(predict)}; expected a function, or the path of an ONNX file{hint}")
    path = Path(predict)
    if path.suffix != ".onnx" or path.is_dir():
        raise FmnistError(
            f"{path} is no ONNX file by its name; expected a function, or a path that ends in .onnx. A function can "
            "load any other model"
        )
    return OnnxModel(path, num_classes)


def _as_model(predict: Any, graph: OnnxModel | None) -> Model:
    if graph:
        return Model(graph.name, graph, graph.formats, GRAPH_BATCH_SIZE, has_contract=False)
    name = getattr(predict, "__qualname__", type(predict).__qualname__)
    # A function that takes several layouts takes the first in this list, and uint8 rather than float32.
    return Model(name, predict, list_formats(list(LAYOUTS), ["uint8", "float32"]), BATCH_SIZE, has_contract=True)


def _read_order(class_order: Sequence[int | str] | None, class_names: tuple[str, ...]) -> np.ndarray:
    """Return the class of each column as indices."""
    if class_order is None:
        return np.arange(len(class_names))
    known = {name: index for index, name in enumerate(class_names)}
    indices = [known.get(item, -1) if isinstance(item, str) else int(item) for item in class_order]
    if sorted(indices) != list(range(len(class_names))):
        raise FmnistError(
            f"class_order is {list(class_order)}; expected each of {', '.join(class_names)}, or its index from 0, once"
        )
    return np.array(indices)


def _describe_input(found: FoundFormat) -> dict[str, Any]:
    best = found.best.input_format
    return {
        "layout": best.layout,
        "scaling": best.scaling,
        "dtype": best.dtype,
        "train_accuracy": found.best.accuracy,
        "num_train_images": len(found.labels),
        "num_tried": found.num_tried,
        "alternatives": [
            {
                "layout": trial.input_format.layout,
                "scaling": trial.input_format.scaling,
                "dtype": trial.input_format.dtype,
                "train_accuracy": trial.accuracy,
            }
            for trial in found.alternatives
        ],
    }


def _probabilities(answers: Answers, temperature: float = 1.0) -> np.ndarray:
    """Return (n, classes) probabilities at a temperature. Not for labels."""
    from scipy.special import softmax

    if answers.kind == "probabilities" and temperature == 1:
        return answers.values
    return np.asarray(softmax(answers.log_probabilities() / temperature, axis=1))


def _measure(answers: Answers, dataset: Dataset) -> dict[str, Any]:
    if answers.kind != "labels":
        return classification_metrics(_probabilities(answers), dataset.test_labels, dataset.class_names)
    one_hot = np.eye(len(dataset.class_names))[answers.predicted]
    metrics = classification_metrics(one_hot, dataset.test_labels, dataset.class_names)
    return {**metrics, **dict.fromkeys(LABELS_LACK)}


def _calibrate(
    answers: Answers, answer: Callable[[np.ndarray], tuple[Answers, list[float]]], dataset: Dataset
) -> dict[str, Any]:
    """Fit a temperature on validation images, and measure the calibration on test images with it."""
    nothing = dict.fromkeys(("temperature", "temperature_fitted_on", "val_accuracy", "ece_calibrated"))
    if answers.kind == "labels":
        return nothing
    try:
        split = split_dataset(dataset, SPLIT_SEED)
    except FmnistError as error:
        log.warning("no temperature is fitted: %s", one_line(error))
        return nothing
    on_validation, _ = answer(split.val_images)
    temperature = fit_temperature(on_validation.log_probabilities(), split.val_labels)
    bins = calibration_bins(_probabilities(answers, temperature), dataset.test_labels)
    return {
        "temperature": temperature,
        "temperature_fitted_on": f"{len(split.val_labels):,} validation images of the split of seed {SPLIT_SEED}; "
        "biased if the model was trained on them",
        "val_accuracy": float((on_validation.predicted == split.val_labels).mean()),
        "ece_calibrated": expected_calibration_error(bins),
    }


def _most_confident_mistakes(answers: Answers, dataset: Dataset) -> list[dict[str, Any]]:
    """Describe the most confident mistakes as `evaluate` does; for labels the first ones, without probabilities."""
    if answers.kind != "labels":
        probabilities = _probabilities(answers)
        mistakes = find_mistakes(probabilities, dataset.test_labels)[:NUM_MISTAKES]
        return describe_predictions(mistakes, probabilities, dataset)
    return [
        {
            "index": int(index),
            "true": dataset.class_names[dataset.test_labels[index]],
            "predicted": dataset.class_names[answers.predicted[index]],
            "probability": None,
            "probabilities": None,
        }
        for index in np.flatnonzero(answers.predicted != dataset.test_labels)[:NUM_MISTAKES]
    ]


def _warn(result: dict[str, Any], found: FoundFormat) -> str | None:
    """Log and return a warning about an accuracy that is too high or too low."""
    text = None
    if result["accuracy"] > TOO_GOOD and tuple(result["class_names"]) == CLASS_NAMES:
        text = (
            f"no honest single model is known to reach {TOO_GOOD:.1%} on Fashion-MNIST's test images (the best whose "
            f"training can be checked has 96.59 %), and this one has {result['accuracy']:.2%}: check that it was not "
            "trained or selected on them"
        )
    elif not found.is_skilled:
        text = (
            f"the model is right about {found.best.accuracy:.0%} of {len(found.labels)} training images, which is "
            "little better than chance: check that it takes images from 0 to 255, and was trained"
        )
    if text:
        log.warning(text)
    return text
