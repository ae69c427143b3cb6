"""The results of any model for some images: checked, and brought to one form."""

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Literal

import numpy as np

from fmnist.errors import FmnistError, one_line
from fmnist.inference.input_format import InputFormat

Kind = Literal["probabilities", "logits", "labels"]

SUM_TOLERANCE = 0.01
"""By how much a sum of probabilities may differ from 1: results can be float16."""
NEGATIVE_TOLERANCE = 1e-6
MIN_PROBABILITY = 1e-7
"""Smaller probabilities count as this one where a logarithm is taken."""
MIN_FITTING = 0.5
MIN_GAIN = 0.3
"""Classes are taken to be in other columns if so many of their images are right then, and so many more. Fractions."""


@dataclass(frozen=True)
class Model:
    """A model of anybody."""

    name: str
    """For error messages."""
    compute: Callable[[np.ndarray], Any]
    """From images in one of the formats to the result."""
    formats: list[InputFormat]
    """Those to choose from."""
    batch_size: int
    """Images per call, at most."""
    has_contract: bool
    """Whether the model should take the first of the formats, and another one is an error."""


@dataclass(frozen=True)
class Answers:
    """The results for some images, with the classes in the order of the data set."""

    kind: Kind
    values: np.ndarray
    """(n, classes) float64, or (n,) class indices."""

    @property
    def predicted(self) -> np.ndarray:
        """(n,) class indices."""
        return self.values if self.kind == "labels" else self.values.argmax(axis=1)

    def log_probabilities(self) -> np.ndarray:
        """Return natural logarithms, (n, classes), up to a constant for each image. Not for labels."""
        return np.log(np.maximum(self.values, MIN_PROBABILITY)) if self.kind == "probabilities" else self.values

    def reordered(self, class_order: np.ndarray) -> "Answers":
        """Return the answers of a model whose k-th column or label means the class `class_order[k]`."""
        if self.kind == "labels":
            return Answers(self.kind, class_order[self.values])
        values = np.empty_like(self.values)
        values[:, class_order] = self.values
        return Answers(self.kind, values)


def compute_results(model: Model, input_format: InputFormat, images: np.ndarray) -> tuple[np.ndarray, list[float]]:
    """Ask a model in batches.

    Args:
        model: the model.
        input_format: in which it gets the images.
        images: (n, 28, 28) uint8, n at least 1.

    Returns:
        The results, (n, ...), and the images per second of each batch that is as large as the first, conversion of the
        images included.

    Raises:
        FmnistError: if the model raises an exception, or does not return a number for each image.
    """
    results: list[np.ndarray] = []
    speeds: list[float] = []
    for start in range(0, len(images), model.batch_size):
        batch = images[start : start + model.batch_size]
        started = perf_counter()
        converted = input_format.convert(batch)
        try:
            result = model.compute(converted)
        except Exception as error:
            raise FmnistError(f"{model.name} fails on {_describe(converted)}: {one_line(error)}") from error
        result = _as_numbers(result, model.name)
        if len(batch) == min(len(images), model.batch_size):
            speeds.append(len(batch) / (perf_counter() - started))
        if not result.ndim or len(result) != len(batch) or (results and result.shape[1:] != results[0].shape[1:]):
            raise FmnistError(
                f"{model.name} returns an array of shape {result.shape} for {len(batch)} images; expected a row, or a "
                "label, for each image"
            )
        results.append(result)
    return np.concatenate(results), speeds


def _describe(images: np.ndarray) -> str:
    return f"images of shape {images.shape}, {images.dtype} from {images.min():.3g} to {images.max():.3g}"


def _as_numbers(result: Any, name: str) -> np.ndarray:
    expected = "expected an array of probabilities, logits or labels"
    try:
        array = np.asarray(result)
        if array.dtype.kind in "biuf":
            return array
        if array.dtype.kind == "V":  # bfloat16, which NumPy does not know
            return array.astype(np.float64)
    except Exception as error:
        raise FmnistError(
            f"{name} returns a value of type {type(result).__name__}, which is no array ({one_line(error)}); {expected}"
        ) from error
    kind = {"U": "text", "S": "text", "c": "complex numbers"}.get(array.dtype.kind, f"the dtype {array.dtype}")
    raise FmnistError(f"{name} returns {kind}; {expected}")


