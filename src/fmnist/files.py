"""Files: written whole or not at all, read within bounds, and locked against a second process."""

import hashlib
import logging
import os
import re
import secrets
import stat
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from fmnist.errors import FmnistError, FolderInUseError, type_of

log = logging.getLogger("fmnist")

MAX_DOCUMENT_BYTES = 2**20
"""Limit for JSON documents and tables. This package writes about a thousandth of it."""
MAX_MODEL_BYTES = 2**28
"""Limit for weights and graphs: about 60 million float32 values."""
MAX_NAME_IN_TEMPORARY = 50
"""Characters of a file's name in its temporary name: file systems allow 255 bytes, and a character has up to 4."""


class UnsuitableFileError(FmnistError):
    """A path is no regular file, or the file is too large."""


def as_path(value: object, name: str) -> Path:
    """Return a path that is given as text or as a path.

    Args:
        value: the path.
        name: what it is, for the error message.

    Raises:
        FmnistError: if it is neither.
    """
    if not isinstance(value, str | os.PathLike):
        raise FmnistError(f"{name} is {type_of(value)}; expected a path, as a str or a pathlib.Path")
    return Path(value)


def write_atomic(path: Path, content: bytes | Iterable[bytes]) -> None:
    """Write a file atomically, so that neither a crash nor a reader ever sees half of it.

    The bytes go to a temporary file in the same folder, are synced to the disk, and get their name by `os.replace`.
    The folder is synced last.

    Args:
        path: the file to create or replace; its folder exists.
        content: the complete content, or its pieces one after another.

    Raises:
        OSError: if the file cannot be written, with `path` as its file name. The previous content is intact and no
            temporary file is left.
    """
    temporary = path.with_name(f".{path.name[:MAX_NAME_IN_TEMPORARY]}.{secrets.token_hex(4)}")
    try:
        try:
            with temporary.open("xb") as file:
                file.writelines([content] if isinstance(content, bytes) else content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        _sync_folder(path.parent)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # Windows cannot open a folder, and persists names by itself
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_temporary_file(path: Path) -> bool:
    """Check whether a file name is one that `write_atomic` uses while it writes."""
    return re.fullmatch(r"\..+\.[0-9a-f]{8}", path.name) is not None


def remove_temporary_files(folder: Path) -> None:
    """Remove the temporary files of killed processes. No other process may be writing to the folder."""
    for path in filter(is_temporary_file, list(folder.iterdir())):
        path.unlink(missing_ok=True)


def read_bounded(
    path: Path, max_bytes: int, hint: str, *, follow_links: bool = False, num_bytes: int | None = None
) -> bytes:
    """Read a regular file of bounded size.

    Type and size are checked before anything is read: a pipe or a device might never end, and a link in a downloaded
    folder could point to any file on this machine.

    Args:
        path: the file.
        max_bytes: largest size allowed.
        hint: what to do if the file cannot be used, for the error message.
        follow_links: whether `path` may be a symbolic link.
        num_bytes: read the first bytes only. None reads the whole file.

    Returns:
        The content.

    Raises:
        UnsuitableFileError: if it is no regular file, or too large.
        FmnistError: if it is missing or not readable.
    """
    try:
        status = path.stat() if follow_links else path.lstat()
        if stat.S_ISLNK(status.st_mode):
            raise UnsuitableFileError(
                f"{path} is a symbolic link; expected a regular file. If you trust it, copy its folder with links "
                "resolved (`cp -rL`)"
            )
        if not stat.S_ISREG(status.st_mode):
            raise UnsuitableFileError(f"{path} is {_file_type(status.st_mode)}; expected a regular file, so {hint}")
        if status.st_size > max_bytes:
            raise UnsuitableFileError(f"{path} has {status.st_size:,} bytes; expected at most {max_bytes:,}, so {hint}")
        with path.open("rb") as file:
            return file.read(status.st_size if num_bytes is None else num_bytes)
    except FileNotFoundError as error:
        raise FmnistError(f"{path} is missing; {hint}") from error
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        reason = getattr(error, "strerror", None) or error
        raise FmnistError(f"{path} cannot be read ({reason}); {hint}") from error


def _file_type(mode: int) -> str:
    if stat.S_ISLNK(mode):
        return "a symbolic link"
    return "a folder" if stat.S_ISDIR(mode) else "a pipe or device"


def sha256(content: bytes) -> str:
    """Return the SHA-256 of some bytes as 64 hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


LOCKED_FOLDER = "FMNIST_LOCKED_FOLDER"
"""Environment variable by which a process shares the lock of the process that started it."""


@contextmanager
def lock_folder(folder: Path) -> Iterator[int | None]:
    """Lock a folder until the block or the process ends, however it ends.

    The lock is on the folder itself, so no lock file can be left behind. Windows cannot lock a folder: there the block
    runs without a lock.

    Args:
        folder: an existing folder.

    Yields:
        The file descriptor of the lock. A child process that inherits it keeps the lock. None if there is no lock.

    Raises:
        FolderInUseError: if another process, or this one, holds the lock.
        OSError: if the folder cannot be opened.
    """
    if sys.platform == "win32" or os.environ.get(LOCKED_FOLDER) == str(folder.absolute()):
        yield None
        return
    import fcntl

    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise FolderInUseError(
                f"{folder} is in use by another fmnist process; wait until it has ended, or name another folder"
            ) from error
        except OSError as error:
            log.warning("%s cannot be locked (%s); make sure no other process writes there", folder, error.strerror)
        yield descriptor
    finally:
        os.close(descriptor)
