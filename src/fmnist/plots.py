"""Figures. Each function returns a Matplotlib figure and shows nothing, so no display is needed."""

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from fmnist.drawing import draw_image, hide_spines, place_legend, set_names
from fmnist.files import write_atomic
from fmnist.fonts import Labels, labels_for

TRAINING, VALIDATION = "#1f5f8b", "#d1495b"
CORRECT, WRONG, OTHER = "#2e7d4f", "#d1495b", "#b8c4ce"
NOTE = "#5b6b79"
FOR_CLASS, AGAINST_CLASS = (235, 60, 40), (60, 130, 255)
"""Red and blue of heat maps."""
MIN_HEAT = 0.02
"""Change of probability below which a heat map stays pale."""
FIGURE_DPI = 110
GRID_COLUMNS = 5
"""Images in a row of a grid: two rows for ten classes."""
NUM_COLORS = 10
"""Matplotlib's colors of lines: with more classes, colors come from a color map, and figures leave some classes out."""
MAX_LEGEND_ROWS = 25
ROW_HEIGHT = 0.3
"""Of a name beside bars, in inches."""
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


def svg(figure: Figure) -> str:
    """Return a figure as an SVG element for an HTML page, with transparent background and text as text."""
    buffer = io.StringIO()
    # The salt makes the identifiers the same every time, and so does the absent metadata.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "fmnist"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


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
    set_names(axes, np.arange(len(class_names)) * cell + (size - 1) / 2, class_names)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure


def class_means(images: np.ndarray, labels: np.ndarray, class_names: Sequence[str]) -> Figure:
    """Draw the mean image of every class, black for a class without images. Arguments as in `examples`."""
    means = np.zeros((len(class_names), *images.shape[1:]))
    for label in np.unique(labels):
        means[label] = images[labels == label].mean(axis=0)
    return _image_grid(means, class_names, 1.8, 2.05, fontsize=10, labels=labels_for(class_names))


def heat_overlay(image: np.ndarray, heat_map: np.ndarray) -> np.ndarray:
    """Return an image with its heat map over it, scaled so that the strongest place has the full color.

    Args:
        image: (size, size) uint8.
        heat_map: (size, size); positive values become red, negative ones blue.

    Returns:
        (size, size, 3) uint8.
    """
    # A map of nearly nothing stays nearly without color.
    strength = np.abs(heat_map)[..., np.newaxis] / max(np.abs(heat_map).max(), MIN_HEAT)
    color = np.where(heat_map[..., np.newaxis] > 0, FOR_CLASS, AGAINST_CLASS)
    mixed: np.ndarray = (image[..., np.newaxis] * (1 - 0.8 * strength) + color * 0.8 * strength).astype(np.uint8)
    return mixed


def heat_maps(images: np.ndarray, maps: np.ndarray, captions: Sequence[str]) -> Figure:
    """Draw images in a row, each above the same image with its heat map.

    Args:
        images: (n, size, size) uint8.
        maps: (n, size, size), from `occlusion_maps`.
        captions: one for each image.
    """
    figure = Figure(figsize=(1.95 * len(images), 4.6), layout="constrained")
    for column, image, heat_map, caption in zip(
        figure.subplots(2, len(images), squeeze=False).T, images, maps, captions, strict=True
    ):
        draw_image(column[0], image, caption, fontsize=9)
        draw_image(column[1], heat_overlay(image, heat_map), "")
    return figure


def reliability(bins: list[dict[str, Any]]) -> Figure:
    """Draw a reliability diagram: the accuracy of predictions by their probability, with its 95 % interval.

    Args:
        bins: as `metrics.calibration_bins` returns them.
    """
    figure = Figure(figsize=(4.6, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], "--", color=NOTE, linewidth=1)
    for row in bins:
        axes.plot([row["probability"]] * 2, row["accuracy_interval_95"], color=OTHER, linewidth=3)
    axes.plot([row["probability"] for row in bins], [row["accuracy"] for row in bins], "o", color=TRAINING)
    axes.set(
        xlabel="probability of the predicted class", ylabel="fraction that is right", xlim=(0, 1.05), ylim=(0, 1.05)
    )
    axes.grid(alpha=0.3)
    hide_spines(axes)
    return figure


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
    hide_spines(axes)
    return figure