def read_answers(results: np.ndarray, class_names: tuple[str, ...], name: str, kind: Kind | None = None) -> Answers:
    """Check results, and bring them to one form.

    Args:
        results: (n, ...) of numbers, as `compute_results` returns them.
        class_names: of the data set.
        name: of the model, for error messages.
        kind: what the results are; None finds it out.

    Raises:
        FmnistError: if they are none of the three kinds for this number of classes, or not of the given kind.
    """
    num_classes = len(class_names)
    is_labels = results.ndim == 1 or results.shape[1:] == (1,)
    if not is_labels and results.shape[1:] != (num_classes,):
        raise FmnistError(
            f"{name} returns an array of shape {results.shape}; expected (n, {num_classes}) probabilities or logits, "
            f"or (n,) labels, for {num_classes} classes"
        )
    if not np.isfinite(results).all():
        raise FmnistError(
            f"{name} returns NaN or infinity, first for image {np.argwhere(~np.isfinite(results))[0][0]}; expected "
            "finite numbers"
        )
    if is_labels:
        found = Answers("labels", _read_labels(results.reshape(-1), num_classes, name))
    else:
        values = results.astype(np.float64)
        # A few rows of logits can look like probabilities.
        found = Answers(kind, values) if kind == "logits" else _read_rows(values, name)
    if kind not in {None, found.kind}:
        raise FmnistError(f"{name} returns {found.kind}, but {kind} for training images; expected the same for all")
    return found


def _read_labels(labels: np.ndarray, num_classes: int, name: str) -> np.ndarray:
    expected = f"expected class indices from 0 to {num_classes - 1}"
    if (labels != np.round(labels)).any():
        raise FmnistError(
            f"{name} returns one number for each image, as {labels[labels != np.round(labels)][0]:g}; {expected}"
        )
    low, high = int(labels.min()), int(labels.max())
    if (low, high) == (1, num_classes):
        raise FmnistError(f"{name} returns labels from 1 to {num_classes}; {expected}, so subtract 1")
    if low < 0 or high >= num_classes:
        raise FmnistError(f"{name} returns the label {low if low < 0 else high}; {expected}")
    return labels.astype(np.intp)


def _read_rows(values: np.ndarray, name: str) -> Answers:
    sums = values.sum(axis=1)
    if np.abs(sums - 1).max() <= SUM_TOLERANCE:
        if values.min() < -NEGATIVE_TOLERANCE:
            raise FmnistError(
                f"{name} returns rows that sum to 1 with negative probabilities, as {values.min():.3g}; expected "
                "probabilities from 0 to 1"
            )
        values = np.maximum(values, 0)
        return Answers("probabilities", values / values.sum(axis=1, keepdims=True))
    if values.min() >= 0 and (values.max() <= 1 or np.allclose(sums, sums[0], rtol=SUM_TOLERANCE)):
        raise FmnistError(
            f"{name} returns values from {values.min():.3g} to {values.max():.3g} in rows that sum to {sums.min():.3g} "
            f"to {sums.max():.3g}; expected probabilities, which sum to 1, so divide each row by its sum, or return "
            "logits"
        )
    return Answers("logits", values)


def best_order(answers: Answers, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Return the assignment of classes to the columns, or labels, of a model that makes most answers right.

    Args:
        answers: of the model.
        labels: (n,) true class indices.
        num_classes: of the data set.

    Returns:
        (classes,): the class that each column means. Where another order is no better, 0, 1, 2 and so on.
    """
    from scipy.optimize import linear_sum_assignment

    confusion = np.zeros((num_classes, num_classes))
    np.add.at(confusion, (labels, answers.predicted), 1)
    _, columns = linear_sum_assignment(confusion + 0.5 * np.eye(num_classes), maximize=True)
    return np.argsort(columns)


def check_order(
    answers: Answers, labels: np.ndarray, class_names: tuple[str, ...], name: str, class_order: np.ndarray
) -> None:
    """Raise an `FmnistError` if the classes are in another order than is assumed, and name the order that fits.

    Args:
        answers: for training images, with the classes in the order that is assumed.
        labels: (n,) true class indices.
        class_names: of the data set.
        name: of the model, for the error message.
        class_order: the order that is assumed.
    """
    order = best_order(answers, labels, len(class_names))
    changed = np.flatnonzero(order != np.arange(len(order)))
    is_of_changed = np.isin(labels, changed)
    if not is_of_changed.any():
        return
    predicted, true = answers.predicted[is_of_changed], labels[is_of_changed]
    before, after = float((predicted == true).mean()), float((order[predicted] == true).mean())
    if after > MIN_FITTING and after - before > MIN_GAIN:
        fitting = order[class_order]
        thing = "labels" if answers.kind == "labels" else "columns"
        raise FmnistError(
            f"the {thing} of {name} are in another order of the classes: {', '.join(class_names[k] for k in fitting)}. "
            f"So {after:.0%} of {int(is_of_changed.sum())} training images of the classes in other places are right, "
            f"instead of {before:.0%}; pass class_order={fitting.tolist()}, or on the command line --class-order "
            f"{','.join(map(str, fitting))}"
        )
