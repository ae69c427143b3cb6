"""Find the data of a run by its hash: folders are moved, and runs go to other machines."""

import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from fmnist.data import download
from fmnist.data.dataset import Dataset, load_from
from fmnist.errors import FmnistError, one_line

if TYPE_CHECKING:
    from fmnist.runs.run import Run

OTHER_COMPUTER = re.compile(r"[\\/]([\\/]|\?)")
r"""Beginning of `\\host\share`. To open such a path, Windows sends the user's name and password hash to that host."""


def recorded_path(run: "Run") -> str | None:
    """Return where the data of a run once was. None for Fashion-MNIST, data in memory, and paths on other computers."""
    path = run.config.data
    return None if path is None or OTHER_COMPUTER.match(path) else path


def find_data(run: "Run", path: str | Path | None = None) -> Dataset:
    """Load the data that a run was trained on, wherever the same images and labels are.

    Args:
        run: the run, with its `environment.json`.
        path: where the data is. None looks at the recorded path and at FMNIST_DATA, and, for Fashion-MNIST, wherever
            `load` does.

    Returns:
        The data set, with the class names that the run has on record.

    Raises:
        FmnistError: if the data is not found, naming what was tried.
    """
    environment = run.environment()
    problems = []
    for place in [path] if path else _places(run, environment.data_sha256):
        try:
            dataset = load_from(place)
            run.check_data(dataset, environment.data_sha256)
        except (FmnistError, OSError) as error:  # OSError: a drive that is gone, a name that is too long
            problems.append(one_line(error))
        else:
            return replace(dataset, class_names=environment.class_names or dataset.class_names)
    if path:
        raise FmnistError(problems[0])
    place = f"on another computer ({run.config.data})" if run.config.data else "in memory"
    tried = "; ".join(problems) or f"it was {place}"
    raise FmnistError(
        f"the data that {run.folder} was trained on was not found: {tried}. Name a folder that has it with --data or "
        "FMNIST_DATA; in Python, pass the data itself as dataset="
    )


def _places(run: "Run", data_sha256: dict[str, str]) -> Iterator[str | None]:
    if path := recorded_path(run):
        yield path
    if path := os.environ.get("FMNIST_DATA"):
        yield path
    if data_sha256 == download.FILES:
        yield None


def data_to_resume(run: "Run", path: str | Path | None = None) -> Dataset:
    """Load the data of an interrupted run as `find_data` does, also if the run has no hash on record yet."""
    try:
        run.environment()
    except FmnistError:
        place = path or recorded_path(run)
        if place is None and run.config.data:
            raise FmnistError(
                f"the data of {run.folder} is on another computer ({run.config.data}); copy it to this one and name "
                "the folder with --data"
            ) from None
        return load_from(place)
    return find_data(run, path)
