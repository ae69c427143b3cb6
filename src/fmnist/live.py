"""Watch a run while it trains: a progress bar in a terminal, a figure in a notebook."""

from typing import Any, Self

import keras
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from fmnist import plots, runs

Logs = dict[str, float] | None
SHOWN = ("loss", "accuracy", "precision", "recall")


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
        from IPython.display import Image, display

        self.history.append(runs.history_row(epoch, logs or {}))
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
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[values]}", style="dim"),
            console=console,
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
        self.progress.update(self.task, description=f"epoch {epoch + 1}/{self.params['epochs']}")

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Move on by a step."""
        self.progress.update(self.task, advance=1, values=_text(logs, ""))

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Leave a line."""
        line = f"epoch {epoch + 1}/{self.params['epochs']}  {_text(logs, '')}"
        if validation := _text(logs, "val_"):
            line += f"  [bold]validation[/bold]  {validation}"
        self.console.print(line, highlight=False, soft_wrap=True)


def _text(logs: Logs, prefix: str) -> str:
    values = {name: (logs or {}).get(prefix + name) for name in SHOWN}
    return "  ".join(f"{name} {value:.4f}" for name, value in values.items() if value is not None)
