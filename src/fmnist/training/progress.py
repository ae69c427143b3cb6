"""Watch a training: a progress bar in a terminal, a figure in a notebook."""

import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self

import keras
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column

from fmnist import curves, plots
from fmnist.config import Config
from fmnist.errors import one_line
from fmnist.runs.history import History, history_row

log = logging.getLogger("fmnist")

Logs = dict[str, float] | None
SHOWN_METRICS = ("loss", "accuracy", "precision", "recall")


@contextmanager
def watch(verbose: bool | None, callbacks: Sequence[keras.callbacks.Callback]) -> Iterator[list["ProgressBar"]]:
    """Show the progress of a training where a person watches.

    Args:
        verbose: whether to show it. None shows it in a terminal, and in a notebook without `LiveCurves`.
        callbacks: those of the training.

    Yields:
        The callback that shows it, in a list; an empty list shows nothing.
    """
    is_notebook = Console().is_jupyter
    if verbose is None:
        has_curves = any(isinstance(callback, LiveCurves) for callback in callbacks)
        verbose = not has_curves if is_notebook else bool(sys.stderr and sys.stderr.isatty())
    if not verbose:
        yield []
        return
    # A notebook shows stderr as an error, and rich's bar would need another package there: it gets a line an epoch.
    notebook = Console(file=sys.stdout, force_terminal=False, force_jupyter=False)
    with ProgressBar(notebook if is_notebook else Console(stderr=True)) as bar:
        yield [bar]


class LiveCurves(keras.callbacks.Callback):
    """Redraw the training curves in the output of a notebook's cell after every epoch."""

    def __init__(self, config: Config | None = None) -> None:
        """Create the callback.

        Args:
            config: of the run, if `fmnist.train` trains it: then epochs on hard examples are marked.
        """
        super().__init__()
        self.first_hard_epoch = config.first_hard_epoch if config else None
        self.history: History = []
        self.display_handle: Any = None

    def on_train_begin(self, logs: Logs = None) -> None:
        """Start with an empty figure."""
        self.history, self.display_handle = [], None

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Replace the figure."""
        self.history.append(history_row(epoch, logs or {}))
        try:
            self._draw()
        except Exception as error:
            log.warning("the curves could not be drawn, training continues: %s", one_line(error))

    def _draw(self) -> None:
        from IPython.display import Image, display

        picture = Image(plots.png(curves.training_curves(self.history, self.first_hard_epoch)), format="png")
        if self.display_handle is None:
            self.display_handle = display(picture, display_id=True)
        else:
            self.display_handle.update(picture)


class ProgressBar(keras.callbacks.Callback):
    """Show a bar with the remaining time and the latest metrics, and print a line for every epoch.

    It is a context manager, so that the bar is removed however the training ends. A console that is no terminal gets
    the lines only.
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
            # In a narrow terminal the metrics are cut off, the remaining time is not.
            TextColumn(
                "{task.fields[metrics]}",
                style="dim",
                markup=False,
                table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1),
            ),
            console=console,
            expand=True,
            transient=True,
            disable=not console.is_terminal,
        )
        self.task = self.progress.add_task("", total=None, metrics="")

    def __enter__(self) -> Self:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def on_train_begin(self, logs: Logs = None) -> None:
        """Set the number of steps."""
        self.progress.update(self.task, total=self.params["epochs"] * self.params["steps"])

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Show the number of the epoch."""
        # reset and not update: the epochs before a resume must not count in the estimate of the remaining time
        if epoch > 0 and not self.progress.tasks[0].completed:
            self.progress.reset(self.task, completed=epoch * self.params["steps"])
        self.progress.update(self.task, description=f"epoch {epoch + 1}/{self.params['epochs']}")

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Advance by a step."""
        self.progress.update(self.task, advance=1, metrics=_format_metrics(logs, "", digits=3))

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Print a line."""
        line = f"epoch {epoch + 1}/{self.params['epochs']}  {_format_metrics(logs, '')}"
        if validation := _format_metrics(logs, "val_"):
            line += f"  validation  {validation}"
        self.console.print(line, highlight=False, soft_wrap=True)


def _format_metrics(logs: Logs, prefix: str, digits: int = 4) -> str:
    values = {name: (logs or {}).get(prefix + name) for name in SHOWN_METRICS}
    return "  ".join(f"{name} {value:.{digits}f}" for name, value in values.items() if value is not None)
