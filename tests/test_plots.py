"""Figures: what is drawn, and that names are drawn as they are written."""

from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from fmnist import curves, plots

FORMULA = r"$5_$\frac"
"""A class name that Matplotlib would read as an invalid formula."""
NAMES = ("coat", "bag", FORMULA)
IMAGES = np.random.default_rng(0).integers(0, 256, (7, 28, 28), np.uint8)
LABELS = np.array([0, 1, 2, 0, 1, 2, 0], np.uint8)


def history(num_epochs, *, has_validation):
    values = dict.fromkeys(("loss", "accuracy", "precision", "recall"), 0.5)
    validation = {f"val_{name}": value if has_validation else None for name, value in values.items()}
    return [{"epoch": epoch + 1.0, **values, **validation} for epoch in range(num_epochs)]


def record(true, predicted):
    return {"index": 7, "true": true, "predicted": predicted, "probabilities": [0.25, 0.7, 0.05]}


def make_prediction(**changes):
    rows = [SimpleNamespace(label=f"{name} {number}", probability=0.1) for number in range(2) for name in NAMES]
    steps = {name: Image.new(mode, (40, 60)) for name, mode in (("original", "RGB"), ("mask", "L"), ("28x28", "L"))}
    values = {"label": "coat", "top": rows, "accepted": True, "reason": None, "steps": steps}
    return SimpleNamespace(**{**values, **changes})


FIGURES = {
    "training_curves": lambda: curves.training_curves(history(3, has_validation=True)),
    "training_curve": lambda: curves.training_curve(history(5, has_validation=True), "loss", first_hard_epoch=3),
    "heat_maps": lambda: plots.heat_maps(IMAGES[:3], np.linspace(-1, 1, 3 * 784).reshape(3, 28, 28), NAMES),
    "reliability": lambda: plots.reliability(
        [
            {"probability": 0.9, "accuracy": 0.8, "accuracy_interval_95": [0.7, 0.9]},
            {"probability": 0.3, "accuracy": 1.0, "accuracy_interval_95": [0.2, 1.0]},
        ]
    ),
    "examples": lambda: plots.examples(IMAGES, LABELS, NAMES),
    "class_means": lambda: plots.class_means(IMAGES, LABELS, NAMES),
    "class_counts": lambda: plots.class_counts({"train": [5_000, 10, 0], "test": [10, 20, 30]}, NAMES),
    "pixel_histogram": lambda: plots.pixel_histogram([4, 0, 2, 1]),
    "projection": lambda: plots.projection(IMAGES[:, 0, :2], LABELS, NAMES),
    "samples": lambda: plots.samples(IMAGES[:2], [record("coat", FORMULA), record(FORMULA, "bag")], NAMES),
    "prediction": lambda: plots.prediction(make_prediction()),
    "prediction of a 28x28 image": lambda: plots.prediction(make_prediction(steps={})),
}


@pytest.mark.parametrize("name", FIGURES)
def test_figure_is_drawn_and_the_same_every_time(name, tmp_path):
    path = tmp_path / "figure.png"
    plots.save(FIGURES[name](), path)
    with Image.open(path) as picture:
        assert np.asarray(picture.convert("L")).std() > 5
    assert path.read_bytes() == plots.png(FIGURES[name]())


def texts(figure):
    """Return all texts of a figure, as drawn."""
    FigureCanvasAgg(figure).draw()
    found = [text for axes in figure.axes for text in (*axes.texts, axes.title, axes.xaxis.label)]
    found += [label for axes in figure.axes for label in (*axes.get_yticklabels(), *axes.get_xticklabels())]
    return [text.get_text().replace(r"\$", "$") for text in found]


@pytest.mark.parametrize(("has_validation", "num_lines"), [(True, 2), (False, 1)])
def test_training_curves_leave_out_columns_without_values(has_validation, num_lines):
    figure = curves.training_curves(history(2, has_validation=has_validation))
    assert [len(axes.lines) for axes in figure.axes] == [num_lines] * 4


@pytest.mark.parametrize(("num_epochs", "first_hard_epoch", "is_marked"), [(3, 3, 1), (2, 3, 0), (3, None, 0)])
def test_training_curves_mark_epochs_on_hard_examples(num_epochs, first_hard_epoch, is_marked):
    figure = curves.training_curves(history(num_epochs, has_validation=False), first_hard_epoch)
    assert [len(axes.patches) for axes in figure.axes] == [is_marked] * 4
    assert texts(figure).count("training on hard images only") == 4 * is_marked


def test_svg_has_its_text_as_text_and_is_the_same_every_time():
    first, second = (plots.svg(FIGURES["reliability"]()) for _ in range(2))
    assert first == second
    assert first.startswith("<svg ")
    assert "fraction that is right</text>" in first


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.5, plots.FOR_CLASS), (-0.5, plots.AGAINST_CLASS), (0.0, (100, 100, 100))],
)
def test_heat_overlay_is_red_for_the_class_and_blue_against_it(value, expected):
    heat_map = np.zeros((28, 28))
    heat_map[3, 4] = value
    overlay = plots.heat_overlay(np.full((28, 28), 100, np.uint8), heat_map)
    assert (overlay[3, 5] == 100).all()
    expected = 0.8 * np.array(expected) + 0.2 * 100 if value else expected
    assert np.abs(overlay[3, 4] - np.array(expected)).max() <= 1


def test_class_means_are_the_means_of_each_class():
    figure = plots.class_means(IMAGES, LABELS, (*NAMES, "no images"))
    drawn = [np.asarray(axes.images[0].get_array()) for axes in figure.axes]
    for label in range(3):
        np.testing.assert_array_equal(drawn[label], IMAGES[label == LABELS].mean(axis=0))
    assert not drawn[3].any()


def test_bars_are_labeled_with_their_values():
    assert {"5,000", "10", "0", FORMULA} <= set(texts(FIGURES["class_counts"]()))


@pytest.mark.parametrize(
    ("true", "predicted", "title", "colors"),
    [
        ("bag", "bag", "predicted: bag (correct)", [plots.OTHER, plots.CORRECT, plots.OTHER]),
        ("coat", "bag", "predicted: bag (wrong)", [plots.CORRECT, plots.WRONG, plots.OTHER]),
    ],
)
def test_samples_mark_correct_and_wrong_predictions(true, predicted, title, colors):
    figure = plots.samples(IMAGES[:1], [record(true, predicted)], NAMES)
    assert {title, f"test image 7\ntrue: {true}", "25.0 %", "70.0 %", "5.0 %"} <= set(texts(figure))
    bars = figure.axes[1].patches
    hex_colors = ["#" + bytes(round(255 * part) for part in bar.get_facecolor()[:3]).hex() for bar in bars]
    assert hex_colors == colors


@pytest.mark.parametrize(
    ("changes", "title", "axis_label"),
    [
        ({}, "coat", "probability"),
        ({"accepted": None}, "coat", "probability"),
        ({"accepted": False, "reason": f"between {FORMULA} and bag"}, "not sure", f"between {FORMULA} and bag"),
    ],
)
def test_prediction_shows_label_or_reason(changes, title, axis_label):
    *pictures, bars = plots.prediction(make_prediction(**changes)).axes
    assert [axes.get_title() for axes in pictures] == ["original", "mask", "28x28"]
    assert bars.get_title() == title
    assert bars.get_xlabel().replace(r"\$", "$") == axis_label
    assert len(bars.patches) == 5
