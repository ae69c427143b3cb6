"""Training curves, as Matplotlib figures."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fmnist.drawing import hide_spines
from fmnist.plots import NOTE, OTHER, TRAINING, VALIDATION

CURVES = ("loss", "accuracy", "precision", "recall")
"""Columns of `history.csv` that are drawn."""


def training_curves(history: Sequence[dict[str, float | None]], first_hard_epoch: int | None = None) -> Figure:
    """Draw loss, accuracy, precision and recall by epoch, for training and validation.

    Args:
        history: one row for each epoch, with the columns of `history.csv`. Columns without values are left out.
        first_hard_epoch: the first epoch on hard examples only, from 1, to be marked; None marks nothing.
    """
    figure = Figure(figsize=(10, 6.4))
    # This is drawn during training, and a constrained layout would take longer than all the drawing.
    figure.subplots_adjust(left=0.06, right=0.985, bottom=0.075, top=0.95, wspace=0.14, hspace=0.34)
    for axes, name in zip(figure.subplots(2, 2).flat, CURVES, strict=True):
        _draw_curve(axes, history, name, first_hard_epoch)
        axes.set_title(name.capitalize())
    figure.axes[0].legend(frameon=False)
    return figure


def training_curve(
    history: Sequence[dict[str, float | None]], name: str, first_hard_epoch: int | None = None
) -> Figure:
    """Draw one of `CURVES` without title and legend. Other arguments as in `training_curves`."""
    figure = Figure(figsize=(5, 3), layout="constrained")
    _draw_curve(figure.subplots(), history, name, first_hard_epoch)
    return figure


def _draw_curve(
    axes: Axes, history: Sequence[dict[str, float | None]], name: str, first_hard_epoch: int | None
) -> None:
    epochs = np.array([row["epoch"] for row in history], float)
    for column, label, color in ((name, "training", TRAINING), (f"val_{name}", "validation", VALIDATION)):
        values = np.array([row[column] for row in history], float)  # NaN for None
        if not np.isnan(values).all():
            axes.plot(epochs, values, "o-", color=color, label=label, markersize=4)
    axes.set(xlabel="epoch", xlim=(0.5, max(2, len(history)) + 0.5))
    axes.xaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 2.5, 5, 10], integer=True))
    axes.grid(alpha=0.3)
    hide_spines(axes)
    if first_hard_epoch and len(history) >= first_hard_epoch:
        axes.axvspan(first_hard_epoch - 0.5, len(history) + 0.5, color=OTHER, alpha=0.15, linewidth=0)
        # Where these curves are not: the loss falls, the others rise.
        y, offset, align = (1, -4, "top") if name == "loss" else (0, 4, "bottom")
        axes.annotate(
            "training on hard images only",
            (len(history) + 0.5, y),
            (-4, offset),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            ha="right",
            va=align,
            fontsize=9,
            color=NOTE,
        )
