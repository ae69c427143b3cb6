"""Errors for people, in one line: what was given, what was expected, what to do."""

import errno
import os
import platform
import shlex
import subprocess
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager


class FmnistError(Exception):
    """An error that the user can fix. Its message is one line, meant for people."""


class FolderInUseError(FmnistError):
    """Another process, or this one, has locked a folder."""


IS_TENSORFLOW_CPU_AVAILABLE = sys.platform == "win32" or (sys.platform, platform.machine()) == ("linux", "x86_64")
TENSORFLOW_EXTRA = "tensorflow-cpu" if IS_TENSORFLOW_CPU_AVAILABLE else "tensorflow"
"""The smallest TensorFlow build for this platform."""
INSTALL_TRAINING = f"`pip install 'fmnist[train,{TENSORFLOW_EXTRA}]'`"

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
"""What to print, after the name of the file, for each number of an operating-system error."""

NO_FILE_NAME_NEEDED = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
"""Errors that are clear without the name of the file. Failed writes do not carry it."""

JOINERS = "\u200c\u200d"
"""Zero width non-joiner and joiner."""

MAX_LINE = 4_000
"""Characters. Messages quote values, which may be long."""


def one_line(error: BaseException) -> str:
    """Format any exception as one line.

    Args:
        error: the exception.

    Returns:
        The message of an `FmnistError` itself; the file and a hint for a known operating-system error; otherwise the
        type of the exception and the first line of its message. At most `MAX_LINE` characters plus an ellipsis, before
        `printable` escapes some of them.
    """
    line = _first_line(error)
    return printable(line if len(line) <= MAX_LINE else f"{line[:MAX_LINE]}...")


def type_of(value: object) -> str:
    """Return what a value of a wrong type is, for a message: `a dict`, `None`."""
    return "None" if value is None else f"a value of type {type(value).__name__}"


def quote(path: object) -> str:
    """Quote a path for a command in a message, so that the command can be pasted into a shell."""
    text = str(path)
    return shlex.quote(text) if os.name != "nt" else subprocess.list2cmdline([text])


def printable(text: str) -> str:
    """Escape characters that control a terminal or cannot be encoded, because file names may contain anything."""
    return "".join(
        character if is_displayable(character) else character.encode("unicode_escape").decode() for character in text
    )


def is_displayable(character: str) -> bool:
    """Check that a character can be displayed and controls nothing: no line end, no override of the direction.

    The joiners are what family emoji and the scripts of India and Persia are written with.
    """
    return character.isprintable() or character in JOINERS or unicodedata.category(character) == "Zs"


def _first_line(error: BaseException) -> str:
    if isinstance(error, FmnistError):
        return " ".join(str(error).splitlines())
    if isinstance(error, OSError) and error.errno in OS_ERRORS:
        if error.filename:
            return " ".join(f"{error.filename}: {OS_ERRORS[error.errno]}".splitlines())
        if error.errno in NO_FILE_NAME_NEEDED:
            return OS_ERRORS[error.errno]
    if isinstance(error, MemoryError):
        return "not enough memory; close other programs, or use a smaller batch or data set"
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


@contextmanager
def errors_as_text() -> Iterator[None]:
    """Print any exception as one line of text and continue, for notebooks.

    The cells after it still run. An interrupt by the user is not caught.

    Example:
        >>> with errors_as_text():
        ...     raise FmnistError("no such run: runs/none; `fmnist train` creates one")
        Error: no such run: runs/none; `fmnist train` creates one
    """
    try:
        yield
    except Exception as error:
        print(f"Error: {one_line(error)}")
