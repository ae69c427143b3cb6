"""`fmnist predict --out`: answers in parts, with progress, rate and time left."""

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import BrokenExecutor, Executor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

import typer
from rich.progress import BarColumn, Progress, TextColumn

from fmnist.cli.pictures import STDIN, describe_passed_over, list_pictures
from fmnist.cli.terminal import console_for, print_json, stderr_console
from fmnist.errors import FmnistError
from fmnist.files import lock_folder
from fmnist.inference.classifier import Classifier
from fmnist.inference.executors import SerialExecutor, worker_processes
from fmnist.inference.parts import Work, answer_parts, find_missing
from fmnist.inference.plan import Kind, describe_model, freeze_plan
from fmnist.runs.environment import installed_versions, num_cpus
from fmnist.runs.run import Run

NEEDED_VERSIONS = ("fmnist", "numpy", "onnxruntime", "opencv-python-headless", "pillow")
"""Packages that have to be the same on all machines of a cluster."""
SECONDS_BETWEEN_LINES = 30
"""Of the progress, where there is no terminal."""


def predict_parts(
    named: Iterable[Path],
    model: Run | Path,
    kind: Kind,
    out: Path,
    jobs: int,
    cluster: str | None = None,
    *,
    as_json: bool = False,
) -> None:
    """Classify pictures in parts into a folder, or the parts that it has not yet.

    Args:
        named: pictures, and folders of pictures.
        model: of all answers.
        kind: what all pictures are taken for.
        out: the folder.
        jobs: processes, each with one thread. One is this process, with a thread for each processor.
        cluster: scheduler file or address of a Dask cluster, whose threads classify a part each.
        as_json: print a summary as JSON.

    Raises:
        FmnistError: if the folder is in use, or has answers of another model or to other pictures.
        typer.Exit: with code 1 if there is an error among the answers, 130 after Ctrl-C.
    """
    started = time.monotonic()
    is_pretrained = isinstance(model, Run) and model.is_pretrained
    path = None if is_pretrained else (model.folder if isinstance(model, Run) else model).absolute()
    record = describe_model(Classifier.load(model))
    stderr_console.print(f"Model: {record.name}", soft_wrap=True)
    out.mkdir(parents=True, exist_ok=True)
    with lock_folder(out):
        passed_over: list[str] = []
        others = (name for name in named if name != out)  # `photos/*` names also photos/answers, the second time
        plan = freeze_plan(out, record, kind, _names(list_pictures(others, passed_over)))
        if passed_over:
            stderr_console.print(describe_passed_over(passed_over), soft_wrap=True)
        threads = num_cpus() if jobs == 1 and not cluster else 1
        work = Work(out.absolute(), plan, path, threads, installed_versions(NEEDED_VERSIONS))
        counts, missing = find_missing(work)
        num_pictures, is_interrupted = plan.pictures.number, False
        if sum(counts):
            stderr_console.print(f"{sum(counts):,} of {num_pictures:,} pictures were answered before", soft_wrap=True)
        jobs = min(jobs, len(missing))
        # A cluster's size can change. It keeps its own queue.
        max_waiting = len(missing) if cluster else 2 * jobs if jobs > 1 else 1
        try:
            with (
                _open_executor(jobs, cluster if missing else None) as executor,
                _watch(num_pictures, sum(counts)) as show,
            ):
                for found in answer_parts(work, missing, executor, max_waiting):
                    counts += found
                    show(sum(counts))
        except KeyboardInterrupt:
            is_interrupted = True
        except BrokenExecutor as error:
            raise FmnistError(
                "a process that classified pictures was ended from outside, perhaps because memory ran out; the same "
                f"command continues, and a smaller --jobs than {jobs} needs less memory"
            ) from error
    summary = {
        "out": str(out),
        "num_pictures": num_pictures,
        "num_answered": counts.answered,
        "num_errors": counts.errors,
        "num_parts": -(-num_pictures // plan.part_size),
        "seconds": round(time.monotonic() - started, 3),
    }
    console = console_for(as_json)
    if is_interrupted:
        line = f"Interrupted after {sum(counts):,} of {num_pictures:,} pictures; the same command continues"
        stderr_console.print(line, soft_wrap=True)
    else:
        console.print(_summarize(summary), soft_wrap=True)
    print_json(as_json, summary)
    if is_interrupted or counts.errors:
        raise typer.Exit(130 if is_interrupted else 1)


def describe_progress(done: int, total: int, rate: float) -> str:
    """Format the progress as one line.

    Args:
        done: pictures, those of earlier commands included.
        total: pictures.
        rate: pictures per second; 0 if it is not known yet.
    """
    line = f"{done:,} of {total:,} pictures"
    if not rate:
        return line
    left = timedelta(seconds=round((total - done) / rate))
    return f"{line}, {rate:,.{0 if rate >= 10 else 1}f}/s, {left} left"


@contextmanager
def _watch(total: int, before: int) -> Iterator[Callable[[int], None]]:
    """Show the progress: a bar in a terminal, otherwise a line now and then.

    Args:
        total: number of pictures.
        before: pictures that were done before, which do not count in the rate.

    Yields:
        A function to call with the number of pictures that are done.
    """
    started = last = time.monotonic()
    is_terminal = stderr_console.is_terminal
    columns = BarColumn(), TextColumn("{task.description}", markup=False)
    with Progress(*columns, console=stderr_console, transient=True, disable=not is_terminal) as progress:
        task = progress.add_task(describe_progress(before, total, 0), total=total, completed=before)

        def show(done: int) -> None:
            nonlocal last
            now = time.monotonic()
            line = describe_progress(done, total, (done - before) / max(now - started, 1e-9))
            progress.update(task, completed=done, description=line)
            if not is_terminal and now - last >= SECONDS_BETWEEN_LINES:
                last = now
                stderr_console.print(line, soft_wrap=True)

        yield show


def _open_executor(jobs: int, cluster: str | None) -> AbstractContextManager[Executor]:
    if cluster:
        from fmnist.studies.cluster import open_cluster

        return open_cluster(cluster)
    return worker_processes(jobs) if jobs > 1 else nullcontext(SerialExecutor())


def _names(pictures: Iterable[Path]) -> Iterator[str]:
    for picture in pictures:
        if picture == STDIN:
            raise FmnistError("- is standard input, which cannot be read again; expected files with --out")
        yield str(picture)


def _summarize(summary: dict[str, Any]) -> str:
    errors = f"; for {summary['num_errors']:,} of them the line has an error" if summary["num_errors"] else ""
    return f"{summary['num_pictures']:,} pictures have a line in {summary['out']}{errors}"
