"""A study: many runs, whose folders are its only state. It can be continued after anything."""

import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor, Future, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from fmnist.documents import read_json
from fmnist.errors import FmnistError, one_line
from fmnist.runs.listing import test_accuracy
from fmnist.runs.run import Run, open_run
from fmnist.studies.engine import run_task, task_for
from fmnist.studies.plan import RESULTS_FILE, PlannedRun, StudyPlan

State = Literal["waiting", "running", "done", "failed"]


@dataclass
class RunState:
    """How far a run of a study is."""

    planned: PlannedRun
    state: State = "waiting"
    epochs: int = 0
    """Completed ones."""
    error: str | None = None
    """Why it failed, in one line."""


@dataclass
class StudyState:
    """How far a study is."""

    num_runs: int
    """Planned ones."""
    runs: list[RunState] = field(default_factory=list)
    """Those whose settings are known."""
    started: float = field(default_factory=time.monotonic)
    epochs_before: int = 0
    """Epochs that were completed before."""

    def seconds_left(self) -> float | None:
        """Estimate the time to the end from the epochs since the start. None before the first."""
        completed = sum(each.epochs for each in self.runs) - self.epochs_before
        known = sum(each.planned.config.epochs - each.epochs for each in self.runs if each.state != "failed")
        all_epochs = sum(each.planned.config.epochs for each in self.runs)
        left = known + all_epochs * (self.num_runs / max(1, len(self.runs)) - 1)  # some are not proposed yet
        return (time.monotonic() - self.started) / completed * left if completed > 0 else None

    def count(self, state: State) -> int:
        """Return the number of runs in a state. Those that a search has not proposed yet are waiting."""
        unknown = self.num_runs - len(self.runs) if state == "waiting" else 0
        return sum(each.state == state for each in self.runs) + unknown

    def refresh(self) -> None:
        """Read from the run folders how many epochs the runs have that are not finished here."""
        for each in self.runs:
            if each.state in {"waiting", "running"}:
                before, each.epochs = each.epochs, completed_epochs(each.planned)
                if each.epochs > before and each.state == "waiting":
                    each.state = "running"


def finished_run(planned: PlannedRun, test: bool) -> Run | None:
    """Return a run of a study if it is finished, and scored on the test images if it should be."""
    if not (planned.folder / "manifest.json").is_file():
        return None
    try:
        run = open_run(planned.folder)
        is_done = run.status == "finished" and (not test or (run.folder / "evaluation.json").is_file())
    except FmnistError:  # the process that does the run says what is wrong
        return None
    return run if is_done else None


def completed_epochs(planned: PlannedRun) -> int:
    """Return the number of completed epochs of a run."""
    try:
        return len(open_run(planned.folder).history())
    except (FmnistError, OSError):
        return 0


def run_study(
    plan: StudyPlan,
    rounds: Iterable[Sequence[PlannedRun]],
    executor: Executor,
    test: bool = False,
    on_change: Callable[[StudyState], None] = lambda state: None,
) -> StudyState:
    """Do all runs of a study that are not done yet. The study's folder has to be locked.

    Args:
        plan: of the study.
        rounds: its runs. A round is asked for when all runs of the one before have ended.
        executor: does the runs. It calls `run_task`.
        test: whether to score each run on the test images too, once.
        on_change: is called with the state when a run has ended.

    Returns:
        The state in which each run is done or failed. A run that failed does not stop the others. When the engine is
        lost, no further round is asked for.
    """
    state, is_engine_lost = StudyState(plan.num_runs), False
    for planned in rounds:
        added = [RunState(each) for each in planned]
        futures: dict[Future[str | None], RunState] = {}
        for each in added:
            if finished_run(each.planned, test):
                each.state, each.epochs = "done", each.planned.config.epochs
                continue
            task = task_for(each.planned.folder, each.planned.config, plan.data_sha256, test)
            futures[executor.submit(run_task, task, plan.cores, plan.versions, plan.backend)] = each
            each.epochs = completed_epochs(each.planned)
        state.runs += added
        state.epochs_before += sum(each.epochs for each in added)
        state.refresh()
        on_change(state)
        for future in as_completed(futures):
            each = futures[future]
            try:
                each.error = future.result()
            except Exception as error:  # of the engine: the cluster, or a worker too often, was lost
                each.error = one_line(error)
                is_engine_lost = True
            each.state = "failed" if each.error else "done"
            each.epochs = completed_epochs(each.planned)
            on_change(state)
        if is_engine_lost:  # the next round would wait for it, and would follow from results that are missing
            break
    return state


def read_results(state: StudyState, test: bool, settings: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Return a record for each run of a study, in the order of the plan.

    Args:
        state: of the study.
        test: whether the runs were scored on the test images.
        settings: names of those that a search varies, whose values each record has then.
    """
    records = [_read_result(each, test) for each in state.runs]
    if settings:
        for record, each in zip(records, state.runs, strict=True):
            record["settings"] = {name: getattr(each.planned.config, name) for name in settings}
    return records


def _read_result(each: RunState, test: bool) -> dict[str, Any]:
    planned = each.planned
    record: dict[str, Any] = {
        "run": planned.name,
        "configuration": planned.configuration,
        "seed": planned.config.seed,
        "error": each.error,
        "val_accuracy": None,
        "test_accuracy": None,
        "weights_sha256": None,
        "train_seconds": None,
    }
    run = finished_run(planned, test)
    if run is None:
        return {**record, "error": each.error or "not finished"}
    try:
        manifest = run.manifest()
        return record | {
            "val_accuracy": manifest.validation.accuracy if manifest.validation else None,
            "test_accuracy": test_accuracy(run) if test else None,
            "weights_sha256": manifest.sha256[run.weights_path.name],
            "train_seconds": manifest.train_seconds,
        }
    except FmnistError as error:  # a damaged file
        return {**record, "error": one_line(error)}


def values_of(records: Sequence[dict[str, Any]], configuration: str, metric: str) -> dict[int, float]:
    """Return the values of a metric of a configuration by seed, of the runs that have one."""
    return {
        record["seed"]: record[metric]
        for record in records
        if record["configuration"] == configuration and record[metric] is not None
    }


def was_tested(folder: Path) -> bool:
    """Return whether the runs of a study were scored on the test images before."""
    path = folder / RESULTS_FILE
    return path.is_file() and bool(read_json(path, "remove it").get("test"))
