"""Statistics and figures of a data set."""

from dataclasses import replace

import numpy as np
import pytest

from fmnist.errors import FmnistError
from fmnist.evaluation import explore


def test_statistics_of_fashion_mnist(fashion):
    """Known values: mean 0.2860, standard deviation 0.3530, balanced classes, no duplicates."""
    summary = explore.summarize(fashion)
    train = summary["parts"]["train"]
    assert (round(train["mean"], 4), round(train["std"], 4)) == (0.2860, 0.3530)
    assert (train["min"], train["max"], train["dtype"]) == (0, 255, "uint8")
    assert train["class_counts"] == [6_000] * 10
    assert summary["duplicates"] == {"train": 0, "test": 0, "across": 0}
    assert sum(summary["pixel_histogram"]) == 60_000 * 784
    assert min(summary["classes"], key=lambda row: row["nonzero_fraction"])["label"] == "Sandal"


def test_duplicates_are_counted():
    images = np.random.default_rng(0).integers(0, 256, (6, 28, 28), np.uint8)
    train = images[[0, 1, 2, 2, 2]]
    test = images[[1, 3, 4, 4]]
    assert explore.count_duplicates(train, test) == {"train": 2, "test": 1, "across": 1}


def test_class_without_training_images_has_zero_statistics(small):
    chosen = small.train_labels > 0
    dataset = replace(small, train_images=small.train_images[chosen], train_labels=small.train_labels[chosen])
    expected = {"label": small.class_names[0], "mean": 0.0, "nonzero_fraction": 0.0}
    assert explore.summarize(dataset)["classes"][0] == expected


def with_three_classes(dataset):
    is_train, is_test = dataset.train_labels < 3, dataset.test_labels < 3
    return replace(
        dataset,
        train_images=dataset.train_images[is_train],
        train_labels=dataset.train_labels[is_train],
        test_images=dataset.test_images[is_test],
        test_labels=dataset.test_labels[is_test],
        class_names=dataset.class_names[:3],
    )


@pytest.mark.parametrize("change", [lambda dataset: dataset, with_three_classes], ids=["ten classes", "three classes"])
def test_figures_are_written(small, tmp_path, change):
    dataset = change(small)
    paths = explore.save_figures(dataset, explore.summarize(dataset), tmp_path / "new" / "folder")
    names = ["examples.png", "class_means.png", "class_counts.png", "pixel_histogram.png", "projection.png"]
    assert [path.name for path in paths] == names
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)


def test_too_few_images_are_not_projected(small):
    with pytest.raises(FmnistError, match="2 images cannot be projected; expected at least 3"):
        explore.project(small.train_images[:2])


def test_the_projection_shows_all_classes_of_sorted_data(small, tmp_path, monkeypatch):
    order = np.argsort(small.train_labels, kind="stable")
    dataset = replace(small, train_images=small.train_images[order], train_labels=small.train_labels[order])
    drawn = []
    real = explore.plots.projection
    monkeypatch.setattr(explore, "MAX_PROJECTED_IMAGES", 50)
    monkeypatch.setattr(explore.plots, "projection", lambda *args: (drawn.append(args[1]), real(*args))[1])
    explore.save_figures(dataset, explore.summarize(dataset), tmp_path)
    assert set(drawn[0]) == set(range(10))
