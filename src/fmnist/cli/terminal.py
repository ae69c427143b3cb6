"""Output of the command line: plain text, tables, one JSON document, errors in one line."""

import json
import logging
import sys
from collections.abc import Sequence
from typing import Any, Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fmnist.errors import one_line, printable

UNLIMITED = 100_000
"""Columns where there is no terminal: lines in a file or a pipe are neither wrapped nor cut."""


class PlainConsole(Console):
    """A console without markup and emoji, which escapes control characters: a file name can contain anything."""

    def __init__(self, **options: Any):
        super().__init__(**options, markup=False, emoji=False, highlight=False)
        if not self.is_terminal:
            self.width = UNLIMITED

    def render_str(self, text: str, **options: Any) -> Text:
        """Return the text with its unprintable characters escaped."""
        return super().render_str("\n".join(map(printable, text.split("\n"))), **options)


stderr_console = PlainConsole(stderr=True)


def console_for(as_json: bool) -> Console:
    """Return the console for people: stdout, or stderr if stdout is for JSON."""
    return stderr_console if as_json else PlainConsole()


def print_json(as_json: bool, document: Any) -> None:
    """Print a JSON document to stdout, if requested."""
    if as_json:
        print(json.dumps(document, indent=2, allow_nan=False))


def print_error(error: BaseException) -> None:
    """Print an error to stderr as one line."""
    print(f"fmnist: error: {one_line(error)}", file=sys.stderr)


def table(
    title: str | None,
    columns: list[str],
    rows: Sequence[Sequence[str | Text]],
    justify: Literal["left", "right"] = "right",
) -> Table:
    """Build a table. The first column is aligned to the left, the others as `justify` says."""
    result = Table(title=title, title_justify="left", title_style="bold", show_header=any(columns))
    for number, name in enumerate(columns):
        result.add_column(name, justify=justify if number else "left", overflow="fold")
    for row in rows:
        result.add_row(*row)
    return result


def show_log() -> None:
    """Print the package's log messages to stderr, one line each."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(PrintableFormatter("fmnist: %(message)s"))
    log = logging.getLogger("fmnist")
    log.handlers = [handler]
    log.setLevel(logging.INFO)


class PrintableFormatter(logging.Formatter):
    """A formatter that escapes control characters: messages contain file names."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        """Return the line without its traceback."""
        return printable(super().formatMessage(record))
