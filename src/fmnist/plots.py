"""Figures. Each function returns one and shows nothing; no display is needed."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fmnist import atomic

if TYPE_CHECKING:
    from fmnist.runs.run import History

TRAINING, VALIDATION = "#1f5f8b", "#d1495b"
RIGHT, WRONG, OTHER = "#2e7d4f", "#d1495b", "#b8c4ce"
FIGURE_DPI = 110


def png(figure: Figure) -> bytes:
    """Draw a figure as the bytes of a PNG file."""
    buffer = io.BytesIO()
    # Without its Software line, the same figure gives the same file.
    figure.savefig(buffer, format="png", dpi=FIGURE_DPI, metadata={"Software": None})
    return buffer.getvalue()


def save(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG file, in one step."""
    atomic.write(path, png(figure))


def training_curves(history: "History") -> Figure:
    """Draw loss, accuracy, precision and recall by epoch, for training and validation.

    Args:
        history: rows as in `history.csv`; columns without a number are left out.
    """
    figure = Figure(figsize=(10, 6.4))
    # Fixed margins: working them out anew takes longer than all the drawing, and this is drawn after every epoch.
    figure.subplots_adjust(left=0.06, right=0.985, bottom=0.075, top=0.95, wspace=0.14, hspace=0.34)
    epochs = [row["epoch"] for row in history]
    for axes, name in zip(figure.subplots(2, 2).flat, ("loss", "accuracy", "precision", "recall"), strict=True):
        for column, label, colour in (
            (name, "training", TRAINING),
            (f"val_{name}", "validation", VALIDATION),
        ):
            values = [row[column] for row in history]
            if any(value is not None for value in values):
                axes.plot(epochs, values, "o-", color=colour, label=label, markersize=4)
        axes.set(title=name.capitalize(), xlabel="epoch", xlim=(0.5, max(2, len(history)) + 0.5))
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].legend(frameon=False)
    return figure


def examples(images: np.ndarray, labels: np.ndarray, class_names: tuple[str, ...], each: int = 12) -> Figure:
    """Draw the first images of every class, a row a class.

    Args:
        images: (n, 28, 28) uint8.
        labels: (n,) class indices.
        class_names: for the rows.
        each: images a row.
    """
    cell = 28 + 2
    sheet = np.full((len(class_names) * cell, each * cell), 255, np.uint8)
    for label in range(len(class_names)):
        for column, image in enumerate(images[np.flatnonzero(labels == label)[:each]]):
            sheet[label * cell : label * cell + 28, column * cell : column * cell + 28] = image
    figure = Figure(figsize=(each * 0.72 + 1.2, len(class_names) * 0.72), layout="constrained")
    axes = figure.subplots()
    _show(axes, sheet)
    axes.set_axis_on()
    axes.set(xticks=[], yticks=np.arange(len(class_names)) * cell + 13.5)
    axes.set_yticklabels(_plain_all(class_names))
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure


