"""The commands runs and compare."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from fmnist.cli.options import AsJson, DataFolder, Debug
from fmnist.cli.terminal import console_for, print_json
from fmnist.errors import FmnistError, one_line

if TYPE_CHECKING:
    from fmnist.evaluation.compare import EvaluatedRun


def runs(
    folder: Annotated[Path, typer.Argument(help="Folder of runs, or of folders of runs.")] = Path("runs"),
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """List run folders: status, accuracies, training time, size."""
    from fmnist.cli import research_tables
    from fmnist.runs.listing import describe_run, find_run_folders

    rows = [describe_run(path) for path in find_run_folders(folder)]
    console = console_for(as_json)
    if rows:
        console.print(research_tables.runs_table(rows))
    else:
        console.print(f"No runs in {folder}; `fmnist train` trains one", soft_wrap=True)
    for row in rows:
        if row["error"]:
            console.print(f"{row['run']}: {row['error']}", soft_wrap=True)
    print_json(as_json, rows)


def compare(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN...",
            help="Folders of evaluated runs, or of studies of them, which are compared with the first.",
        ),
    ],
    folder: Annotated[
        Path | None,
        typer.Option("--out", help="Folder for compare.html, which has pictures too.", show_default=False),
    ] = None,
    data: DataFolder = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Compare evaluated runs on the same test images."""
    from fmnist.studies.plan import planned_folders

    runs = [folder for each in runs for folder in planned_folders(each)]
    if len(runs) < 2:
        raise typer.BadParameter("expected two folders of runs or more", param_hint="'RUN...'")
    if data and not folder:
        raise typer.BadParameter("only with --out: the pictures are from there", param_hint="'--data'")
    from fmnist.cli import research_tables
    from fmnist.evaluation.compare import compare as compare_runs
    from fmnist.evaluation.compare import read_evaluated
    from fmnist.runs.run import open_run

    evaluated = read_evaluated([open_run(path) for path in runs])
    comparison = compare_runs(evaluated)
    console = console_for(as_json)
    for table in research_tables.comparison_tables(comparison):
        console.print(table)
    for sentence in research_tables.comparison_sentences(comparison):
        console.print(sentence, soft_wrap=True)
    problem = write_page(folder, data, evaluated, comparison, console) if folder else None
    print_json(as_json, comparison)
    if problem:
        raise FmnistError(problem)


def write_page(
    folder: Path,
    data: Path | None,
    evaluated: "list[EvaluatedRun]",
    comparison: dict[str, Any],
    console: Console,
) -> str | None:
    """Write the page of a comparison. Returns what went wrong, None if nothing did."""
    from fmnist.evaluation.compare_page import write_comparison

    problem = None
    try:
        dataset = evaluated[0].run.load_data(data)
    except (FmnistError, OSError) as error:
        dataset, problem = None, f"the page has no pictures: {one_line(error)}"
    try:
        path = write_comparison(folder, evaluated, comparison, dataset)
    except OSError as error:
        return f"the page is not written: {one_line(error)}"
    console.print(f"Page: {path}", soft_wrap=True)
    return problem