def projection(
    points: np.ndarray,
    labels: np.ndarray,
    class_names: Sequence[str],
    axis_labels: tuple[str, str] = ("first principal component", "second principal component"),
) -> Figure:
    """Draw images as points in two dimensions, colored by class.

    Args:
        points: (n, 2).
        labels: (n,) class indices.
        class_names: for the legend.
        axis_labels: of the horizontal and the vertical axis.
    """
    written = labels_for(class_names)
    columns = -(-len(class_names) // MAX_LEGEND_ROWS)
    figure = Figure(figsize=(6.5 + 1.5 * columns, 5.6), layout="constrained")
    axes = figure.subplots()
    many = matplotlib.colormaps["turbo"](np.linspace(0, 1, len(class_names)))
    for label, name in enumerate(class_names):
        x, y = points[labels == label].T
        color = f"C{label}" if len(class_names) <= NUM_COLORS else many[label]
        axes.scatter(x, y, s=7, alpha=0.6, color=color, label=written.text(name), linewidths=0)
    axes.set(xlabel=axis_labels[0], ylabel=axis_labels[1])
    hide_spines(axes)
    place_legend(axes, markerscale=3, ncols=columns, prop={"family": [*written.families]})
    return figure


def samples(images: np.ndarray, records: list[dict[str, Any]], class_names: Sequence[str]) -> Figure:
    """Draw test images, each beside its predicted probabilities.

    Args:
        images: (n, size, size) uint8.
        records: for each image `index`, `true` and `predicted` (class names), and `probabilities` (by class).
        class_names: the bar labels.
    """
    written = labels_for(class_names)
    figure = Figure(figsize=(10, 3.1 * len(images)), layout="constrained")
    grid = figure.subplots(len(images), 2, width_ratios=(1, 1.7), squeeze=False)
    for (picture, bars), image, record in zip(grid, images, records, strict=True):
        true, predicted = record["true"], record["predicted"]
        draw_image(picture, image, f"test image {record['index']}\ntrue: {true}", labels=written)
        verdict, color = ("correct", CORRECT) if predicted == true else ("wrong", WRONG)
        shown = most_probable(class_names, record["probabilities"], true)
        names = [class_names[index] for index in shown]
        colors = [CORRECT if name == true else WRONG if name == predicted else OTHER for name in names]
        drawn = bars.barh(range(len(names)), [record["probabilities"][index] for index in shown], color=colors)
        set_names(bars, range(len(names)), names, written)
        bars.bar_label(drawn, fmt=_percent, padding=3, fontsize=8)
        title = written.text(f"predicted: {predicted} ({verdict})")
        bars.set_title(title, fontsize=10, color=color, fontfamily=[*written.families])
        bars.set(xlim=(0, 1.12), xticks=[0, 0.5, 1])
        bars.invert_yaxis()
        hide_spines(bars)
    return figure


def prediction(prediction: Any) -> Figure:
    """Draw the steps from a photo to 28x28 pixels, and the predicted probabilities beside them.

    Args:
        prediction: a `Prediction` or an object with its attributes `steps` (pictures by name), `top` (classes by
            falling probability, each with `label` and `probability`), `label`, `accepted` and `reason`.
    """
    steps, top = prediction.steps, prediction.top[:NUM_TOP_CLASSES]
    written = labels_for([row.label for row in prediction.top])
    figure = Figure(figsize=(2.1 * len(steps) + 3.6, 2.6), layout="constrained")
    *pictures, bars = figure.subplots(1, len(steps) + 1, width_ratios=[1] * len(steps) + [1.2], squeeze=False).flat
    for axes, (name, picture) in zip(pictures, steps.items(), strict=True):
        draw_image(axes, np.asarray(picture), name)
    bars.barh(range(len(top)), [row.probability for row in top])
    set_names(bars, range(len(top)), [row.label for row in top], written)
    bars.invert_yaxis()
    bars.set_xlim(0, 1)
    families = [*written.families]
    bars.set_xlabel(written.text(prediction.reason or "probability"), fontfamily=families)
    bars.set_title("not sure" if prediction.accepted is False else written.text(prediction.label), fontfamily=families)
    return figure


def _image_grid(
    images: np.ndarray, captions: Sequence[str], width: float, height: float, fontsize: int, labels: Labels
) -> Figure:
    """Draw images in rows of `GRID_COLUMNS`, each in a cell of this width and height in inches."""
    num_columns = min(GRID_COLUMNS, len(images))
    num_rows = -(-len(images) // num_columns)
    figure = Figure(figsize=(num_columns * width, num_rows * height), layout="constrained")
    for axes in figure.subplots(num_rows, num_columns, squeeze=False).flat:
        axes.axis("off")
    for axes, image, caption in zip(figure.axes, images, captions, strict=False):
        draw_image(axes, image, caption, fontsize, labels)
    return figure


def _grouped_bars(series: Mapping[str, Sequence[float]], names: Sequence[str], text: Callable[[float], str]) -> Figure:
    """Draw a horizontal bar of each series for every name, labeled with the text of its value."""
    figure = Figure(figsize=(8, max(4, ROW_HEIGHT * len(names))), layout="constrained")
    axes = figure.subplots()
    height = 0.8 / len(series)
    positions = np.arange(len(names))
    for index, ((label, values), color) in enumerate(zip(series.items(), (TRAINING, VALIDATION), strict=False)):
        bars = axes.barh(positions + index * height, values, 0.95 * height, color=color, label=label)
        axes.bar_label(bars, fmt=text, padding=3, fontsize=8)
    set_names(axes, positions + (len(series) - 1) * height / 2, names)
    axes.margins(y=0.4 / len(names))
    axes.invert_yaxis()
    hide_spines(axes)
    place_legend(axes)
    return figure


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f} %"


def most_probable(class_names: Sequence[str], probabilities: Sequence[float], true: str) -> list[int]:
    """Return the classes to draw: all if they are few, else the most probable ones and the true one."""
    if len(class_names) <= NUM_COLORS:
        return list(range(len(class_names)))
    order = np.argsort(-np.asarray(probabilities), kind="stable").tolist()
    index = class_names.index(true)
    return order[:NUM_COLORS] if index in order[:NUM_COLORS] else [*order[: NUM_COLORS - 1], index]
