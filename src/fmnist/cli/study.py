"""The command `study`."""

import threading
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.live import Live
from rich.table import Table

from fmnist.cli.options import AsJson, Cluster, DataFolder, Debug, require_backend
from fmnist.cli.settings import parse_grid, parse_ranges
from fmnist.cli.terminal import console_for, print_json, stderr_console, table
from fmnist.config import PRESETS
from fmnist.errors import FmnistError, quote

if TYPE_CHECKING:
    from fmnist.studies.plan import StudyPlan
    from fmnist.studies.study import StudyState

REFRESH_SECONDS = 1.0
MAX_SHOWN = 20
"""Runs that a live table shows: those that run, then those that failed."""


def study(
    folder: Annotated[Path, typer.Argument(help="Folder of the study: a new one, or one to continue.")],
    preset: Annotated[
        list[str] | None,
        typer.Option(help=f"{', '.join(PRESETS)}; several as fast,tiny.", show_default="fast"),
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(min=1, help="Runs of each configuration.", show_default="3; 1 with --search")
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Number of epochs.", show_default="the preset's")] = None,
    values: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=V1,V2",
            help="A setting and its values; can be repeated. With --search also a range, as learning_rate=.03:.3:log.",
            show_default=False,
        ),
    ] = None,
    search: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Search: train N proposals in the ranges of --set.")
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="Train on all images; needs --test.")] = False,
    test: Annotated[bool, typer.Option("--test", help="Score every run on the test images too, once.")] = False,
    jobs: Annotated[int, typer.Option(min=1, help="Runs at the same time.")] = 1,
    cores: Annotated[
        int | None, typer.Option(min=1, help="Processors of each run.", show_default="all, divided by --jobs")
    ] = None,
    cluster: Cluster = None,
    data: DataFolder = None,
    backend: Annotated[str | None, typer.Option(help="Keras backend.", show_default="tensorflow")] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Train many runs, and compare them. The same command continues after anything."""
    from fmnist.documents import write_json
    from fmnist.files import lock_folder
    from fmnist.runs.folders import RUNS_FOLDER
    from fmnist.studies.engine import stop_children
    from fmnist.studies.plan import PLAN_FILE, RESULTS_FILE, freeze_plan, read_plan
    from fmnist.studies.results import summarize_study, write_html
    from fmnist.studies.search import check_optuna, rounds_of
    from fmnist.studies.study import read_results, run_study, was_tested

    given = any(value is not None for value in (preset, seeds, epochs, values, search, cores, data, backend)) or full
    is_planned = (folder / PLAN_FILE).exists()
    wanted = None
    if given or not is_planned:
        wanted = plan_from_options(preset, seeds, epochs, values, search, full, jobs, cores, data, backend, cluster)
    if wanted and full and search:
        raise FmnistError("a search chooses by validation images, and with --full there are none; leave it out")
    if wanted and full and not test:
        raise FmnistError("with --full there are no validation images; add --test to score the runs on test images")
    folder.mkdir(parents=True, exist_ok=True)
    with lock_folder(folder):
        plan = freeze_plan(folder, wanted) if wanted else read_plan(folder)
        # Once the test images were read, every later result says so.
        test = test or was_tested(folder)
        test = test or plan.configurations[0].config.full
        (folder / RUNS_FOLDER).mkdir(exist_ok=True)
        given_again = {"--jobs": jobs if jobs > 1 else None, "--cluster": cluster and quote(cluster)}
        words = [f" {name} {value}" for name, value in given_again.items() if value]
        command = f"fmnist study {quote(folder)}{''.join(words)}{' --test' if test else ''}"
        require_backend(plan.backend)
        if plan.search:
            check_optuna(plan.search)
        try:
            with open_executor(jobs, cluster) as executor, watch() as on_change:
                state = run_study(plan, rounds_of(folder, plan), executor, test, on_change)
        except (KeyboardInterrupt, SystemExit):
            stop_children()
            stderr_console.print(f"Interrupted; `{command}` continues", soft_wrap=True)
            raise
        varied = [each.name for each in plan.search.ranges] if plan.search else []
        summary = summarize_study(plan, read_results(state, test, varied), test)
        write_json(folder / RESULTS_FILE, summary)
    write_html(folder / "study.html", folder, plan, summary, command)
    print_summary(summary, as_json)
    if summary["failed"]:
        raise FmnistError(f"{summary['failed']} of {summary['planned']} runs failed; `{command}` tries again")


def plan_from_options(
    preset: list[str] | None,
    seeds: int | None,
    epochs: int | None,
    values: list[str] | None,
    search: int | None,
    full: bool,
    jobs: int,
    cores: int | None,
    data: Path | None,
    backend: str | None,
    cluster: str | None,
) -> "StudyPlan":
    """Return the plan that the options ask for."""
    from fmnist.data.dataset import load
    from fmnist.runs.environment import num_cpus
    from fmnist.studies.plan import Search, make_plan

    presets = [name for names in preset or ["fast"] for name in names.split(",")]
    if unknown := [name for name in presets if name not in PRESETS]:
        raise typer.BadParameter(f"{unknown[0]!r} is not one of {', '.join(PRESETS)}", param_hint="'--preset'")
    if cores is None and cluster:
        raise typer.BadParameter("a cluster needs the number of processors of each run", param_hint="'--cores'")
    cores = cores or max(1, num_cpus() // jobs)
    if not cluster and cores * jobs > num_cpus():
        raise typer.BadParameter(
            f"{jobs} runs with {cores} processors each need {jobs * cores}; there are {num_cpus()}",
            param_hint="'--cores'",
        )
    changes: dict[str, Any] = {"full": full} | ({"epochs": epochs} if epochs else {})
    if search is None:
        grid, planned = parse_grid(values or [], changes), None
    else:
        import optuna  # or say now how to install it

        ranges = parse_ranges(values or [], changes)
        grid, planned = {}, Search(trials=search, batch_size=jobs, ranges=tuple(ranges), optuna=optuna.__version__)
    seeds = seeds or (1 if search else 3)
    return make_plan(presets, grid, seeds, cores, backend or "tensorflow", load(data), planned, **changes)


@contextmanager
def open_executor(jobs: int, cluster: str | None) -> Iterator[Executor]:
    """Open what does the runs: threads of this process, each with a child process, or a Dask cluster."""
    if cluster:
        from fmnist.studies.cluster import open_cluster

        with open_cluster(cluster) as executor:
            yield executor
        return
    executor = ThreadPoolExecutor(jobs)
    try:
        yield executor
    finally:
        executor.shutdown(wait=False, cancel_futures=True)


@contextmanager
def watch() -> Iterator[Any]:
    """Show a live table in a terminal, else a line for each run that has ended. Yields a function of the state."""
    if not stderr_console.is_terminal:
        ended: set[str] = set()

        def print_line(state: "StudyState") -> None:
            for each in state.runs:
                name = each.planned.name
                if each.state in {"done", "failed"} and name not in ended:
                    ended.add(name)
                    text = f"{len(ended)}/{state.num_runs} {name}: {each.error or 'done'}"
                    stderr_console.print(text, soft_wrap=True)

        yield print_line
        return
    stop = threading.Event()
    current: list[StudyState] = []
    with Live(console=stderr_console, transient=True, auto_refresh=False) as live:

        def refresh() -> None:
            while not stop.wait(REFRESH_SECONDS):
                if current:
                    current[0].refresh()
                    live.update(state_table(current[0]), refresh=True)

        thread = threading.Thread(target=refresh, daemon=True)
        thread.start()

        def show(state: "StudyState") -> None:
            current[:] = [state]

        try:
            yield show
        finally:
            stop.set()
            thread.join()


def state_table(state: "StudyState") -> Table:
    """Build the live table."""
    counts = ", ".join(f"{state.count(name)} {name}" for name in ("done", "running", "waiting", "failed"))
    left = state.seconds_left()
    title = counts if left is None else f"{counts}; about {left / 60:.0f} min left"
    shown = [each for name in ("running", "failed") for each in state.runs if each.state == name][:MAX_SHOWN]
    rows = [
        [each.planned.name, f"{each.epochs}/{each.planned.config.epochs}", each.error or each.state] for each in shown
    ]
    return table(title, ["run", "epochs", ""], rows, justify="left")


def print_summary(summary: dict[str, Any], as_json: bool) -> None:
    """Print the configurations and their differences."""
    from fmnist.studies.results import format_value

    console, metric = console_for(as_json), summary["metric"]

    def cells(row: dict[str, Any]) -> list[str]:
        mean = "-" if row["mean"] is None else f"{row['mean']:.2%}"
        sd = "-" if row["sd"] is None else f"{row['sd']:.2%}"
        interval = "-" if row["interval_95"] is None else " to ".join(f"{bound:.2%}" for bound in row["interval_95"])
        return [str(row["n"]), mean, sd, interval]

    name = metric.replace("_", " ").replace("val ", "validation ")
    settings = [*summary["configurations"][0].get("settings", {})]  # of a search
    rows = [
        [row["configuration"], *(format_value(row["settings"][each]) for each in settings), *cells(row[metric])]
        for row in summary["configurations"]
    ]
    header = ["configuration", *settings, "n", "mean", "sd", "95 % interval"]
    console.print(table(name.capitalize(), header, rows))
    if summary["differences"]:
        rows = [[f"{row['configuration']} - {row['minus']}", *cells(row)] for row in summary["differences"]]
        console.print(table("Differences", ["on common seeds", "n", "mean", "sd", "95 % interval"], rows))
    print_json(as_json, summary)
