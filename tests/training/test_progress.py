"""Progress of a training: the live figure in a notebook and the progress bar in a terminal."""

import builtins
import io
import logging

import IPython.display
import pytest
from matplotlib.figure import Figure
from rich.console import Console

from fmnist import curves
from fmnist.config import PRESETS
from fmnist.training.progress import LiveCurves, ProgressBar, watch

LOGS = {"loss": 0.5, "accuracy": 0.9, "precision": 0.95, "recall": 0.85}
EPOCH_LOGS = {**LOGS, **{f"val_{name}": value for name, value in LOGS.items()}}


class DisplayHandle:
    """Replaces IPython's `display` and the handle that it returns, and collects the pictures."""

    def __init__(self):
        self.pictures = []

    def display(self, picture, display_id):
        assert display_id
        self.pictures.append(picture)
        return self

    def update(self, picture):
        self.pictures.append(picture)


def test_figure_is_replaced_after_every_epoch(monkeypatch):
    handle = DisplayHandle()
    monkeypatch.setattr(IPython.display, "display", handle.display)
    curves = LiveCurves()
    curves.on_train_begin()
    for epoch in range(3):
        curves.on_epoch_end(epoch, EPOCH_LOGS)
    assert len(handle.pictures) == 3
    assert len({picture.data for picture in handle.pictures}) == 3
    assert [row["epoch"] for row in curves.history] == [1, 2, 3]


@pytest.mark.parametrize(("config", "expected"), [(None, None), (PRESETS["fast"], 3), (PRESETS["textbook"], None)])
def test_epochs_on_hard_examples_are_marked(config, expected, monkeypatch):
    drawn = []
    monkeypatch.setattr(IPython.display, "display", DisplayHandle().display)
    monkeypatch.setattr(curves, "training_curves", lambda *arguments: drawn.append(arguments) or Figure())
    LiveCurves(config).on_epoch_end(0, EPOCH_LOGS)
    assert [arguments[1] for arguments in drawn] == [expected]


def test_failed_figure_is_logged(monkeypatch, caplog):
    def fail(*_):
        raise RuntimeError("no fonts")

    monkeypatch.setattr(curves, "training_curves", fail)
    with caplog.at_level(logging.WARNING, "fmnist"):
        LiveCurves().on_epoch_end(0, EPOCH_LOGS)
    assert "the curves could not be drawn, training continues: RuntimeError: no fonts" in caplog.text


@pytest.mark.parametrize(
    ("module", "name"), [("ipykernel.zmqshell", "ZMQInteractiveShell"), ("google.colab._shell", "Shell")]
)
def test_a_notebook_gets_a_line_an_epoch_unless_it_has_curves(monkeypatch, capsys, module, name):
    monkeypatch.setattr(builtins, "get_ipython", type(name, (), {"__module__": module}), raising=False)
    with watch(None, [LiveCurves()]) as watching:
        assert watching == []
    with watch(None, []) as (bar,):
        bar.set_params({"epochs": 2, "steps": 10})
        bar.on_train_begin()
        bar.on_epoch_end(0, LOGS)
    out, err = capsys.readouterr()
    assert out == "epoch 1/2  loss 0.5000  accuracy 0.9000  precision 0.9500  recall 0.8500\n"
    assert err == ""


def test_a_terminal_of_ipython_is_no_notebook(monkeypatch, capsys):
    monkeypatch.setattr(builtins, "get_ipython", type("TerminalInteractiveShell", (), {}), raising=False)
    with watch(None, []) as watching:
        assert watching == []


@pytest.mark.parametrize("width", [80, 120])
def test_bar_shows_the_remaining_time_and_the_latest_metrics(width):
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=width, color_system=None)
    with ProgressBar(console) as bar:
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


def test_console_without_a_terminal_gets_lines_only():
    screen = io.StringIO()
    with ProgressBar(Console(file=screen, width=80)) as bar:
        bar.set_params({"epochs": 1, "steps": 1})
        bar.on_train_begin()
        bar.on_epoch_begin(0)
        bar.on_train_batch_end(0, LOGS)
        bar.on_epoch_end(0, EPOCH_LOGS)
    assert screen.getvalue().splitlines() == [
        "epoch 1/1  loss 0.5000  accuracy 0.9000  precision 0.9500  recall 0.8500  "
        "validation  loss 0.5000  accuracy 0.9000  precision 0.9500  recall 0.8500"
    ]