def class_means(images: np.ndarray, labels: np.ndarray, class_names: tuple[str, ...]) -> Figure:
    """Draw the mean image of every class; arguments as in `examples`."""
    columns = 5
    rows = -(-len(class_names) // columns)
    figure = Figure(figsize=(columns * 1.8, rows * 2.05), layout="constrained")
    for axes in figure.subplots(rows, columns, squeeze=False).flat:
        axes.axis("off")
    for label, (axes, name) in enumerate(zip(figure.axes, class_names, strict=False)):
        _show(axes, images[labels == label].mean(axis=0) if (labels == label).any() else np.zeros((28, 28)))
        axes.set_title(_plain(name), fontsize=10)
    return figure


def class_counts(counts: dict[str, list[int]], class_names: tuple[str, ...]) -> Figure:
    """Draw how many images each class has.

    Args:
        counts: name of a part to its counts by class.
        class_names: for the bars.
    """
    figure = Figure(figsize=(8, 3.8), layout="constrained")
    axes = figure.subplots()
    height = 0.8 / len(counts)
    positions = np.arange(len(class_names))
    for number, ((part, values), colour) in enumerate(zip(counts.items(), (TRAINING, VALIDATION), strict=False)):
        bars = axes.barh(positions + number * height, values, height, color=colour, label=part)
        axes.bar_label(bars, [f"{value:,}" for value in values], padding=3, fontsize=8)
    axes.set(yticks=positions + 0.4 - height / 2, xlabel="images")
    axes.set_yticklabels(_plain_all(class_names))
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def pixel_histogram(histogram: list[int]) -> Figure:
    """Draw how often each range of pixel values occurs.

    Args:
        histogram: pixels in bins of equal width from 0 to 255.
    """
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    axes = figure.subplots()
    width = 256 / len(histogram)
    shares = 100 * np.array(histogram) / sum(histogram)
    axes.bar((np.arange(len(histogram)) + 0.5) * width, shares, width * 0.95, color=TRAINING)
    axes.set(xlabel="pixel value (0 is the black ground)", ylabel="% of pixels", yscale="log")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def projection(points: np.ndarray, labels: np.ndarray, class_names: tuple[str, ...]) -> Figure:
    """Draw images as points in two dimensions, coloured by class.

    Args:
        points: (n, 2).
        labels: (n,) class indices.
        class_names: for the legend.
    """
    figure = Figure(figsize=(8, 5.6), layout="constrained")
    axes = figure.subplots()
    for label, name in enumerate(class_names):
        chosen = labels == label
        axes.scatter(
            points[chosen, 0], points[chosen, 1], s=7, alpha=0.6, color=f"C{label}", label=_plain(name), linewidths=0
        )
    axes.set(xlabel="first principal component", ylabel="second principal component")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5), markerscale=3)
    return figure


def transformation(image: np.ndarray, normalised: np.ndarray, label: int, one_hot: np.ndarray) -> Figure:
    """Draw an image and its label before and after the transform.

    Args:
        image: (28, 28) uint8.
        normalised: (28, 28, 1) float32.
        label: the class index.
        one_hot: (classes,) its one-hot row.
    """
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    before, after, row = figure.subplots(1, 3, width_ratios=(1, 1, 1.3))
    for axes, pixels, text in ((before, image, "before"), (after, normalised[..., 0], "after")):
        drawn = axes.imshow(pixels, cmap="gray")
        axes.set(xticks=[], yticks=[], title=f"{text}: {pixels.dtype}, {pixels.min():.3g} to {pixels.max():.3g}")
        figure.colorbar(drawn, ax=axes, shrink=0.8)
    row.bar(np.arange(len(one_hot)), one_hot, color=TRAINING)
    row.set(title=f"label {label}, one-hot", xticks=np.arange(len(one_hot)), ylim=(0, 1.1))
    row.spines[["top", "right"]].set_visible(False)
    return figure


