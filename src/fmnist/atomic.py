"""Writing a file so that it is there whole or not at all."""

import json
import os
import tempfile
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
        OSError: if it cannot be written; what was at `path` before is intact and nothing is left beside it.
    """
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes files for their owner alone.
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    _sync_folder(path.parent)


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
