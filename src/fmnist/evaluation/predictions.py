"""`predictions.csv`: the predictions of an evaluated run for all test images."""

import csv
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fmnist.data.names import are_class_names
from fmnist.errors import FmnistError
from fmnist.files import MAX_MODEL_BYTES, read_bounded

PREDICTIONS_FILE = "predictions.csv"
COLUMNS = ["index", "true", "predicted"]
"""Followed by a column for each class, with its probability."""


@dataclass(frozen=True, eq=False)
class Predictions:
    """The predictions of a classifier for labeled images."""

    class_names: tuple[str, ...]
    labels: np.ndarray
    """(n,) true class indices."""
    predicted: np.ndarray
    """(n,) class indices."""
    confidence: np.ndarray
    """(n,) probability of the predicted class."""

    @property
    def is_correct(self) -> np.ndarray:
        """(n,) bool."""
        return self.predicted == self.labels

    def recall(self) -> list[float | None]:
        """Return the recall of each class. None for a class without images."""
        return [
            float(self.is_correct[self.labels == label].mean()) if (self.labels == label).any() else None
            for label in range(len(self.class_names))
        ]


def predictions_csv(probabilities: np.ndarray, labels: np.ndarray, class_names: tuple[str, ...]) -> bytes:
    """Return a table of all test images as CSV in UTF-8: `index`, `true`, `predicted` and a column for each class.

    Args:
        probabilities: (n, classes).
        labels: (n,) true class indices.
        class_names: one for each column of the probabilities.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*COLUMNS, *class_names])
    for index, (label, row) in enumerate(zip(labels, probabilities, strict=True)):
        writer.writerow([index, class_names[label], class_names[row.argmax()], *(f"{value:.6g}" for value in row)])
    return text.getvalue().encode(errors="backslashreplace")


def read_predictions(path: Path, hint: str) -> Predictions:
    """Read what `predictions_csv` has written.

    Args:
        path: the file.
        hint: what to do if it is damaged, for the error message.

    Raises:
        FmnistError: if it is missing or damaged.
    """
    content = read_bounded(path, MAX_MODEL_BYTES, hint)
    try:
        return _parse(content.decode())
    except (csv.Error, ValueError) as error:
        raise FmnistError(f"{path} is damaged ({error}); {hint}") from error


def _parse(text: str) -> Predictions:
    """Parse a table. Raises a `ValueError` for one of another form."""
    reader = csv.reader(io.StringIO(text, newline=""))
    header = next(reader, [])
    class_names = tuple(header[len(COLUMNS) :])
    if header[: len(COLUMNS)] != COLUMNS or not are_class_names(class_names):
        raise ValueError("it has other columns")
    indices = {name: index for index, name in enumerate(class_names)}
    labels, predicted, confidence = [], [], []
    for number, row in enumerate(reader):
        if len(row) != len(header) or row[0] != str(number) or not {row[1], row[2]} <= indices.keys():
            raise ValueError(f"row {number} has other values than an image")
        labels.append(indices[row[1]])
        predicted.append(indices[row[2]])
        confidence.append(float(row[len(COLUMNS) + predicted[-1]]))
        if not 0 <= confidence[-1] <= 1:
            raise ValueError(f"row {number} has the probability {confidence[-1]}")
    if not labels:
        raise ValueError("it has no images")
    return Predictions(class_names, np.array(labels), np.array(predicted), np.array(confidence))
