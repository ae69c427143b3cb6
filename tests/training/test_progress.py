"""Watching a run: the live figure of a notebook and the progress bar of a terminal."""

import io
import logging

import IPython.display
import pytest
from rich.console import Console

from fmnist import plots
from fmnist.training import progress as live

LOGS = {"loss": 0.5, "accuracy": 0.9, "precision": 0.95, "recall": 0.85}
EPOCH_LOGS = {**LOGS, **{f"val_{name}": value for name, value in LOGS.items()}}


class Handle:
    """Stands for a notebook's cell and counts what is shown in it."""

    def __init__(self):
        self.shown = []

    def display(self, picture, display_id):
        assert display_id
        self.shown.append(picture)
        return self

    def update(self, picture):
        self.shown.append(picture)


def test_the_figure_is_drawn_once_and_then_redrawn_every_epoch(monkeypatch):
    handle = Handle()
    monkeypatch.setattr(IPython.display, "display", handle.display)
    curves = live.LiveCurves()
    curves.on_train_begin()
    for epoch in range(3):
        curves.on_epoch_end(epoch, EPOCH_LOGS)
    assert len(handle.shown) == 3
    assert len({picture.data for picture in handle.shown}) == 3
    assert [row["epoch"] for row in curves.history] == [1, 2, 3]


def test_a_figure_that_fails_is_reported_and_training_goes_on(monkeypatch, caplog):
    def fail(_):
        raise RuntimeError("no fonts today")

    monkeypatch.setattr(plots, "training_curves", fail)
    with caplog.at_level(logging.WARNING, "fmnist"):
        live.LiveCurves().on_epoch_end(0, EPOCH_LOGS)
    assert "no fonts today" in caplog.text


@pytest.mark.parametrize("width", [80, 120])
def test_the_bar_shows_the_time_left_and_the_last_values(width):
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=width, color_system=None)
    with live.ProgressBar(console) as bar:
        bar.set_params({"epochs": 2, "steps": 10})
        bar.on_train_begin()
        bar.on_epoch_begin(0)
        for batch in range(5):
            bar.on_train_batch_end(batch, LOGS)
        bar.progress.refresh()
        bar.on_epoch_end(0, EPOCH_LOGS)
    text = screen.getvalue()
    for part in ("epoch 1/2", "25 %", "left", "loss 0.500", "accuracy 0.900"):
        assert part in text
    assert "epoch 1/2  loss 0.5000  accuracy 0.9000" in text
    assert "validation  loss 0.5000" in text


def test_without_a_terminal_there_are_only_lines():
    screen = io.StringIO()
    with live.ProgressBar(Console(file=screen, width=80)) as bar:
        bar.set_params({"epochs": 1, "steps": 1})
        bar.on_train_begin()
        bar.on_epoch_begin(0)
        bar.on_train_batch_end(0, LOGS)
        bar.on_epoch_end(0, EPOCH_LOGS)
    assert screen.getvalue().splitlines() == [
        "epoch 1/1  loss 0.5000  accuracy 0.9000  precision 0.9500  recall 0.8500  "
        "validation  loss 0.5000  accuracy 0.9000  precision 0.9500  recall 0.8500"
    ]
