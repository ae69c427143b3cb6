"""Watch a run while it trains: a progress bar in a terminal, a figure in a notebook."""

import logging
from typing import Any, Self

import keras
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column

from fmnist import plots
from fmnist.errors import one_line
from fmnist.runs import run as runs

log = logging.getLogger("fmnist")

Logs = dict[str, float] | None
SHOWN = ("loss", "accuracy", "precision", "recall")
VALUES_COLUMN = Column(no_wrap=True, overflow="ellipsis", ratio=1)


class LiveCurves(keras.callbacks.Callback):
    """Redraw the training curves in a notebook's cell after every epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.history: runs.History = []
        self.handle: Any = None

    def on_train_begin(self, logs: Logs = None) -> None:
        """Begin with an empty figure."""
        self.history, self.handle = [], None

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Put the new figure where the last one was."""
        self.history.append(runs.history_row(epoch, logs or {}))
        try:
            self._draw()
        except Exception as error:
            log.warning("the curves could not be drawn, training goes on: %s", one_line(error))

    def _draw(self) -> None:
        from IPython.display import Image, display

        picture = Image(plots.png(plots.training_curves(self.history)), format="png")
        if self.handle is None:
            self.handle = display(picture, display_id=True)
        else:
            self.handle.update(picture)


class ProgressBar(keras.callbacks.Callback):
    """Show a bar with the time left and the last values, and leave a line for every epoch.

    It is a context manager, so that the bar is cleared away whatever ends the run. Where the console is no
    terminal there is no bar, only the lines.
    """

    def __init__(self, console: Console):
        super().__init__()
        self.console = console
        self.progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=12),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeRemainingColumn(compact=True),
            TextColumn("left"),
            # The values give way where the terminal is narrow, the time left does not.
            TextColumn("{task.fields[values]}", style="dim", markup=False, table_column=VALUES_COLUMN),
            console=console,
            expand=True,
            transient=True,
            disable=not console.is_terminal,
        )
        self.task = self.progress.add_task("", total=None, values="")

    def __enter__(self) -> Self:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def on_train_begin(self, logs: Logs = None) -> None:
        """Learn how long the run is."""
        self.progress.update(self.task, total=self.params["epochs"] * self.params["steps"])

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Name the epoch."""
        # reset, not updated: the epochs that a resumed run has behind it say nothing of the time left
        if epoch > 0 and not self.progress.tasks[0].completed:
            self.progress.reset(self.task, completed=epoch * self.params["steps"])
        self.progress.update(self.task, description=f"epoch {epoch + 1}/{self.params['epochs']}")

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Move on by a step."""
        self.progress.update(self.task, advance=1, values=_text(logs, "", digits=3))

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Leave a line."""
        line = f"epoch {epoch + 1}/{self.params['epochs']}  {_text(logs, '')}"
        if validation := _text(logs, "val_"):
            line += f"  validation  {validation}"
        self.console.print(line, highlight=False, soft_wrap=True)


def _text(logs: Logs, prefix: str, digits: int = 4) -> str:
    values = {name: (logs or {}).get(prefix + name) for name in SHOWN}
    return "  ".join(f"{name} {value:.{digits}f}" for name, value in values.items() if value is not None)
