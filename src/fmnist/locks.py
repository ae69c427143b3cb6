"""One process at a time in a folder."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fmnist.errors import FmnistError

log = logging.getLogger("fmnist")


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Keep a folder to oneself until the block ends, or the process does, however that ends.

    The lock is on the folder itself, so it leaves no file behind. Windows cannot lock a folder; there is none there.

    Args:
        folder: an existing one.

    Raises:
        FmnistError: if it is held already.
        OSError: if it cannot be opened.
    """
    if sys.platform == "win32":
        yield
        return
    import fcntl

    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise FmnistError(
                f"{folder} is in use by another fmnist; wait until that has ended, or name another folder"
            ) from error
        except OSError as error:
            log.warning("%s cannot be locked (%s); see that no other fmnist writes there", folder, error.strerror)
        yield
    finally:
        os.close(descriptor)
