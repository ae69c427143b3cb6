"""The history of a run: one row per completed epoch, in `history.csv`."""

import csv
import io
import os
from collections.abc import Mapping
from pathlib import Path

from fmnist.errors import FmnistError
from fmnist.files import MAX_DOCUMENT_BYTES, read_bounded, write_atomic

HISTORY_COLUMNS = (
    "epoch", "loss", "accuracy", "precision", "recall",
    "val_loss", "val_accuracy", "val_precision", "val_recall", "learning_rate", "seconds",
)  # fmt: skip

History = list[dict[str, float | None]]
"""Rows with the keys of `HISTORY_COLUMNS`, oldest first. Values are None where there is no validation split."""


def history_row(epoch: int, values: Mapping[str, float]) -> dict[str, float | None]:
    """Convert Keras' logs of an epoch to a row of the history.

    Args:
        epoch: counted from 0, as in Keras. The row counts from 1.
        values: by column. Missing columns become None, other names are dropped.
    """
    return {name: {"epoch": epoch + 1, **values}.get(name) for name in HISTORY_COLUMNS}


def read_history(path: Path, hint: str) -> History:
    """Read `history.csv`. Returns no rows if there is no such file.

    Args:
        path: the file.
        hint: what to do if it is damaged, for the error message.

    Raises:
        FmnistError: if it is damaged.
    """
    if not os.path.lexists(path):
        return []
    try:
        text = read_bounded(path, MAX_DOCUMENT_BYTES, hint).decode()
        columns, *rows = csv.reader(io.StringIO(text, newline=""))
        if tuple(columns) != HISTORY_COLUMNS:
            raise ValueError("it has other columns")
        return [
            {name: float(cell) if cell else None for name, cell in zip(HISTORY_COLUMNS, row, strict=True)}
            for row in rows
        ]
    except (csv.Error, ValueError) as error:
        raise FmnistError(f"{path} is damaged ({error}); {hint}") from error


def write_history(path: Path, history: History) -> None:
    """Write `history.csv` atomically."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, HISTORY_COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    write_atomic(path, text.getvalue().encode())
