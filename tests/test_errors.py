"""Errors as one line of text."""

import errno

import pytest

import fmnist
from fmnist.errors import MAX_LINE, one_line, printable

ERRORS = {
    "FmnistError": (fmnist.FmnistError("unchanged"), "unchanged"),
    "FmnistError of two lines": (fmnist.FmnistError("first\nsecond"), "first second"),
    "known errno and a file": (
        OSError(errno.EROFS, "x", "/some/file"),
        "/some/file: the file system is read-only; choose a folder that can be written",
    ),
    "full disk without a file": (OSError(errno.ENOSPC, "x"), "no space left on the disk; free some and try again"),
    "known errno without a file": (OSError(errno.EACCES, "x"), "PermissionError: [Errno 13] x"),
    "unknown errno": (OSError(errno.EIO, "x", "/some/file"), "OSError: [Errno 5] x: '/some/file'"),
    "memory": (MemoryError(), "not enough memory; close other programs, or use a smaller batch or data set"),
    "two lines": (ValueError("first line\nsecond line"), "ValueError: first line"),
    "no message": (KeyError(), "KeyError"),
    "control characters": (fmnist.FmnistError("a\x1b[2Jb"), "a\\x1b[2Jb"),
    "too long": (fmnist.FmnistError("x" * 5_000), "x" * MAX_LINE + "..."),
}


@pytest.mark.parametrize("case", ERRORS)
def test_one_line(case):
    error, expected = ERRORS[case]
    assert one_line(error) == expected


def test_printable_escapes_what_cannot_be_printed():
    assert printable("Größe \t\udcff") == "Größe \\t\\udcff"


@pytest.mark.parametrize("case", ERRORS)
def test_errors_as_text_prints_one_line_and_continues(case, capsys):
    error, expected = ERRORS[case]
    with fmnist.errors_as_text():
        raise error
    assert capsys.readouterr().out == f"Error: {expected}\n"


def test_errors_as_text_does_not_catch_an_interrupt():
    with pytest.raises(KeyboardInterrupt), fmnist.errors_as_text():
        raise KeyboardInterrupt
