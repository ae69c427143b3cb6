"""Figures. Each function returns a Matplotlib figure and shows nothing, so no display is needed."""

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fmnist.files import write_atomic

TRAINING, VALIDATION = "#1f5f8b", "#d1495b"
CORRECT, WRONG, OTHER = "#2e7d4f", "#d1495b", "#b8c4ce"
FIGURE_DPI = 110
GRID_COLUMNS = 5
"""Images in a row of a grid: two rows for ten classes."""
NUM_TOP_CLASSES = 5
"""Classes shown beside a photo, where there is little space."""


def png(figure: Figure) -> bytes:
    """Return a figure as the content of a PNG file."""
    buffer = io.BytesIO()
    # The Software field names the version of Matplotlib. Without it, the file depends on the figure alone.
    figure.savefig(buffer, format="png", dpi=FIGURE_DPI, metadata={"Software": None})
    return buffer.getvalue()


def save(figure: Figure, path: Path) -> None:
    """Write a figure to a PNG file, atomically."""
    write_atomic(path, png(figure))


def training_curves(history: Sequence[dict[str, float | None]]) -> Figure:
    """Draw loss, accuracy, precision and recall by epoch, for training and validation.

    Args:
        history: one row for each epoch, with the columns of `history.csv`. Columns without values are left out.
    """
    figure = Figure(figsize=(10, 6.4))
    # This is drawn after every epoch, and a constrained layout would take longer than all the drawing.
    figure.subplots_adjust(left=0.06, right=0.985, bottom=0.075, top=0.95, wspace=0.14, hspace=0.34)
    epochs = [row["epoch"] for row in history]
    for axes, name in zip(figure.subplots(2, 2).flat, ("loss", "accuracy", "precision", "recall"), strict=True):
        for column, label, color in ((name, "training", TRAINING), (f"val_{name}", "validation", VALIDATION)):
            values = [row[column] for row in history]
            if any(value is not None for value in values):
                axes.plot(epochs, values, "o-", color=color, label=label, markersize=4)
        axes.set(title=name.capitalize(), xlabel="epoch", xlim=(0.5, max(2, len(history)) + 0.5))
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        _hide_spines(axes)
    figure.axes[0].legend(frameon=False)
    return figure


