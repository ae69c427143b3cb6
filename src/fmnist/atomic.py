"""Writing a file so that it is there whole or not at all."""

import json
import os
import re
import secrets
from pathlib import Path
from typing import Any


def write(path: Path, content: bytes) -> None:
    """Put content at a path in one step, so that neither a crash nor a reader meets half of it.

    The bytes go to a temporary file in the same folder, reach the disk, and take the name with
    `os.replace`; then the folder itself is made to reach the disk.

    Args:
        path: the file to make or replace; its folder exists.
        content: all of it.

    Raises:
        OSError: if it cannot be written, with `path` as its file name; what was there before is intact and nothing
            is left beside it.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        try:
            with temporary.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        _sync_folder(path.parent)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def is_leftover(path: Path) -> bool:
    """Whether a file is one that `write` began in a process that was killed."""
    return re.fullmatch(r"\..+\.[0-9a-f]{8}", path.name) is not None


def remove_leftovers(folder: Path) -> None:
    """Remove what killed processes left in a folder; nobody else may be writing there."""
    for path in filter(is_leftover, list(folder.iterdir())):
        path.unlink(missing_ok=True)


def write_json(path: Path, document: Any) -> None:
    """Put a document at a path as indented JSON, in one step, as `write` does."""
    write(path, (json.dumps(document, indent=2, allow_nan=False) + "\n").encode())


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # Windows cannot open a folder, and keeps its names without being asked
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
