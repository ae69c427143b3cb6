"""Reading what a stranger may have put into a run folder: plain files of bounded size, and nothing else."""

import json
import stat
from pathlib import Path
from typing import Any

from fmnist.errors import FmnistError

MAX_DOCUMENT_BYTES = 2**20
"""Of a JSON file or a table: a thousand times what this program writes into one."""
MAX_MODEL_BYTES = 2**28
"""Of weights or a graph: room for sixty million float32 values."""


def read(path: Path, most: int, mend: str) -> bytes:
    """Read a file of a run, whoever made it.

    A link is refused, since it could lead to any file of this machine; so is a pipe or a device, which might
    never end. The size is looked at before anything is read.

    Args:
        path: the file.
        most: bytes that it may have.
        mend: what helps if the file cannot be used, for the message.

    Returns:
        Its content.

    Raises:
        FmnistError: naming the file and what is wrong with it.
    """
    try:
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode):
            kind = "a link" if stat.S_ISLNK(status.st_mode) else "no file"
            raise FmnistError(f"{path} is {kind}; a run holds plain files alone, so {mend}")
        if status.st_size > most:
            raise FmnistError(f"{path} has {status.st_size:,} bytes; expected at most {most:,}, so {mend}")
        with path.open("rb") as file:
            return file.read(status.st_size)
    except FileNotFoundError as error:
        raise FmnistError(f"{path} is missing; {mend}") from error
    except OSError as error:
        raise FmnistError(f"{path} cannot be read ({error.strerror or error}); {mend}") from error


def read_json(path: Path, mend: str) -> dict[str, Any]:
    """Read a JSON object as `read` does; NaN and infinities are refused, as they are no JSON.

    Raises:
        FmnistError: naming the file and what is wrong with it.
    """
    try:
        document = json.loads(read(path, MAX_DOCUMENT_BYTES, mend).decode(), parse_constant=_refuse)
    except RecursionError as error:
        raise FmnistError(f"{path} is damaged (nested too deeply); {mend}") from error
    except ValueError as error:
        raise FmnistError(f"{path} is damaged ({error}); {mend}") from error
    if not isinstance(document, dict):
        raise FmnistError(f"{path} is damaged (no JSON object); {mend}")
    return document


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number of JSON")