def examples(images: np.ndarray, labels: np.ndarray, class_names: Sequence[str], num_columns: int = 12) -> Figure:
    """Draw the first images of every class, one row for each class.

    Args:
        images: (n, size, size) uint8.
        labels: (n,) class indices.
        class_names: the row labels.
        num_columns: images in a row.
    """
    size = images.shape[1]
    cell = size + 2
    sheet = np.full((len(class_names) * cell, num_columns * cell), 255, np.uint8)
    for label in range(len(class_names)):
        for column, image in enumerate(images[np.flatnonzero(labels == label)[:num_columns]]):
            sheet[label * cell : label * cell + size, column * cell : column * cell + size] = image
    figure = Figure(figsize=(num_columns * 0.72 + 1.2, len(class_names) * 0.72), layout="constrained")
    axes = figure.subplots()
    axes.imshow(sheet, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks(np.arange(len(class_names)) * cell + (size - 1) / 2, [*map(_escape, class_names)])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure


def class_means(images: np.ndarray, labels: np.ndarray, class_names: Sequence[str]) -> Figure:
    """Draw the mean image of every class, black for a class without images. Arguments as in `examples`."""
    means = np.zeros((len(class_names), *images.shape[1:]))
    for label in np.unique(labels):
        means[label] = images[labels == label].mean(axis=0)
    return _image_grid(means, class_names, 1.8, 2.05, fontsize=10)


def gallery(images: np.ndarray, captions: Sequence[str]) -> Figure:
    """Draw images in rows of five, with a caption of two lines above each.

    Args:
        images: (n, size, size) uint8, n at least 1.
        captions: one for each image.
    """
    return _image_grid(images, captions, 2.1, 2.75, fontsize=9)


def class_counts(counts: dict[str, list[int]], class_names: Sequence[str]) -> Figure:
    """Draw the number of images of each class.

    Args:
        counts: the counts by class for each part of the data set, by its name.
        class_names: the bar labels.
    """
    figure = _grouped_bars(counts, class_names, "{:,.0f}".format)
    figure.axes[0].set_xlabel("images")
    figure.axes[0].margins(x=0.12)
    return figure


def class_scores(per_class: list[dict[str, Any]]) -> Figure:
    """Draw precision and recall of every class side by side.

    Args:
        per_class: `per_class` of `metrics.classification_metrics`.
    """
    scores = {name: [row[name] for row in per_class] for name in ("precision", "recall")}
    figure = _grouped_bars(scores, [row["label"] for row in per_class], _percent)
    figure.axes[0].set(xlim=(0, 1.1), xticks=[0, 0.25, 0.5, 0.75, 1])
    return figure


def pixel_histogram(histogram: list[int]) -> Figure:
    """Draw the distribution of the pixel values.

    Args:
        histogram: number of pixels in bins of equal width from 0 to 255.
    """
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    axes = figure.subplots()
    width = 256 / len(histogram)
    percentages = 100 * np.array(histogram) / sum(histogram)
    axes.bar((np.arange(len(histogram)) + 0.5) * width, percentages, width * 0.95, color=TRAINING)
    axes.set(xlabel="pixel value (0 is the black background)", ylabel="% of pixels", yscale="log")
    _hide_spines(axes)
    return figure


def projection(points: np.ndarray, labels: np.ndarray, class_names: Sequence[str]) -> Figure:
    """Draw images as points in two dimensions, colored by class.

    Args:
        points: (n, 2).
        labels: (n,) class indices.
        class_names: for the legend.
    """
    figure = Figure(figsize=(8, 5.6), layout="constrained")
    axes = figure.subplots()
    for label, name in enumerate(class_names):
        x, y = points[labels == label].T
        axes.scatter(x, y, s=7, alpha=0.6, color=f"C{label}", label=_escape(name), linewidths=0)
    axes.set(xlabel="first principal component", ylabel="second principal component")
    _hide_spines(axes)
    _place_legend(axes, markerscale=3)
    return figure


def transformation(image: np.ndarray, normalized: np.ndarray, label: int, one_hot: np.ndarray) -> Figure:
    """Draw an image and its label before and after preprocessing.

    Args:
        image: (size, size) uint8.
        normalized: (size, size, 1) float32.
        label: the class index.
        one_hot: (classes,) its one-hot vector.
    """
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    before, after, vector = figure.subplots(1, 3, width_ratios=(1, 1, 1.3))
    for axes, pixels, text in ((before, image, "before"), (after, normalized[..., 0], "after")):
        drawn = axes.imshow(pixels, cmap="gray")
        axes.set(xticks=[], yticks=[], title=f"{text}: {pixels.dtype}, {pixels.min():.3g} to {pixels.max():.3g}")
        figure.colorbar(drawn, ax=axes, shrink=0.8)
    vector.bar(np.arange(len(one_hot)), one_hot, color=TRAINING)
    vector.set(title=f"label {label}, one-hot", xticks=np.arange(len(one_hot)), ylim=(0, 1.1))
    _hide_spines(vector)
    return figure


def confusion(matrix: list[list[int]], class_names: Sequence[str]) -> Figure:
    """Draw a confusion matrix, shaded by the fraction of the true class.

    Args:
        matrix: number of images; rows are true classes, columns predicted ones.
        class_names: for rows and columns.
    """
    counts = np.array(matrix)
    fractions = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure = Figure(figsize=(8.2, 7), layout="constrained")
    axes = figure.subplots()
    # The square root makes the few mistakes visible beside the many correct predictions.
    axes.imshow(np.sqrt(fractions), cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        if count:
            color = "white" if fractions[row, column] > 0.35 else "black"
            axes.text(column, row, f"{count}", ha="center", va="center", color=color, fontsize=9)
    axes.set_xticks(range(len(class_names)), [*map(_escape, class_names)], rotation=45, ha="right")
    axes.set_yticks(range(len(class_names)), [*map(_escape, class_names)])
    axes.set(xlabel="predicted", ylabel="true")
    return figure


def samples(images: np.ndarray, records: list[dict[str, Any]], class_names: Sequence[str]) -> Figure:
    """Draw test images, each beside its predicted probabilities.

    Args:
        images: (n, size, size) uint8.
        records: for each image `index`, `true` and `predicted` (class names), and `probabilities` (by class).
        class_names: the bar labels.
    """
    figure = Figure(figsize=(10, 3.1 * len(images)), layout="constrained")
    grid = figure.subplots(len(images), 2, width_ratios=(1, 1.7), squeeze=False)
    for (picture, bars), image, record in zip(grid, images, records, strict=True):
        true, predicted = record["true"], record["predicted"]
        _draw_image(picture, image, f"test image {record['index']}\ntrue: {true}")
        verdict, color = ("correct", CORRECT) if predicted == true else ("wrong", WRONG)
        colors = [CORRECT if name == true else WRONG if name == predicted else OTHER for name in class_names]
        drawn = bars.barh([*map(_escape, class_names)], record["probabilities"], color=colors)
        bars.bar_label(drawn, fmt=_percent, padding=3, fontsize=8)
        bars.set_title(f"predicted: {_escape(predicted)} ({verdict})", fontsize=10, color=color)
        bars.set(xlim=(0, 1.12), xticks=[0, 0.5, 1])
        bars.invert_yaxis()
        _hide_spines(bars)
    return figure


def prediction(prediction: Any) -> Figure:
    """Draw the steps from a photo to 28x28 pixels, and the predicted probabilities beside them.

    Args:
        prediction: a `Prediction` or an object with its attributes `steps` (pictures by name), `top` (classes by
            falling probability, each with `label` and `probability`), `label`, `accepted` and `reason`.
    """
    steps, top = prediction.steps, prediction.top[:NUM_TOP_CLASSES]
    figure = Figure(figsize=(2.1 * len(steps) + 3.6, 2.6), layout="constrained")
    *pictures, bars = figure.subplots(1, len(steps) + 1, width_ratios=[1] * len(steps) + [1.2], squeeze=False).flat
    for axes, (name, picture) in zip(pictures, steps.items(), strict=True):
        _draw_image(axes, np.asarray(picture), name)
    bars.barh([_escape(row.label) for row in top], [row.probability for row in top])
    bars.invert_yaxis()
    bars.set(xlim=(0, 1), xlabel=_escape(prediction.reason or "probability"))
    bars.set_title("not sure" if prediction.accepted is False else _escape(prediction.label))
    return figure


def _image_grid(images: np.ndarray, captions: Sequence[str], width: float, height: float, fontsize: int) -> Figure:
    """Draw images in rows of `GRID_COLUMNS`, each in a cell of this width and height in inches."""
    num_columns = min(GRID_COLUMNS, len(images))
    num_rows = -(-len(images) // num_columns)
    figure = Figure(figsize=(num_columns * width, num_rows * height), layout="constrained")
    for axes in figure.subplots(num_rows, num_columns, squeeze=False).flat:
        axes.axis("off")
    for axes, image, caption in zip(figure.axes, images, captions, strict=False):
        _draw_image(axes, image, caption, fontsize)
    return figure


def _draw_image(axes: Axes, image: np.ndarray, title: str, fontsize: int = 10) -> None:
    axes.imshow(image, cmap="gray", vmin=0, vmax=255)
    axes.set_title(_escape(title), fontsize=fontsize)
    axes.axis("off")


def _grouped_bars(series: Mapping[str, Sequence[float]], names: Sequence[str], text: Callable[[float], str]) -> Figure:
    """Draw a horizontal bar of each series for every name, labeled with the text of its value."""
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    height = 0.8 / len(series)
    positions = np.arange(len(names))
    for index, ((label, values), color) in enumerate(zip(series.items(), (TRAINING, VALIDATION), strict=False)):
        bars = axes.barh(positions + index * height, values, 0.95 * height, color=color, label=label)
        axes.bar_label(bars, fmt=text, padding=3, fontsize=8)
    axes.set_yticks(positions + (len(series) - 1) * height / 2, [*map(_escape, names)])
    axes.invert_yaxis()
    _hide_spines(axes)
    _place_legend(axes)
    return figure


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f} %"


def _place_legend(axes: Axes, **options: Any) -> None:
    """Draw the legend to the right of the axes, where it covers nothing."""
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5), **options)


def _hide_spines(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)


def _escape(text: str) -> str:
    """Escape dollar signs, which Matplotlib reads as the start of a formula."""
    return text.replace("$", r"\$")
