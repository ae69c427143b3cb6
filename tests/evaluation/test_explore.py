"""Exploration: numbers that are right, figures that are drawn."""

import numpy as np
from PIL import Image

from fmnist import plots
from fmnist.evaluation import explore


def test_fashion_mnist_in_numbers(fashion):
    """Against the known facts: means 0.2860 and 0.3530, balanced classes, no byte-identical duplicates."""
    summary = explore.summarise(fashion)
    train = summary["parts"]["train"]
    assert round(train["mean"], 4) == 0.2860
    assert round(train["std"], 4) == 0.3530
    assert (train["min"], train["max"], train["dtype"]) == (0, 255, "uint8")
    assert train["class_counts"] == [6_000] * 10
    assert summary["duplicates"] == {"train": 0, "test": 0, "across": 0}
    assert sum(summary["pixel_histogram"]) == 60_000 * 784
    by_ink = sorted(summary["classes"], key=lambda row: row["ink"])
    assert by_ink[0]["label"] == "Sandal"


def test_duplicates_are_found():
    images = np.random.default_rng(0).integers(0, 256, (6, 28, 28), np.uint8)
    train = images[[0, 1, 2, 2, 2]]
    test = images[[1, 3, 4, 4]]
    assert explore.count_duplicates(train, test) == {"train": 2, "test": 1, "across": 1}


def test_figures_are_written_and_not_empty(small, tmp_path):
    paths = explore.save_figures(small, explore.summarise(small), tmp_path / "new" / "folder")
    names = {"examples.png", "class_means.png", "class_counts.png", "pixel_histogram.png", "projection.png"}
    assert {path.name for path in paths} == names
    for path in paths:
        with Image.open(path) as picture:
            assert np.asarray(picture.convert("L")).std() > 5, path


def test_curves_leave_out_what_there_is_not():
    row = dict.fromkeys(("loss", "accuracy", "precision", "recall"), 0.5)
    history = [{"epoch": 1, **row, **{f"val_{name}": None for name in row}}]
    figure = plots.training_curves(history)
    assert [len(axes.lines) for axes in figure.axes] == [1, 1, 1, 1]


def test_the_same_figure_gives_the_same_file(small):
    first, second = (
        plots.png(plots.class_means(small.train_images, small.train_labels, small.class_names)) for _ in "ab"
    )
    assert first == second


def test_names_may_look_like_mathematics(small, tmp_path):
    import dataclasses

    odd = dataclasses.replace(small, class_names=(r"$5_$\frac", *small.class_names[1:]))
    assert len(explore.save_figures(odd, explore.summarise(odd), tmp_path)) == 5
    records = [{"index": 0, "true": odd.class_names[0], "predicted": odd.class_names[0], "probabilities": [0.1] * 10}]
    assert plots.png(plots.samples(small.test_images[:1], records, odd.class_names))


def test_fewer_than_ten_classes_are_drawn(small, tmp_path):
    import dataclasses

    chosen = small.train_labels < 3
    few = dataclasses.replace(
        small,
        train_images=small.train_images[chosen],
        train_labels=small.train_labels[chosen],
        test_images=small.test_images[small.test_labels < 3],
        test_labels=small.test_labels[small.test_labels < 3],
        class_names=small.class_names[:3],
    )
    assert len(explore.save_figures(few, explore.summarise(few), tmp_path)) == 5
