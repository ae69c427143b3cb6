"""A Dask cluster, whose scheduler and workers the user starts."""

import json
import socket
from collections.abc import Iterator
from concurrent.futures import CancelledError, Executor
from contextlib import contextmanager
from pathlib import Path

from fmnist.errors import FmnistError, one_line

TIMEOUT_SECONDS = 10
RETRIES = 10
"""Of a call whose worker is lost."""


@contextmanager
def open_cluster(scheduler: str) -> Iterator[Executor]:
    """Connect to a cluster.

    Args:
        scheduler: its scheduler file, or its address, as `tcp://127.0.0.1:8786`.

    Yields:
        An executor that runs a function in a thread of a worker.

    Raises:
        FmnistError: if there is no scheduler, or it is lost.
    """
    from distributed import Client, KilledWorker

    is_file = Path(scheduler).is_file()
    start = "start one: dask scheduler --host 127.0.0.1 --scheduler-file scheduler.json"
    try:  # a client of Dask would wait for it, twice
        address = json.loads(Path(scheduler).read_text())["address"] if is_file else scheduler
        host, _, port = address.rpartition("://")[2].rpartition(":")
        socket.create_connection((host.strip("[]"), int(port)), TIMEOUT_SECONDS).close()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FmnistError(
            f"no Dask scheduler answers at {scheduler} ({one_line(error)}); expected a scheduler file, or an address "
            f"as tcp://127.0.0.1:8786, so {start}"
        ) from error
    options = {"scheduler_file": scheduler} if is_file else {"address": scheduler}
    try:
        client = Client(**options, timeout=TIMEOUT_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        raise FmnistError(f"no Dask scheduler answers at {scheduler} ({one_line(error)}); {start}") from error
    with client:
        try:
            yield client.get_executor(pure=False, retries=RETRIES)
        except (CancelledError, KilledWorker) as error:
            raise FmnistError(
                f"the cluster was lost ({one_line(error) or 'its scheduler ended'}); the same command continues"
            ) from error
