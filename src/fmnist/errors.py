"""Errors as help: what was given, what was expected, how to mend it, in one line."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager


class FmnistError(Exception):
    """Something that the user can mend. Its message is one line, meant for people."""


OS_ERRORS = {
    errno.ENOSPC: "no space left on the disk; free some and try again",
    errno.EDQUOT: "the disk quota is used up; free some space and try again",
    errno.EFBIG: "the file may not grow that large here; raise the limit (ulimit -f) or choose another disk",
    errno.EACCES: "permission denied; choose a folder of your own or change its permissions",
    errno.EPERM: "permission denied; choose a folder of your own or change its permissions",
    errno.EROFS: "the file system is read-only; choose a folder that can be written",
    errno.ENOENT: "no such file or folder; check the name",
    errno.EISDIR: "is a folder, where a file was expected",
    errno.ENOTDIR: "is a file, where a folder was expected",
    errno.EEXIST: "is a file, where a folder was expected; choose another name",
}

MAX_LINE = 4_000
"""Characters: messages quote what they are about, and that may be long."""

NAMELESS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
"""Errors that are clear without the name of a file, which a failing write does not have."""


def one_line(error: BaseException) -> str:
    """Say any exception in one line.

    Args:
        error: the exception, of whatever kind.

    Returns:
        The message of an `FmnistError` as it is; for an operating-system error the file and the mend;
        for anything else its type and the first line of its message. No longer than `MAX_LINE`, and `printable`.
    """
    line = _first_line(error)
    return printable(line if len(line) <= MAX_LINE else f"{line[:MAX_LINE]}...")


def printable(text: str) -> str:
    """Show what would steer a terminal, or cannot be printed at all, by its number: file names may hold anything."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )


def _first_line(error: BaseException) -> str:
    if isinstance(error, FmnistError):
        return " ".join(str(error).splitlines())
    if isinstance(error, OSError) and error.errno in OS_ERRORS and (error.filename or error.errno in NAMELESS):
        name = f"{error.filename}: " if error.filename else ""
        return " ".join(f"{name}{OS_ERRORS[error.errno]}".splitlines())
    if isinstance(error, MemoryError):
        return "not enough memory; close other programs, or use a smaller batch or data set"
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


@contextmanager
def errors_as_text() -> Iterator[None]:
    """Print any exception as one line of text and go on: for notebooks.

    The cells after it still run. An interrupt by the user is not caught.

    Example:
        >>> with errors_as_text():
        ...     raise FmnistError("no such run: runs/none; `fmnist train` makes one")
        Error: no such run: runs/none; `fmnist train` makes one
    """
    try:
        yield
    except Exception as error:
        print(f"Error: {one_line(error)}")