def confusion(matrix: list[list[int]], class_names: tuple[str, ...]) -> Figure:
    """Draw a confusion matrix: rows true, columns predicted, shaded by the share of the row.

    Args:
        matrix: counts.
        class_names: for rows and columns.
    """
    counts = np.array(matrix)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure = Figure(figsize=(8.2, 7), layout="constrained")
    axes = figure.subplots()
    # The root makes the few mistakes visible beside the many right answers.
    axes.imshow(np.sqrt(shares), cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        if count:
            colour = "white" if shares[row, column] > 0.35 else "#1b2a38"
            axes.text(column, row, f"{count}", ha="center", va="center", color=colour, fontsize=9)
    axes.set(xticks=range(len(class_names)), yticks=range(len(class_names)), xlabel="predicted", ylabel="true")
    axes.set_xticklabels(_plain_all(class_names), rotation=45, ha="right")
    axes.set_yticklabels(_plain_all(class_names))
    return figure


def class_scores(per_class: list[dict[str, Any]]) -> Figure:
    """Draw precision and recall of every class side by side.

    Args:
        per_class: as `metrics.classification_report` gives it.
    """
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    positions = np.arange(len(per_class))
    for number, (name, colour) in enumerate((("precision", TRAINING), ("recall", VALIDATION))):
        values = [row[name] for row in per_class]
        bars = axes.barh(positions + 0.4 * number, values, 0.38, color=colour, label=name)
        axes.bar_label(bars, [f"{100 * value:.1f} %" for value in values], padding=3, fontsize=7)
    axes.set(yticks=positions + 0.2, xlim=(0, 1.08), xticks=[0, 0.25, 0.5, 0.75, 1])
    axes.set_yticklabels(_plain_all([row["label"] for row in per_class]))
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def gallery(images: np.ndarray, captions: list[str]) -> Figure:
    """Draw images in rows of five with a caption each.

    Args:
        images: (n, 28, 28) uint8, n at least 1.
        captions: one an image.
    """
    columns = min(5, len(images))
    rows = -(-len(images) // columns)
    figure = Figure(figsize=(columns * 2.1, rows * 2.75), layout="constrained")
    for axes in figure.subplots(rows, columns, squeeze=False).flat:
        axes.axis("off")
    for axes, image, caption in zip(figure.axes, images, captions, strict=False):
        _show(axes, image)
        axes.set_title(_plain(caption), fontsize=9)
    return figure


def samples(images: np.ndarray, records: list[dict[str, Any]], class_names: tuple[str, ...]) -> Figure:
    """Draw images beside what the model says of them.

    Args:
        images: (n, 28, 28) uint8.
        records: one an image: `index`, `true`, `predicted` (names), `probabilities` (by class).
        class_names: for the bars.
    """
    figure = Figure(figsize=(10, 3.1 * len(images)), layout="constrained")
    grid = figure.subplots(len(images), 2, width_ratios=(1, 1.7), squeeze=False)
    for (picture, bars), image, record in zip(grid, images, records, strict=True):
        is_right = record["predicted"] == record["true"]
        _show(picture, image)
        picture.set_title(f"test image {record['index']}\ntrue: {_plain(record['true'])}", fontsize=10)
        colours = [
            RIGHT if name == record["true"] else WRONG if name == record["predicted"] else OTHER for name in class_names
        ]
        drawn = bars.barh(_plain_all(class_names), record["probabilities"], color=colours)
        bars.bar_label(drawn, [f"{100 * p:.1f} %" for p in record["probabilities"]], padding=3, fontsize=8)
        verdict = "right" if is_right else "wrong"
        bars.set_title(
            f"predicted: {_plain(record['predicted'])} ({verdict})", fontsize=10, color=RIGHT if is_right else WRONG
        )
        bars.set(xlim=(0, 1.12), xticks=[0, 0.5, 1])
        bars.invert_yaxis()
        bars.spines[["top", "right"]].set_visible(False)
    return figure


def conversion(steps: dict[str, Any], answer: dict[str, Any], num_shown: int = 5) -> Figure:
    """Show how a photo became 28x28 pixels, and what the network says of it.

    Args:
        steps: of `photo.Conversion`, pictures by name.
        answer: what `Classifier.answer` gave.
        num_shown: how many of the likeliest classes.

    Returns:
        The steps in a row, and bars beside them.
    """
    figure = Figure(figsize=(2.1 * len(steps) + 3.6, 2.6), layout="constrained")
    panels = figure.subplots(1, len(steps) + 1, width_ratios=[1] * len(steps) + [1.2])
    for axes, (name, picture) in zip(panels, steps.items(), strict=False):
        axes.imshow(np.asarray(picture), cmap="gray", vmin=0, vmax=255)
        axes.set_title(name)
        axes.axis("off")
    top = answer["top"][:num_shown][::-1]
    panels[-1].barh([_plain(item["label"]) for item in top], [item["probability"] for item in top])
    panels[-1].set_xlim(0, 1)
    panels[-1].set_title(_plain("not sure" if answer["accepted"] is False else answer["label"]))
    panels[-1].set_xlabel(_plain(answer["reason"] or "probability"))
    return figure


def _plain(text: str) -> str:
    """Keep Matplotlib from reading dollar signs in a name as mathematics."""
    return text.replace("$", r"\$")


def _plain_all(names: Sequence[str]) -> list[str]:
    return [_plain(name) for name in names]


def _show(axes: Axes, image: np.ndarray) -> None:
    axes.imshow(image, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    axes.axis("off")
