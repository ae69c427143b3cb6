"""The folder `runs/`, which has a folder for each run."""

from datetime import UTC, datetime
from pathlib import Path

from fmnist.errors import FmnistError
from fmnist.runs.run import Run, open_run

RUNS_FOLDER = Path("runs")


def make_run_folder(preset: str) -> Path:
    """Create a new folder under `runs/`, named by preset and time. No other process can get the same one."""
    name = f"{preset}-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    RUNS_FOLDER.mkdir(parents=True, exist_ok=True)
    folder, number = RUNS_FOLDER / name, 1
    while True:
        try:
            folder.mkdir()
            return folder
        except FileExistsError:
            number += 1
            folder = RUNS_FOLDER / f"{name}-{number}"


def finished_runs(runs_folder: Path) -> list[Run]:
    """Return the runs in a folder that have a manifest. Folders that cannot be read as a run are skipped."""
    found = []
    for path in runs_folder.glob("*/manifest.json"):
        try:
            found.append(open_run(path.parent))
        except (FmnistError, OSError):  # an OSError: the folder may not be listed
            continue
    return found


def newest_finished_run(runs_folder: Path | None = None) -> Run:
    """Return the run that was started last, of those with a manifest.

    Raises:
        FmnistError: if there is none.
    """
    runs_folder = runs_folder or RUNS_FOLDER
    runs = finished_runs(runs_folder)
    if not runs:
        raise FmnistError(f"no finished run in {runs_folder.absolute()}; `fmnist train` trains one")
    return max(runs, key=lambda run: run.created)
