"""What the command line prints with: text as it is, tables, one JSON document, errors in one line."""

import json
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fmnist.errors import one_line, printable


class Terminal(Console):
    """Shows text as it is, in tables too: no markup, and nothing in the name of a file or a class steers it."""

    def __init__(self, **options: Any):
        super().__init__(**options, markup=False, emoji=False, highlight=False)

    def render_str(self, text: str, **options: Any) -> Text:
        """Give the text with its unprintable characters by number."""
        return super().render_str("\n".join(map(printable, text.split("\n"))), **options)


errors = Terminal(stderr=True)


def table(
    title: str | None,
    columns: list[str],
    rows: Sequence[Sequence[str | Text]],
    justify: Literal["left", "right"] = "right",
) -> Table:
    """Lay out text in columns: the first to the left, the others as asked."""
    result = Table(title=title, title_justify="left", title_style="bold", show_header=any(columns))
    for number, name in enumerate(columns):
        result.add_column(name, justify=justify if number else "left")
    for row in rows:
        result.add_row(*row)
    return result


def out(as_json: bool) -> Console:
    """Give the console for people: stdout, unless that is kept for JSON."""
    return errors if as_json else Terminal()


def give(as_json: bool, document: Any) -> None:
    """Print the one JSON document, if it was asked for."""
    if as_json:
        print(json.dumps(document, indent=2, allow_nan=False))


def complain(error: BaseException) -> None:
    """Print an error as one line."""
    print(f"fmnist: error: {one_line(error)}", file=sys.stderr)


@contextmanager
def quiet_stderr() -> Iterator[None]:
    """Keep TensorFlow's greeting, which no setting turns off, out of the terminal."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def show_log() -> None:
    """Let what the package logs stand on stderr, a line each."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(PrintableFormatter("fmnist: %(message)s"))
    log = logging.getLogger("fmnist")
    log.handlers = [handler]
    log.setLevel(logging.INFO)


class PrintableFormatter(logging.Formatter):
    """Log lines name files, and a file's name may hold anything."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        """Give the line without its traceback."""
        return printable(super().formatMessage(record))
