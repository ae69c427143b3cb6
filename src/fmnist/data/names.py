"""The names of the classes: what a name may be, and `labels.txt`."""

import codecs
import os
import re
import unicodedata
from pathlib import Path
from typing import Any

from fmnist.config import MAX_CLASSES
from fmnist.errors import FmnistError, is_displayable, printable
from fmnist.files import read_bounded, write_atomic

NAMES_FILE = "labels.txt"
MAX_NAME_LENGTH = 100
"""Limit for the name of a class, in characters."""
MAX_NAMES_FILE_BYTES = 100_000
"""Limit for `labels.txt`: `MAX_CLASSES` names of `MAX_NAME_LENGTH` characters need less in any encoding."""
BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16, whose mark it begins with
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""Encoding by what a text begins with. Windows' editors write UTF-16 with such a mark."""


def read_names(path: Path) -> tuple[str, ...]:
    """Read class names from a text file, one a line, in the order of the labels.

    Args:
        path: UTF-8, or any encoding with a byte order mark, with any line ends. Blank lines, and blanks around a name,
            are ignored, and so are numbers if every line begins with its own.

    Returns:
        The names in Unicode's composed form (NFC).

    Raises:
        FmnistError: if the file is missing, no text, or has an unsuitable name.
    """
    content = read_bounded(path, MAX_NAMES_FILE_BYTES, "write one class name per line", follow_links=True)
    encoding = next((name for mark, name in BYTE_ORDER_MARKS.items() if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        raise FmnistError(f"{path} cannot be read as text ({error}); save it as UTF-8") from error
    if "\0" in text:
        raise FmnistError(f"{path} is no text in UTF-8, or UTF-16 without a byte order mark; save it as UTF-8")
    # Not `str.splitlines`, which also splits at form feeds and other characters inside a line.
    lines = [line for line in re.split(r"\r\n|\r|\n", text) if line.strip()]
    return check_names(_without_numbers(lines), str(path))


def _without_numbers(lines: list[str]) -> list[str]:
    """Return what follows the numbers, if every line begins with its own, from 0, and the rests are different names."""
    matches = [re.fullmatch(r"\s*([0-9]{1,3})(?:\s|[:,;)=]|\.\s)\s*(\S.*)", line) for line in lines]
    numbered = [(int(match[1]), match[2].strip()) for match in matches if match]
    is_numbered = len(lines) > 1 and [number for number, _ in numbered] == list(range(len(lines)))
    names = [name for _, name in numbered]
    return names if is_numbered and len(set(names)) == len(names) else lines


def check_names(names: Any, source: str) -> tuple[str, ...]:
    """Return class names without blanks around them, in Unicode's composed form.

    Args:
        names: the names, in the order of the labels.
        source: where they come from, for error messages.

    Raises:
        FmnistError: naming the first name that is too long, has a character that cannot be seen, or comes twice.
    """
    normal: list[str] = []
    for given in names:
        name = unicodedata.normalize("NFC", str(given)).strip()
        shown = f"'{printable(name)[:100]}'"
        if hidden := next((character for character in name if not is_displayable(character)), None):
            described = "a tab" if hidden == "\t" else f"the control character U+{ord(hidden):04X}"
            hint = "write one name per line, without its number" if hidden == "\t" else "remove it"
            raise FmnistError(f"{source} has the name {shown} with {described}; {hint}")
        if len(name) > MAX_NAME_LENGTH:
            raise FmnistError(f"{source} has a name of {len(name)} characters; expected at most {MAX_NAME_LENGTH}")
        if not _is_name(name):
            raise FmnistError(f"{source} has the name {shown}, of which nothing can be seen; write another name")
        if name in normal:
            raise FmnistError(f"{source} has the same name twice, {shown}; expected a different name for each class")
        normal.append(name)
    return tuple(normal)


def are_class_names(value: Any) -> bool:
    """Check that a value is a list or tuple of one to `MAX_CLASSES` different names that can be seen."""
    return (
        isinstance(value, list | tuple)
        and 1 <= len(value) <= MAX_CLASSES
        and all(isinstance(name, str) and _is_name(name) for name in value)
        and len({unicodedata.normalize("NFC", name) for name in value}) == len(value)
    )


def _is_name(name: str) -> bool:
    return (
        len(name) <= MAX_NAME_LENGTH
        and all(map(is_displayable, name))
        and any(character.isprintable() and not character.isspace() for character in name)
    )


def names_beside(path: Path, num_classes: int) -> tuple[str, ...] | None:
    """Read `labels.txt` beside the files of a data set. Returns None if there is none.

    Args:
        path: the folder.
        num_classes: number of classes of the data set.

    Raises:
        FmnistError: if the file has another number of names, or cannot be used.
    """
    file = path / NAMES_FILE
    if not os.path.lexists(file):
        return None
    names = read_names(file)
    if len(names) != num_classes:
        raise FmnistError(
            f"{file} has {len(names)} names; expected {num_classes}, because the labels are 0 to {num_classes - 1}: "
            "one name per line for each class, in the order of the labels, without a header"
        )
    return names


def write_names(folder: Path, class_names: tuple[str, ...]) -> None:
    """Write `labels.txt` into a folder."""
    write_atomic(folder / NAMES_FILE, ("\n".join(class_names) + "\n").encode())
